// Package orgs is organizations: who is a member, in which role, and who is invited. A
// role reaches things of its organization alone, and policy.csv says how far. Every
// change below an organization locks its row, shared or alone, so that what was decided
// still holds when it is written; other rooms write below one by this room's Write.
package orgs
