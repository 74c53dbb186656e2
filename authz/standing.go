package authz

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// MemberRoles are the roles of members of an organization. Accesses are what a grant may give. The policy
// has a role for each.
var (
	MemberRoles = []string{"admin", "writer", "reader"}
	Accesses    = []string{"read", "write"}
)

// organizationRole returns the policy's role for a member's role. accessRole returns that for a
// grant's access; "" for none.
func organizationRole(role string) string { return "org-" + role }

func accessRole(access string) string {
	switch access {
	case "read":
		return "grant-reader"
	case "write":
		return "grant-writer"
	}
	return ""
}

// Standing is a caller's relation to one thing, as one statement found it in the database. The
// zero Standing is for somebody else's personal thing.
type Standing struct {
	Own        bool      // the caller's own: a personal thing, or their own membership
	Org        uuid.UUID // the organization that it belongs to; zero for a personal thing
	Role       string    // the caller's role there: one of MemberRoles; empty outside
	Grant      string    // the caller's widest grant on it or on its notebook; empty without one
	Restricted bool      // it is a restricted notebook, or in one
}

// Mine is the standing to the caller's own personal thing.
var Mine = Standing{Own: true}

// ways returns the objects by which the policy may let somebody act on a thing of this kind: by their
// role in the organization, by a grant, and by what they hold on the platform. An object is empty
// if there is no such way.
func (s Standing) ways(kind Kind, act Act) (byRole, byGrant, byPlatform Object) {
	k := vocabulary.of(kind)
	by := k.by[act]
	switch {
	case s.Org == uuid.Nil && s.Own && by.own != "":
		return "", "", by.own
	case s.Org == uuid.Nil:
		return "", "", by.any
	case s.Own && vocabulary.has(Permission{k.itself, act}):
		return "", "", k.itself
	}
	byRole = by.plain
	if s.Restricted && k.restricted {
		byRole = by.restricted
	}
	if len(k.grants) > 0 {
		byGrant = by.plain
	}
	if k.everywhere {
		byPlatform = by.any
	}
	return byRole, byGrant, byPlatform
}

// inOrganization reports whether the role there, or the grant, allows it. byPlatform does so for the
// caller's platform-wide permissions. A key narrows both.
func (p *Principal) inOrganization(kind Kind, act Act, s Standing) bool {
	byRole, byGrant, _ := s.ways(kind, act)
	if byRole != "" && slices.Contains(p.RolesFor(Permission{byRole, act}), s.Role) {
		also := vocabulary.of(kind).ofRestricted
		if also == (Permission{}) || !s.Restricted || slices.Contains(p.RolesFor(also), s.Role) {
			return true
		}
	}
	return byGrant != "" && slices.Contains(p.AccessesFor(Permission{byGrant, act}), s.Grant)
}

func (p *Principal) byPlatform(kind Kind, act Act, s Standing) bool {
	_, _, object := s.ways(kind, act)
	if object != "" && p.Holds(Permission{object, act}) {
		return true
	}
	// A permission on all things covers one's own.
	return s.Org == uuid.Nil && p.Holds(Permission{vocabulary.of(kind).by[act].any, act})
}

// RolesFor returns the roles in an organization that allow it to this caller. A statement
// compares the caller's role with them. Never nil.
func (p *Principal) RolesFor(needed Permission) []string {
	roles := []string{}
	for _, role := range MemberRoles {
		if p.policy.sets[organizationRole(role)].and(p.narrow).Has(needed) {
			roles = append(roles, role)
		}
	}
	return roles
}

// AccessesFor returns the grants that allow it to this caller. Never nil.
func (p *Principal) AccessesFor(needed Permission) []string {
	accesses := []string{}
	for _, access := range Accesses {
		if p.policy.sets[accessRole(access)].and(p.narrow).Has(needed) {
			accesses = append(accesses, access)
		}
	}
	return accesses
}

// DecideOn decides on one thing to which the caller has standing s. It returns Own, Org, or Any if only
// a platform-wide permission on somebody else's thing allows it; the audit record needs to know that.
// If the caller may not even read the thing, it returns a 404. If they may read it but not do this, it
// returns a 403 that names the permission nearest to them.
func (p *Principal) DecideOn(kind Kind, act Act, s Standing) (Relation, error) {
	for _, ask := range []Act{act, "read"} {
		inside, platform := p.inOrganization(kind, ask, s), p.byPlatform(kind, ask, s)
		switch {
		case !inside && !platform:
			continue
		case ask != act:
			return None, p.lacksOn(kind, act, s)
		case inside:
			return Org, nil
		}
		_, _, object := s.ways(kind, act)
		return object.relation(), nil
	}
	return None, NotFound(kind)
}

