package orgs_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/server/servertest"
)

// want fails unless the answer has the status.
func want(t *testing.T, what string, a servertest.Answer, status int) {
	t.Helper()
	if a.Status != status {
		t.Errorf("%s: got %d %s, want %d", what, a.Status, a.Body, status)
	}
}

type invitation struct {
	ID, Email, Role, Token, URL string
	Mailed                      bool
	ExpiresAt                   time.Time `json:"expires_at"`
	CreatedAt                   time.Time `json:"created_at"`
}

func invite(t *testing.T, env *servertest.Env, as, org, email, role string) invitation {
	t.Helper()
	a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", as, map[string]string{"email": email, "role": role})
	want(t, "inviting", a, http.StatusCreated)
	var made invitation
	a.JSON(t, &made)
	return made
}

func accept(t *testing.T, env *servertest.Env, as, token string) servertest.Answer {
	t.Helper()
	return env.Do(t, http.MethodPost, "/v1/invitations/accept", as, map[string]string{"token": token})
}

func idOf(t *testing.T, env *servertest.Env, token string) string {
	t.Helper()
	var me struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", token, nil).JSON(t, &me)
	return me.ID
}

func TestAnInvitationIsForOneVerifiedEMailOnce(t *testing.T) {
	env := servertest.New(t)
	alice, bob, carol := env.SignIn(t, "alice"), env.SignIn(t, "bob"), env.SignIn(t, "carol")
	org := env.NewOrg(t, alice, "acme")
	made := invite(t, env, alice, org, "BOB@dev.example", "writer")
	if made.Email != "bob@dev.example" || made.Role != "writer" || made.Mailed || made.ExpiresAt.Sub(made.CreatedAt) != 7*24*time.Hour {
		t.Errorf("the invitation is %+v", made)
	}
	if made.URL != env.URL+"/invitation#"+made.Token || len(made.Token) != 43 {
		t.Errorf("its link is %q with the token %q", made.URL, made.Token)
	}
	var stored int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from invitations i where to_jsonb(i)::text like '%' || $1 || '%'`, made.Token).Scan(&stored); err != nil || stored != 0 {
		t.Errorf("the token is stored (%d, %v)", stored, err)
	}
	if list := env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/invitations", alice, nil); strings.Contains(string(list.Body), made.Token) {
		t.Error("the list shows the token")
	}

	unknown := accept(t, env, bob, strings.Repeat("0", 43))
	want(t, "an unknown token", unknown, http.StatusNotFound)
	for what, a := range map[string]servertest.Answer{
		"another's":          accept(t, env, carol, made.Token),
		"an empty token":     accept(t, env, bob, ""),
		"a token cut short":  env.Do(t, http.MethodPost, "/v1/invitations/accept", bob, `{"token":"`+made.Token[:42]+`"}`),
		"in another case":    accept(t, env, bob, strings.ToUpper(made.Token)),
		"with a blank at it": accept(t, env, bob, made.Token+" "),
	} {
		if a.Status != unknown.Status || string(a.Body) != string(unknown.Body) {
			t.Errorf("%s: %d %s, unlike an unknown token", what, a.Status, a.Body)
		}
	}
	a := accept(t, env, bob, made.Token)
	want(t, "accepting", a, http.StatusOK)
	if got, wanted := string(a.Body), fmt.Sprintf(`{"org_id":%q,"role":"writer"}`, org); got != wanted {
		t.Errorf("accepting: got %s, want %s", got, wanted)
	}
	want(t, "a second time", accept(t, env, bob, made.Token), http.StatusNotFound)

	again := invite(t, env, alice, org, "bob@dev.example", "admin")
	want(t, "who is a member already", accept(t, env, bob, again.Token), http.StatusConflict)
	var members struct {
		Items []struct{ Name, Email, Role string }
	}
	env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/members", alice, nil).JSON(t, &members)
	if len(members.Items) != 2 || members.Items[0].Role != "writer" || members.Items[0].Email != "bob@dev.example" {
		t.Errorf("the members are %+v", members.Items)
	}
	// That did not use it up.
	want(t, "removing bob", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob), alice, nil), http.StatusNoContent)
	want(t, "the same once he is no member", accept(t, env, bob, again.Token), http.StatusOK)
}

func TestAnInvitationCountsOnceAlsoWhenSentAtTheSameTime(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, alice, "acme")
	token := invite(t, env, alice, org, "bob@dev.example", "reader").Token
	var mu sync.Mutex
	statuses := map[int]int{}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			a := accept(t, env, bob, token)
			mu.Lock()
			statuses[a.Status]++
			mu.Unlock()
		})
	}
	wait.Wait()
	if statuses[200] != 1 || statuses[404] != 15 {
		t.Errorf("16 at once: %v, want one 200 and fifteen 404", statuses)
	}
}

func TestWhatEndsAnInvitation(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	ada := env.SignIn(t, "ada")
	for what, end := range map[string]func(org, inviter string, made invitation){
		"revoking it": func(org, _ string, made invitation) {
			want(t, "revoking", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/invitations/"+made.ID, alice, nil), http.StatusNoContent)
			want(t, "revoking twice", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/invitations/"+made.ID, alice, nil), http.StatusNotFound)
		},
		"its last moment": func(_, _ string, made invitation) {
			env.Exec(t, `update invitations set expires_at = now() where id = $1`, made.ID)
		},
		"the inviter leaves": func(org, inviter string, _ invitation) {
			want(t, "leaving", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, inviter), inviter, nil), http.StatusNoContent)
		},
		"the inviter is removed, and comes back": func(org, inviter string, _ invitation) {
			want(t, "removing", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, inviter), alice, nil), http.StatusNoContent)
			env.Join(t, alice, org, "carol", "admin")
		},
		"the inviter steps down": func(org, inviter string, _ invitation) {
			want(t, "stepping down", env.Do(t, http.MethodPatch, "/v1/orgs/"+org+"/members/"+idOf(t, env, inviter), inviter, map[string]string{"role": "reader"}), http.StatusOK)
		},
		"the inviter is locked": func(_, inviter string, _ invitation) {
			want(t, "locking", env.Do(t, http.MethodPost, "/v1/admin/users/"+idOf(t, env, inviter)+"/lock", ada, nil), http.StatusNoContent)
		},
		"the organization is deleted": func(org, _ string, _ invitation) {
			want(t, "deleting", env.Do(t, http.MethodDelete, "/v1/orgs/"+org, alice, nil), http.StatusNoContent)
		},
	} {
		env.Exec(t, `update users set locked_at = null`)
		org := env.NewOrg(t, alice, "acme")
		carol := env.Join(t, alice, org, "carol", "admin")
		made := invite(t, env, carol, org, "bob@dev.example", "admin")
		end(org, carol, made)
		want(t, what, accept(t, env, bob, made.Token), http.StatusNotFound)
	}
	// Before that moment it counts.
	env.Exec(t, `update users set locked_at = null`)
	org := env.NewOrg(t, alice, "acme")
	made := invite(t, env, alice, org, "bob@dev.example", "admin")
	env.Exec(t, `update invitations set expires_at = now() + interval '1 minute' where id = $1`, made.ID)
	want(t, "a minute before its end", accept(t, env, bob, made.Token), http.StatusOK)

	// A service's ends with its key.
	a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys", alice, map[string]string{"name": "inviter", "org_role": "admin", "role": "key-admin"})
	var key struct{ ID, Secret string }
	a.JSON(t, &key)
	made = invite(t, env, key.Secret, org, "dave@dev.example", "reader")
	want(t, "revoking the key", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/keys/"+key.ID, alice, nil), http.StatusNoContent)
	want(t, "an invitation of a revoked key", accept(t, env, env.SignIn(t, "dave"), made.Token), http.StatusNotFound)
}

func TestAnEMailThatIsNotVerifiedIsNobodys(t *testing.T) {
	env := servertest.New(t)
	org := env.NewOrg(t, env.SignIn(t, "alice"), "acme")
	for name, claims := range map[string]map[string]any{
		"not verified":          {"email_verified": false},
		"verified, as a string": {"email_verified": "true"},
		"another's letters":     {"email": "dave@dev.example.evil"},
	} {
		made := invite(t, env, env.SignIn(t, "alice"), org, "dave@dev.example", "admin")
		env.Provider.SetLie(devidp.Lie{Claims: func(signed map[string]any) {
			for claim, value := range claims {
				signed[claim] = value
			}
		}})
		dave := env.SignIn(t, "dave")
		env.Provider.SetLie(devidp.Lie{})
		want(t, name, accept(t, env, dave, made.Token), http.StatusNotFound)
	}
}

func TestAnInvitationIsOfAnAddress(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	for _, email := range []string{"", "bob", "@dev.example", "bob@", "bob@x@y", "b ob@dev.example", "bob@dev.example\n", "böb@dev.example", "a:b@dev.example", "\u212a@dev.example"} {
		want(t, fmt.Sprintf("inviting %q", email),
			env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", alice, map[string]string{"email": email, "role": "reader"}), http.StatusUnprocessableEntity)
	}
	for _, role := range []string{"", "owner", "org-admin", "Admin"} {
		want(t, "inviting as "+role,
			env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", alice, map[string]string{"email": "bob@dev.example", "role": role}), http.StatusUnprocessableEntity)
	}
}

// "the last admin was removed by another way in": sixteen at once, by every way.
func TestAnOrganizationKeepsAnAdminWhoIsNotLocked(t *testing.T) {
	env := servertest.New(t)
	names := []string{"alice", "bob", "carol", "dave"}
	sessions, ids := map[string]string{}, map[string]string{}
	for _, name := range names {
		sessions[name] = env.SignIn(t, name)
		ids[name] = idOf(t, env, sessions[name])
	}
	for round := range 6 {
		org := env.NewOrg(t, sessions["alice"], "acme")
		for _, name := range names[1:] {
			env.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, 'admin')`, org, ids[name])
		}
		var wait sync.WaitGroup
		start := make(chan struct{})
		for i := range 16 {
			name := names[i%4]
			wait.Go(func() {
				<-start
				path := "/v1/orgs/" + org + "/members/"
				var a servertest.Answer
				switch (i/4 + round) % 4 {
				case 0: // leaving
					a = env.Do(t, http.MethodDelete, path+ids[name], sessions[name], nil)
				case 1: // stepping down
					a = env.Do(t, http.MethodPatch, path+ids[name], sessions[name], map[string]string{"role": "reader"})
				case 2: // removing another
					a = env.Do(t, http.MethodDelete, path+ids[names[(i+1)%4]], sessions[name], nil)
				case 3: // stepping another down
					a = env.Do(t, http.MethodPatch, path+ids[names[(i+1)%4]], sessions[name], map[string]string{"role": "writer"})
				}
				if !slices.Contains([]int{200, 204, 403, 404, 409}, a.Status) {
					t.Errorf("got %d %s", a.Status, a.Body)
				}
			})
		}
		close(start)
		wait.Wait()
		var admins int
		if err := env.Pool.QueryRow(t.Context(), `select count(*) from members m join users u on u.id = m.user_id where m.org_id = $1 and m.role = 'admin' and u.locked_at is null`, org).Scan(&admins); err != nil || admins == 0 {
			t.Errorf("round %d: %d admins are left (%v)", round, admins, err)
		}
	}
}

