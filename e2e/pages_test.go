package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"noted/internal/localpg/pgtest"
)

// chooses clicks somebody's button at the dev provider.
func chooses(person string) chromedp.Action[chromedp.Void] {
	return click(`button[name=person][value=` + person + `]`)
}

// The pages' scripts and forms run under their own content security policy, in a browser.
func TestPagesInABrowser(t *testing.T) {
	t.Parallel()
	open := chromium(t)
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	w := open(t)
	w.browse(t, chromedp.Navigate(s.public+"/"), click(`a[href*="provider=corp"]`), chooses("alice"), shows(`form[action="/auth/logout"]`))
	alice := plainClient(s.direct, s.sessionOf(t, w))
	var first me
	alice.get(t, "/v1/me").want(t, http.StatusOK).into(t, &first)

	t.Run("a second sign-in is linked by its button and the page's", func(t *testing.T) {
		type identity struct {
			Subject string `json:"subject"`
		}
		w.browse(t, click(`button[data-link="corp"]`), chooses("ada"), shows(`form[action="/auth/link/confirm"]`))
		address, text := w.page()
		for _, want := range []string{"alice@corp.example", "ada@corp.example"} {
			if !strings.Contains(text, want) {
				t.Errorf("the page does not name %s: %q", want, text)
			}
		}
		if got := list[identity](t, alice, "/v1/me/identities"); len(got) != 1 {
			t.Errorf("before the button is pressed she has %+v", got)
		}
		if !strings.HasPrefix(address, s.public+"/auth/callback/corp?") {
			t.Errorf("the page is at %s", address)
		}
		w.browse(t, click(`form[action="/auth/link/confirm"] button`), shows(`form[action="/auth/logout"]`))
		if got := list[identity](t, alice, "/v1/me/identities"); len(got) != 2 {
			address, text := w.page()
			t.Errorf("she has %+v; at %s she sees %q", got, address, text)
		}
		// The other sign-in is hers.
		other := open(t)
		other.browse(t, chromedp.Navigate(s.public+"/"), click(`a[href*="provider=corp"]`), chooses("ada"), shows(`form[action="/auth/logout"]`))
		if m := plainClient(s.direct, s.sessionOf(t, other)).me(t); m.ID != first.ID {
			t.Errorf("signed in as %+v", m)
		}
	})
	t.Run("a device is let in after its code was compared", func(t *testing.T) {
		l := newLaptop(t, "SSL_CERT_FILE="+s.certificate(t))
		d := l.startLogin(t, "--server", s.public)
		w.browse(t, chromedp.Navigate(s.public+"/"), click(`a[href="/auth/device"]`), shows(`input[name=user_code]:not([type=hidden])`),
			chromedp.SendKeys(chromedp.CSS(`input[name=user_code]:not([type=hidden])`), strings.ToLower(d.code)), click(`form[action="/auth/device"] button`),
			shows(`button[value=approve]`))
		if _, text := w.page(); !strings.Contains(text, d.code) || !strings.Contains(text, "127.0.0.1") {
			t.Errorf("the page shows %q", text)
		}
		w.browse(t, click(`button[value=approve]`), shows(`a[href="/"]`))
		if code := d.exit(t); code != 0 {
			t.Fatalf("noted login ends with %d: %s", code, d.stderr.String())
		}
		if out := l.want(t, "whoami"); !strings.Contains(out, "name    "+first.Name+"\n") && !strings.Contains(out, "name    ada\n") {
			t.Errorf("whoami says %q", out)
		}
	})
	t.Run("an invitation is accepted by its link, by way of signing in", func(t *testing.T) {
		var org, invitation struct {
			ID    string `json:"id"`
			URL   string `json:"url"`
			Token string `json:"token"`
		}
		alice.do(t, http.MethodPost, "/v1/orgs", map[string]string{"name": "acme"}).want(t, http.StatusCreated).into(t, &org)
		alice.do(t, http.MethodPost, "/v1/orgs/"+org.ID+"/invitations", map[string]string{"email": "bob@corp.example", "role": "writer"}).want(t, http.StatusCreated).into(t, &invitation)
		bob := open(t)
		bob.browse(t, chromedp.Navigate(invitation.URL), shows(`a[href*="provider=corp"]`))
		if address, _ := bob.page(); strings.Contains(address, invitation.Token) {
			t.Errorf("the token stays in the address: %s", address)
		}
		bob.browse(t, click(`a[href*="provider=corp"]`), chooses("bob"), shows(`button[name=join]`))
		if address, text := bob.page(); !strings.Contains(text, first.Name+" invites you to acme, as writer.") && !strings.Contains(text, "ada invites you to acme, as writer.") || strings.Contains(address, invitation.Token) {
			t.Errorf("before he joins the page at %s says %q", address, text)
		}
		bob.browse(t, click(`button[name=join]`), shows(`form[action="/auth/logout"]`))
		if address, text := bob.page(); address != s.public+"/" || !strings.Contains(text, "acme, as writer") {
			t.Errorf("afterwards he is at %s, which says %q", address, text)
		}
		if m := plainClient(s.direct, s.sessionOf(t, bob)).me(t); len(m.Orgs) != 1 || m.Orgs[0].Role != "writer" {
			t.Errorf("bob is %+v", m)
		}
		// The link is spent, and says so.
		bob.browse(t, chromedp.Navigate(invitation.URL), shows(`[role=alert]`))
		if _, text := bob.page(); !strings.Contains(text, "does not count") || strings.Contains(text, "Join") {
			t.Errorf("the second time the page says %q", text)
		}
		// Without a token there is nothing to join or sign in for.
		stranger := open(t)
		stranger.browse(t, chromedp.Navigate(s.public+"/invitation"), shows(`#says:not(:empty)`))
		if _, text := stranger.page(); !strings.Contains(text, "holds no invitation") || strings.Contains(text, "Sign in") {
			t.Errorf("without a token a stranger sees %q", text)
		}
		bob.browse(t, chromedp.Navigate(s.public+"/invitation"), shows(`#says:not(:empty)`))
		if _, text := bob.page(); !strings.Contains(text, "holds no invitation") || strings.Contains(text, "Join") || strings.Contains(text, "Go on") {
			t.Errorf("without a token the page says %q", text)
		}
	})
	t.Run("signing out ends at the first page", func(t *testing.T) {
		w.browse(t, chromedp.Navigate(s.public+"/"), click(`form[action="/auth/logout"] button`), shows(`a[href*="provider=corp"]`))
		if s.sessionOf(t, w) != "" {
			t.Error("the cookie is still there")
		}
		alice.get(t, "/v1/me").wantUnauthorized(t)
	})
}
