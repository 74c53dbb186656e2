// Command load answers: how much of a bare handler's speed is left with everything that noted does?
//
//	make bench
//
// It runs noted's server and a bare one side by side, each in its own process, on one private PostgreSQL, with as many
// connections to it. The bare one is chi and pgx: the same statement, the same JSON, and nothing else. It has no
// authentication, no decision, no limits but those on slow clients, no metrics and no log (noted writes one line for
// each request to /dev/null). First it checks that both answer the same bytes. A third process sends requests over kept
// connections, each after the last answer.
//
// The two take turns in short rounds, so that a busy machine slows both. A ratio compares two adjacent rounds; the table
// has the median, the least and the greatest. CPU is user and system time of the server's process (Linux only), without
// PostgreSQL's.
//
// With -profile FILE it writes a CPU profile of noted during the first row, for go tool pprof.
package main
