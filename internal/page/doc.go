// Package page is what every list has in common: a limit, and an opaque keyset cursor to the row after which the
// next page starts. A cursor belongs to its list, and its checksum reveals changes. It is no secret: a forged one
// could only start the caller's own list elsewhere.
package page
