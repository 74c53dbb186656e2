package orgs_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"noted"
	"noted/internal/migrate"
	"noted/server"
	"noted/server/servertest"
)

// known is a 409's keys that a member knows: their names, or how many.
func known(t *testing.T, what string, a servertest.Answer) string {
	t.Helper()
	want(t, what, a, http.StatusConflict)
	var problem struct {
		Detail      string
		ServiceKeys json.RawMessage `json:"service_keys"`
	}
	a.JSON(t, &problem)
	var list []struct{ ID, Name string }
	if json.Unmarshal(problem.ServiceKeys, &list) != nil {
		return string(problem.ServiceKeys)
	}
	var names []string
	for _, key := range list {
		if len(key.ID) != 36 {
			t.Errorf("%s: the key's id is %q", what, key.ID)
		}
		names = append(names, key.Name)
	}
	return strings.Join(names, " ")
}

// lives reports whether a key works.
func lives(t *testing.T, env *servertest.Env, secret string) bool {
	t.Helper()
	return env.Do(t, http.MethodGet, "/v1/me", secret, nil).Status == http.StatusOK
}

func rotate(t *testing.T, env *servertest.Env, as, org, key string) (secret string) {
	t.Helper()
	a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys/"+key+"/rotate", as, nil)
	want(t, "rotating", a, http.StatusCreated)
	var made struct{ Secret string }
	a.JSON(t, &made)
	return made.Secret
}

// A removed admin must not come back by a forgotten secret that they were shown.
func TestWhoStopsBeingAnAdminLeavesNoSecretUnasked(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	id := idOf(t, env, bob)
	for what, way := range map[string]struct {
		method, by string
		body       any
	}{
		"removed":      {http.MethodDelete, alice, nil},
		"leaves":       {http.MethodDelete, bob, nil},
		"lowered":      {http.MethodPatch, alice, map[string]string{"role": "writer"}},
		"steps down":   {http.MethodPatch, bob, map[string]string{"role": "reader"}},
		"lowered more": {http.MethodPatch, alice, map[string]string{"role": "reader"}},
	} {
		for _, choice := range []string{"end", "keep"} {
			if what == "leaves" && choice == "keep" {
				continue
			}
			org := env.NewOrg(t, alice, "acme")
			env.Join(t, alice, org, "bob", "admin")
			bobs, alices := serviceKey(t, env, bob, org, "admin", "key-admin"), serviceKey(t, env, alice, org, "admin", "key-admin")
			path := "/v1/orgs/" + org + "/members/" + id
			if got := known(t, what, env.Do(t, way.method, path, way.by, way.body)); got != "robot" {
				t.Errorf("%s: the keys are %q", what, got)
			}
			want(t, what+": another choice", env.Do(t, way.method, path+"?service_keys=both", way.by, way.body), http.StatusUnprocessableEntity)
			if !lives(t, env, bobs.Secret) {
				t.Errorf("%s: being asked ends the key", what)
			}
			if a := env.Do(t, way.method, path+"?service_keys="+choice, way.by, way.body); a.Status/100 != 2 {
				t.Errorf("%s with %s: %d %s", what, choice, a.Status, a.Body)
			}
			if got := lives(t, env, bobs.Secret); got != (choice == "keep") {
				t.Errorf("%s with %s: the key of bob works: %t", what, choice, got)
			}
			if !lives(t, env, alices.Secret) {
				t.Errorf("%s with %s: the key of alice works no more", what, choice)
			}
			record := string(env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/audit?action=key.revoke", alice, nil).Body)
			if strings.Contains(record, bobs.ID) != (choice == "end") {
				t.Errorf("%s with %s: the record says %s", what, choice, record)
			}
		}
	}
	org := env.NewOrg(t, alice, "acme")
	env.Join(t, alice, org, "bob", "admin")
	serviceKey(t, env, bob, org, "reader", "key-reader")
	path := "/v1/orgs/" + org + "/members/" + id
	want(t, "who leaves keeps nothing", env.Do(t, http.MethodDelete, path+"?service_keys=keep", bob, nil), http.StatusUnprocessableEntity)
	_, key := env.NewKey(t, alice, "key-admin")
	if got := known(t, "by a key", env.Do(t, http.MethodDelete, path, key, nil)); got != "1" {
		t.Errorf("by a key, which reads no keys: %q", got)
	}
	for _, choice := range []string{"end", "keep"} {
		if got := known(t, "by a key", env.Do(t, http.MethodDelete, path+"?service_keys="+choice, key, nil)); got != "1" {
			t.Errorf("by a key, which ends no keys: %q", got)
		}
	}
	want(t, "to the same role", env.Do(t, http.MethodPatch, path, alice, map[string]string{"role": "admin"}), http.StatusOK)
}

func TestWhoKnowsNoLiveSecretIsNotAskedFor(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	for what, end := range map[string]func(org, key string){
		"revoked": func(org, key string) {
			want(t, "revoking", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/keys/"+key, alice, nil), http.StatusNoContent)
		},
		"rotated by another": func(org, key string) {
			a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys/"+key+"/rotate", alice, map[string]string{"overlap": "0s"})
			want(t, "rotating", a, http.StatusCreated)
		},
		"expired": func(_, key string) {
			env.Exec(t, `update key_secrets set created_at = now() - interval '2 days', expires_at = now() - interval '1 day' where key_id = $1`, key)
		},
		"of another organization": func(_, key string) {
			env.Exec(t, `update keys set org_id = $2 where id = $1`, key, env.NewOrg(t, alice, "other"))
		},
	} {
		org := env.NewOrg(t, alice, "acme")
		env.Join(t, alice, org, "bob", "admin")
		end(org, serviceKey(t, env, bob, org, "admin", "key-admin").ID)
		want(t, what, env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob), alice, nil), http.StatusNoContent)
	}
}

