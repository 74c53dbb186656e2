package authz

import (
	"fmt"
	"net/mail"
	"slices"
	"strconv"
	"strings"

	"noted/internal/nearest"
)

// rules checks a policy that can be read. Casbin itself silently accepts nearly all of what
// they refuse.
type rules struct {
	file   string
	lines  []line
	roles  map[string]bool // roles to which a p line gives something, or a g line another role
	names  []string        // the same, for suggestions
	first  map[string]int  // the numbers of lines already met, by their key
	faults Faults
}

// check checks every line by every rule.
func check(file string, lines []line) Faults {
	r := &rules{file: file, lines: lines, roles: map[string]bool{User: true}, first: map[string]int{}}
	for _, l := range lines {
		if l.kind.text == "p" && len(l.fields) > 0 && !isName(l.at(0)) || l.kind.text == "g" && len(l.fields) > 1 && !isName(l.at(0)) {
			r.roles[l.at(0)] = true
		}
	}
	for role := range r.roles {
		r.names = append(r.names, role)
	}
	slices.Sort(r.names)
	var sound []line
	for _, l := range lines {
		before := len(r.faults)
		if r.shape(l) {
			switch l.kind.text {
			case "p":
				r.permission(l)
			case "g":
				r.grouping(l)
			}
			r.duplicate(l)
		}
		if len(r.faults) == before {
			sound = append(sound, l)
		}
	}
	r.inclusion(sound)
	r.everyone(sound)
	return r.faults
}

func (r *rules) fault(l line, at field, rule, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: l.number, Column: at.column, Rule: rule, Message: fmt.Sprintf(format, args...)})
}

// forms are the line types, and what a line of each looks like.
var forms = map[string]string{"p": "p, ROLE, OBJECT, ACT", "g": "g, WHO, ROLE"}

// shape checks what needs no knowledge of roles: the type, the number of columns, and that each
// column is one plain word. It reports whether the line can be checked further.
func (r *rules) shape(l line) bool {
	form, ok := forms[l.kind.text]
	if !ok {
		hint := "a line starts with p, with g or with #"
		if near := strings.ToLower(strings.TrimRight(l.kind.text, "0123456789")); forms[near] != "" {
			hint = "write " + near
		}
		r.fault(l, l.kind, "line-type", "unknown line type %q; %s", l.kind.text, hint)
		return false
	}
	for i, f := range l.fields {
		what, _, comment := strings.Cut(f.text, " #")
		if !comment && strings.HasPrefix(f.text, "#") {
			what, comment = "", true
		}
		if comment && !f.quoted {
			r.fault(l, f, "inline-comment", "%q is read as one column; put the comment on a line of its own, and write %s",
				f.text, strings.Join(append([]string{l.kind.text}, texts(l.fields[:i], strings.TrimSpace(what))...), ", "))
			return false
		}
	}
	whole := true
	for i, f := range l.fields {
		switch {
		case f.text == "":
			r.fault(l, f, "empty-column", "column %d is empty; write %s", i+2, form)
			whole = false
		case strings.TrimSpace(f.text) != f.text:
			r.fault(l, f, "outer-blank", "%q begins or ends with a blank inside its quotes; write %q", f.text, strings.TrimSpace(f.text))
			whole = false
		case i == 0:
			if err := CheckSubject(f.text); err != nil {
				r.fault(l, f, "wildcard", "%v", err)
				whole = false
			}
		}
	}
	want := strings.Count(form, ",")
	switch {
	case l.kind.text == "p" && len(l.fields) == 4 && strings.EqualFold(l.at(3), "deny"):
		r.fault(l, l.fields[3], "deny", "nothing can be denied; what no line allows is not allowed. Take the line out, and the one that allows %s %s to %s", l.at(1), l.at(2), l.at(0))
		return false
	case len(l.fields) > want && whole:
		r.fault(l, l.fields[want], "columns", "a %s line has %d columns and this one %d; write %s", l.kind.text, want+1, len(l.fields)+1, form)
		return false
	case len(l.fields) < want && whole:
		end := field{column: column(l.text, len(l.text)) + l.kind.column - 1}
		r.fault(l, end, "columns", "a %s line has %d columns and this one %d; write %s", l.kind.text, want+1, len(l.fields)+1, form)
		return false
	}
	return whole
}

// CheckSubject returns an error if the subject of a line, an expectation or a question has a *.
// A * stands only for itself, and nobody has such a name. The error says what to write.
func CheckSubject(subject string) error {
	if !strings.Contains(subject, "*") {
		return nil
	}
	return fmt.Errorf("%q names nobody, since a * stands for no other names; write a line for each name (everyone who signs in has the role %s)", subject, User)
}

