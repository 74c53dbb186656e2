//go:build !race

// These tests ask Casbin some hundred thousand times, on one goroutine. There is no race to find, and the race
// detector makes them ten times slower. `make test` runs them without.

package authz_test

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"pgregory.net/rapid"

	"noted"
	"noted/authz"
)

// goodFiles mean what they look like.
var goodFiles = map[string]string{
	"a byte order mark":               "\xef\xbb\xbfp, user, note:own, read\ng, dev:ada, user\n",
	"line ends of Windows":            "p, user, note:own, read\r\np, admin, note:any, read\r\ng, dev:ada, admin\r\n",
	"no last line end":                "p, user, note:own, read\ng, dev:ada, user",
	"trailing blanks":                 "p, user, note:own, read   \ng, dev:ada, user\t\n",
	"no blanks":                       "p,user,note:own,read\ng,dev:ada,user\n",
	"blanks before commas":            "p , user , note:own , read\n",
	"tabs":                            "p,\tuser,\tnote:own,\tread\n",
	"indented":                        "  p, user, note:own, read\n\t# a comment\n",
	"quotes":                          "\"p\", \"user\", \"note:own\", \"read\"\ng, \"dev:ada\", user\n",
	"a comma in quotes":               "p, staff, note:any, read\ng, \"group:dev:a, b\", staff\n",
	"a quote in quotes":               "p, staff, note:any, read\ng, \"group:dev:the \"\"a\"\" team\", staff\n",
	"a hash in a group":               "p, staff, note:any, read\ng, group:dev:team#1, staff\n",
	"a hash behind a blank in quotes": "p, staff, note:any, read\ng, \"group:dev:team #1\", staff\n",
	"a group with colons and slashes": "p, staff, note:any, read\ng, group:kc:urn:x:/a/b, staff\n",
	"a group that is not ASCII":       "p, staff, note:any, read\ng, group:kc:/Köln, staff\n",
	"a role that is not ASCII":        "p, größte, note:any, read\ng, dev:ada, größte\n",
	"a subject with an @":             "p, staff, note:any, read\ng, kc:ada@example.com, staff\n",
	"lines in any order":              "g, dev:ada, boss\ng, boss, staff\np, staff, note:any, read\n",
	"inclusion ten deep":              "p, r9, note:any, read\ng, dev:ada, r0\ng, r0, r1\ng, r1, r2\ng, r2, r3\ng, r3, r4\ng, r4, r5\ng, r5, r6\ng, r6, r7\ng, r7, r8\ng, r8, r9\n",
	"a diamond":                       "p, d, note:any, read\ng, a, b\ng, a, c\ng, b, d\ng, c, d\ng, dev:ada, a\n",
	"a role that only includes":       "p, staff, note:any, read\ng, boss, staff\ng, dev:ada, boss\n",
	"keys, organizations, grants":     "p, key-reader, note:any, read\np, org-reader, note:org, read\np, grant-reader, notebook, read\n",
	"the shipped one":                 string(noted.Policy),
}

// plainly is Casbin's own reading of a policy: the fields that encoding/csv reads on each line,
// and nothing else. subjects are all the first columns.
func plainly(t testing.TB, text string) (enforcer *casbin.Enforcer, subjects []string) {
	t.Helper()
	var clean strings.Builder
	for line := range strings.SplitSeq(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		reader := csv.NewReader(strings.NewReader(line))
		reader.TrimLeadingSpace = true
		fields, err := reader.Read()
		if err != nil {
			t.Fatalf("%q was taken: %v", line, err)
		}
		for i, field := range fields {
			field = strings.TrimSpace(field)
			fields[i] = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
			if i == 1 {
				subjects = append(subjects, field)
			}
		}
		clean.WriteString(strings.Join(fields, ",") + "\n")
	}
	m, err := model.NewModelFromString(string(noted.Model))
	if err != nil {
		t.Fatal(err)
	}
	clean.WriteString("# so that it is not empty")
	enforcer, err = casbin.NewEnforcer(m, stringadapter.NewAdapter(clean.String()))
	if err != nil {
		t.Fatalf("Casbin refuses %q: %v", text, err)
	}
	slices.Sort(subjects)
	return enforcer, slices.Compact(subjects)
}

