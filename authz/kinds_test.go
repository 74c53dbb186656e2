package authz_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"noted"
	"noted/authz"
	"noted/internal/problem"
)

var someOrg = uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")

// An act that only one relation has is declared like any other. The rest of the kind's objects are left out.
func TestAnActOfOneRelationAloneIsDeclaredAndDecided(t *testing.T) {
	authz.Grow(t, "note:any", "export")
	policy := mustLoad(t, string(noted.Policy)+"p, admin, note:any, export\np, key-admin, note:any, export\ng, t:admin, admin\n")
	api, _ := newAPI()
	authz.RegisterOn(api, operation(http.MethodGet, "/things/{id}"), "note", "export", find, handleOn)
	authz.RegisterKind(api, operation(http.MethodHead, "/things"), "note", "export", handle)
	if err := api.Err(); err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"GET /things/{id}", "HEAD /things"} {
		if got := api.Declared()[route]; got != "note:any export" {
			t.Errorf("%s needs %q", route, got)
		}
	}
	authz.RegisterOn(api, operation(http.MethodGet, "/v1/orgs/{org}/things/{id}"), "note", "export", find, handleOn)
	if api.Err() == nil {
		t.Error("nothing of an organization takes the act, and yet it is declared there")
	}
	admin := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, []string{"t:admin"})
	user := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, nil)
	narrow := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaKey, KeyRole: "key-reader"}, policy, []string{"t:admin"})
	for _, s := range standings() {
		if _, err := admin.DecideOn("note", "export", s); err != nil {
			t.Errorf("an admin, %v: %v", s, err)
		}
		for who, p := range map[string]*authz.Principal{"a user": user, "a key": narrow} {
			_, err := p.DecideOn("note", "export", s)
			var refused *problem.Error
			switch {
			case !errors.As(err, &refused):
				t.Errorf("%s, %v: %v", who, s, err)
			case refused.Status == http.StatusForbidden && refused.Permission != "note:any export":
				t.Errorf("%s, %v: lacks %q", who, s, refused.Permission)
			case refused.Status == http.StatusForbidden && (refused.LimitedBy != "") != (p == narrow):
				t.Errorf("%s, %v: limited by %q", who, s, refused.LimitedBy)
			}
		}
	}
	service := authz.NewPrincipal(authz.Principal{Kind: authz.KindService, Via: authz.ViaKey, KeyRole: "key-admin", Org: someOrg, OrgRole: "admin"}, policy, nil)
	var refused *problem.Error
	if err := service.CheckKind("note", "export"); err != nil {
		t.Errorf("a service that reads notes is told about all before it is looked for one: %v", err)
	}
	if _, err := service.DecideOn("note", "export", authz.Standing{Org: someOrg, Role: "admin"}); !errors.As(err, &refused) || refused.Permission != "note:any export" {
		t.Errorf("a service: %v", err)
	}
}

// The set of permissions holds more than 64, each one separately.
func TestASetHoldsMoreThan64Permissions(t *testing.T) {
	var acts []authz.Act
	for i := range 60 {
		acts = append(acts, authz.Act(fmt.Sprintf("act%d", i)))
	}
	authz.Grow(t, "policy", acts...)
	var text strings.Builder
	for i, act := range acts {
		fmt.Fprintf(&text, "p, r%d, policy, %s\ng, t:%d, r%d\n", i, act, i, i)
	}
	policy := mustLoad(t, "p, user, self, read\n"+text.String())
	for i := range acts {
		p := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, []string{fmt.Sprintf("t:%d", i)})
		for j, act := range acts {
			needed := authz.Permission{Object: "policy", Act: act}
			if p.Holds(needed) != (i == j) || policy.Allows(fmt.Sprintf("r%d", i), needed) != (i == j) {
				t.Errorf("t:%d %s: %t", i, needed, p.Holds(needed))
			}
		}
		if !p.Holds(authz.Permission{Object: "self", Act: "read"}) || p.Holds(authz.Permission{Object: "note:own", Act: "read"}) {
			t.Errorf("t:%d holds another thing than everybody", i)
		}
	}
	both := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, []string{"t:0", "t:59"})
	if !both.Holds(authz.Permission{Object: "policy", Act: "act0"}) || !both.Holds(authz.Permission{Object: "policy", Act: "act59"}) {
		t.Error("what two names hold is not joined")
	}
	changes := policy.Diff(mustLoad(t, "p, user, self, read\n"))
	if len(changes) != 2*len(acts) || changes[0].Gains[0] != "policy act0" {
		t.Errorf("%d changes: %v", len(changes), changes)
	}
	if n := testing.AllocsPerRun(100, func() { both.Holds(authz.Permission{Object: "policy", Act: "act59"}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is missing beyond the first 64 is named too.
func TestNobodyGivesARoleWithAPermissionBeyondTheFirst64(t *testing.T) {
	var acts []authz.Act
	for i := range 60 {
		acts = append(acts, authz.Act(fmt.Sprintf("act%d", i)))
	}
	authz.Grow(t, "audit:org", acts...)
	policy := mustLoad(t, "p, user, self, read\np, org-admin, member, write\np, org-writer, member, write\np, org-admin, audit:org, act59\n")
	p := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, nil)
	var refused *problem.Error
	if err := p.GivesRole(authz.Standing{Org: someOrg, Role: "writer"}, "admin"); !errors.As(err, &refused) || refused.Permission != "audit:org act59" {
		t.Errorf("a writer makes an admin: %v", err)
	}
	if err := p.GivesRole(authz.Standing{Org: someOrg, Role: "admin"}, "admin"); err != nil {
		t.Error(err)
	}
}

// Decisions happen for each request, some for each row. They allocate the lists of roles that they compare
// with, and nothing for the table of kinds or the sets.
func TestADecisionOnAThingAllocatesListsOfRolesAlone(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy))
	p := authz.NewPrincipal(authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}, policy, nil)
	admin := authz.Standing{Org: someOrg, Role: "admin", Restricted: true}
	granted := authz.Standing{Org: someOrg, Role: "reader", Grant: "write"}
	for name, one := range map[string]struct {
		most   float64
		decide func() error
	}{
		"one's own":         {0, func() error { _, err := p.DecideOn("note", "write", authz.Mine); return err }},
		"by a role":         {1, func() error { _, err := p.DecideOn("note", "write", admin); return err }},
		"by a grant":        {3, func() error { _, err := p.DecideOn("note", "write", granted); return err }},
		"all of a kind":     {1, func() error { return p.DecideAll("invitation", "write", admin) }},
		"to make one":       {1, func() error { return p.Require("notebook", "write", admin) }},
		"giving a role":     {0, func() error { return p.GivesRole(admin, "writer") }},
		"giving a grant":    {3, func() error { return p.GivesAccess("notebook", admin, "write") }},
		"any thing of kind": {0, func() error { return p.CheckKind("note", "write") }},
		"no thing":          {0, func() error { return p.Check(authz.Permission{Object: "note:own", Act: "read"}) }},
	} {
		if err := one.decide(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = one.decide() }); n > one.most {
			t.Errorf("%s: %v allocations, at most %v", name, n, one.most)
		}
	}
}
