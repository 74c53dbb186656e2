package authz

import (
	"fmt"
	"slices"
)

// TestResult is what Test found.
type TestResult struct {
	Allow int `json:"allow"` // expectations of each kind
	Deny  int `json:"deny"`
	// Untested are the permissions of the vocabulary that no expectation asks for.
	Untested []string `json:"untested"`
}

// Test runs a file of expectations, `allow|deny, SUBJECT, OBJECT, ACT`, against the policy.
// The error, Faults, names each line that fails or is not an expectation. A file without
// expectations is an error too, since it would prove nothing.
func (p *Policy) Test(file Source) (TestResult, error) {
	lines, faults := read(file)
	result := TestResult{Untested: []string{}}
	asked := Set{}
	for _, l := range lines {
		fail := func(at field, rule, format string, args ...any) {
			faults = append(faults, Fault{File: file.Name, Line: l.number, Column: at.column, Rule: rule, Message: fmt.Sprintf(format, args...)})
		}
		if !slices.Contains([]string{"allow", "deny"}, l.kind.text) || len(l.fields) != 3 {
			fail(l.kind, "expectation", "%q is no expectation; write allow or deny, SUBJECT, OBJECT, ACT", l.rewritten())
			continue
		}
		subject := l.at(0)
		if err := CheckSubject(subject); err != nil {
			fail(l.fields[0], "wildcard", "%v", err)
			continue
		}
		needed, err := ParsePermission(l.at(1), l.at(2))
		if err != nil {
			fail(l.fields[1], "expectation", "%v", err)
			continue
		}
		if !isName(subject) && !p.IsRole(subject) {
			fail(l.fields[0], "unknown-role", "no line of the policy defines the role %q; %s", subject, instead(subject, p.Roles()))
			continue
		}
		asked = asked.or(setOf(vocabulary.known[needed].bit))
		allowed := p.Allows(subject, needed)
		switch {
		case allowed && l.kind.text == "deny":
			fail(l.kind, "not-denied", "the policy allows %s to %s, by %s", needed, subject, p.Explain(needed, subject).lines())
		case !allowed && l.kind.text == "allow":
			fail(l.kind, "not-allowed", "the policy does not allow %s to %s; %s", needed, subject, p.Explain(needed, subject).Missing)
		}
		if l.kind.text == "allow" {
			result.Allow++
		} else {
			result.Deny++
		}
	}
	for _, one := range vocabulary.permissions {
		if !asked.Has(one) {
			result.Untested = append(result.Untested, one.String())
		}
	}
	if len(lines) == 0 && len(faults) == 0 {
		faults = Faults{{File: file.Name, Line: 1, Column: 1, Rule: "no-expectation", Message: "there is no expectation; write allow or deny, SUBJECT, OBJECT, ACT"}}
	}
	return result, faults.err()
}
