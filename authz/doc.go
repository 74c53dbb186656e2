// Package authz decides what a caller may do. It holds the vocabulary of permissions, the
// Principal that is calling, the policy (model.conf and policy.csv, decided by Casbin),
// and the one way to declare an operation: with the object and act that it needs.
// It knows no database and no notes. The rooms find each thing and the caller's relation
// to it.
package authz
