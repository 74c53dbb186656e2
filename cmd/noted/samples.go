package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"noted/server"
)

// samples are the notes of a first start of `noted dev`: of two people, and some in the Dead Zone.
var samples = []struct {
	owner, title, body string
	deleted            bool
}{
	{"alice", "Welcome to noted", "Notes are **Markdown**. This one is yours: change it, delete it.\n\nWhat is deleted waits in the Dead Zone for 30 days; ada can bring it back.", false},
	{"alice", "Shopping", "- bread\n- olives\n- a lamp", false},
	{"alice", "Old plans", "We will not need these any more.", true},
	{"bob", "Ideas for the workshop", "1. Start with a question\n2. Leave half of the time for practice", false},
	{"bob", "Draft, do not read", "Nobody but bob, the moderator and the admin can see this.", true},
}

// writeSamples writes them as their owners would: over HTTP, each with their own key.
func writeSamples(ctx context.Context, address string, people []person) error {
	for _, sample := range samples {
		for _, p := range people {
			if p.name != sample.owner {
				continue
			}
			var note struct {
				ID string `json:"id"`
			}
			if err := call(ctx, p, http.MethodPost, address+"/v1/notes", map[string]string{"title": sample.title, "body": sample.body}, &note); err != nil {
				return err
			}
			if sample.deleted {
				if err := call(ctx, p, http.MethodDelete, address+"/v1/notes/"+note.ID, nil, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// writeOrganization makes one organization: alice is its admin, bob a writer. An open notebook is for both, a
// restricted one for admins.
func writeOrganization(ctx context.Context, srv *server.Server, address string, people []person) error {
	alice, bob := people[0], people[1]
	made := func(path string, in map[string]any) (id uuid.UUID, err error) {
		var out struct {
			ID uuid.UUID `json:"id"`
		}
		err = call(ctx, alice, http.MethodPost, address+path, in, &out)
		return out.ID, err
	}
	org, err := made("/v1/orgs", map[string]any{"name": "Workshop"})
	if err != nil {
		return err
	}
	if err := srv.Orgs.Join(ctx, org, bob.id, "writer"); err != nil {
		return err
	}
	for _, sample := range []struct {
		notebook    string
		restricted  bool
		title, body string
	}{
		{"Minutes", false, "First meeting", "Everybody in the workshop reads and writes this."},
		{"Salaries", true, "This year", "The admins of the workshop see this, and whom they give a grant."},
	} {
		notebook, err := made("/v1/orgs/"+org.String()+"/notebooks", map[string]any{"name": sample.notebook, "restricted": sample.restricted})
		if err != nil {
			return err
		}
		if _, err := made("/v1/notes", map[string]any{"title": sample.title, "body": sample.body, "org_id": org, "notebook_id": notebook}); err != nil {
			return err
		}
	}
	return nil
}

// call sends one request as p; only a success is no error.
func call(ctx context.Context, p person, method, address string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(p.key))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, request.URL.Path, response.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}
