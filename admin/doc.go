// Package admin is the operations of those who run the place: accounts, locking them, and
// the security record. It has no tables of its own: accounts are identity's, the record is
// internal/audit's.
package admin
