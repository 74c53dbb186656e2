package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// dev is a running `noted dev`.
type dev struct {
	*process
	url  string
	data string
	keys map[string]string // by name
}

var people = []string{"ada", "alice", "bob", "mona"} // sorted

// devCommand runs `noted dev` on a data folder, on a port that it chooses.
func devCommand(data string, as *syscall.Credential, more ...string) command {
	return command{args: append([]string{"dev", "--listen", "127.0.0.1:0", "--data", data}, more...), as: as}
}

// startDev starts `noted dev` and returns when it is ready.
func startDev(t *testing.T, data string, as *syscall.Credential, more ...string) *dev {
	t.Helper()
	began := time.Now()
	d := &dev{process: start(t, devCommand(data, as, more...)), data: data}
	d.await(t, startLimit, "it is ready", func() bool { return strings.Contains(d.stdout.String(), "\nready http") })
	t.Logf("ready after %s (race detector on)", time.Since(began).Round(time.Millisecond))
	d.readAnnouncement(t)
	return d
}

var (
	keyLine   = regexp.MustCompile(`^key ([a-z]+) (noted_[0-9A-Za-z]{22}_[0-9A-Za-z]{49})$`)
	readyLine = regexp.MustCompile(`^ready (http://127\.0\.0\.1:[1-9][0-9]*)$`)
)

// readAnnouncement checks standard output against DESIGN.md: four key lines, a ready line, no more.
func (d *dev) readAnnouncement(t *testing.T) {
	t.Helper()
	text := d.stdout.String()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 5 || !strings.HasSuffix(text, "\n") {
		t.Fatalf("standard output has not five whole lines:\n%s", text)
	}
	d.keys = map[string]string{}
	for _, line := range lines[:4] {
		match := keyLine.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("not a line `key NAME SECRET`: %q", line)
		}
		d.keys[match[1]] = match[2]
	}
	var names []string
	for name := range d.keys {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, people) {
		t.Fatalf("there are keys of %q, want %q", names, people)
	}
	match := readyLine.FindStringSubmatch(lines[4])
	if match == nil {
		t.Fatalf("not a line `ready URL`: %q", lines[4])
	}
	d.url = match[1]
}

func (d *dev) as(name string) client { return plainClient(d.url, d.keys[name]) }

// tryLines returns the command lines that standard error offers for pasting.
func (d *dev) tryLines() (lines []string) {
	for line := range strings.Lines(d.stderr.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestDevSaysOnStandardOutputOnlyTheKeysAndThatItIsReady(t *testing.T) {
	t.Parallel()
	d := startDev(t, publicFolder(t, nil), nil)
	before := d.stdout.String()
	for _, name := range people {
		m := d.as(name).me(t)
		if m.Name != name || m.Via != "key" {
			t.Errorf("the key of %s is of %q, via %q", name, m.Name, m.Via)
		}
	}
	plainClient(d.url, wrongToken).get(t, "/v1/me").wantUnauthorized(t)
	d.stop(t)
	if after := d.stdout.String(); after != before {
		t.Errorf("standard output after the end:\n%s\nwant no more than:\n%s", after, before)
	}
}

func TestDevOffersTwoCurlLinesThatWorkAsPasted(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", err.Error())
	}
	d := startDev(t, publicFolder(t, nil), nil)
	eventually(t, settleLimit, "two curl lines on standard error", func() bool { return len(d.tryLines()) == 2 })
	if text := d.stderr.String(); !strings.Contains(text, d.url+" ") && !strings.Contains(text, d.url+"\n") {
		t.Errorf("standard error does not name the address %s", d.url)
	}
	for _, line := range d.tryLines() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		shell := exec.CommandContext(ctx, "sh", "-c", line) //nolint:gosec // to run it is the test
		// Ignore the developer's proxy and .curlrc.
		shell.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		out, err := shell.Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var body struct{ Items []note }
		if err := json.Unmarshal(out, &body); err != nil || len(body.Items) == 0 {
			t.Errorf("%s\nprints %s (%v), want JSON with items in it", line, out, err)
		}
	}
}

