// Package duration reads a length of time as people write it: Go's own form, and days before
// it, 7d or 1d12h. Settings, flags, variables and requests are all read by it.
package duration
