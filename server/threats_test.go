package server_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"noted"
	"noted/authz"
	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/internal/localpg/pgtest"
	"noted/server"
	"noted/server/servertest"
)

// Each test here checks one property that keeps a real fault of another system out of this one. The property is
// quoted above it.

// whoami is the answer of /v1/me.
type whoami struct {
	ID, Name, Via string
	Email         *string
	Roles         []string
}

func me(t *testing.T, env *servertest.Env, token string, headers ...string) whoami {
	t.Helper()
	a := env.Do(t, http.MethodGet, "/v1/me", token, nil, headers...)
	if a.Status != http.StatusOK {
		t.Fatalf("/v1/me: %d %s", a.Status, a.Body)
	}
	var m whoami
	a.JSON(t, &m)
	return m
}

// signInWith signs somebody in with the given ID token claims: a nil value removes one.
func signInWith(t *testing.T, env *servertest.Env, claims map[string]any) string {
	t.Helper()
	env.Provider.SetLie(devidp.Lie{Claims: func(signed map[string]any) {
		for name, value := range claims {
			if value == nil {
				delete(signed, name)
				continue
			}
			signed[name] = value
		}
	}})
	defer env.Provider.SetLie(devidp.Lie{})
	return env.SignIn(t, "alice")
}

// withPolicy runs a server under the shipped policy with more lines.
func withPolicy(t *testing.T, more ...string) func(*server.Options) {
	t.Helper()
	text := string(noted.Policy) + "\n" + strings.Join(more, "\n") + "\n"
	policy, err := servertest.LoadPolicy([]byte(text))
	return func(o *server.Options) { o.Policy = servertest.Fixed(t, policy, err) }
}

// checkStatus compares the status, and for 403 the missing permission.
func checkStatus(t *testing.T, what string, a servertest.Answer, status int, permission string) {
	t.Helper()
	var body struct{ Permission string }
	_ = json.Unmarshal(a.Body, &body)
	if a.Status != status || body.Permission != permission {
		t.Errorf("%s: got %d %q, want %d %q; the answer is %.300s", what, a.Status, body.Permission, status, permission, a.Body)
	}
}

// "a user is found by (issuer, subject) alone"
func TestAUserIsFoundByIssuerAndSubjectAlone(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	first := me(t, env, signInWith(t, env, map[string]any{"sub": "one", "email": "shared@dev.example", "name": "Same"}))
	second := me(t, env, signInWith(t, env, map[string]any{"sub": "two", "email": "shared@dev.example", "name": "Same"}))
	if first.ID == second.ID {
		t.Error("two subjects with one e-mail are one user")
	}
	again := me(t, env, signInWith(t, env, map[string]any{"sub": "one", "email": "new@dev.example", "name": "Renamed"}))
	if again.ID != first.ID || again.Name != "Renamed" || again.Email == nil || *again.Email != "new@dev.example" {
		t.Errorf("the same subject with another e-mail is %+v, want the user %s", again, first.ID)
	}
	for _, subject := range []string{"One", "one ", " one", "one\u002e"} {
		if other := me(t, env, signInWith(t, env, map[string]any{"sub": subject, "email": "new@dev.example"})); other.ID == first.ID {
			t.Errorf("the subject %q is the user of \"one\"", subject)
		}
	}
	env.Exec(t, `update identities set issuer = 'https://other.example' where subject = 'one'`)
	if other := me(t, env, signInWith(t, env, map[string]any{"sub": "one", "email": "new@dev.example"})); other.ID == first.ID {
		t.Error("the same subject of another issuer is the same user")
	}
}

// "nothing is ever linked by e-mail"
func TestNothingIsLinkedByEmail(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	// Somebody was here first, with the newcomer's e-mail.
	eve := signInWith(t, env, map[string]any{"sub": "eve", "email": "alice@dev.example", "email_verified": true})
	env.NewNote(t, eve, "planted")
	_, key := env.NewKey(t, eve, "key-writer")
	alice := env.SignIn(t, "alice")
	secret := env.NewNote(t, alice, "alice's alone")
	if me(t, env, alice).ID == me(t, env, eve).ID {
		t.Error("alice is who used her e-mail before")
	}
	if a := env.Do(t, http.MethodGet, "/v1/notes", alice, nil); strings.Contains(string(a.Body), "planted") {
		t.Errorf("alice is shown what another wrote: %s", a.Body)
	}
	for what, token := range map[string]string{"session": eve, "key": key} {
		checkStatus(t, "alice's note by the "+what+" of another with her e-mail", env.Do(t, http.MethodGet, "/v1/notes/"+secret, token, nil), http.StatusNotFound, "")
	}
	var most int
	if err := env.Pool.QueryRow(t.Context(), `select max(n) from (select count(*) n from identities group by user_id) x`).Scan(&most); err != nil || most != 1 {
		t.Errorf("a user has %d identities (%v), and nobody linked any", most, err)
	}
}

// "email_verified counts only as JSON true, and only from a provider authoritative for the domain"
func TestAnEmailIsANameInThePolicyOnlyWhenVerifiedIsJSONTrue(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "g, eve@dev.example, admin", "g, eve@other.example, admin", "g, mike@dev.example, admin"))
	type claims map[string]any
	for name, test := range map[string]struct {
		claims claims
		admin  bool
	}{
		"true":                      {claims{"email": "eve@dev.example", "email_verified": true}, true},
		"true, in another case":     {claims{"email": "EVE@Dev.Example", "email_verified": true}, true},
		"false":                     {claims{"email": "eve@dev.example", "email_verified": false}, false},
		"missing":                   {claims{"email": "eve@dev.example", "email_verified": nil}, false},
		"the string true":           {claims{"email": "eve@dev.example", "email_verified": "true"}, false},
		"the number 1":              {claims{"email": "eve@dev.example", "email_verified": 1}, false},
		"the string 1":              {claims{"email": "eve@dev.example", "email_verified": "1"}, false},
		"a list":                    {claims{"email": "eve@dev.example", "email_verified": []bool{true}}, false},
		"an object":                 {claims{"email": "eve@dev.example", "email_verified": map[string]bool{"value": true}}, false},
		"null":                      {claims{"email": "eve@dev.example", "email_verified": json.RawMessage("null")}, false},
		"verified, by another name": {claims{"email": "eve@dev.example", "email_verified": nil, "verified": true, "Email_Verified": true, "EMAIL_VERIFIED": true}, false},
		"e-mail by another name":    {claims{"email": nil, "Email": "eve@dev.example", "email_verified": true}, false},
		"a domain not its own":      {claims{"email": "eve@other.example", "email_verified": true}, false},
		"a longer domain":           {claims{"email": "eve@dev.example.evil.example", "email_verified": true}, false},
		"two at signs":              {claims{"email": "eve@dev.example@dev.example", "email_verified": true}, false},
		"a blank behind":            {claims{"email": "eve@dev.example ", "email_verified": true}, false},
		"a line end behind":         {claims{"email": "eve@dev.example\n", "email_verified": true}, false},
		"NUL behind":                {claims{"email": "eve@dev.example\x00", "email_verified": true}, false},
		// Claim names are compared exactly (RFC 7519, 7.3), while Go's JSON ignores case.
		"the e-mail of one name, verified of another": {claims{"email": "eve@dev.example", "email_verified": nil, "email_Verified": true}, false},
		// In lower case U+212A (the Kelvin sign) is k and U+0130 is i: not mike's mailbox.
		"the Kelvin sign":   {claims{"email": "mi\u212Ae@dev.example", "email_verified": true}, false},
		"an I with a dot":   {claims{"email": "m\u0130ke@dev.example", "email_verified": true}, false},
		"a full-width e":    {claims{"email": "\uFF45ve@dev.example", "email_verified": true}, false},
		"an invisible mark": {claims{"email": "e\u200Bve@dev.example", "email_verified": true}, false},
	} {
		claims := test.claims
		claims["sub"] = "eve of " + name
		if roles := me(t, env, signInWith(t, env, claims)).Roles; slices.Contains(roles, "admin") != test.admin {
			t.Errorf("email_verified %s: the roles are %v, admin should be %t", name, roles, test.admin)
		}
	}
}

