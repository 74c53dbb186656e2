// Package oidc speaks OpenID Connect as a relying party: it discovers a provider, keeps its keys, sends browsers there,
// redeems what they bring back, and verifies ID tokens and logout tokens. It knows no database, no user and no session:
// what a token says of somebody is an Identity, and who that is here the caller finds out.
package oidc
