package authz_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"noted"
	"noted/authz"
)

const team = `# the platform
p, user, note:own, read
p, staff, user:any, read
p, moderator, note:any, read
g, boss, moderator
g, boss, staff
p, boss, note:any, read
p, org-admin, note:org, write
p, key-reader, note:any, read
g, dev:mona, boss
g, group:dev:mods, moderator
`

func permission(t testing.TB, text string) authz.Permission {
	t.Helper()
	object, act, _ := strings.Cut(text, " ")
	p, err := authz.ParsePermission(object, act)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnExplanationNamesTheLinesOfEachWay(t *testing.T) {
	policy := mustLoad(t, team, authz.Grouping{Who: "dev:ada", Role: "staff"})
	for _, c := range []struct {
		subjects, asks string
		ways           string // line numbers; ways are separated by |
		missing        string // roles, if it is denied
	}{
		{"moderator", "note:any read", "4", ""},
		{"boss", "note:any read", "7|5 4", ""},
		{"boss", "user:any read", "6 3", ""},
		{"dev:mona", "note:any read", "10 7|10 5 4", ""},
		{"dev:mona", "note:own read", "2", ""}, // like everybody
		{"dev:nobody", "note:own read", "2", ""},
		{"nobody@example.com", "note:any read", "", "boss moderator"},
		{"dev:mona group:dev:mods", "note:any read", "10 7|10 5 4", ""}, // each role once
		{"group:dev:mods dev:none", "note:any read", "11 4", ""},
		{"dev:ada", "user:any read", "0 3", ""}, // a line in no file
		{"user", "note:any read", "", "boss moderator"},
		{"moderator", "note:own read", "", "user"},
		{"dev:mona", "note:org write", "", "org-admin"}, // what would give it is held elsewhere
		{"dev:mona", "deadzone:any purge", "", ""},      // nothing would give it
		{"key-reader", "note:any read", "9", ""},
		{"key-reader", "user:any read", "", ""},
		{"no-such-role", "note:any read", "", "boss moderator"},
	} {
		e := policy.Explain(permission(t, c.asks), strings.Fields(c.subjects)...)
		var ways []string
		for _, way := range e.Ways {
			var numbers []string
			for _, step := range way {
				numbers = append(numbers, fmt.Sprint(step.Line))
			}
			ways = append(ways, strings.Join(numbers, " "))
		}
		if got := strings.Join(ways, "|"); got != c.ways || e.Allowed != (c.ways != "") {
			t.Errorf("%s, %s: %v by %q, want %q", c.subjects, c.asks, e.Allowed, got, c.ways)
		}
		if !e.Allowed && (strings.Join(e.Missing.Roles, " ") != c.missing || e.Missing.Permission != c.asks) {
			t.Errorf("%s, %s: %+v is missing, want %q", c.subjects, c.asks, e.Missing, c.missing)
		}
	}
	e := policy.Explain(permission(t, "note:any read"), "dev:mona")
	want := []authz.Step{{Line: 10, Text: "g, dev:mona, boss"}, {Line: 7, Text: "p, boss, note:any, read"}, {Line: 5, Text: "g, boss, moderator"}, {Line: 4, Text: "p, moderator, note:any, read"}}
	if diff := cmp.Diff(want, e.Because); diff != "" {
		t.Error(diff)
	}
	if got := policy.Explain(permission(t, "user:any read"), "dev:ada").Because[0].Text; got != "g, dev:ada, staff" {
		t.Errorf("a line of no file is %q", got)
	}
}

func TestAQuestionThatIsNoneSaysWhatToWrite(t *testing.T) {
	for _, c := range [][3]string{
		{"notes:own", "read", `unknown object "notes:own"; write note:own`},
		{"note:own", "reed", `unknown act "reed" for note:own; write read`},
		{"note:own", "", `unknown act "" for note:own; write one of read, write, delete`},
	} {
		if _, err := authz.ParsePermission(c[0], c[1]); err == nil || err.Error() != c[2] {
			t.Errorf("%v: %v", c, err)
		}
	}
	policy := mustLoad(t, team)
	if got := policy.Knows("bos"); got != `no line defines the role "bos"; write boss` {
		t.Errorf("got %q", got)
	}
	if got := policy.Knows("dev:new"); !strings.Contains(got, "no line names dev:new") {
		t.Errorf("got %q", got)
	}
	if policy.Knows("boss") != "" || policy.Knows("dev:mona") != "" {
		t.Error("who is known is not")
	}
}

func TestADifferenceIsToldPersonByPerson(t *testing.T) {
	old := mustLoad(t, `p, user, note:own, read
p, user, note:own, write
p, moderator, note:any, read
p, moderator, user:any, read
p, org-reader, note:org, read
g, dev:mona, moderator
g, dev:same, moderator
g, dev:gone, moderator
`)
	next := mustLoad(t, `p, user, note:own, read
p, user, self, read
p, moderator, note:any, read
p, moderator, note:any, write
p, moderator, note:own, write
p, org-reader, note:org, read
p, org-reader, note:restricted, read
g, dev:mona, moderator
g, dev:same, moderator
g, group:dev:mods, moderator
g, dev:new, user
`)
	none := []string{}
	moderator := authz.Change{Kind: "role", Who: "moderator", GainsRoles: none, LosesRoles: none, Gains: []string{"note:own write", "note:any write"}, Loses: []string{"user:any read"}, Reaches: []string{"note:any write"}}
	held := func(who string) authz.Change {
		// The role keeps note:own write, though everyone loses it.
		return authz.Change{Kind: "person", Who: who, GainsRoles: none, LosesRoles: none, Gains: []string{"note:any write"}, Loses: []string{"user:any read"}, Reaches: []string{"note:any write"}}
	}
	want := []authz.Change{
		moderator,
		{Kind: "role", Who: "org-reader", GainsRoles: none, LosesRoles: none, Gains: []string{"note:restricted read"}, Loses: none, Reaches: []string{"note:restricted read"}},
		{Kind: "everyone", Who: "user", GainsRoles: none, LosesRoles: none, Gains: []string{"self read"}, Loses: []string{"note:own write"}, Reaches: none},
		{Kind: "person", Who: "dev:gone", GainsRoles: none, LosesRoles: []string{"moderator"}, Gains: none, Loses: []string{"note:any read", "user:any read"}, Reaches: none},
		held("dev:mona"),
		held("dev:same"),
		{Kind: "group", Who: "group:dev:mods", GainsRoles: []string{"moderator"}, LosesRoles: none, Gains: []string{"note:any read", "note:any write"}, Loses: none, Reaches: []string{"note:any read", "note:any write"}},
	}
	if diff := cmp.Diff(want, next.Diff(old)); diff != "" {
		t.Error(diff)
	}
	if got := next.Diff(next); len(got) != 0 {
		t.Errorf("a policy differs from itself: %+v", got)
	}
	// The other way round, gains are losses.
	back := old.Diff(next)
	for i, c := range back {
		if c.Kind == "role" && c.Who == "moderator" && (!slices.Equal(c.Gains, moderator.Loses) || !slices.Equal(c.Loses, moderator.Gains)) {
			t.Errorf("%d: %+v", i, c)
		}
	}
	if len(back) != len(want) {
		t.Errorf("%d differences one way, %d the other", len(want), len(back))
	}
}

func TestWarningsSayWhatALineDoesNotDo(t *testing.T) {
	providers := []authz.Provider{{ID: "google", EmailDomains: []string{"example.com"}}, {ID: "keycloak", Groups: true}}
	const start = "p, admin, note:any, read\np, user, note:own, read\n"
	for _, c := range []struct{ name, text, want string }{
		{"nothing to say", "g, google:1, admin\ng, ada@example.com, admin\n", ""},
		{"a provider that is not there", "g, google:1, admin\ng, googel:2, admin\n",
			`policy.csv:4:4: no provider "googel" is configured, so googel:2 names nobody; write google`},
		{"a group's provider that is not there", "g, google:1, admin\ng, group:kc:staff, admin\n",
			`policy.csv:4:4: no provider "kc" is configured, so group:kc:staff names nobody; write one of google, keycloak`},
		{"a domain nobody vouches for", "g, google:1, admin\ng, ada@other.example, admin\n",
			"policy.csv:4:4: no provider is authoritative for other.example, so ada@other.example names nobody; set email_domains at the provider that is, or write PROVIDER:SUBJECT"},
		{"admins by group alone", "g, group:keycloak:staff, admin\n",
			"policy.csv:3:1: admins are known through groups only, which the provider can change or stop sending; name one person too, best as PROVIDER:SUBJECT"},
		{"admins by a group's inclusion alone", "g, boss, admin\ng, group:keycloak:staff, boss\n",
			"policy.csv:4:1: admins are known through groups only, which the provider can change or stop sending; name one person too, best as PROVIDER:SUBJECT"},
		{"groups that no provider is asked for", "g, google:1, admin\ng, group:google:staff, admin\n",
			`policy.csv:4:4: the provider "google" is asked for no groups, so group:google:staff names nobody; set groups_claims there, or write PROVIDER:SUBJECT`},
		{"admins by group, and by a name that nobody has", "g, group:keycloak:staff, admin\ng, googel:2, admin\n",
			"policy.csv:3:1: admins are known through groups only, which the provider can change or stop sending; name one person too, best as PROVIDER:SUBJECT\n" +
				`policy.csv:4:4: no provider "googel" is configured, so googel:2 names nobody; write google`},
		{"no admin who can sign in", "g, googel:2, admin\n",
			"policy.csv:3:1: no g line makes anybody an admin who can sign in; write g, you@example.com, admin\n" +
				`policy.csv:3:4: no provider "googel" is configured, so googel:2 names nobody; write google`},
		{"no admin", "g, google:1, user\n", "policy.csv:3:1: no g line makes anybody an admin; write g, you@example.com, admin"},
		{"a role nobody holds", "g, google:1, admin\np, auditor, audit:any, read\n",
			`policy.csv:4:4: nobody holds the role "auditor"; write g, WHO, auditor, or take its lines out`},
		{"a role of organizations nobody can be given", "g, google:1, admin\np, org-guest, note:org, read\n",
			`policy.csv:4:4: nobody holds the role "org-guest"; members of an organization are org-admin, org-writer, org-reader: let one of them include it, or take its lines out`},
		{"one that is included", "g, google:1, admin\np, org-guest, note:org, read\ng, org-reader, org-guest\n", ""},
		{"a role of grants nobody can be given", "g, google:1, admin\np, grant-guest, note:org, read\n",
			`policy.csv:4:4: nobody holds the role "grant-guest"; grants are grant-reader, grant-writer: let one of them include it, or take its lines out`},
		{"any key role can be asked for", "g, google:1, admin\np, key-inbox, note:own, write\n", ""},
		{"what user includes everybody holds", "g, google:1, admin\np, restorer, deadzone:own, restore\ng, user, restorer\n", ""},
	} {
		got := mustLoad(t, start+c.text).Warnings(providers)
		if got.Error() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got.Error(), c.want)
		}
	}
	// Without a configuration there are no warnings about providers.
	if got := mustLoad(t, start+"g, googel:2, admin\ng, ada@other.example, admin\n").Warnings(nil); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestAnAdminIsRequiredByPlaceToo(t *testing.T) {
	const nobody = "policy.csv:3:1: no g line makes anybody an admin; write g, you@example.com, admin, or set allow_no_admin: true"
	const domain = "4: nobody can become an admin: no provider is authoritative for dev.example, so ada@dev.example names nobody; set email_domains at the provider that is, or write PROVIDER:SUBJECT; or set allow_no_admin: true"
	providers := []authz.Provider{{ID: "google", EmailDomains: []string{"example.com"}}, {ID: "keycloak", Groups: true}}
	for _, c := range []struct {
		text      string
		providers []authz.Provider
		want      string // empty: there is an admin
	}{
		{"g, dev:x, boss\n", nil, nobody},
		{"g, dev:x, admin\n", nil, ""},
		{"g, dev:x, boss\ng, boss, admin\n", nil, ""},
		{"g, group:dev:x, admin\n", nil, ""},
		{"g, ada@example.com, admin\n", providers, ""},
		{"g, ada@example.com, boss\ng, boss, admin\n", providers, ""},
		{"g, keycloak:x, admin\n", providers, ""},
		{"g, keycloak:ada@dev.example, admin\n", providers, ""}, // a subject like any other
		{"g, group:keycloak:x, admin\n", providers, ""},
		{"g, ada@dev.example, admin\ng, google:1, admin\n", providers, ""}, // one is enough
		{"g, google:1, boss\n", providers, nobody},
		{"g, ada@dev.example, admin\n", providers, "policy.csv:3:" + domain},
		{"g, boss, admin\ng, ada@dev.example, boss\n", providers, "policy.csv:4:" + domain},
		{"g, googel:1, admin\n", providers, `policy.csv:3:4: nobody can become an admin: no provider "googel" is configured, so googel:1 names nobody; write google; or set allow_no_admin: true`},
		{"g, group:google:x, admin\n", providers, `policy.csv:3:4: nobody can become an admin: the provider "google" is asked for no groups, so group:google:x names nobody; set groups_claims there, or write PROVIDER:SUBJECT; or set allow_no_admin: true`},
		{"g, ada@dev.example, admin\ng, kc:x, admin\n", providers, "policy.csv:3:" + domain + "\n" +
			`policy.csv:4:4: nobody can become an admin: no provider "kc" is configured, so kc:x names nobody; write one of google, keycloak; or set allow_no_admin: true`},
	} {
		err := mustLoad(t, "p, admin, note:any, read\np, boss, self, read\n"+c.text).RequireAdmin(c.providers)
		var faults authz.Faults
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &faults) || err.Error() != c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

// Nobody gives what they lack, so a role that may give other roles should hold what those hold.
func TestARoleThatMayGiveMoreThanItHoldsIsWarnedOf(t *testing.T) {
	lesser := func(text string) string {
		t.Helper()
		var list []string
		for _, one := range mustLoad(t, text).Warnings(nil) {
			if one.Rule == "lesser-giver" {
				list = append(list, one.String())
			}
		}
		return strings.Join(list, "\n")
	}
	if got := lesser(string(noted.Policy)); got != "" {
		t.Errorf("the shipped one: %s", got)
	}
	const small = "p, org-reader, note:org, read\np, org-writer, note:org, write\ng, org-writer, org-reader\np, org-admin, org, delete\ng, org-admin, org-writer\n" +
		"p, grant-reader, note:org, read\np, grant-writer, note:org, write\n"
	for _, c := range []struct{ add, want string }{
		{"", ""},
		{"p, org-admin, invitation, write\n", ""},
		{"p, org-writer, grant, write\n", ""},
		{"p, org-writer, invitation, write\n", `policy.csv:8:1: "org-writer" may invitation write, and yet cannot give org-admin, of which it lacks org delete; let it hold that too, or take invitation write from it`},
		{"p, org-writer, member, write\n", `policy.csv:8:1: "org-writer" may member write, and yet cannot give org-admin, of which it lacks org delete; let it hold that too, or take member write from it`},
		{"p, org-writer, key:org, write\n", `policy.csv:8:1: "org-writer" may key:org write, and yet cannot give org-admin, of which it lacks org delete; let it hold that too, or take key:org write from it`},
		{"p, org-reader, grant, write\n", `policy.csv:8:1: "org-reader" may grant write, and yet cannot give grant-writer, of which it lacks note:org write; let it hold that too, or take grant write from it`},
		// By inclusion; org-host itself is nobody's role.
		{"p, org-host, invitation, write\ng, org-writer, org-host\n", `policy.csv:9:1: "org-writer" may invitation write, and yet cannot give org-admin, of which it lacks org delete; let it hold that too, or take invitation write from it`},
		{"p, org-host, invitation, write\ng, org-admin, org-host\n", ""},
	} {
		if got := lesser(small + c.add); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.add, got, c.want)
		}
	}
}

