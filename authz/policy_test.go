package authz_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"github.com/google/go-cmp/cmp"

	"noted"
	"noted/authz"
	"noted/internal/problem"
)

// table is the vocabulary of the authorization model, written out again: object, then acts.
const table = `
note:own             read write delete
note:org             read write delete
note:restricted      read write delete
note:any             read write delete
deadzone:own         read restore purge
deadzone:org         read restore purge
deadzone:any         read restore purge
notebook             read write delete
notebook:restricted  read write delete
org                  create read write delete
member               read write delete
invitation           read write delete
grant                read write delete
key:own              read write delete
key:org              read write delete
self                 read
session:own          read delete
identity:own         write
invitation:own       accept
membership:own       delete
user:any             read lock
audit:any            read
audit:org            read
policy               read explain
`

func vocabulary() []authz.Permission {
	var list []authz.Permission
	for line := range strings.Lines(strings.TrimSpace(table)) {
		fields := strings.Fields(line)
		for _, act := range fields[1:] {
			list = append(list, authz.Permission{Object: authz.Object(fields[0]), Act: authz.Act(act)})
		}
	}
	return list
}

func load(t testing.TB, policy string, added ...authz.Grouping) (*authz.Policy, error) {
	t.Helper()
	return authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: []byte(policy)}, added...)
}

