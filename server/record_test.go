package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/audit"
	"noted/internal/localpg/pgtest"
	"noted/server"
	"noted/server/servertest"
)

// recordPage is a page of a record's list.
type recordPage struct {
	Items      []audit.Item
	NextCursor *string `json:"next_cursor"`
}

func readRecord(t *testing.T, env *servertest.Env, token, path string) recordPage {
	t.Helper()
	var shown recordPage
	a := env.Do(t, http.MethodGet, path, token, nil)
	if a.Status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, a.Status, a.Body)
	}
	a.JSON(t, &shown)
	return shown
}

// presented is a token, and how the record should describe its use.
type presented struct {
	token string
	via   audit.Via
}

func sessionOf(t *testing.T, env *servertest.Env, token string) presented {
	t.Helper()
	var sessions struct {
		Items []struct {
			audit.Via
			Current bool
		}
	}
	env.Do(t, http.MethodGet, "/v1/me/sessions", token, nil).JSON(t, &sessions)
	for _, one := range sessions.Items {
		if one.Current {
			return presented{token, audit.Via{Kind: "session", ID: one.ID}}
		}
	}
	t.Fatal("no session is the current one")
	return presented{}
}

func newKeyOf(t *testing.T, env *servertest.Env, session, path string, body map[string]any) presented {
	t.Helper()
	var key struct {
		audit.Via
		Secret string
	}
	a := env.Do(t, http.MethodPost, path, session, body)
	if a.Status != http.StatusCreated {
		t.Fatalf("making a key: %d %s", a.Status, a.Body)
	}
	a.JSON(t, &key)
	return presented{key.Secret, audit.Via{Kind: "key", ID: key.ID}}
}

// recordWalk does things and remembers which presented made each request.
type recordWalk struct {
	t    *testing.T
	env  *servertest.Env
	acts map[string]audit.Via // by request id
}

func (w *recordWalk) do(by presented, method, path string, body any) servertest.Answer {
	w.t.Helper()
	a := w.env.Do(w.t, method, path, by.token, body)
	if a.Status/100 != 2 {
		w.t.Fatalf("%s %s by %s: %d %s", method, path, by.via.Kind, a.Status, a.Body)
	}
	w.acts[a.Header.Get("X-Request-Id")] = by.via
	return a
}

func (w *recordWalk) make(by presented, path string, body map[string]any) (id string) {
	w.t.Helper()
	var made struct{ ID string }
	w.do(by, http.MethodPost, path, body).JSON(w.t, &made)
	return made.ID
}

// inOrganization does everything that leaves a row there and a key may do.
func (w *recordWalk) inOrganization(by presented, org, member string) {
	path := "/v1/orgs/" + org
	w.do(by, http.MethodPatch, path, map[string]string{"name": "by " + by.via.ID.String()})
	notebook := path + "/notebooks/" + w.make(by, path+"/notebooks", map[string]any{"name": "n"})
	w.do(by, http.MethodPatch, notebook, map[string]any{"restricted": true})
	w.do(by, http.MethodPut, notebook+"/grants/"+member, map[string]string{"access": "read"})
	w.do(by, http.MethodDelete, notebook+"/grants/"+member, nil)
	w.do(by, http.MethodDelete, notebook, nil)
	w.do(by, http.MethodDelete, path+"/invitations/"+w.make(by, path+"/invitations", map[string]any{"email": "x@dev.example", "role": "reader"}), nil)
	w.make(by, path+"/invitations", map[string]any{"email": "bob@dev.example", "role": "reader"}) // it waits
	w.do(by, http.MethodPatch, path+"/members/"+member, map[string]string{"role": "reader"})
	w.do(by, http.MethodDelete, path+"/members/"+member, nil)
}

// byStaff does what leaves a row by a permission on everybody's things.
func (w *recordWalk) byStaff(by presented, note, user string) {
	w.do(by, http.MethodGet, "/v1/notes/"+note, nil)
	w.do(by, http.MethodGet, "/v1/notes?scope=all", nil)
	w.do(by, http.MethodPatch, "/v1/notes/"+note, map[string]string{"title": "by staff"})
	w.do(by, http.MethodDelete, "/v1/notes/"+note, nil)
	w.do(by, http.MethodGet, "/v1/deadzone", nil)
	w.do(by, http.MethodPost, "/v1/deadzone/"+note+"/restore", nil)
	w.do(by, http.MethodDelete, "/v1/notes/"+note, nil)
	w.do(by, http.MethodDelete, "/v1/deadzone/"+note, nil)
	w.do(by, http.MethodPost, "/v1/admin/users/"+user+"/lock", nil)
	w.do(by, http.MethodPost, "/v1/admin/users/"+user+"/unlock", nil)
}