// judge tries a credential on both sides of a moment. before and after set a time in the database to one second
// ahead and one second past. If the machine stalls for that second, it tries again.
func judge(t *testing.T, env *servertest.Env, what, before, after string, works func() bool, args ...any) {
	t.Helper()
	for try := 0; ; try++ {
		start := time.Now()
		env.Exec(t, before, args...)
		if works() {
			break
		}
		if took := time.Since(start); took < time.Second || try == 5 {
			t.Errorf("%s: does not work a second before its end (asked %v after)", what, took)
			break
		}
	}
	env.Exec(t, after, args...)
	if works() {
		t.Errorf("%s: works a second after its end", what)
	}
}

// "expiry is in the SQL's WHERE and tested on both sides of the moment"
func TestExpiryIsJudgedOnBothSidesOfTheMoment(t *testing.T) {
	env := servertest.New(t, withPolicy(t, "g, carol@dev.example, admin"))
	works := func(token string) func() bool {
		return func() bool {
			a := env.Do(t, http.MethodGet, "/v1/me", token, nil)
			if a.Status != http.StatusOK && a.Status != http.StatusUnauthorized {
				t.Errorf("got %d %s", a.Status, a.Body)
			}
			return a.Status == http.StatusOK
		}
	}
	alice := env.SignIn(t, "alice")
	id, key := env.NewKey(t, alice, "key-reader")
	hash := func(token string) []byte { h, _ := identity.Token(token).Hash(); return h }
	judge(t, env, "a key",
		`update key_secrets set created_at = now() - interval '1 day', expires_at = now() + interval '1 second' where key_id = $1`,
		`update key_secrets set created_at = now() - interval '1 day', expires_at = now() - interval '1 second' where key_id = $1`,
		works(key), id)
	_, key = env.NewKey(t, alice, "key-reader")
	judge(t, env, "a key whose owner is away",
		`update users set last_sign_in_at = now() - interval '90 days' + interval '1 second' where name = 'alice'`,
		`update users set last_sign_in_at = now() - interval '90 days' - interval '1 second' where name = 'alice'`,
		works(key))
	bob := env.SignIn(t, "bob")
	judge(t, env, "a session, by its absolute end",
		`update sessions set expires_at = now() + interval '1 second' where token_hash = $1`,
		`update sessions set expires_at = now() - interval '1 second' where token_hash = $1`,
		works(bob), hash(bob))
	mona := env.SignIn(t, "mona")
	judge(t, env, "a session, by its idle end",
		`update sessions set last_used_at = now() - interval '24 hours' + interval '1 second' where token_hash = $1`,
		`update sessions set last_used_at = now() - interval '24 hours' - interval '1 second' where token_hash = $1`,
		works(mona), hash(mona))
	carol := env.SignIn(t, "carol")
	judge(t, env, "a role by e-mail",
		`update identities set signed_in_at = now() - interval '7 days' + interval '1 second' where subject = 'carol'`,
		`update identities set signed_in_at = now() - interval '7 days' - interval '1 second' where subject = 'carol'`,
		func() bool { return slices.Contains(me(t, env, carol).Roles, "admin") })
}

