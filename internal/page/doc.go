// Package page is what every list has in common: a limit, and an opaque keyset cursor
// that says after which row the next page starts. A cursor is bound to the list that
// gave it, and a changed one is told from a real one by its checksum. It is no secret:
// all that a forged one could do is start the caller's own list elsewhere.
package page
