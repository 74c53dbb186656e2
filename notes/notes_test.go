package notes_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"noted/internal/name"
	"noted/internal/uid"
	"noted/notes"
	"noted/server/servertest"
)

type note struct {
	ID, Title, Body string
	Version         int
	Owner           struct{ ID, Kind, Name string }
	OrgID           *string   `json:"org_id"`
	NotebookID      *string   `json:"notebook_id"`
	CreatedAt       time.Time `json:"created_at"`
	UpdatedAt       time.Time `json:"updated_at"`
}

type list struct {
	Items      []note
	NextCursor *string `json:"next_cursor"`
}

// want is one request whose answer has a known status.
func want(t *testing.T, status int, a servertest.Answer) servertest.Answer {
	t.Helper()
	return a.Want(t, status)
}

func TestNoteIsCreatedReadChangedAndDeleted(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	a := want(t, 201, env.Do(t, "POST", "/v1/notes", alice, map[string]any{"title": "Tide ☂", "body": ""}))
	var made note
	a.JSON(t, &made)
	if a.Header.Get("Location") != "/v1/notes/"+made.ID || a.Header.Get("ETag") != `"1"` || made.Version != 1 || made.Owner.Name != "alice" || made.Owner.Kind != "user" {
		t.Errorf("created %s with %v", a.Body, a.Header)
	}
	read := want(t, 200, env.Do(t, "GET", "/v1/notes/"+made.ID, alice, nil))
	if string(read.Body) != string(a.Body) || read.Header.Get("ETag") != `"1"` {
		t.Errorf("read %s, created %s", read.Body, a.Body)
	}
	changed := want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"body":"low at noon"}`, "If-Match", `"1"`))
	var now note
	changed.JSON(t, &now)
	if now.Title != "Tide ☂" || now.Body != "low at noon" || now.Version != 2 || !now.UpdatedAt.After(made.UpdatedAt) || !now.CreatedAt.Equal(made.CreatedAt) || changed.Header.Get("ETag") != `"2"` {
		t.Errorf("changed to %s", changed.Body)
	}
	if a := want(t, 412, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"body":"lost"}`, "If-Match", `"1"`)); !strings.Contains(string(a.Body), "changed since") {
		t.Errorf("stale: %s", a.Body)
	}
	want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"notebook_id":null}`, "If-Match", `"7", "2"`))
	want(t, 412, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"title":"weak"}`, "If-Match", `W/"2"`))
	want(t, 422, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"title":"bare"}`, "If-Match", `2`))
	want(t, 412, env.Do(t, "DELETE", "/v1/notes/"+made.ID, alice, nil, "If-Match", `"1"`))
	want(t, 204, env.Do(t, "DELETE", "/v1/notes/"+made.ID, alice, nil, "If-Match", `*`))
	for _, method := range []string{"GET", "DELETE"} {
		want(t, 404, env.Do(t, method, "/v1/notes/"+made.ID, alice, nil))
	}
	want(t, 404, env.Do(t, "PATCH", "/v1/notes/"+made.ID, alice, `{"title":"dead"}`))
	var mine list
	want(t, 200, env.Do(t, "GET", "/v1/notes", alice, nil)).JSON(t, &mine)
	if len(mine.Items) != 0 || mine.NextCursor != nil {
		t.Errorf("a deleted note is listed: %+v", mine)
	}
}

func TestNoteOutsideItsBoundsIsRefused(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := env.NewNote(t, alice, "as it was")
	before := env.Do(t, "GET", "/v1/notes/"+id, alice, nil).Body
	for name, one := range map[string]struct {
		status   int
		location string
		body     any
	}{
		"empty title":            {422, "body.title", map[string]any{"title": "", "body": ""}},
		"201 characters":         {422, "body.title", map[string]any{"title": strings.Repeat("ä", 201), "body": ""}},
		"one byte too many":      {422, "body.body", map[string]any{"title": "t", "body": strings.Repeat("x", 1_048_577)}},
		"half as many, 2 bytes":  {422, "body.body", map[string]any{"title": "t", "body": strings.Repeat("ä", 524_289)}},
		"notebook of nothing":    {422, "body.notebook_id", map[string]any{"title": "t", "body": "", "notebook_id": "0190b9a0-0000-7000-8000-000000000000"}},
		"owner is not writable":  {422, "body.owner", map[string]any{"title": "t", "body": "", "owner": "bob"}},
		"request over 7 MiB":     {413, "", `{"title":"t","body":"` + strings.Repeat("x", 7<<20) + `"}`},
		"unknown organization":   {404, "", map[string]any{"title": "t", "body": "", "org_id": "0190b9a0-0000-7000-8000-000000000000"}},
		"version is not ours":    {422, "body.version", map[string]any{"title": "t", "body": "", "version": 7}},
		"no title":               {422, "body", map[string]any{"body": ""}},
		"notebook that is no id": {422, "body.notebook_id", map[string]any{"title": "t", "body": "", "notebook_id": "nb"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, target := range []struct{ method, path string }{{"POST", "/v1/notes"}, {"PATCH", "/v1/notes/" + id}} {
				if target.method == "PATCH" && (name == "unknown organization" || name == "no title" || name == "notebook of nothing") {
					continue // differs there; tested elsewhere
				}
				a := want(t, one.status, env.Do(t, target.method, target.path, alice, one.body))
				if a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(a.Body), `"`+one.location+`"`) && one.location != "" {
					t.Errorf("%s: want %q in %s", target.method, one.location, a.Body)
				}
			}
		})
	}
	for _, body := range []string{`{"owner":"bob"}`, `{"org_id":null}`, `{"title":null}`, `{"body":null}`} {
		want(t, 422, env.Do(t, "PATCH", "/v1/notes/"+id, alice, body))
	}
	want(t, 404, env.Do(t, "PATCH", "/v1/notes/"+id, alice, `{"notebook_id":"0190b9a0-0000-7000-8000-000000000000"}`))
	if after := env.Do(t, "GET", "/v1/notes/"+id, alice, nil).Body; string(after) != string(before) {
		t.Errorf("a refused change changed it: %s", after)
	}
	want(t, 201, env.Do(t, "POST", "/v1/notes", alice, map[string]any{"title": strings.Repeat("ä", 200), "body": strings.Repeat("x", 1_048_576), "org_id": nil}))
	// JSON takes six bytes for each byte of the body: the largest request fits.
	want(t, 201, env.Do(t, "POST", "/v1/notes", alice, `{"title":"t","body":"`+strings.Repeat(`\u0001`, 1_048_576)+`"}`))
}

// Pages read while notes come and go show every note that stays, once.
func TestListIsPagedNewestChangeFirst(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	var made []string
	for i := range 7 {
		made = append(made, env.NewNote(t, alice, fmt.Sprint("note ", i)))
	}
	// Rows of the same time differ by id.
	env.Exec(t, `update notes set updated_at = (select min(updated_at) from notes)`)
	env.NewNote(t, env.SignIn(t, "bob"), "bob's")
	seen := map[string]int{}
	path, pages := "/v1/notes?limit=3", 0
	for {
		var page list
		a := want(t, 200, env.Do(t, "GET", path, alice, nil))
		a.JSON(t, &page)
		if strings.Contains(string(a.Body), `"body"`) {
			t.Errorf("a list shows bodies: %s", a.Body)
		}
		pages++
		for _, n := range page.Items {
			seen[n.ID]++
		}
		if page.NextCursor == nil {
			break
		}
		path = "/v1/notes?limit=3&cursor=" + *page.NextCursor
	}
	for _, id := range made {
		if seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	if pages != 3 || len(seen) != 7 {
		t.Errorf("%d pages, %d notes", pages, len(seen))
	}
	want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+made[2], alice, `{"title":"touched"}`))
	var first list
	want(t, 200, env.Do(t, "GET", "/v1/notes?limit=1", alice, nil)).JSON(t, &first)
	if first.Items[0].ID != made[2] {
		t.Errorf("the newest change is not first: %+v", first)
	}
	mona := env.SignIn(t, "mona")
	var all list
	want(t, 200, env.Do(t, "GET", "/v1/notes?scope=all&limit=200", mona, nil)).JSON(t, &all)
	if len(all.Items) != 8 {
		t.Errorf("mona sees %d notes", len(all.Items))
	}
	a := want(t, 403, env.Do(t, "GET", "/v1/notes?scope=all", alice, nil))
	if !strings.Contains(string(a.Body), `"permission":"note:any read"`) {
		t.Errorf("got %s", a.Body)
	}
	want(t, 422, env.Do(t, "GET", "/v1/notes?scope=all&cursor="+*first.NextCursor, mona, nil))
}

// auditOf lists "ACTION TARGET DETAIL" of a person's acts on notes, oldest first.
func auditOf(t *testing.T, env *servertest.Env, name string) []string {
	t.Helper()
	rows, err := env.Pool.Query(t.Context(), `
		select action || ' ' || target || coalesce(nullif(' ' || detail, ' '), '') from audit_events
		where actor_name = $1 and action like 'note.%' order by at, id`, name)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	lines := []string{}
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestUseOfAnyPermissionOnSomebodyElsesNoteIsRecordedOnce(t *testing.T) {
	env := servertest.New(t)
	alice, mona, ada := env.SignIn(t, "alice"), env.SignIn(t, "mona"), env.SignIn(t, "ada")
	hers, monas, adas := env.NewNote(t, alice, "alice's"), env.NewNote(t, mona, "mona's"), env.NewDeadNote(t, ada, "ada's")
	want(t, 200, env.Do(t, "GET", "/v1/notes/"+hers, mona, nil))
	want(t, 200, env.Do(t, "GET", "/v1/notes/"+monas, mona, nil))
	want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+hers, mona, `{"title":"moderated"}`))
	want(t, 200, env.Do(t, "GET", "/v1/notes?scope=all", mona, nil))
	want(t, 200, env.Do(t, "GET", "/v1/notes", mona, nil))
	want(t, 403, env.Do(t, "DELETE", "/v1/notes/"+hers, mona, nil))
	if diff := cmp.Diff([]string{
		"note.read_any " + hers, "note.write_any " + hers, "note.read_any personal notes a list showed 1",
	}, auditOf(t, env, "mona")); diff != "" {
		t.Error(diff)
	}
	want(t, 204, env.Do(t, "DELETE", "/v1/notes/"+hers, ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/deadzone", ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/deadzone/"+hers, ada, nil))
	want(t, 200, env.Do(t, "POST", "/v1/deadzone/"+hers+"/restore", ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/deadzone/"+adas, ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/deadzone", ada, nil)) // it holds nothing of others now
	want(t, 204, env.Do(t, "DELETE", "/v1/deadzone/"+adas, ada, nil))
	if diff := cmp.Diff([]string{
		"note.delete_any " + hers, "note.read_any personal notes a list showed 1", "note.read_any " + hers, "note.restore_any " + hers,
		"note.purge " + adas, // purging one's own is recorded too
	}, auditOf(t, env, "ada")); diff != "" {
		t.Error(diff)
	}
	if lines := auditOf(t, env, "alice"); len(lines) != 0 {
		t.Errorf("alice's own notes are nobody's business: %v", lines)
	}
}

func TestDeadZoneShowsRestoresAndPurges(t *testing.T) {
	env := servertest.New(t)
	alice, ada := env.SignIn(t, "alice"), env.SignIn(t, "ada")
	id := env.NewNote(t, alice, "precious")
	before := env.Do(t, "GET", "/v1/notes/"+id, alice, nil)
	want(t, 204, env.Do(t, "DELETE", "/v1/notes/"+id, alice, nil))
	var dead struct {
		note
		DeletedAt time.Time `json:"deleted_at"`
		DeletedBy struct{ Name string }
		PurgeAt   time.Time `json:"purge_at"`
	}
	a := want(t, 200, env.Do(t, "GET", "/v1/deadzone/"+id, ada, nil))
	a.JSON(t, &dead)
	if dead.Body != "body of precious" || !dead.PurgeAt.Equal(dead.DeletedAt.Add(720*time.Hour)) || !strings.Contains(string(a.Body), `"deleted_by":{`) {
		t.Errorf("got %s", a.Body)
	}
	if a := want(t, 200, env.Do(t, "GET", "/v1/deadzone", ada, nil)); strings.Contains(string(a.Body), `"body"`) || !strings.Contains(string(a.Body), id) {
		t.Errorf("got %s", a.Body)
	}
	// Twice at once: one restores, the other finds nothing.
	answers := make(chan int, 2)
	for range 2 {
		go func() { answers <- env.Do(t, "POST", "/v1/deadzone/"+id+"/restore", ada, nil).Status }()
	}
	if x, y := <-answers, <-answers; x+y != 604 {
		t.Errorf("restoring twice gave %d and %d", x, y)
	}
	after := want(t, 200, env.Do(t, "GET", "/v1/notes/"+id, alice, nil))
	if string(after.Body) != string(before.Body) {
		t.Errorf("restored as %s, was %s", after.Body, before.Body)
	}
	want(t, 404, env.Do(t, "GET", "/v1/deadzone/"+id, ada, nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/notes/"+id, alice, nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/deadzone/"+id, ada, nil))
	want(t, 404, env.Do(t, "DELETE", "/v1/deadzone/"+id, ada, nil))
	var left int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from notes where id = $1`, id).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}

