// Package keys is API keys, the credentials of scripts. A personal key acts for its owner, narrowed to
// a key role of the policy. An organization's key (a service) acts for itself, with a role in that
// organization narrowed by a key role. A key's id is public; its secret is shown once and stored as
// SHA-256. A checksum tells a typo from a guess without the database; both get the same answer. No
// key can manage keys.
package keys
