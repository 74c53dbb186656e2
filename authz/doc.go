// Package authz says what a caller may do. It holds the vocabulary of permissions, the
// Principal that is calling, the policy (model.conf and policy.csv, decided by Casbin),
// and the one way to declare an operation: with the object and act that it needs.
// It knows no database and no note; where a thing and the caller's relation to it come
// from, the rooms tell it.
package authz
