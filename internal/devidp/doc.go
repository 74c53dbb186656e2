// Package devidp is a small OpenID provider over HTTP, for `noted dev` and for tests. It is not for production: it
// has no passwords, so that whoever reaches it may be any of its people. It follows the standards of the code flow
// (OpenID Connect Core 1.0, RFC 6749, RFC 7636 with S256 only, RFC 9207, RP-Initiated Logout 1.0), so that a
// client that passes here does too. It keeps no login session: each authorization asks again. Hostile tests make
// it lie; see Lie.
package devidp