// Sixteen writers have read version 1: one wins, and no change is lost unseen.
func TestOneOfManyConditionalChangesWins(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := env.NewNote(t, alice, "contested")
	answers := make(chan int, 16)
	for i := range cap(answers) {
		go func() {
			answers <- env.Do(t, http.MethodPatch, "/v1/notes/"+id, alice, map[string]any{"title": fmt.Sprint(i)}, "If-Match", `"1"`).Status
		}()
	}
	counts := map[int]int{}
	for range cap(answers) {
		counts[<-answers]++
	}
	if counts[200] != 1 || counts[412] != 15 {
		t.Errorf("got %v", counts)
	}
}

// A grant to write a note does not allow taking it out of its restricted notebook, where others may
// read it.
func TestANoteLeavesARestrictedNotebookOnlyByWhoMayChangeSuchNotebooks(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	path := "/v1/orgs/" + org
	writer := env.Join(t, alice, org, "bob", "writer")
	var bob struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", writer, nil).JSON(t, &bob)
	open := env.Make(t, alice, path+"/notebooks", map[string]any{"name": "open"})
	secret := env.Make(t, alice, path+"/notebooks", map[string]any{"name": "secret", "restricted": true})
	other := env.Make(t, alice, path+"/notebooks", map[string]any{"name": "other", "restricted": true})
	made := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": secret})
	for name, thing := range map[string]string{"a grant on the note": "/notes/" + made, "a grant on the notebook": "/notebooks/" + secret} {
		want(t, 200, env.Do(t, http.MethodPut, path+thing+"/grants/"+bob.ID, alice, `{"access":"write"}`))
		want(t, 200, env.Do(t, http.MethodPut, path+"/notebooks/"+other+"/grants/"+bob.ID, alice, `{"access":"write"}`))
		want(t, 200, env.Do(t, http.MethodPatch, "/v1/notes/"+made, writer, `{"title":"by a grant"}`))
		for _, to := range []string{`null`, `"` + open + `"`, `"` + other + `"`} {
			a := want(t, 403, env.Do(t, http.MethodPatch, "/v1/notes/"+made, writer, `{"title":"moved","notebook_id":`+to+`}`))
			if !strings.Contains(string(a.Body), `"notebook:restricted write"`) {
				t.Errorf("%s, to %s: %s", name, to, a.Body)
			}
		}
		want(t, 204, env.Do(t, http.MethodDelete, path+thing+"/grants/"+bob.ID, alice, nil))
	}
	var now note
	want(t, 200, env.Do(t, http.MethodGet, "/v1/notes/"+made, alice, nil)).JSON(t, &now)
	if now.Title != "by a grant" || now.NotebookID == nil || *now.NotebookID != secret {
		t.Errorf("it moved: %+v", now)
	}
	want(t, 200, env.Do(t, http.MethodPatch, "/v1/notes/"+made, alice, `{"notebook_id":null}`))
}

