// Package identity says who is calling. It signs people in through OpenID Connect
// providers, to which identity/oidc speaks, begins a session of noted's own, and turns each
// request's session or API key into an authz.Principal, once and early. Every failed
// authentication ends in failure.go: one answer, the same bytes, no sooner than the floor.
// A person is found by (issuer, subject) alone; an e-mail never finds or links anybody.
package identity
