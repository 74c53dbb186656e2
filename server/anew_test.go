package server_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted"
	"noted/server"
	"noted/server/servertest"
)

// nobodyWrites is a policy that lets everybody read what they could before, and do nothing more.
const nobodyWrites = `p, user, self, read
p, user, note:own, read
p, moderator, note:any, read
p, admin, policy, read
p, admin, note:any, read
p, admin, deadzone:any, read
p, admin, user:any, read
p, org-admin, org, read
p, org-admin, member, read
p, org-admin, notebook, read
p, org-admin, note:org, read
p, org-admin, grant, read
p, org-admin, invitation, read
p, org-admin, key:org, read
p, key-admin, note:own, read
p, key-admin, note:any, read
p, key-admin, deadzone:any, read
p, key-admin, user:any, read
p, key-admin, org, read
p, key-admin, member, read
p, key-admin, notebook, read
p, key-admin, note:org, read
p, key-admin, grant, read
p, key-admin, invitation, read
g, dev:ada, admin
`

// written is everything that operations write, except uses and failures noted in passing.
const written = `
	select md5(concat(
		(select string_agg(x::text, ' ' order by id) from notes x), (select string_agg(x::text, ' ' order by id) from notebooks x),
		(select string_agg(x::text, ' ' order by id) from orgs x), (select string_agg(x::text, ' ' order by org_id, user_id) from members x),
		(select string_agg(x::text, ' ' order by user_id, notebook_id, note_id) from grants x), (select string_agg(x::text, ' ' order by id) from invitations x),
		(select string_agg(concat(id, name, role, revoked_at), ' ' order by id) from keys), (select string_agg(x::text, ' ' order by id) from key_secrets x),
		(select string_agg(concat(id, user_id), ' ' order by id) from identities), (select string_agg(concat(id, ended_at), ' ' order by id) from sessions),
		(select string_agg(concat(id, locked_at), ' ' order by id) from users), (select string_agg(concat(session_id, state_hash, confirm_hash), ' ' order by session_id) from links),
		(select string_agg(concat(user_code, decided_at), ' ' order by user_code) from device_logins)))`

// writeWorld holds what write requests need, all of it ada's, who may do everything.
type writeWorld struct {
	env                 *servertest.Env
	ada, alice          string // sessions
	key                 string // ada's, with the widest role
	keyID               string
	note, dead, orgNote string
	org, notebook       string
	member, carol       string // users
	orgKey, invitation  string
	session, identity   string // more of ada's
	accepts, user       string
}

func newWriteWorld(t *testing.T, env *servertest.Env) *writeWorld {
	t.Helper()
	w := &writeWorld{env: env, ada: env.SignIn(t, "ada"), alice: env.SignIn(t, "alice")}
	w.keyID, w.key = env.NewKey(t, w.ada, "key-admin")
	w.note, w.dead = env.NewNote(t, w.ada, "n"), env.NewDeadNote(t, w.alice, "d")
	w.org = env.NewOrg(t, w.ada, "o")
	path := "/v1/orgs/" + w.org
	w.notebook = env.Make(t, w.ada, path+"/notebooks", map[string]any{"name": "b"})
	w.orgNote = env.Make(t, w.ada, "/v1/notes", map[string]any{"title": "t", "body": "", "org_id": w.org})
	env.Join(t, w.ada, w.org, "bob", "writer")
	w.member, w.carol = me(t, env, env.SignIn(t, "bob")).ID, me(t, env, env.SignIn(t, "carol")).ID
	for _, thing := range []string{"/notebooks/" + w.notebook, "/notes/" + w.orgNote} {
		if a := env.Do(t, http.MethodPut, path+thing+"/grants/"+w.member, w.ada, `{"access":"read"}`); a.Status != http.StatusOK {
			t.Fatalf("granting: %d %s", a.Status, a.Body)
		}
	}
	w.orgKey = env.Make(t, w.ada, path+"/keys", map[string]any{"name": "s", "org_role": "reader"})
	w.invitation = env.Make(t, w.ada, path+"/invitations", map[string]any{"email": "dave@dev.example", "role": "reader"})
	other := env.NewOrg(t, w.alice, "other")
	var invited struct{ Token string }
	env.Do(t, http.MethodPost, "/v1/orgs/"+other+"/invitations", w.alice, `{"email":"ada@dev.example","role":"reader"}`).JSON(t, &invited)
	w.accepts = invited.Token
	env.SignIn(t, "ada")
	w.user = me(t, env, w.ada).ID
	w.identity = uuid.NewString()
	env.Exec(t, `insert into identities (id, user_id, issuer, subject) values ($1, $2, 'https://elsewhere.example', $3)`, w.identity, w.user, w.identity)
	if err := env.Pool.QueryRow(t.Context(), `
		select id from sessions where user_id = $1 and ended_at is null order by created_at desc, id desc limit 1`, w.user).Scan(&w.session); err != nil {
		t.Fatal(err)
	}
	return w
}