func TestARowNamesTheCredentialThatActedAndOrganizationsDoNotSeeWhereStaffIs(t *testing.T) {
	env := servertest.New(t)
	w := &recordWalk{t: t, env: env, acts: map[string]audit.Via{}}
	session, staff := sessionOf(t, env, env.SignIn(t, "alice")), sessionOf(t, env, env.SignIn(t, "ada"))
	key := newKeyOf(t, env, session.token, "/v1/keys", map[string]any{"name": "k", "role": "key-admin"})
	staffKey := newKeyOf(t, env, staff.token, "/v1/keys", map[string]any{"name": "k", "role": "key-admin"})
	org := env.NewOrg(t, session.token, "acme")
	path := "/v1/orgs/" + org
	service := newKeyOf(t, env, session.token, path+"/keys", map[string]any{"name": "s", "org_role": "admin", "role": "key-admin"})
	var carol struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", env.SignIn(t, "carol"), nil).JSON(t, &carol)
	env.Exec(t, `delete from sessions where user_id = $1`, carol.ID)

	for _, by := range []presented{session, key, service} {
		env.Join(t, session.token, org, "carol", "writer")
		w.inOrganization(by, org, carol.ID)
	}
	for _, by := range []presented{session, key} {
		own := w.make(by, "/v1/orgs", map[string]any{"name": "own"})
		w.make(session, "/v1/orgs/"+own+"/keys", map[string]any{"name": "ends with it", "org_role": "reader"})
		w.do(by, http.MethodDelete, "/v1/orgs/"+own, nil)
	}
	for _, by := range []presented{staff, staffKey} {
		w.byStaff(by, env.Make(t, session.token, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org}), carol.ID)
		env.NewNote(t, session.token, "personal")
	}
	// What no key may do.
	for _, keys := range []string{"/v1/keys", path + "/keys"} {
		body := map[string]any{"name": "new"}
		if keys != "/v1/keys" {
			body["org_role"] = "reader"
		}
		one := keys + "/" + w.make(session, keys, body)
		w.do(session, http.MethodPost, one+"/rotate", map[string]string{"overlap": "0s"})
		w.do(session, http.MethodDelete, one, nil)
	}
	other := sessionOf(t, env, env.SignIn(t, "alice"))
	w.do(session, http.MethodDelete, "/v1/me/sessions/"+other.via.ID.String(), nil)
	env.SignIn(t, "alice")
	w.do(session, http.MethodDelete, "/v1/me/sessions", nil)
	w.do(sessionOf(t, env, env.SignIn(t, "alice")), http.MethodPost, "/auth/logout", nil)
	var invited struct{ Token string }
	w.do(session, http.MethodPost, path+"/invitations", map[string]string{"email": "dave@dev.example", "role": "reader"}).JSON(t, &invited)
	w.do(sessionOf(t, env, env.SignIn(t, "dave")), http.MethodPost, "/v1/invitations/accept", map[string]string{"token": invited.Token})
	// Nobody with a valid credential does this.
	if a := env.Do(t, http.MethodGet, "/v1/me", other.token, nil); a.Status != http.StatusUnauthorized {
		t.Fatalf("an ended session: %d", a.Status)
	}
	env.Recorded(t)

	rows := readRecord(t, env, staff.token, "/v1/admin/audit?limit=200")
	if rows.NextCursor != nil {
		t.Fatal("the walk leaves more rows than a page has")
	}
	seen := map[string][]audit.Action{}
	for _, item := range rows.Items {
		want, acted := w.acts[item.RequestID]
		switch {
		case item.IP == nil:
			t.Errorf("the platform's record hides from where %s came", item.Action)
		case acted && (item.Via == nil || *item.Via != want):
			t.Errorf("%s %s was done by %v, says the record, not by %v", item.Action, item.Detail, item.Via, want)
		case (item.Action == audit.SessionCreate || item.Action == audit.AuthFail) && item.Via != nil:
			t.Errorf("%s was done by %v", item.Action, item.Via)
		}
		if item.Via != nil {
			seen[item.Via.Kind] = append(seen[item.Via.Kind], item.Action)
		}
	}
	// Linking and devices have their own tests.
	for kind, never := range map[string][]audit.Action{
		"session": {audit.SessionCreate, audit.IdentityLink, audit.IdentityUnlink, audit.AuthFail, audit.PolicyReload},
		"key": {audit.SessionCreate, audit.SessionEnd, audit.IdentityLink, audit.IdentityUnlink, audit.AuthFail, audit.PolicyReload,
			audit.KeyCreate, audit.KeyRotate, audit.MemberJoin},
	} {
		for _, action := range audit.Actions {
			if slices.Contains(never, action) == slices.Contains(seen[kind], action) {
				t.Errorf("by %s: is %s done or not? What leaves a row belongs into this walk", kind, action)
			}
		}
	}

	for _, item := range readRecord(t, env, session.token, path+"/audit?limit=200").Items {
		if byStaff := item.Actor != nil && item.Actor.Name == "ada"; (item.IP == nil) != byStaff {
			t.Errorf("the organization sees the address %v of %v, who did %s", item.IP, item.Actor, item.Action)
		}
		if want, acted := w.acts[item.RequestID]; acted && (item.Via == nil || *item.Via != want) {
			t.Errorf("the organization sees that %s was done by %v, not by %v", item.Action, item.Via, want)
		}
	}

	// By presented, and page by page.
	for _, of := range []struct {
		token, path string
		by          presented
	}{{staff.token, "/v1/admin/audit", session}, {staff.token, "/v1/admin/audit", staffKey}, {session.token, path + "/audit", service}, {session.token, path + "/audit", staff}} {
		var want, got []audit.Item
		for _, item := range readRecord(t, env, of.token, of.path+"?limit=200").Items {
			if item.Via != nil && *item.Via == of.by.via {
				want = append(want, item)
			}
		}
		query := fmt.Sprintf("%s?limit=3&via=%s", of.path, of.by.via.ID)
		for next := query; next != ""; {
			page := readRecord(t, env, of.token, next)
			if got, next = append(got, page.Items...), ""; page.NextCursor != nil {
				next = query + "&cursor=" + *page.NextCursor
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) < 4 {
			t.Errorf("%s: %d rows\n%s", query, len(got), diff)
		}
		cursor := readRecord(t, env, of.token, query).NextCursor
		for _, others := range []string{"", "&via=" + carol.ID} {
			if a := env.Do(t, http.MethodGet, of.path+"?limit=3"+others+"&cursor="+*cursor, of.token, nil); a.Status != http.StatusUnprocessableEntity {
				t.Errorf("the cursor of one presented for %q: %d", others, a.Status)
			}
		}
		for _, bad := range []string{"x", strings.ReplaceAll(of.by.via.ID.String(), "-", ""), "%7B" + of.by.via.ID.String() + "%7D"} {
			checkStatus(t, bad, env.Do(t, http.MethodGet, of.path+"?via="+bad, of.token, nil), http.StatusUnprocessableEntity, "")
		}
	}
}