// mayRead reports whether the caller may read a thing to which they have standing s.
func (p *Principal) mayRead(kind Kind, s Standing) bool {
	return p.inOrganization(kind, "read", s) || p.byPlatform(kind, "read", s)
}

// lacksOn returns a 403 for a thing to which the caller has standing s.
func (p *Principal) lacksOn(kind Kind, act Act, s Standing) error {
	return p.refuse(Permission{s.nearest(kind, act), act}, func(p *Principal) bool {
		return p.inOrganization(kind, act, s) || p.byPlatform(kind, act, s)
	})
}

// Require decides on making or moving a thing. The caller must be allowed by the thing's own relation
// to them; no platform-wide permission helps. It returns a 403 or nil.
func (p *Principal) Require(kind Kind, act Act, s Standing) error {
	holds := func(p *Principal) bool { return p.inOrganization(kind, act, s) || s.Own && p.byPlatform(kind, act, s) }
	if holds(p) {
		return nil
	}
	return p.refuse(Permission{s.nearest(kind, act), act}, holds)
}

// DecideAll decides on all things of a kind in an organization, and on making one. Outsiders get
// 404, members without permission 403.
func (p *Principal) DecideAll(kind Kind, act Act, s Standing) error {
	if s.Role == "" {
		return NotFound("org")
	}
	return p.checkIn(kind, s.Role, act)
}

// decideIn decides on an organization or one of its things. Outsiders always get 404. A member who can
// neither read nor act on anything of this kind gets 403, whether it exists or not. Otherwise DecideOn
// decides. The organization itself is an exception: a caller who may not read it gets 404.
func (p *Principal) decideIn(kind Kind, act Act, s Standing) (Relation, error) {
	if s.Role == "" {
		return None, NotFound(kind)
	}
	if kind != organization && !s.Own {
		if err := p.checkIn(kind, s.Role, act, "read"); err != nil {
			return None, err
		}
	}
	return p.DecideOn(kind, act, s)
}

// goneIn is decideIn for a missing thing. It returns missing, or a 403 or 404 if the caller may not know
// of that. For what hangs on another thing (a grant) everybody in the organization may.
func (p *Principal) goneIn(kind Kind, act Act, s Standing, missing error) error {
	if s.Role == "" {
		return NotFound(kind)
	}
	if !vocabulary.of(kind).hangs {
		if err := p.checkIn(kind, s.Role, act, "read"); err != nil {
			return err
		}
	}
	return missing
}

// checkIn returns a 403 if the role in an organization allows none of the acts on anything of the
// kind there. The 403 names the first act.
func (p *Principal) checkIn(kind Kind, role string, acts ...Act) error {
	ever := func(p *Principal) bool { return p.everIn(kind, acts, role) }
	if ever(p) {
		return nil
	}
	by := vocabulary.of(kind).by[acts[0]]
	return p.refuse(Permission{cmp.Or(by.plain, by.restricted), acts[0]}, func(p *Principal) bool { return p.everIn(kind, acts[:1], role) })
}

// everIn reports whether somebody with the role in an organization may do one of the acts on some
// thing of the kind there.
func (p *Principal) everIn(kind Kind, acts []Act, role string) bool {
	k := vocabulary.of(kind)
	for _, act := range acts {
		for _, object := range k.by[act].inside {
			needed := Permission{object, act}
			if slices.Contains(p.RolesFor(needed), role) || len(k.grants) > 0 && len(p.AccessesFor(needed)) > 0 {
				return true
			}
		}
	}
	return false
}

// nearest returns the object by which the caller would most likely be allowed. It is any only for
// somebody else's personal thing.
func (s Standing) nearest(kind Kind, act Act) Object {
	byRole, byGrant, byPlatform := s.ways(kind, act)
	if s.Grant != "" && byGrant != "" {
		return byGrant
	}
	return cmp.Or(byRole, byPlatform, byGrant)
}

// String is for errors and tests.
func (s Standing) String() string {
	return fmt.Sprintf("own=%t org=%t role=%q grant=%q restricted=%t", s.Own, s.Org != uuid.Nil, s.Role, s.Grant, s.Restricted)
}