// startDevice starts a device login and returns its code.
func (w *writeWorld) startDevice(t *testing.T) string {
	t.Helper()
	var device struct {
		Code string `json:"user_code"`
	}
	w.env.Do(t, http.MethodPost, "/auth/device", "", "client_id=noted-cli", "Content-Type", "application/x-www-form-urlencoded").JSON(t, &device)
	return device.Code
}

// prepareLink prepares a link that ada's session has begun and the provider has confirmed.
func (w *writeWorld) prepareLink(t *testing.T) (code string) {
	t.Helper()
	code = uuid.NewString()
	sum := sha256.Sum256([]byte(code))
	w.env.Exec(t, `
		insert into links (session_id, state_hash, provider, nonce, verifier, expires_at, sign_in, confirm_hash)
		select id, $2, 'dev', 'n', 'v', now() + interval '1 hour', jsonb_build_object('issuer', $3::text, 'subject', $4::text), $2
		from sessions where token_hash = sha256($1::bytea)`, []byte(w.ada), sum[:], w.env.Issuer, code)
	return code
}

// writes are a request for each operation that writes; byKey is true if a key may do it too.
var writes = map[string]struct {
	path  func(*writeWorld) string // the values of the ids
	body  func(*testing.T, *writeWorld) string
	byKey bool
}{
	"POST /v1/notes":                                     {nil, say(`{"title":"t","body":"b"}`), true},
	"PATCH /v1/notes/{id}":                               {func(w *writeWorld) string { return w.note }, say(`{"title":"x"}`), true},
	"DELETE /v1/notes/{id}":                              {func(w *writeWorld) string { return w.note }, nil, true},
	"POST /v1/deadzone/{id}/restore":                     {func(w *writeWorld) string { return w.dead }, nil, true},
	"DELETE /v1/deadzone/{id}":                           {func(w *writeWorld) string { return w.dead }, nil, true},
	"POST /v1/orgs":                                      {nil, say(`{"name":"x"}`), true},
	"PATCH /v1/orgs/{org}":                               {nil, say(`{"name":"x"}`), true},
	"DELETE /v1/orgs/{org}":                              {nil, nil, true},
	"PATCH /v1/orgs/{org}/members/{user}":                {nil, say(`{"role":"reader"}`), true},
	"DELETE /v1/orgs/{org}/members/{user}":               {nil, nil, true},
	"POST /v1/orgs/{org}/invitations":                    {nil, say(`{"email":"erin@dev.example","role":"reader"}`), true},
	"DELETE /v1/orgs/{org}/invitations/{id}":             {func(w *writeWorld) string { return w.invitation }, nil, true},
	"POST /v1/invitations/accept":                        {nil, func(_ *testing.T, w *writeWorld) string { return `{"token":"` + w.accepts + `"}` }, false},
	"POST /v1/orgs/{org}/notebooks":                      {nil, say(`{"name":"x"}`), true},
	"PATCH /v1/orgs/{org}/notebooks/{id}":                {func(w *writeWorld) string { return w.notebook }, say(`{"name":"x"}`), true},
	"DELETE /v1/orgs/{org}/notebooks/{id}":               {func(w *writeWorld) string { return w.notebook }, nil, true},
	"PUT /v1/orgs/{org}/notebooks/{id}/grants/{user}":    {func(w *writeWorld) string { return w.notebook }, say(`{"access":"write"}`), true},
	"DELETE /v1/orgs/{org}/notebooks/{id}/grants/{user}": {func(w *writeWorld) string { return w.notebook }, nil, true},
	"PUT /v1/orgs/{org}/notes/{id}/grants/{user}":        {func(w *writeWorld) string { return w.orgNote }, say(`{"access":"write"}`), true},
	"DELETE /v1/orgs/{org}/notes/{id}/grants/{user}":     {func(w *writeWorld) string { return w.orgNote }, nil, true},
	"POST /v1/orgs/{org}/keys":                           {nil, say(`{"name":"x","org_role":"reader"}`), false},
	"PATCH /v1/orgs/{org}/keys/{id}":                     {func(w *writeWorld) string { return w.orgKey }, say(`{"name":"x"}`), false},
	"POST /v1/orgs/{org}/keys/{id}/rotate":               {func(w *writeWorld) string { return w.orgKey }, say(`{"overlap":"0s"}`), false},
	"DELETE /v1/orgs/{org}/keys/{id}":                    {func(w *writeWorld) string { return w.orgKey }, nil, false},
	"POST /v1/keys":                                      {nil, say(`{"name":"x"}`), false},
	"PATCH /v1/keys/{id}":                                {func(w *writeWorld) string { return w.keyID }, say(`{"name":"x"}`), false},
	"POST /v1/keys/{id}/rotate":                          {func(w *writeWorld) string { return w.keyID }, say(`{"overlap":"0s"}`), false},
	"DELETE /v1/keys/{id}":                               {func(w *writeWorld) string { return w.keyID }, nil, false},
	"DELETE /v1/me/sessions":                             {nil, nil, false},
	"DELETE /v1/me/sessions/{id}":                        {func(w *writeWorld) string { return w.session }, nil, false},
	"POST /v1/me/identities":                             {nil, say(`{"provider":"dev"}`), false},
	"DELETE /v1/me/identities/{id}":                      {func(w *writeWorld) string { return w.identity }, nil, false},
	"POST /v1/admin/users/{id}/lock":                     {func(w *writeWorld) string { return w.carol }, nil, true},
	"POST /v1/admin/users/{id}/unlock":                   {func(w *writeWorld) string { return w.carol }, nil, true},
	"POST /auth/device/confirm":                          {nil, func(t *testing.T, w *writeWorld) string { return "decision=approve&user_code=" + w.startDevice(t) }, false},
	"POST /auth/link/confirm":                            {nil, func(t *testing.T, w *writeWorld) string { return "code=" + w.prepareLink(t) }, false},
	"POST /invitation":                                   {nil, func(_ *testing.T, w *writeWorld) string { return "join=&token=" + w.accepts }, false},
	"POST /v1/admin/explain":                             {nil, nil, false}, // only asks
}

