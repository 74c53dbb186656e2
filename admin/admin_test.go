package admin_test

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/server/servertest"
)

type user struct {
	ID, Name     string
	Email        *string
	Locked       bool
	Roles        []string
	CreatedAt    time.Time  `json:"created_at"`
	LastSignInAt *time.Time `json:"last_sign_in_at"`
}

type users struct {
	Items      []user
	NextCursor *string `json:"next_cursor"`
}

type item struct {
	ID        string
	At        time.Time
	Actor     *struct{ ID, Kind, Name string }
	Action    string
	Object    string
	Target    string
	OrgID     *string `json:"org_id"`
	Outcome   string
	IP        *string
	RequestID string `json:"request_id"`
	Detail    string
}

type record struct {
	Items      []item
	NextCursor *string `json:"next_cursor"`
}

func want(t testing.TB, status int, a servertest.Answer) servertest.Answer {
	t.Helper()
	return a.Want(t, status)
}

func find(t testing.TB, env *servertest.Env, ada, name string) user {
	t.Helper()
	var all users
	want(t, 200, env.Do(t, "GET", "/v1/admin/users", ada, nil)).JSON(t, &all)
	for _, u := range all.Items {
		if u.Name == name {
			return u
		}
	}
	t.Fatalf("%s is not in the list", name)
	return user{}
}

const nobody = "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"

func TestAdminsSeeAccountsTheNewestFirstInPages(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, name := range []string{"alice", "bob", "mona", "carol"} {
		env.SignIn(t, name)
	}
	var all users
	want(t, 200, env.Do(t, "GET", "/v1/admin/users", ada, nil)).JSON(t, &all)
	var names []string
	for _, u := range all.Items {
		names = append(names, u.Name)
		if u.Email == nil || *u.Email != u.Name+"@dev.example" || u.Locked || u.LastSignInAt == nil || u.CreatedAt.Location() != time.UTC || time.Since(*u.LastSignInAt) > time.Minute {
			t.Errorf("got %+v", u)
		}
		roles := map[string][]string{"ada": {"admin", "user"}, "mona": {"moderator", "user"}}[u.Name]
		if roles == nil {
			roles = []string{"user"}
		}
		if !slices.Equal(u.Roles, roles) {
			t.Errorf("%s is %v", u.Name, u.Roles)
		}
	}
	if !slices.Equal(names, []string{"carol", "mona", "bob", "alice", "ada"}) || all.NextCursor != nil {
		t.Errorf("listed %v", names)
	}
	// All have the same time: the id decides.
	env.Exec(t, `update users set created_at = now()`)
	seen := map[string]bool{}
	path := "/v1/admin/users?limit=2"
	pages := 0
	for {
		var one users
		want(t, 200, env.Do(t, "GET", path, ada, nil)).JSON(t, &one)
		for _, u := range one.Items {
			if seen[u.ID] {
				t.Errorf("%s is there twice", u.Name)
			}
			seen[u.ID] = true
		}
		if pages++; one.NextCursor == nil || pages > 5 {
			break
		}
		path = "/v1/admin/users?limit=2&cursor=" + url.QueryEscape(*one.NextCursor)
	}
	if len(seen) != 5 || pages != 3 {
		t.Errorf("%d accounts on %d pages", len(seen), pages)
	}
	one := want(t, 200, env.Do(t, "GET", "/v1/admin/users/"+all.Items[0].ID, ada, nil))
	var got user
	if one.JSON(t, &got); got.Name != "carol" {
		t.Errorf("got %s", one.Body)
	}
	// The list shows nobody's sign-ins or secrets.
	list := env.Do(t, "GET", "/v1/admin/users", ada, nil)
	for _, word := range []string{"subject", "issuer", "hash", "token", "identities"} {
		if strings.Contains(string(list.Body), word) {
			t.Errorf("%s is shown: %s", word, list.Body)
		}
	}
	// One account shows which claims its last sign-in had, and the configured ones' values.
	var detail struct {
		Identities []struct {
			Subject string
			Claims  struct {
				Names  []string
				Values map[string]any
			}
		}
	}
	one.JSON(t, &detail)
	if len(detail.Identities) != 1 || detail.Identities[0].Subject != "carol" {
		t.Fatalf("got %s", one.Body)
	}
	claims := detail.Identities[0].Claims
	if !slices.Contains(claims.Names, "auth_time") || claims.Values["email"] != "carol@dev.example" || claims.Values["auth_time"] != nil {
		t.Errorf("got %v", claims)
	}
}

