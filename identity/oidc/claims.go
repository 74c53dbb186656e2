package oidc

import (
	"slices"
	"strings"

	"noted/internal/name"
	"noted/internal/request"
)

// signInOf reads whom a verified token is about.
func (p *Provider) signInOf(t signed) SignIn {
	verified, _ := t.all["email_verified"].(bool) // only JSON true counts
	email := text(t.text("email"), 320)
	if name.Wrong(email) != "" { // others read it like a name
		email = ""
	}
	var groups, missing []string
	for _, path := range p.GroupsClaims {
		found, ok := stringsAt(t.all, path)
		if !ok {
			missing = append(missing, path)
		}
		groups = append(groups, found...)
	}
	slices.Sort(groups)
	return SignIn{
		Identity: Identity{
			Issuer: p.Issuer, Subject: t.Subject, Email: email, EmailVerified: verified,
			Groups: slices.Compact(groups),
		},
		Name:          nameOf(t),
		IssuedAt:      t.IssuedAt,
		SessionID:     text(t.text("sid"), 255),
		HostedDomain:  t.text("hd"),
		Claims:        p.seen(t.all),
		MissingGroups: missing,
	}
}

// nameOf returns the name that others will read: the first of the provider's names that is fit
// to be read.
func nameOf(t signed) string {
	for _, candidate := range []string{t.text("name"), t.text("preferred_username"), t.text("email"), t.Subject} {
		if called := name.Clean(text(candidate, 255), 255); called != "" {
			return called
		}
	}
	return "unnamed"
}

// seen returns the names of all claims, and the values of those that gates and roles read.
func (p *Provider) seen(all map[string]any) SeenClaims {
	seen := SeenClaims{Names: []string{}, Values: map[string]any{}}
	for name := range all {
		if text(name, 100) != "" && len(seen.Names) < 200 {
			seen.Names = append(seen.Names, name)
		}
	}
	slices.Sort(seen.Names)
	for _, path := range p.GroupsClaims {
		if found, ok := stringsAt(all, path); ok {
			seen.Values[path] = found
		}
	}
	var named []string
	if len(p.EmailDomains)+len(p.AllowedEmailDomains) > 0 {
		named = append(named, "email", "email_verified")
	}
	if len(p.HostedDomains) > 0 {
		named = append(named, "hd")
	}
	for _, name := range named {
		switch value := all[name].(type) {
		case bool:
			seen.Values[name] = value
		case string:
			seen.Values[name] = request.Text(value, 320)
		}
	}
	return seen
}

// domainOf returns what follows the last @, in lower case; "" if it is not a plain e-mail.
func domainOf(email string) string {
	i := strings.LastIndexByte(email, '@')
	if i <= 0 || !IsPlainEmail(email) {
		return ""
	}
	return strings.ToLower(email[i+1:])
}

// IsPlainEmail reports whether s is printable ASCII with one @ and no colon. An e-mail must not
// look like a provider's or a group's name, nor be read with two domains.
func IsPlainEmail(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' {
			return false
		}
	}
	return strings.Count(s, "@") == 1
}

// isSubject reports whether s is 1 to 255 printable ASCII characters (Core, 2).
func isSubject(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 255
}

// text returns a claim fit to be stored. One that is too long or has control characters
// is dropped, not cut: part of an e-mail is another e-mail.
func text(s string, limit int) string {
	if len(s) > limit || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return ""
	}
	return s
}

// stringsAt returns the strings, a list or a single one, at a dotted path of names. ok is
// false if there is no such claim.
func stringsAt(all map[string]any, path string) (found []string, ok bool) {
	var value any = all
	for _, name := range strings.Split(path, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		value = object[name]
	}
	if one, ok := value.(string); ok {
		value = []any{one}
	}
	list, ok := value.([]any)
	for _, item := range list {
		if s, ok := item.(string); ok && text(s, 255) != "" {
			found = append(found, s)
		}
	}
	return found, ok
}
