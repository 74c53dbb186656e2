package server_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"noted/server/servertest"
)

// everyKindOfNote makes, in both organizations, a note of each kind: outside notebooks, in a plain and in a
// restricted one, alive and deleted, with a grant on the note, on the notebook, on both or on none; and
// everybody's personal ones. It returns the notes' ids, and the ids of those on which judy has a grant.
func (w *orgWorld) everyKindOfNote(t testing.TB) (notes, judys []string) {
	t.Helper()
	for _, o := range []struct {
		orgThings
		admin string
	}{{w.here, "carol"}, {w.other, "heidi"}} {
		as := w.sessions[o.admin]
		plain := w.must201(t, "/v1/orgs/"+o.org+"/notebooks", as, map[string]any{"name": "plain"}).ID
		granted := w.must201(t, "/v1/orgs/"+o.org+"/notebooks", as, map[string]any{"name": "restricted, nobody's", "restricted": true}).ID
		if o.admin == "carol" {
			w.grant(t, o.orgThings, "/notebooks/"+granted, "dave", "read")
		}
		w.notebooks = append(w.notebooks, o.notebook, o.restricted, o.full, plain, granted)
		for _, notebook := range []string{"", plain, o.full, granted} {
			for _, dead := range []bool{false, true} {
				for _, access := range []string{"", "read", "write"} {
					body := map[string]any{"title": fmt.Sprint(notebook, dead, access), "body": "b", "org_id": o.org}
					if notebook != "" {
						body["notebook_id"] = notebook
					}
					id := w.must201(t, "/v1/notes", as, body).ID
					if access != "" && o.admin == "carol" {
						w.grant(t, o.orgThings, "/notes/"+id, "judy", access)
						if !dead {
							judys = append(judys, id)
						}
					}
					if dead {
						w.must(t, http.MethodDelete, "/v1/notes/"+id, as, http.StatusNoContent)
					}
					notes = append(notes, id)
				}
			}
		}
		notes = append(notes, o.note, o.secret, o.dead)
	}
	// Authorship gives no access: this is the writer's own note, moved into the restricted notebook.
	for _, dead := range []bool{false, true} {
		id := w.must201(t, "/v1/notes", w.sessions["dave"], map[string]any{"title": "t", "body": "b", "org_id": w.here.org}).ID
		if a := w.Do(t, http.MethodPatch, "/v1/notes/"+id, w.sessions["carol"], map[string]any{"notebook_id": w.here.full}); a.Status != http.StatusOK {
			t.Fatalf("moving a note: %d %s", a.Status, a.Body)
		}
		if dead {
			w.must(t, http.MethodDelete, "/v1/notes/"+id, w.sessions["carol"], http.StatusNoContent)
		}
		notes = append(notes, id)
	}
	for _, name := range servertest.People {
		notes = append(notes, w.NewNote(t, w.sessions[name], name), w.NewDeadNote(t, w.sessions[name], name))
	}
	return notes, judys
}

// listed returns the ids of a whole list; nil if it is refused.
func (w *orgWorld) listed(t testing.TB, path, token string) []string {
	t.Helper()
	a := w.Do(t, http.MethodGet, path, token, nil)
	if a.Status != http.StatusOK {
		return nil
	}
	var page struct {
		Items      []struct{ ID string }
		NextCursor *string `json:"next_cursor"`
	}
	a.JSON(t, &page)
	if page.NextCursor != nil {
		t.Fatalf("%s has a second page; this test reads one", path)
	}
	list := []string{}
	for _, item := range page.Items {
		list = append(list, item.ID)
	}
	slices.Sort(list)
	return list
}

