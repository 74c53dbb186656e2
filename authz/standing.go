package authz

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"noted/internal/problem"
)

// Org is the relation to a thing of an organization in which the caller has a role or a grant.
const Org Relation = "org"

// MemberRoles are what a member of an organization may be; the policy's role is org- and the
// word. Accesses are what a grant may give, and the policy's roles for them.
var (
	MemberRoles = []string{"admin", "writer", "reader"}
	accessRoles = map[string]string{"read": "grant-reader", "write": "grant-writer"}
	Accesses    = []string{"read", "write"}
)

// Standing is how a caller stands to one thing, as one statement found it in the database.
type Standing struct {
	Own        bool      // a personal thing, and the caller's
	Org        uuid.UUID // the organization that it belongs to; zero for a personal thing
	Role       string    // the caller's role there: one of MemberRoles; empty outside
	Grant      string    // the caller's widest grant on it, or on the notebook it is in; empty without one
	Restricted bool      // it is a restricted notebook, or in one
}

// of are the objects by which the policy may reach a thing of this kind: by the caller's role in
// the organization, by a grant, and by a platform-wide permission. Empty: there is no such way.
func (s Standing) of(kind Kind) (byRole, byGrant, byPlatform Object) {
	personal := s.Org == uuid.Nil
	switch {
	case personal && s.Own:
		return "", "", ObjectOf(kind, Own)
	case personal:
		return "", "", ObjectOf(kind, Any)
	case kind == "note" && s.Restricted:
		return "note:restricted", "note:org", "note:any"
	case kind == "note":
		return "note:org", "note:org", "note:any"
	case kind == "notebook" && s.Restricted:
		return "notebook:restricted", "notebook", ""
	case kind == "notebook":
		return "notebook", "notebook", ""
	case kind == "deadzone":
		return "deadzone:org", "", "deadzone:any"
	case kind == "key", kind == "audit":
		return Object(string(kind) + ":org"), "", ""
	}
	return Object(kind), "", "" // org, member, invitation, grant
}

// InOrganization tells whether the role there, or the grant, allows it; ByPlatform whether what the
// caller may do on the whole platform does. A key narrows both.
func (p *Principal) inOrganization(kind Kind, act Act, s Standing) bool {
	byRole, byGrant, _ := s.of(kind)
	if byRole != "" && slices.Contains(p.RolesFor(Permission{byRole, act}), s.Role) {
		// A deleted note of a restricted notebook is there only for who could read it alive.
		if kind != "deadzone" || !s.Restricted || slices.Contains(p.RolesFor(Permission{"note:restricted", "read"}), s.Role) {
			return true
		}
	}
	return byGrant != "" && slices.Contains(p.AccessesFor(Permission{byGrant, act}), s.Grant)
}

func (p *Principal) byPlatform(kind Kind, act Act, s Standing) bool {
	_, _, object := s.of(kind)
	if object != "" && p.Holds(Permission{object, act}) {
		return true
	}
	// What is one's own is one of all, too.
	return s.Own && p.Holds(Permission{ObjectOf(kind, Any), act})
}

// RolesFor are the roles in an organization that allow it to this caller: what a statement
// compares the caller's role with. Never nil.
func (p *Principal) RolesFor(needed Permission) []string {
	roles := []string{}
	for _, role := range MemberRoles {
		if (p.policy.sets["org-"+role] & p.narrow).Has(needed) {
			roles = append(roles, role)
		}
	}
	return roles
}

// AccessesFor are the grants that allow it to this caller. Never nil.
func (p *Principal) AccessesFor(needed Permission) []string {
	accesses := []string{}
	for _, access := range Accesses {
		if (p.policy.sets[accessRoles[access]] & p.narrow).Has(needed) {
			accesses = append(accesses, access)
		}
	}
	return accesses
}

// DecideOn decides on one thing to which the caller stands so. It returns Any when nothing but a
// platform-wide permission on somebody else's thing allows it, which is what the audit record wants
// to know; else Own or Org. Otherwise 404 when the caller may not even read the thing, 403 naming
// the permission nearest to them when they may see it but not do this.
func (p *Principal) DecideOn(kind Kind, act Act, s Standing) (Relation, error) {
	for _, ask := range []Act{act, "read"} {
		inside, platform := p.inOrganization(kind, ask, s), p.byPlatform(kind, ask, s)
		switch {
		case !inside && !platform:
			continue
		case ask != act:
			return None, problem.Forbidden(Permission{s.nearest(kind), act}.String())
		case inside:
			return Org, nil
		case s.Own:
			return Own, nil
		}
		return Any, nil
	}
	return None, problem.NotFound(thing(kind))
}

// nearest is the object by which the caller would be allowed first: any only for somebody
// else's personal thing.
func (s Standing) nearest(kind Kind) Object {
	byRole, byGrant, byPlatform := s.of(kind)
	switch {
	case byRole == "":
		return byPlatform
	case byGrant != "" && s.Grant != "":
		return byGrant
	}
	return byRole
}

// String is for errors and tests.
func (s Standing) String() string {
	return fmt.Sprintf("own=%t org=%t role=%q grant=%q restricted=%t", s.Own, s.Org != uuid.Nil, s.Role, s.Grant, s.Restricted)
}
