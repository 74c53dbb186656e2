package authz

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
)

// Policy is what model.conf and policy.csv say, read, checked and asked of Casbin once for
// every role and permission. It never changes; another policy is another value.
type Policy struct {
	// Hash is the SHA-256 of both files and of what was added to them, hexadecimal.
	Hash string

	sets  map[string]Set      // role: what it may do, by inclusion too; Casbin's answers
	names map[string][]string // a person's or group's name, or user: the platform roles it holds
}

// Source is one file: its name for errors, and its bytes.
type Source struct {
	Name string
	Text []byte
}

// Grouping is a g line added in memory: `noted dev` names its people so.
type Grouping struct{ Who, Role string }

// User is the role that everyone who signs in holds.
const User = "user"

// line is one rule of a policy file.
type line struct {
	number int
	kind   string // p or g
	fields []string
}

// Load reads, checks and compiles a policy. The error names file and line of everything
// that is wrong, not of the first thing only.
func Load(modelFile, policyFile Source, added ...Grouping) (*Policy, error) {
	if err := checkModel(modelFile); err != nil {
		return nil, err
	}
	lines, err := parse(policyFile)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %d\n", len(modelFile.Text), len(policyFile.Text))
	hash.Write(modelFile.Text)
	hash.Write(policyFile.Text)
	for _, add := range added {
		fields := []string{add.Who, add.Role}
		if !slices.ContainsFunc(lines, func(l line) bool { return l.kind == "g" && slices.Equal(l.fields, fields) }) {
			lines = append(lines, line{kind: "g", fields: fields})
		}
		fmt.Fprintf(hash, "g %q %q\n", add.Who, add.Role)
	}
	if err := check(policyFile.Name, lines); err != nil {
		return nil, err
	}
	enforcer, err := newEnforcer(string(modelFile.Text), lines)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", modelFile.Name, policyFile.Name, err)
	}
	policy, err := compile(enforcer, lines)
	if err != nil {
		return nil, err
	}
	if err := checkCompiled(policyFile.Name, policy); err != nil {
		return nil, err
	}
	policy.Hash = hex.EncodeToString(hash.Sum(nil))
	return policy, nil
}

// IsRole tells whether the policy defines role.
func (p *Policy) IsRole(role string) bool {
	_, ok := p.sets[role]
	return ok
}

// KeyRoles are the roles that an API key may be narrowed to, sorted.
func (p *Policy) KeyRoles() []string {
	var roles []string
	for role := range p.sets {
		if strings.HasPrefix(role, "key-") {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// RolesOf are the platform roles that somebody called by names holds, with those they
// include, and the role user; sorted.
func (p *Policy) RolesOf(names ...string) []string {
	roles := []string{User}
	for _, name := range append([]string{User}, names...) {
		roles = append(roles, p.names[name]...)
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// Held tells whether any g line gives role to a person or group.
func (p *Policy) Held(role string) bool {
	for _, roles := range p.names {
		if slices.Contains(roles, role) {
			return true
		}
	}
	return false
}

// Allows answers for one subject, a role or a name as in a g line, as `noted policy test`
// asks it: a role has what it holds, a name what its roles hold and what user holds.
func (p *Policy) Allows(subject string, permission Permission) bool {
	if !isName(subject) {
		return p.sets[subject].Has(permission)
	}
	for _, role := range p.RolesOf(subject) {
		if p.sets[role].Has(permission) {
			return true
		}
	}
	return false
}

// isName tells a person's or group's name from a role: it has an @ or a colon.
func isName(subject string) bool { return strings.ContainsAny(subject, "@:") }

// parse reads the lines of a policy file, each on its own, as Casbin does.
func parse(file Source) ([]line, error) {
	var lines []line
	var errs []error
	text := bytes.TrimPrefix(file.Text, []byte("\xef\xbb\xbf"))
	for number, raw := range strings.Split(string(text), "\n") {
		raw = strings.TrimSpace(raw)
		if raw == "" || strings.HasPrefix(raw, "#") {
			continue
		}
		if i, r := invisible(raw); i >= 0 {
			errs = append(errs, fmt.Errorf("%s:%d:%d: the character U+%04X cannot be seen; take it out", file.Name, number+1, i+1, r))
			continue
		}
		fields, err := fieldsOf(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file.Name, number+1, err))
			continue
		}
		lines = append(lines, line{number: number + 1, kind: fields[0], fields: fields[1:]})
	}
	return lines, errors.Join(errs...)
}

// invisible finds the first character that does not print, which would make a line mean other
// than it looks; its place in bytes, or -1. A tab is white space like any other.
func invisible(raw string) (int, rune) {
	for i, r := range raw {
		if !unicode.IsPrint(r) && r != '\t' {
			return i, r
		}
	}
	return -1, 0
}

func fieldsOf(raw string) ([]string, error) {
	reader := csv.NewReader(strings.NewReader(raw))
	reader.TrimLeadingSpace = true
	fields, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("not a line of comma-separated values: %q", raw)
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
		if fields[i] == "" {
			return nil, fmt.Errorf("column %d of %q is empty", i+1, raw)
		}
	}
	return fields, nil
}

// check refuses lines of the wrong shape, objects and acts outside the vocabulary, roles
// that no line defines, permissions given to a person, and duplicates.
func check(name string, lines []line) error {
	roles := map[string]bool{}
	for _, l := range lines {
		if l.kind == "p" && len(l.fields) == 3 {
			roles[l.fields[0]] = true
		}
		if l.kind == "g" && len(l.fields) == 2 && !isName(l.fields[0]) {
			roles[l.fields[0]] = true
		}
	}
	seen := map[string]int{}
	var errs []error
	for _, l := range lines {
		if err := l.check(roles); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, l.number, err))
			continue
		}
		key := l.kind + "," + strings.Join(l.fields, ",")
		if first, ok := seen[key]; ok {
			errs = append(errs, fmt.Errorf("%s:%d: the same as line %d: %s, %s; remove one", name, l.number, first, l.kind, strings.Join(l.fields, ", ")))
		}
		seen[key] = l.number
	}
	return errors.Join(append(errs, checkInclusion(name, lines)...)...)
}

