// Package bodies bounds what the bodies of requests hold in memory, and for how long: each one by
// what its operation takes, those of one caller, and all of them together; and one that stands
// still is cut off. It begins when the permission was decided, so that a stranger holds nothing of it.
package bodies
