package web_test

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"noted"
	"noted/identity/oidc"
	"noted/server"
	"noted/server/servertest"
)

// get follows redirects like a browser and returns the page.
func get(t *testing.T, browser *http.Client, address string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	response, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", address, response.Status, err)
	}
	return string(body)
}

func TestPersonSignsInAndOutByThePages(t *testing.T) {
	env := servertest.New(t)
	browser := env.Browser(t)
	stranger := get(t, browser, env.URL+"/")
	if !strings.Contains(stranger, "not signed in") || !strings.Contains(stranger, "Sign in with dev") || !strings.Contains(stranger, `href="/docs"`) {
		t.Errorf("a stranger sees %s", stranger)
	}
	link := regexp.MustCompile(`href="(/auth/login[^"]*)"`).FindStringSubmatch(stranger)
	if link == nil {
		t.Fatalf("no link to sign in: %s", stranger)
	}
	signedIn := get(t, browser, env.URL+strings.ReplaceAll(link[1], "&amp;", "&")+"&login_hint=mona")
	if !strings.Contains(signedIn, "<strong>mona</strong> (mona@dev.example)") || !strings.Contains(signedIn, "moderator, user") {
		t.Errorf("mona sees %s", signedIn)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env.URL+"/auth/logout", strings.NewReader(url.Values{}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	response, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.Request.URL.String() != env.URL+"/" {
		t.Errorf("signing out ended at %s", response.Request.URL)
	}
	if page := get(t, browser, env.URL+"/"); !strings.Contains(page, "not signed in") {
		t.Errorf("after signing out: %s", page)
	}
}

// An expired cookie locks nobody out of the page that lets them sign in again.
func TestPageAtRootNeverFailsForACredential(t *testing.T) {
	env := servertest.New(t)
	for _, header := range []string{"Bearer nsess_x", "Basic eDp5", "Bearer noted_x"} {
		a := env.Do(t, http.MethodGet, "/", "", nil, "Authorization", header)
		if a.Status != http.StatusOK || !strings.Contains(string(a.Body), "not signed in") {
			t.Errorf("%s: %d %s", header, a.Status, a.Body)
		}
	}
	if a := env.Do(t, http.MethodGet, "/", "", nil, "Cookie", "noted_session=nsess_gone"); a.Status != http.StatusOK {
		t.Errorf("cookie: %d", a.Status)
	}
}

// All that the pages load comes from this server, and exists.
func TestDocsNeedNoOutsideNetwork(t *testing.T) {
	env := servertest.New(t)
	for _, path := range []string{"/", "/docs"} {
		a := env.Do(t, http.MethodGet, path, "", nil)
		sources := regexp.MustCompile(`(?:src|href)="([^"]+\.(?:js|css))"`).FindAllStringSubmatch(string(a.Body), -1)
		if len(sources) == 0 {
			t.Errorf("%s loads nothing: %s", path, a.Body)
		}
		for _, source := range sources {
			if !strings.HasPrefix(source[1], "/") || strings.HasPrefix(source[1], "//") {
				t.Errorf("%s loads %s", path, source[1])
			}
			if got := env.Do(t, http.MethodGet, source[1], "", nil); got.Status != http.StatusOK || len(got.Body) == 0 {
				t.Errorf("%s: %d", source[1], got.Status)
			}
		}
		if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src '") || strings.Contains(policy, "script-src 'self' 'unsafe") {
			t.Errorf("%s: %s", path, policy)
		}
	}
	for _, path := range []string{"/static/", "/static/nothing.js", "/docs/nothing", "/docs/", "/static/..%2f..%2fpages.html"} {
		if a := env.Do(t, http.MethodGet, path, "", nil); a.Status != http.StatusNotFound || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, a.Status, a.Header.Get("Content-Type"))
		}
	}
}

// linkButton starts linking a sign-in of dev.
const linkButton = `data-link="dev"`

func TestLinkingIsOfferedOnlyWhereItCanSucceed(t *testing.T) {
	var provider *oidc.Provider
	policy := `nobody may link`
	env := servertest.New(t, func(o *server.Options) { provider = o.Providers[0] })
	alice := env.SignIn(t, "alice")
	see := func() string { return string(env.Do(t, http.MethodGet, "/", alice, nil).Body) }
	if text := see(); !strings.Contains(text, linkButton) || !strings.Contains(text, "/static/link.js") {
		t.Errorf("a fresh session at a provider with others: %s", text)
	}
	// If everybody's sign-in is taken, every choice would be refused.
	provider.Subjects = []string{"alice", "bob"}
	if text := see(); !strings.Contains(text, linkButton) {
		t.Errorf("bob has no account yet: %s", text)
	}
	env.SignIn(t, "bob")
	if text := see(); strings.Contains(text, "data-link") || strings.Contains(text, "/static/link.js") || strings.Contains(text, "another sign-in") {
		t.Errorf("both have accounts: %s", text)
	}
	provider.Subjects = nil
	// An old sign-in cannot start linking, and is told what helps.
	env.Exec(t, `update sessions set signed_in_at = now() - interval '5 minutes'`)
	if text := see(); strings.Contains(text, "data-link") || !strings.Contains(text, "sign out and in again") {
		t.Errorf("an old sign-in: %s", text)
	}
	narrow := servertest.New(t, func(o *server.Options) {
		text := strings.ReplaceAll(string(noted.Policy), "p, user, identity:own, write", "# "+policy)
		if strings.Count(text, policy) != 1 {
			t.Fatalf("the policy has not the one line about linking")
		}
		changed, err := servertest.LoadPolicy([]byte(text))
		o.Policy = servertest.Fixed(t, changed, err)
	})
	if text := string(narrow.Do(t, http.MethodGet, "/", narrow.SignIn(t, "alice"), nil).Body); strings.Contains(text, "data-link") || strings.Contains(text, "another sign-in") {
		t.Errorf("somebody who may not link: %s", text)
	}
}

// The provider must let the person choose: its own choice is already linked.
func TestAnotherAccountCanBeChosenAtTheProvider(t *testing.T) {
	env := servertest.New(t)
	prompt := func(address string) []string {
		t.Helper()
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return u.Query()["prompt"]
	}
	var link struct{ URL string }
	env.Do(t, http.MethodPost, "/v1/me/identities", env.SignIn(t, "alice"), map[string]string{"provider": "dev"}).JSON(t, &link)
	if got := prompt(link.URL); len(got) != 1 || got[0] != "select_account" {
		t.Errorf("to link, the provider is asked for %q", got)
	}
	for query, want := range map[string]string{
		"": "", "&prompt=select_account": "select_account", "&prompt=none": "", "&prompt=login": "", "&prompt=select_account+login": "", "&prompt=SELECT_ACCOUNT": "",
	} {
		a := env.Do(t, http.MethodGet, "/auth/login?provider=dev"+query, "", nil)
		if got := strings.Join(prompt(a.Header.Get("Location")), "|"); a.Status != http.StatusFound || got != want {
			t.Errorf("%q: %d, the provider is asked for %q, want %q", query, a.Status, got, want)
		}
	}
}
