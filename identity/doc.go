// Package identity finds out who is calling. It signs people in through OpenID Connect
// providers, by identity/oidc, and begins noted's own sessions. It turns each request's
// session or API key into an authz.Principal, once and early. Every failed authentication
// ends in failure.go: one answer, the same bytes, not before the floor.
// A person is found only by (issuer, subject). An e-mail never finds or links anybody.
package identity
