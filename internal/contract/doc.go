// Package contract checks a server's answers against its OpenAPI document. Only tests import it: the tests' server
// checks each of its answers with it, and so does the client of the end-to-end tests.
package contract