// maxInclusion is how many roles deep Casbin follows g lines; it cuts off what is deeper.
const maxInclusion = 10

// checkInclusion refuses roles that include themselves, and chains deeper than Casbin follows.
func checkInclusion(name string, lines []line) []error {
	includes := map[string][]line{}
	for _, l := range lines {
		if l.kind == "g" && len(l.fields) == 2 {
			includes[l.fields[0]] = append(includes[l.fields[0]], l)
		}
	}
	var errs []error
	depth := map[string]int{} // of the longest chain below; -1 while it is being followed
	var follow func(who string) int
	follow = func(who string) int {
		if known, ok := depth[who]; ok {
			return known
		}
		depth[who] = -1
		longest := 0
		for _, l := range includes[who] {
			below := follow(l.fields[1])
			if below < 0 {
				errs = append(errs, fmt.Errorf("%s:%d: %q includes itself by way of %q", name, l.number, who, l.fields[1]))
				continue
			}
			longest = max(longest, below+1)
			if below+1 == maxInclusion+1 {
				errs = append(errs, fmt.Errorf("%s:%d: from %q on, roles include roles more than %d deep; Casbin would not follow", name, l.number, who, maxInclusion))
			}
		}
		depth[who] = longest
		return longest
	}
	for _, l := range lines {
		if len(l.fields) > 0 {
			follow(l.fields[0])
		}
	}
	return errs
}

func (l line) check(roles map[string]bool) error {
	switch {
	case l.kind == "p" && len(l.fields) == 3:
		role, object, act := l.fields[0], Object(l.fields[1]), Act(l.fields[2])
		if isName(role) {
			return fmt.Errorf("permissions belong to roles; give %q a role: g, %s, ROLE", role, role)
		}
		acts := actsOf(object)
		if acts == nil {
			return fmt.Errorf("unknown object %q; there are %s", object, objects())
		}
		if !slices.Contains(acts, act) {
			return fmt.Errorf("unknown act %q for %s; it takes %s", act, object, join(acts))
		}
		return checkFamily(role, Permission{object, act})
	case l.kind == "g" && len(l.fields) == 2:
		who, role := l.fields[0], l.fields[1]
		if isName(role) || !roles[role] {
			return fmt.Errorf("no p or g line defines the role %q", role)
		}
		if prefix, _, _ := strings.Cut(who, ":"); isName(who) && slices.Contains(nobody, prefix) {
			return fmt.Errorf("a name that starts with %q names nobody; write provider:subject, an e-mail, or group:provider:value", prefix+":")
		}
		if isName(who) && family(role) != "" {
			return fmt.Errorf("%q is held in %s, not by a g line", role, family(role))
		}
		if !isName(who) && family(who) != family(role) {
			return fmt.Errorf("%q and %q are of different families; one cannot include the other", who, role)
		}
		return nil
	case l.kind == "p":
		return fmt.Errorf("a p line has four columns (p, ROLE, OBJECT, ACT), this one has %d", len(l.fields)+1)
	case l.kind == "g":
		return fmt.Errorf("a g line has three columns (g, WHO, ROLE), this one has %d", len(l.fields)+1)
	}
	return fmt.Errorf("unknown line type %q; a line starts with p, with g or with #", l.kind)
}

// family is where roles of this name are held; empty for platform roles, which people hold.
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

// nobody are prefixes that are no provider's and no group's.
var nobody = []string{"email", "key", "service"}

// inOrganizations are the kinds and objects that are judged by a role in an organization.
var inOrganizations = []Object{
	"note:org", "note:restricted", "deadzone:org", "notebook", "notebook:restricted", "member", "invitation", "grant", "key:org", "audit:org",
}

