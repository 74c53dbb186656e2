package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"noted/internal/devidp"
	"noted/internal/localpg"
	"noted/internal/localpg/pgtest"
)

const (
	clientSecret  = "the secret of noted at corp"
	sessionCookie = "__Host-noted_session"
	forgedAddress = "203.0.113.66"
)

// site is an operator's setup for `noted serve`: a database, a provider, a proxy that ends TLS, and the files.
// serve starts the binary, as often as the test likes.
type site struct {
	dir      string
	config   string // noted.yaml
	direct   string // where noted listens, for the proxy
	metrics  string
	public   string // public_url
	tls      *tls.Config
	provider *devidp.Provider
}

// newSite sets everything up on a database. more is added to noted.yaml.
func newSite(t *testing.T, databaseURL, more string) *site {
	t.Helper()
	port, metricsPort := freePort(t), freePort(t)
	s := &site{
		dir:     publicFolder(t, nil),
		direct:  fmt.Sprintf("http://127.0.0.1:%d", port),
		metrics: fmt.Sprintf("http://127.0.0.1:%d", metricsPort),
	}
	s.startProxy(t)
	issuer := s.startProvider(t)
	secret := writeFile(t, s.dir, "secret", clientSecret+"\n")
	policy := writeFile(t, s.dir, "with-ada.csv", shipped(t, "policy.csv")+"\ng, corp:ada, admin\n")
	s.config = writeFile(t, s.dir, "noted.yaml", fmt.Sprintf(`listen: 127.0.0.1:%d
metrics_listen: 127.0.0.1:%d
public_url: %s
database_url: %q
policy: %s
trusted_proxies: [127.0.0.1/32]
shutdown_grace: 10s
providers:
  - id: corp
    name: The company
    issuer: %s
    client_id: noted
    client_secret_file: %s
    allow_everyone: true
%s`, port, metricsPort, s.public, databaseURL, policy, issuer, secret, more))
	return s
}

// startProxy ends TLS at the public address. Like nginx with $proxy_add_x_forwarded_for it appends its client's
// address to the header, and it sends its own Host, not the browser's. These two settings expose a server that
// trusts too much.
func (s *site) startProxy(t *testing.T) {
	t.Helper()
	target, err := url.Parse(s.direct)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetURL(target)
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	t.Cleanup(proxy.Close)
	s.public = proxy.URL
	s.tls = proxy.Client().Transport.(*http.Transport).TLSClientConfig //nolint:forcetypeassert // httptest makes it
}

