// Command mutants checks the tests by putting faults into noted: does each fault fail a test? It finds every place
// where the rooms decide, lock or confirm, in Go and in SQL. It makes a copy of the program in which the environment
// chooses one place that does not, builds the tests once, and runs for each place the tests that reach it. The tree
// itself is not touched.
//
//	go run ./internal/localpg/withpg go run ./bench/mutants [-only TEXT] [-list]
package main
