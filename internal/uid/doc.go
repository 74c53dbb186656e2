// Package uid reads ids from outside: UUIDs in the one spelling of RFC 9562, 4, 36 characters with hyphens.
// github.com/google/uuid accepts other spellings too, which would give one thing several addresses.
package uid
