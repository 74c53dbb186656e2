// Package clienttest shows that a client generated from /openapi.json compiles and reads what the server serves.
// It is only a test: nothing of it is in the binary, and the client is not kept.
package clienttest
