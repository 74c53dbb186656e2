// Package spacetest reads the statements of a server's test, by PostgreSQL's own parser: each must name the
// space of what it touches, so that it can be sent to the one machine that has it.
//
// All of it is built under the race detector alone, as `make test` does: to build the parser, which is C, takes a minute,
// and `make mutants` changes statements, of which it wants to know what becomes of them, not whether they are spelt right.
package spacetest
