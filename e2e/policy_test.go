package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"noted/internal/localpg/pgtest"
)

// seenWithin is docs/policy.md's promise, with room for a busy machine.
const seenWithin = 15 * time.Second

// The example of docs/policy.md: a colleague becomes a moderator on a running server.
func TestAColleagueIsMadeAModeratorWithoutARestart(t *testing.T) {
	t.Parallel()
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

	// A typo is reported with its place, before it is in force and after.
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

	// The right line: first its meaning, then it counts. This time it is written in place.
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

	// What she still may not do, in the words of the refusal.
	var forbidden struct{ Permission string }
	alice.do(t, http.MethodDelete, "/v1/notes/"+note.ID, nil).want(t, http.StatusForbidden).into(t, &forbidden)
	code, explained := run(t, command{args: []string{"policy", "explain", "--policy", live, "corp:alice", forbidden.Permission}})
	if text := explained.stdout.String(); code != 1 || text != "denied: corp:alice may not note:any delete; roles that hold it: admin\n" {
		t.Errorf("exit code %d, %s", code, text)
	}

	// A signal reloads it too, and says so.
	p.signal(syscall.SIGHUP)
	p.await(t, seenWithin, "the signal", func() bool { return strings.Contains(p.stderr.String(), "loaded again and is the same") })
	// If a file is gone, the shipped one does not replace it.
	if err := os.Remove(live); err != nil {
		t.Fatal(err)
	}
	p.await(t, seenWithin, "the file is missed", func() bool { return refused() != nil })
	if got := alice.me(t).Roles; !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("alice is %v", got)
	}
	// A policy without an admin does not count either.
	writeFile(t, s.dir, "with-ada.csv", shipped(t, "policy.csv"))
	p.await(t, seenWithin, "an admin is missed", func() bool {
		text := refused()
		return text != nil && strings.Contains(*text, "no g line makes anybody an admin")
	})
	// Nor one whose admin cannot sign in here.
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

// noted dev loads a policy.csv that appears in its folder, and its people keep their roles.
func TestDevTakesUpAPolicyThatIsWrittenBesideIt(t *testing.T) {
	t.Parallel()
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