func mustLoad(t testing.TB, policy string, added ...authz.Grouping) *authz.Policy {
	t.Helper()
	p, err := load(t, policy, added...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A role of platform, organization or key can hold each permission, so Load accepts a line of it.
// Everything else is outside the vocabulary.
func TestVocabularyIsThatOfTheModel(t *testing.T) {
	want := vocabulary()
	objects, acts := map[authz.Object]bool{}, map[authz.Act]bool{}
	inside := map[authz.Permission]bool{}
	for _, p := range want {
		objects[p.Object], acts[p.Act], inside[p] = true, true, true
	}
	for object := range objects {
		for act := range acts {
			p := authz.Permission{Object: object, Act: act}
			_, err := load(t, fmt.Sprintf("p, user, self, read\np, %s, %s, %s\n", roleFor(p), object, act))
			if inside[p] != (err == nil) {
				t.Errorf("%s: %v", p, err)
			}
			if !inside[p] && err != nil && !strings.Contains(err.Error(), "unknown act") {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	// The error that lists the objects lists all of them and nothing else.
	_, err := load(t, "p, user, folder, read")
	if err == nil {
		t.Fatal("folder is taken for an object")
	}
	_, listed, _ := strings.Cut(err.Error(), "write one of ")
	var got []string
	for _, object := range strings.Split(listed, ", ") {
		got = append(got, strings.TrimSpace(object))
	}
	var all []string
	for line := range strings.Lines(strings.TrimSpace(table)) {
		all = append(all, strings.Fields(line)[0])
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Error(diff)
	}
}

// roleFor is a role whose family may hold the permission. Creating an organization is decided
// outside organizations.
func roleFor(p authz.Permission) string {
	if p.Object == "org" && p.Act != "create" {
		return "org-tester"
	}
	switch p.Object {
	case "note:org", "note:restricted", "deadzone:org", "notebook", "notebook:restricted", "member", "invitation", "grant", "key:org", "audit:org":
		return "org-tester"
	}
	return "tester"
}

// good is a policy to which a bad line is added.
const good = `p, user, note:own, read
p, admin, note:any, read
p, org-reader, note:org, read
p, org-writer, note:org, write
p, grant-reader, note:org, read
p, key-reader, note:own, read
p, key-writer, note:own, write
g, dev:ada, admin
`

func TestOnlyTheOneModelIsTaken(t *testing.T) {
	shipped := string(noted.Model)
	replace := func(old, with string) string {
		t.Helper()
		if !strings.Contains(shipped, old) {
			t.Fatalf("%q is not in the model", old)
		}
		return strings.Replace(shipped, old, with, 1)
	}
	matcher := "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
	for name, text := range map[string]string{
		"a deny effect":            replace("some(where (p.eft == allow))", "!some(where (p.eft == deny))"),
		"allow and deny":           replace("some(where (p.eft == allow))", "some(where (p.eft == allow)) && !some(where (p.eft == deny))"),
		"priority":                 replace("some(where (p.eft == allow))", "priority(p.eft) || deny"),
		"a matcher for all":        replace(matcher, "true"),
		"a superuser":              replace(matcher, matcher+` || r.sub == "root"`),
		"no roles":                 replace(matcher, "r.sub == p.sub && r.obj == p.obj && r.act == p.act"),
		"a wildcard act":           replace(matcher, `g(r.sub, p.sub) && r.obj == p.obj && (r.act == p.act || p.act == "*")`),
		"a function":               replace(matcher, "g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act"),
		"a request of four":        replace("r = sub, obj, act", "r = sub, dom, obj, act"),
		"a policy with an effect":  replace("p = sub, obj, act", "p = sub, obj, act, eft"),
		"another order":            replace("p = sub, obj, act", "p = obj, sub, act"),
		"roles with domains":       replace("g = _, _", "g = _, _, _"),
		"a second role definition": replace("g = _, _", "g = _, _\ng2 = _, _"),
		"a second policy":          replace("p = sub, obj, act", "p = sub, obj, act\np2 = sub, act"),
		"a second request":         replace("r = sub, obj, act", "r = sub, obj, act\nr2 = sub, act"),
		"a second effect":          shipped + "\n[policy_effect]\ne2 = !some(where (p.eft == deny))\n",
		"a second matcher":         shipped + "\nm2 = true\n",
		"an extra section":         shipped + "\n[role_manager]\nx = y\n",
		"no roles section":         replace("[role_definition]\ng = _, _", ""),
		"no matcher":               replace("[matchers]\nm = "+matcher, ""),
		"nothing":                  "",
		"no model":                 "these are words",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := authz.Load(authz.Source{Name: "model.conf", Text: []byte(text)}, authz.Source{Name: "policy.csv", Text: []byte(good)})
			if err == nil {
				t.Fatal("it was taken")
			}
			if !strings.HasPrefix(err.Error(), "model.conf") {
				t.Errorf("the message does not name the file: %v", err)
			}
		})
	}
	spaced := strings.ReplaceAll(strings.ReplaceAll(shipped, " && ", "&&"), "\n", "\r\n")
	if _, err := authz.Load(authz.Source{Name: "model.conf", Text: []byte(spaced)}, authz.Source{Name: "policy.csv", Text: []byte(good)}); err != nil {
		t.Errorf("other blanks and line ends: %v", err)
	}
}

// rolesIn returns the roles that the shipped policy defines.
func rolesIn(policy string) []string {
	var roles []string
	for line := range strings.Lines(policy) {
		if fields := strings.Split(strings.TrimSpace(line), ", "); len(fields) == 4 && fields[0] == "p" && !slices.Contains(roles, fields[1]) {
			roles = append(roles, fields[1])
		}
	}
	return roles
}

func TestTheCompiledTableIsCasbinsOwnAnswer(t *testing.T) {
	more := string(noted.Policy) + "\ng, admin, moderator\ng, dev:ada, admin\ng, group:dev:staff, moderator\ng, carol@dev.example, moderator\n"
	policy := mustLoad(t, more)
	m, err := model.NewModelFromString(string(noted.Model))
	if err != nil {
		t.Fatal(err)
	}
	enforcer, err := casbin.NewEnforcer(m, stringadapter.NewAdapter(more))
	if err != nil {
		t.Fatal(err)
	}
	roles := rolesIn(string(noted.Policy))
	if len(roles) < 11 {
		t.Fatalf("found the roles %v alone", roles)
	}
	allowed, asked := 0, 0
	for _, subject := range append(roles, "nobody", "org-nobody") {
		for _, p := range vocabulary() {
			want, err := enforcer.Enforce(subject, string(p.Object), string(p.Act))
			if err != nil {
				t.Fatal(err)
			}
			asked++
			if want {
				allowed++
			}
			if got := policy.Allows(subject, p); got != want {
				t.Errorf("%s, %s: %v, Casbin says %v", subject, p, got, want)
			}
			// A principal with that one key role is narrowed by the same set.
			if strings.HasPrefix(subject, "key-") {
				by := authz.NewPrincipal(authz.Principal{Via: authz.ViaKey, KeyRole: subject}, policy, []string{"dev:ada"})
				ada := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"dev:ada"})
				if by.Holds(p) != (want && ada.Holds(p)) {
					t.Errorf("ada by a %s: %s is %v", subject, p, by.Holds(p))
				}
			}
		}
	}
	for _, name := range []string{"dev:ada", "group:dev:staff", "carol@dev.example", "dev:stranger"} {
		for _, p := range vocabulary() {
			byName, err1 := enforcer.Enforce(name, string(p.Object), string(p.Act))
			asUser, err2 := enforcer.Enforce("user", string(p.Object), string(p.Act))
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if got := policy.Allows(name, p); got != (byName || asUser) {
				t.Errorf("%s, %s: %v, Casbin says %v", name, p, got, byName || asUser)
			}
		}
	}
	if allowed < asked/6 {
		t.Errorf("only %d of %d answers allow: this proves little", allowed, asked)
	}
}

func TestRolesOfAPersonAreThoseOfAllTheirNamesAndWhatTheseInclude(t *testing.T) {
	policy := mustLoad(t, good+`p, moderator, note:any, read
p, helper, user:any, read
g, admin, moderator
g, moderator, helper
g, dev:mona, moderator
g, group:dev:staff, helper
g, carol@dev.example, helper
`, authz.Grouping{Who: "dev:eve", Role: "admin"}, authz.Grouping{Who: "dev:ada", Role: "admin"})
	for _, c := range []struct {
		names, want []string
	}{
		{nil, []string{"user"}},
		{[]string{"dev:stranger", "x@y.example", "group:dev:none"}, []string{"user"}},
		{[]string{"dev:ada"}, []string{"admin", "helper", "moderator", "user"}},
		{[]string{"dev:eve"}, []string{"admin", "helper", "moderator", "user"}},
		{[]string{"dev:mona", "group:dev:staff"}, []string{"helper", "moderator", "user"}},
		{[]string{"carol@dev.example"}, []string{"helper", "user"}},
		{[]string{"CAROL@dev.example", "Dev:ada", "dev:ada ", "group:other:staff"}, []string{"user"}},
		// Nobody can have a role's name.
		{[]string{"admin", "moderator", ""}, []string{"user"}},
	} {
		if got := policy.RolesOf(c.names...); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.names, got, c.want)
		}
	}
	if !policy.Held("admin") || !policy.Held("helper") || policy.Held("key-reader") || policy.Held("nothing") {
		t.Error("Held is wrong about admin, helper, key-reader or nothing")
	}
	if got := policy.KeyRoles(); !slices.Equal(got, []string{"key-reader", "key-writer"}) {
		t.Errorf("key roles %v", got)
	}
}

