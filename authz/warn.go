package authz

import (
	"fmt"
	"slices"
	"strings"
)

// Provider is what a policy must know of a sign-in provider.
type Provider struct {
	ID           string
	EmailDomains []string // for which it is authoritative
}

// Warnings are lines that mean nothing, or less than they seem to. They refuse nothing. With
// providers nil, what they would tell is left out.
func (p *Policy) Warnings(providers []Provider) Faults {
	var list Faults
	warn := func(number, column int, rule, format string, args ...any) {
		list = append(list, Fault{File: p.file, Line: number, Column: column, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	var ids, domains []string
	for _, one := range providers {
		ids = append(ids, one.ID)
		domains = append(domains, one.EmailDomains...)
	}
	groupAdmin, personAdmin := 0, false
	given := map[string]bool{}
	for _, l := range p.lines {
		if l.kind.text != "g" || !isName(l.at(0)) {
			continue
		}
		who, role := l.at(0), l.at(1)
		for _, one := range p.closure[role] {
			given[one] = true
		}
		prefix, rest, colon := strings.Cut(who, ":")
		group := colon && prefix == "group"
		if slices.Contains(p.closure[role], admin) {
			if !group {
				personAdmin = true
			} else if groupAdmin == 0 {
				groupAdmin = l.number
			}
		}
		if providers == nil || l.number == 0 {
			continue
		}
		email := !colon || strings.Contains(prefix, "@")
		if group {
			prefix, _, _ = strings.Cut(rest, ":")
		}
		switch {
		case email:
			if domain := who[strings.LastIndexByte(who, '@')+1:]; !slices.Contains(domains, domain) {
				warn(l.number, l.fields[0].column, "no-authority", "no provider is authoritative for %s, so %s names nobody; set email_domains at the provider that is, or write PROVIDER:SUBJECT", domain, who)
			}
		case !slices.Contains(ids, prefix):
			warn(l.number, l.fields[0].column, "no-provider", "no provider %q is configured, so %s names nobody; %s", prefix, who, instead(prefix, ids))
		}
	}
	switch {
	case !given[admin]:
		warn(p.lastLine(), 1, "no-admin", "no g line makes anybody an admin; write g, you@example.com, admin")
	case !personAdmin && groupAdmin > 0:
		warn(groupAdmin, 1, "group-admins", "admins are known through groups only, which the provider can change or stop sending; name one person too, best as PROVIDER:SUBJECT")
	}
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

func (p *Policy) lastLine() int {
	last := 1
	for _, l := range p.lines {
		last = max(last, l.number)
	}
	return last
}

// organizationRoles and grantRoles are those that the API gives, at members and at grants.
var (
	organizationRoles = []string{"org-admin", "org-writer", "org-reader"}
	grantRoles        = []string{"grant-reader", "grant-writer"}
)

// givenElsewhere tells whether a role is held without a g line: by everyone, or in an
// organization, a grant or a key, or by inclusion in one of these.
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
