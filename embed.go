// Package noted holds the model and the policy as shipped, for `noted dev`, `noted serve`
// and `noted policy` when the current folder has none of its own.
package noted

import _ "embed"

// The files as shipped.
var (
	//go:embed model.conf
	Model []byte
	//go:embed policy.csv
	Policy []byte
	//go:embed policy_test.csv
	PolicyTest []byte
)