// An If-Match without a version matches none. It is not the same as a missing one.
func TestEmptyIfMatchWritesNothing(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := env.NewNote(t, alice, "n")
	for _, header := range []string{"", " ", ",", " , "} {
		want(t, 412, env.Do(t, http.MethodPatch, "/v1/notes/"+id, alice, `{"title":"lost"}`, "If-Match", header))
		want(t, 412, env.Do(t, http.MethodDelete, "/v1/notes/"+id, alice, nil, "If-Match", header))
	}
	// Several lines are one list (RFC 9110, 5.3).
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, env.URL+"/v1/notes/"+id, strings.NewReader(`{"title":"kept"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + alice}, "Content-Type": {"application/json"}, "If-Match": {`"7"`, `"1"`}}
	want(t, 200, servertest.Send(t, http.DefaultTransport, r))
}

// A caller with this version gets 304 and no note, after the decision.
func TestNoteThatTheCallerHasIsNotSentAgain(t *testing.T) {
	env := servertest.New(t)
	alice, bob, mona := env.SignIn(t, "alice"), env.SignIn(t, "bob"), env.SignIn(t, "mona")
	path := "/v1/notes/" + env.NewNote(t, alice, "n")
	for _, tag := range []string{`"1"`, `W/"1"`, `"7", "1"`, `*`} {
		a := want(t, 304, env.Do(t, http.MethodGet, path, alice, nil, "If-None-Match", tag))
		if len(a.Body) != 0 || a.Header.Get("ETag") != `"1"` {
			t.Errorf("%s: %v %q", tag, a.Header, a.Body)
		}
	}
	for _, tag := range []string{`"2"`, `1`, ``, `""`} {
		want(t, 200, env.Do(t, http.MethodGet, path, alice, nil, "If-None-Match", tag))
	}
	want(t, 404, env.Do(t, http.MethodGet, path, bob, nil, "If-None-Match", `"1"`))
	// Staff learn that it is unchanged: that is a read.
	want(t, 304, env.Do(t, http.MethodGet, path, mona, nil, "If-None-Match", `"1"`))
	var looks int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'note.read_any'`).Scan(&looks); err != nil || looks != 1 {
		t.Errorf("%d looks are recorded (%v)", looks, err)
	}
	want(t, 200, env.Do(t, http.MethodPatch, path, alice, `{"body":"b"}`))
	want(t, 200, env.Do(t, http.MethodGet, path, alice, nil, "If-None-Match", `"1"`))
}