// startProvider serves the company's provider, with its people alice and ada.
func (s *site) startProvider(t *testing.T) (issuer string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	issuer = "http://" + srv.Listener.Addr().String()
	var staff []devidp.Person
	for _, name := range []string{"alice", "ada", "bob"} {
		staff = append(staff, devidp.Person{Subject: name, Name: name, Email: name + "@corp.example", EmailVerified: true})
	}
	var err error
	s.provider, err = devidp.New(devidp.Config{
		Issuer: issuer, ClientID: "noted", ClientSecret: clientSecret, People: staff,
		RedirectURIs: []string{s.public + "/auth/callback/corp"}, PostLogoutRedirectURIs: []string{s.public + "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = s.provider
	srv.Start()
	t.Cleanup(srv.Close)
	return issuer
}

// serve starts the binary and returns when it is ready.
func (s *site) serve(t *testing.T, env []string, flags ...string) *process {
	t.Helper()
	return s.serveWith(t, noted, env, flags...)
}

// serveWith is serve with another build of the binary.
func (s *site) serveWith(t *testing.T, binary string, env []string, flags ...string) *process {
	t.Helper()
	p := start(t, command{binary: binary, args: append([]string{"serve", "--config", s.config}, flags...), env: env, dir: s.dir})
	c := plainClient(s.direct, "")
	p.await(t, startLimit, "it is ready", func() bool {
		a, err := c.try(t.Context(), http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK
	})
	return p
}

// browser comes through the proxy. It sends a forged X-Forwarded-For with everything.
func (s *site) browser(t *testing.T) browser {
	t.Helper()
	return newBrowser(t, s.public, s.tls, http.Header{"X-Forwarded-For": {forgedAddress}})
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shipped returns one of the files at the top of the repository.
func shipped(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name)) //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestServeSignsInBehindATLSProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	b := s.browser(t)
	b.signIn(t, "/auth/login?login_hint=ada", sessionCookie)

	cookie := b.seen.cookieNamed(t, sessionCookie)
	if !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("the session cookie is %s", strings.Replace(cookie.String(), cookie.Value, "VALUE", 1))
	}
	for _, line := range b.seen.cookies {
		set, err := http.ParseSetCookie(line)
		if err != nil || !strings.HasPrefix(set.Name, "__Host-") || !set.Secure || !set.HttpOnly {
			t.Errorf("the cookie %q is not bound to this host and to https", set.Name)
		}
	}
	a := b.get(t, "/v1/me").want(t, http.StatusOK)
	if hsts := a.header.Get("Strict-Transport-Security"); !strings.HasPrefix(hsts, "max-age=") || hsts == "max-age=0" {
		t.Errorf("Strict-Transport-Security: %q", hsts)
	}
	if m := b.me(t); m.Name != "ada" || m.Via != "session" || !slices.Contains(m.Roles, "admin") {
		t.Errorf("signed in as %+v, want ada, via session, with the role admin", m)
	}
	alice := s.browser(t)
	alice.signIn(t, "/auth/login?login_hint=alice", sessionCookie)
	if m := alice.me(t); !slices.Equal(m.Roles, []string{"user"}) {
		t.Errorf("alice has the roles %q, want user alone", m.Roles)
	}
	b.do(t, http.MethodPost, "/auth/logout", nil, "Origin", s.public).want(t, http.StatusNoContent)
	b.get(t, "/v1/me").want(t, http.StatusUnauthorized)
}

func TestServeKeepsNotesFromTheirCreationToTheDeadZone(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	ada, alice := s.browser(t), s.browser(t)
	ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	alice.signIn(t, "/auth/login?login_hint=alice", sessionCookie)

	n := alice.write(t, "a first note")
	path := "/v1/notes/" + n.ID
	read := alice.get(t, path).want(t, http.StatusOK)
	changed := alice.do(t, http.MethodPatch, path, map[string]string{"title": "a better title"}, "If-Match", read.header.Get("ETag"))
	changed.want(t, http.StatusOK)
	alice.do(t, http.MethodPatch, path, map[string]string{"title": "too late"}, "If-Match", read.header.Get("ETag")).want(t, http.StatusPreconditionFailed)
	var after note
	alice.get(t, path).want(t, http.StatusOK).into(t, &after)
	if after.Title != "a better title" || after.Body != n.Body {
		t.Errorf("the note is %+v", after)
	}
	if notes := list[note](t, alice.client, "/v1/notes"); len(notes) != 1 || notes[0].ID != n.ID {
		t.Errorf("alice's list is %+v", notes)
	}
	alice.do(t, http.MethodDelete, path, nil).want(t, http.StatusNoContent)
	alice.get(t, path).want(t, http.StatusNotFound)
	alice.get(t, "/v1/deadzone").want(t, http.StatusForbidden)
	ada.do(t, http.MethodPost, "/v1/deadzone/"+n.ID+"/restore", nil).want(t, http.StatusOK)
	alice.get(t, path).want(t, http.StatusOK)
	alice.do(t, http.MethodDelete, path, nil).want(t, http.StatusNoContent)
	ada.do(t, http.MethodDelete, "/v1/deadzone/"+n.ID, nil).want(t, http.StatusNoContent)
	ada.get(t, "/v1/deadzone/"+n.ID).want(t, http.StatusNotFound)
}

// auditItem is what the tests use of an audit row.
type auditItem struct {
	Action    string `json:"action"`
	IP        string `json:"ip"`
	RequestID string `json:"request_id"`
}

func TestServeRecordsTheAddressThatItsProxySawAndNoForgedOne(t *testing.T) {
	t.Parallel()
	if browserAddress() == "127.0.0.1" {
		t.Skip("needs a second loopback address, as Linux has it")
	}
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	ada := s.browser(t)
	session := ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)

	// A caller that bypasses the proxy has its own address, whatever it claims.
	round := newBrowser(t, s.direct, nil, http.Header{"X-Forwarded-For": {forgedAddress}})
	round.token = session
	round.do(t, http.MethodPost, "/v1/keys", map[string]string{"name": "round the proxy"}).want(t, http.StatusCreated)

	var rows struct{ Items []auditItem }
	ada.get(t, "/v1/admin/audit").want(t, http.StatusOK).into(t, &rows)
	seen := map[string]bool{}
	for _, row := range rows.Items {
		seen[row.Action] = true
		if row.IP != browserAddress() {
			t.Errorf("%s is recorded from %q, want %s", row.Action, row.IP, browserAddress())
		}
		if row.RequestID == "" {
			t.Errorf("%s is recorded without its request", row.Action)
		}
	}
	for _, action := range []string{"session.create", "key.create"} {
		if !seen[action] {
			t.Errorf("no row of %s among %+v", action, rows.Items)
		}
	}
}

func TestServeRefusesRequestsFromOtherSites(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	b := s.browser(t)
	b.signIn(t, "/auth/login?login_hint=alice", sessionCookie)
	body := map[string]string{"title": "from a page", "body": ""}
	for _, headers := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
	} {
		a := b.do(t, http.MethodPost, "/v1/notes", body, headers...)
		if a.status != http.StatusForbidden || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%q: %d %s %s, want 403 as a problem", headers, a.status, a.header.Get("Content-Type"), a.body)
		}
	}
	for _, headers := range [][]string{
		{"Origin", s.public},
		{"Origin", s.public, "Sec-Fetch-Site", "same-origin"},
		nil, // no browser
	} {
		if a := b.do(t, http.MethodPost, "/v1/notes", body, headers...); a.status != http.StatusCreated {
			t.Errorf("%q: %d %s, want 201", headers, a.status, a.body)
		}
	}
	if notes := list[note](t, b.client, "/v1/notes"); len(notes) != 3 {
		t.Errorf("there are %d notes, want the 3 from the same site", len(notes))
	}
}