// "an absolute end, whatever the use"
func TestASessionEndsAtItsAbsoluteEndHoweverOftenItIsUsed(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	token := env.SignIn(t, "alice")
	hash, _ := identity.Token(token).Hash()
	end := func() (at time.Time) {
		if err := env.Pool.QueryRow(t.Context(), `select expires_at from sessions where token_hash = $1`, hash).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	var life time.Duration
	if err := env.Pool.QueryRow(t.Context(), `select expires_at - created_at from sessions where token_hash = $1`, hash).Scan(&life); err != nil || life != 168*time.Hour {
		t.Errorf("a session lives %v (%v), want session_absolute, 168h", life, err)
	}
	began := end()
	for range 10 {
		// Last used an hour ago, so that each use here is noted.
		env.Exec(t, `update sessions set last_used_at = now() - interval '1 hour' where token_hash = $1`, hash)
		me(t, env, token)
	}
	if now := end(); !now.Equal(began) {
		t.Errorf("its end was %v and slid to %v", began, now)
	}
	env.Exec(t, `update sessions set created_at = now() - interval '168 hours', last_used_at = now(), expires_at = now() where token_hash = $1`, hash)
	checkStatus(t, "used a moment ago, but as old as it may get", env.Do(t, http.MethodGet, "/v1/me", token, nil), http.StatusUnauthorized, "")
}

// pageNames reports whether the page at / greets the caller by that name.
func pageNames(t *testing.T, env *servertest.Env, name string, headers ...string) bool {
	t.Helper()
	a := env.Do(t, http.MethodGet, "/", "", nil, append(headers, "Accept", "text/html")...)
	if a.Status != http.StatusOK {
		t.Errorf("the page at /: %d", a.Status)
	}
	return strings.Contains(string(a.Body), name)
}

// "every credential is checked against the database's truth on every path"
func TestALockedUserIsShutOutOnEveryPathAndLetInAgain(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada, carol := env.SignIn(t, "ada"), env.SignIn(t, "carol")
	_, key := env.NewKey(t, carol, "key-writer")
	id := me(t, env, carol).ID
	cookie := []string{"Cookie", "noted_session=" + carol}
	signIn := func() int { // a new sign-in, to its end
		response, err := env.Browser(t).Get(env.URL + "/auth/login?return_to=/version&login_hint=carol")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	if !pageNames(t, env, "carol", cookie...) {
		t.Error("the page at / does not know carol; what follows would prove nothing")
	}
	checkStatus(t, "locking", env.Do(t, http.MethodPost, "/v1/admin/users/"+id+"/lock", ada, nil), http.StatusNoContent, "")
	for _, route := range routesOf(t, env) {
		if slices.Contains(publicRoutes, route) {
			continue
		}
		method, path := splitRoute(route)
		for what, headers := range map[string][]string{
			"session": {"Authorization", "Bearer " + carol}, "cookie": cookie, "key": {"Authorization", "Bearer " + key},
		} {
			checkStatus(t, route+" by a locked user's "+what, env.Do(t, method, addressOf(path), "", nil, headers...), http.StatusUnauthorized, "")
		}
	}
	if status := signIn(); status != http.StatusUnauthorized {
		t.Errorf("a locked user signs in: %d", status)
	}
	if pageNames(t, env, "carol", cookie...) {
		t.Error("the page at / greets a locked user")
	}
	checkStatus(t, "unlocking", env.Do(t, http.MethodPost, "/v1/admin/users/"+id+"/unlock", ada, nil), http.StatusNoContent, "")
	for what, token := range map[string]string{"session": carol, "key": key} {
		checkStatus(t, "the "+what+" after unlocking", env.Do(t, http.MethodGet, "/v1/me", token, nil), http.StatusOK, "")
	}
	if status := signIn(); status != http.StatusOK {
		t.Errorf("a user let in again cannot sign in: %d", status)
	}
}

// "every credential is checked against the database's truth on every path"
func TestAnEndedSessionFailsOnEveryPathHoweverItEnded(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	current := func(token string) string {
		var list struct {
			Items []struct {
				ID      string
				Current bool
			}
		}
		env.Do(t, http.MethodGet, "/v1/me/sessions", token, nil).JSON(t, &list)
		for _, item := range list.Items {
			if item.Current {
				return item.ID
			}
		}
		t.Fatal("no session is the current one")
		return ""
	}
	for how, end := range map[string]func(token string) servertest.Answer{
		"signing out by header": func(token string) servertest.Answer {
			return env.Do(t, http.MethodPost, "/auth/logout", token, nil)
		},
		"signing out by cookie": func(token string) servertest.Answer {
			return env.Do(t, http.MethodPost, "/auth/logout", "", nil, "Cookie", "noted_session="+token)
		},
		"ending it itself": func(token string) servertest.Answer {
			return env.Do(t, http.MethodDelete, "/v1/me/sessions/"+current(token), token, nil)
		},
		"ending it from another": func(token string) servertest.Answer {
			return env.Do(t, http.MethodDelete, "/v1/me/sessions/"+current(token), env.SignIn(t, "alice"), nil)
		},
		"ending all others": func(string) servertest.Answer {
			return env.Do(t, http.MethodDelete, "/v1/me/sessions", env.SignIn(t, "alice"), nil)
		},
	} {
		token := env.SignIn(t, "alice")
		if a := end(token); a.Status != http.StatusNoContent {
			t.Errorf("%s: %d %s", how, a.Status, a.Body)
		}
		cookie := []string{"Cookie", "noted_session=" + token}
		for _, route := range routesOf(t, env) {
			if slices.Contains(publicRoutes, route) {
				continue
			}
			method, path := splitRoute(route)
			checkStatus(t, how+", then "+route, env.Do(t, method, addressOf(path), token, nil), http.StatusUnauthorized, "")
		}
		checkStatus(t, how+", then by cookie", env.Do(t, http.MethodGet, "/v1/me", "", nil, cookie...), http.StatusUnauthorized, "")
		if pageNames(t, env, "alice", cookie...) {
			t.Errorf("%s, then the page at / greets alice", how)
		}
		// Signing out twice never fails.
		checkStatus(t, how+", then signing out", env.Do(t, http.MethodPost, "/auth/logout", token, nil), http.StatusNoContent, "")
	}
}

// "the same decision function for live and deleted things, in restore, purge, list …"
func TestTheDeadZoneIsDecidedOnByRelationLikeLiveNotes(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "p, user, deadzone:own, read", "p, moderator, deadzone:any, read", "p, moderator, deadzone:own, restore"))
	alice, bob, mona := env.SignIn(t, "alice"), env.SignIn(t, "bob"), env.SignIn(t, "mona")
	mine, bobs, monas := env.NewDeadNote(t, alice, "of alice"), env.NewDeadNote(t, bob, "of bob"), env.NewDeadNote(t, mona, "of mona")
	live := env.NewNote(t, alice, "alive")
	_, reader := env.NewKey(t, alice, "key-reader")
	_, widest := env.NewKey(t, alice, "key-admin")
	for _, test := range []struct {
		who, token, method, path string
		status                   int
		permission               string
	}{
		{"alice", alice, "GET", "/v1/deadzone/" + mine, 200, ""},
		{"alice", alice, "POST", "/v1/deadzone/" + mine + "/restore", 403, "deadzone:own restore"},
		{"alice", alice, "DELETE", "/v1/deadzone/" + mine, 403, "deadzone:own purge"},
		{"alice", alice, "GET", "/v1/deadzone/" + bobs, 404, ""},
		{"alice", alice, "POST", "/v1/deadzone/" + bobs + "/restore", 404, ""},
		{"alice", alice, "DELETE", "/v1/deadzone/" + bobs, 404, ""},
		{"alice", alice, "GET", "/v1/deadzone/" + live, 404, ""},
		{"alice", alice, "DELETE", "/v1/deadzone/" + live, 404, ""},
		{"alice's key-admin", widest, "GET", "/v1/deadzone/" + mine, 200, ""},
		{"alice's key-admin", widest, "POST", "/v1/deadzone/" + mine + "/restore", 403, "deadzone:own restore"},
		{"alice's key-admin", widest, "GET", "/v1/deadzone/" + bobs, 404, ""},
		{"alice's key-reader", reader, "GET", "/v1/deadzone", 403, "deadzone:own read"},
		{"alice's key-reader", reader, "GET", "/v1/deadzone/" + mine, 403, "deadzone:own read"},
		{"mona", mona, "GET", "/v1/deadzone/" + bobs, 200, ""},
		{"mona", mona, "POST", "/v1/deadzone/" + bobs + "/restore", 403, "deadzone:any restore"},
		{"mona", mona, "DELETE", "/v1/deadzone/" + bobs, 403, "deadzone:any purge"},
		{"mona", mona, "DELETE", "/v1/deadzone/" + monas, 403, "deadzone:own purge"},
		{"mona", mona, "POST", "/v1/deadzone/" + monas + "/restore", 200, ""},
	} {
		a := env.Do(t, test.method, test.path, test.token, nil)
		checkStatus(t, fmt.Sprintf("%s: %s %s", test.who, test.method, test.path), a, test.status, test.permission)
	}
	for who, test := range map[string]struct {
		token string
		want  []string
	}{"alice": {alice, []string{mine}}, "alice's key-admin": {widest, []string{mine}}, "bob": {bob, []string{bobs}}, "mona": {mona, []string{bobs, mine}}} {
		var list struct{ Items []struct{ ID string } }
		env.Do(t, http.MethodGet, "/v1/deadzone", test.token, nil).JSON(t, &list)
		var got []string
		for _, item := range list.Items {
			got = append(got, item.ID)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s's list of the Dead Zone (-want +got):\n%s", who, diff)
		}
	}
}

// "audit rows are things with … a relation like any other"
func TestTheAuditRecordIsForAdminsAndTellsNothingOfNotes(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada, alice, mona := env.SignIn(t, "ada"), env.SignIn(t, "alice"), env.SignIn(t, "mona")
	_, narrow := env.NewKey(t, ada, "key-writer")
	_, widest := env.NewKey(t, alice, "key-admin")
	note := env.NewNote(t, alice, "a secret title")
	for _, r := range []struct{ method, path string }{
		{"GET", "/v1/notes/" + note}, {"GET", "/v1/notes?scope=all"}, {"PATCH", "/v1/notes/" + note}, {"DELETE", "/v1/notes/" + note},
		{"GET", "/v1/deadzone/" + note}, {"GET", "/v1/deadzone"}, {"POST", "/v1/deadzone/" + note + "/restore"},
	} {
		var body any
		if r.method == "PATCH" {
			body = map[string]string{"body": "a secret body"}
		}
		if a := env.Do(t, r.method, r.path, ada, body); a.Status >= 300 {
			t.Fatalf("%s %s: %d %s", r.method, r.path, a.Status, a.Body)
		}
	}
	for who, token := range map[string]string{"alice": alice, "mona": mona, "ada by a narrow key": narrow, "alice by the widest key": widest} {
		for _, query := range []string{"", "?actor=" + me(t, env, alice).ID, "?action=session.create"} {
			checkStatus(t, who+": the record"+query, env.Do(t, http.MethodGet, "/v1/admin/audit"+query, token, nil), http.StatusForbidden, "audit:any read")
		}
	}
	a := env.Do(t, http.MethodGet, "/v1/admin/audit?limit=200", ada, nil)
	if text := string(a.Body); strings.Contains(text, "secret") || !strings.Contains(text, note) || !strings.Contains(text, "note.delete_any") {
		t.Errorf("the record should tell that ada reached the note, and nothing that stands in it: %s", text)
	}
}