// compare asks both about every subject and every n-th permission, and counts the answers. A
// name also holds what everybody holds, which Casbin does not know.
func compare(t testing.TB, policy *authz.Policy, text string, n int) (allow, deny int) {
	t.Helper()
	enforcer, subjects := plainly(t, text)
	ask := func(subject string, p authz.Permission) bool {
		ok, err := enforcer.Enforce(subject, string(p.Object), string(p.Act))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return ok
	}
	subjects = append(subjects, "user", "nobody", "dev:stranger")
	for i, subject := range subjects {
		for j, p := range vocabulary() {
			if (i+j)%n != 0 {
				continue
			}
			want := ask(subject, p)
			if strings.ContainsAny(subject, "@:") {
				want = want || ask("user", p)
			}
			got := policy.Allows(subject, p)
			if got != want {
				t.Fatalf("%q, %s: noted says %v, Casbin %v, of:\n%s", subject, p, got, want, text)
			}
			e := policy.Explain(p, subject)
			if e.Allowed != got || got != (len(e.Because) > 0) || got != (e.Missing == nil) {
				t.Fatalf("%q, %s is %v, explained by %+v, of:\n%s", subject, p, got, e, text)
			}
			if got {
				allow++
			} else {
				deny++
			}
		}
	}
	return allow, deny
}

func TestGoodFilesMeanToCasbinWhatTheySay(t *testing.T) {
	for name, text := range goodFiles {
		policy, err := load(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if allow, _ := compare(t, policy, text, 1); allow == 0 {
			t.Errorf("%s: nobody may do anything", name)
		}
	}
}

// For any bytes: no panic, and what is accepted means to Casbin what it says. Each fault has a
// place in the file.
func FuzzLoad(f *testing.F) {
	for _, text := range goodFiles {
		f.Add([]byte(text), noted.Model)
	}
	f.Add([]byte("g, a, b\ng, b, a\np, a, note:any, read # x\n\"p"), []byte("[matchers]\nm = true\n[x\ny = 1 ; z"))
	f.Fuzz(func(t *testing.T, policyText, modelText []byte) {
		if len(policyText) > 600 { // a fuzzer's input; the seeds are shorter
			t.Skip("longer than Casbin, which is asked the same, can be asked for in time")
		}
		if _, err := authz.Load(authz.Source{Name: "m", Text: modelText}, authz.Source{Name: "p", Text: []byte(good)}); err != nil {
			checkFaults(t, err, modelText)
		}
		policy, err := authz.Load(authz.Source{Name: "m", Text: noted.Model}, authz.Source{Name: "p", Text: policyText})
		if err != nil {
			checkFaults(t, err, policyText)
			return
		}
		compare(t, policy, string(policyText), 1)
		for _, p := range vocabulary() {
			if strings.HasSuffix(string(p.Object), ":any") && policy.Allows("user", p) {
				t.Errorf("everyone holds %s by %q", p, policyText)
			}
			for _, role := range policy.KeyRoles() {
				if kind := p.Object.Kind(); (kind == "key" || kind == "session" || kind == "identity") && policy.Allows(role, p) {
					t.Errorf("the key role %q holds %s by %q", role, p, policyText)
				}
			}
		}
		policy.Warnings([]authz.Provider{{ID: "dev"}})
		if changes := policy.Diff(policy); len(changes) > 0 {
			t.Fatalf("a policy differs from itself: %+v", changes)
		}
	})
}

// generated is a valid policy: roles that include up to ten deep, people with several names.
func generated(t *rapid.T) string {
	var b strings.Builder
	seen := map[string]bool{}
	add := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if !seen[line] {
			seen[line] = true
			b.WriteString(line + "\n")
		}
	}
	all := vocabulary()
	var platform, organization []authz.Permission
	for _, p := range all {
		if roleFor(p) == "tester" {
			platform = append(platform, p)
		} else {
			organization = append(organization, p)
		}
	}
	families := []struct {
		prefix string
		deep   int // roles one below the other; a person's own line is above them
		may    []authz.Permission
	}{
		{"r", 9, platform},
		{"org-", 2, organization},
		{"grant-", 1, organization},
		{"key-", 2, slices.DeleteFunc(slices.Clone(all), func(p authz.Permission) bool {
			return slices.Contains([]authz.Kind{"key", "session", "identity"}, p.Object.Kind())
		})},
	}
	for _, family := range families {
		for i := range family.deep + 1 {
			for range rapid.IntRange(6, 14).Draw(t, "permissions") {
				p := rapid.SampledFrom(family.may).Draw(t, "permission")
				add("p, %s%d, %s, %s", family.prefix, i, p.Object, p.Act)
			}
			if i > 0 && rapid.IntRange(0, 3).Draw(t, "included") > 0 {
				add("g, %s%d, %s%d", family.prefix, i-1, family.prefix, i)
			}
			if j := rapid.IntRange(0, family.deep).Draw(t, "other"); j > i {
				add("g, %s%d, %s%d", family.prefix, i, family.prefix, j)
			}
		}
	}
	for _, p := range platform {
		if !strings.HasSuffix(string(p.Object), ":any") && rapid.Bool().Draw(t, "everyone") {
			add("p, user, %s, %s", p.Object, p.Act)
		}
	}
	for _, name := range []string{"dev:ada", "dev:bob", "ada@example.com", "group:dev:staff", "\"group:dev:a, b\"", "group:kc:/x#y"} {
		for range rapid.IntRange(0, 2).Draw(t, "roles") {
			add("g, %s, r%d", name, rapid.IntRange(0, 9).Draw(t, "role"))
		}
	}
	return b.String()
}

