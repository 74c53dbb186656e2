package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// A key's whole life on the command line.
func TestKeysOnTheCommandLine(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	if code, _, stderr := l.run(t, "key", "list", "--server", server.url); code != 1 || !strings.Contains(stderr, "noted login --server "+server.url) {
		t.Errorf("before a login: exit %d, %s", code, stderr)
	}
	l.approved(t, server.signedIn(t, "alice"), "--server", server.url)

	secret := strings.TrimSpace(l.want(t, "key", "new", "nightly", "--role", "key-writer", "--expires", "720h"))
	script := plainClient(server.url, secret)
	script.write(t, "by the key")
	var id string
	for _, line := range strings.Split(strings.TrimSpace(l.want(t, "key", "list", "--json")), "\n") {
		var one struct{ ID, Name, Role string }
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if one.Name == "nightly" && one.Role == "key-writer" {
			id = one.ID
		}
	}
	if id == "" {
		t.Fatal("the key is not listed")
	}
	if table := l.want(t, "key", "list"); !strings.Contains(table, id+"  nightly") || !strings.Contains(table, "from 127.0.0.1") || strings.Contains(table, "noted_") {
		t.Errorf("the list is\n%s", table)
	}

	second := strings.TrimSpace(l.want(t, "key", "rotate", id))
	script.get(t, "/v1/me").want(t, http.StatusOK)
	third := strings.TrimSpace(l.want(t, "key", "rotate", id, "--overlap", "0s"))
	script.get(t, "/v1/me").wantUnauthorized(t)
	plainClient(server.url, second).get(t, "/v1/me").wantUnauthorized(t)
	plainClient(server.url, third).get(t, "/v1/me").want(t, http.StatusOK)
	l.want(t, "key", "rename", id, "weekly")
	if table := l.want(t, "key", "list"); !strings.Contains(table, id+"  weekly") {
		t.Errorf("the list is\n%s", table)
	}
	l.want(t, "key", "revoke", id)
	plainClient(server.url, third).get(t, "/v1/me").wantUnauthorized(t)

	l.want(t, "key", "new", "short", "--expires", "24h")
	if _, table, warnings := l.run(t, "key", "list"); strings.Contains(table, "rotate it") || !strings.HasPrefix(warnings, "warning: short (") || !strings.Contains(warnings, "rotate it before") {
		t.Errorf("the list is\n%s, and warns %q", table, warnings)
	}

	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"key", "rotate", id}, "expired or is revoked"},
		{[]string{"key", "revoke", id}, "no such"},
		{[]string{"key", "new", "x", "--role", "key-everything"}, "body.role"},
		{[]string{"key", "new", "x", "--expires=-1h"}, "body.expires_at"},
		{[]string{"key", "new", "x", "--expires", "90000h"}, "body.expires_at"},
		{[]string{"key", "rotate", "../../v1/me"}, "no such"},
	} {
		code, stdout, stderr := l.run(t, c.args...)
		if code != 1 || stdout != "" || !strings.Contains(strings.ToLower(stderr), c.says) {
			t.Errorf("%q: exit %d, printed %q and %s", c.args, code, stdout, stderr)
		}
	}
}
