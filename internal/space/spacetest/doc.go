// Package spacetest checks the statements of a server's test with PostgreSQL's own parser: each must name the space
// that it touches, so that it can be sent to the one machine with that space.
//
// It is built only under the race detector, as in `make test`. Building the parser, which is C, takes a minute, and
// `make mutants` changes statements to see their effect, not their spelling.
package spacetest
