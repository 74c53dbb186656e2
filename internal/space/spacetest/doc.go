// Package spacetest reads the statements of a server's test, by PostgreSQL's own parser: each must name the
// space of what it touches, so that it can be sent to the one machine that has it.
package spacetest
