// Package admin is the operations of platform staff: accounts, locking them, the security record,
// and the policy in force. It has no tables: accounts belong to identity, the record to
// internal/audit.
package admin
