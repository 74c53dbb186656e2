package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/contract"
)

// unauthorized is the exact body of every failed authentication (API.md).
const unauthorized = `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`

// answer is an answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	url    string // the last, after redirects
	took   time.Duration
}

// into decodes the body.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v in %d %s", err, a.status, a.body)
	}
}

// want fails unless the status is this one.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%s: status %d, want %d: %s", a.url, a.status, status, a.body)
	}
	return a
}

// client sends requests; its fields go with each of them.
type client struct {
	http  *http.Client
	base  string
	token string // sent as a bearer token, if there is one

	foreign bool // the server is not noted's API
}

// plainClient has no cookies, no redirects, and a new connection for each request: none is reused after a server
// has ended.
func plainClient(base, token string) client {
	return client{base: base, token: token, http: &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// foreignClient is plainClient for servers without a document: a provider, metrics_listen, or the callback of
// check-provider.
func foreignClient(base, token string) client {
	c := plainClient(base, token)
	c.foreign = true
	return c
}

// browser keeps cookies and follows redirects. It trusts the test's TLS proxy, remembers what servers sent, and
// calls from an address that no proxy has.
type browser struct {
	client
	seen *seen
}

// seen is a transport that records cookies set and secrets in addresses.
type seen struct {
	next    http.RoundTripper
	header  http.Header // sent with each request
	mu      sync.Mutex
	cookies []string // Set-Cookie, as sent
	secrets []string
}

func (s *seen) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range s.header {
		r.Header[name] = values
	}
	response, err := s.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cookies = append(s.cookies, response.Header.Values("Set-Cookie")...)
	for _, name := range []string{"code", "state", "nonce", "code_challenge"} {
		if value := r.URL.Query().Get(name); value != "" {
			s.secrets = append(s.secrets, value)
		}
	}
	return response, nil
}

// cookieNamed returns the last cookie of the name that a server set to a value.
func (s *seen) cookieNamed(t *testing.T, name string) *http.Cookie {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range slices.Backward(s.cookies) {
		if cookie, err := http.ParseSetCookie(line); err == nil && cookie.Name == name && cookie.Value != "" {
			return cookie
		}
	}
	t.Fatalf("no cookie %s among %q", name, s.cookies)
	return nil
}

// browserAddress is a browser's own address: Linux has all of 127/8, and a test of X-Forwarded-For needs a client
// at another address than the proxy.
func browserAddress() string {
	if runtime.GOOS == "linux" {
		return "127.0.0.2"
	}
	return "127.0.0.1"
}

func newBrowser(t *testing.T, base string, trusted *tls.Config, header http.Header) browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(browserAddress())}, Timeout: 10 * time.Second}
	transport := &http.Transport{TLSClientConfig: trusted, DialContext: dialer.DialContext, DisableKeepAlives: true}
	s := &seen{next: transport, header: header}
	return browser{client{base: base, http: &http.Client{Jar: jar, Transport: s, Timeout: 20 * time.Second}}, s}
}

// try sends one request. body is sent as JSON; nil means none. headers are pairs: name, value.
func (c client) try(ctx context.Context, method, path string, body any, headers ...string) (answer, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	began := time.Now()
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{response.StatusCode, response.Header, string(text), response.Request.URL.String(), time.Since(began)}
	return a, c.held(ctx, response.Request, a)
}

// held checks a server's answer against its own document; a redirect may have led elsewhere.
func (c client) held(ctx context.Context, r *http.Request, a answer) error {
	if c.foreign || !strings.HasPrefix(a.url, c.base+"/") {
		return nil
	}
	document, err := documentOf(ctx, c.http.Transport, c.base)
	if err != nil {
		return err
	}
	if err := document.Check(r, a.status, a.header, []byte(a.body)); err != nil {
		return fmt.Errorf("%s %s answers %d, not as in /openapi.json: %w", r.Method, a.url, a.status, err)
	}
	return nil
}

// documents caches servers' documents by address.
var documents sync.Map

func documentOf(ctx context.Context, by http.RoundTripper, base string) (*contract.Document, error) {
	if document, ok := documents.Load(base); ok {
		return document.(*contract.Document), nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/openapi.json", nil)
	if err != nil {
		return nil, err
	}
	response, err := by.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	document, err := contract.Parse(text)
	if err == nil {
		documents.Store(base, document)
	}
	return document, err
}

// do is try for requests that must get an answer.
func (c client) do(t *testing.T, method, path string, body any, headers ...string) answer {
	t.Helper()
	a, err := c.try(t.Context(), method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (c client) get(t *testing.T, path string) answer {
	t.Helper()
	return c.do(t, http.MethodGet, path, nil)
}

// me is GET /v1/me.
type me struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Via   string   `json:"via"`
	Roles []string `json:"roles"`
	Orgs  []struct {
		Name string `json:"name"`
		Role string `json:"role"`
	} `json:"orgs"`
}

func (c client) me(t *testing.T) (m me) {
	t.Helper()
	c.get(t, "/v1/me").want(t, http.StatusOK).into(t, &m)
	return m
}

// note is what the tests use of a note, in the Dead Zone too.
type note struct {
	ID        string    `json:"id"`
	Title     string    `json:"title"`
	Body      string    `json:"body"`
	DeletedAt time.Time `json:"deleted_at"`
	PurgeAt   time.Time `json:"purge_at"`
}

// write makes a note.
func (c client) write(t *testing.T, title string) (n note) {
	t.Helper()
	c.do(t, http.MethodPost, "/v1/notes", map[string]string{"title": title, "body": "The body of " + title}).
		want(t, http.StatusCreated).into(t, &n)
	return n
}

// list reads a whole list.
func list[T any](t *testing.T, c client, path string) (items []T) {
	t.Helper()
	for cursor := ""; ; {
		var page struct {
			Items []T     `json:"items"`
			Next  *string `json:"next_cursor"`
		}
		c.get(t, path+"?limit=200"+cursor).want(t, http.StatusOK).into(t, &page)
		if page.Items == nil {
			t.Fatalf("%s has no items", path)
		}
		items = append(items, page.Items...)
		if page.Next == nil {
			return items
		}
		cursor = "&cursor=" + *page.Next
	}
}

// signIn signs somebody in by following redirects, and returns the session's token.
func (b browser) signIn(t *testing.T, login, cookieName string) string {
	t.Helper()
	a := b.get(t, login+"&return_to=/v1/me").want(t, http.StatusOK)
	if !strings.HasPrefix(a.url, b.base) {
		t.Fatalf("signing in ended at %s, want below %s", a.url, b.base)
	}
	return b.seen.cookieNamed(t, cookieName).Value
}

// failure is the one answer of a failed authentication.
func (a answer) wantUnauthorized(t *testing.T) {
	t.Helper()
	if a.status != http.StatusUnauthorized || a.body != unauthorized || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %q %q, want the one answer of a failed authentication", a.status, a.header.Get("Content-Type"), a.body)
	}
}

// wrongToken is well-formed but invalid.
var wrongToken = "nsess_" + strings.Repeat("1", 43)

// freePort returns a free port of 127.0.0.1, below those that the system assigns, so that nobody takes it before
// the process under test does.
func freePort(t *testing.T) int {
	t.Helper()
	var err error
	for range 100 {
		port := 10000 + rand.IntN(20000) //nolint:gosec // no secret
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			if err = l.Close(); err == nil {
				return port
			}
		}
	}
	t.Fatal(errors.Join(errors.New("no free port"), err))
	return 0
}
