package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"noted"
	"noted/authz"
)

type policyCommand struct {
	Check   policyCheckCommand   `cmd:"" help:"Say everything that is wrong with model.conf and policy.csv."`
	Test    policyTestCommand    `cmd:"" help:"Run policy_test.csv: what the policy must allow and deny."`
	Diff    policyDiffCommand    `cmd:"" help:"Say who gains and who loses what between two policies."`
	Explain policyExplainCommand `cmd:"" help:"Say whether somebody may do something, and by which lines. Exits 0 for yes, 1 for no, 2 for an error."`
}

// modelFlag and policyFlag name the files that a command reads.
type modelFlag struct {
	Model string `help:"Casbin's model file; model.conf here, else the one in the binary."`
}

type policyFlags struct {
	modelFlag
	Policy string `help:"The policy file; policy.csv here, else the one in the binary."`
}

type jsonFlag struct {
	JSON bool `help:"Print JSON, for programs."`
}

// printJSON prints value for programs.
func (f jsonFlag) printJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// exitCode is the exit code, with an error still to print, if any.
type exitCode struct {
	code int
	err  error // what is still to be printed; may be nil
}

func (e exitCode) Error() string { return fmt.Sprint(e.err) }

type policyCheckCommand struct {
	policyFlags
	Config configFile `help:"The YAML file of noted serve: then providers and e-mail domains are compared with it too." type:"existingfile"`
	jsonFlag
}

// checked is what `noted policy check --json` prints.
type checked struct {
	OK       bool         `json:"ok"`
	Hash     string       `json:"hash,omitempty"`
	Faults   authz.Faults `json:"faults"`
	Warnings authz.Faults `json:"warnings"`
}

// Run prints all faults and warnings; it fails if there is a fault.
func (c *policyCheckCommand) Run(to streams) error {
	providers, err := c.Config.providers()
	if err != nil {
		return err
	}
	result := checked{Faults: authz.Faults{}, Warnings: authz.Faults{}}
	policy, err := loadPolicy(c.Model, c.Policy)
	if err != nil {
		if !errors.As(err, &result.Faults) {
			return err
		}
	} else {
		result.OK, result.Hash = true, policy.Hash
		result.Warnings = append(result.Warnings, policy.Warnings(providers.InPolicy())...)
	}
	if c.JSON {
		if err := c.printJSON(to.out, result); err != nil {
			return err
		}
	} else {
		c.print(to, result, policy)
	}
	if !result.OK {
		return exitCode{code: 1}
	}
	return nil
}

