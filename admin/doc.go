// Package admin is the operations of those who run the place: accounts, locking them,
// the security record, and what the policy in force says. It has no tables of its own: accounts are identity's, the record is
// internal/audit's.
package admin