func TestServeShowsMetricsOnTheirOwnAddressAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	plainClient(s.direct, wrongToken).get(t, "/v1/me").wantUnauthorized(t)
	s.browser(t).get(t, "/metrics").want(t, http.StatusNotFound)
	plainClient(s.direct, "").get(t, "/metrics").want(t, http.StatusNotFound)
	a := foreignClient(s.metrics, "").get(t, "/metrics").want(t, http.StatusOK)
	for _, want := range []string{`noted_auth_failures_total{reason="unknown_session"} 1`, "noted_http_request_duration_seconds_count"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	foreignClient(s.metrics, "").get(t, "/v1/me").want(t, http.StatusNotFound)
}

func TestServeAnswersEveryFailedAuthenticationAlikeAndLate(t *testing.T) {
	const floor = 300 * time.Millisecond // the default
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	ada := s.browser(t)
	ended := ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	var key struct{ Secret string }
	ada.do(t, http.MethodPost, "/v1/keys", map[string]string{"name": "to mistype"}).want(t, http.StatusCreated).into(t, &key)
	ada.do(t, http.MethodPost, "/auth/logout", nil).want(t, http.StatusNoContent)

	c := plainClient(s.direct, "")
	var first http.Header
	for _, failed := range []struct {
		name, path string
		headers    []string
	}{
		{"a session that never was", "/v1/me", []string{"Authorization", "Bearer " + wrongToken}},
		{"a session that ended", "/v1/me", []string{"Authorization", "Bearer " + ended}},
		{"no token at all", "/v1/notes", []string{"Authorization", "Bearer hello"}},
		{"another scheme", "/v1/me", []string{"Authorization", "Basic YTpi"}},
		{"a mistyped key", "/v1/me", []string{"Authorization", "Bearer " + key.Secret[:len(key.Secret)-1] + "!"}},
		{"a cookie that never was", "/v1/me", []string{"Cookie", sessionCookie + "=" + wrongToken}},
		{"a callback that nobody began", "/auth/callback/corp?code=a&state=b", nil},
		{"an operation for admins", "/v1/admin/audit", []string{"Authorization", "Bearer " + wrongToken}},
	} {
		a := c.do(t, http.MethodGet, failed.path, nil, failed.headers...)
		if a.status != http.StatusUnauthorized || a.body != unauthorized {
			t.Errorf("%s: %d %q", failed.name, a.status, a.body)
		}
		if a.took < floor {
			t.Errorf("%s: answered after %s, want %s at least", failed.name, a.took, floor)
		}
		for _, name := range []string{"Date", "X-Request-Id"} {
			if len(a.header[name]) != 1 {
				t.Errorf("%s: %s is %q", failed.name, name, a.header[name])
			}
			a.header[name] = nil
		}
		if first == nil {
			first = a.header
		}
		if diff := cmp.Diff(first, a.header); diff != "" {
			t.Errorf("%s has other headers than the first failure:\n%s", failed.name, diff)
		}
	}
	want := map[string]string{"Content-Type": "application/problem+json", "Www-Authenticate": "Bearer", "Cache-Control": "no-store"}
	for name, value := range want {
		if first.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, first.Get(name), value)
		}
	}

	// A request without a credential learns nothing, so it need not wait. Take the fastest: the machine may be busy.
	fastest := time.Hour
	for range 10 {
		a := c.get(t, "/v1/me")
		a.wantUnauthorized(t)
		fastest = min(fastest, a.took)
	}
	if fastest >= floor {
		t.Errorf("with no credential the fastest answer took %s, want it at once", fastest)
	}
}