func texts(fields []field, last string) []string {
	var list []string
	for _, f := range fields {
		list = append(list, f.text)
	}
	if last != "" {
		list = append(list, last)
	}
	return list
}

// permission checks a p line of the right shape.
func (r *rules) permission(l line) {
	role, object, act := l.at(0), Object(l.at(1)), Act(l.at(2))
	if isName(role) {
		r.fault(l, l.fields[0], "person-permission", "%q is a person or a group, and permissions belong to roles; write p, ROLE, %s, %s and g, %s, ROLE", role, object, act, role)
		return
	}
	acts := vocabulary.acts[object]
	if acts == nil {
		r.fault(l, l.fields[1], "unknown-object", "unknown object %q; %s", object, insteadOfObject(string(object)))
		return
	}
	if !slices.Contains(acts, act) {
		r.fault(l, l.fields[2], "unknown-act", "unknown act %q for %s; %s", act, object, insteadOfAct(string(act), acts))
		return
	}
	needed := Permission{object, act}
	known := vocabulary.known[needed]
	organization := known.judged == inOrg
	switch held := family(role); {
	case held == "an API key":
		if known.of.noKey {
			r.fault(l, l.fields[1], "key-role", "no API key may touch keys, sessions or sign-ins, so %q cannot hold %s; take the line out", role, needed)
		}
	case held == "" && organization:
		r.fault(l, l.fields[1], "platform-role", "%s is decided in an organization, so the platform role %q cannot hold it; write a role that begins with org-", needed, role)
	case held != "" && !organization:
		r.fault(l, l.fields[1], "organization-role", "%s is decided outside organizations, so %q, which is held in %s, cannot hold it; write a platform role such as %s", needed, role, held, User)
	}
}

// insteadOfObject suggests objects, those of the word's kind if that is known or nearly so.
func insteadOfObject(word string) string {
	ofKind := map[string][]string{}
	var kinds []string
	for _, object := range objects() {
		kind := string(Object(object).Kind())
		ofKind[kind] = append(ofKind[kind], object)
		kinds = append(kinds, kind)
	}
	if kind, _, _ := strings.Cut(word, ":"); nearest.Of(kind, kinds) != "" {
		return instead(word, ofKind[nearest.Of(kind, kinds)])
	}
	return instead(word, objects())
}

func insteadOfAct(word string, acts []Act) string {
	var known []string
	for _, act := range acts {
		known = append(known, string(act))
	}
	return instead(word, known)
}

func objects() []string {
	var names []string
	for _, object := range vocabulary.objects {
		names = append(names, string(object))
	}
	return names
}

// grouping checks a g line of the right shape.
func (r *rules) grouping(l line) {
	who, role := l.at(0), l.at(1)
	before := len(r.faults)
	if isName(who) {
		r.name(l)
	}
	switch {
	case isName(role):
		r.fault(l, l.fields[1], "person-as-role", "%q is a person or a group, not a role; write g, %s, ROLE", role, who)
	case !r.roles[role]:
		r.fault(l, l.fields[1], "unknown-role", "no line defines the role %q; %s", role, instead(role, r.names))
	case len(r.faults) > before:
	case isName(who) && family(role) != "":
		r.fault(l, l.fields[1], "held-elsewhere", "%q is held in %s, so no g line can give it to %q; write a platform role", role, family(role), who)
	case !isName(who) && family(who) != family(role):
		r.fault(l, l.fields[1], "families", "%q is held %s and %q %s, so one cannot include the other; write a role of the same family", who, where(who), role, where(role))
	}
}

// name checks that somebody could have the name of a g line's person or group.
func (r *rules) name(l line) {
	who := l.at(0)
	prefix, rest, colon := strings.Cut(who, ":")
	switch {
	case colon && slices.Contains(nobody, prefix):
		r.fault(l, l.fields[0], "names-nobody", "a name that begins with %s: names nobody; write PROVIDER:SUBJECT, an e-mail, or group:PROVIDER:VALUE", prefix)
	case colon && prefix == "group":
		provider, value, _ := strings.Cut(rest, ":")
		if value == "" || !IsProviderID(provider) {
			r.fault(l, l.fields[0], "group-name", "%q names no group; write group:PROVIDER:VALUE, such as group:keycloak:/noted/admins", who)
		}
	case colon && !strings.Contains(prefix, "@"):
		switch {
		case !IsProviderID(prefix), strings.HasPrefix(rest, "//"):
			r.fault(l, l.fields[0], "provider-name", "%q is no provider's id and subject; write PROVIDER:SUBJECT with the id of the configuration, lower-case letters, digits and hyphens", who)
		case rest == "" || len(rest) > 255 || !isASCII(rest):
			r.fault(l, l.fields[0], "subject", "a subject is 1 to 255 ASCII characters; write %s:SUBJECT as GET /v1/admin/users/{id} shows it", prefix)
		}
	default:
		switch address, err := mail.ParseAddress(who); {
		case err != nil || address.Address != who || !isASCII(who):
			r.fault(l, l.fields[0], "e-mail", "%q is no plain e-mail; write NAME@DOMAIN in ASCII", who)
		case strings.ToLower(who) != who:
			r.fault(l, l.fields[0], "e-mail-case", "e-mails are compared in lower case; write %s", strings.ToLower(who))
		}
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7E || r < 0x20 })
}

