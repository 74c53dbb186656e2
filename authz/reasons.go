package authz

// Reason is one reason why somebody may act on a thing.
type Reason struct {
	By      string `json:"by" enum:"role,grant,platform" doc:"The role in the organization, a grant, or what they hold on the whole platform"`
	On      string `json:"on,omitempty" enum:"note,notebook" doc:"Of a grant: what it is on"`
	Role    string `json:"role,omitempty" doc:"The policy's role: org-writer, grant-reader"`
	Acts    []Act  `json:"acts" nullable:"false"`
	Because []Step `json:"because" nullable:"false" doc:"The lines of the policy that say so"`
}

// ReasonsByRole returns why somebody with standing s may act on a thing by their role in its
// organization. ReasonsByGrant does so for a grant on a note or a notebook, and ReasonsByPlatform
// for what they hold everywhere under the given names in the policy.
func (p *Principal) ReasonsByRole(kind Kind, s Standing) []Reason {
	object, _, _ := s.ways(kind, "read")
	role := organizationRole(s.Role)
	return p.reasons(Reason{By: "role", Role: role}, object, s.Role != "", p.policy.sets[role].and(p.narrow), role)
}

// ReasonsByGrant is ReasonsByRole for a grant.
func (p *Principal) ReasonsByGrant(kind Kind, s Standing, on, access string) []Reason {
	_, object, _ := s.ways(kind, "read")
	role := accessRole(access)
	return p.reasons(Reason{By: "grant", On: on, Role: role}, object, access != "", p.policy.sets[role].and(p.narrow), role)
}

// ReasonsByPlatform is ReasonsByRole for what the caller holds on the platform.
func (p *Principal) ReasonsByPlatform(kind Kind, s Standing, names []string) []Reason {
	_, _, object := s.ways(kind, "read")
	return p.reasons(Reason{By: "platform"}, object, true, p.allowed, names...)
}

// reasons returns one reason if set has an act on the object, else none.
func (p *Principal) reasons(r Reason, object Object, holds bool, set Set, subjects ...string) []Reason {
	if !holds || object == "" {
		return nil
	}
	r.Because = []Step{}
	seen := map[Step]bool{}
	for _, act := range vocabulary.acts[object] {
		needed := Permission{object, act}
		if !set.Has(needed) {
			continue
		}
		r.Acts = append(r.Acts, act)
		for _, step := range p.policy.ExplainBy(p.KeyRole, needed, subjects...).Because {
			if !seen[step] {
				seen[step] = true
				r.Because = append(r.Because, step)
			}
		}
	}
	if r.Acts == nil {
		return nil
	}
	return []Reason{r}
}
