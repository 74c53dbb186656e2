// Package devidp is a small OpenID provider over HTTP, for `noted dev` and for tests. It is not one
// for production: it knows no passwords, and whoever reaches it may be any of its people. It keeps
// what the standards ask of the code flow (OpenID Connect Core 1.0, RFC 6749, RFC 7636 with S256 only,
// RFC 9207, RP-Initiated Logout 1.0), so that a client that passes here has been held to them. It holds
// no login session: each authorization asks anew. Hostile tests tell it to lie, see Lie.
package devidp