func say(body string) func(*testing.T, *writeWorld) string {
	return func(*testing.T, *writeWorld) string { return body }
}

// Every operation that writes decides on its caller again, in its transaction. What callers lost since the request
// came, including a role in an organization, no longer counts. The test locks the rows that the confirmation
// shares, takes something from the caller meanwhile, and lets go.
func TestWhoLosesARoleOrTheCredentialWhileTheirRequestWaitsWritesNothing(t *testing.T) {
	t.Parallel()
	base := string(noted.Policy) + adaIsAdmin
	source := newPolicySource(base)
	env := servertest.New(t, source.use(t), func(o *server.Options) { o.Settings.OrgsPerDay = 0 })
	_, stranger := env.NewKey(t, env.SignIn(t, "alice"), "key-reader")
	losses := map[string]struct {
		lose   func(t *testing.T, w *writeWorld, tx pgx.Tx)
		status []int
		byKey  []bool
	}{
		"nothing": {func(*testing.T, *writeWorld, pgx.Tx) {}, []int{200, 201, 204, 303}, []bool{false, true}},
		"roles, by a reload": {func(*testing.T, *writeWorld, pgx.Tx) {
			source.set(nobodyWrites)
			// The reload is done when a request sees the new policy.
			eventually(t, "the reload", func() bool {
				return env.Do(t, http.MethodGet, "/v1/notes", stranger, nil).Status == http.StatusForbidden
			})
		}, []int{403, 404}, []bool{false, true}},
		"the session": {func(t *testing.T, w *writeWorld, tx pgx.Tx) {
			mustExec(t, tx, `update sessions set ended_at = now(), id_token = null where user_id = $1`, w.user)
		}, []int{401}, []bool{false}},
		"the secret, not the key": {func(t *testing.T, w *writeWorld, tx pgx.Tx) {
			mustExec(t, tx, `update key_secrets set expires_at = created_at + interval '1 microsecond' where key_id = $1`, w.keyID)
			mustExec(t, tx, `insert into key_secrets (id, key_id, hash, minted_by, expires_at) select $1, id, sha256($3), created_by, now() + interval '1 day' from keys where id = $2`, uuid.New(), w.keyID, []byte(w.keyID))
		}, []int{401}, []bool{true}},
		"their role in the organization": {func(t *testing.T, w *writeWorld, tx pgx.Tx) {
			mustExec(t, tx, `update members set role = 'reader' where org_id = $1 and user_id = $2`, w.org, w.user)
		}, []int{403}, []bool{false, true}},
		"the account": {func(t *testing.T, w *writeWorld, tx pgx.Tx) {
			mustExec(t, tx, `update users set locked_at = now() where id = $1`, w.user)
		}, []int{401}, []bool{false, true}},
	}
	for _, route := range routesOf(t, env) {
		method, path := splitRoute(route)
		if method == http.MethodGet || method == http.MethodHead || slices.Contains(publicRoutes, route) {
			continue
		}
		one, known := writes[route]
		if !known {
			t.Errorf("%s writes: a request of it belongs into this test", route)
			continue
		}
		if route == "POST /v1/admin/explain" {
			continue
		}
		t.Run(route, func(t *testing.T) {
			for name, loss := range losses {
				for _, byKey := range loss.byKey {
					if byKey && !one.byKey || name == "their role in the organization" && !strings.Contains(route, "{org}") {
						continue
					}
					what := fmt.Sprintf("%s by key: %t, loses %s", route, byKey, name)
					source.set(base)
					env.Exec(t, `update users set locked_at = null`)
					env.Exec(t, `delete from links`)
					w := newWriteWorld(t, env)
					token, body, kind, thing := w.ada, "", "application/json", ""
					if byKey {
						token = w.key
					}
					if one.body != nil {
						body = one.body(t, w)
					}
					if one.path != nil {
						thing = one.path(w)
					}
					if !strings.HasPrefix(path, "/v1/") {
						kind = "application/x-www-form-urlencoded"
					}
					address := strings.NewReplacer("{id}", thing, "{org}", w.org, "{user}", w.member).Replace(path)
					before, after := "", ""
					a := whileConfirming(t, env, "users", func() servertest.Answer {
						if body == "" {
							return env.Do(t, method, address, token, nil)
						}
						return env.Do(t, method, address, token, body, "Content-Type", kind)
					}, func(tx pgx.Tx) {
						loss.lose(t, w, tx)
						if err := tx.QueryRow(t.Context(), written).Scan(&before); err != nil {
							t.Fatal(err)
						}
					})
					if err := env.Pool.QueryRow(t.Context(), written).Scan(&after); err != nil {
						t.Fatal(err)
					}
					if !slices.Contains(loss.status, a.Status) {
						t.Errorf("%s: %d %.300s", what, a.Status, a.Body)
					}
					// Unlocking an unlocked user writes nothing.
					if changes := name == "nothing" && route != "POST /v1/admin/users/{id}/unlock"; changes != (before != after) {
						t.Errorf("%s: %d, something was written: %t", what, a.Status, before != after)
					}
				}
			}
		})
	}
}

