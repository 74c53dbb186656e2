package keys_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"noted"
	"noted/authz"
	"noted/internal/localpg/pgtest"
	"noted/server"
	"noted/server/servertest"
)

const unauthorized = `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`

type key struct {
	ID, Name, Role string
	CreatedBy      struct{ ID, Kind, Name string } `json:"created_by"`
	CreatedAt      time.Time                       `json:"created_at"`
	ExpiresAt      time.Time                       `json:"expires_at"`
	StopsAt        time.Time                       `json:"stops_at"`
	LastUsedAt     *time.Time                      `json:"last_used_at"`
	LastUsedIP     *string                         `json:"last_used_ip"`
	Secrets        []struct {
		ExpiresAt time.Time `json:"expires_at"`
	}
	Secret string
}

type list struct {
	Items      []key
	NextCursor *string `json:"next_cursor"`
}

func want(t testing.TB, status int, a servertest.Answer) servertest.Answer {
	t.Helper()
	return a.Want(t, status)
}

func refused(t testing.TB, what string, a servertest.Answer) {
	t.Helper()
	if a.Status != 401 || string(a.Body) != unauthorized {
		t.Errorf("%s: %d %s", what, a.Status, a.Body)
	}
}

// where lists a 422's locations.
func where(t testing.TB, a servertest.Answer) []string {
	t.Helper()
	var p struct {
		Errors []struct{ Location, Message string }
	}
	a.JSON(t, &p)
	var locations []string
	for _, e := range p.Errors {
		if e.Message == "" {
			t.Errorf("no message in %s", a.Body)
		}
		locations = append(locations, e.Location)
	}
	return locations
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func near(got, want time.Duration) bool { return (got - want).Abs() < time.Minute }

func TestAKeyIsMadeListedRenamedAndRevoked(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	a := want(t, 201, env.Do(t, "POST", "/v1/keys", alice, map[string]any{"name": "backup ☂"}))
	var made key
	a.JSON(t, &made)
	if made.Name != "backup ☂" || made.Role != "key-reader" || made.Secret == "" || made.CreatedBy.Name != "alice" || made.CreatedBy.Kind != "user" ||
		made.LastUsedAt != nil || made.LastUsedIP != nil || len(made.Secrets) != 1 || a.Header.Get("Location") != "/v1/keys/"+made.ID {
		t.Errorf("made %s with %v", a.Body, a.Header)
	}
	if !near(made.ExpiresAt.Sub(made.CreatedAt), days(90)) || !made.Secrets[0].ExpiresAt.Equal(made.ExpiresAt) || made.StopsAt.After(made.ExpiresAt) {
		t.Errorf("it expires %v, stops %v", made.ExpiresAt, made.StopsAt)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the answer with the secret may be stored: %v", a.Header)
	}
	for _, absent := range []string{"org_id", "org_role"} {
		if strings.Contains(string(a.Body), absent) {
			t.Errorf("%s is there: %s", absent, a.Body)
		}
	}
	one := want(t, 200, env.Do(t, "GET", "/v1/keys/"+made.ID, alice, nil))
	renamed := want(t, 200, env.Do(t, "PATCH", "/v1/keys/"+made.ID, alice, map[string]any{"name": "nightly"}))
	for _, body := range []string{string(one.Body), string(renamed.Body), string(want(t, 200, env.Do(t, "GET", "/v1/keys", alice, nil)).Body)} {
		if strings.Contains(body, made.Secret) || strings.Contains(body, `"secret"`) || strings.Contains(body, "hash") {
			t.Errorf("the secret is shown again: %s", body)
		}
	}
	var got key
	renamed.JSON(t, &got)
	secret := made.Secret
	made.Name, made.Secret = "nightly", ""
	if diff := cmp.Diff(made, got); diff != "" {
		t.Error(diff)
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", secret, nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+made.ID, alice, nil))
}

// makeKey makes a key and returns it with its secret.
func makeKey(t testing.TB, env *servertest.Env, session string, body map[string]any) key {
	t.Helper()
	var made key
	want(t, 201, env.Do(t, "POST", "/v1/keys", session, body)).JSON(t, &made)
	return made
}

func TestARevokedKeyIsGoneAndRefused(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+made.ID, alice, nil))
	refused(t, "revoked", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	for _, c := range [][2]string{{"GET", ""}, {"PATCH", `{"name":"x"}`}, {"DELETE", ""}} {
		var body any
		if c[1] != "" {
			body = c[1]
		}
		want(t, 404, env.Do(t, c[0], "/v1/keys/"+made.ID, alice, body))
	}
	var all list
	want(t, 200, env.Do(t, "GET", "/v1/keys", alice, nil)).JSON(t, &all)
	if len(all.Items) != 0 {
		t.Errorf("it is in the list: %+v", all.Items)
	}
	for action, n := range map[string]int{"key.create": 1, "key.revoke": 1} {
		var rows int
		if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = $1 and object = 'key' and target = $2 and actor_name = 'alice'`, action, made.ID).Scan(&rows); err != nil || rows != n {
			t.Errorf("%d rows of %s, %v", rows, action, err)
		}
	}
}

func TestKeysAreListedTheNewestFirstInPages(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	var made []string
	for range 5 {
		made = append([]string{makeKey(t, env, alice, map[string]any{"name": "same"}).ID}, made...)
	}
	makeKey(t, env, bob, map[string]any{"name": "bob's"})
	env.Exec(t, `update keys set created_at = now()`) // the same time for all: the id decides
	var seen []string
	path := "/v1/keys?limit=2"
	for range 3 {
		var one list
		want(t, 200, env.Do(t, "GET", path, alice, nil)).JSON(t, &one)
		for _, k := range one.Items {
			seen = append(seen, k.ID)
		}
		if one.NextCursor == nil {
			break
		}
		path = "/v1/keys?limit=2&cursor=" + *one.NextCursor
	}
	if !slices.Equal(seen, made) {
		t.Errorf("listed %v, made %v", seen, made)
	}
}

func TestExpiryIsWithinItsBounds(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	at := func(d time.Duration) map[string]any {
		return map[string]any{"name": "k", "expires_at": time.Now().Add(d).UTC().Format(time.RFC3339Nano)}
	}
	for name, body := range map[string]any{
		"past":              at(-time.Minute),
		"beyond the max":    at(days(365) + time.Minute),
		"far beyond":        `{"name":"k","expires_at":"9999-12-31T23:59:59Z"}`,
		"the year 1":        `{"name":"k","expires_at":"0001-01-01T00:00:00Z"}`,
		"null":              `{"name":"k","expires_at":null}`,
		"a number":          `{"name":"k","expires_at":1800000000}`,
		"empty":             `{"name":"k","expires_at":""}`,
		"a date":            `{"name":"k","expires_at":"2027-01-01"}`,
		"no zone":           `{"name":"k","expires_at":"2027-01-01T00:00:00"}`,
		"a word":            `{"name":"k","expires_at":"tomorrow"}`,
		"an impossible day": `{"name":"k","expires_at":"2027-02-30T00:00:00Z"}`,
		"a duration":        `{"name":"k","expires_at":"24h"}`,
	} {
		a := env.Do(t, "POST", "/v1/keys", alice, body)
		if a.Status != 422 || !slices.Contains(where(t, a), "body.expires_at") {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	for name, d := range map[string]time.Duration{"a minute": time.Minute, "the max": days(365) - time.Second, "half a year": days(180)} {
		before := time.Now()
		made := makeKey(t, env, alice, at(d))
		if !near(made.ExpiresAt.Sub(before), d) || made.ExpiresAt.Location() != time.UTC {
			t.Errorf("%s: %v", name, made.ExpiresAt)
		}
	}
	// The same moment in another zone.
	made := makeKey(t, env, alice, map[string]any{"name": "k", "expires_at": time.Now().Add(time.Hour).In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339)})
	if !near(time.Until(made.ExpiresAt), time.Hour) {
		t.Errorf("another zone: %v", made.ExpiresAt)
	}
}

func TestTheDefaultExpiryIsNeverBeyondTheMax(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.KeyMaxAge = days(10) })
	alice := env.SignIn(t, "alice")
	if made := makeKey(t, env, alice, map[string]any{"name": "k"}); !near(time.Until(made.ExpiresAt), days(10)) {
		t.Errorf("it expires %v", made.ExpiresAt)
	}
	a := want(t, 422, env.Do(t, "POST", "/v1/keys", alice, map[string]any{"name": "k", "expires_at": time.Now().Add(days(11))}))
	if !slices.Contains(where(t, a), "body.expires_at") {
		t.Errorf("got %s", a.Body)
	}
}

func TestAnExpiredKeyIsRefusedAndHasNoLiveSecret(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	env.Exec(t, `update key_secrets set expires_at = now() + interval '5 seconds'`)
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
	env.Exec(t, `update key_secrets set created_at = now() - interval '2 days', expires_at = now()`)
	refused(t, "expired", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	a := want(t, 200, env.Do(t, "GET", "/v1/keys", alice, nil))
	if !strings.Contains(string(a.Body), `"secrets":[]`) {
		t.Errorf("listed as %s", a.Body)
	}
	want(t, 200, env.Do(t, "PATCH", "/v1/keys/"+made.ID, alice, `{"name":"old"}`))
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+made.ID, alice, nil))
}

func TestOnlyKeyRolesOfThePolicyAreTaken(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, body := range []string{
		`{"name":"k","role":"admin"}`, `{"name":"k","role":"user"}`, `{"name":"k","role":"org-admin"}`, `{"name":"k","role":"key-nothing"}`, `{"name":"k","role":""}`,
		`{"name":"k","role":null}`, `{"name":"k","role":"KEY-READER"}`, `{"name":"k","role":"key-reader "}`, `{"name":"k","role":["key-reader"]}`, `{"name":"k","role":"dev:ada"}`,
		`{"name":"k","role":"key-` + strings.Repeat("a", 200) + `"}`,
	} {
		a := env.Do(t, "POST", "/v1/keys", ada, body)
		if a.Status != 422 || !slices.Contains(where(t, a), "body.role") {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	for _, role := range []string{"key-reader", "key-writer", "key-admin"} {
		made := makeKey(t, env, ada, map[string]any{"name": "k", "role": role})
		var me struct {
			Via   string
			Roles []string
			Key   struct{ ID, Role string }
		}
		want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil)).JSON(t, &me)
		if me.Via != "key" || me.Key.ID != made.ID || me.Key.Role != role || !slices.Equal(me.Roles, []string{"admin", "user"}) {
			t.Errorf("%s is %+v", role, me)
		}
	}
}

func TestNamesOfKeysAreOneToAHundredCharacters(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := makeKey(t, env, alice, map[string]any{"name": strings.Repeat("☂", 100)}).ID
	for _, body := range []string{
		`{}`, `{"name":""}`, `{"name":null}`, `{"name":7}`, `{"name":"` + strings.Repeat("☂", 101) + `"}`, `{"name":"a\u0000b"}`,
		`{"name":"k","owner":"x"}`, `{"name":"k","Name":"x"}`, `{"NAME":"k"}`, `{"name":"k","id":"` + id + `"}`,
	} {
		if a := env.Do(t, "POST", "/v1/keys", alice, body); a.Status != 422 || len(where(t, a)) == 0 {
			t.Errorf("making with %s: %d %s", body, a.Status, a.Body)
		}
		if a := env.Do(t, "PATCH", "/v1/keys/"+id, alice, body); a.Status != 422 || len(where(t, a)) == 0 {
			t.Errorf("renaming with %s: %d %s", body, a.Status, a.Body)
		}
	}
	for _, body := range []string{`{"name":"x","role":"key-admin"}`, `{"name":"x","expires_at":"2030-01-01T00:00:00Z"}`} {
		want(t, 422, env.Do(t, "PATCH", "/v1/keys/"+id, alice, body))
	}
}

func TestAnothersKeyIsNotThere(t *testing.T) {
	env := servertest.New(t)
	alice, bob, ada := env.SignIn(t, "alice"), env.SignIn(t, "bob"), env.SignIn(t, "ada")
	made := makeKey(t, env, alice, map[string]any{"name": "alice's"})
	unknown := want(t, 404, env.Do(t, "GET", "/v1/keys/0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", bob, nil))
	for _, who := range []string{bob, ada} {
		for _, c := range []struct {
			method string
			body   any
		}{{"GET", nil}, {"PATCH", `{"name":"mine"}`}, {"DELETE", nil}} {
			a := want(t, 404, env.Do(t, c.method, "/v1/keys/"+made.ID, who, c.body))
			if string(a.Body) != string(unknown.Body) {
				t.Errorf("%s tells it from one that never was: %s", c.method, a.Body)
			}
		}
		// 404 comes before the body is judged.
		want(t, 404, env.Do(t, "PATCH", "/v1/keys/"+made.ID, who, `{"name":7}`))
		want(t, 404, env.Do(t, "PATCH", "/v1/keys/"+made.ID, who, `garbage`))
	}
	for _, id := range []string{"x", "0", "%00", strings.ReplaceAll(made.ID, "-", ""), "%7B" + made.ID + "%7D", "urn:uuid:" + made.ID} {
		want(t, 404, env.Do(t, "GET", "/v1/keys/"+id, alice, nil))
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
}

func TestAKeyTouchesNoKey(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	made := makeKey(t, env, ada, map[string]any{"name": "k", "role": "key-admin"})
	for _, c := range []struct {
		method, path string
		body         any
		permission   string
	}{
		{"GET", "/v1/keys", nil, "key:own read"},
		{"POST", "/v1/keys", `{"name":"more"}`, "key:own write"},
		{"POST", "/v1/keys", `garbage`, "key:own write"}, // before the body is read
		{"GET", "/v1/keys/" + made.ID, nil, "key:own read"},
		{"PATCH", "/v1/keys/" + made.ID, `{"name":"x"}`, "key:own write"},
		{"DELETE", "/v1/keys/" + made.ID, nil, "key:own delete"},
		{"DELETE", "/v1/keys/0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", nil, "key:own delete"}, // whether it exists or not
	} {
		a := want(t, 403, env.Do(t, c.method, c.path, made.Secret, c.body))
		var p struct{ Permission string }
		if a.JSON(t, &p); p.Permission != c.permission {
			t.Errorf("%s %s: %s", c.method, c.path, a.Body)
		}
	}
}

func TestAKeyNeverDoesMoreThanItsOwner(t *testing.T) {
	env := servertest.New(t)
	alice, bob, mona := env.SignIn(t, "alice"), env.SignIn(t, "bob"), env.SignIn(t, "mona")
	note := env.NewNote(t, bob, "bob's")
	_, widest := env.NewKey(t, alice, "key-admin")
	want(t, 404, env.Do(t, "GET", "/v1/notes/"+note, widest, nil))
	want(t, 404, env.Do(t, "PATCH", "/v1/notes/"+note, widest, `{"title":"mine"}`))
	want(t, 404, env.Do(t, "DELETE", "/v1/notes/"+note, widest, nil))
	for _, path := range []string{"/v1/notes?scope=all", "/v1/admin/users", "/v1/admin/audit", "/v1/deadzone"} {
		want(t, 403, env.Do(t, "GET", path, widest, nil))
	}
	want(t, 201, env.Do(t, "POST", "/v1/notes", widest, `{"title":"t","body":""}`))
	// A narrow key of a powerful user is narrow.
	_, narrow := env.NewKey(t, mona, "key-reader")
	want(t, 404, env.Do(t, "GET", "/v1/notes/"+note, narrow, nil))
	want(t, 403, env.Do(t, "POST", "/v1/notes", narrow, `{"title":"t","body":""}`))
	_, wide := env.NewKey(t, mona, "key-admin")
	want(t, 200, env.Do(t, "GET", "/v1/notes/"+note, wide, nil))
	want(t, 403, env.Do(t, "DELETE", "/v1/notes/"+note, wide, nil)) // mona may not
}

// shipped is the shipped policy with these people.
func shipped(t testing.TB, people ...authz.Grouping) *authz.InForce {
	t.Helper()
	policy, err := authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: noted.Policy}, people...)
	return servertest.Fixed(t, policy, err)
}

func TestWhoIsDemotedLosesByKeyToo(t *testing.T) {
	database := pgtest.URL(t)
	before := servertest.NewOn(t, database)
	bob, mona := before.SignIn(t, "bob"), before.SignIn(t, "mona")
	note := before.NewNote(t, bob, "bob's")
	_, key := before.NewKey(t, mona, "key-admin")
	want(t, 200, before.Do(t, "GET", "/v1/notes/"+note, key, nil))

	// The next start has a policy without mona.
	after := servertest.NewOn(t, database, func(o *server.Options) {
		o.Policy = shipped(t, authz.Grouping{Who: "dev:ada", Role: "admin"})
	})
	if err := after.Server.Identity.MoveIssuer(t.Context(), before.Issuer, after.Issuer); err != nil {
		t.Fatal(err)
	}
	want(t, 404, after.Do(t, "GET", "/v1/notes/"+note, key, nil))
	want(t, 404, after.Do(t, "GET", "/v1/notes/"+note, mona, nil))
	want(t, 403, after.Do(t, "GET", "/v1/notes?scope=all", key, nil))
	want(t, 200, after.Do(t, "GET", "/v1/me", key, nil))

	// A role that left the policy allows nothing and does not fail.
	gone := []byte(strings.ReplaceAll(string(noted.Policy), "key-admin", "key-boss"))
	policy, err := authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: gone})
	last := servertest.NewOn(t, database, func(o *server.Options) { o.Policy = servertest.Fixed(t, policy, err) })
	want(t, 403, last.Do(t, "GET", "/v1/me", key, nil))
}

func TestAKeyStopsWhenItsOwnerHasBeenAwayTooLong(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.KeyOwnerMaxAbsence = days(30) })
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	if !near(time.Until(made.StopsAt), days(30)) {
		t.Errorf("it stops %v", made.StopsAt)
	}
	absent := func(sql string) { t.Helper(); env.Exec(t, `update users set `+sql) }
	absent(`last_sign_in_at = now() - interval '30 days' + interval '10 seconds'`)
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
	absent(`last_sign_in_at = now() - interval '30 days'`)
	refused(t, "absent", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil)) // the session ends separately
	var shown key
	want(t, 200, env.Do(t, "GET", "/v1/keys/"+made.ID, alice, nil)).JSON(t, &shown)
	if time.Until(shown.StopsAt) > 0 || !shown.ExpiresAt.Equal(made.ExpiresAt) {
		t.Errorf("it is shown to stop %v, expires %v", shown.StopsAt, shown.ExpiresAt)
	}
	// Without a sign-in, the creation counts.
	absent(`last_sign_in_at = null, created_at = now() - interval '31 days'`)
	refused(t, "never signed in", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	absent(`created_at = now() - interval '29 days'`)
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
	// Using a key is no sign-in; the next sign-in is.
	absent(`last_sign_in_at = now() - interval '31 days'`)
	refused(t, "absent again", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	env.SignIn(t, "alice")
	want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil))
}

func TestASecretIsInNoListLogOrTable(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k", "role": "key-writer"})
	env.NewNote(t, made.Secret, "by key")
	want(t, 200, env.Do(t, "GET", "/v1/keys", alice, nil))
	refused(t, "changed", env.Do(t, "GET", "/v1/me", made.Secret[:77]+"!", nil))
	refused(t, "longer", env.Do(t, "GET", "/v1/me", made.Secret+"x", nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+made.ID, alice, nil))
	refused(t, "revoked", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	secrets := []string{made.Secret, made.Secret[29:72], alice, alice[6:]}

	for _, secret := range secrets {
		if strings.Contains(env.Log.String(), secret) {
			t.Errorf("%.8s… is in the log", secret)
		}
		if strings.Contains(string(env.Do(t, "GET", "/metrics", "", nil).Body), secret) {
			t.Errorf("%.8s… is in the metrics", secret)
		}
	}
	if !strings.Contains(env.Log.String(), "route=/v1/keys/{id}") {
		t.Error("the log has no requests in it: this proves nothing")
	}
	// Every column of every table, as text.
	rows, err := env.Pool.Query(t.Context(), `
		select format('%I', table_name), format('%I', column_name) from information_schema.columns
		where table_schema = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	type column struct{ Table, Name string }
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil || len(columns) < 40 {
		t.Fatalf("%d columns, %v", len(columns), err)
	}
	for _, c := range columns {
		for _, secret := range secrets {
			var found bool
			err := env.Pool.QueryRow(t.Context(), `select exists (select from `+c.Table+` where position($1 in `+c.Name+`::text) > 0
				or position(encode(convert_to($1, 'UTF8'), 'hex') in `+c.Name+`::text) > 0)`, secret).Scan(&found)
			if err != nil || found {
				t.Errorf("%.8s… is in %s.%s, %v", secret, c.Table, c.Name, err)
			}
		}
	}
}

func TestAKeysUseIsWrittenOnceAMinute(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	show := func() (k key) {
		t.Helper()
		want(t, 200, env.Do(t, "GET", "/v1/keys/"+made.ID, alice, nil)).JSON(t, &k)
		return k
	}
	use := func() { t.Helper(); want(t, 200, env.Do(t, "GET", "/v1/me", made.Secret, nil)) }
	if k := show(); k.LastUsedAt != nil || k.LastUsedIP != nil {
		t.Errorf("unused: %+v", k)
	}
	use()
	first := show()
	if first.LastUsedAt == nil || first.LastUsedIP == nil || *first.LastUsedIP != "127.0.0.1" || time.Since(*first.LastUsedAt) > time.Minute || first.LastUsedAt.Location() != time.UTC {
		t.Fatalf("used: %+v", first)
	}
	use()
	if k := show(); !k.LastUsedAt.Equal(*first.LastUsedAt) {
		t.Error("a second use within the minute is written")
	}
	env.Exec(t, `update keys set last_used_at = now() - interval '50 seconds'`)
	before := show()
	use()
	if k := show(); !k.LastUsedAt.Equal(*before.LastUsedAt) {
		t.Error("a use after 50 seconds is written")
	}
	env.Exec(t, `update keys set last_used_at = now() - interval '60 seconds', last_used_ip = '192.0.2.7'`)
	use()
	if k := show(); time.Since(*k.LastUsedAt) > 30*time.Second || *k.LastUsedIP != "127.0.0.1" {
		t.Errorf("after a minute: %+v", k)
	}
	// A refused use does not count.
	env.Exec(t, `update keys set last_used_at = null, last_used_ip = null`)
	env.Exec(t, `update users set locked_at = now()`)
	refused(t, "locked", env.Do(t, "GET", "/v1/me", made.Secret, nil))
	env.Exec(t, `update users set locked_at = null`)
	if k := show(); k.LastUsedAt != nil {
		t.Error("a refused use is written")
	}
}

func TestRevokingTwiceAtOnceIsOneRow(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	statuses := make(chan int, 8)
	for range cap(statuses) {
		go func() { statuses <- send(t.Context(), env, http.MethodDelete, "/v1/keys/"+made.ID, alice) }()
	}
	done := 0
	for range cap(statuses) {
		switch status := <-statuses; status {
		case 204:
			done++
		case 404:
		default:
			t.Errorf("got %d", status)
		}
	}
	var rows int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'key.revoke'`).Scan(&rows); err != nil || rows != 1 || done != 1 {
		t.Errorf("%d rows, %d answers of 204, %v", rows, done, err)
	}
}

// send is Do for goroutines. It returns the status, or 0.
func send(ctx context.Context, env *servertest.Env, method, path, token string) int {
	r, err := http.NewRequestWithContext(ctx, method, env.URL+path, nil)
	if err != nil {
		return 0
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}