func (c *policyCheckCommand) print(to streams, result checked, policy *authz.Policy) {
	for _, one := range result.Faults {
		_, _ = fmt.Fprintln(to.err, one)
	}
	for _, one := range result.Warnings {
		_, _ = fmt.Fprintf(to.err, "%s:%d:%d: warning: %s\n", one.File, one.Line, one.Column, one.Message)
	}
	if result.OK {
		_, _ = fmt.Fprintf(to.out, "%s is sound: %s, %s, hash %s\n", policy.File(), count(len(policy.Roles()), "role"), count(len(result.Warnings), "warning"), policy.Hash)
	} else {
		_, _ = fmt.Fprintln(to.err, count(len(result.Faults), "fault"))
	}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

type policyTestCommand struct {
	policyFlags
	Tests    string `help:"The file of expectations; policy_test.csv here, else the one in the binary."`
	Coverage bool   `help:"Fail also when no expectation asks for some permission, and name it."`
	jsonFlag
}

// tested is what `noted policy test --json` prints.
type tested struct {
	OK bool `json:"ok"`
	authz.TestResult
	Faults authz.Faults `json:"faults"`
}

// Run prints how many expectations hold; each that does not is an error with its line.
func (c *policyTestCommand) Run(to streams) error {
	policy, err := loadPolicy(c.Model, c.Policy)
	if err != nil {
		return err
	}
	tests, err := source(c.Tests, "policy_test.csv", noted.PolicyTest)
	if err != nil {
		return err
	}
	result := tested{Faults: authz.Faults{}}
	result.TestResult, err = policy.Test(tests)
	if err != nil && !errors.As(err, &result.Faults) {
		return err
	}
	uncovered := c.Coverage && len(result.Untested) > 0
	result.OK = err == nil && !uncovered
	if c.JSON {
		if err := c.printJSON(to.out, result); err != nil {
			return err
		}
	} else {
		for _, one := range result.Faults {
			_, _ = fmt.Fprintln(to.err, one)
		}
		if uncovered {
			for _, one := range result.Untested {
				_, _ = fmt.Fprintf(to.err, "%s: no expectation asks for %s; write one line that allows it, or denies it: deny, user, %s\n",
					tests.Name, one, strings.Replace(one, " ", ", ", 1))
			}
		}
		if err == nil {
			_, _ = fmt.Fprintf(to.out, "%s: all %d lines hold (%d allow, %d deny)\n", tests.Name, result.Allow+result.Deny, result.Allow, result.Deny)
		} else {
			_, _ = fmt.Fprintf(to.err, "%s is not what %s expects: %s\n", policy.File(), tests.Name, count(len(result.Faults), "fault"))
		}
	}
	if !result.OK {
		return exitCode{code: 1}
	}
	return nil
}

type policyDiffCommand struct {
	Old string `arg:"" optional:"" help:"The policy file that was; - reads standard input, and the one in the binary is taken if it is left out."`
	New string `arg:"" optional:"" help:"The policy file that will be; - reads standard input, and --policy is taken if it is left out."`
	policyFlags
	jsonFlag
}

// Run prints the differences; having some is not a failure.
func (c *policyDiffCommand) Run(to streams) error {
	switch {
	case c.Old == "-" && cmp.Or(c.New, c.Policy) == "-":
		return errors.New("only one of the two can be standard input")
	case c.New != "" && c.Policy != "":
		return fmt.Errorf("the policy that will be is given twice, as %s and by --policy; leave one out", c.New)
	}
	old := authz.Source{Name: usualPolicy + " as shipped", Text: noted.Policy}
	var err error
	if c.Old != "" {
		if old, err = source(c.Old, usualPolicy, nil); err != nil {
			return err
		}
	}
	next, err := source(cmp.Or(c.New, c.Policy), usualPolicy, noted.Policy)
	if err != nil {
		return err
	}
	model, err := source(c.Model, usualModel, noted.Model)
	if err != nil {
		return err
	}
	before, err := authz.Load(model, old)
	if err != nil {
		return err
	}
	after, err := authz.Load(model, next)
	if err != nil {
		return err
	}
	changes := after.Diff(before)
	if c.JSON {
		return c.printJSON(to.out, map[string]any{"changes": changes})
	}
	if bytes.Equal(old.Text, next.Text) {
		_, _ = fmt.Fprintf(to.err, "%s is the same as %s.\n", next.Name, old.Name)
	}
	if len(changes) == 0 {
		_, _ = fmt.Fprintln(to.out, "Nobody gains or loses anything.")
	}
	for _, one := range changes {
		_, _ = fmt.Fprint(to.out, changeText(one))
	}
	return nil
}

// changeText is one subject's paragraph.
func changeText(c authz.Change) string {
	var b strings.Builder
	who := c.Kind + " " + c.Who
	if c.Kind == "everyone" {
		who = "everyone who signs in (" + c.Who + ")"
	}
	fmt.Fprintln(&b, who)
	for _, one := range c.GainsRoles {
		fmt.Fprintf(&b, "  + role %s\n", one)
	}
	for _, one := range c.LosesRoles {
		fmt.Fprintf(&b, "  - role %s\n", one)
	}
	reaches := map[string]bool{}
	for _, one := range c.Reaches {
		reaches[one] = true
	}
	for _, one := range c.Gains {
		if reaches[one] {
			one += "      ! reaches other people's notes"
		}
		fmt.Fprintf(&b, "  + %s\n", one)
	}
	for _, one := range c.Loses {
		fmt.Fprintf(&b, "  - %s\n", one)
	}
	return b.String()
}

type policyExplainCommand struct {
	Subject    string   `arg:"" help:"A role, or a name as in a g line, known or not."`
	Permission []string `arg:"" help:"An object and an act: note:any read, as the permission member of a 403 has them."`
	Key        string   `help:"The role of an API key by which SUBJECT comes, which has to allow it too; of a service key, SUBJECT is its role: org-reader."`
	policyFlags
	jsonFlag
}

// explained is what `noted policy explain --json` prints.
type explained struct {
	Subject    string `json:"subject"`
	Key        string `json:"key,omitempty"` // the API key's role
	Permission string `json:"permission"`
	File       string `json:"file"`
	authz.Explanation
}

// Run prints the decision; a denial exits with 1, an error with 2.
func (c *policyExplainCommand) Run(to streams) error {
	words := strings.Fields(strings.Join(c.Permission, " "))
	if len(words) != 2 {
		return exitCode{2, fmt.Errorf("want SUBJECT OBJECT ACT, such as mona@example.com note:any read; read %q", strings.Join(append([]string{c.Subject}, c.Permission...), " "))}
	}
	needed, err := authz.ParsePermission(words[0], words[1])
	if err == nil {
		err = authz.CheckSubject(c.Subject)
	}
	if err != nil {
		return exitCode{2, err}
	}
	policy, err := loadPolicy(c.Model, c.Policy)
	if err != nil {
		return exitCode{2, err}
	}
	if keys := policy.KeyRoles(); c.Key != "" && !slices.Contains(keys, c.Key) {
		return exitCode{2, fmt.Errorf("--key: the policy has no key role %q; roles of API keys are %s", c.Key, strings.Join(keys, ", "))}
	}
	e := policy.ExplainBy(c.Key, needed, c.Subject)
	if c.JSON {
		err = c.printJSON(to.out, explained{c.Subject, c.Key, needed.String(), policy.File(), e})
	} else {
		err = explain(to.out, policy, c.Subject, c.Key, needed, e)
	}
	switch {
	case err != nil:
		return exitCode{2, err}
	case !e.Allowed:
		return exitCode{code: 1}
	}
	return nil
}

func explain(to io.Writer, policy *authz.Policy, subject, key string, needed authz.Permission, e authz.Explanation) error {
	var b strings.Builder
	show := func(ways [][]authz.Step) {
		for i, way := range ways {
			if i > 0 {
				fmt.Fprintln(&b, "and also because")
			}
			for _, step := range way {
				fmt.Fprintf(&b, "  %s:%d: %s\n", policy.File(), step.Line, step.Text)
			}
		}
	}
	who := subject
	if key != "" {
		who += " by a " + key
	}
	switch {
	case e.Allowed:
		fmt.Fprintf(&b, "allowed: %s may %s, because\n", who, needed)
		show(e.Ways)
		if len(e.Ways) > 0 && len(e.KeyWays) > 0 {
			fmt.Fprintln(&b, "and the key may, because")
		}
		show(e.KeyWays)
	case e.LimitedBy != nil:
		fmt.Fprintf(&b, "denied: %s may not %s, since the key's role alone lacks it; %s\n", who, needed, e.Missing)
	default:
		fmt.Fprintf(&b, "denied: %s may not %s; %s\n", who, needed, e.Missing)
	}
	if known := policy.Knows(subject); known != "" {
		fmt.Fprintf(&b, "note: %s\n", known)
	}
	_, err := fmt.Fprint(to, b.String())
	return err
}
