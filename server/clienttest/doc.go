// Package clienttest shows that a client that is generated from /openapi.json compiles, and reads what the server
// serves. It is a test alone: nothing of it is in the binary, and the client is not kept.
package clienttest
