package orgs_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"noted"
	"noted/authz"
	"noted/server"
	"noted/server/servertest"
)

// refused is a 403 that names the permission, and the key's role if only that is in the way.
func refused(t *testing.T, what string, a servertest.Answer, permission, limitedBy string) {
	t.Helper()
	want(t, what, a, http.StatusForbidden)
	var problem struct {
		Permission string
		LimitedBy  string `json:"limited_by"`
	}
	a.JSON(t, &problem)
	if problem.Permission != permission || problem.LimitedBy != limitedBy {
		t.Errorf("%s: lacking is %q, limited by %q; want %q, %q", what, problem.Permission, problem.LimitedBy, permission, limitedBy)
	}
}

// No key role holds key:org, so no key has all an admin's permissions.
func TestNoKeyMakesAnAdmin(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := idOf(t, env, env.Join(t, alice, org, "bob", "reader"))
	_, own := env.NewKey(t, alice, "key-admin")
	service := serviceKey(t, env, alice, org, "admin", "key-admin").Secret
	for what, key := range map[string]string{"a personal key": own, "a service key": service} {
		members, invitations := "/v1/orgs/"+org+"/members/"+bob, "/v1/orgs/"+org+"/invitations"
		refused(t, what+" invites an admin", env.Do(t, http.MethodPost, invitations, key, map[string]string{"email": "dave@dev.example", "role": "admin"}), "key:org read", "key-admin")
		refused(t, what+" makes an admin", env.Do(t, http.MethodPatch, members, key, map[string]string{"role": "admin"}), "key:org read", "key-admin")
		want(t, what+" makes a writer", env.Do(t, http.MethodPatch, members, key, map[string]string{"role": "writer"}), http.StatusOK)
		want(t, what+" makes a reader", env.Do(t, http.MethodPatch, members, key, map[string]string{"role": "reader"}), http.StatusOK)
		invite(t, env, key, org, "dave@dev.example", "writer")
	}
	// The maker of an organization is its admin anyway.
	made := env.NewOrg(t, own, "by a key")
	if list := env.Do(t, http.MethodGet, "/v1/orgs/"+made, alice, nil); !strings.Contains(string(list.Body), `"role":"admin"`) {
		t.Errorf("by a key: %s", list.Body)
	}
}

// changing is a policy that gains lines while the server runs.
func changing(t *testing.T) (option func(*server.Options), add func(lines string)) {
	t.Helper()
	var more atomic.Value
	more.Store("")
	policy, err := authz.NewInForce(func() (*authz.Policy, error) {
		return servertest.LoadPolicy([]byte(string(noted.Policy) + "\n" + more.Load().(string)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) { o.Policy = policy }, func(lines string) {
		more.Store(lines)
		if _, _, err := policy.Reload(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTakingAwayOrLeavingAsItIsGivesNothing(t *testing.T) {
	option, add := changing(t)
	env := servertest.New(t, option)
	add("p, org-writer, member, write\np, org-writer, grant, write\n")
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "writer")
	carol := idOf(t, env, env.Join(t, alice, org, "carol", "admin"))
	change := func(role string) servertest.Answer {
		return env.Do(t, http.MethodPatch, "/v1/orgs/"+org+"/members/"+carol, bob, map[string]string{"role": role})
	}
	want(t, "an admin stays one", change("admin"), http.StatusOK)
	want(t, "an admin becomes a reader", change("reader"), http.StatusOK)
	refused(t, "a reader becomes an admin", change("admin"), "note:restricted read", "")
	refused(t, "oneself", env.Do(t, http.MethodPatch, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob), bob, map[string]string{"role": "admin"}), "note:restricted read", "")
	want(t, "a reader becomes a writer", change("writer"), http.StatusOK)

	// A restricted note that bob may read by grant.
	notebook := env.Make(t, alice, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "n", "restricted": true})
	note := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": notebook})
	grant := func(as, to, access string) servertest.Answer {
		return env.Do(t, http.MethodPut, "/v1/orgs/"+org+"/notes/"+note+"/grants/"+to, as, map[string]string{"access": access})
	}
	want(t, "bob before he may read it", grant(bob, carol, "read"), http.StatusNotFound)
	want(t, "alice gives bob read", grant(alice, idOf(t, env, bob), "read"), http.StatusOK)
	want(t, "bob gives read", grant(bob, carol, "read"), http.StatusOK)
	refused(t, "bob gives write", grant(bob, carol, "write"), "note:org write", "")
	refused(t, "bob gives himself write", grant(bob, idOf(t, env, bob), "write"), "note:org write", "")
	want(t, "alice gives write", grant(alice, carol, "write"), http.StatusOK)
	want(t, "bob leaves it so", grant(bob, carol, "write"), http.StatusOK)
	want(t, "bob takes write away", grant(bob, carol, "read"), http.StatusOK)
}

// Accepting judges an invitation again, as if its maker made it now.
func TestAnInvitationThatCouldNotBeMadeAnyMoreIsWorthNothing(t *testing.T) {
	option, add := changing(t)
	env := servertest.New(t, option)
	alice := env.SignIn(t, "alice")
	unknown := accept(t, env, alice, strings.Repeat("0", 43))
	const writers = "p, org-writer, invitation, write\n"
	add(writers)
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "writer")
	service := serviceKey(t, env, alice, org, "writer", "key-admin").Secret
	_, own := env.NewKey(t, bob, "key-admin")
	dave := env.SignIn(t, "dave")
	for what, by := range map[string]string{"a writer": bob, "a writer's key": own, "a service": service} {
		refused(t, what+" makes an admin", env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", by, map[string]string{"email": "dave@dev.example", "role": "admin"}), "note:restricted read", "")
		for _, c := range []struct {
			why, lines string
			joins      bool
		}{
			{"still may", writers, true},
			{"may not invite any more", "", false},
			// A reader has more than before; writers have it too, but no key does.
			{"lacks what readers have now", writers + "p, org-reader, key:org, read\n", by == bob},
		} {
			add(writers)
			made := invite(t, env, by, org, "dave@dev.example", "reader")
			add(c.lines)
			look := env.Do(t, http.MethodPost, "/invitation", dave, "token="+made.Token, "Content-Type", "application/x-www-form-urlencoded")
			a := accept(t, env, dave, made.Token)
			if look.Status != a.Status {
				t.Errorf("an invitation by %s who %s: the page answers %d, accepting %d", what, c.why, look.Status, a.Status)
			}
			if joined := a.Status == http.StatusOK; joined != c.joins || !joined && string(a.Body) != string(unknown.Body) {
				t.Errorf("an invitation by %s who %s: %d %s", what, c.why, a.Status, a.Body)
			}
			env.Exec(t, `delete from members where user_id = $1`, idOf(t, env, dave))
		}
	}
}