func TestChangesOfNotebooksAndOrganizationsAreInTheRecordAndOnlyChanges(t *testing.T) {
	env := servertest.New(t)
	w := &recordWalk{t: t, env: env, acts: map[string]audit.Via{}}
	alice := sessionOf(t, env, env.SignIn(t, "alice"))
	org := env.NewOrg(t, alice.token, "acme")
	path := "/v1/orgs/" + org
	change := func(path string, body map[string]any) {
		t.Helper()
		w.do(alice, http.MethodPatch, path, body)
	}
	open := path + "/notebooks/" + w.make(alice, path+"/notebooks", map[string]any{"name": "plans"})
	change(open, map[string]any{})
	change(open, map[string]any{"name": "plans", "restricted": false})
	change(open, map[string]any{"name": "plans \"for\" next year"})
	change(open, map[string]any{"restricted": true, "name": "layoffs"})
	change(open, map[string]any{"restricted": true, "name": "layoffs in May"})
	change(open, map[string]any{"restricted": true})
	change(open, map[string]any{"restricted": false})
	change(open, map[string]any{"name": "done", "restricted": false})
	secret := path + "/notebooks/" + w.make(alice, path+"/notebooks", map[string]any{"name": "secret", "restricted": true})
	env.Make(t, alice.token, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": open[len(open)-36:]})
	if a := env.Do(t, http.MethodDelete, open, alice.token, nil); a.Status != http.StatusConflict {
		t.Errorf("deleting one with a note in it: %d", a.Status)
	}
	w.do(alice, http.MethodDelete, secret, nil)
	change(path, map[string]any{"name": "acme"})
	change(path, map[string]any{"name": "Acme & Söhne"})
	for _, refused := range []map[string]any{{"name": ""}, {"restricted": "yes"}} {
		checkStatus(t, "refused", env.Do(t, http.MethodPatch, open, alice.token, refused), http.StatusUnprocessableEntity, "")
	}
	want := []string{
		"org.create org acme", "notebook.create notebook plans",
		`notebook.change notebook renamed from "plans" to "plans \"for\" next year"`, "notebook.change notebook renamed, restricted",
		"notebook.change notebook renamed", "notebook.change notebook opened", `notebook.change notebook renamed from "layoffs in May" to "done"`,
		"notebook.create notebook restricted", "notebook.delete notebook restricted", `org.change org renamed from "acme" to "Acme & Söhne"`,
	}
	var got []string
	for _, item := range slices.Backward(readRecord(t, env, alice.token, path+"/audit").Items) {
		got = append(got, fmt.Sprintf("%s %s %s", item.Action, item.Object, item.Detail))
		if item.OrgID == nil || item.OrgID.String() != org || item.Actor.Name != "alice" || !strings.HasSuffix(path+" "+open+" "+secret, item.Target) && !strings.Contains(path+" "+open+" "+secret, "/"+item.Target+" ") {
			t.Errorf("the row is %+v", item)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Two concurrent renames used to deadlock, and the database ended one.
func TestRenamingAnOrganizationAtTheSameTimeIsOneAfterTheOther(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	path := "/v1/orgs/" + env.NewOrg(t, alice, "0")
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			checkStatus(t, "renaming", env.Do(t, http.MethodPatch, path, alice, map[string]string{"name": fmt.Sprint(i + 1)}), http.StatusOK, "")
		})
	}
	group.Wait()
	// A row's time is its transaction's start, before the wait; the names show the order.
	next := map[string]string{}
	for _, item := range readRecord(t, env, alice, path+"/audit?action=org.change").Items {
		var from, to string
		if _, err := fmt.Sscanf(item.Detail, "renamed from %q to %q", &from, &to); err != nil || next[from] != "" {
			t.Errorf("%s, and another so: %v", item.Detail, err)
		}
		next[from] = to
	}
	name, renamed := "0", 0
	for ; next[name] != ""; renamed++ {
		name = next[name]
	}
	var org struct{ Name string }
	env.Do(t, http.MethodGet, path, alice, nil).JSON(t, &org)
	if renamed != 20 || org.Name != name {
		t.Errorf("it was renamed %d times, at last to %s; it is called %s", renamed, name, org.Name)
	}
}

func TestTheFilterByActionKnowsEveryActionAndTheDocumentToo(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, action := range audit.Actions {
		readRecord(t, env, ada, "/v1/admin/audit?action="+string(action))
	}
	type schema struct{ Enum []audit.Action }
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema schema
			}
		}
		Components struct {
			Schemas map[string]struct{ Properties map[string]schema }
		}
	}
	env.Do(t, http.MethodGet, "/openapi.json", "", nil).JSON(t, &document)
	for _, path := range []string{"/v1/admin/audit", "/v1/orgs/{org}/audit"} {
		for _, parameter := range document.Paths[path]["get"].Parameters {
			if parameter.Name == "action" && !slices.Equal(parameter.Schema.Enum, audit.Actions) {
				t.Errorf("%s takes the actions %v", path, parameter.Schema.Enum)
			}
		}
	}
	if shown := document.Components.Schemas["Item"].Properties["action"].Enum; !slices.Equal(shown, audit.Actions) {
		t.Errorf("an item's actions are %v", shown)
	}
}