func TestALockedAdminDoesNotCountAndLockingIsNeverRefused(t *testing.T) {
	env := servertest.New(t)
	alice, ada := env.SignIn(t, "alice"), env.SignIn(t, "ada")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "admin")
	lock := func(session, word string) {
		t.Helper()
		want(t, word, env.Do(t, http.MethodPost, "/v1/admin/users/"+session+"/"+word, ada, nil), http.StatusNoContent)
	}
	orphans := func() string {
		t.Helper()
		return string(env.Do(t, http.MethodGet, "/v1/admin/orgs/without-admin", ada, nil).Body)
	}
	aliceID, bobID := idOf(t, env, alice), idOf(t, env, bob)
	lock(bobID, "lock")
	a := env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+aliceID, alice, nil)
	want(t, "leaving when the other admin is locked", a, http.StatusConflict)
	want(t, "stepping down when the other admin is locked", env.Do(t, http.MethodPatch, "/v1/orgs/"+org+"/members/"+aliceID, alice, map[string]string{"role": "writer"}), http.StatusConflict)
	if got := orphans(); strings.Contains(got, org) {
		t.Errorf("an organization with an admin is listed as without: %s", got)
	}
	lock(aliceID, "lock")
	if got := orphans(); !strings.Contains(got, org) || !strings.Contains(got, `"members":2`) {
		t.Errorf("an organization whose admins are locked is not listed: %s", got)
	}
	lock(bobID, "unlock")
	if got := orphans(); strings.Contains(got, org) {
		t.Errorf("it is listed still: %s", got)
	}
	want(t, "a locked admin is removed", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+aliceID, env.SignIn(t, "bob"), nil), http.StatusNoContent)
}

