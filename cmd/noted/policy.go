package main

import (
	"fmt"

	"noted"
)

type policyCommand struct {
	Test policyTestCommand `cmd:"" help:"Run policy_test.csv: what the policy must allow and deny."`
}

type policyTestCommand struct {
	Model  string `help:"Casbin's model file; model.conf here, else the one in the binary."`
	Policy string `help:"The policy file; policy.csv here, else the one in the binary."`
	Tests  string `help:"The file of expectations; policy_test.csv here, else the one in the binary."`
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
	result, err := policy.Test(tests)
	if err != nil {
		return fmt.Errorf("the policy is not what %s expects:\n%w", tests.Name, err)
	}
	_, err = fmt.Fprintf(to.out, "%s: all %d lines hold (%d allow, %d deny)\n", tests.Name, result.Allow+result.Deny, result.Allow, result.Deny)
	return err
}
