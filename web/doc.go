// Package web is the server-rendered pages: html/template, one stylesheet, and scripts that only pass
// something on (a link's start, an invitation's token). The pages are /, which shows who is signed in,
// /invitation, error pages, and /docs, where the API can be tried without an outside network.
package web
