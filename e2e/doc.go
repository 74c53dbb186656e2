// Package e2e tests noted from outside: it builds the real binary, with the race detector, and runs it as
// a process against a real PostgreSQL. What the tests know of it is what an operator and a client know: the
// command line, the files, the signals and the HTTP contract. NOTED_TEST_REQUIRE is a list of names with
// commas between (unshare, root, curl): a test that would be skipped for want of one of them fails instead.
package e2e
