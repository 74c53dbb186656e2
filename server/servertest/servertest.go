package servertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted"
	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/contract"
	"noted/internal/devidp"
	"noted/internal/localpg/pgtest"
	"noted/server"
)

// Env is a running server.
type Env struct {
	URL      string // http://127.0.0.1:PORT
	Server   *server.Server
	Pool     *pgxpool.Pool // the server's database
	Provider *devidp.Provider
	Issuer   string
	Log      *Log

	statements *statements
}

// Log keeps what the server logs.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// People are the provider's: subject and name, with the e-mail NAME@dev.example. ada is a platform admin, mona a
// moderator.
var People = []string{"alice", "bob", "mona", "ada", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"}

// Floor is the auth_failure_floor of a test's server, unless it sets another.
const Floor = 30 * time.Millisecond

// Defaults are the settings of `noted serve` with nothing configured.
func Defaults(t testing.TB) server.Settings {
	t.Helper()
	var c struct{ server.Settings }
	parser, err := kong.New(&c, server.DurationFlags())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(nil); err != nil {
		t.Fatal(err)
	}
	return c.Settings
}

// LoadPolicy is a policy with the provider's people: ada is an admin, mona a moderator.
func LoadPolicy(text []byte) (*authz.Policy, error) {
	return authz.Load(
		authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: text},
		authz.Grouping{Who: "dev:ada", Role: "admin"}, authz.Grouping{Who: "dev:mona", Role: "moderator"})
}

// shippedPolicy is policy.csv, compiled once for all servers with no other policy.
var shippedPolicy = sync.OnceValues(func() (*authz.Policy, error) { return LoadPolicy(noted.Policy) })

// Fixed is a policy that stays in force.
func Fixed(t testing.TB, policy *authz.Policy, err error) *authz.InForce {
	t.Helper()
	fixed, err := authz.NewInForce(func() (*authz.Policy, error) { return policy, err })
	if err != nil {
		t.Fatal(err)
	}
	return fixed
}

// New starts a server on a fresh database; change may alter its options. It ends with the test.
func New(t testing.TB, change ...func(*server.Options)) *Env {
	t.Helper()
	return NewOn(t, pgtest.URL(t), change...)
}

// NewOn is New on a given database, which two servers may share. Each has its own provider.
func NewOn(t testing.TB, databaseURL string, change ...func(*server.Options)) *Env {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{URL: "http://" + listener.Addr().String(), Log: &Log{}, statements: &statements{}}
	provider := env.startProvider(t)
	policy, err := authz.NewInForce(shippedPolicy)
	if err != nil {
		t.Fatal(err)
	}
	settings := Defaults(t)
	settings.DatabaseURL, settings.PublicURL = databaseURL, env.URL
	settings.AuthFailureFloor, settings.AuthFailuresPerMinute = Floor, 0
	// Shutdown takes a connection with nothing sent yet for busy during 5 s.
	settings.ShutdownGrace = 20 * time.Second
	options := server.Options{
		Settings: settings, Providers: oidc.Providers{provider}, Policy: policy, Dev: true, Version: "test",
		Log:    slog.New(slog.NewTextHandler(env.Log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Tracer: env.statements,
	}
	var held *contract.Held
	options.Around = func(next http.Handler) http.Handler { return held.Around(next) }
	for _, c := range change {
		c(&options)
	}
	ctx, cancel := context.WithCancel(context.Background())
	env.Server, err = server.Open(ctx, options)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	env.Pool = env.Server.Pool
	t.Cleanup(func() { env.statements.check(t) })
	text, err := env.Server.Document()
	if err != nil {
		t.Fatal(err)
	}
	document, err := contract.Parse(text)
	if err != nil {
		t.Fatalf("/openapi.json: %v", err)
	}
	held = contract.Hold(document)
	done := make(chan error, 1)
	go func() { done <- env.Server.Run(ctx, listener, nil) }()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		env.Server.Close()
		for _, difference := range held.Differences() {
			t.Errorf("not as in /openapi.json: %s", difference)
		}
	})
	return env
}

// keyring holds the providers' first keys. Making one takes longer than the rest of a server's start, so tests
// share them. The servers of one test, including its subtests, have different ones.
type keyring struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
	used map[string]int // by test name
}

var keys = keyring{used: map[string]int{}}

func (k *keyring) next(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	test, _, _ := strings.Cut(t.Name(), "/")
	i := k.used[test]
	k.used[test]++
	if i == len(k.keys) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		k.keys = append(k.keys, key)
	}
	return k.keys[i]
}

