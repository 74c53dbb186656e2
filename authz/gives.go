package authz

import "slices"

// Nobody gives more than they have: whoever gives a role in an organization, or a grant on a thing of
// it, needs each permission in it there, by the credential that they presented. Else whoever may write
// members, invitations, keys or grants, and nothing more, could make an admin, and be one.

// GivesRole decides on giving somebody, or a key, the role in the organization to which the caller
// stands so. A key's own role, which narrows it further, does not count: the role alone is judged. It is
// 403 or nil; the 403 names the first permission that is lacking.
func (p *Principal) GivesRole(s Standing, role string) error {
	has := func(p *Principal) Set { return p.policy.sets[organizationRole(s.Role)].and(p.narrow) }
	lacking := p.policy.sets[organizationRole(role)].without(has(p))
	if lacking == (Set{}) {
		return nil
	}
	needed := lacking.first()
	return p.refuse(needed, func(p *Principal) bool { return has(p).Has(needed) })
}

// GivesAccess decides on a grant on a note, or on a notebook and the notes in it, to which the caller
// stands so: they need whatever it allows there, by their role or by a grant of their own, since that
// somebody may do it to every note of the platform is nothing that they have in the organization.
// It is 403 or nil, as GivesRole.
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