func TestDevSignsInByFollowingRedirectsWithALoginHint(t *testing.T) {
	t.Parallel()
	d := startDev(t, publicFolder(t, nil), nil, "--empty")
	b := newBrowser(t, d.url, nil, nil)
	token := b.signIn(t, "/auth/login?login_hint=alice", "noted_session")
	byCookie := b.me(t)
	if byCookie.Name != "alice" || byCookie.Via != "session" {
		t.Errorf("the cookie is of %q, via %q; want alice, via session", byCookie.Name, byCookie.Via)
	}
	if byKey := d.as("alice").me(t); byKey.ID != byCookie.ID {
		t.Errorf("alice is %s by key and %s by cookie", byKey.ID, byCookie.ID)
	}
	cookie := b.seen.cookieNamed(t, "noted_session")
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("the session cookie is %s", cookie)
	}
	if m := plainClient(d.url, token).me(t); m.ID != byCookie.ID {
		t.Error("the cookie's value is not the session token")
	}
}

func TestDevHasSampleNotesUnlessEmpty(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want bool
	}{{"as it is", nil, true}, {"with --empty", []string{"--empty"}, false}} {
		t.Run(c.name, func(t *testing.T) {
			d := startDev(t, publicFolder(t, nil), nil, c.args...)
			if notes := list[note](t, d.as("alice"), "/v1/notes"); (len(notes) > 0) != c.want {
				t.Errorf("alice has %d notes", len(notes))
			}
			if dead := list[note](t, d.as("ada"), "/v1/deadzone"); (len(dead) > 0) != c.want {
				t.Errorf("ada sees %d notes in the Dead Zone", len(dead))
			}
			d.as("alice").get(t, "/v1/deadzone").want(t, http.StatusForbidden)
			for name, role := range map[string]string{"alice": "admin", "bob": "writer"} {
				m := d.as(name).me(t)
				if (len(m.Orgs) == 1 && m.Orgs[0].Name == "Workshop" && m.Orgs[0].Role == role) != c.want {
					t.Errorf("%s is in %+v", name, m.Orgs)
				}
			}
		})
	}
}

func TestDevRunsAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	as := ordinaryUser(t)
	d := startDev(t, publicFolder(t, as), as)
	d.noRoot(t)
}

func TestDevRunsAsRootButItsPostgresDoesNot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		missing(t, "root", "the test is not run by root")
	}
	// In /root or t.TempDir PostgreSQL's account cannot reach the data folder; then the cluster is elsewhere.
	for name, data := range map[string]string{"in an open folder": publicFolder(t, nil), "in a closed folder": filepath.Join(t.TempDir(), "data")} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { removePlace(t, data) })
			d := startDev(t, data, nil)
			d.noRoot(t)
		})
	}
}