func TestLeavingTakesTheGrantsAlongAndNothingElse(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	bob := env.Join(t, alice, org, "bob", "writer")
	bobID := idOf(t, env, bob)
	notebook := env.Make(t, alice, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "secret", "restricted": true})
	want(t, "granting", env.Do(t, http.MethodPut, "/v1/orgs/"+org+"/notebooks/"+notebook+"/grants/"+bobID, alice, map[string]string{"access": "write"}), http.StatusOK)
	note := env.Make(t, bob, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": notebook})
	want(t, "leaving", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+bobID, bob, nil), http.StatusNoContent)
	want(t, "bob's note for bob", env.Do(t, http.MethodGet, "/v1/notes/"+note, bob, nil), http.StatusNotFound)
	want(t, "bob's note for alice", env.Do(t, http.MethodGet, "/v1/notes/"+note, alice, nil), http.StatusOK)
	env.Join(t, alice, org, "bob", "reader")
	want(t, "bob's note when bob is back", env.Do(t, http.MethodGet, "/v1/notes/"+note, bob, nil), http.StatusNotFound)
	want(t, "leaving twice", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+bobID, bob, nil), http.StatusNoContent)
	want(t, "leaving where one is not", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+bobID, bob, nil), http.StatusNotFound)
}

func TestDeletingAnOrganization(t *testing.T) {
	env := servertest.New(t)
	alice, ada := env.SignIn(t, "alice"), env.SignIn(t, "ada")
	org := env.NewOrg(t, alice, "acme")
	notebook := env.Make(t, alice, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "n", "restricted": true})
	note := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": notebook})
	var key struct{ ID, Secret string }
	env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys", alice, map[string]string{"name": "k", "org_role": "admin", "role": "key-admin"}).JSON(t, &key)
	byService := env.Make(t, key.Secret, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org})
	want(t, "a service deletes its note", env.Do(t, http.MethodDelete, "/v1/notes/"+byService, key.Secret, nil), http.StatusNoContent)
	want(t, "the key before", env.Do(t, http.MethodGet, "/v1/me", key.Secret, nil), http.StatusOK)
	want(t, "deleting", env.Do(t, http.MethodDelete, "/v1/orgs/"+org, alice, nil), http.StatusNoContent)
	want(t, "the key afterwards", env.Do(t, http.MethodGet, "/v1/me", key.Secret, nil), http.StatusUnauthorized)
	want(t, "the organization", env.Do(t, http.MethodGet, "/v1/orgs/"+org, alice, nil), http.StatusNotFound)
	want(t, "its note", env.Do(t, http.MethodGet, "/v1/notes/"+note, alice, nil), http.StatusNotFound)
	want(t, "a new note in it", env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]any{"title": "t", "body": "b", "org_id": org}), http.StatusNotFound)
	var dead struct {
		PurgeAt   time.Time `json:"purge_at"`
		DeletedAt time.Time `json:"deleted_at"`
		DeletedBy struct{ Kind, Name string }
	}
	a := env.Do(t, http.MethodGet, "/v1/deadzone/"+note, ada, nil)
	want(t, "its note in the Dead Zone", a, http.StatusOK)
	if a.JSON(t, &dead); dead.PurgeAt.Sub(dead.DeletedAt) != 30*24*time.Hour {
		t.Errorf("it waits from %v until %v", dead.DeletedAt, dead.PurgeAt)
	}
	if a := env.Do(t, http.MethodGet, "/v1/deadzone/"+byService, ada, nil); !strings.Contains(string(a.Body), `"deleted_by":{"id":"`+key.ID+`","kind":"service","name":"k"}`) ||
		!strings.Contains(string(a.Body), `"owner":{"id":"`+key.ID+`","kind":"service","name":"k"}`) {
		t.Errorf("a service's note in the Dead Zone: %s", a.Body)
	}
	want(t, "restoring it", env.Do(t, http.MethodPost, "/v1/deadzone/"+note+"/restore", ada, nil), http.StatusConflict)

	// After the last note's purge, only the security record is left.
	purge := func() {
		t.Helper()
		if _, err := env.Server.Notes.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		t.Helper()
		err := env.Pool.QueryRow(t.Context(), `select (select count(*) from orgs) + (select count(*) from notebooks) + (select count(*) from keys) + (select count(*) from notes)
			+ (select count(*) from members) + (select count(*) from invitations)`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	purge()
	if n := left(); n != 5 { // the organization, a notebook, a key, two notes
		t.Errorf("%d rows are left before the time is over, want 5", n)
	}
	env.Exec(t, `update notes set deleted_at = now() - interval '31 days'`)
	purge()
	if n := left(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if a := env.Do(t, http.MethodGet, "/v1/admin/audit?action=org.delete", ada, nil); !strings.Contains(string(a.Body), org) {
		t.Errorf("the record has forgotten it: %s", a.Body)
	}
}

func TestAServiceKeyIsItsOrganizations(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	other := env.NewOrg(t, alice, "other")
	bob := env.Join(t, alice, org, "bob", "admin")
	var key struct {
		ID, Secret, Role string
		OrgID            string                          `json:"org_id"`
		OrgRole          string                          `json:"org_role"`
		CreatedBy        struct{ ID, Kind, Name string } `json:"created_by"`
	}
	a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys", bob, map[string]string{"name": "robot", "org_role": "writer", "role": "key-writer"})
	want(t, "making", a, http.StatusCreated)
	a.JSON(t, &key)
	if key.OrgID != org || key.OrgRole != "writer" || key.Role != "key-writer" || key.CreatedBy.Name != "bob" || a.Header.Get("Location") != "/v1/orgs/"+org+"/keys/"+key.ID {
		t.Errorf("the key is %+v at %s", key, a.Header.Get("Location"))
	}
	if me := env.Do(t, http.MethodGet, "/v1/me", key.Secret, nil); string(me.Body) !=
		`{"id":"`+key.ID+`","kind":"service","name":"robot","email":null,"via":"key","roles":[],"key":{"id":"`+key.ID+`","role":"key-writer"},"orgs":[{"id":"`+org+`","name":"acme","role":"writer"}]}` {
		t.Errorf("me: %s", me.Body)
	}
	// The maker is removed, locked, never returns: a kept key works on.
	want(t, "bob is removed", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+idOf(t, env, bob)+"?service_keys=keep", alice, nil), http.StatusNoContent)
	env.Exec(t, `update users set locked_at = now(), last_sign_in_at = now() - interval '10 years' where name = 'bob'`)
	a = env.Do(t, http.MethodPost, "/v1/notes", key.Secret, map[string]any{"title": "t", "body": "b", "org_id": org})
	want(t, "writing a note", a, http.StatusCreated)
	if !strings.Contains(string(a.Body), `"owner":{"id":"`+key.ID+`","kind":"service","name":"robot"}`) {
		t.Errorf("its note is %s", a.Body)
	}
	if list := env.Do(t, http.MethodGet, "/v1/notes", key.Secret, nil); !strings.Contains(string(list.Body), key.ID) {
		t.Errorf("its own organization's notes: %s", list.Body)
	}
	want(t, "writing elsewhere", env.Do(t, http.MethodPost, "/v1/notes", key.Secret, map[string]any{"title": "t", "body": "b", "org_id": other}), http.StatusNotFound)
	want(t, "a personal note", env.Do(t, http.MethodPost, "/v1/notes", key.Secret, map[string]any{"title": "t", "body": "b"}), http.StatusForbidden)
	if list := env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/keys", alice, nil); !strings.Contains(string(list.Body), `"created_by":{"id":"`+key.CreatedBy.ID) {
		t.Errorf("the list does not say who made it: %s", list.Body)
	}
	// It is no personal key.
	want(t, "as a personal key", env.Do(t, http.MethodGet, "/v1/keys/"+key.ID, alice, nil), http.StatusNotFound)
	want(t, "from the other organization", env.Do(t, http.MethodDelete, "/v1/orgs/"+other+"/keys/"+key.ID, alice, nil), http.StatusNotFound)
	// Rotating and revoking.
	var next struct{ Secret string }
	a = env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys/"+key.ID+"/rotate", alice, map[string]string{"overlap": "0s"})
	want(t, "rotating", a, http.StatusCreated)
	a.JSON(t, &next)
	want(t, "the old secret", env.Do(t, http.MethodGet, "/v1/me", key.Secret, nil), http.StatusUnauthorized)
	want(t, "the new secret", env.Do(t, http.MethodGet, "/v1/me", next.Secret, nil), http.StatusOK)
	want(t, "revoking", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/keys/"+key.ID, alice, nil), http.StatusNoContent)
	want(t, "when it is revoked", env.Do(t, http.MethodGet, "/v1/me", next.Secret, nil), http.StatusUnauthorized)
	// The organization's record has all of it, also failures.
	env.Recorded(t)
	record := string(env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/audit?limit=200", alice, nil).Body)
	for _, action := range []string{"key.create", "key.rotate", "key.revoke", "auth.fail", "member.join", "member.remove", "invitation.create", "org.create"} {
		if !strings.Contains(record, `"action":"`+action+`"`) {
			t.Errorf("the organization's record has no %s", action)
		}
	}
	if strings.Contains(record, other) {
		t.Error("the organization's record tells of another")
	}
}

func TestStaffWhoLookIntoAnOrganizationAreSeenByItsAdmins(t *testing.T) {
	env := servertest.New(t)
	alice, mona, ada := env.SignIn(t, "alice"), env.SignIn(t, "mona"), env.SignIn(t, "ada")
	org := env.NewOrg(t, alice, "acme")
	note := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org})
	env.NewNote(t, alice, "personal")
	want(t, "reading", env.Do(t, http.MethodGet, "/v1/notes/"+note, mona, nil), http.StatusOK)
	want(t, "writing", env.Do(t, http.MethodPatch, "/v1/notes/"+note, mona, map[string]string{"title": "u"}), http.StatusOK)
	want(t, "listing", env.Do(t, http.MethodGet, "/v1/notes?scope=all", mona, nil), http.StatusOK)
	want(t, "deleting", env.Do(t, http.MethodDelete, "/v1/notes/"+note, ada, nil), http.StatusNoContent)
	want(t, "looking", env.Do(t, http.MethodGet, "/v1/deadzone/"+note, ada, nil), http.StatusOK)
	want(t, "restoring", env.Do(t, http.MethodPost, "/v1/deadzone/"+note+"/restore", ada, nil), http.StatusOK)
	var record struct {
		Items []struct {
			Action, Object, Target, Detail string
			OrgID                          *string `json:"org_id"`
			Actor                          struct{ Name string }
		}
	}
	env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/audit", alice, nil).JSON(t, &record)
	var got []string
	for _, item := range slices.Backward(record.Items) {
		got = append(got, strings.TrimSpace(item.Actor.Name+" "+item.Action+" "+item.Object+" "+item.Detail))
		if item.OrgID == nil || *item.OrgID != org {
			t.Errorf("an item of another organization: %+v", item)
		}
	}
	if wanted := []string{
		"alice org.create org acme", "mona note.read_any note", "mona note.write_any note", "mona note.read_any note a list showed 1",
		"ada note.delete_any note", "ada note.read_any deadzone", "ada note.restore_any deadzone",
	}; !slices.Equal(got, wanted) {
		t.Errorf("the organization's record is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	// Personal notes are not in it, but in the platform's.
	all := string(env.Do(t, http.MethodGet, "/v1/admin/audit?action=note.read_any", ada, nil).Body)
	if !strings.Contains(all, `"target":"personal notes"`) {
		t.Errorf("the platform's record lacks the personal notes: %s", all)
	}
	// A member who may read it anyway adds no row.
	env.Join(t, alice, org, "mona", "reader")
	before := len(record.Items)
	want(t, "reading as a member", env.Do(t, http.MethodGet, "/v1/notes/"+note, mona, nil), http.StatusOK)
	env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/audit", alice, nil).JSON(t, &record)
	if len(record.Items) != before+2 { // the invitation and its acceptance
		t.Errorf("the record has %d rows, want %d", len(record.Items), before+2)
	}
}