// lockRecord keeps failures out of the record until release.
func lockRecord(t *testing.T, pool *pgxpool.Pool) (release func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `lock table audit_failures in exclusive mode`); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	t.Cleanup(release)
	return release
}

func TestStoppingRecordsWhatFailedUntilThen(t *testing.T) {
	url := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	holder := t // the lock's, which outlives the server's requests
	t.Run("a server that stops while the record is locked", func(t *testing.T) {
		env := servertest.NewOn(t, url)
		session := env.SignIn(t, "alice")
		if a := env.Do(t, http.MethodPost, "/auth/logout", session, nil); a.Status != http.StatusNoContent {
			t.Fatalf("signing out: %d", a.Status)
		}
		release := lockRecord(holder, pool)
		if a := env.Do(t, http.MethodGet, "/v1/me", session, nil); a.Status != http.StatusUnauthorized {
			t.Fatalf("an ended session: %d", a.Status)
		}
		time.AfterFunc(4*time.Second, release) // Close alone would have given up
	})
	var rows int
	if err := pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'auth.fail' and detail = 'ended_session'`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestALateRefusalDoesNotWaitForTheRecord(t *testing.T) {
	const floor = 2 * time.Second
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = floor })
	session, other := env.SignIn(t, "bob"), env.SignIn(t, "bob")
	finish := held(t, env, http.MethodPost, "/v1/notes", session, `{"title":"late","body":"late"}`)
	began := time.Now()
	if a := env.Do(t, http.MethodDelete, "/v1/me/sessions", other, nil); a.Status != http.StatusNoContent {
		t.Fatalf("ending it: %d", a.Status)
	}
	release := lockRecord(t, env.Pool)
	if a := finish(); a.Status != http.StatusUnauthorized {
		t.Errorf("got %d", a.Status)
	}
	if took := time.Since(began); took > floor {
		t.Errorf("it was answered after %v, not in the first step of the floor", took)
	}
	release()
	env.Recorded(t)
	rows := readRecord(t, env, env.SignIn(t, "ada"), "/v1/admin/audit?action=auth.fail").Items
	if len(rows) != 1 || rows[0].Detail != "ended_session" || rows[0].Via != nil {
		t.Errorf("the rows are %+v", rows)
	}
}
