// Package bodies bounds how much memory the bodies of requests hold, and for how long: each by its operation's
// limit, those of one caller, and all together. A body that stalls is cut off. It starts after the permission
// check, so that a stranger holds no memory.
package bodies
