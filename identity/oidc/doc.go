// Package oidc speaks OpenID Connect as a relying party: it discovers a provider, keeps its keys, sends browsers there,
// redeems what they bring back, and verifies ID tokens and logout tokens. It knows no database, no users and no
// sessions. What a token says about somebody is an Identity. The caller finds out which user that is.
package oidc
