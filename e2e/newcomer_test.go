package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"noted/internal/localpg/pgtest"
)

// emptyDatabase makes an empty database, and a connection to it.
func emptyDatabase(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	connect := func(address string) *pgx.Conn {
		conn, err := pgx.Connect(context.Background(), address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	beside := pgtest.URL(t)
	name, server := "noted_e2e_"+strings.ToLower(rand.Text()), connect(beside)
	if _, err := server.Exec(t.Context(), "create database "+name+" template template0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Exec(context.Background(), "drop database "+name+" with (force)") })
	u, err := url.Parse(beside)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String(), connect(u.String())
}

// dev's printed keys work only there, and not on what serve serves.
func TestDevsDatabaseIsNoneForServe(t *testing.T) {
	t.Parallel()
	address, conn := emptyDatabase(t)
	data := publicFolder(t, nil)
	first := startDev(t, data, nil, "--database-url", address)
	alice := first.as("alice").me(t).ID
	first.stop(t)

	before := contents(t, conn)
	text := wantRefusal(t, startConfig(t, configCase{}, address))
	for _, want := range []string{"noted dev", "database_url", "another database"} {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not say %q: %s", want, text)
		}
	}
	if diff := cmp.Diff(before, contents(t, conn)); diff != "" {
		t.Errorf("the database has changed:\n%s", diff)
	}
	// It is still dev's, with everything in it.
	second := startDev(t, data, nil, "--database-url", address)
	if m := second.as("alice").me(t); m.ID != alice {
		t.Errorf("alice was %s and is %s", alice, m.ID)
	}
	second.stop(t)
	// No search_path hides the mark.
	if _, err := conn.Exec(t.Context(), `create schema elsewhere`); err != nil {
		t.Fatal(err)
	}
	if text := wantRefusal(t, startConfig(t, configCase{}, address+"&search_path=elsewhere")); !strings.Contains(text, "noted dev") {
		t.Errorf("by another search_path: %s", text)
	}
}

func TestDevTakesNoDatabaseThatIsNeitherEmptyNorItsOwn(t *testing.T) {
	t.Parallel()
	served := pgtest.URL(t) // as serve leaves it
	servedConn, err := pgx.Connect(t.Context(), served)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = servedConn.Close(context.Background()) }()
	others, othersConn := emptyDatabase(t)
	if _, err := othersConn.Exec(t.Context(), `create schema shop; create view shop.orders as select 1 as id`); err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		address string
		conn    *pgx.Conn
	}{"serve's": {served, servedConn}, "another program's": {others, othersConn}} {
		t.Run(name, func(t *testing.T) {
			before := contents(t, one.conn)
			code, p := run(t, devCommand(publicFolder(t, nil), nil, "--database-url", one.address))
			if text := p.stderr.String(); code == 0 || !strings.Contains(text, "not one of noted dev") || !strings.Contains(text, "empty database") || !strings.Contains(text, "database_url") {
				t.Errorf("exit code %d: %s", code, text)
			}
			if out := p.stdout.String(); out != "" {
				t.Errorf("it printed %q", out)
			}
			if diff := cmp.Diff(before, contents(t, one.conn)); diff != "" {
				t.Errorf("the database has changed:\n%s", diff)
			}
		})
	}
}

// The first one on an empty database gets it; never both.
func TestServeAndDevAtOnceDoNotShareADatabase(t *testing.T) {
	t.Parallel()
	address, _ := emptyDatabase(t)
	served := startConfig(t, configCase{}, address)
	d := start(t, devCommand(publicFolder(t, nil), nil, "--database-url", address))
	ready := func() bool { return strings.Contains(d.stdout.String(), "\nready http") }
	eventually(t, startLimit, "both serve or end", func() bool { return (served.ended() || serving(served)) && (d.ended() || ready()) })
	if serving(served) == ready() {
		t.Errorf("serve serves: %t, dev serves: %t", serving(served), ready())
	}
}

// keysOf returns the names in the key lines, in order.
func keysOf(p *process) (names []string) {
	for line := range strings.Lines(p.stdout.String()) {
		if word := strings.Fields(line); len(word) == 3 && word[0] == "key" {
			names = append(names, word[1])
		}
	}
	return names
}

