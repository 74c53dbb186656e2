// Package audit is the append-only record of security events: who signed in, what failed for a known user or key,
// which keys were made, and whose notes a platform role opened. Rooms write a row in the transaction of the
// change, so that both are kept or neither. The database refuses to change or delete a row.
package audit
