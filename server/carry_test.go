package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"noted/server/servertest"
)

// document is the part of the OpenAPI document about answers' contents.
type document struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
	}
	Components struct{ Schemas map[string]json.RawMessage }
}

// carries reports whether a schema, or any that it refers to, is one of the names.
func (d document) carries(schema json.RawMessage, names []string, seen map[string]bool) bool {
	for _, part := range strings.Split(string(schema), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if slices.Contains(names, name) {
			return true
		}
		if !seen[name] {
			seen[name] = true
			if d.carries(d.Components.Schemas[name], names, seen) {
				return true
			}
		}
	}
	return false
}

// carrying returns the operations whose answer may contain a note, by the OpenAPI document.
func carrying(t *testing.T, env *servertest.Env) []string {
	t.Helper()
	var d document
	env.Do(t, http.MethodGet, "/openapi.json", "", nil).JSON(t, &d)
	var list []string
	for path, methods := range d.Paths {
		for method, operation := range methods {
			for status, response := range operation.Responses {
				if status[0] == '2' && d.carries(response.Content["application/json"].Schema, []string{"Note", "DeadNote", "Summary", "DeadSummary"}, map[string]bool{}) {
					list = append(list, strings.ToUpper(method)+" "+path)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// If only an any permission reached somebody else's note, every answer with it leaves a row. A new operation that
// may answer with a note, by the document, needs its requests here.
func TestEveryAnswerWithANoteThatOnlyAnAnyPermissionReachedLeavesARow(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, ada, mona := env.SignIn(t, "alice"), env.SignIn(t, "ada"), env.SignIn(t, "mona")
	_, adasKey := env.NewKey(t, ada, "key-admin")
	org := env.NewOrg(t, alice, "o")
	restricted := env.Make(t, alice, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "r", "restricted": true})
	made := 0
	notes := map[string]func() string{
		"personal": func() string { made++; return env.NewNote(t, alice, fmt.Sprintf("shown %d", made)) },
		"organization's": func() string {
			made++
			return env.Make(t, alice, "/v1/notes", map[string]any{"title": fmt.Sprintf("shown %d", made), "body": "b", "org_id": org})
		},
		"restricted": func() string {
			made++
			return env.Make(t, alice, "/v1/notes", map[string]any{"title": fmt.Sprintf("shown %d", made), "body": "b", "org_id": org, "notebook_id": restricted})
		},
	}
	type request struct {
		query string
		body  any
		dead  bool // of a note in the Dead Zone
	}
	requests := map[string][]request{
		"GET /v1/notes":      {{query: "?scope=all&limit=1"}},
		"GET /v1/notes/{id}": {{}},
		"PATCH /v1/notes/{id}": {
			{body: `{}`}, {body: `{"notebook_id":null}`}, {body: `{"notebook_id":"` + restricted + `"}`},
			{body: `{"title":"shown again"}`}, {body: `{"body":"b"}`}, {body: `{"title":"shown again","notebook_id":null}`},
		},
		"GET /v1/deadzone":               {{query: "?limit=1", dead: true}},
		"GET /v1/deadzone/{id}":          {{dead: true}},
		"POST /v1/deadzone/{id}/restore": {{dead: true}},
		"POST /v1/notes":                 nil, // one's own, which is new
	}
	shown := map[string]int{}
	for _, operation := range carrying(t, env) {
		list, known := requests[operation]
		if !known {
			t.Errorf("%s may answer with a note: what staff could ask of it belongs into this test", operation)
		}
		method, path := splitRoute(operation)
		for whose, note := range notes {
			for by, token := range map[string]string{"moderator": mona, "admin": ada, "admin's key": adasKey} {
				for _, one := range list {
					id := note()
					if one.dead {
						if a := env.Do(t, http.MethodDelete, "/v1/notes/"+id, alice, nil); a.Status != http.StatusNoContent {
							t.Fatalf("deleting: %d %s", a.Status, a.Body)
						}
					}
					a := env.Do(t, method, strings.Replace(path, "{id}", id, 1)+one.query, token, one.body)
					if a.Status/100 != 2 || !bytes.Contains(a.Body, []byte("shown")) {
						continue
					}
					shown[operation]++
					var rows int
					err := env.Pool.QueryRow(t.Context(), `
						select count(*) from audit_events where request_id = $1 and action in ('note.read_any', 'note.write_any', 'note.restore_any')`,
						a.Header.Get("X-Request-Id")).Scan(&rows)
					if err != nil || rows != 1 {
						t.Errorf("%s%s %v of a %s note by a %s: %d rows (%v) for %s", operation, one.query, one.body, whose, by, rows, err, a.Body)
					}
				}
			}
		}
	}
	for operation, list := range requests {
		if list != nil && shown[operation] == 0 {
			t.Errorf("%s was answered with no note; this test proves nothing of it", operation)
		}
	}
}

// What needs no any permission leaves no row.
func TestAnswersThatNeedNoAnyPermissionLeaveNoRow(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	id := env.NewNote(t, ada, "her own")
	for _, body := range []any{`{}`, `{"title":"still hers"}`} {
		if a := env.Do(t, http.MethodPatch, "/v1/notes/"+id, ada, body); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	env.Do(t, http.MethodGet, "/v1/notes/"+id, ada, nil)
	var rows int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action like 'note.%'`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// Somebody who may write a note but not read it gets back what they wrote, and no more of its text.
func TestWhoMayWriteAndNotReadIsShownTheirOwnWordsAlone(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "p, key-penman, note:own, write", "p, key-penman, note:org, write"))
	alice := env.SignIn(t, "alice")
	_, penman := env.NewKey(t, alice, "key-penman")
	org := env.NewOrg(t, alice, "o")
	for whose, id := range map[string]string{
		"own":            env.Make(t, alice, "/v1/notes", map[string]any{"title": "secret title", "body": "secret body"}),
		"organization's": env.Make(t, alice, "/v1/notes", map[string]any{"title": "secret title", "body": "secret body", "org_id": org}),
	} {
		for _, one := range []struct{ body, title, text string }{
			{`{}`, "", ""}, {`{"notebook_id":null}`, "", ""}, {`{"title":"mine"}`, "mine", ""}, {`{"body":"mine too"}`, "", "mine too"},
		} {
			a := env.Do(t, http.MethodPatch, "/v1/notes/"+id, penman, one.body)
			var shown struct{ Title, Body string }
			a.JSON(t, &shown)
			if a.Status != http.StatusOK || shown.Title != one.title || shown.Body != one.text {
				t.Errorf("%s: %s: %d %s", whose, one.body, a.Status, a.Body)
			}
		}
		if a := env.Do(t, http.MethodGet, "/v1/notes/"+id, alice, nil); !bytes.Contains(a.Body, []byte(`"mine too"`)) {
			t.Errorf("%s: it was not written: %s", whose, a.Body)
		}
	}
}