// "scope is a role in the same model, decided on the same (object, act)"
func TestAKeysRoleIsJudgedByObjectAndActNotByTheMethod(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t,
		"p, key-restorer, deadzone:any, read", "p, key-restorer, deadzone:any, restore",
		"p, key-shredder, note:own, read", "p, key-shredder, note:own, delete",
		"p, key-penman, note:own, write"))
	ada := env.SignIn(t, "ada")
	live, dead := env.NewNote(t, ada, "live"), env.NewDeadNote(t, ada, "dead")
	other := env.NewDeadNote(t, ada, "dead too")
	newNote, change := `{"title":"a","body":"b"}`, `{"title":"c"}`
	for _, test := range []struct {
		role, method, path, body string
		status                   int
		permission               string
	}{
		{"key-restorer", "GET", "/v1/deadzone", "", 200, ""},
		{"key-restorer", "GET", "/v1/notes", "", 403, "note:own read"},
		{"key-restorer", "POST", "/v1/notes", newNote, 403, "note:own write"},
		{"key-restorer", "DELETE", "/v1/deadzone/" + dead, "", 403, "deadzone:own purge"},
		{"key-restorer", "POST", "/v1/deadzone/" + dead + "/restore", "", 200, ""},
		{"key-shredder", "GET", "/v1/notes/" + live, "", 200, ""},
		{"key-shredder", "POST", "/v1/notes", newNote, 403, "note:own write"},
		{"key-shredder", "PATCH", "/v1/notes/" + live, change, 403, "note:own write"},
		{"key-shredder", "DELETE", "/v1/deadzone/" + other, "", 403, "deadzone:own purge"},
		{"key-shredder", "DELETE", "/v1/me/sessions", "", 403, "session:own delete"},
		{"key-penman", "POST", "/v1/notes", newNote, 201, ""},
		{"key-penman", "PATCH", "/v1/notes/" + live, change, 200, ""},
		{"key-penman", "GET", "/v1/notes/" + live, "", 403, "note:own read"},
		{"key-penman", "GET", "/v1/notes", "", 403, "note:own read"},
		{"key-penman", "DELETE", "/v1/notes/" + live, "", 403, "note:own delete"},
		{"key-penman", "POST", "/v1/deadzone/" + other + "/restore", "", 403, "deadzone:own restore"},
		{"key-shredder", "DELETE", "/v1/notes/" + live, "", 204, ""},
	} {
		_, key := env.NewKey(t, ada, test.role)
		var body any
		if test.body != "" {
			body = test.body
		}
		a := env.Do(t, test.method, test.path, key, body)
		permission := test.permission
		checkStatus(t, fmt.Sprintf("%s: %s %s", test.role, test.method, test.path), a, test.status, permission)
	}
}

// "nothing stated is nothing allowed"
func TestAKeyWhoseRoleThePolicyDoesNotDefineCanDoNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	id, key := env.NewKey(t, ada, "key-admin")
	note, dead := env.NewNote(t, ada, "live"), env.NewDeadNote(t, ada, "dead")
	org := env.NewOrg(t, ada, "o") // here ada may do everything
	env.Exec(t, `update keys set role = 'key-gone' where id = $1`, id)
	for _, route := range routesOf(t, env) {
		if slices.Contains(publicRoutes, route) {
			continue
		}
		method, path := splitRoute(route)
		target := map[string]string{"/v1/notes/{id}": note, "/v1/deadzone/{id}": dead, "/v1/deadzone/{id}/restore": dead, "/v1/keys/{id}": id}[path]
		if target == "" {
			target = me(t, env, ada).ID
		}
		address := strings.NewReplacer("{id}", target, "{org}", org, "{user}", uuid.NewString()).Replace(path)
		status := http.StatusForbidden
		if path == "/v1/orgs/{org}" || strings.Contains(path, "/grants") || strings.HasSuffix(path, "/access") {
			status = http.StatusNotFound // the path names a thing that it may not read
		}
		for _, query := range []string{"", "?nonsense=1"} { // refused before anything is said of the query
			if a := env.Do(t, method, address+query, key, nil); a.Status != status {
				t.Errorf("%s%s by a key of no role: %d %s", route, query, a.Status, a.Body)
			}
		}
	}
	for _, role := range []string{"", "key-gone", "key-", "user", "admin", "org-admin", "KEY-ADMIN", "key-admin ", "key-reader, key-admin"} {
		a := env.Do(t, http.MethodPost, "/v1/keys", ada, map[string]string{"name": "n", "role": role})
		checkStatus(t, "making a key of the role "+role, a, http.StatusUnprocessableEntity, "")
	}
	if _, err := env.Pool.Exec(t.Context(), `update keys set role = 'admin' where id = $1`, id); err == nil {
		t.Error("the database takes a platform role for a key's")
	}
}

// "no key role may write keys, checked at load"
func TestAKeyCannotMakeAKey(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, role := range []string{"key-reader", "key-writer", "key-admin"} {
		_, key := env.NewKey(t, ada, role)
		for _, wanted := range []string{"key-reader", role} {
			a := env.Do(t, http.MethodPost, "/v1/keys", key, map[string]string{"name": "n", "role": wanted})
			checkStatus(t, "a "+role+" makes a "+wanted, a, http.StatusForbidden, "key:own write")
		}
	}
	for _, lines := range [][]string{
		{"p, key-maker, key:own, write"}, {"p, key-admin, key:own, read"}, {"p, key-admin, key:org, write"}, {"p, key-reader, session:own, delete"},
		{"p, key-reader, identity:own, write"}, {"p, key-deep, key:own, delete", "g, key-mid, key-deep", "g, key-admin, key-mid"},
		{"g, key-admin, user"}, {"g, key-admin, admin"},
	} {
		text := string(noted.Policy) + "\n" + strings.Join(lines, "\n") + "\n"
		if _, err := authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: []byte(text)}); err == nil {
			t.Errorf("a policy with %q is loaded", lines)
		}
	}
}

// lastAddress uses a new key with the headers, and returns the address that noted saw.
func lastAddress(t *testing.T, env *servertest.Env, session string, headers ...string) string {
	t.Helper()
	id, key := env.NewKey(t, session, "key-reader")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if a := servertest.Send(t, http.DefaultTransport, r); a.Status != http.StatusOK {
		t.Fatalf("%v: %d %s", headers, a.Status, a.Body)
	}
	var shown struct {
		LastUsedIP *string `json:"last_used_ip"`
	}
	env.Do(t, http.MethodGet, "/v1/keys/"+id, session, nil).JSON(t, &shown)
	if shown.LastUsedIP == nil {
		return ""
	}
	return *shown.LastUsedIP
}