// removePlace removes the cluster if noted put it outside the data folder.
func removePlace(t *testing.T, data string) {
	t.Helper()
	place, err := os.ReadFile(filepath.Join(data, "place")) //nolint:gosec // the test's folder
	if err != nil {
		return
	}
	dir := strings.TrimSpace(string(place))
	if !strings.HasPrefix(filepath.Base(dir), "noted-") {
		t.Fatalf("%q is not a folder that noted makes", dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// noRoot checks that PostgreSQL serves, not as root, and that nothing of it is left afterwards.
func (d *dev) noRoot(t *testing.T) {
	t.Helper()
	list[note](t, d.as("alice"), "/v1/notes")
	found := clusterProcesses(t, d.data)
	if len(found) == 0 {
		t.Error("no process of the cluster is found: the test looks in the wrong place")
	}
	for _, p := range found {
		if p.root {
			t.Errorf("process %d runs as root: %s", p.pid, p.command)
		}
	}
	d.stop(t)
	clusterIsGone(t, d.data)
}

func TestDevRefusesADataFolderInUse(t *testing.T) {
	data := publicFolder(t, nil)
	first := startDev(t, data, nil)
	began := time.Now()
	code, second := run(t, devCommand(data, nil))
	if took := time.Since(began); code == 0 || took > 10*time.Second {
		t.Errorf("the second start exits with %d after %s, want an error within seconds", code, took)
	}
	if text := second.stderr.String(); !strings.Contains(text, data) || !strings.Contains(text, "in use") {
		t.Errorf("the error does not name the folder and say that it is in use: %s", text)
	}
	if text := second.stdout.String(); text != "" {
		t.Errorf("the second start printed %q", text)
	}
	if m := first.as("alice").me(t); m.Name != "alice" {
		t.Errorf("the first one answers as %q", m.Name)
	}
	first.as("alice").write(t, "still serving")
}

func TestDevWithoutPostgresAndNetworkSaysWhatToInstall(t *testing.T) {
	t.Parallel()
	bare := publicFolder(t, nil)
	for _, dir := range []string{"bin", "home", "cache", "data"} {
		if err := os.Mkdir(filepath.Join(bare, dir), 0o755); err != nil { //nolint:gosec // other accounts look into it
			t.Fatal(err)
		}
	}
	c := devCommand(filepath.Join(bare, "data"), nil)
	// The new network has not even a loopback device, so that nothing can be fetched.
	c.wrapper = slices.Concat(hideTheMachine(t), []string{
		"env", "-i", "PATH=" + filepath.Join(bare, "bin"), "HOME=" + filepath.Join(bare, "home"),
		"XDG_CACHE_HOME=" + filepath.Join(bare, "cache"),
	})
	code, p := run(t, c)
	if code == 0 {
		t.Error("exit code 0 with no PostgreSQL to run")
	}
	text := p.stderr.String()
	for _, want := range []string{"database_url", "apt-get install postgresql", "dnf install postgresql-server"} {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not name %q: %s", want, text)
		}
	}
	if out := p.stdout.String(); out != "" {
		t.Errorf("standard output: %q", out)
	}
}

// hideTheMachine is the start of a command line that runs the rest with no network and an empty
// /usr/lib/postgresql.
func hideTheMachine(t *testing.T) []string {
	t.Helper()
	const hide = `if test -d /usr/lib/postgresql; then mount -t tmpfs none /usr/lib/postgresql; fi && exec "$@"`
	wrapper := []string{"unshare", "-m", "-n", "sh", "-c", hide, "sh"}
	if os.Geteuid() != 0 {
		// Root in a user namespace may mount, but noted must not think it is root: a second namespace makes it
		// ordinary again.
		wrapper = []string{"unshare", "-r", "-m", "-n", "sh", "-c", hide, "sh", "unshare", "--map-user=1000", "--map-group=1000"}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, wrapper[0], append(wrapper[1:], "true")...).CombinedOutput(); err != nil { //nolint:gosec // our own
		missing(t, "unshare", fmt.Sprintf("not permitted here: %v: %s", err, out))
	}
	return wrapper
}

func TestDevFinishesRequestsOnSIGTERMAndKeepsEverythingButTheKeys(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	const floor = 2 * time.Second // long, so that the request is surely under way
	first := startDev(t, data, nil, "--auth-failure-floor", floor.String())
	kept := first.as("alice").write(t, "kept over a restart")
	session := newBrowser(t, first.url, nil, nil).signIn(t, "/auth/login?login_hint=alice", "noted_session")

	var failed answer
	var err error
	var signalled, answered time.Time
	done := make(chan struct{})
	go func() {
		defer close(done)
		failed, err = plainClient(first.url, wrongToken).try(t.Context(), http.MethodGet, "/v1/me", nil)
		answered = time.Now()
	}()
	first.await(t, startLimit, "the failure is logged, its answer still waits", func() bool {
		return strings.Contains(first.stderr.String(), "authentication failed")
	})
	signalled = time.Now()
	first.stop(t)
	<-done
	if err != nil {
		t.Fatalf("the request under way got no answer: %v", err)
	}
	failed.wantUnauthorized(t)
	if answered.Before(signalled) {
		t.Errorf("the request was answered before the signal: this test proved nothing")
	}
	if failed.took < floor {
		t.Errorf("the failure was answered after %s, sooner than the floor of %s", failed.took, floor)
	}
	clusterIsGone(t, data)

	second := startDev(t, data, nil)
	var n note
	second.as("alice").get(t, "/v1/notes/"+kept.ID).want(t, http.StatusOK).into(t, &n)
	if n.Body != kept.Body || n.Title != kept.Title {
		t.Errorf("the note is %+v after the restart, was %+v", n, kept)
	}
	for _, name := range people {
		plainClient(second.url, first.keys[name]).get(t, "/v1/me").wantUnauthorized(t)
		if m := second.as(name).me(t); m.Name != name {
			t.Errorf("the new key of %s is of %q", name, m.Name)
		}
	}
	if m := plainClient(second.url, session).me(t); m.Name != "alice" || m.Via != "session" {
		t.Errorf("the session from before is of %q, via %q", m.Name, m.Via)
	}
	if again := len(list[note](t, second.as("alice"), "/v1/notes")); again != 3 { // two samples, and the kept one
		t.Errorf("alice has %d notes after the restart, want 3: the samples are made once", again)
	}
}

func TestDevKilledLosesNoAcknowledgedNoteAndLeavesNoPostgres(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	var acknowledged []string
	killed := func(d *dev) {
		acknowledged = append(acknowledged, killWhileWriting(t, d)...)
	}
	check := func(d *dev) {
		t.Helper()
		there := map[string]bool{}
		for _, n := range list[note](t, d.as("alice"), "/v1/notes") {
			there[n.ID] = true
		}
		lost := 0
		for _, id := range acknowledged {
			if !there[id] {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of %d acknowledged notes are lost", lost, len(acknowledged))
		}
	}

	killed(startDev(t, data, nil))
	began := time.Now()
	clusterIsGone(t, data)
	t.Logf("PostgreSQL was gone %s after the kill", time.Since(began).Round(time.Millisecond))
	second := startDev(t, data, nil)
	check(second)

	killed(second)
	third := startDev(t, data, nil) // at once: the last PostgreSQL may still be running
	check(third)
	third.stop(t)
	clusterIsGone(t, data)
	t.Logf("%d notes were acknowledged before the two kills", len(acknowledged))
}

// killWhileWriting kills noted under concurrent writers, and returns the notes that got a 201.
func killWhileWriting(t *testing.T, d *dev) []string {
	t.Helper()
	var mu sync.Mutex
	var ids []string
	var count atomic.Int32
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			c := plainClient(d.url, d.keys["alice"])
			for {
				a, err := c.try(t.Context(), http.MethodPost, "/v1/notes", map[string]string{"title": "written to the last", "body": "x"})
				if err != nil || a.status != http.StatusCreated {
					return
				}
				var n note
				if json.Unmarshal([]byte(a.body), &n) != nil {
					return
				}
				mu.Lock()
				ids = append(ids, n.ID)
				mu.Unlock()
				count.Add(1)
			}
		})
	}
	d.await(t, startLimit, "the writers have written 60 notes", func() bool { return count.Load() >= 60 })
	d.signal(syscall.SIGKILL)
	if code := d.exit(t); code != -1 {
		t.Fatalf("it exited with %d, want killed", code)
	}
	writers.Wait()
	return ids
}

