// Package orgs is organizations: their members, roles and invitations. A role counts only in
// its organization; policy.csv says how far. Every change in an organization locks its row,
// shared or exclusively, so that a decision still holds when its effect is written. Other
// rooms write in an organization through Write.
package orgs
