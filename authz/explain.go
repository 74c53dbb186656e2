package authz

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Step is a line of policy.csv that plays a part in a decision.
type Step struct {
	Line int    `json:"line"` // 0 for a line that is in no file
	Text string `json:"text"`
}

// Missing is what a denial lacks.
type Missing struct {
	Permission string `json:"permission"`
	// Roles would give the permission. For a person they are platform roles, or roles in an
	// organization for what is decided there. For a role they are of its family.
	Roles []string `json:"roles" nullable:"false"`
}

// String says what to do about it.
func (m *Missing) String() string {
	if len(m.Roles) == 0 {
		return "no role that could give it holds it"
	}
	return "roles that hold it: " + strings.Join(m.Roles, ", ")
}

// Explanation is a decision with its reasons.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// Because lists the lines that allow it, way after way, each line once.
	Because []Step   `json:"because" nullable:"false"`
	Missing *Missing `json:"missing"` // nil when it is allowed
	// LimitedBy is the API key's role if only that lacks it; nil otherwise.
	LimitedBy *string `json:"limited_by" doc:"The API key's role, where that alone lacks it"`

	// Ways lead from the subject's g line to a p line with the permission. There is one for each
	// role that has such a p line.
	Ways [][]Step `json:"-"`
	// KeyWays lead from an API key's role to it.
	KeyWays [][]Step `json:"-"`
}

// explained fills in Because from the ways.
func (e *Explanation) explained() {
	e.Because = []Step{}
	for _, way := range slices.Concat(e.Ways, e.KeyWays) {
		for _, step := range way {
			if !slices.Contains(e.Because, step) {
				e.Because = append(e.Because, step)
			}
		}
	}
}

// lines lists the line numbers for an error message.
func (e Explanation) lines() string {
	var list []string
	for _, step := range e.Because {
		list = append(list, strconv.Itoa(step.Line))
	}
	return "line " + strings.Join(list, ", ")
}

// ErrObject is wrapped in ParsePermission's error when the object is unknown.
var ErrObject = errors.New("unknown object")

// ParsePermission checks an object and an act. Its error says what to write instead.
func ParsePermission(object, act string) (Permission, error) {
	acts := vocabulary.acts[Object(object)]
	if acts == nil {
		return Permission{}, fmt.Errorf("%w %q; %s", ErrObject, object, insteadOfObject(object))
	}
	if !slices.Contains(acts, Act(act)) {
		return Permission{}, fmt.Errorf("unknown act %q for %s; %s", act, object, insteadOfAct(act, acts))
	}
	return Permission{Object(object), Act(act)}, nil
}

// Explain decides whether subjects may do it, and by which lines: a role, or the names of a
// person or group as in g lines, known or not.
func (p *Policy) Explain(needed Permission, subjects ...string) Explanation {
	e := Explanation{Because: []Step{}}
	// Either somebody, who also holds the role user, or one role.
	somebody := len(subjects) != 1 || isName(subjects[0])
	if somebody {
		e.Allowed = p.held(subjects).set.Has(needed)
		subjects = append(slices.Clone(subjects), User)
	} else {
		e.Allowed = p.sets[subjects[0]].Has(needed)
	}
	if !e.Allowed {
		e.Missing = &Missing{Permission: needed.String(), Roles: []string{}}
		for _, role := range p.Roles() {
			held := family(role) == family(subjects[0]) || somebody && family(role) != "an API key"
			if held && p.sets[role].Has(needed) {
				e.Missing.Roles = append(e.Missing.Roles, role)
			}
		}
		return e
	}
	reached := map[string]bool{} // roles whose own p line was shown
	for _, subject := range subjects {
		e.Ways = append(e.Ways, p.ways(needed, subject, reached)...)
	}
	e.explained()
	return e
}

// ExplainBy is Explain for a caller with an API key, whose role must allow it too. An empty
// keyRole means no key. A service's subject is its role in its organization. To ask who it is,
// it needs only its key's role.
func (p *Policy) ExplainBy(keyRole string, needed Permission, subjects ...string) Explanation {
	e := p.Explain(needed, subjects...)
	service := len(subjects) == 1 && family(subjects[0]) == "an organization" && needed == serviceSelf
	if keyRole == "" || !e.Allowed && !service {
		return e
	}
	key := p.Explain(needed, keyRole)
	if !key.Allowed {
		key.LimitedBy = &keyRole
		return key
	}
	e = Explanation{Allowed: true, Ways: e.Ways, KeyWays: key.Ways}
	e.explained()
	return e
}

// serviceSelf is what a service may do outside its organization.
var serviceSelf = Permission{"self", "read"}

// ways follows g lines from subject, shortest way first, to each role with a p line that gives
// the permission. It leaves out roles that were reached before.
func (p *Policy) ways(needed Permission, subject string, reached map[string]bool) [][]Step {
	type place struct {
		role string
		way  []Step
	}
	var found [][]Step
	seen := map[string]bool{subject: true}
	for queue := []place{{role: subject}}; len(queue) > 0; queue = queue[1:] {
		here := queue[0]
		for _, l := range p.lines {
			if l.at(0) != here.role {
				continue
			}
			way := append(slices.Clone(here.way), Step{l.number, l.text})
			switch {
			case l.kind.text == "g" && !seen[l.at(1)]:
				seen[l.at(1)] = true
				queue = append(queue, place{l.at(1), way})
			case l.kind.text == "p" && !reached[here.role] && Object(l.at(1)) == needed.Object && Act(l.at(2)) == needed.Act:
				reached[here.role] = true
				found = append(found, way)
			}
		}
	}
	return found
}

// Knows returns "" if a line of the policy defines the role, or names the person or group.
// Otherwise it says what that means for them.
func (p *Policy) Knows(subject string) string {
	switch {
	case !isName(subject) && p.IsRole(subject), p.holders[subject] != nil:
		return ""
	case isName(subject):
		return "no line names " + subject + ", who holds what everyone holds who signs in: " + strings.Join(p.anybody.roles, ", ")
	}
	return fmt.Sprintf("no line defines the role %q; %s", subject, instead(subject, p.Roles()))
}
