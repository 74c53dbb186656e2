package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"noted"
	"noted/server"
	"noted/server/servertest"
)

// orgRow is a line of testdata/access-orgs.csv.
type orgRow struct {
	operation, target string
	cells             map[string]string // by caller; for 403 with what is missing
}

func readOrgAccess(t testing.TB) (rows []orgRow, callers []string) {
	t.Helper()
	lines := readMatrix(t, "testdata/access-orgs.csv")
	callers = lines[0][3:]
	seen := map[string]bool{}
	for _, line := range lines[1:] {
		row := orgRow{operation: line[0], target: line[1], cells: map[string]string{}}
		if seen[row.operation+row.target] {
			t.Fatalf("%s on %s has two rows", row.operation, row.target)
		}
		seen[row.operation+row.target] = true
		for i, caller := range callers {
			row.cells[caller] = line[i+3]
			if line[i+3] == "403" {
				row.cells[caller] += " " + line[2]
			}
		}
		rows = append(rows, row)
	}
	return rows, callers
}

// orgWorld is two organizations, this one and another, rebuilt after every change in them.
type orgWorld struct {
	*accessWorld
	sessions  map[string]string // by name
	tokens    map[string]string // by caller of the matrix
	self      map[string]string // their ids
	notebooks []string
	here      orgThings
	other     orgThings
}

// orgThings are an organization's ids.
type orgThings struct{ org, notebook, restricted, full, note, secret, dead, invitation, key, member string }

// orgPeople are the people of the matrix by its columns.
var orgPeople = map[string]string{
	"outsider": "alice", "another's admin": "heidi", "reader": "erin", "writer": "dave", "admin": "carol",
	"read grant": "frank", "write grant": "grace", "moderator": "mona", "platform admin": "ada",
}

func (w *orgWorld) make(t testing.TB) {
	t.Helper()
	for _, table := range []string{"notes", "invitations", "key_secrets", "keys", "members", "notebooks", "orgs", "counts", "sessions"} {
		w.Exec(t, `delete from `+table)
	}
	w.sessions, w.tokens, w.self = map[string]string{}, map[string]string{}, map[string]string{}
	for _, name := range servertest.People {
		_, w.sessions[name] = w.session(t, name)
	}
	w.here = w.organization(t, "carol", map[string]string{"bob": "admin", "dave": "writer", "erin": "reader", "frank": "reader", "grace": "reader", "judy": "reader"}, "judy")
	w.other = w.organization(t, "heidi", map[string]string{"ivan": "reader"}, "ivan")
	for caller, name := range orgPeople {
		w.tokens[caller], w.self[caller] = w.sessions[name], w.users[name].String()
	}
	for _, thing := range []string{"/notebooks/" + w.here.restricted, "/notebooks/" + w.here.full} {
		w.grant(t, w.here, thing, "frank", "read")
		w.grant(t, w.here, thing, "grace", "write")
	}
	w.grant(t, w.here, "/notes/"+w.here.secret, "frank", "read")
	w.grant(t, w.here, "/notes/"+w.here.secret, "grace", "read") // less than on its notebook: the wider counts
	for _, role := range []string{"key-reader", "key-writer", "key-admin"} {
		_, w.tokens["admin's "+role] = w.NewKey(t, w.sessions["carol"], role)
		w.self["admin's "+role] = w.users["carol"].String()
	}
	for caller, key := range map[string][3]string{
		"service reader": {"carol", "reader", "key-admin"}, "service writer": {"carol", "writer", "key-admin"}, "service admin": {"carol", "admin", "key-admin"},
		"service admin's key-reader": {"carol", "admin", "key-reader"}, "another's service": {"heidi", "admin", "key-admin"},
	} {
		org := w.here.org
		if key[0] == "heidi" {
			org = w.other.org
		}
		got := w.must201(t, "/v1/orgs/"+org+"/keys", w.sessions[key[0]], map[string]any{"name": caller, "org_role": key[1], "role": key[2]})
		w.tokens[caller], w.self[caller] = got.Secret, got.ID
	}
}

func (w *orgWorld) must201(t testing.TB, path, token string, body map[string]any) (got struct{ ID, Secret, Token string }) {
	t.Helper()
	a := w.Do(t, http.MethodPost, path, token, body)
	if a.Status != http.StatusCreated {
		t.Fatalf("POST %s %v: %d %s", path, body, a.Status, a.Body)
	}
	a.JSON(t, &got)
	return got
}

func (w *orgWorld) grant(t testing.TB, in orgThings, path, to, access string) {
	t.Helper()
	if a := w.Do(t, http.MethodPut, "/v1/orgs/"+in.org+path+"/grants/"+w.users[to].String(), w.sessions["carol"], map[string]string{"access": access}); a.Status != http.StatusOK {
		t.Fatalf("granting: %d %s", a.Status, a.Body)
	}
}