func TestServeIsNotReadyWhileItFinishesRequestsAfterSIGTERM(t *testing.T) {
	const floor = 3 * time.Second // so that the request is surely under way
	s := newSite(t, pgtest.URL(t), "auth_failure_floor: "+floor.String()+"\n")
	p := s.serve(t, nil)
	c := plainClient(s.direct, "")
	c.get(t, "/readyz").want(t, http.StatusOK)
	c.get(t, "/healthz").want(t, http.StatusOK)

	var last answer
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		last, err = plainClient(s.direct, wrongToken).try(t.Context(), http.MethodGet, "/v1/me", nil)
	}()
	p.await(t, startLimit, "the failure is logged, its answer still waits", func() bool {
		return strings.Contains(p.stderr.String(), "authentication failed")
	})
	p.signal(syscall.SIGTERM)
	p.await(t, settleLimit, "/readyz is 503", func() bool {
		a, err := c.try(t.Context(), http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusServiceUnavailable && a.header.Get("Content-Type") == "application/problem+json"
	})
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	<-done
	if err != nil {
		t.Fatalf("the request under way got no answer: %v", err)
	}
	last.wantUnauthorized(t)
}

func TestServeLogsJSONWithRequestIDsAndNoSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "log_level: debug\n")
	p := s.serve(t, nil)
	// The ID token passes through the test's provider.
	var tokens []string
	var mu sync.Mutex
	s.provider.SetLie(devidp.Lie{IDToken: func(signed string) string {
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, signed)
		return signed
	}})
	ada := s.browser(t)
	session := ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	var key struct{ Secret string }
	ada.do(t, http.MethodPost, "/v1/keys", map[string]string{"name": "a key"}).want(t, http.StatusCreated).into(t, &key)
	c := plainClient(s.direct, key.Secret)
	c.get(t, "/v1/me").want(t, http.StatusOK)
	c.do(t, http.MethodGet, "/v1/notes?token="+session, nil)
	broken := key.Secret[:len(key.Secret)-1]
	plainClient(s.direct, broken).get(t, "/v1/me").wantUnauthorized(t)
	plainClient(s.direct, session+"1").get(t, "/v1/me").wantUnauthorized(t)
	// Make provider and browser fail in the ways that put codes and tokens into error messages.
	s.provider.SetLie(devidp.Lie{IDToken: func(signed string) string {
		mu.Lock()
		defer mu.Unlock()
		signed = signed[:len(signed)-4]
		tokens = append(tokens, signed)
		return signed
	}})
	stranger := s.browser(t)
	stranger.get(t, "/auth/login?login_hint=ada").want(t, http.StatusUnauthorized)
	s.provider.SetLie(devidp.Lie{Response: func(v url.Values) { v.Set("code", "a-code-that-never-was") }})
	stranger.get(t, "/auth/login?login_hint=ada").want(t, http.StatusUnauthorized)
	known := ada.get(t, "/v1/me").header.Get("X-Request-Id")
	ada.do(t, http.MethodPost, "/auth/logout", nil)
	p.stop(t)

	text := p.stderr.String()
	found := false
	requests := 0
	for line := range strings.Lines(text) {
		var entry struct {
			Level, Msg string
			RequestID  string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("no line of JSON: %q: %v", line, err)
			continue
		}
		if entry.Msg == "request" {
			requests++
			if entry.RequestID == "" {
				t.Errorf("a request without its id: %s", line)
			}
			found = found || entry.RequestID == known
		}
	}
	if requests < 10 || !found {
		t.Errorf("%d requests are logged; the one with the id %s: %v", requests, known, found)
	}
	secrets := slices.Concat([]string{session, session[6:], broken, broken[len(broken)-48:], clientSecret}, tokens, ada.seen.secrets, stranger.seen.secrets)
	for _, line := range slices.Concat(ada.seen.cookies, stranger.seen.cookies) {
		if cookie, err := http.ParseSetCookie(line); err == nil {
			secrets = append(secrets, cookie.Value)
		}
	}
	wantNone(t, "the log", text, secrets)
}