func TestDevKeepsItsPeopleWhenTheProvidersPortIsTaken(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	first := startDev(t, data, nil)
	alice := first.as("alice").me(t).ID
	session := newBrowser(t, first.url, nil, nil).signIn(t, "/auth/login?login_hint=alice", "noted_session")
	first.stop(t)
	before := issuerOf(t, data)
	taken, err := url.Parse(before)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", taken.Host)
	if err != nil {
		t.Fatalf("taking the provider's port: %v", err)
	}
	defer func() { _ = listener.Close() }()

	second := startDev(t, data, nil)
	if after := issuerOf(t, data); after == before {
		t.Errorf("the issuer is still %s, whose port is taken", after)
	}
	if m := second.as("alice").me(t); m.ID != alice {
		t.Errorf("by key alice is %s, was %s", m.ID, alice)
	}
	b := newBrowser(t, second.url, nil, nil)
	b.signIn(t, "/auth/login?login_hint=alice", "noted_session")
	if m := b.me(t); m.ID != alice {
		t.Errorf("signed in at the new issuer alice is %s, was %s", m.ID, alice)
	}
	if m := plainClient(second.url, session).me(t); m.ID != alice {
		t.Errorf("the session from before is of %s, want %s", m.ID, alice)
	}
	if m := second.as("ada").me(t); !slices.Contains(m.Roles, "admin") {
		t.Errorf("ada has the roles %q", m.Roles)
	}
	// The issuer that moved once stays there, although the old port is free again.
	moved := issuerOf(t, data)
	second.stop(t)
	_ = listener.Close()
	third := startDev(t, data, nil)
	if now := issuerOf(t, data); now != moved {
		t.Errorf("the issuer moved from %s to %s", moved, now)
	}
	if m := third.as("alice").me(t); m.ID != alice {
		t.Errorf("at the third start alice is %s, was %s", m.ID, alice)
	}
}

