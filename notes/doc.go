// Package notes is what noted is for: people's notes, and the Dead Zone in which deleted
// ones wait to be purged. Each statement that loads a note loads the caller's relation to
// it too, and authz decides on that. Writes decide again on the row they have locked. A use
// of a platform-wide permission on somebody else's note is written to the audit record in
// the same transaction.
package notes