func TestServeTakesAFlagBeforeAVariableBeforeTheFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "log_level: error\ndead_zone_retention: 240h\n")
	var session string
	for _, c := range []struct {
		name      string
		env       []string
		flags     []string
		retention time.Duration
		logs      bool // at level info
	}{
		{"the file", nil, nil, 240 * time.Hour, false},
		{"a variable", []string{"NOTED_LOG_LEVEL=info", "NOTED_DEAD_ZONE_RETENTION=48h"}, nil, 48 * time.Hour, true},
		{
			"a flag", []string{"NOTED_LOG_LEVEL=error", "NOTED_DEAD_ZONE_RETENTION=48h"},
			[]string{"--log-level", "info", "--dead-zone-retention=72h"}, 72 * time.Hour, true,
		},
		{"a flag without a variable", nil, []string{"--log-level=info", "--dead-zone-retention", "96h"}, 96 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := s.serve(t, c.env, c.flags...)
			if session == "" {
				session = s.browser(t).signIn(t, "/auth/login?login_hint=ada", sessionCookie)
			}
			ada := plainClient(s.direct, session)
			n := ada.write(t, "to be deleted under "+c.name)
			ada.do(t, http.MethodDelete, "/v1/notes/"+n.ID, nil).want(t, http.StatusNoContent)
			ada.get(t, "/v1/deadzone/"+n.ID).want(t, http.StatusOK).into(t, &n)
			if waits := n.PurgeAt.Sub(n.DeletedAt).Round(time.Second); waits != c.retention {
				t.Errorf("the note waits %s, want %s", waits, c.retention)
			}
			p.stop(t)
			if logs := strings.Contains(p.stderr.String(), `"msg":"serving"`); logs != c.logs {
				t.Errorf("it logs at level info: %v, want %v", logs, c.logs)
			}
		})
	}
}

