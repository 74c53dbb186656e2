package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/internal/localpg/pgtest"
)

var trialAddress = regexp.MustCompile(`(?m)^  (http\S+/authorize\S+)$`)

// wantLines checks that the output has all of them.
func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(text) {
			t.Errorf("no line %q in:\n%s", line, text)
		}
	}
}

func TestCheckProviderAsksForDiscoveryKeysAndTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, "postgres://nowhere.invalid/none", "")
	code, p := run(t, command{args: []string{"check-provider", "corp", "--config", s.config}, dir: s.dir})
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	wantLines(t, p.stdout.String(), `discovery         ok: http://127\.0\.0\.1:\d+`, `keys              ok: 1`, `clock difference  -?[01]s`,
		`redirect URI      `+regexp.QuoteMeta(s.public)+`/auth/callback/corp .*`)
	if code, p := run(t, command{args: []string{"check-provider", "other", "--config", s.config}, dir: s.dir}); code != 1 || !strings.Contains(p.stderr.String(), `no provider with the id "other"`) {
		t.Errorf("an unknown id: exit %d, %s", code, p.stderr.String())
	}
	s.provider.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { doc["issuer"] = "https://elsewhere.example" }})
	if code, p := run(t, command{args: []string{"check-provider", "corp", "--config", s.config}, dir: s.dir}); code != 1 || !strings.Contains(p.stderr.String(), "elsewhere.example") {
		t.Errorf("another issuer: exit %d, %s", code, p.stderr.String())
	}
}

// An additional or missing slash makes another issuer (Discovery 1.0, 4.3). The start says so, and what to write,
// but does not wait for it.
func TestAnIssuerThatDiffersByASlashIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	s.provider.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { doc["issuer"] = fmt.Sprint(doc["issuer"], "/") }})
	want := regexp.MustCompile(`issuer: write http://127\.0\.0\.1:\d+/ as the discovery document has it`)
	p := s.serve(t, nil)
	p.await(t, startLimit, "it says what to write", func() bool { return want.MatchString(p.stderr.String()) })
	if !serving(p) {
		t.Errorf("it does not serve: %s", p.stderr.String())
	}
	p.stop(t)
	code, check := run(t, command{args: []string{"check-provider", "corp", "--config", s.config}, dir: s.dir})
	if text := check.stderr.String(); code != 1 || !want.MatchString(text) {
		t.Errorf("exit %d, %s", code, text)
	}
}

// A provider that is away, or hangs, delays neither start nor stop.
func TestAStartWaitsForNoProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	asked := make(chan struct{}, 10)
	over := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(over) }))
	s.provider.SetLie(devidp.Lie{Discovery: func(map[string]any) {
		asked <- struct{}{}
		<-over
	}})
	p := s.serve(t, nil)
	select {
	case <-asked:
	case <-time.After(startLimit):
		t.Fatal("the provider is not asked")
	}
	if !serving(p) {
		t.Error("it waits for the provider")
	}
	at := time.Now()
	p.stop(t)
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

// The trial uses the same proxy and redirect URI as a real sign-in, and needs no database.
func TestCheckProviderShowsWhatATrialSignInCarries(t *testing.T) {
	t.Parallel()
	s := newSite(t, "postgres://nowhere.invalid/none", "    groups_claims: [groups, realm_access.roles]\n    email_domains: [corp.example]\n")
	s.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["groups"] = []string{"/noted/staff"} }})
	p := start(t, command{args: []string{"check-provider", "corp", "--config", s.config, "--sign-in"}, dir: s.dir})
	p.await(t, startLimit, "it prints an address", func() bool { return trialAddress.MatchString(p.stderr.String()) })
	address := trialAddress.FindStringSubmatch(p.stderr.String())[1]
	stranger := foreignClient(s.direct, "")
	if a := stranger.get(t, "/auth/callback/corp?code=x&state=y"); a.status != http.StatusNotFound {
		t.Errorf("another's callback: %d", a.status)
	}
	browser := s.browser(t)
	browser.base = ""
	if a := browser.get(t, address+"&login_hint=ada"); a.status != http.StatusOK || !strings.Contains(a.body, "The trial is over") {
		t.Fatalf("the browser ended at %s: %d %s", a.url, a.status, a.body)
	}
	if code := p.exit(t); code != 0 {
		t.Fatalf("exit %d", code)
	}
	wantLines(t, p.stdout.String(), `trial sign-in     ok: ada, subject ada`, `claims seen       .*\bgroups\b.*`, `  groups          \[/noted/staff\]`,
		`  email           ada@corp\.example`, `  realm_access\.roles MISSING: .*`, `names in policy   .*\bcorp:ada\b.*group:corp:/noted/staff.*`,
		`roles             admin user`, `gates             passed`)
	for _, secret := range []string{clientSecret, "eyJ"} {
		if strings.Contains(p.stdout.String()+p.stderr.String(), secret) {
			t.Errorf("it prints %.10q", secret)
		}
	}
}