func TestUserMayIncludeARoleThatReachesNobodyElse(t *testing.T) {
	policy := mustLoad(t, good+"p, restorer, deadzone:own, restore\ng, user, restorer\n")
	if got := policy.RolesOf("dev:bob"); !slices.Equal(got, []string{"restorer", "user"}) {
		t.Errorf("got %v", got)
	}
	bob := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"dev:bob"})
	if !bob.Holds(authz.Permission{Object: "deadzone:own", Act: "restore"}) {
		t.Error("what user includes is not held")
	}
}

func TestABOMAndCRLFAndQuotesAreReadAsMeant(t *testing.T) {
	plain := "# a comment\n\np, user, note:own, read\np, admin, note:any, read\ng, dev:ada, admin\n"
	for name, text := range map[string]string{
		"a BOM":           "\xef\xbb\xbf" + strings.TrimPrefix(plain, "# a comment\n\n"),
		"CRLF":            strings.ReplaceAll(plain, "\n", "\r\n"),
		"both":            "\xef\xbb\xbf" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"trailing blanks": strings.ReplaceAll(plain, "\n", " \t\n"),
		"no blanks":       strings.ReplaceAll(plain, ", ", ","),
		"quotes":          "\"p\", \"user\", \"note:own\", \"read\"\np, \"admin\", note:any, read\ng, \"dev:ada\", admin\n",
		"no last newline": strings.TrimSuffix(plain, "\n"),
		"indented":        "  " + strings.ReplaceAll(plain, "\n", "\n  "),
	} {
		policy, err := load(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := policy.RolesOf("dev:ada"); !slices.Equal(got, []string{"admin", "user"}) {
			t.Errorf("%s: ada is %v", name, got)
		}
		if !policy.Allows("user", authz.Permission{Object: "note:own", Act: "read"}) {
			t.Errorf("%s: the first line is lost", name)
		}
	}
	// A quoted name may contain a comma.
	policy := mustLoad(t, good+"g, \"group:dev:a, b\", admin\n")
	if got := policy.RolesOf("group:dev:a, b"); !slices.Contains(got, "admin") {
		t.Errorf("a quoted comma: %v", got)
	}
}

func TestTheHashTellsPoliciesApart(t *testing.T) {
	hash := func(policy string, added ...authz.Grouping) string { return mustLoad(t, policy, added...).Hash }
	if first, again := hash(good), hash(good); first != again || len(first) != 64 {
		t.Errorf("got %q and %q", first, again)
	}
	if hash(good) == hash(good+"# \n") || hash(good) == hash(good, authz.Grouping{Who: "dev:eve", Role: "admin"}) {
		t.Error("another policy has the same hash")
	}
}

func TestDecidingOnOneThing(t *testing.T) {
	policy := mustLoad(t, `p, user, self, read
p, owner, note:own, read
p, owner, note:own, write
p, owner, note:own, delete
p, reader, note:own, read
p, moderator, note:any, read
p, moderator, note:any, write
p, blind, note:any, write
p, bare, self, read
g, t:owner, owner
g, t:reader, reader
g, t:moderator, moderator
g, t:blind, blind
g, t:ownermod, owner
g, t:ownermod, moderator
`)
	const nothing = 0
	for _, c := range []struct {
		who        string
		act        authz.Act
		relation   authz.Relation
		status     int // 0: allowed
		permission string
	}{
		{"owner", "read", authz.Own, 0, ""},
		{"owner", "delete", authz.Own, 0, ""},
		{"owner", "read", authz.Any, 404, ""},
		{"owner", "delete", authz.Any, 404, ""},
		{"reader", "read", authz.Own, 0, ""},
		{"reader", "write", authz.Own, 403, "note:own write"},
		{"reader", "write", authz.Any, 404, ""},
		{"moderator", "read", authz.Any, 0, ""},
		{"moderator", "write", authz.Any, 0, ""},
		{"moderator", "delete", authz.Any, 403, "note:any delete"},
		{"moderator", "read", authz.Own, 0, ""}, // a permission on all things covers one's own
		{"moderator", "delete", authz.Own, 403, "note:own delete"},
		{"ownermod", "delete", authz.Own, 0, ""},
		{"ownermod", "delete", authz.Any, 403, "note:any delete"},
		{"blind", "write", authz.Any, 0, ""},
		{"blind", "delete", authz.Any, 404, ""},
		{"nobody", "read", authz.Own, 404, ""},
		{"nobody", "read", authz.Any, 404, ""},
	} {
		p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"t:" + c.who})
		by, err := p.DecideOn("note", c.act, authz.Standing{Own: c.relation == authz.Own})
		var e *problem.Error
		switch {
		case c.status == nothing:
			if err != nil || by != c.relation {
				t.Errorf("%s, %s, %s: %q, %v", c.who, c.act, c.relation, by, err)
			}
		case !errors.As(err, &e) || e.Status != c.status || e.Permission != c.permission || by != authz.None:
			t.Errorf("%s, %s, %s: %q, %v; want %d %q", c.who, c.act, c.relation, by, err, c.status, c.permission)
		}
	}
	p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"t:owner"})
	if _, err := p.DecideOn("note", "explode", authz.Mine); err == nil {
		t.Error("an act that there is not was allowed")
	}
}