// Each member of a change is written when it comes alone, and is shown wherever the note is.
func TestEachMemberOfAChangeIsWrittenAndShown(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	notebook := env.Make(t, alice, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "n"})
	change := reflect.TypeFor[notes.NoteChange]()
	for i := range change.NumField() {
		member, _, _ := strings.Cut(change.Field(i).Tag.Get("json"), ",")
		value, _ := change.Field(i).Type.FieldByName("Value")
		var to any
		switch value.Type {
		case reflect.TypeFor[bool]():
			to = true
		case reflect.TypeFor[string](), reflect.TypeFor[name.Name]():
			to = "new"
		case reflect.TypeFor[uid.ID]():
			to = notebook
		default:
			t.Errorf("%s: give it a value of type %v here", member, value.Type)
			continue
		}
		id := env.Make(t, alice, "/v1/notes", map[string]any{"title": "old", "body": "old", "org_id": org})
		changed := want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+id, alice, map[string]any{member: to}))
		read := want(t, 200, env.Do(t, "GET", "/v1/notes/"+id, alice, nil))
		listed := want(t, 200, env.Do(t, "GET", "/v1/notes?org_id="+org+"&limit=1", alice, nil))
		var list struct{ Items []json.RawMessage }
		listed.JSON(t, &list)
		for where, text := range map[string][]byte{"its own answer": changed.Body, "GET": read.Body, "the list": list.Items[0]} {
			var shown map[string]any
			if err := json.Unmarshal(text, &shown); err != nil {
				t.Fatal(err)
			}
			if got, there := shown[member]; got != to && (there || where != "the list") {
				t.Errorf("after a change of %s alone to %v, %s shows %v", member, to, where, got)
			}
		}
	}
}
