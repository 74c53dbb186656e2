// Package e2e tests noted from outside: it builds the real binary, with the race detector, and runs it as a
// process against a real PostgreSQL. The tests know only what an operator and a client know: the command line, the
// files, the signals and the HTTP contract. NOTED_TEST_REQUIRE is a comma-separated list of names (unshare, root,
// curl). A test that would be skipped for lack of one of them fails instead.
package e2e
