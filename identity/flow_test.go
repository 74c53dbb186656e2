package identity_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"noted/server/servertest"
)

// unauthorized is the one body of every failed authentication.
const unauthorized = `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`

// browser keeps cookies and follows no redirects, so that a test sees each step.
type browser struct {
	env    *servertest.Env
	client *http.Client
}

func newBrowser(t testing.TB, env *servertest.Env) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{env, &http.Client{
		Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// try is get without a test, for goroutines.
func (b *browser) try(ctx context.Context, address string, headers ...string) (servertest.Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return servertest.Answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := b.client.Do(r)
	if err != nil {
		return servertest.Answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return servertest.Answer{Status: response.StatusCode, Header: response.Header, Body: body}, err
}

func (b *browser) get(t testing.TB, address string, headers ...string) servertest.Answer {
	t.Helper()
	a, err := b.try(t.Context(), address, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// begin starts a sign-in and returns the address at the provider.
func (b *browser) begin(t testing.TB, name string) *url.URL {
	t.Helper()
	a := b.get(t, b.env.URL+"/auth/login?provider=dev&return_to=/version&login_hint="+name)
	return location(t, a, http.StatusFound)
}

// atProvider signs the person in there, and returns where the browser is sent back to.
func (b *browser) atProvider(t testing.TB, authorize *url.URL) *url.URL {
	t.Helper()
	return location(t, b.get(t, authorize.String()), http.StatusSeeOther)
}

// callback is begin and atProvider.
func (b *browser) callback(t testing.TB, name string) *url.URL {
	t.Helper()
	return b.atProvider(t, b.begin(t, name))
}

// session is the session cookie's value, or "".
func (b *browser) session() string {
	u, _ := url.Parse(b.env.URL)
	for _, cookie := range b.client.Jar.Cookies(u) {
		if cookie.Name == "noted_session" {
			return cookie.Value
		}
	}
	return ""
}

func location(t testing.TB, a servertest.Answer, status int) *url.URL {
	t.Helper()
	if a.Status != status {
		t.Fatalf("want %d, got %d %s", status, a.Status, a.Body)
	}
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// want requires an answer's status.
func want(t testing.TB, status int, a servertest.Answer) servertest.Answer {
	t.Helper()
	return a.Want(t, status)
}

// number asks the database for a number.
func number(t testing.TB, env *servertest.Env, sql string, args ...any) (n int) {
	t.Helper()
	if err := env.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// user returns the id of a dev provider's person.
func user(t testing.TB, env *servertest.Env, name string) (id string) {
	t.Helper()
	if err := env.Pool.QueryRow(t.Context(), `select user_id::text from identities where subject = $1`, name).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// sameHeaders compares all headers except those that differ in each answer.
func sameHeaders(t testing.TB, what string, got, first http.Header) {
	t.Helper()
	strip := func(h http.Header) http.Header {
		h = h.Clone()
		for _, name := range []string{"Date", "X-Request-Id"} {
			if len(h[name]) != 1 {
				t.Errorf("%s: %d headers %s", what, len(h[name]), name)
			}
			h.Del(name)
		}
		return h
	}
	if diff := cmp.Diff(strip(first), strip(got)); diff != "" {
		t.Errorf("%s: the headers differ:\n%s", what, diff)
	}
}

// checkRefused requires the one answer.
func checkRefused(t testing.TB, what string, a servertest.Answer) {
	t.Helper()
	if a.Status != http.StatusUnauthorized || string(a.Body) != unauthorized {
		t.Errorf("%s: %d %s", what, a.Status, a.Body)
	}
	for name, value := range map[string]string{"Content-Type": "application/problem+json", "WWW-Authenticate": "Bearer", "Cache-Control": "no-store"} {
		if got := a.Header.Values(name); !slices.Equal(got, []string{value}) {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	if cookies := a.Header.Values("Set-Cookie"); len(cookies) > 0 {
		t.Errorf("%s: sets %q", what, cookies)
	}
}

// logOf returns the log's lines about the answer's request.
func logOf(env *servertest.Env, a servertest.Answer) string {
	var lines strings.Builder
	for line := range strings.Lines(env.Log.String()) {
		if strings.Contains(line, a.Header.Get("X-Request-Id")) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}