// "client address only from configured proxies"
func TestAClientsAddressComesOnlyFromConfiguredProxies(t *testing.T) {
	t.Parallel()
	believed := [][]string{
		nil,
		{"X-Forwarded-For", "203.0.113.9"},
		{"X-Forwarded-For", "203.0.113.9, 127.0.0.1"},
		{"X-Real-IP", "203.0.113.9"},
		{"True-Client-IP", "203.0.113.9"},
		{"CF-Connecting-IP", "203.0.113.9"},
		{"X-Client-IP", "203.0.113.9"},
		{"X-Cluster-Client-IP", "203.0.113.9"},
		{"Forwarded", "for=203.0.113.9"},
	}
	env := servertest.New(t)
	session := env.SignIn(t, "alice")
	for _, headers := range believed {
		if got := lastAddress(t, env, session, headers...); got != "127.0.0.1" {
			t.Errorf("without trusted_proxies, %q: the address is %q", headers, got)
		}
	}
	env = servertest.New(t, func(o *server.Options) { o.Settings.TrustedProxies = []string{"127.0.0.1/32", "10.0.0.0/8"} })
	session = env.SignIn(t, "alice")
	for _, test := range []struct {
		want    string
		headers []string
	}{
		{"203.0.113.9", []string{"X-Forwarded-For", "203.0.113.9"}},
		{"203.0.113.9", []string{"X-Forwarded-For", "198.51.100.1, 203.0.113.9"}},
		{"203.0.113.9", []string{"X-Forwarded-For", "198.51.100.1", "X-Forwarded-For", "203.0.113.9"}},
		{"203.0.113.9", []string{"X-Forwarded-For", "198.51.100.1, 203.0.113.9, 10.1.2.3"}},
		{"2001:db8::9", []string{"X-Forwarded-For", "2001:db8::9"}},
		// The proxy wrote the last address. If that cannot be read, only the proxy is known, never an address the
		// client wrote before.
		{"127.0.0.1", []string{"X-Forwarded-For", "203.0.113.9, nonsense"}},
		{"203.0.113.9", []string{"X-Forwarded-For", "203.0.113.9", "X-Real-IP", "198.51.100.1", "Forwarded", "for=198.51.100.1"}},
	} {
		if got := lastAddress(t, env, session, test.headers...); got != test.want {
			t.Errorf("with trusted_proxies, %q: the address is %q, want %q", test.headers, got, test.want)
		}
	}
	env = servertest.New(t, func(o *server.Options) { o.Settings.TrustedProxies = []string{"192.0.2.0/24"} })
	if got := lastAddress(t, env, env.SignIn(t, "alice"), "X-Forwarded-For", "203.0.113.9"); got == "203.0.113.9" {
		t.Error("a peer that is no trusted proxy is believed")
	}
}

// "no identity from headers"
func TestNoHeaderQueryOrBodySaysWhoIsCalling(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada, alice := env.SignIn(t, "ada"), env.SignIn(t, "alice")
	_, key := env.NewKey(t, ada, "key-admin")
	admin := me(t, env, ada)
	names := []string{
		"X-Forwarded-User", "X-Remote-User", "Remote-User", "Remote_User", "X-User", "X-User-Id", "X-Forwarded-Email", "X-Forwarded-Groups",
		"X-Auth-Request-User", "X-Auth-Request-Email", "X-Forwarded-Preferred-Username", "X-WebAuth-User", "X-Original-User",
		"X-Noted-User", "X-Authenticated-User", "Cf-Access-Authenticated-User-Email", "X-Goog-Authenticated-User-Email", "From",
	}
	for _, name := range names {
		for _, value := range []string{"ada", "dev:ada", admin.ID, "ada@dev.example", ada, "admin"} {
			checkStatus(t, "nobody with "+name+": "+value, env.Do(t, http.MethodGet, "/v1/me", "", nil, name, value), http.StatusUnauthorized, "")
			if got := me(t, env, alice, name, value); got.Name != "alice" || !slices.Equal(got.Roles, []string{"user"}) {
				t.Errorf("alice with %s: %s is %+v", name, value, got)
			}
		}
	}
	for _, name := range []string{"X-Api-Key", "X-Auth-Token", "X-Access-Token", "Api-Key", "Proxy-Authorization", "X-Authorization", "X-Forwarded-Authorization"} {
		for _, value := range []string{ada, key, "Bearer " + ada, "Bearer " + key} {
			checkStatus(t, "a token in "+name, env.Do(t, http.MethodGet, "/v1/me", "", nil, name, value), http.StatusUnauthorized, "")
		}
	}
	for _, token := range []string{ada, key} {
		for _, name := range []string{"access_token", "token", "key", "api_key", "authorization"} {
			checkStatus(t, "a token in the query", env.Do(t, http.MethodGet, "/v1/me?"+name+"="+token, "", nil), http.StatusUnauthorized, "")
			a := env.Do(t, http.MethodPost, "/v1/notes", "", name+"="+token, "Content-Type", "application/x-www-form-urlencoded")
			checkStatus(t, "a token in a form", a, http.StatusUnauthorized, "")
		}
	}
	for what, headers := range map[string][]string{
		"Basic":           {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("ada:"+key))},
		"no scheme":       {"Authorization", key},
		"another scheme":  {"Authorization", "Token " + key},
		"two blanks":      {"Authorization", "Bearer  " + key},
		"a key as cookie": {"Cookie", "session=" + ada},
		"the https name":  {"Cookie", "__Host-noted_session=" + ada},
	} {
		checkStatus(t, what, env.Do(t, http.MethodGet, "/v1/me", "", nil, headers...), http.StatusUnauthorized, "")
	}
	// With both, only the header counts: a planted cookie changes nothing, and a failed header falls back to
	// nothing.
	if got := me(t, env, alice, "Cookie", "noted_session="+ada); got.Name != "alice" {
		t.Errorf("with alice's header and ada's cookie: %s", got.Name)
	}
	checkStatus(t, "a failed header beside a good cookie", env.Do(t, http.MethodGet, "/v1/me", "nsess_nonsense", nil, "Cookie", "noted_session="+ada), http.StatusUnauthorized, "")
}

