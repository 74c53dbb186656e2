// Command mutants asks of the tests what a stranger who puts faults into noted would: does each fail one? It finds
// every place where the rooms decide, lock or confirm, in Go and in SQL, makes a copy of the program in which the
// environment chooses one place that does not, builds the tests once, and runs for each place those that reach
// it. The tree itself is not touched.
//
//	go run ./internal/localpg/withpg go run ./bench/mutants [-only TEXT] [-list]
package main