func issuerOf(t *testing.T, data string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "dev-issuer")) //nolint:gosec // the test's folder
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestDevRefusesAnAddressThatOthersReach(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"} {
		t.Run(listen, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			code, p := run(t, command{args: []string{"dev", "--listen", listen, "--data", data}})
			if code == 0 {
				t.Error("exit code 0")
			}
			if text := p.stderr.String(); !strings.Contains(text, "listen") || !strings.Contains(text, listen) || !strings.Contains(text, "127.0.0.1") {
				t.Errorf("the error does not name the setting, its value and what to write: %s", text)
			}
			if _, err := os.Stat(data); err == nil {
				t.Error("it made its data folder before it refused")
			}
		})
	}
}

func TestDevKeepsSecretsOutOfLogsAndFiles(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	d := startDev(t, data, nil, "--log-level", "debug")
	b := newBrowser(t, d.url, nil, nil)
	session := b.signIn(t, "/auth/login?login_hint=alice", "noted_session")
	for _, name := range people {
		d.as(name).me(t)
	}
	d.as("alice").write(t, "a note")
	// Credentials are most likely to be logged on failures, and by PostgreSQL for a broken statement.
	broken := d.keys["alice"][:len(d.keys["alice"])-1]
	plainClient(d.url, broken).get(t, "/v1/me").wantUnauthorized(t)
	plainClient(d.url, session+"1").get(t, "/v1/me").wantUnauthorized(t)
	plainClient(d.url, "").get(t, "/v1/notes?session="+session)
	plainClient(d.url, "").get(t, "/"+session)
	d.as("alice").do(t, http.MethodPost, "/auth/logout", nil)
	b.do(t, http.MethodPost, "/auth/logout", nil, "Origin", d.url)
	d.stop(t)

	secrets := append([]string{session, broken}, b.seen.secrets...)
	for _, key := range d.keys {
		secrets = append(secrets, key, key[len(key)-49:])
	}
	var log []string
	for line := range strings.Lines(d.stderr.String()) {
		if !strings.HasPrefix(strings.TrimSpace(line), "curl ") {
			log = append(log, line)
		}
	}
	wantNone(t, "standard error beside the lines to try", strings.Join(log, ""), secrets)

	// Only hashes are stored. Authorization codes are not in the list: they are the provider's.
	stored := []string{session}
	for _, key := range d.keys {
		stored = append(stored, key[len(key)-49:])
	}
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path) //nolint:gosec // the test's folder
		if err == nil {
			wantNone(t, path, string(text), stored)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// wantNone fails if the text contains any of the secrets. It does not print them.
func wantNone(t *testing.T, where, text string, secrets []string) {
	t.Helper()
	for i, secret := range secrets {
		if at := strings.Index(text, secret); secret != "" && at >= 0 {
			t.Errorf("%s has secret %d of %d in it, after %q", where, i+1, len(secrets), text[max(0, at-80):at])
		}
	}
}