// rawRequest sends a request line as it is; Go's client would normalize it.
func rawRequest(t *testing.T, env *servertest.Env, method, target, token string) servertest.Answer {
	t.Helper()
	host := strings.TrimPrefix(env.URL, "http://")
	conn, err := net.DialTimeout("tcp", host, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	authorization := ""
	if token != "" {
		authorization = "Authorization: Bearer " + token + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", method, target, host, authorization); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return servertest.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
}

// spellings are other ways to write a path, some of which other servers treat as equal.
func spellings(path string) []string {
	rest := path[1:]                            // v1/notes
	head, tail, _ := strings.Cut(rest, "/")     // v1, notes
	last := path[strings.LastIndex(path, "/"):] // /notes
	before := strings.TrimSuffix(path, last)    // /v1
	return []string{
		"//" + rest, "///" + rest, "/" + head + "//" + tail, before + "/" + last, "/./" + rest, "/" + head + "/./" + tail, "/" + head + "/../" + rest,
		"/healthz/../" + rest, "/static/../" + rest, "/docs/../" + rest, "/auth/providers/../../" + rest,
		"/static/..%2f" + rest, "/docs/..%2f" + rest, "/static/%2e%2e/" + rest, "/static/..\\" + rest, "/docs/..;/" + rest,
		"/" + head + "%2f" + tail, "/" + head + "%2F" + tail, "/%2f" + rest, "/%2e/" + rest, "/" + head + "/%2e%2e/" + rest, "/" + head + "%5c" + tail,
		path + "/", path + "//", path + "/.", path + "/%2e", path + "%2f", path + "%20", path + "%00", path + "%09", path + ";", path + ";a=b", path + ".json", path + "/*",
		strings.ToUpper(path), "/" + strings.ToUpper(head) + "/" + tail, before + strings.ToUpper(last),
		"/%76" + rest[1:], "/" + head + "/%" + fmt.Sprintf("%x", tail[0]) + tail[1:], "/%2576" + rest[1:],
		"http://evil.example" + path, "http://" + path, path + "#fragment", path + "?/healthz", "/healthz;" + path, "/healthz%2f.." + path, "/healthz%3f" + path,
		"/\u017f" + rest, path + "\uFF0F",
	}
}

// "permission hangs on the matched operation, never on a path string"
func TestNoSpellingOfAPathGetsRoundThePermission(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada, alice, bob := env.SignIn(t, "ada"), env.SignIn(t, "alice"), env.SignIn(t, "bob")
	const secret = "what bob keeps to himself"
	note, dead := env.NewNote(t, bob, secret), env.NewDeadNote(t, bob, secret)
	own := env.NewNote(t, alice, "alice's")
	user := me(t, env, bob).ID
	refused := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}
	check := func(who, token, method, target string) {
		t.Helper()
		a := rawRequest(t, env, method, target, token)
		switch {
		case strings.Contains(string(a.Body), secret) || strings.Contains(string(a.Body), user):
			t.Errorf("%s: %s %q shows data: %d %s", who, method, target, a.Status, a.Body)
		case !slices.Contains(refused, a.Status):
			t.Errorf("%s: %s %q: got %d %.200s, want a refusal", who, method, target, a.Status, a.Body)
		}
	}
	for _, test := range []struct {
		method, path string
		byAlice      bool // alice may do it to nothing of this kind, or not to this thing
	}{
		{"GET", "/v1/me", false}, {"GET", "/v1/notes", false}, {"GET", "/v1/keys", false}, {"GET", "/v1/me/sessions", false},
		{"GET", "/v1/deadzone", true}, {"GET", "/v1/admin/users", true}, {"GET", "/v1/admin/audit", true},
		{"GET", "/v1/notes/" + note, true}, {"DELETE", "/v1/notes/" + note, true}, {"GET", "/v1/deadzone/" + dead, true}, {"DELETE", "/v1/deadzone/" + dead, true},
		{"POST", "/v1/deadzone/" + dead + "/restore", true}, {"GET", "/v1/admin/users/" + user, true}, {"POST", "/v1/admin/users/" + user + "/lock", true},
	} {
		for _, target := range append(spellings(test.path), test.path) {
			check("nobody", "", test.method, target)
			if test.byAlice {
				check("alice", alice, test.method, target)
			}
		}
	}
	// Other spellings of an id, and two ids in one path.
	for _, id := range []string{
		strings.ToUpper(note), "urn:uuid:" + note, "%7B" + note + "%7D", strings.ReplaceAll(note, "-", ""), "%" + fmt.Sprintf("%x", note[0]) + note[1:],
		own + "/../" + note, own + "%2f..%2f" + note, own + "/" + note, own + "," + note, own + ";" + note, note + "%20", "%20" + note, note + "%00", note + "/",
	} {
		check("alice", alice, "GET", "/v1/notes/"+id)
		check("alice", alice, "DELETE", "/v1/notes/"+id)
	}
	// Only the id in the path is one's own.
	for _, query := range []string{"?id=" + note, "?id=" + note + "&id=" + own} {
		checkStatus(t, "one's own note with "+query, env.Do(t, http.MethodGet, "/v1/notes/"+own+query, alice, nil), http.StatusUnprocessableEntity, "")
	}
	// A method in a header, a query or a form does not count.
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		a := env.Do(t, http.MethodGet, "/v1/notes/"+own, alice, nil, name, "DELETE")
		checkStatus(t, "GET with "+name+": DELETE", a, http.StatusOK, "")
	}
	for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Original-Path"} {
		a := env.Do(t, http.MethodGet, "/healthz", alice, nil, name, "/v1/admin/users")
		if a.Status != http.StatusOK || strings.Contains(string(a.Body), user) {
			t.Errorf("/healthz with %s: /v1/admin/users is %d %s", name, a.Status, a.Body)
		}
	}
	for what, path := range map[string]string{"the note": "/v1/notes/" + note, "the dead note": "/v1/deadzone/" + dead, "the user": "/v1/admin/users/" + user} {
		a := env.Do(t, http.MethodGet, path, ada, nil)
		if a.Status != http.StatusOK || strings.Contains(string(a.Body), `"locked":true`) {
			t.Errorf("after all this %s is not as it was: %d %s", what, a.Status, a.Body)
		}
	}
	checkStatus(t, "alice's own note, after all this", env.Do(t, http.MethodGet, "/v1/notes/"+own, alice, nil), http.StatusOK, "")
}

// callbackFor signs alice in with that return_to and returns the callback's answer.
func callbackFor(t *testing.T, env *servertest.Env, returnTo string) servertest.Answer {
	t.Helper()
	browser := env.Browser(t)
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	address := env.URL + "/auth/login?login_hint=alice&return_to=" + url.QueryEscape(returnTo)
	for range 5 {
		response, err := browser.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if strings.HasPrefix(address, env.URL+"/auth/callback/") {
			return servertest.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
		}
		if address = response.Header.Get("Location"); address == "" {
			t.Fatalf("no way on from %s: %d %s", response.Request.URL, response.StatusCode, body)
		}
	}
	t.Fatal("the sign-in does not come to its callback")
	return servertest.Answer{}
}