func (w *orgWorld) organization(t testing.TB, admin string, members map[string]string, member string) (o orgThings) {
	t.Helper()
	as := w.sessions[admin]
	o.org = w.must201(t, "/v1/orgs", as, map[string]any{"name": "of " + admin}).ID
	for name, role := range members {
		w.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, $3)`, o.org, w.users[name], role)
	}
	o.member = w.users[member].String()
	path := "/v1/orgs/" + o.org
	o.notebook = w.must201(t, path+"/notebooks", as, map[string]any{"name": "empty"}).ID
	o.restricted = w.must201(t, path+"/notebooks", as, map[string]any{"name": "empty, restricted", "restricted": true}).ID
	o.full = w.must201(t, path+"/notebooks", as, map[string]any{"name": "restricted", "restricted": true}).ID
	note := map[string]any{"title": "t", "body": "b", "org_id": o.org}
	o.note = w.must201(t, "/v1/notes", as, note).ID
	o.dead = w.must201(t, "/v1/notes", as, note).ID
	w.must(t, http.MethodDelete, "/v1/notes/"+o.dead, as, http.StatusNoContent)
	note["notebook_id"] = o.full
	o.secret = w.must201(t, "/v1/notes", as, note).ID
	o.invitation = w.must201(t, path+"/invitations", as, map[string]any{"email": "someone@dev.example", "role": "reader"}).ID
	o.key = w.must201(t, path+"/keys", as, map[string]any{"name": "k", "org_role": "reader"}).ID
	return o
}

// thing returns the id that a target's word means for an operation's kind of thing.
func (o orgThings) thing(operation, word string) string {
	switch {
	case word == "key" || strings.Contains(operation, "/keys/"):
		return o.key
	case word == "invitation" || strings.Contains(operation, "/invitations/"):
		return o.invitation
	case strings.Contains(operation, "/notes/{id}") && (word == "restricted" || word == "another's"):
		return o.secret
	case word == "note":
		return o.note
	case word == "dead":
		return o.dead
	case word == "notebook":
		return o.notebook
	}
	return o.restricted
}

// request makes a row's path and body for a caller.
func (w *orgWorld) request(t testing.TB, row orgRow, caller string) (method, path string, body any) {
	t.Helper()
	method, path, _ = strings.Cut(row.operation, " ")
	target, named, _ := strings.Cut(row.target, ": ")
	words := strings.Fields(target)
	in, foreign := w.here, w.other
	if strings.Contains(path, "{org}") {
		switch words[0] {
		case "other":
			// Use the other organization's path for callers in neither or in this one. For a member of the other
			// one it is their own path with this one's things.
			path = strings.Replace(path, "{org}", w.other.org, 1)
		case "none":
			path = strings.Replace(path, "{org}", uuid.NewString(), 1)
		default:
			path = strings.Replace(path, "{org}", w.here.org, 1)
		}
		words = words[1:]
	}
	if strings.Contains(path, "{id}") {
		id := in.thing(row.operation, words[0])
		switch words[0] {
		case "another's":
			id = foreign.thing(row.operation, words[0])
		case "none":
			id = uuid.NewString()
		}
		path, words = strings.Replace(path, "{id}", id, 1), words[1:]
	}
	if strings.Contains(path, "{user}") {
		user := map[string]string{"member": in.member, "another's": foreign.member, "self": w.self[caller], "granted": w.users["frank"].String()}[words[0]]
		path, words = strings.Replace(path, "{user}", user, 1), words[1:]
	}
	org := w.here.org
	if strings.HasPrefix(named, "other") {
		org = w.other.org
	}
	notebook := ""
	switch {
	case strings.HasSuffix(named, "another's"):
		notebook = w.other.restricted
	case strings.HasSuffix(named, "restricted"):
		notebook = w.here.restricted
	}
	if row.operation == "DELETE /v1/orgs/{org}/members/{user}" && named != "" {
		path += "?service_keys=" + named
	}
	return method, path + listQuery(row, org, notebook), w.body(row, words, org, notebook, named)
}

func listQuery(row orgRow, org, notebook string) string {
	switch {
	case row.operation != "GET /v1/notes":
		return ""
	case notebook != "":
		return "?org_id=" + org + "&notebook_id=" + notebook
	}
	return "?org_id=" + org
}

func (w *orgWorld) body(row orgRow, words []string, org, notebook, named string) any {
	or := func(role string) string {
		if named != "" {
			return named
		}
		return role
	}
	switch row.operation {
	case "POST /v1/orgs", "PATCH /v1/orgs/{org}", "PATCH /v1/orgs/{org}/notebooks/{id}", "PATCH /v1/orgs/{org}/keys/{id}":
		return map[string]any{"name": "new"}
	case "POST /v1/orgs/{org}/notebooks":
		return map[string]any{"name": "new", "restricted": len(words) > 0}
	case "PATCH /v1/orgs/{org}/members/{user}":
		return map[string]any{"role": or("writer")}
	case "POST /v1/orgs/{org}/invitations":
		return map[string]any{"email": "new@dev.example", "role": or("reader")}
	case "POST /v1/invitations/accept":
		return map[string]any{"token": strings.Repeat("0", 43)}
	case "POST /v1/orgs/{org}/keys":
		return map[string]any{"name": "new", "org_role": or("reader"), "role": "key-reader"}
	case "PUT /v1/orgs/{org}/notebooks/{id}/grants/{user}", "PUT /v1/orgs/{org}/notes/{id}/grants/{user}":
		return map[string]any{"access": "read"}
	case "POST /v1/notes":
		body := map[string]any{"title": "new", "body": "new", "org_id": org}
		if notebook != "" {
			body["notebook_id"] = notebook
		}
		return body
	case "PATCH /v1/notes/{id}":
		switch {
		case named == "out":
			return map[string]any{"notebook_id": nil}
		case notebook != "":
			return map[string]any{"notebook_id": notebook}
		}
		return map[string]any{"title": "new"}
	}
	return nil
}

// decidedByBody reports whether a row's answer depends on the body or the query.
func (r orgRow) decidedByBody() bool {
	return strings.Contains(r.target, ":") || r.target == "here restricted" && r.operation == "POST /v1/orgs/{org}/notebooks" ||
		r.operation == "POST /v1/invitations/accept" || r.operation == "POST /v1/orgs/{org}/notebooks"
}

// TestOrganizationsAnswerEveryoneAsTheAccessMatrixSays is the promise that nothing leaks between organizations,
// cell by cell. A refused request changes nothing, and is refused before its body is read, unless the body
// decides.
func TestOrganizationsAnswerEveryoneAsTheAccessMatrixSays(t *testing.T) {
	t.Parallel()
	rows, callers := readOrgAccess(t)
	w := &orgWorld{accessWorld: newAccessWorld(t)}
	check := &accessCheck{notFound: map[string]*servertest.Answer{}}
	w.make(t)
	cells := 0
	for _, row := range rows {
		t.Run(row.operation+" on "+row.target, func(t *testing.T) {
			for _, caller := range callers {
				cells++
				if w.tokens[caller] == "" {
					t.Fatalf("there is no caller %q", caller)
				}
				method, path, body := w.request(t, row, caller)
				before := w.snapshot(t)
				a := w.Do(t, method, path, w.tokens[caller], body)
				as := accessRow{operation: row.operation, target: row.target, cells: row.cells}
				if row.decidedByBody() && a.Status == http.StatusNotFound { // of several kinds of things
					as.operation += " " + string(a.Body)
				}
				check.answer(t, as, caller, a)
				if a.Status < 400 {
					if method != http.MethodGet {
						w.make(t)
					}
					continue
				}
				if (a.Status == http.StatusForbidden || a.Status == http.StatusNotFound) && !row.decidedByBody() {
					if readsBody(method) {
						check.answer(t, as, caller, w.Do(t, method, path, w.tokens[caller], invalidBody))
					}
					check.answer(t, as, caller, w.Do(t, method, path+"?nonsense=1", w.tokens[caller], body))
				}
				if diff := cmp.Diff(before, w.snapshot(t)); diff != "" {
					t.Errorf("%s, %s: refused, and yet something changed (-before +after):\n%s", as, caller, diff)
				}
			}
		})
	}
	t.Logf("%d rows, %d callers: %d cells", len(rows), len(callers), cells)
}

// To leave is one's own, whatever one may know of the other members.
func TestWhoMayNotReadMembersLeavesAllTheSame(t *testing.T) {
	t.Parallel()
	text := strings.Replace(string(noted.Policy), "p, org-reader, member, read\n", "", 1)
	policy, err := servertest.LoadPolicy([]byte(text))
	env := servertest.New(t, func(o *server.Options) { o.Policy = servertest.Fixed(t, policy, err) })
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, alice, "acme")
	env.Join(t, alice, org, "bob", "reader")
	var me struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", bob, nil).JSON(t, &me)
	checkStatus(t, "lists the members", env.Do(t, http.MethodGet, "/v1/orgs/"+org+"/members", bob, nil), http.StatusForbidden, "member read")
	checkStatus(t, "leaves", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/members/"+me.ID, bob, nil), http.StatusNoContent, "")
}