func mustExec(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// whileConfirming sends a request, waits until it waits for the rows of a table that its confirmation locks, runs
// meanwhile, and returns the answer.
func whileConfirming(t *testing.T, env *servertest.Env, table string, send func() servertest.Answer, meanwhile func(pgx.Tx)) servertest.Answer {
	t.Helper()
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	mustExec(t, tx, `select from `+table+` for update`)
	done := make(chan servertest.Answer, 1)
	go func() { done <- send() }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		var waits bool
		err := env.Pool.QueryRow(t.Context(), `
			select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%from '||$1||' where id%')`, table).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		if waits {
			break
		}
		select {
		case a := <-done:
			return a // it confirmed nothing
		default:
		}
		if time.Now().After(end) {
			var queries []string
			_ = env.Pool.QueryRow(t.Context(), `select array_agg(concat(wait_event_type, ' ', state, ' ', query)) from pg_stat_activity where datname = current_database()`).Scan(&queries)
			t.Fatalf("the request does not come to its confirmation: %q", queries)
		}
	}
	meanwhile(tx)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return <-done
}

// A lost name in the policy counts for waiting requests too.
func TestWhoLosesTheNameOfTheirRoleWhileTheirRequestWaitsWritesNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "g, carol@dev.example, moderator", "g, group:dev:mods, moderator", "g, dev:second, moderator"))
	note := env.NewNote(t, env.SignIn(t, "bob"), "bob's")
	for name, one := range map[string]struct {
		who, give, lose string // statements about the identity of $1
	}{
		"the e-mail has aged":        {"carol", ``, `update identities set signed_in_at = now() - interval '8 days' where subject = $1`},
		"the e-mail is another":      {"carol", ``, `update identities set email = 'else@dev.example' where subject = $1`},
		"the e-mail is not verified": {"carol", ``, `update identities set email_verified = false where subject = $1`},
		"the group is lost": {"dave", `update identities set groups = '{mods}' where subject = $1`,
			`update identities set groups = '{}' where subject = $1`},
		"the sign-in is unlinked": {"erin", `
			insert into identities (id, user_id, issuer, subject) select gen_random_uuid(), user_id, issuer, 'second' from identities where subject = $1`,
			`delete from identities where subject = 'second' and $1 <> ''`},
	} {
		for _, by := range []string{"session", "key"} {
			env.Exec(t, `delete from identities where subject = 'second'`)
			token := env.SignIn(t, one.who)
			if one.give != "" {
				env.Exec(t, one.give, one.who)
			}
			if by == "key" {
				_, token = env.NewKey(t, token, "key-admin")
			}
			patch := func() servertest.Answer {
				return env.Do(t, http.MethodPatch, "/v1/notes/"+note, token, `{"title":"late"}`)
			}
			if a := patch(); a.Status != http.StatusOK {
				t.Fatalf("%s, by %s: %s is no moderator: %d %s", name, by, one.who, a.Status, a.Body)
			}
			env.Exec(t, `update notes set title = 'early'`)
			var title string
			a := whileConfirming(t, env, "users", patch, func(tx pgx.Tx) { mustExec(t, tx, one.lose, one.who) })
			if err := env.Pool.QueryRow(t.Context(), `select title from notes`).Scan(&title); err != nil {
				t.Fatal(err)
			}
			if a.Status != http.StatusNotFound || title != "early" {
				t.Errorf("%s, by %s: %d %s, the title is %q", name, by, a.Status, a.Body, title)
			}
		}
	}
}

