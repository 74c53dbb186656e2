// Package web is the server-rendered pages: html/template, one stylesheet, no script of
// ours. So far the page at /, which says who is signed in, the page for a sign-in that
// failed, and /docs, where the API can be tried with no outside network.
package web
