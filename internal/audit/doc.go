// Package audit is the append-only record of security events: who signed in, what
// failed for a known user or key, which keys were made, and whose notes a platform
// role opened. Rooms write rows in the transaction that does the thing, so neither
// is there without the other; the database refuses to change or delete a row.
package audit
