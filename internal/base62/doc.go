// Package base62 writes fixed numbers of bytes as fixed numbers of the characters 0-9A-Za-z, most significant
// first, padded with 0: 16 bytes are 22 characters, 32 bytes are 43. Each value has one spelling, and reading
// accepts no other. We wrote our own because the maintained base62 libraries neither pad nor refuse an overflow.
package base62
