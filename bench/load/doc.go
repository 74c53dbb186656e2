// Command load answers: how much of a bare handler's speed is left with everything that noted does?
//
//	make bench
//
// It runs noted's server and a bare one side by side, each a process of its own, on one private PostgreSQL, with as
// many connections to it. The bare one is chi and pgx: the same statement, the same JSON, and nothing else; no
// authentication, no decision, no limits but those on slow clients, no metrics, no log (noted writes its own to /dev/null, a line for each request). That both answer the same bytes is checked first. A third process sends requests over connections
// that are kept, a new one when the last was answered.
//
// The two take turns in short rounds, so that a machine that is busy for a while is so for both. A ratio is that of two
// rounds next to each other; the table has the median, and the least and the greatest. CPU is user and system time of
// the server's process (Linux alone), without PostgreSQL's.
//
// With -profile FILE it writes a CPU profile of noted during the first row, for go tool pprof.
package main
