// Package duration reads a length of time as people write it: Go's own form, optionally after days, such as 7d or
// 1d12h. Settings, flags, variables and requests all use it.
package duration