func TestWhoIsNoAdminIsToldWhichPermissionIsMissing(t *testing.T) {
	env := servertest.New(t)
	bob := env.SignIn(t, "bob")
	ada := env.SignIn(t, "ada")
	id := find(t, env, ada, "bob").ID
	for _, name := range []string{"alice", "mona"} {
		session := env.SignIn(t, name)
		for _, c := range [][3]string{
			{"GET", "/v1/admin/users", "user:any read"},
			{"GET", "/v1/admin/users/" + id, "user:any read"},
			{"GET", "/v1/admin/users/" + nobody, "user:any read"}, // whether it exists or not
			{"POST", "/v1/admin/users/" + id + "/lock", "user:any lock"},
			{"POST", "/v1/admin/users/" + id + "/unlock", "user:any lock"},
			{"GET", "/v1/admin/audit", "audit:any read"},
			{"GET", "/v1/admin/audit?limit=x", "audit:any read"}, // before the query is read
		} {
			a := want(t, 403, env.Do(t, c[0], c[1], session, nil))
			var p struct{ Permission string }
			if a.JSON(t, &p); p.Permission != c[2] {
				t.Errorf("%s, %s %s: %s", name, c[0], c[1], a.Body)
			}
		}
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", bob, nil))
	_, key := env.NewKey(t, ada, "key-writer")
	want(t, 403, env.Do(t, "GET", "/v1/admin/users", key, nil))
	_, wide := env.NewKey(t, ada, "key-admin")
	want(t, 200, env.Do(t, "GET", "/v1/admin/users", wide, nil))
}

func TestLockingIsSeenRecordedOnceAndNeverForOneself(t *testing.T) {
	env := servertest.New(t)
	ada, bob := env.SignIn(t, "ada"), env.SignIn(t, "bob")
	id, own := find(t, env, ada, "bob").ID, find(t, env, ada, "ada").ID
	count := func(action string) (n int) {
		t.Helper()
		if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = $1 and object = 'user' and target = $2 and actor_name = 'ada'`, action, id).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 { // twice is no error, with one record
		want(t, 204, env.Do(t, "POST", "/v1/admin/users/"+id+"/lock", ada, nil))
	}
	if !find(t, env, ada, "bob").Locked || count("user.lock") != 1 {
		t.Errorf("locked: %v, %d rows", find(t, env, ada, "bob").Locked, count("user.lock"))
	}
	want(t, 401, env.Do(t, "GET", "/v1/me", bob, nil))
	for range 2 {
		want(t, 204, env.Do(t, "POST", "/v1/admin/users/"+id+"/unlock", ada, nil))
	}
	if find(t, env, ada, "bob").Locked || count("user.unlock") != 1 {
		t.Errorf("unlocked: %d rows", count("user.unlock"))
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", bob, nil))

	for _, act := range []string{"lock", "unlock"} {
		a := want(t, 409, env.Do(t, "POST", "/v1/admin/users/"+own+"/"+act, ada, nil))
		if a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", act, a.Body)
		}
		_, key := env.NewKey(t, ada, "key-admin")
		want(t, 409, env.Do(t, "POST", "/v1/admin/users/"+own+"/"+act, key, nil))
		for _, unknown := range []string{nobody, "x", strings.ReplaceAll(id, "-", ""), "%7B" + id + "%7D"} {
			want(t, 404, env.Do(t, "POST", "/v1/admin/users/"+unknown+"/"+act, ada, nil))
		}
	}
	for _, unknown := range []string{nobody, "x", "bob"} {
		want(t, 404, env.Do(t, "GET", "/v1/admin/users/"+unknown, ada, nil))
	}
	want(t, 405, env.Do(t, "GET", "/v1/admin/users/"+id+"/lock", ada, nil))
	want(t, 405, env.Do(t, "DELETE", "/v1/admin/users/"+id, ada, nil))
}

func TestLockingManyTimesAtOnceIsOneRow(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	env.SignIn(t, "bob")
	id := find(t, env, ada, "bob").ID
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if a := env.Do(t, "POST", "/v1/admin/users/"+id+"/lock", ada, nil); a.Status != 204 {
				t.Errorf("got %d %s", a.Status, a.Body)
			}
		})
	}
	group.Wait()
	var rows int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'user.lock'`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

func TestTheRecordIsFilteredAndPaged(t *testing.T) {
	env := servertest.New(t)
	ada, alice := env.SignIn(t, "ada"), env.SignIn(t, "alice")
	env.NewKey(t, alice, "key-reader")
	env.NewKey(t, alice, "key-reader")
	aliceID := find(t, env, ada, "alice").ID
	get := func(query string) (r record) {
		t.Helper()
		want(t, 200, env.Do(t, "GET", "/v1/admin/audit"+query, ada, nil)).JSON(t, &r)
		return r
	}
	actions := func(r record) string {
		var list []string
		for _, i := range r.Items {
			name := "nobody"
			if i.Actor != nil {
				name = i.Actor.Name
			}
			list = append(list, name+" "+i.Action)
		}
		return strings.Join(list, ", ")
	}
	if got := actions(get("")); got != "alice key.create, alice key.create, alice session.create, ada session.create" {
		t.Fatalf("all: %s", got)
	}
	first := get("").Items[0]
	if first.Outcome != "success" || first.IP == nil || *first.IP != "127.0.0.1" || first.RequestID == "" || first.Object != "key" || first.OrgID != nil || first.Actor.Kind != "user" || first.Actor.ID != aliceID || first.At.Location() != time.UTC {
		t.Errorf("got %+v", first)
	}
	if got := actions(get("?actor=" + aliceID)); got != "alice key.create, alice key.create, alice session.create" {
		t.Errorf("of alice: %s", got)
	}
	if got := actions(get("?action=session.create")); got != "alice session.create, ada session.create" {
		t.Errorf("sign-ins: %s", got)
	}
	if got := actions(get("?actor=" + aliceID + "&action=session.create")); got != "alice session.create" {
		t.Errorf("alice's sign-ins: %s", got)
	}
	if got := get("?actor=" + nobody); got.Items == nil || len(got.Items) != 0 {
		t.Errorf("of nobody: %+v", got)
	}
	since := url.QueryEscape(first.At.Format(time.RFC3339Nano))
	if got := actions(get("?since=" + since)); got != "alice key.create" {
		t.Errorf("since the last row: %s", got)
	}
	if got := get("?since=" + url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))); len(got.Items) != 0 {
		t.Errorf("since later: %+v", got)
	}
	one := get("?limit=3&actor=" + aliceID)
	if one.NextCursor != nil {
		t.Errorf("exactly a page has a cursor: %v", *one.NextCursor)
	}
	one = get("?limit=3")
	two := get("?limit=3&cursor=" + *one.NextCursor)
	if actions(one)+", "+actions(two) != actions(get("")) || two.NextCursor != nil {
		t.Errorf("pages: %s | %s", actions(one), actions(two))
	}
	// A cursor belongs to its filters.
	for _, query := range []string{"?cursor=" + *one.NextCursor + "&action=key.create", "?cursor=" + *one.NextCursor + "&actor=" + aliceID, "?cursor=" + *one.NextCursor + "&since=2020-01-01T00:00:00Z"} {
		want(t, 422, env.Do(t, "GET", "/v1/admin/audit"+query, ada, nil))
	}
	// Upper-case ids are ids.
	if got := actions(get("?action=session.create&actor=" + strings.ToUpper(aliceID))); got != "alice session.create" {
		t.Errorf("by an upper-case id: %s", got)
	}
}

func TestAWrongQueryIs422AndSaysWhere(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, c := range [][2]string{
		{"/v1/admin/audit?actor=ada", "query.actor"},
		{"/v1/admin/audit?actor=", "query.actor"},
		{"/v1/admin/audit?actor=%7B" + nobody + "%7D", "query.actor"},
		{"/v1/admin/audit?actor=urn:uuid:" + nobody, "query.actor"},
		{"/v1/admin/audit?actor=" + strings.ReplaceAll(nobody, "-", ""), "query.actor"},
		{"/v1/admin/audit?action=KEY", "query.action"},
		{"/v1/admin/audit?action=key", "query.action"},
		{"/v1/admin/audit?action=key.create%00", "query.action"},
		{"/v1/admin/audit?action=key.create%0A", "query.action"},
		{"/v1/admin/audit?action=" + strings.Repeat("a", 60) + ".b", "query.action"},
		{"/v1/admin/audit?since=yesterday", "query.since"},
		{"/v1/admin/audit?since=2026-01-01", "query.since"},
		{"/v1/admin/audit?since=2026-02-30T00:00:00Z", "query.since"},
		{"/v1/admin/audit?limit=0", "query.limit"},
		{"/v1/admin/audit?limit=201", "query.limit"},
		{"/v1/admin/audit?limit=-1", "query.limit"},
		{"/v1/admin/audit?limit=x", "query.limit"},
		{"/v1/admin/audit?limit=1.5", "query.limit"},
		{"/v1/admin/audit?limit=99999999999999999999", "query.limit"},
		{"/v1/admin/audit?limit=1&limit=2", "query.limit"},
		{"/v1/admin/audit?cursor=x", "query.cursor"},
		{"/v1/admin/audit?cursor=" + strings.Repeat("A", 43), "query.cursor"},
		{"/v1/admin/audit?cursor=" + strings.Repeat("A", 200), "query.cursor"},
		{"/v1/admin/audit?unknown=1", "query.unknown"},
		{"/v1/admin/audit?Actor=" + nobody, "query.Actor"},
		{"/v1/admin/users?limit=0", "query.limit"},
		{"/v1/admin/users?name=bob", "query.name"},
		{"/v1/admin/users?cursor=x", "query.cursor"},
	} {
		a := env.Do(t, "GET", c[0], ada, nil)
		var p struct {
			Errors []struct{ Location, Message string }
		}
		if a.Status != 422 {
			t.Errorf("%s: %d %s", c[0], a.Status, a.Body)
			continue
		}
		if a.JSON(t, &p); len(p.Errors) == 0 || p.Errors[0].Location != c[1] || p.Errors[0].Message == "" {
			t.Errorf("%s: %s", c[0], a.Body)
		}
	}
	// The farthest moment of the type is a normal value.
	for _, since := range []string{"0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1600-01-01T00:00:00Z", "2026-01-01T00:00:00%2B23:59"} {
		if a := env.Do(t, "GET", "/v1/admin/audit?since="+since, ada, nil); a.Status != 200 && a.Status != 422 {
			t.Errorf("since %s: %d %s", since, a.Status, a.Body)
		}
	}
	want(t, 400, env.Do(t, "GET", "/v1/admin/audit?limit=%zz", ada, nil))
}