func TestAKeyNarrowsAndNeverWidens(t *testing.T) {
	policy := mustLoad(t, good+"p, key-reader, note:any, read\n")
	read, readAny, write := authz.Permission{Object: "note:own", Act: "read"}, authz.Permission{Object: "note:any", Act: "read"}, authz.Permission{Object: "note:own", Act: "write"}
	for _, c := range []struct {
		name, role           string
		via                  authz.Via
		read, readAny, write bool
	}{
		{"dev:bob", "key-reader", authz.ViaKey, true, false, false},
		{"dev:ada", "key-reader", authz.ViaKey, true, true, false},
		{"dev:bob", "key-writer", authz.ViaKey, false, false, false}, // the role has write, bob does not
		{"dev:ada", "key-unknown", authz.ViaKey, false, false, false},
		{"dev:ada", "", authz.ViaKey, false, false, false},
		{"dev:ada", "admin", authz.ViaKey, false, true, false}, // no key has it; even so it has no more than ada
		{"dev:ada", "", authz.ViaSession, true, true, false},
		{"dev:ada", "", "", false, false, false}, // neither: nothing
	} {
		p := authz.NewPrincipal(authz.Principal{Via: c.via, KeyRole: c.role}, policy, []string{c.name})
		if p.Holds(read) != c.read || p.Holds(readAny) != c.readAny || p.Holds(write) != c.write {
			t.Errorf("%+v: %v %v %v", c, p.Holds(read), p.Holds(readAny), p.Holds(write))
		}
	}
	p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"dev:ada"})
	if p.Holds(authz.Permission{Object: "note:own", Act: "explode"}) || p.Holds(authz.Permission{}) {
		t.Error("a permission outside the vocabulary is held")
	}
	var e *problem.Error
	if err := p.Check(write); !errors.As(err, &e) || e.Status != 403 || e.Permission != "note:own write" {
		t.Errorf("got %v", err)
	}
}