// The presented secret is confirmed, not another one of the same key.
func TestASecretThatIsRotatedOutWhileItsRequestWaitsWritesNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "o")
	for path, body := range map[string]map[string]any{
		"/v1/keys":                  {"name": "k", "role": "key-writer"},
		"/v1/orgs/" + org + "/keys": {"name": "k", "role": "key-writer", "org_role": "writer"},
	} {
		note := `{"title":"late","body":"b"}`
		if strings.HasPrefix(path, "/v1/orgs") {
			note = `{"title":"late","body":"b","org_id":"` + org + `"}`
		}
		var key, next struct{ ID, Secret string }
		env.Do(t, http.MethodPost, path, alice, body).JSON(t, &key)
		rotate := func(overlap string) {
			t.Helper()
			a := env.Do(t, http.MethodPost, path+"/"+key.ID+"/rotate", alice, `{"overlap":"`+overlap+`"}`)
			if a.Status != http.StatusCreated {
				t.Fatalf("rotating: %d %s", a.Status, a.Body)
			}
			a.JSON(t, &next)
		}
		finish := held(t, env, http.MethodPost, "/v1/notes", key.Secret, note)
		rotate("0s")
		checkStatus(t, "rotated out before the body came", finish(), http.StatusUnauthorized, "")

		finish = held(t, env, http.MethodPost, "/v1/notes", next.Secret, note)
		rotate("1h")
		checkStatus(t, "in its overlap", finish(), http.StatusCreated, "")

		// The rotation is under way while the secret is confirmed.
		a := whileConfirming(t, env, "keys", func() servertest.Answer {
			return env.Do(t, http.MethodPost, "/v1/notes", next.Secret, note)
		}, func(tx pgx.Tx) {
			mustExec(t, tx, `update key_secrets set expires_at = created_at + interval '1 microsecond' where key_id = $1`, key.ID)
			mustExec(t, tx, `insert into key_secrets (id, key_id, hash, minted_by, expires_at) select $1, id, sha256($3), created_by, now() + interval '1 day' from keys where id = $2`, uuid.New(), key.ID, []byte(key.ID))
		})
		checkStatus(t, "rotated out while it is confirmed", a, http.StatusUnauthorized, "")
	}
	var late int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from notes where title = 'late'`).Scan(&late); err != nil || late != 2 {
		t.Errorf("%d notes, want the two of the overlap (%v)", late, err)
	}
}

// A key whose owner stays away stops, and so does everything it had started.
func TestAKeyThatExpiresOrWhoseOwnerStaysAwayWhileItsRequestWaitsWritesNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id, key := env.NewKey(t, alice, "key-writer")
	me(t, env, key) // note its use now (once a minute); that would wait too
	for name, one := range map[string]struct{ table, sql string }{
		"expired": {"keys", `update key_secrets set created_at = now() - interval '2 days', expires_at = now() - interval '1 second' where key_id = $1`},
		"absent":  {"users", `update users set last_sign_in_at = now() - interval '91 days' where id = (select user_id from keys where id = $1)`},
	} {
		a := whileConfirming(t, env, one.table, func() servertest.Answer {
			return env.Do(t, http.MethodPost, "/v1/notes", key, `{"title":"late","body":"b"}`)
		}, func(tx pgx.Tx) { mustExec(t, tx, one.sql, id) })
		checkStatus(t, name, a, http.StatusUnauthorized, "")
		env.Exec(t, `update key_secrets set expires_at = now() + interval '1 day'`)
		env.SignIn(t, "alice")
	}
	// The same for an abandoned session.
	a := whileConfirming(t, env, "users", func() servertest.Answer {
		return env.Do(t, http.MethodPost, "/v1/notes", alice, `{"title":"late","body":"b"}`)
	}, func(tx pgx.Tx) { mustExec(t, tx, `update sessions set last_used_at = now() - interval '25 hours'`) })
	checkStatus(t, "an idle session", a, http.StatusUnauthorized, "")
}

// Two who end each other at once take the locks in the same order.
func TestWhoEndsEachOtherAtOnceIsNoDeadlock(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "g, dev:carol, admin"))
	ada, carol := env.SignIn(t, "ada"), env.SignIn(t, "carol")
	adasID, carolsID := me(t, env, ada).ID, me(t, env, carol).ID
	for range 20 {
		other := env.SignIn(t, "ada")
		answers := make(chan int, 4)
		for _, one := range [][2]string{
			{"DELETE /v1/me/sessions", ada}, {"DELETE /v1/me/sessions", other},
			{"POST /v1/admin/users/" + carolsID + "/lock", ada}, {"POST /v1/admin/users/" + adasID + "/lock", carol},
		} {
			go func() {
				method, path := splitRoute(one[0])
				answers <- env.Do(t, method, path, one[1], nil).Status
			}()
		}
		for range 4 {
			if status := <-answers; status != http.StatusNoContent && status != http.StatusUnauthorized {
				t.Errorf("got %d", status)
			}
		}
		env.Exec(t, `update users set locked_at = null`)
		ada, carol = env.SignIn(t, "ada"), env.SignIn(t, "carol")
	}
}
