// Package keys is API keys: a credential for scripts that acts for the person who made
// it, narrowed to a key role of the policy; or, of an organization, for nobody but itself,
// with a role in that organization narrowed by a key role. A key's id is public, its secret is shown
// once and stored as SHA-256; a checksum in the key tells a typo from a guess without
// the database, though both are answered alike. No key can touch keys.
package keys
