package authz

import (
	"maps"
	"slices"
	"strings"
)

// Change is the difference between what two policies give a subject.
type Change struct {
	// Who is a role, a name as in a g line, or user: everyone who signs in.
	Who  string `json:"who"`
	Kind string `json:"kind"` // role, person, group or everyone
	// Roles of a person or group, with included roles.
	GainsRoles []string `json:"gains_roles"`
	LosesRoles []string `json:"loses_roles"`
	// Permissions, "OBJECT ACT". For a person or group, those of everyone are left out.
	Gains []string `json:"gains"`
	Loses []string `json:"loses"`
	// Reaches are the permissions gained that reach other people's notes.
	Reaches []string `json:"reaches_others_notes"`
}

// Diff lists who gains and who loses what when p replaces old: roles first, then
// everyone, then people and groups, each by name. A person is left out if only everyone's
// permissions changed.
func (p *Policy) Diff(old *Policy) []Change {
	changes := []Change{}
	// add records what changed between two holders, except what changed for everyone.
	add := func(who, kind string, before, after, gone, come holder) {
		gains, loses := after.set.without(before.set).without(come.set), before.set.without(after.set).without(gone.set)
		c := Change{
			Who: who, Kind: kind,
			GainsRoles: without(without(after.roles, before.roles), come.roles),
			LosesRoles: without(without(before.roles, after.roles), gone.roles),
			Gains:      gains.list(), Loses: loses.list(), Reaches: gains.and(othersNotes()).list(),
		}
		if len(c.GainsRoles)+len(c.LosesRoles)+len(c.Gains)+len(c.Loses) > 0 {
			changes = append(changes, c)
		}
	}
	none := holder{}
	for _, role := range union(old.sets, p.sets) {
		if role != User {
			add(role, "role", holder{set: old.sets[role]}, holder{set: p.sets[role]}, none, none)
		}
	}
	before, after := *old.anybody, *p.anybody
	add(User, "everyone", before, after, none, none)
	gone := holder{roles: without(before.roles, after.roles), set: before.set.without(after.set)}
	come := holder{roles: without(after.roles, before.roles), set: after.set.without(before.set)}
	for _, name := range union(old.holders, p.holders) {
		kind := "person"
		if strings.HasPrefix(name, "group:") {
			kind = "group"
		}
		add(name, kind, *old.held([]string{name}), *p.held([]string{name}), gone, come)
	}
	return changes
}

// othersNotes are the permissions on other people's notes, including deleted ones.
func othersNotes() (set Set) {
	for bit, one := range vocabulary.permissions {
		if vocabulary.known[one].of.everywhere && one.Object.relation() != Own {
			set = set.or(setOf(bit))
		}
	}
	return set
}

// list returns the set's permissions in the order of the vocabulary.
func (s Set) list() []string {
	list := []string{}
	for _, one := range vocabulary.permissions {
		if s.Has(one) {
			list = append(list, one.String())
		}
	}
	return list
}

func without(list, these []string) []string {
	rest := []string{}
	for _, one := range list {
		if !slices.Contains(these, one) {
			rest = append(rest, one)
		}
	}
	return rest
}

func union[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
