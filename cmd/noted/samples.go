package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// samples are what a first start of `noted dev` finds: notes of two people, and some in the
// Dead Zone.
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

// call sends one request as p; anything but a success is an error.
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