// TestAListIsWhatAskingForEachNoteSinglyWouldGive compares every list with every note requested alone, for every
// kind of caller, under the shipped policy and one that opens the Dead Zone to owners and to organizations.
func TestAListIsWhatAskingForEachNoteSinglyWouldGive(t *testing.T) {
	t.Parallel()
	// Keys limited to part of what keys usually have.
	narrow := []string{
		"p, key-secrets, self, read", "p, key-secrets, org, read", "p, key-secrets, note:restricted, read", "p, key-secrets, notebook, read",
		"p, key-open, self, read", "p, key-open, org, read", "p, key-open, note:org, read", "p, key-open, notebook, read",
		"p, key-vault, self, read", "p, key-vault, org, read", "p, key-vault, notebook:restricted, read",
		"p, key-grave, self, read", "p, key-grave, deadzone:org, read", "p, key-grave, note:restricted, read",
	}
	for name, lines := range map[string][]string{
		"as shipped": narrow,
		"with the Dead Zone open": append([]string{
			"p, user, deadzone:own, read", "p, org-writer, deadzone:org, read", "p, org-admin, deadzone:org, restore", "p, grant-reader, deadzone:org, read",
		}, narrow...),
	} {
		t.Run(name, func(t *testing.T) {
			w := &orgWorld{accessWorld: newAccessWorld(t, withPolicy(t, lines...))}
			w.make(t)
			notes, judys := w.everyKindOfNote(t)
			// Staff who are also in the other organization, and limited keys.
			w.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, 'reader')`, w.other.org, w.users["mona"])
			w.grant(t, w.here, "/notebooks/"+w.here.notebook, "carol", "read")
			w.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, 'reader')`, w.other.org, w.users["judy"])
			for _, id := range judys {
				if a := w.Do(t, http.MethodGet, "/v1/notes/"+id, w.sessions["judy"], nil); a.Status != http.StatusOK {
					differs(t, "a note that judy has a grant on is %d for her", a.Status)
				}
			}
			for _, name := range []string{"carol", "frank", "dave"} {
				for _, role := range []string{"key-secrets", "key-open", "key-vault", "key-grave"} {
					_, w.tokens[name+"'s "+role] = w.NewKey(t, w.sessions[name], role)
					w.self[name+"'s "+role] = w.users[name].String()
				}
			}
			compared, shown := 0, 0
			for _, caller := range append(slices.Sorted(maps.Keys(w.tokens)), "granted on notes") {
				token := w.tokens[caller]
				if caller == "granted on notes" {
					token = w.sessions["judy"]
				}
				singly := map[string][]string{} // by what lists name
				var dead []string
				for _, id := range notes {
					if w.Do(t, http.MethodGet, "/v1/deadzone/"+id, token, nil).Status == http.StatusOK {
						dead = append(dead, id)
					}
					a := w.Do(t, http.MethodGet, "/v1/notes/"+id, token, nil)
					if a.Status != http.StatusOK {
						continue
					}
					var note struct {
						OrgID      *string             `json:"org_id"`
						NotebookID *string             `json:"notebook_id"`
						Owner      struct{ ID string } `json:"owner"`
					}
					a.JSON(t, &note)
					singly["?scope=all"] = append(singly["?scope=all"], id)
					switch {
					case note.OrgID != nil:
						singly["?org_id="+*note.OrgID] = append(singly["?org_id="+*note.OrgID], id)
					case note.Owner.ID == w.self[caller] || caller == "granted on notes" && note.Owner.ID == w.users["judy"].String():
						singly[""] = append(singly[""], id)
					}
					if note.NotebookID != nil {
						singly["?notebook_id="+*note.NotebookID] = append(singly["?notebook_id="+*note.NotebookID], id)
					}
				}
				lists := []string{"?scope=all", "?org_id=" + w.here.org, "?org_id=" + w.other.org}
				if service := w.Do(t, http.MethodGet, "/v1/me", token, nil); service.Status == http.StatusOK && !isService(t, service) {
					lists = append(lists, "")
				}
				for query := range singly {
					if !slices.Contains(lists, query) && query != "" {
						lists = append(lists, query)
					}
				}
				for _, id := range w.notebooks {
					if query := "?notebook_id=" + id; !slices.Contains(lists, query) {
						lists = append(lists, query)
					}
				}
				for _, query := range lists {
					got := w.listed(t, "/v1/notes"+join(query, "limit=200"), token)
					if got == nil { // refused: an organization or notebook that they may not read, or not everybody's
						continue
					}
					slices.Sort(singly[query])
					compared, shown = compared+1, shown+len(got)
					if !slices.Equal(got, singly[query]) && (len(got) > 0 || len(singly[query]) > 0) {
						differs(t, "%s: the list %q has\n%v, asking singly gives\n%v", caller, query, got, singly[query])
					}
				}
				for _, o := range []orgThings{w.here, w.other} {
					var notebooks []string
					for _, id := range w.notebooks {
						if w.Do(t, http.MethodGet, "/v1/orgs/"+o.org+"/notebooks/"+id, token, nil).Status == http.StatusOK {
							notebooks = append(notebooks, id)
						}
					}
					slices.Sort(notebooks)
					if got := w.listed(t, "/v1/orgs/"+o.org+"/notebooks?limit=200", token); (got != nil || notebooks != nil) && !slices.Equal(got, notebooks) {
						differs(t, "%s: the notebooks listed are\n%v, asking singly gives\n%v", caller, got, notebooks)
					}
				}
				if got := w.listed(t, "/v1/deadzone?limit=200", token); got != nil || dead != nil {
					slices.Sort(dead)
					compared, shown = compared+1, shown+len(got)
					if !slices.Equal(got, dead) && (len(got) > 0 || len(dead) > 0) {
						differs(t, "%s: the Dead Zone lists\n%v, asking singly gives\n%v", caller, got, dead)
					}
				}
			}
			t.Logf("%d notes, %d lists compared, which showed %d notes", len(notes), compared, shown)
			if compared < 60 || shown < 400 {
				t.Errorf("%d lists with %d notes prove little", compared, shown)
			}
		})
	}
}