// A key whose secrets several know works on for others.
func TestOnlyTheSecretsThatTheyKnowEnd(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "admin")
	key := serviceKey(t, env, alice, org, "admin", "key-admin")
	bobs := rotate(t, env, bob, org, key.ID)
	byBob, byAlice := invite(t, env, bobs, org, "carol@dev.example", "reader"), invite(t, env, key.Secret, org, "dave@dev.example", "reader")
	path := "/v1/orgs/" + org + "/members/" + idOf(t, env, bob)
	if got := known(t, "who rotated it", env.Do(t, http.MethodDelete, path, alice, nil)); got != "robot" {
		t.Errorf("who rotated it: %q", got)
	}
	want(t, "removing him", env.Do(t, http.MethodDelete, path+"?service_keys=end", alice, nil), http.StatusNoContent)
	if lives(t, env, bobs) || !lives(t, env, key.Secret) {
		t.Errorf("bob's secret works: %t, alice's: %t", lives(t, env, bobs), lives(t, env, key.Secret))
	}
	// His invitation by it ends too: it may be for himself.
	want(t, "an invitation by his secret", accept(t, env, env.SignIn(t, "carol"), byBob.Token), http.StatusNotFound)
	want(t, "an invitation by hers", accept(t, env, env.SignIn(t, "dave"), byAlice.Token), http.StatusOK)
	record := string(env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/audit?action=key.rotate", alice, nil).Body)
	if !strings.Contains(record, `"detail":"robot: the secrets ended that were shown to `+idOf(t, env, bob)+`"`) {
		t.Errorf("the record says %s", record)
	}
}

// The rule is for former admins. Other roles make keys only where the policy says so.
func TestOtherRolesAreNotAskedForKeys(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) {
		policy, err := servertest.LoadPolicy([]byte(string(noted.Policy) + "\np, org-writer, key:org, read\np, org-writer, key:org, write\n"))
		o.Policy = servertest.Fixed(t, policy, err)
	})
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "writer")
	key := serviceKey(t, env, bob, org, "reader", "key-reader")
	want(t, "removing a writer", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob), alice, nil), http.StatusNoContent)
	if !lives(t, env, key.Secret) {
		t.Error("the key ended")
	}
}

// In either order: the removal sees bob's new secret, or he is no longer an admin.
func TestNoSecretEscapesARemovalAtTheSameTime(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.OrgsPerDay = 0 })
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	for round := range 12 {
		org := env.NewOrg(t, alice, "acme")
		env.Join(t, alice, org, "bob", "admin")
		key, own := serviceKey(t, env, alice, org, "admin", "key-admin"), serviceKey(t, env, bob, org, "admin", "key-admin")
		var mu sync.Mutex
		secrets := []string{own.Secret}
		var wait sync.WaitGroup
		mint := func(path string, body any) {
			a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys"+path, bob, body)
			var made struct{ Secret string }
			if a.Status == http.StatusCreated {
				a.JSON(t, &made)
				mu.Lock()
				secrets = append(secrets, made.Secret)
				mu.Unlock()
			}
		}
		wait.Go(func() { mint("/"+key.ID+"/rotate", nil) })
		wait.Go(func() { mint("/"+own.ID+"/rotate", nil) })
		wait.Go(func() { mint("", map[string]string{"name": "late", "org_role": "admin", "role": "key-admin"}) })
		wait.Go(func() {
			want(t, "removing", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob)+"?service_keys=end", alice, nil), http.StatusNoContent)
		})
		wait.Wait()
		if slices.ContainsFunc(secrets, func(secret string) bool { return lives(t, env, secret) }) {
			t.Fatalf("round %d: a secret of bob's works after his removal", round)
		}
		if !lives(t, env, key.Secret) {
			t.Fatalf("round %d: alice's secret ended", round)
		}
	}
}

