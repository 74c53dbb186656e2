package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"noted/internal/localpg/pgtest"
)

// seenWithin is what docs/policy.md promises, with room for a busy machine.
const seenWithin = 15 * time.Second

// The walk of docs/policy.md: a colleague becomes a moderator on a running server.
func TestAColleagueIsMadeAModeratorWithoutARestart(t *testing.T) {
	s := newSite(t, pgtest.URL(t), "")
	p := s.serve(t, nil)
	ada, alice := s.browser(t), s.browser(t)
	ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	alice.signIn(t, "/auth/login?login_hint=alice", sessionCookie)
	live := filepath.Join(s.dir, "with-ada.csv")
	before, err := os.ReadFile(live) //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	note := ada.write(t, "ada's note")
	alice.get(t, "/v1/notes/"+note.ID).want(t, http.StatusNotFound)

	// A typo is caught with its place, before it is in force and after.
	typo := writeFile(t, s.dir, "next.csv", string(before)+"g, corp:alice, modertor\n")
	code, check := run(t, command{args: []string{"policy", "check", "--policy", typo}})
	if text := check.stderr.String(); code != 1 || !strings.Contains(text, "next.csv:143:16: ") || !strings.Contains(text, `no line defines the role "modertor"; write moderator`) {
		t.Errorf("exit code %d, %s", code, text)
	}
	if err := os.Rename(typo, live); err != nil {
		t.Fatal(err)
	}
	refused := func() *string {
		var p struct{ Error *string }
		ada.get(t, "/v1/admin/policy").want(t, http.StatusOK).into(t, &p)
		return p.Error
	}
	p.await(t, seenWithin, "the refusal", func() bool { return refused() != nil })
	if text := *refused(); !strings.Contains(text, "write moderator") {
		t.Errorf("the error is %s", text)
	}
	if got := alice.me(t).Roles; !slices.Equal(got, []string{"user"}) {
		t.Errorf("alice is %v", got)
	}

	// The right line: what it means, and then it counts. Written in place this time.
	next := writeFile(t, s.dir, "next.csv", string(before)+"g, corp:alice, moderator\n")
	old := writeFile(t, s.dir, "old.csv", string(before))
	code, diff := run(t, command{args: []string{"policy", "diff", old, next}})
	want := "person corp:alice\n  + role moderator\n  + note:any read      ! reaches other people's notes\n  + note:any write      ! reaches other people's notes\n"
	if diff.stdout.String() != want || code != 0 {
		t.Errorf("exit code %d, %s", code, diff.stdout.String())
	}
	writeFile(t, s.dir, "with-ada.csv", string(before)+"g, corp:alice, moderator\n")
	p.await(t, seenWithin, "alice is a moderator", func() bool { return slices.Equal(alice.me(t).Roles, []string{"moderator", "user"}) })
	if refused() != nil {
		t.Error("the error is still shown")
	}
	alice.get(t, "/v1/notes/"+note.ID).want(t, http.StatusOK)

	// What she still may not do, asked in the words of the refusal.
	var forbidden struct{ Permission string }
	alice.do(t, http.MethodDelete, "/v1/notes/"+note.ID, nil).want(t, http.StatusForbidden).into(t, &forbidden)
	code, explained := run(t, command{args: []string{"policy", "explain", "--policy", live, "corp:alice", forbidden.Permission}})
	if text := explained.stdout.String(); code != 1 || text != "denied: corp:alice may not note:any delete; roles that hold it: admin\n" {
		t.Errorf("exit code %d, %s", code, text)
	}

	// A signal loads it too, and says so.
	p.signal(syscall.SIGHUP)
	p.await(t, seenWithin, "the signal", func() bool { return strings.Contains(p.stderr.String(), "loaded again and is the same") })
	// A file that is gone is no reason to take the shipped one.
	if err := os.Remove(live); err != nil {
		t.Fatal(err)
	}
	p.await(t, seenWithin, "the file is missed", func() bool { return refused() != nil })
	if got := alice.me(t).Roles; !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("alice is %v", got)
	}
	// Without an admin it does not count either.
	writeFile(t, s.dir, "with-ada.csv", shipped(t, "policy.csv"))
	p.await(t, seenWithin, "an admin is missed", func() bool {
		text := refused()
		return text != nil && strings.Contains(*text, "no g line makes anybody an admin")
	})
	// Nor with one who cannot sign in here.
	writeFile(t, s.dir, "with-ada.csv", shipped(t, "policy.csv")+"g, ada@dev.example, admin\n")
	p.await(t, seenWithin, "an admin who can sign in is missed", func() bool {
		text := refused()
		return text != nil && strings.Contains(*text, "no provider is authoritative for dev.example")
	})
	writeFile(t, s.dir, "with-ada.csv", string(before))
	p.await(t, seenWithin, "alice is none any more", func() bool { return slices.Equal(alice.me(t).Roles, []string{"user"}) })
	ada.get(t, "/v1/admin/audit?action=policy.reload").want(t, http.StatusOK)
	p.stop(t)
}