// checkFamily refuses a permission that roles of this family cannot hold: nothing would ever
// ask for it, or it would reach further than the family does. Inclusion never crosses families.
func checkFamily(role string, p Permission) error {
	organization := slices.Contains(inOrganizations, p.Object) || p.Object == "org" && p.Act != "create"
	kind := p.Object.Kind()
	switch {
	case strings.HasPrefix(role, "key-"):
		if kind == "key" || kind == "session" || kind == "identity" {
			return fmt.Errorf("the key role %q cannot hold %q; no API key may touch keys, sessions or sign-ins", role, p)
		}
	case family(role) == "" && organization:
		return fmt.Errorf("%q is decided in an organization; a platform role such as %q cannot hold it", p, role)
	case family(role) != "" && !organization:
		return fmt.Errorf("%q is decided outside organizations; %q, held in %s, cannot hold it", p, role, family(role))
	}
	return nil
}

func objects() string {
	var names []string
	for _, entry := range vocabulary {
		names = append(names, string(entry.object))
	}
	return strings.Join(names, ", ")
}

func join(acts []Act) string {
	var names []string
	for _, act := range acts {
		names = append(names, string(act))
	}
	return strings.Join(names, ", ")
}

// checkModel refuses any model but the one that compile relies on: a decision by role must
// equal the decision by person, and nothing may deny.
func checkModel(file Source) error {
	m, err := model.NewModelFromString(string(file.Text))
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name, err)
	}
	for i, raw := range strings.Split(string(file.Text), "\n") {
		raw = strings.TrimSpace(raw)
		if strings.HasPrefix(raw, "[") && !slices.Contains(sections, raw) {
			return fmt.Errorf("%s:%d: the section %s is not supported; there are %s", file.Name, i+1, raw, strings.Join(sections, ", "))
		}
	}
	for _, want := range []struct{ section, key, value string }{
		{"r", "r", "sub,obj,act"},
		{"p", "p", "sub,obj,act"},
		{"g", "g", "_,_"},
		{"e", "e", "some(where(p_eft==allow))"},
		{"m", "m", "g(r_sub,p_sub)&&r_obj==p_obj&&r_act==p_act"},
	} {
		assertion, ok := m[want.section][want.key]
		if !ok {
			return fmt.Errorf("%s: the definition of %s is missing", file.Name, want.key)
		}
		if got := strings.Join(strings.Fields(assertion.Value), ""); got != want.value || len(m[want.section]) != 1 {
			return fmt.Errorf("%s: %s = %s is not supported; write %s = %s and nothing beside it", file.Name, want.key, assertion.Value, want.key,
				strings.ReplaceAll(want.value, "_s", ".s"))
		}
	}
	return nil
}

// sections of a model.
var sections = []string{"[request_definition]", "[policy_definition]", "[role_definition]", "[policy_effect]", "[matchers]"}

// adapter hands Casbin lines that were read and checked already.
type adapter []line

func (a adapter) LoadPolicy(m model.Model) error {
	for _, l := range a {
		if err := persist.LoadPolicyArray(append([]string{l.kind}, l.fields...), m); err != nil {
			return fmt.Errorf("line %d: %w", l.number, err)
		}
	}
	return nil
}

var errReadOnly = errors.New("the policy is a file; it is not written")

func (adapter) SavePolicy(model.Model) error                              { return errReadOnly }
func (adapter) AddPolicy(string, string, []string) error                  { return errReadOnly }
func (adapter) RemovePolicy(string, string, []string) error               { return errReadOnly }
func (adapter) RemoveFilteredPolicy(string, string, int, ...string) error { return errReadOnly }

func newEnforcer(modelText string, lines []line) (*casbin.Enforcer, error) {
	m, err := model.NewModelFromString(modelText)
	if err != nil {
		return nil, err
	}
	return casbin.NewEnforcer(m, adapter(lines))
}

// compile asks Casbin for every role and permission, so that a decision is a few bit
// operations afterwards, and for the roles of everyone named in a g line.
func compile(enforcer *casbin.Enforcer, lines []line) (*Policy, error) {
	policy := &Policy{sets: map[string]Set{User: 0}, names: map[string][]string{User: nil}}
	for _, l := range lines {
		if isName(l.fields[0]) {
			policy.names[l.fields[0]] = nil
			continue
		}
		policy.sets[l.fields[0]] = 0
	}
	for role := range policy.sets {
		for _, p := range permissions {
			allowed, err := enforcer.Enforce(role, string(p.Object), string(p.Act))
			if err != nil {
				return nil, fmt.Errorf("asking Casbin for %s, %s: %w", role, p, err)
			}
			if allowed {
				policy.sets[role] |= bitOf[p]
			}
		}
	}
	for name := range policy.names {
		roles, err := enforcer.GetImplicitRolesForUser(name)
		if err != nil {
			return nil, fmt.Errorf("asking Casbin for the roles of %s: %w", name, err)
		}
		slices.Sort(roles)
		policy.names[name] = slices.Compact(roles)
	}
	return policy, nil
}

// checkCompiled refuses what no inclusion may bring about: a right to everybody's things for
// everyone who signs in.
func checkCompiled(name string, policy *Policy) error {
	var errs []error
	for _, p := range permissions {
		if policy.sets[User].Has(p) && strings.HasSuffix(string(p.Object), ":any") {
			errs = append(errs, fmt.Errorf("%s: everyone who signs in is a %q, which holds %q; give that to another role", name, User, p))
		}
	}
	return errors.Join(errs...)
}
