package authz

import (
	"fmt"
	"slices"
	"strings"
)

// Provider is what a policy must know about a sign-in provider.
type Provider struct {
	ID           string
	EmailDomains []string // for which it is authoritative
	Groups       bool     // its ID tokens are asked for groups
}

// unheard says why nobody who signs in by these providers has a g line's name, and what to write. It is
// empty if somebody may have the name, or if providers is nil, when nothing is known of them.
func unheard(who string, providers []Provider) (rule, why string) {
	if providers == nil {
		return "", ""
	}
	prefix, rest, colon := strings.Cut(who, ":")
	if !colon || strings.Contains(prefix, "@") {
		domain := who[strings.LastIndexByte(who, '@')+1:]
		if slices.ContainsFunc(providers, func(p Provider) bool { return slices.Contains(p.EmailDomains, domain) }) {
			return "", ""
		}
		return "no-authority", fmt.Sprintf("no provider is authoritative for %s, so %s names nobody; set email_domains at the provider that is, or write PROVIDER:SUBJECT", domain, who)
	}
	id := prefix
	if prefix == "group" {
		id, _, _ = strings.Cut(rest, ":")
	}
	var ids []string
	for _, p := range providers {
		ids = append(ids, p.ID)
	}
	switch i := slices.Index(ids, id); {
	case i < 0:
		return "no-provider", fmt.Sprintf("no provider %q is configured, so %s names nobody; %s", id, who, instead(id, ids))
	case prefix == "group" && !providers[i].Groups:
		return "no-groups", fmt.Sprintf("the provider %q is asked for no groups, so %s names nobody; set groups_claims there, or write PROVIDER:SUBJECT", id, who)
	}
	return "", ""
}

// Warnings lists lines that mean nothing, or less than they seem to. They refuse nothing. With
// providers nil, warnings about providers are left out.
func (p *Policy) Warnings(providers []Provider) Faults {
	var list Faults
	warn := func(number, column int, rule, format string, args ...any) {
		list = append(list, Fault{File: p.file, Line: number, Column: column, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	groupAdmin, anyAdmin, personAdmin := 0, false, false
	given := map[string]bool{}
	for _, l := range p.lines {
		if l.kind.text != "g" || !isName(l.at(0)) {
			continue
		}
		who, role := l.at(0), l.at(1)
		for _, one := range p.closure[role] {
			given[one] = true
		}
		rule, why := "", ""
		if l.number > 0 {
			rule, why = unheard(who, providers)
		}
		switch group := strings.HasPrefix(who, "group:"); {
		case why != "":
			warn(l.number, l.fields[0].column, rule, "%s", why)
		case !slices.Contains(p.closure[role], admin):
		case !group:
			anyAdmin, personAdmin = true, true
		case !anyAdmin:
			anyAdmin, groupAdmin = true, l.number
		}
	}
	switch {
	case !given[admin]:
		warn(p.lastLine(), 1, "no-admin", "no g line makes anybody an admin; write g, you@example.com, admin")
	case !anyAdmin:
		warn(p.lastLine(), 1, "no-admin", "no g line makes anybody an admin who can sign in; write g, you@example.com, admin")
	case !personAdmin && groupAdmin > 0:
		warn(groupAdmin, 1, "group-admins", "admins are known through groups only, which the provider can change or stop sending; name one person too, best as PROVIDER:SUBJECT")
	}
	list = append(list, p.lesserGivers()...)
	shown := map[string]bool{User: true, admin: true}
	for _, l := range p.lines {
		role := l.at(0)
		if isName(role) || shown[role] {
			continue
		}
		shown[role] = true
		if !given[role] && !p.givenElsewhere(role) {
			warn(l.number, l.fields[0].column, "unheld-role", "nobody holds the role %q; %s", role, p.howToHold(role))
		}
	}
	return list.sorted()
}

// gifts are the permissions to give roles in an organization, and access to its things.
var gifts = []struct {
	needed Permission
	given  []string
}{
	{Permission{"member", "write"}, organizationRoles},
	{Permission{"invitation", "write"}, organizationRoles},
	{Permission{"key:org", "write"}, organizationRoles},
	{Permission{"grant", "write"}, grantRoles},
}

// lesserGivers warns of roles in an organization that may give some roles but not all, since nobody
// gives what they lack.
func (p *Policy) lesserGivers() Faults {
	var list Faults
	for _, role := range organizationRoles {
		for _, gift := range gifts {
			if !p.sets[role].Has(gift.needed) {
				continue
			}
			var refused []string
			var lacks Set
			for _, given := range gift.given {
				if lacking := p.sets[given].without(p.sets[role]); lacking != (Set{}) {
					refused, lacks = append(refused, given), lacks.or(lacking)
				}
			}
			if refused == nil {
				continue
			}
			list = append(list, Fault{
				File: p.file, Line: p.Explain(gift.needed, role).Because[0].Line, Column: 1, Rule: "lesser-giver",
				Message: fmt.Sprintf("%q may %s, and yet cannot give %s, of which it lacks %s; let it hold that too, or take %s from it",
					role, gift.needed, strings.Join(refused, " or "), strings.Join(lacks.list(), ", "), gift.needed),
			})
		}
	}
	return list
}

func (p *Policy) lastLine() int {
	last := 1
	for _, l := range p.lines {
		last = max(last, l.number)
	}
	return last
}

// organizationRoles and grantRoles are the roles that the API gives to members and in grants.
var (
	organizationRoles = each(MemberRoles, organizationRole)
	grantRoles        = each(Accesses, accessRole)
)

func each(words []string, role func(string) string) []string {
	var roles []string
	for _, word := range words {
		roles = append(roles, role(word))
	}
	return roles
}

// givenElsewhere reports whether a role is held without a g line: by everyone, in an
// organization, by a grant or a key, or by inclusion in one of these.
func (p *Policy) givenElsewhere(role string) bool {
	if strings.HasPrefix(role, "key-") || slices.Contains(p.closure[User], role) {
		return true
	}
	for _, held := range slices.Concat(organizationRoles, grantRoles) {
		if slices.Contains(p.closure[held], role) {
			return true
		}
	}
	return false
}

func (p *Policy) howToHold(role string) string {
	switch family(role) {
	case "an organization":
		return "members of an organization are " + strings.Join(organizationRoles, ", ") + ": let one of them include it, or take its lines out"
	case "a grant":
		return "grants are " + strings.Join(grantRoles, ", ") + ": let one of them include it, or take its lines out"
	}
	return "write g, WHO, " + role + ", or take its lines out"
}