// noted dev takes up a policy.csv that appears where it was started, and its people keep their roles.
func TestDevTakesUpAPolicyThatIsWrittenBesideIt(t *testing.T) {
	dir := publicFolder(t, nil)
	d := &dev{process: start(t, command{args: []string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data"), "--empty"}, dir: dir})}
	d.await(t, startLimit, "it is ready", func() bool { return strings.Contains(d.stdout.String(), "\nready http") })
	d.readAnnouncement(t)
	bob, mona := plainClient(d.url, d.keys["bob"]), plainClient(d.url, d.keys["mona"])
	writeFile(t, dir, "policy.csv", shipped(t, "policy.csv")+"p, auditor, audit:any, read\ng, bob@dev.example, auditor\n")
	d.await(t, seenWithin, "bob is an auditor", func() bool { return slices.Equal(bob.me(t).Roles, []string{"auditor", "user"}) })
	if got := mona.me(t).Roles; !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("mona is %v", got)
	}
	d.stop(t)
}

// The head of policy.csv names commands. They do as they stand there, at the root of the repository and
// for who copied the one file.
func TestTheCommandsThatThePolicyNamesWork(t *testing.T) {
	_, list, found := strings.Cut(shipped(t, "policy.csv"), "in its folder: ")
	list, _, _ = strings.Cut(list, "\n")
	if !found || strings.Count(list, " && ") != 2 {
		t.Fatalf("the head of policy.csv names %q", list)
	}
	copied := publicFolder(t, nil)
	writeFile(t, copied, "policy.csv", shipped(t, "policy.csv")+"g, google:1, admin\n")
	for dir, want := range map[string]string{"..": "Nobody gains or loses anything.", copied: "person google:1"} {
		said := ""
		for line := range strings.SplitSeq(list, " && ") {
			args := strings.Fields(line)
			code, p := run(t, command{args: args[1:], dir: dir})
			if args[0] != "noted" || code != 0 {
				t.Errorf("%s in %s: exit code %d, %s", line, dir, code, p.stderr.String())
			}
			said = p.stdout.String()
		}
		if !strings.HasPrefix(said, want) {
			t.Errorf("the last one says %s", said)
		}
	}
}

func TestPolicyOnTheCommandLine(t *testing.T) {
	dir := publicFolder(t, nil)
	writeFile(t, dir, "policy.csv", shipped(t, "policy.csv")+"g, mona@example.com, moderator\ng, google:1, admin\n")
	noted := func(want int, args ...string) (out, err string) {
		t.Helper()
		code, p := run(t, command{args: append([]string{"policy"}, args...), dir: dir})
		if code != want {
			t.Errorf("%v: exit code %d, want %d; %s%s", args, code, want, p.stdout.String(), p.stderr.String())
		}
		return p.stdout.String(), p.stderr.String()
	}
	decode := func(text string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Errorf("%v in %s", err, text)
		}
	}

	out, _ := noted(0, "check")
	if !strings.HasPrefix(out, "policy.csv is sound: 11 roles, 0 warnings, hash ") {
		t.Errorf("check says %s", out)
	}
	var checked struct {
		OK               bool
		Hash             string
		Faults, Warnings []struct {
			File, Rule, Message string
			Line, Column        int
		}
	}
	out, _ = noted(0, "check", "--json")
	if decode(out, &checked); !checked.OK || len(checked.Hash) != 64 || checked.Faults == nil || checked.Warnings == nil {
		t.Errorf("got %s", out)
	}
	writeFile(t, dir, "bad.csv", "p, user, note:own, reed\n\np, user, notes, read\n")
	out, _ = noted(1, "check", "--json", "--policy", "bad.csv")
	if decode(out, &checked); checked.OK || len(checked.Faults) != 2 || checked.Faults[0].Rule != "unknown-act" || checked.Faults[1].Line != 3 || checked.Faults[1].Column != 10 || checked.Faults[1].File != "bad.csv" {
		t.Errorf("got %s", out)
	}
	_, complaint := noted(1, "check", "--policy", "bad.csv")
	if want := "bad.csv:1:20: unknown act \"reed\" for note:own; write read\n"; !strings.HasPrefix(complaint, want) || !strings.HasSuffix(complaint, "2 faults\n") {
		t.Errorf("got %s", complaint)
	}
	// A configuration tells which names nobody has.
	writeFile(t, dir, "noted.yaml", "providers:\n  - {id: corp, issuer: \"https://login.example\", client_id: noted, client_secret: x, allow_everyone: true}\n")
	_, complaint = noted(0, "check", "--config", "noted.yaml")
	if !strings.Contains(complaint, "policy.csv:141:4: warning: no provider is authoritative for example.com") || !strings.Contains(complaint, `no provider "google" is configured`) {
		t.Errorf("got %s", complaint)
	}

	out, _ = noted(0, "explain", "mona@example.com", "note:any", "read")
	if want := "allowed: mona@example.com may note:any read, because\n  policy.csv:141: g, mona@example.com, moderator\n  policy.csv:22: p, moderator, note:any, read\n"; out != want {
		t.Errorf("got %s", out)
	}
	noted(1, "explain", "mona@example.com", "note:any delete")
	_, complaint = noted(2, "explain", "mona@example.com", "note:any", "reed")
	if !strings.Contains(complaint, "write read") {
		t.Errorf("got %s", complaint)
	}
	noted(2, "explain", "mona@example.com", "note:any")
	noted(2, "explain", "mona@example.com", "note:any", "read", "--policy", "bad.csv")
	noted(2, "explain", "mona@example.com", "note:any", "read", "--policy", "none.csv")
	noted(2, "explain", "mona@example.com")
	var explained struct {
		Allowed bool
		Because []struct {
			Line int
			Text string
		}
		Missing *struct{ Roles []string }
	}
	out, _ = noted(1, "explain", "--json", "moderator", "deadzone:any", "purge")
	if decode(out, &explained); explained.Allowed || explained.Because == nil || !slices.Equal(explained.Missing.Roles, []string{"admin"}) {
		t.Errorf("got %s", out)
	}

	// By an API key, whose role has to allow it too; of an organization's key, by its role there.
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{0, []string{"mona@example.com", "note:any", "read", "--key", "key-admin"}, "allowed: mona@example.com by a key-admin may note:any read, because\n  g, mona@example.com, moderator\n" +
			"  p, moderator, note:any, read\nand the key may, because\n  p, key-admin, note:any, read\n"},
		{1, []string{"mona@example.com", "note:any", "read", "--key", "key-reader"}, "denied: mona@example.com by a key-reader may not note:any read, since the key's role alone lacks it; roles that hold it: key-admin\n"},
		{1, []string{"mona@example.com", "note:any", "delete", "--key", "key-admin"}, "denied: mona@example.com by a key-admin may not note:any delete; roles that hold it: admin\n"},
		{1, []string{"org-writer", "note:org", "write", "--key", "key-reader"}, "denied: org-writer by a key-reader may not note:org write, since the key's role alone lacks it; roles that hold it: key-admin, key-writer\n"},
		{0, []string{"org-writer", "self", "read", "--key", "key-reader"}, "allowed: org-writer by a key-reader may self read, because\n  p, key-reader, self, read\n"},
	} {
		out, _ = noted(c.code, append([]string{"explain"}, c.args...)...)
		if out = regexp.MustCompile(`policy\.csv:\d+: `).ReplaceAllString(out, ""); out != c.want {
			t.Errorf("%v: %s", c.args, out)
		}
	}
	out, _ = noted(1, "explain", "--json", "mona@example.com", "note:any", "read", "--key", "key-reader")
	if !strings.Contains(out, `"limited_by": "key-reader"`) {
		t.Errorf("got %s", out)
	}
	if _, complaint = noted(2, "explain", "mona@example.com", "note:any", "read", "--key", "moderator"); !strings.Contains(complaint, "key-reader") {
		t.Errorf("got %s", complaint)
	}
	if _, complaint = noted(2, "explain", "*@example.com", "note:own", "read"); !strings.Contains(complaint, "names nobody") {
		t.Errorf("got %s", complaint)
	}

	writeFile(t, dir, "old.csv", shipped(t, "policy.csv")+"g, google:1, admin\ng, eve@example.com, admin\n")
	var differences struct {
		Changes []struct {
			Who, Kind string
			Gains     []string
			Loses     []string
			Reaches   []string `json:"reaches_others_notes"`
		}
	}
	out, _ = noted(0, "diff", "--json", "old.csv", "policy.csv")
	decode(out, &differences)
	if c := differences.Changes; len(c) != 2 || c[0].Who != "eve@example.com" || len(c[0].Loses) != 11 || c[1].Who != "mona@example.com" || !slices.Equal(c[1].Reaches, []string{"note:any read", "note:any write"}) {
		t.Errorf("got %s", out)
	}
	if out, _ = noted(0, "diff", "policy.csv", "policy.csv"); out != "Nobody gains or loses anything.\n" {
		t.Errorf("got %s", out)
	}
	noted(1, "diff", "policy.csv", "bad.csv")
	// What is left out: the one that was is the shipped one, the one that will be that of the folder.
	const mona = "person mona@example.com\n  + role moderator\n  + note:any read      ! reaches other people's notes\n  + note:any write      ! reaches other people's notes\n"
	if out, _ = noted(0, "diff"); !strings.HasPrefix(out, "person google:1\n  + role admin\n") || !strings.HasSuffix(out, mona) {
		t.Errorf("got %s", out)
	}
	writeFile(t, dir, "less.csv", shipped(t, "policy.csv")+"g, google:1, admin\n")
	for _, args := range [][]string{{"diff", "less.csv"}, {"diff", "less.csv", "--policy", "policy.csv"}, {"diff", "less.csv", "policy.csv"}} {
		if out, _ = noted(0, args...); out != mona {
			t.Errorf("%v: %s", args, out)
		}
	}
	if out, _ = noted(0, "diff", "--policy", "less.csv"); strings.Contains(out, "mona") || !strings.Contains(out, "google:1") {
		t.Errorf("got %s", out)
	}
	if out, complaint = noted(0, "diff", "less.csv", "less.csv"); out != "Nobody gains or loses anything.\n" || complaint != "less.csv is the same as less.csv.\n" {
		t.Errorf("got %s%s", out, complaint)
	}
	if _, complaint = noted(1, "diff", "less.csv", "policy.csv", "--policy", "less.csv"); !strings.Contains(complaint, "given twice") {
		t.Errorf("got %s", complaint)
	}
	noted(1, "diff", "none.csv")
	noted(1, "diff", "-", "--policy", "-")

	out, _ = noted(0, "test", "--coverage", "--json")
	var tested struct {
		OK          bool
		Allow, Deny int
		Untested    []string
	}
	if decode(out, &tested); !tested.OK || tested.Allow < 40 || tested.Deny < 40 || len(tested.Untested) != 0 {
		t.Errorf("got %s", out)
	}
	writeFile(t, dir, "policy_test.csv", "allow, mona@example.com, note:any, read\n")
	noted(0, "test")
	_, complaint = noted(1, "test", "--coverage")
	if !strings.Contains(complaint, "no expectation asks for deadzone:any purge") {
		t.Errorf("got %s", complaint)
	}
}