func TestDevHasTenPeopleAndMoreWithKeysWhenAsked(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	signsIn := func(p *process, url, who string) me {
		t.Helper()
		b := newBrowser(t, url, nil, nil)
		b.signIn(t, "/auth/login?login_hint="+who, "noted_session")
		return b.me(t)
	}
	first := startDev(t, data, nil, "--empty")
	var users struct {
		Items []struct{ Name string }
	}
	first.as("ada").get(t, "/v1/admin/users").want(t, http.StatusOK).into(t, &users)
	if len(users.Items) != 4 { // the others get an account at sign-in
		t.Errorf("at first there are %+v", users.Items)
	}
	for _, who := range []string{"alice", "bob", "mona", "ada", "carol", "dave", "erin", "frank", "grace", "heidi"} {
		if m := signsIn(first.process, first.url, who); m.Name != who || m.Via != "session" {
			t.Errorf("%s signs in as %+v", who, m)
		}
	}
	first.stop(t)

	p := start(t, devCommand(data, nil, "--people", "ivan,carol,alice,judy", "--empty"))
	p.await(t, startLimit, "it is ready", func() bool { return strings.Contains(p.stdout.String(), "\nready http") })
	if got, want := keysOf(p), []string{"alice", "bob", "mona", "ada", "ivan", "carol", "judy"}; !slices.Equal(got, want) {
		t.Errorf("there are key lines of %q, want %q", got, want)
	}
	lines := strings.Fields(p.stdout.String())
	address, carols := lines[len(lines)-1], ""
	for i, word := range lines {
		if word != "key" {
			continue
		}
		name, key := lines[i+1], lines[i+2]
		if m := plainClient(address, key).me(t); m.Name != name || m.Via != "key" {
			t.Errorf("the key of %s is of %+v", name, m)
		}
		if name == "carol" {
			carols = key
		}
	}
	if m := signsIn(p, address, "ivan"); m.Name != "ivan" {
		t.Errorf("ivan signs in as %+v", m)
	}
	p.stop(t)

	// A start that prints no key for carol revokes the previous one.
	third := startDev(t, data, nil)
	plainClient(third.url, carols).get(t, "/v1/me").wantUnauthorized(t)
	for _, bad := range []string{"Ivan", "a b", "dev:ada", "../x", strings.Repeat("x", 40)} {
		code, p := run(t, command{args: []string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data"), "--people", bad}})
		if code == 0 || !strings.Contains(p.stderr.String(), "people") {
			t.Errorf("--people %q: exit code %d, %s", bad, code, p.stderr.String())
		}
	}
}

// A page elsewhere that points its name to this machine (DNS rebinding) gets nothing from noted or its provider.
func TestDevAnswers421ForAHostThatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	d := startDev(t, publicFolder(t, nil), nil, "--empty")
	at := strings.TrimPrefix(d.url, "http://")
	port := at[strings.LastIndexByte(at, ':')+1:]
	ask := func(server, path, host string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+d.keys["ada"])
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	issuer := issuerOf(t, d.data)
	issuerPort := issuer[strings.LastIndexByte(issuer, ':')+1:]
	for _, own := range []string{at, "localhost:" + port, "LocalHost:" + port, "127.0.0.1:" + port, "[::1]:" + port} {
		if got := ask(d.url, "/v1/me", own); got != http.StatusOK {
			t.Errorf("%s: %d", own, got)
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:" + port, "localhost", "127.0.0.1", "localhost:1", "127.0.0.1:" + issuerPort, "localhost.:" + port, "127.0.0.1.evil.example:" + port, "0.0.0.0:" + port, "127.1:" + port,
	} {
		for _, path := range []string{"/", "/v1/me", "/metrics", "/auth/login?login_hint=ada", "/nothing", "/openapi.json"} {
			if got := ask(d.url, path, host); got != http.StatusMisdirectedRequest {
				t.Errorf("%s%s: %d", host, path, got)
			}
		}
	}
	if got := ask(issuer, "/.well-known/openid-configuration", "evil.example:"+issuerPort); got != http.StatusMisdirectedRequest {
		t.Errorf("the provider: %d", got)
	}
	if got := ask(issuer, "/.well-known/openid-configuration", "127.0.0.1:"+issuerPort); got != http.StatusOK {
		t.Errorf("the provider by its own name: %d", got)
	}
}

func TestDevReloadsThePolicyOnSIGHUP(t *testing.T) {
	t.Parallel()
	dir := publicFolder(t, nil)
	writeFile(t, dir, "policy.csv", shipped(t, "policy.csv"))
	c := devCommand(filepath.Join(dir, "data"), nil, "--empty", "--log-level", "debug")
	c.dir = dir
	p := start(t, c)
	p.await(t, startLimit, "it is ready", func() bool { return strings.Contains(p.stdout.String(), "\nready http") })
	address := strings.Fields(p.stdout.String()[strings.LastIndex(p.stdout.String(), "ready "):])[1]
	reloads := func() string {
		a := plainClient(address, "").get(t, "/metrics").want(t, http.StatusOK)
		var counts []string
		for line := range strings.Lines(a.body) {
			if strings.HasPrefix(line, "noted_policy_reloads_total{") {
				counts = append(counts, strings.TrimSpace(line))
			}
		}
		return strings.Join(counts, " ")
	}
	before := reloads()
	p.signal(syscall.SIGHUP)
	p.await(t, settleLimit, "it has looked at the policy again", func() bool { return reloads() != before })
	if got := reloads(); !strings.Contains(got, `result="same"} 1`) {
		t.Errorf("reloads: %s", got)
	}
}

func TestTokenPrintsTheSessionsTokenForAScript(t *testing.T) {
	t.Parallel()
	d := startDev(t, publicFolder(t, nil), nil, "--empty")
	l := newLaptop(t)
	if code, out, text := l.run(t, "token", "--server", d.url); code != 1 || out != "" || !strings.Contains(text, "noted login --server "+d.url) {
		t.Errorf("before the login: %d %q %q", code, out, text)
	}
	login := l.approved(t, d.signedIn(t, "alice"), "--server", d.url)
	if code := login.exit(t); code != 0 {
		t.Fatalf("login: %d %s", code, login.stderr.String())
	}
	out := l.want(t, "token")
	if want := l.kept(t)[d.url] + "\n"; out != want || !strings.HasPrefix(out, "nsess_") {
		t.Errorf("it prints %q, kept is %q", out, want)
	}
	if m := plainClient(d.url, strings.TrimSpace(out)).me(t); m.Name != "alice" || m.Via != "session" {
		t.Errorf("the token is of %+v", m)
	}
	// NOTED_TOKEN is another matter.
	other := laptop{l.home, []string{"NOTED_TOKEN=" + d.keys["bob"]}}
	if got := other.want(t, "token", "--server", d.url); got != out {
		t.Errorf("with NOTED_TOKEN it prints %q", got)
	}
	if !terminal(t, l, d.url, "token") || terminal(t, l, d.url, "token", "--show") {
		t.Error("a terminal is told the token without --show, or not told with it")
	}
	l.want(t, "logout")
	if code, out, _ := l.run(t, "token", "--server", d.url); code != 1 || out != "" {
		t.Errorf("after the logout: %d %q", code, out)
	}
}

// terminal runs a command with a terminal as standard output, and reports whether it was refused for that.
func terminal(t *testing.T, l laptop, server string, args ...string) (refused bool) {
	t.Helper()
	// script(1) runs a command in its own terminal.
	c := command{args: append(args, "--server", server), dir: l.home, env: l.env}
	file := filepath.Join(t.TempDir(), "typescript")
	c.wrapper = []string{"sh", "-c", `exec script -qec "$(printf '%s ' "$@")" "$0" </dev/null`, file}
	if _, err := os.Stat("/usr/bin/script"); err != nil {
		missing(t, "script", err.Error())
	}
	code, p := run(t, c)
	out := p.stdout.String()
	if refused = strings.Contains(out, "--show"); refused != (code != 0) || refused == strings.Contains(out, "nsess_") {
		t.Errorf("%q in a terminal: exit code %d, %q", args, code, fmt.Sprintf("%.200s", out))
	}
	return refused
}