func TestLockingSaysHowManyKeysWorkOn(t *testing.T) {
	env := servertest.New(t)
	ada, alice := env.SignIn(t, "ada"), env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "admin")
	id := idOf(t, env, bob)
	last := func() string {
		t.Helper()
		var list struct {
			Items []struct{ Detail, Target string }
		}
		env.Do(t, http.MethodGet, "/v1/admin/audit?action=user.lock", ada, nil).JSON(t, &list)
		return list.Items[0].Detail
	}
	lock := func() {
		t.Helper()
		want(t, "unlocking", env.Do(t, http.MethodPost, "/v1/admin/users/"+id+"/unlock", ada, nil), http.StatusNoContent)
		want(t, "locking", env.Do(t, http.MethodPost, "/v1/admin/users/"+id+"/lock", ada, nil), http.StatusNoContent)
	}
	if lock(); last() != "" {
		t.Errorf("with none it says %q", last())
	}
	env.Exec(t, `update users set locked_at = null`)
	bob = env.SignIn(t, "bob")
	key := serviceKey(t, env, bob, org, "reader", "key-reader")
	rotate(t, env, bob, org, key.ID)
	serviceKey(t, env, bob, org, "reader", "key-reader")
	env.NewKey(t, bob, "key-reader")
	if lock(); last() != "service keys that work on, of which they were shown a secret: 2" {
		t.Errorf("with two it says %q", last())
	}
}

func TestAnInvitationIsWorthWhatItsKeyStillIs(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	unknown := accept(t, env, alice, strings.Repeat("0", 43))
	for what, c := range map[string]struct {
		end   func(path, key string)
		joins bool
	}{
		"that works": {func(string, string) {}, true},
		"rotated": {func(path, key string) {
			want(t, "rotating", env.Do(t, http.MethodPost, path+"/"+key+"/rotate", alice, map[string]string{"overlap": "0s"}), http.StatusCreated)
		}, true},
		"revoked": {func(path, key string) {
			want(t, "revoking", env.Do(t, http.MethodDelete, path+"/"+key, alice, nil), http.StatusNoContent)
		}, false},
		"expired": {func(_, key string) {
			env.Exec(t, `update key_secrets set created_at = now() - interval '2 days', expires_at = now() - interval '1 second' where key_id = $1`, key)
		}, false},
		"not yet expired": {func(_, key string) {
			env.Exec(t, `update key_secrets set expires_at = now() + interval '1 minute' where key_id = $1`, key)
		}, true},
		"without a secret": {func(_, key string) { env.Exec(t, `delete from key_secrets where key_id = $1`, key) }, false},
	} {
		for kind, mint := range map[string]func() (path, id, secret string){
			"a service key": func() (string, string, string) {
				key := serviceKey(t, env, alice, org, "admin", "key-admin")
				return "/v1/orgs/" + org + "/keys", key.ID, key.Secret
			},
			"a personal key": func() (string, string, string) {
				id, secret := env.NewKey(t, alice, "key-admin")
				return "/v1/keys", id, secret
			},
		} {
			path, key, secret := mint()
			made := invite(t, env, secret, org, "bob@dev.example", "reader")
			c.end(path, key)
			bob := env.SignIn(t, "bob")
			a := accept(t, env, bob, made.Token)
			if joined := a.Status == http.StatusOK; joined != c.joins || !joined && string(a.Body) != string(unknown.Body) {
				t.Errorf("an invitation by %s %s: %d %s", kind, what, a.Status, a.Body)
			}
			env.Exec(t, `delete from members where user_id = $1`, idOf(t, env, bob))
		}
	}
}

// The migration gives each secret to its key's maker.
func TestSecretsAndInvitationsFromBeforeAreTheirMakers(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	key := serviceKey(t, env, alice, org, "admin", "key-admin")
	invite(t, env, key.Secret, org, "bob@dev.example", "reader")
	invite(t, env, alice, org, "bob@dev.example", "reader")
	text, err := migrate.Files.ReadFile("sql/00006_names_counts_minters.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, down, _ := strings.Cut(string(text), "-- +goose Down")
	env.Exec(t, `alter table orgs drop constraint orgs_name`)
	env.Exec(t, `update orgs set name = E'a\u202eb\nc'`)
	env.Exec(t, `alter table orgs add constraint orgs_name check (name <> '')`)
	env.Exec(t, down)
	env.Exec(t, up)
	var makers int
	var name string
	err = env.Pool.QueryRow(t.Context(), `
		select (select count(*) from key_secrets where minted_by = $1) + (select count(*) from invitations where behind = $1), (select name from orgs)`,
		idOf(t, env, alice)).Scan(&makers, &name)
	if err != nil || makers != 3 || name != "a b c" {
		t.Errorf("alice made %d of 3, the organization is %q, %v", makers, name, err)
	}
	if !lives(t, env, key.Secret) {
		t.Error("the key works no more")
	}
}