func TestServeSaysThatADeadDatabaseIsAwayAndComesBackWithIt(t *testing.T) {
	t.Parallel()
	data := publicFolder(t, nil)
	t.Cleanup(func() { removePlace(t, data) })
	postgres := startPostgres(t, data)
	// Each start of localpg has its own socket folder. A link to it is a stable address.
	link := filepath.Join(publicFolder(t, nil), "socket")
	point(t, link, postgres)
	s := newSite(t, "postgres:///postgres?host="+url.QueryEscape(link)+"&port=5432&user=noted&sslmode=disable", "")
	p := s.serve(t, nil)
	session := s.browser(t).signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	ada := plainClient(s.direct, session)
	kept := ada.write(t, "written before")
	var key struct{ Secret string }
	ada.do(t, http.MethodPost, "/v1/keys", map[string]string{"name": "a key"}).want(t, http.StatusCreated).into(t, &key)

	// Meanwhile somebody works on: they may see that the database is away, but no other failure.
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	var mu sync.Mutex
	told := map[string]string{}
	for _, token := range []string{session, key.Secret} {
		working.Go(func() {
			for c := plainClient(s.direct, token); ctx.Err() == nil; {
				for _, path := range []string{"/v1/me", "/v1/notes", "/v1/notes/" + kept.ID} {
					if a, err := c.try(ctx, http.MethodGet, path, nil); err == nil {
						mu.Lock()
						told[fmt.Sprintf("%d %s", a.status, a.header.Get("Content-Type"))] = a.body
						mu.Unlock()
					}
				}
			}
		})
	}
	if err := postgres.Stop(); err != nil {
		t.Fatalf("stopping PostgreSQL: %v", err)
	}
	for _, c := range []client{ada, plainClient(s.direct, key.Secret), plainClient(s.direct, wrongToken)} {
		for _, path := range []string{"/v1/me", "/v1/notes"} {
			a := c.get(t, path)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s with the database away: %d %s, want 503 as a problem", path, a.status, a.body)
			}
		}
	}
	open := plainClient(s.direct, "")
	open.get(t, "/healthz").want(t, http.StatusOK)
	if a := open.get(t, "/readyz"); a.status != http.StatusServiceUnavailable || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("/readyz with the database away: %d %s", a.status, a.body)
	}

	point(t, link, startPostgres(t, data))
	p.await(t, startLimit, "it is ready again", func() bool {
		a, err := open.try(t.Context(), http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK
	})
	p.await(t, settleLimit, "the session counts again", func() bool { return ada.get(t, "/v1/me").status == http.StatusOK })
	ada.get(t, "/v1/notes/"+kept.ID).want(t, http.StatusOK)
	ada.write(t, "written afterwards")
	cancel()
	working.Wait()
	for status, body := range told {
		if !strings.HasPrefix(status, "200 ") && status != "503 application/problem+json" {
			t.Errorf("while the database went and came somebody was told %s %s", status, body)
		}
	}
	p.stop(t)
}

func startPostgres(t *testing.T, data string) *localpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	postgres, err := localpg.Start(ctx, localpg.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	return postgres
}

// point makes the link point to the server's socket folder.
func point(t *testing.T, link string, postgres *localpg.Server) {
	t.Helper()
	address, err := url.Parse(postgres.URL("postgres"))
	if err == nil {
		err = os.Symlink(address.Query().Get("host"), link+".new")
	}
	if err == nil {
		err = os.Rename(link+".new", link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestServeEndsWithAnErrorWhenItsAddressIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	address := strings.TrimPrefix(s.direct, "http://")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	code, p := run(t, command{args: []string{"serve", "--config", s.config}, dir: s.dir})
	if text := p.stderr.String(); code == 0 || !strings.Contains(text, "listen") || !strings.Contains(text, address) {
		t.Errorf("exit code %d, %s; want an error that names listen and %s", code, bytes.TrimSpace([]byte(text)), address)
	}
}
