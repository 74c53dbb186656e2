package authz

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
)

// Policy is what model.conf and policy.csv say, read and checked. Casbin was asked once for
// every role and permission. A Policy never changes; another policy is another value.
type Policy struct {
	// Hash is the hexadecimal SHA-256 of both files and of what was added to them.
	Hash string

	file    string
	lines   []line
	sets    map[string]Set      // Casbin's answers: what each role may do, with included roles
	closure map[string][]string // each role with the roles it includes, sorted
	holders map[string]*holder  // what each person's or group's name holds
	anybody *holder             // what everybody who signs in holds
}

// holder is what a name holds, with what everybody holds. It is shared and never written.
type holder struct {
	roles []string // sorted
	set   Set
}

// Grouping is a g line added in memory. `noted dev` adds its people this way.
type Grouping struct{ Who, Role string }

// User is the role that everyone who signs in holds.
const User = "user"

// Load reads, checks and compiles a policy. Its error is Faults, with all of them, unless
// Casbin itself fails.
func Load(modelFile, policyFile Source, added ...Grouping) (*Policy, error) {
	faults := checkModel(modelFile)
	lines, unread := read(policyFile)
	if len(lines)+len(unread) == 0 { // such as a file that is being written
		unread = Faults{{File: policyFile.Name, Line: 1, Column: 1, Rule: "no-line", Message: "nobody may do anything; write p, ROLE, OBJECT, ACT"}}
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %d\n", len(modelFile.Text), len(policyFile.Text))
	hash.Write(modelFile.Text)
	hash.Write(policyFile.Text)
	for _, add := range added {
		l := line{kind: field{text: "g"}, fields: []field{{text: add.Who}, {text: add.Role}}}
		l.text = l.rewritten()
		if !slices.ContainsFunc(lines, func(other line) bool { return other.kind.text == "g" && other.key() == l.key() }) {
			lines = append(lines, l)
		}
		fmt.Fprintf(hash, "g %q %q\n", add.Who, add.Role)
	}
	faults = append(append(faults, unread...), check(policyFile.Name, lines)...)
	if err := faults.err(); err != nil {
		return nil, err
	}
	policy := &Policy{Hash: hex.EncodeToString(hash.Sum(nil)), file: policyFile.Name, lines: lines}
	if err := policy.compile(string(bytes.TrimPrefix(modelFile.Text, []byte("\xef\xbb\xbf")))); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", modelFile.Name, policyFile.Name, err)
	}
	return policy, nil
}

// RequireAdmin returns Faults unless a g line makes an admin of somebody who can sign in by these
// providers: one for each line that seems to do so, or one. With providers nil, any g line will do.
func (p *Policy) RequireAdmin(providers []Provider) error {
	var faults Faults
	for _, l := range p.lines {
		if l.kind.text != "g" || !isName(l.at(0)) || !slices.Contains(p.closure[l.at(1)], admin) {
			continue
		}
		_, why := unheard(l.at(0), providers)
		if why == "" {
			return nil
		}
		faults = append(faults, Fault{
			File: p.file, Line: l.number, Column: l.fields[0].column, Rule: "no-admin",
			Message: "nobody can become an admin: " + why + "; or set allow_no_admin: true",
		})
	}
	if faults == nil {
		faults = Faults{{
			File: p.file, Line: p.lastLine(), Column: 1, Rule: "no-admin",
			Message: "no g line makes anybody an admin; write g, you@example.com, admin, or set allow_no_admin: true",
		}}
	}
	return faults.sorted()
}

// admin is the role that Warnings and RequireAdmin look for. No decision uses it.
const admin = "admin"

// File is the name of the policy file.
func (p *Policy) File() string { return p.file }

// IsRole reports whether the policy defines role.
func (p *Policy) IsRole(role string) bool {
	_, ok := p.sets[role]
	return ok
}

// Roles are all roles of the policy, sorted.
func (p *Policy) Roles() []string { return slices.Sorted(maps.Keys(p.sets)) }

// KeyRoles are the roles that an API key may be narrowed to, sorted.
func (p *Policy) KeyRoles() []string {
	return slices.DeleteFunc(p.Roles(), func(role string) bool { return !strings.HasPrefix(role, "key-") })
}

// RolesOf returns the platform roles of somebody with these names, with included roles and
// the role user, sorted. Do not modify the result.
func (p *Policy) RolesOf(names ...string) []string { return p.held(names).roles }

