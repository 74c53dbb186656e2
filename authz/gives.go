package authz

import "slices"

// Nobody gives more than they have. To give a role in an organization, or a grant on one of its things,
// the caller needs each of its permissions there, by the credential they presented. Otherwise anyone who
// may write members, invitations, keys or grants could make an admin, and become one.

// GivesRole decides whether the caller, with standing s, may give a person or a key the role in the
// organization. For a key only that role is judged, not the key's own role, which narrows it further.
// It returns a 403 that names the first missing permission, or nil.
func (p *Principal) GivesRole(s Standing, role string) error {
	has := func(p *Principal) Set { return p.policy.sets[organizationRole(s.Role)].and(p.narrow) }
	lacking := p.policy.sets[organizationRole(role)].without(has(p))
	if lacking == (Set{}) {
		return nil
	}
	needed := lacking.first()
	return p.refuse(needed, func(p *Principal) bool { return has(p).Has(needed) })
}

// GivesAccess decides whether the caller, with standing s, may grant access to a note, or to a notebook
// and its notes. They need all that the grant allows, by their role or a grant of their own. A
// platform-wide permission does not count: it is nothing they have in the organization.
// It returns a 403 or nil, as GivesRole does.
func (p *Principal) GivesAccess(kind Kind, s Standing, access string) error {
	given, reached := p.policy.sets[accessRole(access)], vocabulary.of(kind).grants
	for _, needed := range vocabulary.permissions {
		of := needed.Object.Kind()
		applies := slices.Contains(reached, of) && vocabulary.granted(needed)
		if !applies || !given.Has(needed) {
			continue
		}
		if !p.inOrganization(of, needed.Act, s) {
			return p.refuse(Permission{s.nearest(of, needed.Act), needed.Act}, func(p *Principal) bool {
				return p.inOrganization(of, needed.Act, s)
			})
		}
	}
	return nil
}
