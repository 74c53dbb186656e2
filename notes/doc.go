// Package notes is people's notes, and the Dead Zone, where deleted notes wait for the purge.
// Each statement that loads a note also loads the caller's relation to it, and authz decides
// on that. Writes decide again on the row they have locked. Using a platform-wide permission
// on somebody else's note is recorded in the audit record in the same transaction.
package notes
