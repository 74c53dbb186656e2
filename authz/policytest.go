package authz

import (
	"errors"
	"fmt"
	"strings"
)

// TestResult counts what Test found.
type TestResult struct{ Allow, Deny int }

// Test runs a file of expectations, `allow|deny, SUBJECT, OBJECT, ACT`, against the policy.
// The error names each line that does not hold, or is no expectation at all; a file
// without one is an error too, since it would prove nothing.
func (p *Policy) Test(file Source) (TestResult, error) {
	lines, err := parse(file)
	if err != nil {
		return TestResult{}, err
	}
	var result TestResult
	var errs []error
	for _, l := range lines {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s:%d: %s", file.Name, l.number, fmt.Sprintf(format, args...)))
		}
		if (l.kind != "allow" && l.kind != "deny") || len(l.fields) != 3 {
			fail("want allow|deny, SUBJECT, OBJECT, ACT; read %s", strings.Join(append([]string{l.kind}, l.fields...), ", "))
			continue
		}
		permission := Permission{Object(l.fields[1]), Act(l.fields[2])}
		if bitOf[permission] == 0 {
			fail("%q is not in the vocabulary", permission)
			continue
		}
		if !isName(l.fields[0]) && !p.IsRole(l.fields[0]) {
			fail("no line of the policy defines the role %q", l.fields[0])
			continue
		}
		allowed := p.Allows(l.fields[0], permission)
		if allowed != (l.kind == "allow") {
			fail("want %s, the policy says the opposite: %s, %s", l.kind, l.fields[0], permission)
		}
		if l.kind == "allow" {
			result.Allow++
		} else {
			result.Deny++
		}
	}
	if result.Allow+result.Deny == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: no expectation in it", file.Name))
	}
	return result, errors.Join(errs...)
}
