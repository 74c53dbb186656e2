package e2e

import (
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hold sends a request without the end of its body, and returns how to send that and get the answer.
func (c client) hold(t *testing.T, method, path, body string) (finish func() (status int, answer string)) {
	t.Helper()
	reader, writer := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), method, c.base+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(body))
	type outcome struct {
		status int
		text   string
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		response, err := c.http.Do(r)
		if err != nil {
			done <- outcome{err: err}
			return
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		done <- outcome{response.StatusCode, string(text), err}
	}()
	if _, err := io.WriteString(writer, body[:1]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the server has decided, and waits for the rest
	return func() (int, string) {
		_, _ = io.WriteString(writer, body[1:])
		_ = writer.Close()
		o := <-done
		if o.err != nil {
			t.Fatal(o.err)
		}
		return o.status, o.text
	}
}

// Somebody who was a moderator when their request came, but not when its body arrives, changes nothing.
func TestAModeratorWhoIsDemotedWhileTheirRequestWaitsChangesNothing(t *testing.T) {
	dir := publicFolder(t, nil)
	writeFile(t, dir, "policy.csv", shipped(t, "policy.csv")+"g, dev:bob, moderator\n")
	d := &dev{process: start(t, command{args: []string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data"), "--empty"}, dir: dir})}
	d.await(t, startLimit, "it is ready", func() bool { return strings.Contains(d.stdout.String(), "\nready http") })
	d.readAnnouncement(t)
	alice, bob := d.as("alice"), d.as("bob")
	note := alice.write(t, "as it was")
	bob.do(t, http.MethodPatch, "/v1/notes/"+note.ID, map[string]string{"body": "by a moderator"}).want(t, http.StatusOK)
	finish := bob.hold(t, http.MethodPatch, "/v1/notes/"+note.ID, `{"title":"late"}`)
	writeFile(t, dir, "policy.csv", shipped(t, "policy.csv"))
	d.await(t, seenWithin, "bob is none any more", func() bool { return slices.Equal(bob.me(t).Roles, []string{"user"}) })
	if status, text := finish(); status != http.StatusNotFound {
		t.Errorf("%d %s", status, text)
	}
	if a := alice.get(t, "/v1/notes/"+note.ID); !strings.Contains(a.body, `"title":"as it was"`) {
		t.Errorf("got %s", a.body)
	}
	d.stop(t)
}

// A request whose secret is replaced meanwhile writes nothing, though its key is live.
func TestASecretThatIsReplacedWhileItsRequestWaitsWritesNothing(t *testing.T) {
	d := startDev(t, t.TempDir(), nil, "--empty")
	alice := d.signedIn(t, "alice")
	var key, next struct{ ID, Secret string }
	alice.do(t, http.MethodPost, "/v1/keys", map[string]string{"name": "k", "role": "key-writer"}).want(t, http.StatusCreated).into(t, &key)
	finish := plainClient(d.url, key.Secret).hold(t, http.MethodPost, "/v1/notes", `{"title":"late","body":""}`)
	alice.do(t, http.MethodPost, "/v1/keys/"+key.ID+"/rotate", map[string]string{"overlap": "0s"}).want(t, http.StatusCreated).into(t, &next)
	if status, text := finish(); status != http.StatusUnauthorized || text != unauthorized {
		t.Errorf("%d %s", status, text)
	}
	if notes := list[note](t, plainClient(d.url, next.Secret), "/v1/notes"); len(notes) != 0 {
		t.Errorf("there are %v", notes)
	}
	d.stop(t)
}
