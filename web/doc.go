// Package web is the server-rendered pages: html/template, one stylesheet, and scripts that only
// carry something on (a link's start, an invitation's token). So far the page at /, which says who
// is signed in, the page of an invitation, those for what went wrong, and /docs, where the API can
// be tried with no outside network.
package web