// "return_to is parsed to a local path, or is /"
func TestAfterSigningInABrowserStaysHere(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	host := strings.TrimPrefix(env.URL, "http://")
	for _, local := range []string{"/", "/docs", "/v1/notes?limit=5&scope=all", "/a/b/../c#part", "/auth/providers", "/@evil.example", "/x?next=https://evil.example", "/x?next=//evil.example", "/caf\u00e9"} {
		a := callbackFor(t, env, local)
		if a.Status != http.StatusSeeOther || a.Header.Get("Location") != local {
			t.Errorf("return_to %q: %d to %q", local, a.Status, a.Header.Get("Location"))
		}
	}
	for _, trick := range []string{
		"", "https://evil.example", "https://evil.example/", "HTTPS://EVIL.example", "//evil.example", "///evil.example", "////evil.example", "//evil.example/%2f..",
		`/\evil.example`, `\/evil.example`, `\\evil.example`, `/\/evil.example`, `\evil.example`, "/\t/evil.example", "/\n/evil.example", "/\r\n/evil.example", "\t//evil.example",
		" //evil.example", " /docs", "/\x00/evil.example", "/\x7f/evil.example", "/\x1b/evil.example", "/docs\r\nSet-Cookie: noted_session=evil", "/docs\nLocation: https://evil.example",
		"javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", "data:text/html,hi", "vbscript:x", "file:///etc/passwd", "mailto:eve@evil.example",
		"http:evil.example", "http:/evil.example", "http:///evil.example", "https:evil.example", "evil.example", "evil.example/docs", "@evil.example", ".evil.example", ":80", "?x=y", "#x", "docs", "./docs", "../docs",
		env.URL + "/docs", env.URL + ".evil.example", "http://" + host + "@evil.example/", "https://" + host, "http://user:password@" + host + "/", "/%zz", "/%", "/docs\xff",
		"/" + strings.Repeat("a", 3000),
	} {
		a := callbackFor(t, env, trick)
		if got := a.Header.Values("Location"); a.Status != http.StatusSeeOther || !slices.Equal(got, []string{"/"}) {
			t.Errorf("return_to %q: %d to %q, want /", trick, a.Status, got)
		}
		if strings.Contains(strings.Join(a.Header.Values("Set-Cookie"), "\n"), "evil") {
			t.Errorf("return_to %q wrote a header: %q", trick, a.Header)
		}
	}
	// Local, or /: for these both are right, as long as a browser stays.
	base, _ := url.Parse(env.URL)
	for _, odd := range []string{"/%2f/evil.example", "/%2fevil.example", "/%5cevil.example", "/%09/evil.example", "/..//evil.example", "/.//evil.example", "/./\u2215evil.example", "/;//evil.example", "/ /evil.example", "/?\\evil.example", "/#//evil.example"} {
		got := callbackFor(t, env, odd).Header.Get("Location")
		there, err := url.Parse(got)
		if err != nil || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.HasPrefix(got, `/\`) || base.ResolveReference(there).Host != host {
			t.Errorf("return_to %q leads to %q (%v)", odd, got, err)
		}
	}
	// The first of two counts, and neither is evil.
	browser := env.Browser(t)
	response, err := browser.Get(env.URL + "/auth/login?login_hint=alice&return_to=/version&return_to=//evil.example")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.Request.URL.Host != host {
		t.Errorf("two return_to lead to %s", response.Request.URL)
	}
}

// The return path is in a cookie. Somebody who can write that browser's cookies, such as a neighbor under the same
// domain, cannot lead it away either.
func TestATamperedSignInCookieLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, evil := range []string{"https://evil.example", "//evil.example", `/\evil.example`} {
		begun := env.Do(t, http.MethodGet, "/auth/login?login_hint=alice&return_to=/docs", "", nil)
		cookie, err := http.ParseSetCookie(begun.Header.Get("Set-Cookie"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
		if err != nil {
			t.Skip("the cookie cannot be read from outside")
		}
		if !strings.Contains(string(text), `"/docs"`) {
			t.Fatalf("the cookie holds no path: %s", text)
		}
		written, _ := json.Marshal(evil)
		value := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(text), `"/docs"`, string(written), 1)))
		browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		response, err := browser.Get(begun.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		back := strings.TrimPrefix(response.Header.Get("Location"), env.URL)
		a := env.Do(t, http.MethodGet, back, "", nil, "Cookie", cookie.Name+"="+value)
		if location := a.Header.Get("Location"); location != "/" && a.Status != http.StatusUnauthorized {
			t.Errorf("a cookie with %q: %d to %q", evil, a.Status, location)
		}
	}
}

// "discovery is lazy and retried; sessions and keys work without it"
func TestSessionsAndKeysWorkWhileTheProviderIsDown(t *testing.T) {
	t.Parallel()
	database := pgtest.URL(t)
	env := servertest.NewOn(t, database)
	session := env.SignIn(t, "ada")
	_, key := env.NewKey(t, session, "key-admin")
	env.Provider.SetLie(devidp.Lie{Handler: func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close() // as if nobody listened
		}
		return true
	}})
	// One server knew the provider before it went down; the other starts now.
	late := servertest.NewOn(t, database, func(o *server.Options) {
		o.Providers = oidc.Providers{{
			ID: "dev", Name: "dev", Issuer: env.Issuer, ClientID: "noted", ClientSecret: "for this test", Scopes: []string{"openid", "email", "profile"},
		}}
	})
	for name, server := range map[string]*servertest.Env{"before": env, "after": late} {
		for what, token := range map[string]string{"session": session, "key": key} {
			if got := me(t, server, token); !slices.Contains(got.Roles, "admin") {
				t.Errorf("started %s: ada's %s has the roles %v", name, what, got.Roles)
			}
			note := server.NewNote(t, token, "written meanwhile")
			checkStatus(t, "reading it", server.Do(t, http.MethodGet, "/v1/notes/"+note, token, nil), http.StatusOK, "")
		}
		for _, path := range []string{"/healthz", "/readyz", "/auth/providers", "/"} {
			checkStatus(t, path, server.Do(t, http.MethodGet, path, "", nil), http.StatusOK, "")
		}
	}
	a := late.Do(t, http.MethodGet, "/auth/login", "", nil)
	checkProblem(t, "signing in while the provider is down", a, http.StatusServiceUnavailable)
	if strings.Contains(string(a.Body), env.Issuer) || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("the answer says too much: %v %s", a.Header, a.Body)
	}
	env.Provider.SetLie(devidp.Lie{})
	deadline := time.Now().Add(10 * time.Second) // it retries once a second
	for a.Status != http.StatusFound && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
		a = late.Do(t, http.MethodGet, "/auth/login", "", nil)
	}
	checkStatus(t, "signing in when the provider is back", a, http.StatusFound, "")
}

// "people's names in policy carry @ or a provider, role names cannot": roles come from the
// policy and the signed token, never from a request.
func TestRolesNeverComeFromARequest(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	note := env.NewNote(t, alice, "mine")
	still := func(what, token string) {
		t.Helper()
		if roles := me(t, env, token).Roles; !slices.Equal(roles, []string{"user"}) {
			t.Errorf("%s: the roles are %v", what, roles)
		}
	}
	for _, name := range []string{"role", "roles", "Role", "Roles", "is_admin", "admin", "user_id", "owner", "owner_id", "permission", "scope", "sub"} {
		for _, value := range []any{"admin", []string{"admin"}, true, me(t, env, bob).ID} {
			extra := map[string]any{"title": "t", "body": "b", name: value}
			checkStatus(t, fmt.Sprintf("a new note with %s %v", name, value), env.Do(t, http.MethodPost, "/v1/notes", alice, extra), http.StatusUnprocessableEntity, "")
			checkStatus(t, fmt.Sprintf("a change with %s %v", name, value), env.Do(t, http.MethodPatch, "/v1/notes/"+note, alice, map[string]any{name: value}), http.StatusUnprocessableEntity, "")
		}
		checkStatus(t, "the users with ?"+name, env.Do(t, http.MethodGet, "/v1/admin/users?"+name+"=admin", alice, nil), http.StatusForbidden, "user:any read")
		checkStatus(t, "oneself with ?"+name, env.Do(t, http.MethodGet, "/v1/me?"+name+"=admin", alice, nil), http.StatusUnprocessableEntity, "")
		checkStatus(t, "signing in with "+name, env.Do(t, http.MethodGet, "/auth/login?login_hint=alice&"+name+"=admin", "", nil), http.StatusFound, "")
	}
	for _, name := range []string{"X-Role", "X-Roles", "X-Noted-Role", "X-Noted-Roles", "X-Forwarded-Groups", "X-Auth-Request-Groups", "X-Admin", "X-Scope"} {
		if roles := me(t, env, alice, name, "admin").Roles; !slices.Equal(roles, []string{"user"}) {
			t.Errorf("with %s the roles are %v", name, roles)
		}
		checkStatus(t, "the users with "+name, env.Do(t, http.MethodGet, "/v1/admin/users", alice, nil, name, "admin"), http.StatusForbidden, "user:any read")
	}
	still("after all that", alice)
	// Somebody named like a role, or nearly like an admin, gains nothing by it. A token's roles count only if the
	// policy names that group.
	for what, claims := range map[string]map[string]any{
		"the subject admin":         {"sub": "admin"},
		"the subject user, admin":   {"sub": "user, admin"},
		"the subject with a colon":  {"sub": "x:dev:ada"},
		"the subject Ada":           {"sub": "Ada"},
		"the subject with a blank":  {"sub": "ada "},
		"the e-mail dev:ada":        {"sub": "s1", "email": "dev:ada"},
		"the e-mail of a colon":     {"sub": "s2", "email": "dev:ada@dev.example"},
		"the name ada":              {"sub": "s3", "name": "ada", "preferred_username": "ada"},
		"groups that nobody named":  {"sub": "s4", "groups": []string{"admin", "dev:ada", "user", "moderator"}},
		"a role claim":              {"sub": "s5", "role": "admin", "roles": []string{"admin"}, "scope": "admin", "realm_access": map[string]any{"roles": []string{"admin"}}},
		"an e-mail named like role": {"sub": "s6", "email": "admin"},
	} {
		still(what, signInWith(t, env, claims))
	}
}

// "it only grows": the database itself refuses all else, whoever asks.
func TestTheDatabaseItselfRefusesToChangeTheAuditRecord(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	env.SignIn(t, "alice")
	rows := func() (n int) {
		if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'session.create'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := rows()
	if before == 0 {
		t.Fatal("a sign-in left no row; what follows would prove nothing")
	}
	for _, role := range []string{"origin", "replica"} { // replica turns ordinary triggers off
		for _, sql := range []string{
			`update audit_events set detail = 'changed'`,
			`update audit_events set actor_name = 'x' where false`,
			`delete from audit_events`,
			`delete from audit_events where id = (select id from audit_events limit 1)`,
			`truncate audit_events`,
			`truncate audit_events cascade`,
			`truncate users, audit_events cascade`,
			`merge into audit_events a using (select 1) x on true when matched then delete`,
			`insert into audit_events select * from audit_events on conflict (id) do update set detail = 'changed'`,
			`with gone as (delete from audit_events returning *) select count(*) from gone`,
		} {
			tx, err := env.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), `set local session_replication_role = `+role); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("as %s, %s: got %v, want a refusal", role, sql, err)
			}
			_ = tx.Rollback(t.Context())
		}
	}
	if after := rows(); after != before {
		t.Errorf("there were %d rows, there are %d", before, after)
	}
}

// "every id in a request is loaded and decided on": what a body or a query names, and the caller
// may not read, is 404 like an id in the path.
func TestAnIdThatTheCallerMayNotReadIs404WhereverItStands(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note, other := env.NewNote(t, alice, "mine"), uuid.NewString()
	for what, a := range map[string]servertest.Answer{
		"an organization in a new note": env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]string{"title": "t", "body": "b", "org_id": other}),
		"both in a new note":            env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]string{"title": "t", "body": "b", "org_id": other, "notebook_id": other}),
		"a notebook in a change":        env.Do(t, http.MethodPatch, "/v1/notes/"+note, alice, map[string]string{"notebook_id": other}),
		"an organization in a query":    env.Do(t, http.MethodGet, "/v1/notes?org_id="+other, alice, nil),
		"a notebook in a query":         env.Do(t, http.MethodGet, "/v1/notes?notebook_id="+other, alice, nil),
	} {
		checkProblem(t, what, a, http.StatusNotFound)
	}
}

// "text is validated at the edge"
func TestTextThatPostgreSQLWouldRefuseIsNoInternalError(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "mine")
	key, _ := env.NewKey(t, alice, "key-reader")
	for _, text := range []string{`"a\u0000b"`, `"\ud800"`, `"\udc00\ud800"`, "\"\xff\"", "\"a\x00b\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\xf4\x90\x80\x80\""} {
		for _, r := range []struct{ method, path, body string }{
			{"POST", "/v1/notes", `{"body":"b","title":` + text + `}`}, {"POST", "/v1/notes", `{"title":"t","body":` + text + `}`},
			{"PATCH", "/v1/notes/" + note, `{"title":` + text + `}`}, {"PATCH", "/v1/notes/" + note, `{"body":` + text + `}`},
			{"POST", "/v1/keys", `{"name":` + text + `}`}, {"PATCH", "/v1/keys/" + key, `{"name":` + text + `}`}, {"POST", "/v1/keys", `{"name":"n","role":` + text + `}`},
			{"POST", "/v1/notes", `{"title":"t","body":"b",` + text + `:1}`},
		} {
			a := env.Do(t, r.method, r.path, alice, r.body)
			if a.Status != http.StatusBadRequest && a.Status != http.StatusUnprocessableEntity {
				t.Errorf("%s %s %q: got %d %s, want 400 or 422", r.method, r.path, r.body, a.Status, a.Body)
			}
		}
	}
	for _, value := range []string{"%00", "a%00b", "%ff", "%ed%a0%80", "%c0%80"} {
		for _, path := range []string{
			"/v1/notes/" + value, "/v1/notes?cursor=" + value, "/v1/notes?scope=" + value, "/v1/notes?org_id=" + value, "/v1/notes?" + value + "=1",
			"/v1/keys/" + value, "/auth/callback/" + value, "/auth/login?provider=" + value, "/auth/callback/dev?state=" + value + "&code=" + value, value,
		} {
			a := env.Do(t, http.MethodGet, "/"+strings.TrimPrefix(path, "/"), alice, nil)
			if a.Status < 400 || a.Status > 499 {
				t.Errorf("GET %s: got %d %s", path, a.Status, a.Body)
			}
		}
		checkStatus(t, "a hint of "+value, env.Do(t, http.MethodGet, "/auth/login?login_hint="+value, "", nil), http.StatusFound, "")
	}
	response := env.Do(t, http.MethodGet, "/auth/login?login_hint=alice", "", nil, "User-Agent", "odd \xff\xfe agent")
	checkStatus(t, "an odd User-Agent", response, http.StatusFound, "")
}

// Checks the third column of docs/threat-model.md, and all other tests that documents name.
func TestEveryTestThatTheDocumentsNameExists(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	there := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path) //nolint:gosec // the repository's
		for _, one := range declared.FindAllStringSubmatch(string(source), -1) {
			there[one[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	inThreats := 0
	for _, document := range append(documents, "../README.md", "../SECURITY.md") {
		text, err := os.ReadFile(document) //nolint:gosec // the repository's
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range named.FindAllStringSubmatch(string(text), -1) {
			if filepath.Base(document) == "threat-model.md" {
				inThreats++
			}
			if !there[one[1]] {
				t.Errorf("%s names %s, which is no test", document, one[1])
			}
		}
	}
	if inThreats < 90 {
		t.Errorf("only %d names were found in the threat model", inThreats)
	}
}
