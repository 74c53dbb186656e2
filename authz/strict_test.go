package authz_test

import "testing"

// Other things about families that the model refuses, each on its own line.
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
