package identity_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

// inProcess is a transport to handlers by host. It looks like https from outside.
type inProcess map[string]http.Handler

// RoundTrip implements http.RoundTripper.
func (hosts inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	handler := hosts[r.URL.Host]
	if handler == nil || r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s://%s is not reached in a test", r.URL.Scheme, r.URL.Host)
	}
	sent := r.Clone(r.Context())
	if sent.Body == nil {
		sent.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, sent)
	response := w.Result()
	response.Request = r
	return response, nil
}

const googleAddress = "https://accounts.google.com"

// google is a server whose only provider answers like Google.
type google struct {
	*servertest.Env
	idp   *devidp.Provider
	hosts inProcess
}

// newGoogle starts one; change may alter the provider's configuration.
func newGoogle(t testing.TB, change func(*oidc.Provider), options ...func(*server.Options)) *google {
	t.Helper()
	g := &google{}
	g.Env = servertest.New(t, append(options, func(o *server.Options) {
		var err error
		g.idp, err = devidp.New(devidp.Config{
			Issuer: googleAddress, ClientID: "id.apps.googleusercontent.com", ClientSecret: "s",
			RedirectURIs: []string{o.Settings.PublicURL + "/auth/callback/google"},
			People: []devidp.Person{
				{Subject: "110169484474386276334", Name: "Alice", Email: "alice@corp.example", EmailVerified: true},
				{Subject: "110169484474386276335", Name: "Bob", Email: "bob@gmail.example", EmailVerified: true},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		// Its keys and token endpoint are on other hosts.
		g.hosts = inProcess{"accounts.google.com": g.idp, "www.googleapis.com": http.StripPrefix("/oauth2/v3", g.idp), "oauth2.googleapis.com": g.idp}
		o.Providers = oidc.Providers{{
			ID: "google", Name: "Google", Issuer: googleAddress, ClientID: "id.apps.googleusercontent.com", ClientSecret: "s",
			Scopes: []string{"openid", "email", "profile"}, Transport: g.hosts,
		}}
		if change != nil {
			change(o.Providers[0])
		}
	})...)
	g.say(nil)
	return g
}

// say adds these claims to its ID tokens; nil removes one.
func (g *google) say(change map[string]any) {
	g.idp.SetLie(devidp.Lie{
		Discovery: func(doc map[string]any) {
			delete(doc, "end_session_endpoint")
			doc["jwks_uri"] = "https://www.googleapis.com/oauth2/v3/jwks"
			doc["token_endpoint"] = "https://oauth2.googleapis.com/token"
		},
		Claims: func(claims map[string]any) {
			for name, value := range change {
				if claims[name] = value; value == nil {
					delete(claims, name)
				}
			}
		},
	})
}

// callback signs somebody in up to the callback, and returns its answer.
func (g *google) callback(t testing.TB, b *browser, hint string) servertest.Answer {
	t.Helper()
	b.client.Transport = splitTransport{g.hosts}
	authorize := location(t, b.get(t, g.URL+"/auth/login?return_to=/version&login_hint="+hint), http.StatusFound)
	if authorize.Scheme+"://"+authorize.Host != googleAddress {
		t.Fatalf("sent to %s", authorize)
	}
	return b.get(t, b.atProvider(t, authorize).String())
}

func (g *google) signIn(t testing.TB, hint string) string {
	t.Helper()
	b := newBrowser(t, g.Env)
	want(t, http.StatusSeeOther, g.callback(t, b, hint))
	return b.session()
}

// exchange exchanges a fresh token with these claims.
func (g *google) exchange(t testing.TB, change map[string]any) servertest.Answer {
	t.Helper()
	claims := idClaims(googleAddress, "110169484474386276334", map[string]any{"aud": "id.apps.googleusercontent.com", "email": "alice@corp.example"})
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	token, err := g.idp.SignIDToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	return exchange(t, g.Env, token)
}

// splitTransport reaches a test's hosts, and otherwise the loopback.
type splitTransport struct{ hosts inProcess }

// RoundTrip implements http.RoundTripper.
func (s splitTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.hosts[r.URL.Host] != nil {
		return s.hosts.RoundTrip(r)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestGoogleSpellsItsIssuerInTwoWaysAndIsOne(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, nil)
	var ids []string
	note := func(session string) {
		t.Helper()
		var me struct{ ID string }
		want(t, http.StatusOK, g.Do(t, http.MethodGet, "/v1/me", session, nil)).JSON(t, &me)
		ids = append(ids, me.ID)
	}
	for _, iss := range []string{googleAddress, "accounts.google.com", googleAddress} {
		g.say(map[string]any{"iss": iss})
		note(g.signIn(t, "alice@corp.example"))
		note(accessToken(t, g.exchange(t, map[string]any{"iss": iss})))
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("signed in as %q", ids)
	}
	if n := number(t, g.Env, `select count(*) from users`); n != 1 {
		t.Errorf("%d users", n)
	}
	var issuer, subject string
	if err := g.Pool.QueryRow(t.Context(), `select issuer, subject from identities`).Scan(&issuer, &subject); err != nil {
		t.Fatal(err)
	}
	if issuer != googleAddress || subject != "110169484474386276334" || number(t, g.Env, `select count(*) from identities`) != 1 {
		t.Errorf("the identity is %s %s", issuer, subject)
	}
	for _, one := range list(t, g.Env, g.signIn(t, "alice@corp.example")).Items {
		if one.Provider == nil || *one.Provider != "google" {
			t.Errorf("a session is %+v", one)
		}
	}
	for _, iss := range []string{"http://accounts.google.com", "accounts.google.com/", googleAddress + "/", "Accounts.google.com", "www.accounts.google.com", "google.com", ""} {
		g.say(map[string]any{"iss": iss})
		checkRefused(t, "a callback of "+iss, g.callback(t, newBrowser(t, g.Env), "alice@corp.example"))
		checkNotExchanged(t, g.Env, "an exchange of "+iss, "id_token", g.exchange(t, map[string]any{"iss": iss}))
	}
}

func TestGoogleSchemelessTokenCountsOnce(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, nil)
	token, err := g.idp.SignIDToken(idClaims("accounts.google.com", "1", map[string]any{"aud": "id.apps.googleusercontent.com"}))
	if err != nil {
		t.Fatal(err)
	}
	want(t, http.StatusOK, exchange(t, g.Env, token))
	checkNotExchanged(t, g.Env, "a second time", "token_replayed", exchange(t, g.Env, token))
}

// Only Google has the short spelling.
func TestGoogleIsNobodyElse(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, iss := range []string{"accounts.google.com", googleAddress, strings.TrimPrefix(env.Issuer, "http://")} {
		checkNotExchanged(t, env, "an exchange of "+iss, "id_token", exchange(t, env, newIDToken(t, env, "alice", map[string]any{"iss": iss})))
		env.Provider.SetLie(claim("iss", iss))
		b := newBrowser(t, env)
		checkRefused(t, "a callback of "+iss, b.get(t, b.callback(t, "alice").String()))
	}
}

func TestGoogleHostedDomainIsThatOfTheToken(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, func(p *oidc.Provider) { p.HostedDomains = []string{"corp.example"} })
	authorize := location(t, newBrowser(t, g.Env).get(t, g.URL+"/auth/login"), http.StatusFound)
	if got := authorize.Query()["hd"]; !slices.Equal(got, []string{"corp.example"}) {
		t.Errorf("Google is asked for hd %q", got)
	}
	for _, c := range []struct {
		name   string
		hd     any
		reason string // of a refusal
	}{
		{"none", nil, "gate"},
		{"another", "other.example", "gate"},
		{"empty", "", "gate"},
		{"a subdomain", "x.corp.example", "gate"},
		{"longer", "corp.example.evil.example", "gate"},
		{"with a blank", "corp.example ", "gate"},
		{"a list", []string{"corp.example"}, "id_token"},
		{"the right one", "corp.example", ""},
		{"the right one in another case", "Corp.Example", ""},
	} {
		// The e-mail's domain is not a hosted domain.
		g.say(map[string]any{"hd": c.hd})
		b := newBrowser(t, g.Env)
		byBrowser, byExchange := g.callback(t, b, "alice@corp.example"), g.exchange(t, map[string]any{"hd": c.hd})
		if c.reason == "" {
			if byBrowser.Status != http.StatusSeeOther || b.session() == "" || byExchange.Status != http.StatusOK {
				t.Errorf("%s: %d %s, %d %s", c.name, byBrowser.Status, byBrowser.Body, byExchange.Status, byExchange.Body)
			}
			continue
		}
		checkRefused(t, c.name, byBrowser)
		if log := logOf(g.Env, byBrowser); !strings.Contains(log, "reason="+c.reason+" ") {
			t.Errorf("%s: logged %s", c.name, log)
		}
		checkNotExchanged(t, g.Env, c.name, c.reason, byExchange)
		if n := number(t, g.Env, `select count(*) from users`); n != 0 {
			t.Errorf("%s: there is a user", c.name)
		}
	}

	// With several, none is asked for.
	g = newGoogle(t, func(p *oidc.Provider) { p.HostedDomains = []string{"one.example", "two.example"} })
	authorize = location(t, newBrowser(t, g.Env).get(t, g.URL+"/auth/login"), http.StatusFound)
	if got := authorize.Query()["hd"]; len(got) != 0 {
		t.Errorf("Google is asked for hd %q", got)
	}
	g.say(map[string]any{"hd": "two.example"})
	want(t, http.StatusSeeOther, g.callback(t, newBrowser(t, g.Env), "alice@corp.example"))
}

func TestGoogleHasNoGroupsAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	const warning = `msg="the ID token has no such groups claim, so it gives no group roles"`
	policy := withPolicy(t, "g, group:google:staff, moderator\n")
	g := newGoogle(t, func(p *oidc.Provider) { p.GroupsClaims = []string{"groups", "realm_access.roles"} }, policy)
	b := newBrowser(t, g.Env)
	a := want(t, http.StatusSeeOther, g.callback(t, b, "alice@corp.example"))
	if got := rolesOf(t, g.Env, b.session()); !slices.Equal(got, []string{"user"}) {
		t.Errorf("without the claim: %q", got)
	}
	if log := logOf(g.Env, a); strings.Count(log, warning) != 1 || !strings.Contains(log, `level=WARN`) || !strings.Contains(log, `provider=google claims="[groups realm_access.roles]"`) {
		t.Errorf("logged %s", log)
	}
	a = want(t, http.StatusOK, g.exchange(t, map[string]any{"groups": []string{"staff"}}))
	if got := rolesOf(t, g.Env, accessToken(t, a)); !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("with the claim: %q", got)
	}
	if log := logOf(g.Env, a); strings.Count(log, warning) != 1 || !strings.Contains(log, "provider=google claims=[realm_access.roles]") {
		t.Errorf("with one of the two, logged %s", log)
	}
	a = want(t, http.StatusOK, g.exchange(t, map[string]any{"groups": []string{}, "realm_access": map[string]any{"roles": []string{}}}))
	if log := logOf(g.Env, a); strings.Contains(log, warning) {
		t.Errorf("with empty claims, logged %s", log)
	}

	// A gate on groups admits nobody.
	g = newGoogle(t, func(p *oidc.Provider) { p.GroupsClaims, p.AllowedGroups = []string{"groups"}, []string{"staff"} })
	a = g.callback(t, newBrowser(t, g.Env), "alice@corp.example")
	checkRefused(t, "a gate on groups", a)
	if log := logOf(g.Env, a); !strings.Contains(log, "reason=gate ") || !strings.Contains(log, "claims=[groups]") {
		t.Errorf("logged %s", log)
	}
}

func TestGoogleHasNoLogoutAndTheBrowserGoesToTheFrontPage(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, nil)
	session := g.signIn(t, "alice@corp.example")
	a := g.Do(t, http.MethodPost, "/auth/logout", "", nil, "Accept", "text/html", "Cookie", "noted_session="+session)
	checkCleared(t, a)
	if to := location(t, a, http.StatusSeeOther); to.String() != g.URL+"/" {
		t.Errorf("sent to %s", to)
	}
	checkRefused(t, "after logout", g.Do(t, http.MethodGet, "/v1/me", session, nil))
	exchanged := accessToken(t, g.exchange(t, nil))
	if to := location(t, g.Do(t, http.MethodPost, "/auth/logout", exchanged, nil, "Accept", "text/html"), http.StatusSeeOther); to.String() != g.URL+"/" {
		t.Errorf("an exchanged session: sent to %s", to)
	}
	want(t, http.StatusNoContent, g.Do(t, http.MethodPost, "/auth/logout", g.signIn(t, "alice@corp.example"), nil))
}