// held combines what the names hold.
func (p *Policy) held(names []string) *holder {
	sum := p.anybody
	for _, name := range names {
		one := p.holders[name]
		switch {
		case one == nil || one == sum:
		case sum == p.anybody:
			sum = one
		default:
			roles := slices.Concat(sum.roles, one.roles)
			slices.Sort(roles)
			sum = &holder{roles: slices.Compact(roles), set: sum.set.or(one.set)}
		}
	}
	return sum
}

// HoldersOf returns the names of people and groups to whom g lines give any act on the object.
func (p *Policy) HoldersOf(object Object) []string {
	names := []string{}
	for name, one := range p.holders {
		if slices.ContainsFunc(vocabulary.acts[object], func(act Act) bool { return one.set.Has(Permission{object, act}) }) {
			names = append(names, name)
		}
	}
	return names
}

// Held reports whether any g line gives role to a person or group.
func (p *Policy) Held(role string) bool {
	for _, l := range p.lines {
		if l.kind.text == "g" && isName(l.at(0)) && slices.Contains(p.closure[l.at(1)], role) {
			return true
		}
	}
	return false
}

// Allows reports whether the subject has the permission. The subject is a role or a name as in a
// g line. A name has what its roles and the role user hold.
func (p *Policy) Allows(subject string, permission Permission) bool {
	return p.setOf(subject).Has(permission)
}

func (p *Policy) setOf(subject string) Set {
	if isName(subject) {
		if one := p.holders[subject]; one != nil {
			return one.set
		}
		return p.anybody.set
	}
	return p.sets[subject]
}

// adapter hands Casbin lines that are already read and checked.
type adapter []line

func (a adapter) LoadPolicy(m model.Model) error {
	for _, l := range a {
		if err := persist.LoadPolicyArray(texts(append([]field{l.kind}, l.fields...), ""), m); err != nil {
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

// compile asks Casbin about every role and permission, so that a later decision is a few bit
// operations. Enforce's time grows with the lines it knows. So each role gets an enforcer with
// only the lines of its closure; no other line can matter to it.
func (p *Policy) compile(modelText string) error {
	byRole, names := map[string][]line{User: nil}, map[string][]string{}
	for _, l := range p.lines {
		if isName(l.at(0)) {
			names[l.at(0)] = append(names[l.at(0)], l.at(1))
			continue
		}
		byRole[l.at(0)] = append(byRole[l.at(0)], l)
	}
	p.sets, p.closure = map[string]Set{}, map[string][]string{}
	for role := range byRole {
		p.closure[role] = closureOf(role, byRole)
		var lines adapter
		for _, one := range p.closure[role] {
			lines = append(lines, byRole[one]...)
		}
		set, err := ask(modelText, lines, role)
		if err != nil {
			return err
		}
		p.sets[role] = set
	}
	p.anybody = p.holderOf([]string{User})
	p.holders = make(map[string]*holder, len(names))
	shared := map[string]*holder{} // by the roles that g lines give directly
	for name, roles := range names {
		slices.Sort(roles)
		key := strings.Join(roles, ",")
		if shared[key] == nil {
			shared[key] = p.holderOf(append(roles, User))
		}
		p.holders[name] = shared[key]
	}
	return nil
}

// closureOf returns role and all roles it includes, sorted. There are no cycles.
func closureOf(role string, byRole map[string][]line) []string {
	list := []string{role}
	for i := 0; i < len(list); i++ {
		for _, l := range byRole[list[i]] {
			if l.kind.text == "g" && !slices.Contains(list, l.at(1)) {
				list = append(list, l.at(1))
			}
		}
	}
	slices.Sort(list)
	return list
}

func (p *Policy) holderOf(roles []string) *holder {
	h := &holder{}
	for _, role := range roles {
		h.roles = append(h.roles, p.closure[role]...)
		h.set = h.set.or(p.sets[role])
	}
	slices.Sort(h.roles)
	h.roles = slices.Compact(h.roles)
	return h
}

// ask asks Casbin about every permission for one role.
func ask(modelText string, lines adapter, role string) (Set, error) {
	m, err := model.NewModelFromString(modelText)
	if err != nil {
		return Set{}, err
	}
	enforcer, err := casbin.NewEnforcer(m, lines)
	if err != nil {
		return Set{}, err
	}
	var set Set
	for bit, needed := range vocabulary.permissions {
		allowed, err := enforcer.Enforce(role, string(needed.Object), string(needed.Act))
		if err != nil {
			return Set{}, fmt.Errorf("asking Casbin for %s, %s: %w", role, needed, err)
		}
		if allowed {
			set = set.or(setOf(bit))
		}
	}
	return set, nil
}
