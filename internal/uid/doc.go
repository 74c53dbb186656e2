// Package uid reads ids from outside: UUIDs in the one spelling that RFC 9562, 4 gives them, 36 characters with
// hyphens. github.com/google/uuid takes other spellings too, by which one thing would have several addresses.
package uid