func isService(t testing.TB, a servertest.Answer) bool {
	t.Helper()
	var me struct{ Kind string }
	a.JSON(t, &me)
	return me.Kind == "service"
}

func join(query, more string) string {
	if query == "" {
		return "?" + more
	}
	return query + "&" + more
}

// TestIDsThatDoNotBelongTogetherAreNotFound asks for each thing under the other organization's path, as somebody
// who may do everything in both.
func TestIDsThatDoNotBelongTogetherAreNotFound(t *testing.T) {
	w := &orgWorld{accessWorld: newAccessWorld(t)}
	w.make(t)
	w.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, 'admin')`, w.here.org, w.users["heidi"])
	as, asked := w.sessions["heidi"], 0
	rows, _ := readOrgAccess(t)
	for _, row := range rows {
		if !strings.HasPrefix(row.target, "other ") || !strings.Contains(row.operation, "{org}") {
			continue
		}
		method, path, body := w.request(t, row, "another's admin")
		asked++
		if a := w.Do(t, method, path, as, body); a.Status != http.StatusNotFound {
			differs(t, "%s on %s: got %d %s, want 404", row.operation, row.target, a.Status, a.Body)
		}
	}
	for path, body := range map[string]map[string]any{
		"POST /v1/notes":                    {"title": "t", "body": "b", "org_id": w.other.org, "notebook_id": w.here.notebook},
		"PATCH /v1/notes/" + w.here.note:    {"notebook_id": w.other.notebook},
		"PATCH /v1/notes/" + w.other.secret: {"notebook_id": w.here.restricted},
		"GET /v1/notes?org_id=" + w.other.org + "&notebook_id=" + w.here.full: nil,
	} {
		method, address, _ := strings.Cut(path, " ")
		asked++
		var sent any
		if body != nil {
			sent = body
		}
		if a := w.Do(t, method, address, as, sent); a.Status != http.StatusNotFound {
			differs(t, "%s %v: got %d %s, want 404", path, body, a.Status, a.Body)
		}
	}
	// Nothing has the zero id; it does not mean none.
	const zero = "00000000-0000-0000-0000-000000000000"
	for path, body := range map[string]any{
		"POST /v1/notes":                                     map[string]any{"title": "t", "body": "b", "org_id": zero},
		"POST /v1/notes?":                                    map[string]any{"title": "t", "body": "b", "org_id": w.here.org, "notebook_id": zero},
		"PATCH /v1/notes/" + w.here.secret:                   map[string]any{"notebook_id": zero},
		"GET /v1/notes?org_id=" + zero:                       nil,
		"GET /v1/notes?notebook_id=" + zero:                  nil,
		"GET /v1/orgs/" + zero:                               nil,
		"GET /v1/orgs/" + zero + "/notebooks":                nil,
		"GET /v1/notes/" + zero:                              nil,
		"DELETE /v1/orgs/" + w.here.org + "/members/" + zero: nil,
	} {
		method, address, _ := strings.Cut(path, " ")
		if a := w.Do(t, method, address, as, body); a.Status != http.StatusNotFound {
			differs(t, "%s %v: got %d %s, want 404", path, body, a.Status, a.Body)
		}
	}
	t.Logf("%d requests with ids of two organizations", asked)
}
