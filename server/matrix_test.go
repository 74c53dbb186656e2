package server_test

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/identity"
	"noted/server"
	"noted/server/servertest"
)

var accessStop = flag.Bool("access.stop", false, "stop at the first difference")

// differs reports a difference from a matrix.
func differs(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	if *accessStop {
		t.FailNow()
	}
}

// accessRow is a line of testdata/access.csv: one operation on one target, for every caller.
type accessRow struct {
	operation string // METHOD /path, with {id}
	query     string // what follows the ?, if anything
	target    string
	cells     map[string]string // by caller: a status, and for 403 the missing permission
}

func (r accessRow) String() string {
	if r.query != "" {
		return r.operation + "?" + r.query + " on " + r.target
	}
	return r.operation + " on " + r.target
}

// readMatrix reads a matrix's lines, without its comments.
func readMatrix(t testing.TB, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	reader := csv.NewReader(bytes.NewReader(text))
	reader.Comment, reader.TrimLeadingSpace = '#', true
	lines, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// readAccess reads the matrix; callers have the order of its columns.
func readAccess(t testing.TB) (rows []accessRow, callers []string) {
	t.Helper()
	lines := readMatrix(t, "testdata/access.csv")
	callers = lines[0][2:]
	seen := map[string]bool{}
	for _, line := range lines[1:] {
		row := accessRow{target: line[1], cells: map[string]string{}}
		row.operation, row.query, _ = strings.Cut(line[0], "?")
		if seen[row.String()] {
			t.Fatalf("%s has two rows", row)
		}
		seen[row.String()] = true
		for i, caller := range callers {
			row.cells[caller] = line[i+2]
		}
		rows = append(rows, row)
	}
	return rows, callers
}

// routesOf returns every METHOD /path of the server's router.
func routesOf(t *testing.T, env *servertest.Env) []string {
	t.Helper()
	router, ok := env.Server.Handler().(chi.Routes)
	if !ok {
		t.Fatal("the server's handler is no chi router")
	}
	var routes []string
	err := chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(routes)
	return routes
}

// validBodies are the bodies of operations, so that refusals are about permission.
var validBodies = map[string]string{
	"POST /v1/notes":       `{"title":"new","body":"new"}`,
	"PATCH /v1/notes/{id}": `{"title":"changed"}`,
	"POST /v1/keys":        `{"name":"new","role":"key-reader"}`,
	"PATCH /v1/keys/{id}":  `{"name":"changed"}`,

	"POST /v1/admin/explain": `{"subject":"dev:mona","object":"note:any","act":"read"}`,

	"POST /v1/me/identities":    `{"provider":"dev"}`,
	"POST /auth/device/confirm": "user_code=bcdf-ghjk&decision=approve",
	"POST /auth/link/confirm":   "code=nothing",
	"POST /invitation":          "token=nothing",
}

// accessWorld is the matrix's one server and its people.
type accessWorld struct {
	*servertest.Env
	users, identities map[string]uuid.UUID
}

// invalidSQL is logged for a statement that PostgreSQL could not parse.
const invalidSQL = "a statement is no SQL"

func newAccessWorld(t testing.TB, change ...func(*server.Options)) *accessWorld {
	t.Helper()
	w := &accessWorld{servertest.New(t, change...), map[string]uuid.UUID{}, map[string]uuid.UUID{}}
	t.Cleanup(func() {
		if strings.Contains(w.Log.String(), "SQLSTATE 42") {
			t.Error(invalidSQL)
		}
	})
	for _, name := range servertest.People {
		w.SignIn(t, name)
		var user, id uuid.UUID
		if err := w.Pool.QueryRow(t.Context(), `select user_id, id from identities where subject = $1`, name).Scan(&user, &id); err != nil {
			t.Fatal(err)
		}
		w.users[name], w.identities[name] = user, id
	}
	return w
}

// reset removes what the last cell left, so that each starts from the same state: the people, nobody locked, a
// waiting device, and nothing else.
func (w *accessWorld) reset(t testing.TB) {
	t.Helper()
	w.Exec(t, `delete from key_secrets`)
	w.Exec(t, `delete from keys`)
	w.Exec(t, `delete from device_logins`)
	w.Exec(t, `delete from device_guesses`)
	w.Exec(t, `delete from sessions`)
	w.Exec(t, `delete from notes`)
	w.Exec(t, `delete from counts`)
	// A device that anybody may approve.
	w.Exec(t, `insert into device_logins (device_hash, user_code, expires_at) values (sha256('device'), 'BCDFGHJK', now() + interval '10 minutes')`)
	w.Exec(t, `update users set locked_at = null where locked_at is not null`)
}

// session starts a session like a sign-in, but with one statement: a thousand sign-ins through the provider would
// take minutes.
func (w *accessWorld) session(t testing.TB, name string) (id, token string) {
	t.Helper()
	made := identity.NewToken()
	hash, _ := made.Hash()
	id = uuid.NewString()
	w.Exec(t, `insert into sessions (id, user_id, identity_id, token_hash, expires_at, origin) values ($1, $2, $3, $4, now() + interval '1 hour', 'browser')`,
		id, w.users[name], w.identities[name], hash)
	return id, string(made)
}

// accessCaller is a column of the matrix.
type accessCaller struct {
	user string
	// credential makes a fresh one. spoil, if not nil, makes it invalid. It runs after the cell's things are made,
	// some of which need a valid one.
	credential func(w *accessWorld, t testing.TB) (token string, spoil func())
}

func bySession(name string) accessCaller {
	return accessCaller{name, func(w *accessWorld, t testing.TB) (string, func()) {
		_, token := w.session(t, name)
		return token, nil
	}}
}

func byKey(name, role string) accessCaller {
	return accessCaller{name, func(w *accessWorld, t testing.TB) (string, func()) {
		_, session := w.session(t, name)
		_, key := w.NewKey(t, session, role)
		return key, nil
	}}
}

// spoiledKey and spoiledSession are callers whose credential one statement on its own row makes invalid.
func spoiledKey(sql string) accessCaller {
	return accessCaller{"alice", func(w *accessWorld, t testing.TB) (string, func()) {
		_, session := w.session(t, "alice")
		id, key := w.NewKey(t, session, "key-writer")
		return key, func() { w.Exec(t, sql, id) }
	}}
}

func spoiledSession(sql string) accessCaller {
	return accessCaller{"alice", func(w *accessWorld, t testing.TB) (string, func()) {
		id, token := w.session(t, "alice")
		return token, func() { w.Exec(t, sql, id) }
	}}
}

func locked(c accessCaller) accessCaller {
	valid := c.credential
	c.credential = func(w *accessWorld, t testing.TB) (string, func()) {
		token, _ := valid(w, t)
		return token, func() { w.Exec(t, `update users set locked_at = now() where id = $1`, w.users[c.user]) }
	}
	return c
}

var accessCallers = map[string]accessCaller{
	"nobody":                  {"alice", func(*accessWorld, testing.TB) (string, func()) { return "", nil }},
	"alice":                   bySession("alice"),
	"bob":                     bySession("bob"),
	"mona":                    bySession("mona"),
	"ada":                     bySession("ada"),
	"alice's key-reader":      byKey("alice", "key-reader"),
	"alice's key-writer":      byKey("alice", "key-writer"),
	"alice's key-admin":       byKey("alice", "key-admin"),
	"ada's key-admin":         byKey("ada", "key-admin"),
	"locked carol":            locked(bySession("carol")),
	"locked carol's key":      locked(byKey("carol", "key-writer")),
	"alice's expired key":     spoiledKey(`update key_secrets set created_at = now() - interval '2 hours', expires_at = now() - interval '1 second' where key_id = $1`),
	"alice's revoked key":     spoiledKey(`update keys set revoked_at = now() where id = $1`),
	"alice's ended session":   spoiledSession(`update sessions set ended_at = now() where id = $1`),
	"alice's expired session": spoiledSession(`update sessions set expires_at = now() - interval '1 second' where id = $1`),
}

// target makes the thing of a row, and returns its id.
func (w *accessWorld) target(t testing.TB, path, target, user string) string {
	t.Helper()
	switch target {
	case "-":
		return ""
	case "none":
		return uuid.NewString()
	case "no UUID":
		return "not-a-uuid"
	}
	whose, state, _ := strings.Cut(target, " ")
	owner := user
	switch {
	case whose == "another's" && user == "bob":
		owner = "alice"
	case whose == "another's":
		owner = "bob"
	case whose != "own":
		t.Fatalf("there is no target %q", target)
	}
	if strings.HasPrefix(path, "/v1/admin/users/") && state == "" {
		return w.users[owner].String()
	}
	if strings.HasPrefix(path, "/v1/me/identities/") && state == "" {
		return w.identities[owner].String()
	}
	session, token := w.session(t, owner)
	switch {
	case (strings.HasPrefix(path, "/v1/notes/") || strings.HasPrefix(path, "/v1/deadzone/")) && state == "":
		return w.NewNote(t, token, owner+"'s")
	case (strings.HasPrefix(path, "/v1/notes/") || strings.HasPrefix(path, "/v1/deadzone/")) && state == "dead":
		return w.NewDeadNote(t, token, owner+"'s")
	case strings.HasPrefix(path, "/v1/keys/"):
		id, _ := w.NewKey(t, token, "key-reader")
		if state == "ended" {
			w.must(t, http.MethodDelete, "/v1/keys/"+id, token, http.StatusNoContent)
		}
		return id
	case strings.HasPrefix(path, "/v1/me/sessions/"):
		if state == "ended" {
			w.must(t, http.MethodDelete, "/v1/me/sessions/"+session, token, http.StatusNoContent)
		}
		return session
	}
	t.Fatalf("%s has no target %q", path, target)
	return ""
}

func (w *accessWorld) must(t testing.TB, method, path, token string, status int) {
	t.Helper()
	if a := w.Do(t, method, path, token, nil); a.Status != status {
		t.Fatalf("%s %s: got %d %s, want %d", method, path, a.Status, a.Body, status)
	}
}

// snapshot is everything that a refused request must not change, one line per row of the database. It omits the
// times of a credential's last use and auth.fail rows, which a failure may leave.
func (w *accessWorld) snapshot(t testing.TB) []string {
	t.Helper()
	rows, err := w.Pool.Query(t.Context(), `
		select 'user ' || to_jsonb(u)::text from users u
		union all select 'identity ' || to_jsonb(i)::text from identities i
		union all select 'session ' || (to_jsonb(s) - 'last_used_at')::text from sessions s
		union all select 'key ' || (to_jsonb(k) - 'last_used_at' - 'last_used_ip')::text from keys k
		union all select 'secret ' || to_jsonb(x)::text from key_secrets x
		union all select 'device ' || to_jsonb(d)::text from device_logins d
		union all select 'guess ' || to_jsonb(g)::text from device_guesses g
		union all select 'link ' || to_jsonb(l)::text from links l
		union all select 'note ' || to_jsonb(n)::text from notes n
		union all select 'org ' || to_jsonb(o)::text from orgs o
		union all select 'member ' || to_jsonb(m)::text from members m
		union all select 'invitation ' || to_jsonb(v)::text from invitations v
		union all select 'notebook ' || to_jsonb(b)::text from notebooks b
		union all select 'grant ' || to_jsonb(g)::text from grants g
		union all select 'audit rows but auth.fail: ' || count(*) from audit_events where action <> 'auth.fail'
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// accessCheck checks answers, each alone and all of one kind together.
type accessCheck struct {
	mu           sync.Mutex
	unauthorized *servertest.Answer            // the first 401; all others are the same
	notFound     map[string]*servertest.Answer // the first 404 of each operation
}

// fingerprint is an answer's status, body and headers, without values that may differ.
func fingerprint(a servertest.Answer) string {
	header := a.Header.Clone()
	for _, name := range []string{"Date", "X-Request-Id"} {
		if header.Get(name) != "" {
			header.Set(name, "set")
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d\n", a.Status)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		fmt.Fprintf(&text, "%s: %q\n", name, header[name])
	}
	return text.String() + "\n" + string(a.Body)
}

// unauthorizedBody is the one answer to every failed authentication, by the HTTP contract.
const unauthorizedBody = `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`

// answer compares an answer with a cell.
func (c *accessCheck) answer(t testing.TB, row accessRow, caller string, a servertest.Answer) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	want, permission, _ := strings.Cut(row.cells[caller], " ")
	got := strconv.Itoa(a.Status)
	var body struct{ Permission string }
	if a.Status >= 400 {
		a.JSON(t, &body)
		if media := a.Header.Get("Content-Type"); media != "application/problem+json" {
			t.Errorf("%s, %s: a %d as %q, want a problem", row, caller, a.Status, media)
		}
	}
	if got != want || body.Permission != permission {
		differs(t, "%s, %s: got %s %q, want %s %q; the answer is %s", row, caller, got, body.Permission, want, permission, a.Body)
		return
	}
	switch a.Status {
	case http.StatusUnauthorized:
		if c.unauthorized == nil {
			c.unauthorized = &a
			if string(a.Body) != unauthorizedBody || a.Header.Get("WWW-Authenticate") != "Bearer" || a.Header.Get("Cache-Control") != "no-store" || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s, %s: the 401 is not the contract's: %s", row, caller, fingerprint(a))
			}
		}
		if diff := cmp.Diff(fingerprint(*c.unauthorized), fingerprint(a)); diff != "" {
			t.Errorf("%s, %s: this 401 tells itself from another (-first +this):\n%s", row, caller, diff)
		}
	case http.StatusNotFound:
		// Other people's things look like missing ones.
		if c.notFound[row.operation] == nil {
			c.notFound[row.operation] = &a
		}
		if diff := cmp.Diff(fingerprint(*c.notFound[row.operation]), fingerprint(a)); diff != "" {
			t.Errorf("%s, %s: this 404 tells itself from another (-first +this):\n%s", row, caller, diff)
		}
	}
}

// call is one cell's request: where to send what, as whom.
type call struct {
	method, path, token string
	body                string // empty for none
}

// prepare makes a cell's credential and things.
func (w *accessWorld) prepare(t testing.TB, row accessRow, caller string) (c call, spoil func()) {
	t.Helper()
	who, ok := accessCallers[caller]
	if !ok {
		t.Fatalf("there is no caller %q", caller)
	}
	c.method, c.path, _ = strings.Cut(row.operation, " ")
	c.token, spoil = who.credential(w, t)
	c.path = strings.Replace(c.path, "{id}", w.target(t, c.path, row.target, who.user), 1)
	if row.query != "" {
		c.path += "?" + row.query
	}
	c.body = validBodies[row.operation]
	return c, spoil
}

func (w *accessWorld) send(t testing.TB, c call, headers ...string) servertest.Answer {
	t.Helper()
	if c.body == "" {
		return w.Do(t, c.method, c.path, c.token, nil, headers...)
	}
	if !strings.HasPrefix(c.path, "/v1/") && !slices.Contains(headers, "Content-Type") {
		headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
	}
	return w.Do(t, c.method, c.path, c.token, c.body, headers...)
}

// invalidBody is not JSON. A refused caller must not learn that, nor may the server read it first.
const invalidBody = `{"title":`

// readsBody reports whether the method has a body.
func readsBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPatch || method == http.MethodPut
}

// TestEveryOperationAnswersEveryCallerAsTheAccessMatrixSays is the product's promise, cell by cell. A refused
// request changes nothing, and is refused before its body is read.
func TestEveryOperationAnswersEveryCallerAsTheAccessMatrixSays(t *testing.T) {
	t.Parallel()
	rows, callers := readAccess(t)
	w := newAccessWorld(t)

	// Every operation has a row, every row an operation, and no caller is missing.
	operations := slices.DeleteFunc(routesOf(t, w.Env), func(route string) bool { return slices.Contains(publicRoutes, route) })
	var named []string
	for _, row := range rows {
		named = append(named, row.operation)
	}
	inOrgs, _ := readOrgAccess(t)
	for _, row := range inOrgs {
		named = append(named, row.operation)
	}
	slices.Sort(named)
	if diff := cmp.Diff(slices.Compact(named), operations); diff != "" {
		t.Fatalf("the matrix and the server's operations differ (-matrix +server):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(accessCallers)), slices.Sorted(slices.Values(callers))); diff != "" {
		t.Fatalf("the matrix has other callers (-here +matrix):\n%s", diff)
	}

	check := &accessCheck{notFound: map[string]*servertest.Answer{}}
	cells, again := 0, 0
	for _, row := range rows {
		t.Run(row.String(), func(t *testing.T) {
			var strangers []string // their credentials fail; they wait for the floor, so all at once
			for _, caller := range callers {
				cells++
				if row.cells[caller] == "401" {
					strangers = append(strangers, caller)
					continue
				}
				w.reset(t)
				c, _ := w.prepare(t, row, caller)
				before := w.snapshot(t)
				a := w.send(t, c)
				check.answer(t, row, caller, a)
				if a.Status < 400 {
					continue
				}
				// Without a target in the path, the answer depends on the body.
				if a.Status == http.StatusForbidden || a.Status == http.StatusNotFound && row.target != "-" {
					again += w.refusedWhateverIsSent(t, row, caller, c, check)
				}
				if diff := cmp.Diff(before, w.snapshot(t)); diff != "" {
					differs(t, "%s, %s: refused, and yet something changed (-before +after):\n%s", row, caller, diff)
				}
			}
			again += w.strangersAreRefused(t, row, strangers, check)
		})
	}
	t.Logf("%d operations, %d rows, %d callers: %d cells, and %d refused requests repeated with an invalid body or query",
		len(operations), len(rows), len(callers), cells, again)
}

// refusedWhateverIsSent repeats a refused request with a body that is not JSON, with another media type, and with
// a query that no operation takes.
func (w *accessWorld) refusedWhateverIsSent(t testing.TB, row accessRow, caller string, c call, check *accessCheck) (sent int) {
	t.Helper()
	if readsBody(c.method) {
		invalid := c
		invalid.body = invalidBody
		check.answer(t, row, caller, w.send(t, invalid))
		check.answer(t, row, caller, w.send(t, invalid, "Content-Type", "text/plain"))
		sent += 2
	}
	if row.query == "" { // a query's selection is decided when it is read
		unknown := c
		unknown.path += "?nonsense=1&nonsense=2"
		check.answer(t, row, caller, w.send(t, unknown))
		sent++
	}
	return sent
}

// strangersAreRefused sends a row's requests of all callers whose credential fails.
func (w *accessWorld) strangersAreRefused(t testing.TB, row accessRow, callers []string, check *accessCheck) (again int) {
	t.Helper()
	w.reset(t)
	type refused struct {
		caller string
		call
	}
	var all []refused
	var spoils []func()
	for _, caller := range callers {
		c, spoil := w.prepare(t, row, caller)
		if spoil != nil {
			spoils = append(spoils, spoil)
		}
		all = append(all, refused{caller, c})
		if readsBody(c.method) {
			c.body = invalidBody
			all = append(all, refused{caller, c})
			again++
		}
	}
	for _, spoil := range spoils {
		spoil()
	}
	before := w.snapshot(t)
	var wait sync.WaitGroup
	for _, r := range all {
		wait.Go(func() {
			start := time.Now()
			a := w.send(t, r.call)
			took := time.Since(start)
			check.answer(t, row, r.caller, a)
			if r.caller != "nobody" && took < servertest.Floor {
				t.Errorf("%s, %s: refused after %v, sooner than the floor of %v", row, r.caller, took, servertest.Floor)
			}
		})
	}
	wait.Wait()
	if diff := cmp.Diff(before, w.snapshot(t)); diff != "" {
		t.Errorf("%s, strangers: refused, and yet something changed (-before +after):\n%s", row, diff)
	}
	return again
}
