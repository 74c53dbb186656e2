// Package servertest starts a whole noted for a test: a database of its own, the dev provider over HTTP, the four
// people, and the server on a loopback port. Tests of every room talk to it as clients do. They touch the database
// only to move time, which a client cannot.
package servertest
