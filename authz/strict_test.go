package authz_test

import (
	"fmt"
	"strings"
	"testing"
)

// What the model refuses about families besides, each on a line of its own.
func TestFamiliesHoldOnlyWhatIsTheirs(t *testing.T) {
	for _, add := range []string{
		"p, org-reader, note:any, read", "p, org-reader, note:own, read", "p, org-reader, self, read", "p, org-reader, deadzone:any, purge",
		"p, grant-reader, note:any, read", "p, grant-reader, note:own, read", "p, grant-reader, self, read",
		"p, admin, note:org, read", "p, admin, note:restricted, read", "p, admin, deadzone:org, read", "p, admin, notebook, read",
		"p, admin, notebook:restricted, read", "p, admin, member, read", "p, admin, invitation, read", "p, admin, grant, read",
		"p, admin, key:org, read", "p, admin, audit:org, read", "p, admin, org, read", "p, admin, org, delete",
	} {
		if _, err := load(t, good+add+"\n"); err == nil {
			t.Errorf("it was taken: %s", add)
		}
	}
	for _, add := range []string{"p, admin, org, create", "p, key-writer, note:org, write", "p, key-writer, note:any, read", "p, key-writer, org, create"} {
		if _, err := load(t, good+add+"\n"); err != nil {
			t.Errorf("%s: %v", add, err)
		}
	}
}

// Casbin lets these pass in silence.
func TestWhatCasbinPassesOverIsRefused(t *testing.T) {
	var chain strings.Builder
	for i := range 12 {
		fmt.Fprintf(&chain, "g, r%d, r%d\n", i, i+1)
	}
	chain.WriteString("p, r12, note:any, read\n")
	for name, add := range map[string]string{
		"a role that includes itself":            "g, admin, admin",
		"a cycle":                                "g, admin, boss\ng, boss, admin",
		"a chain deeper than Casbin follows":     chain.String(),
		"an invisible character in a role":       "p, ad\u200bmin, note:any, write",
		"an invisible character in a name":       "g, dev:b\u00adob, admin",
		"a non-breaking blank":                   "g, dev:bob\u00a0x, admin",
		"a name of no provider (email:)":         "g, email:bob@dev.example, admin",
		"a name of no provider (key:)":           "g, key:0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b, admin",
		"a name of no provider (service:)":       "g, service:x, admin",
		"a bare control character":               "g, dev:bob\x01, admin",
		"a person under a name that reads alike": "g, dev:\u202ebob, admin",
	} {
		if _, err := load(t, good+add+"\n"); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
