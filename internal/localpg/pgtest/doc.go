// Package pgtest gives each test a migrated database of its own.
//
// It uses the server at NOTED_TEST_DATABASE_URL (`make test` starts one for all packages), else a private one that
// lives as long as the test process.
package pgtest
