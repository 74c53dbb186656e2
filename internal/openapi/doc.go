// Package openapi completes the OpenAPI document: what follows from an operation's declaration alone is
// written here once, and no room writes it by hand. These are the statuses of its problems, their headers,
// its examples, and which members may be null.
package openapi