func (e *Env) startProvider(t testing.TB) *oidc.Provider {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	e.Issuer = "http://" + srv.Listener.Addr().String()
	var people []devidp.Person
	for _, name := range People {
		people = append(people, devidp.Person{Subject: name, Name: name, Email: name + "@dev.example", EmailVerified: true})
	}
	var err error
	e.Provider, err = devidp.New(devidp.Config{
		Issuer: e.Issuer, ClientID: "noted", ClientSecret: "for this test", People: people, Key: keys.next(t),
		RedirectURIs:           []string{e.URL + "/auth/callback/dev"},
		PostLogoutRedirectURIs: []string{e.URL + "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = e.Provider
	srv.Start()
	t.Cleanup(srv.Close)
	return &oidc.Provider{
		ID: "dev", Name: "dev", Issuer: e.Issuer, ClientID: "noted", ClientSecret: "for this test",
		Scopes: []string{"openid", "email", "profile"}, EmailDomains: []string{"dev.example"}, GroupsClaims: []string{"groups"},
	}
}

// Answer is an answer, read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Want ends the test unless the answer has the status, and returns the answer.
func (a Answer) Want(t testing.TB, status int) Answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("want %d, got %d %s", status, a.Status, a.Body)
	}
	return a
}

// JSON decodes the body.
func (a Answer) JSON(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, into); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
}

// Do sends one request and follows no redirect. token may be empty. A string or []byte body is sent as it is, any
// other as JSON, and nil means none. headers are pairs: name, value.
func (e *Env) Do(t testing.TB, method, path, token string, body any, headers ...string) Answer {
	t.Helper()
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(body)
	case []byte:
		reader = bytes.NewReader(body)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if reader != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return Send(t, http.DefaultTransport, r)
}

// Send sends r over the transport.
func Send(t testing.TB, transport http.RoundTripper, r *http.Request) Answer {
	t.Helper()
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{response.StatusCode, response.Header, body}
}

// Browser is a client with cookies, which follows redirects.
func (e *Env) Browser(t testing.TB) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 20 * time.Second}
}

// SignIn signs a person in through the provider and returns the session's token.
func (e *Env) SignIn(t testing.TB, name string) string {
	t.Helper()
	browser := e.Browser(t)
	response, err := browser.Get(e.URL + "/auth/login?provider=dev&return_to=/version&login_hint=" + name)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	for _, cookie := range browser.Jar.Cookies(response.Request.URL) {
		if cookie.Name == "noted_session" {
			return cookie.Value
		}
	}
	t.Fatalf("%s is not signed in: %s at %s", name, response.Status, response.Request.URL)
	return ""
}

// NewKey makes an API key with a session and returns its id and the key itself.
func (e *Env) NewKey(t testing.TB, session, role string) (id, token string) {
	t.Helper()
	a := e.Do(t, http.MethodPost, "/v1/keys", session, map[string]any{"name": role, "role": role})
	if a.Status != http.StatusCreated {
		t.Fatalf("making a key: %d %s", a.Status, a.Body)
	}
	var key struct{ ID, Secret string }
	a.JSON(t, &key)
	return key.ID, key.Secret
}

// Make creates a thing by POST and returns its id.
func (e *Env) Make(t testing.TB, token, path string, body map[string]any) string {
	t.Helper()
	a := e.Do(t, http.MethodPost, path, token, body)
	if a.Status != http.StatusCreated {
		t.Fatalf("POST %s %v: %d %s", path, body, a.Status, a.Body)
	}
	var made struct{ ID string }
	a.JSON(t, &made)
	return made.ID
}

// NewOrg makes an organization whose admin is the caller.
func (e *Env) NewOrg(t testing.TB, token, name string) string {
	t.Helper()
	return e.Make(t, token, "/v1/orgs", map[string]any{"name": name})
}

// Join makes the person a member by invitation, and returns a session of theirs.
func (e *Env) Join(t testing.TB, admin, org, name, role string) string {
	t.Helper()
	a := e.Do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", admin, map[string]any{"email": name + "@dev.example", "role": role})
	if a.Status != http.StatusCreated {
		t.Fatalf("inviting %s: %d %s", name, a.Status, a.Body)
	}
	var invitation struct{ Token string }
	a.JSON(t, &invitation)
	session := e.SignIn(t, name)
	if a := e.Do(t, http.MethodPost, "/v1/invitations/accept", session, map[string]any{"token": invitation.Token}); a.Status != http.StatusOK {
		t.Fatalf("%s accepts: %d %s", name, a.Status, a.Body)
	}
	return session
}

// NewNote writes a note and returns its id.
func (e *Env) NewNote(t testing.TB, token, title string) string {
	t.Helper()
	a := e.Do(t, http.MethodPost, "/v1/notes", token, map[string]any{"title": title, "body": "body of " + title})
	if a.Status != http.StatusCreated {
		t.Fatalf("making a note: %d %s", a.Status, a.Body)
	}
	var note struct{ ID string }
	a.JSON(t, &note)
	return note.ID
}

// NewDeadNote writes a note, deletes it, and returns its id.
func (e *Env) NewDeadNote(t testing.TB, token, title string) string {
	t.Helper()
	id := e.NewNote(t, token, title)
	if a := e.Do(t, http.MethodDelete, "/v1/notes/"+id, token, nil); a.Status != http.StatusNoContent {
		t.Fatalf("deleting a note: %d %s", a.Status, a.Body)
	}
	return id
}

// Recorded waits until all failed authentications so far are in the record.
func (e *Env) Recorded(t testing.TB) {
	t.Helper()
	if err := e.Server.Failures.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Exec runs SQL that no client can: it moves time.
func (e *Env) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	defer e.Server.Identity.Forget() // so that it notices at once, not a moment later
	if _, err := e.Pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