func TestTheShippedExpectationsLeaveNoPermissionOut(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy))
	result, err := policy.Test(authz.Source{Name: "policy_test.csv", Text: noted.PolicyTest})
	if err != nil || len(result.Untested) > 0 {
		t.Errorf("%v, untested: %v", err, result.Untested)
	}
	// A permission that no expectation covers any more is reported.
	less := regexp.MustCompile(`(?m)^.*, org, create$`).ReplaceAllString(string(noted.PolicyTest), "")
	result, err = policy.Test(authz.Source{Name: "policy_test.csv", Text: []byte(less)})
	if err != nil || !slices.Equal(result.Untested, []string{"org create"}) {
		t.Errorf("%v, untested: %v", err, result.Untested)
	}
}

func TestAPolicyThatIsRefusedLeavesTheLastInForce(t *testing.T) {
	text := good
	inForce, err := authz.NewInForce(func() (*authz.Policy, error) { return load(t, text) })
	if err != nil {
		t.Fatal(err)
	}
	first := inForce.State()
	for range 2 {
		text = good + "p, user, note:own, reed\n"
		before, after, err := inForce.Reload()
		if err == nil || before != after || after != first.Policy || inForce.State().Err == nil || inForce.State().LoadedAt != first.LoadedAt {
			t.Errorf("%v, %+v", err, inForce.State())
		}
	}
	text = good
	before, after, err := inForce.Reload()
	if err != nil || before != after || inForce.State().Err != nil || inForce.State().LoadedAt != first.LoadedAt {
		t.Errorf("the same again: %v, %+v", err, inForce.State())
	}
	text = good + "p, user, note:own, delete\n"
	before, after, err = inForce.Reload()
	if err != nil || before != first.Policy || after == before || inForce.Policy() != after || !inForce.State().LoadedAt.After(first.LoadedAt) {
		t.Errorf("another: %v, %+v", err, inForce.State())
	}
	text = "x"
	if _, err := authz.NewInForce(func() (*authz.Policy, error) { return load(t, text) }); err == nil {
		t.Error("a bad policy was taken at the start")
	}
}

func TestAThousandFaultsAreToldInAHundredLines(t *testing.T) {
	_, err := load(t, strings.Repeat("x, y\n", 1_000))
	var faults authz.Faults
	if !errors.As(err, &faults) || len(faults) != 1_000 {
		t.Fatalf("%d faults", len(faults))
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 101 || lines[100] != "and 900 more" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}
