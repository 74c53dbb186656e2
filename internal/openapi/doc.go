// Package openapi completes the OpenAPI document. It derives from an operation's declaration what no room should
// write by hand: the statuses of its problems, their headers, its examples, and which members may be null.
package openapi
