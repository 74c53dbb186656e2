package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

var keyCommands = regexp.MustCompile(`(?m)^    (umask .*)\n    (noted key new .*)\n    noted key list\n    (noted key rotate .*)$`)

// The commands of docs/keys.md leave no key that others can read, even over an older file.
func TestTheDocumentedCommandsWriteKeysThatOthersCannotRead(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		missing(t, "bash", "the commands of docs/keys.md need it")
	}
	text, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := keyCommands.FindStringSubmatch(string(text))
	if documented == nil {
		t.Fatal("docs/keys.md has other commands")
	}
	server := startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	l.approved(t, server.signedIn(t, "alice"), "--server", server.url)
	file := filepath.Join(l.home, "backup.key")
	shell := func(line string) int {
		t.Helper()
		script := `umask 022; noted() { "$0" "$@"; }; ` + documented[1] + "\n" + line
		code, _ := run(t, command{wrapper: []string{"bash", "-c", script}, dir: l.home})
		return code
	}
	key := func() string {
		t.Helper()
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("the key's file is %v, %v", info, err)
		}
		secret, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(secret))
	}
	if code := shell(documented[2]); code != 0 {
		t.Fatalf("%s: exit %d", documented[2], code)
	}
	first := key()
	plainClient(server.url, first).get(t, "/v1/me").want(t, http.StatusOK)
	var one struct{ ID string }
	list, _, _ := strings.Cut(l.want(t, "key", "list", "--json"), "\n")
	if err := json.Unmarshal([]byte(list), &one); err != nil {
		t.Fatal(err)
	}
	if code := shell(strings.Replace(documented[3], " ID ", " "+one.ID+" ", 1)); code != 0 || key() == first {
		t.Fatalf("%s: exit %d", documented[3], code)
	}
	plainClient(server.url, key()).get(t, "/v1/me").want(t, http.StatusOK)
	// A failed rotation keeps the current key.
	last := key()
	if code := shell(strings.Replace(documented[3], " ID ", " x ", 1)); code == 0 || key() != last {
		t.Errorf("%s: exit %d, and the file holds another key: %t", documented[3], code, key() != last)
	}
	// A file that others can read gets no key.
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // that it is wide open is the point
		t.Fatal(err)
	}
	if code := shell(documented[2]); code == 0 {
		t.Error("the key went into a file that others can read")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine\n" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}