// duplicate refuses a line that repeats an earlier one, however it is written.
func (r *rules) duplicate(l line) {
	key := l.key()
	if first, ok := r.first[key]; ok {
		r.fault(l, l.kind, "duplicate", "%s stands in line %d already; take one of them out", l.rewritten(), first)
		return
	}
	r.first[key] = l.number
}

// maxInclusion is how many g lines in a row Casbin follows. It ignores what is deeper.
const maxInclusion = 10

// inclusion refuses roles that include themselves, and chains deeper than Casbin follows.
func (r *rules) inclusion(lines []line) {
	includes := map[string][]line{}
	for _, l := range lines {
		if l.kind.text == "g" {
			includes[l.at(0)] = append(includes[l.at(0)], l)
		}
	}
	depth := map[string]int{} // of the longest chain below; -1 while it is being followed
	var follow func(who string) int
	follow = func(who string) int {
		if known, ok := depth[who]; ok {
			return known
		}
		depth[who] = -1
		longest := 0
		for _, l := range includes[who] {
			below := follow(l.at(1))
			switch {
			case below < 0 && who == l.at(1):
				r.fault(l, l.fields[1], "cycle", "%q includes itself; take the line out", who)
			case below < 0:
				r.fault(l, l.fields[1], "cycle", "%q includes itself by way of %q; take one of the lines of this circle out", l.at(1), who)
			case below == maxInclusion:
				r.fault(l, l.fields[1], "depth", "from %q on, g lines follow one another more than %d deep, where Casbin stops; let %q hold one of the lower roles directly", who, maxInclusion, who)
			}
			longest = max(longest, below+1)
		}
		depth[who] = longest
		return longest
	}
	for _, l := range lines {
		if l.kind.text == "g" {
			follow(l.at(0))
		}
	}
}

// everyone refuses rights to everybody's things for the role user, which all who sign in hold,
// even by inclusion.
func (r *rules) everyone(lines []line) {
	includes, holds := map[string][]line{}, map[string][]line{}
	for _, l := range lines {
		switch {
		case l.kind.text == "g" && !isName(l.at(0)):
			includes[l.at(0)] = append(includes[l.at(0)], l)
		case l.kind.text == "p" && strings.HasSuffix(l.at(1), ":any"):
			holds[l.at(0)] = append(holds[l.at(0)], l)
		}
	}
	for _, l := range holds[User] {
		r.fault(l, l.fields[1], "everyone", "everyone who signs in is a %s, and would hold %s %s; give it to another role", User, l.at(1), l.at(2))
	}
	seen := map[string]bool{User: true}
	var walk func(role string, first line)
	walk = func(role string, first line) {
		if seen[role] {
			return
		}
		seen[role] = true
		for _, l := range holds[role] {
			r.fault(first, first.fields[1], "everyone", "everyone who signs in is a %s, and would hold %s %s by line %s; take this line out", User, l.at(1), l.at(2), strconv.Itoa(l.number))
		}
		for _, l := range includes[role] {
			walk(l.at(1), first)
		}
	}
	for _, l := range includes[User] {
		walk(l.at(1), l)
	}
}

// isName reports whether subject names a person or group, not a role: it has an @ or a colon.
func isName(subject string) bool { return strings.ContainsAny(subject, "@:") }

// family returns where roles of this name are held; "" for platform roles, which people hold.
func family(role string) string {
	switch {
	case strings.HasPrefix(role, "org-"):
		return "an organization"
	case strings.HasPrefix(role, "grant-"):
		return "a grant"
	case strings.HasPrefix(role, "key-"):
		return "an API key"
	}
	return ""
}

func where(role string) string {
	if held := family(role); held != "" {
		return "in " + held
	}
	return "on the platform"
}