func TestDecisionsAreCasbinsOwn(t *testing.T) {
	allow, deny := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		text := generated(rt)
		policy, err := load(t, text)
		if err != nil {
			rt.Fatalf("%v, of:\n%s", err, text)
		}
		more, less := compare(t, policy, text, 5)
		allow, deny = allow+more, deny+less
		// Several names together, some of them with a key.
		enforcer, _ := plainly(t, text)
		names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"dev:ada", "ada@example.com", "group:dev:staff", "group:dev:a, b", "dev:none"}), rapid.ID).Draw(rt, "names")
		keyRole := fmt.Sprintf("key-%d", rapid.IntRange(0, 2).Draw(rt, "key role"))
		bySession := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, names)
		byKey := authz.NewPrincipal(authz.Principal{Via: authz.ViaKey, KeyRole: keyRole}, policy, names)
		for _, p := range vocabulary() {
			want := false
			for _, subject := range append([]string{"user"}, names...) {
				ok, err := enforcer.Enforce(subject, string(p.Object), string(p.Act))
				if err != nil {
					rt.Fatal(err)
				}
				want = want || ok
			}
			narrowed, err := enforcer.Enforce(keyRole, string(p.Object), string(p.Act))
			if err != nil {
				rt.Fatal(err)
			}
			if got := bySession.Holds(p); got != want {
				rt.Fatalf("%v, %s: %v, Casbin says %v, of:\n%s", names, p, got, want, text)
			}
			if got := byKey.Holds(p); got != (want && narrowed) {
				rt.Fatalf("%v by a %s, %s: %v, Casbin says %v and %v, of:\n%s", names, keyRole, p, got, want, narrowed, text)
			}
			if want {
				allow++
			} else {
				deny++
			}
		}
	})
	t.Logf("%d answers allowed, %d denied", allow, deny)
	if allow*5 < allow+deny {
		t.Error("fewer than a fifth of the answers allow: this proves little")
	}
}

// policy_test.csv tests each promise: if any line of the shipped policy is removed, some
// expectation fails.
func TestNoLineOfTheShippedPolicyIsWithoutAnExpectation(t *testing.T) {
	taken := 0
	for line := range strings.Lines(string(noted.Policy)) {
		if !strings.HasPrefix(line, "p,") && !strings.HasPrefix(line, "g,") {
			continue
		}
		taken++
		policy := mustLoad(t, strings.Replace("\n"+string(noted.Policy), "\n"+line, "\n", 1))
		if _, err := policy.Test(authz.Source{Name: "policy_test.csv", Text: noted.PolicyTest}); err == nil {
			t.Errorf("nothing expects %s", line)
		}
	}
	if taken < 100 {
		t.Fatalf("only %d lines were taken away", taken)
	}
}