func TestTheFileOfExpectationsHolds(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy))
	got, err := policy.Test(authz.Source{Name: "policy_test.csv", Text: noted.PolicyTest})
	if err != nil || got.Allow+got.Deny != 162 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAnExpectationThatDoesNotHoldIsNamed(t *testing.T) {
	policy := mustLoad(t, good)
	for _, c := range []struct {
		name, text string
		says       string // empty: it is valid
	}{
		{"what holds", "allow, user, note:own, read\ndeny, user, note:own, write\nallow, dev:ada, note:any, read\nallow, dev:stranger, note:own, read\ndeny, x@y.example, note:any, read\n", ""},
		{"a BOM and CRLF", "\xef\xbb\xbfallow, user, note:own, read\r\n", ""},
		{"allow that is denied", "# first\nallow, user, note:any, read\n", "t.csv:2:1: the policy does not allow note:any read to user; roles that hold it: admin"},
		{"deny that is allowed", "deny, user, note:own, read\n", "t.csv:1:1: the policy allows note:own read to user, by line 1"},
		{"another word", "permit, user, note:own, read\n", "t.csv:1:"},
		{"upper case", "ALLOW, user, note:own, read\n", "t.csv:1:"},
		{"three columns", "allow, user, note:own\n", "t.csv:1:"},
		{"five columns", "allow, user, note:own, read, x\n", "t.csv:1:"},
		{"an unknown object", "deny, user, notes, read\n", "t.csv:1:"},
		{"an unknown act", "deny, user, note:own, fly\n", "t.csv:1:"},
		{"an unknown role", "deny, boss, note:own, read\n", "t.csv:1:"},
		{"an inline comment", "allow, user, note:own, read # yes\n", "t.csv:1:"},
		{"an empty column", "deny, , note:own, read\n", "t.csv:1:"},
		{"nothing", "# all of it is a comment\n", "no expectation"},
		{"nothing at all", "", "no expectation"},
		{"two at once", "allow, user, note:any, read\nallow, user, note:own, read\ndeny, user, note:own, read\n", "t.csv:3:"},
	} {
		_, err := policy.Test(authz.Source{Name: "t.csv", Text: []byte(c.text)})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAPolicyIsAskedFromManySidesAtOnce(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy), authz.Grouping{Who: "dev:ada", Role: "admin"})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"dev:ada", "group:dev:x"})
				if !slices.Equal(p.Roles, []string{"admin", "user"}) {
					t.Errorf("ada is %v", p.Roles)
				}
				if _, err := p.DecideOn("deadzone", "purge", authz.Standing{}); err != nil {
					t.Error(err)
				}
				_ = policy.KeyRoles()
				_ = policy.Held("admin")
				_ = policy.Allows("dev:bob", authz.Permission{Object: "note:own", Act: "read"})
			}
		})
	}
	group.Go(func() {
		for range 5 {
			if _, err := load(t, string(noted.Policy)); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
}

func TestADecisionAllocatesNothing(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy))
	p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"dev:bob"})
	allocated := testing.AllocsPerRun(100, func() {
		if !p.Holds(authz.Permission{Object: "note:own", Act: "read"}) {
			t.Error("bob may not read his notes")
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations", allocated)
	}
}
