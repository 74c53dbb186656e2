package devidp_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"noted/internal/devidp"
)

const (
	clientID     = "noted"
	clientSecret = "s3cret +/:%é" // must survive the form-urlencoding of client_secret_basic
	callback     = "http://127.0.0.1:8080/auth/callback/dev"
	callbackTwo  = "http://127.0.0.1:8080/other?fixed=1&x=%2F"
	signedOut    = "http://127.0.0.1:8080/"
)

var people = []devidp.Person{
	{Subject: "alice", Name: "Alice", Email: "alice@dev.example", EmailVerified: true},
	{Subject: "ada", Name: "Ada", Email: "ada@dev.example", EmailVerified: true, Groups: []string{"staff", "ops"}},
	{Subject: "eve", Name: `<script>alert("1")</script>`, Email: `"><b>@dev.example`},
	{Subject: "ghost"},
}

// clock is a time set by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is a provider on a real port, and its client, which follows no redirect.
type rig struct {
	t        testing.TB
	ctx      context.Context
	provider *devidp.Provider
	issuer   string
	clock    *clock
	http     *http.Client
}

func start(t testing.TB) *rig { return startAt(t, "") }

func startAt(t testing.TB, path string) *rig {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	issuer := "http://" + server.Listener.Addr().String() + path
	c := &clock{now: time.Now()}
	p, err := devidp.New(devidp.Config{
		Issuer: issuer, ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs:           []string{callback, callbackTwo},
		PostLogoutRedirectURIs: []string{signedOut},
		People:                 people,
		Now:                    c.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = p
	server.Start()
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &rig{t: t, ctx: oidc.ClientContext(context.Background(), client), provider: p, issuer: issuer, clock: c, http: client}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (r *rig) do(req *http.Request) answer {
	r.t.Helper()
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

func (r *rig) get(pathAndQuery string) answer {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.issuer+pathAndQuery, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(req)
}

func (r *rig) post(path string, form url.Values) answer {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req)
}

// location returns the URL and parameters of an answer, which must be a redirect.
func (r *rig) location(a answer) (*url.URL, url.Values) {
	r.t.Helper()
	if a.status != http.StatusSeeOther {
		r.t.Fatalf("status %d, want a redirect: %s", a.status, a.body)
	}
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		r.t.Fatal(err)
	}
	return u, u.Query()
}

// request is a correct authorization request for alice. changes are pairs of name and value; an empty value
// removes the parameter.
func request(verifier string, changes ...string) url.Values {
	v := url.Values{
		"client_id": {clientID}, "redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"openid profile email"}, "state": {"the state"}, "nonce": {"the nonce"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
		"login_hint": {"alice"},
	}
	for i := 0; i < len(changes); i += 2 {
		v.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v
}

// code signs alice in and returns the code.
func (r *rig) code(verifier string) string {
	r.t.Helper()
	_, v := r.location(r.get("/authorize?" + request(verifier).Encode()))
	if v.Get("code") == "" {
		r.t.Fatalf("no code in the redirect: %v", v)
	}
	return v.Get("code")
}

// redemption is a correct token request, with changes like those of request.
func redemption(code, verifier string, changes ...string) url.Values {
	v := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
		"client_id": {clientID}, "client_secret": {clientSecret},
	}
	for i := 0; i < len(changes); i += 2 {
		v.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v
}

// idToken signs alice in and returns the token endpoint's ID token.
func (r *rig) idToken() string {
	r.t.Helper()
	verifier := oauth2.GenerateVerifier()
	a := r.post("/token", redemption(r.code(verifier), verifier))
	var body struct {
		IDToken string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.IDToken == "" {
		r.t.Fatalf("no ID token: %d %s", a.status, a.body)
	}
	return body.IDToken
}

func (r *rig) discover() *oidc.Provider {
	r.t.Helper()
	p, err := oidc.NewProvider(r.ctx, r.issuer)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) verifier(p *oidc.Provider) *oidc.IDTokenVerifier {
	return p.Verifier(&oidc.Config{ClientID: clientID, Now: r.clock.Now})
}

// wantError checks an answer of the token endpoint.
func wantError(t *testing.T, a answer, status int, code string) {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("not JSON: %v: %s", err, a.body)
	}
	if a.status != status || body.Error != code {
		t.Errorf("got %d %q, want %d %q", a.status, body.Error, status, code)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
}

func TestAnOrdinaryClientSignsSomebodyIn(t *testing.T) {
	for _, style := range []struct {
		name string
		auth oauth2.AuthStyle
		path string
	}{
		{"secret in the header", oauth2.AuthStyleInHeader, ""},
		{"secret in the form", oauth2.AuthStyleInParams, ""},
		{"issuer with a path", oauth2.AuthStyleInHeader, "/realms/dev"},
	} {
		t.Run(style.name, func(t *testing.T) {
			r := startAt(t, style.path)
			p := r.discover()
			endpoint := p.Endpoint()
			endpoint.AuthStyle = style.auth
			client := oauth2.Config{ClientID: clientID, ClientSecret: clientSecret, Endpoint: endpoint,
				RedirectURL: callbackTwo, Scopes: []string{"openid", "profile", "email", "unheard-of"}}
			verifier := oauth2.GenerateVerifier()
			authURL := client.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("a nonce"),
				oauth2.SetAuthURLParam("login_hint", "ada"))

			a := r.get(strings.TrimPrefix(authURL, r.issuer))
			to, back := r.location(a)
			if !strings.HasPrefix(to.String(), callbackTwo+"&") {
				t.Fatalf("redirected to %s, which is not below %s", to, callbackTwo)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("headers of the redirect: %v", a.header)
			}
			code := back.Get("code")
			if len(code) != 43 {
				t.Errorf("code %q is not 256 bits in base64url", code)
			}
			want := url.Values{"fixed": {"1"}, "x": {"/"}, "state": {"a state"}, "iss": {r.issuer}, "code": {code}}
			if diff := cmp.Diff(want, back); diff != "" {
				t.Errorf("parameters of the redirect (-want +got):\n%s", diff)
			}

			r.clock.Advance(2 * time.Second)
			token, err := client.Exchange(r.ctx, code, oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			if token.AccessToken == "" || token.Type() != "Bearer" || token.ExpiresIn != 600 || token.Extra("scope") != "openid profile email" {
				t.Errorf("token answer: %+v, scope %v", token, token.Extra("scope"))
			}
			raw, _ := token.Extra("id_token").(string)
			verified, err := r.verifier(p).Verify(r.ctx, raw)
			if err != nil {
				t.Fatal(err)
			}
			var claims map[string]any
			if err := verified.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if sid, _ := claims["sid"].(string); sid == "" {
				t.Error("no sid")
			}
			delete(claims, "sid")
			now := r.clock.Now().Unix()
			wantClaims := map[string]any{
				"iss": r.issuer, "sub": "ada", "aud": clientID, "nonce": "a nonce",
				"at_hash": leftHalf(token.AccessToken), "c_hash": leftHalf(code),
				"iat": float64(now), "auth_time": float64(now - 2), "exp": float64(now + 600),
				"name": "Ada", "email": "ada@dev.example", "email_verified": true, "groups": []any{"staff", "ops"},
			}
			if diff := cmp.Diff(wantClaims, claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

// leftHalf is the left half of a SHA-256, by base64url (Core 3.1.3.6).
func leftHalf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func TestClaimsFollowTheScopeAndThePerson(t *testing.T) {
	r := start(t)
	always := []string{"at_hash", "aud", "auth_time", "c_hash", "exp", "iat", "iss", "sid", "sub"}
	for _, tt := range []struct {
		name, person, scope, nonce string
		more                       []string
	}{
		{"openid alone", "alice", "openid", "n", []string{"nonce"}},
		{"no nonce", "alice", "openid", "", nil},
		{"profile", "alice", "openid profile", "", []string{"name"}},
		{"email", "alice", "email openid", "", []string{"email", "email_verified"}},
		{"groups need no scope", "ada", "openid", "", []string{"groups"}},
		{"nothing to tell", "ghost", "openid profile email", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			verifier := oauth2.GenerateVerifier()
			_, back := r.location(r.get("/authorize?" +
				request(verifier, "login_hint", tt.person, "scope", tt.scope, "nonce", tt.nonce).Encode()))
			var body struct {
				IDToken string `json:"id_token"`
			}
			a := r.post("/token", redemption(back.Get("code"), verifier))
			if err := json.Unmarshal([]byte(a.body), &body); err != nil {
				t.Fatal(err)
			}
			verified, err := r.verifier(r.discover()).Verify(r.ctx, body.IDToken)
			if err != nil {
				t.Fatal(err)
			}
			var claims map[string]any
			if err := verified.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			var names []string
			for name := range claims {
				names = append(names, name)
			}
			want := slices.Concat(always, tt.more)
			slices.Sort(names)
			slices.Sort(want)
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachSignInHasItsOwnSid(t *testing.T) {
	r := start(t)
	verifier := r.verifier(r.discover())
	seen := map[string]bool{}
	for range 2 {
		verified, err := verifier.Verify(r.ctx, r.idToken())
		if err != nil {
			t.Fatal(err)
		}
		var claims struct{ Sid string }
		if err := verified.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if seen[claims.Sid] {
			t.Errorf("sid %q came twice", claims.Sid)
		}
		seen[claims.Sid] = true
	}
}

func TestDiscoveryDocument(t *testing.T) {
	r := start(t)
	a := r.get("/.well-known/openid-configuration")
	var got map[string]any
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"issuer":                                r.issuer,
		"authorization_endpoint":                r.issuer + "/authorize",
		"token_endpoint":                        r.issuer + "/token",
		"jwks_uri":                              r.issuer + "/jwks",
		"end_session_endpoint":                  r.issuer + "/end_session",
		"response_types_supported":              []any{"code"},
		"response_modes_supported":              []any{"query"},
		"grant_types_supported":                 []any{"authorization_code"},
		"subject_types_supported":               []any{"public"},
		"id_token_signing_alg_values_supported": []any{"RS256"},
		"code_challenge_methods_supported":      []any{"S256"},
		"token_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post"},
		"scopes_supported":                      []any{"openid", "profile", "email"},
		"claims_supported": []any{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid",
			"at_hash", "c_hash", "name", "email", "email_verified", "groups"},
		"request_uri_parameter_supported":                false,
		"authorization_response_iss_parameter_supported": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("discovery (-want +got):\n%s", diff)
	}
}

func TestJWKSHoldsNoPrivateKey(t *testing.T) {
	r := start(t)
	var got struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(r.get("/jwks").body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Keys) != 1 {
		t.Fatalf("%d keys", len(got.Keys))
	}
	var names []string
	for name := range got.Keys[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"alg", "e", "kid", "kty", "n", "use"}, names); diff != "" {
		t.Errorf("members of the key (-want +got):\n%s", diff)
	}
}

func TestUnknownClientOrRedirectURIGetsAPageAndNoRedirect(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	twice := func(name, value string) url.Values {
		v := request(verifier)
		v.Add(name, value)
		return v
	}
	for name, v := range map[string]url.Values{
		"unknown client":               request(verifier, "client_id", "other"),
		"no client":                    request(verifier, "client_id", ""),
		"two clients":                  twice("client_id", "other"),
		"unregistered redirect":        request(verifier, "redirect_uri", "https://evil.example/"),
		"no redirect":                  request(verifier, "redirect_uri", ""),
		"two redirects":                twice("redirect_uri", "https://evil.example/"),
		"longer redirect":              request(verifier, "redirect_uri", callback+"/more"),
		"redirect with a query":        request(verifier, "redirect_uri", callback+"?a=b"),
		"redirect in capitals":         request(verifier, "redirect_uri", strings.ToUpper(callback)),
		"post-logout redirect":         request(verifier, "redirect_uri", signedOut),
		"unregistered and other error": request(verifier, "redirect_uri", "https://evil.example/", "response_type", "token"),
	} {
		t.Run(name, func(t *testing.T) {
			for method, a := range map[string]answer{"GET": r.get("/authorize?" + v.Encode()), "POST": r.post("/authorize", v)} {
				if a.status != http.StatusBadRequest || a.header.Get("Location") != "" {
					t.Errorf("%s: status %d, Location %q", method, a.status, a.header.Get("Location"))
				}
				if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
					t.Errorf("%s: Content-Type %q", method, a.header.Get("Content-Type"))
				}
			}
		})
	}
}

func TestOtherErrorsOfARequestAreRedirectedToTheClient(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	twice := request(verifier)
	twice.Add("nonce", "another")
	for _, tt := range []struct {
		name string
		v    url.Values
		want string
	}{
		{"no response_type", request(verifier, "response_type", ""), "invalid_request"},
		{"implicit flow", request(verifier, "response_type", "id_token"), "unsupported_response_type"},
		{"fragment", request(verifier, "response_mode", "fragment"), "invalid_request"},
		{"no scope", request(verifier, "scope", ""), "invalid_scope"},
		{"scope without openid", request(verifier, "scope", "profile openid2"), "invalid_scope"},
		{"no PKCE", request(verifier, "code_challenge", "", "code_challenge_method", ""), "invalid_request"},
		{"plain PKCE", request(verifier, "code_challenge", verifier, "code_challenge_method", "plain"), "invalid_request"},
		{"PKCE plain by omission", request(verifier, "code_challenge_method", ""), "invalid_request"},
		{"challenge of another length", request(verifier, "code_challenge", "abcd"), "invalid_request"},
		{"a parameter twice", twice, "invalid_request"},
		{"request object", request(verifier, "request", "e30.e30."), "request_not_supported"},
		{"request URI", request(verifier, "request_uri", "https://evil.example/"), "request_uri_not_supported"},
		{"prompt=none with no hint", request(verifier, "prompt", "none", "login_hint", ""), "login_required"},
		{"prompt=none with an unknown hint", request(verifier, "prompt", "none", "login_hint", "mallory"), "login_required"},
		{"prompt=none and more", request(verifier, "prompt", "none login"), "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to, back := r.location(r.get("/authorize?" + tt.v.Encode()))
			if !strings.HasPrefix(to.String(), callback+"?") {
				t.Errorf("redirected to %s", to)
			}
			back.Del("error_description")
			want := url.Values{"error": {tt.want}, "state": {"the state"}, "iss": {r.issuer}}
			if diff := cmp.Diff(want, back); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoginHintSignsInWithNoForm(t *testing.T) {
	r := start(t)
	for _, tt := range []struct {
		name    string
		changes []string
		form    bool
	}{
		{"subject", []string{"login_hint", "alice"}, false},
		{"e-mail", []string{"login_hint", "Alice@dev.example"}, false},
		{"subject, silently", []string{"login_hint", "alice", "prompt", "none"}, false},
		{"subject, asked anew", []string{"login_hint", "alice", "prompt", "login"}, false},
		{"none", []string{"login_hint", ""}, true},
		{"unknown", []string{"login_hint", "mallory"}, true},
		{"subject in capitals", []string{"login_hint", "ALICE"}, true},
		{"a chosen person in a GET", []string{"login_hint", "", "person", "alice"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := r.get("/authorize?" + request(oauth2.GenerateVerifier(), tt.changes...).Encode())
			if tt.form {
				if a.status != http.StatusOK || !strings.Contains(a.body, "<form") {
					t.Errorf("no form: %d %s", a.status, a.body)
				}
				return
			}
			if _, back := r.location(a); back.Get("code") == "" || back.Get("state") != "the state" {
				t.Errorf("redirect with %v", back)
			}
		})
	}
}

var (
	hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	button      = regexp.MustCompile(`<button name="person" value="([^"]*)">`)
)

func TestThePageSignsInWhomSomebodyChooses(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	state := `"><script>alert(1)</script>&amp;`
	a := r.get("/authorize?" + request(verifier, "login_hint", "", "state", state).Encode())

	form := url.Values{}
	for _, m := range hiddenInput.FindAllStringSubmatch(a.body, -1) {
		form.Set(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
	}
	if diff := cmp.Diff(request(verifier, "login_hint", "", "state", state), form); diff != "" {
		t.Errorf("the form repeats the request (-want +got):\n%s", diff)
	}
	var subjects []string
	for _, m := range button.FindAllStringSubmatch(a.body, -1) {
		subjects = append(subjects, m[1])
	}
	if diff := cmp.Diff([]string{"alice", "ada", "eve", "ghost"}, subjects); diff != "" {
		t.Errorf("buttons (-want +got):\n%s", diff)
	}

	form.Set("person", "ada")
	_, back := r.location(r.post("/authorize", form))
	if back.Get("state") != state {
		t.Errorf("state came back as %q", back.Get("state"))
	}
	if got := r.post("/token", redemption(back.Get("code"), verifier)); got.status != http.StatusOK {
		t.Errorf("the code is not accepted: %d %s", got.status, got.body)
	}

	form.Set("person", "mallory")
	if _, back := r.location(r.post("/authorize", form)); back.Get("error") != "access_denied" || back.Has("code") {
		t.Errorf("an unknown person is answered with %v", back)
	}
	form.Set("person", "ada")
	form.Set("code_challenge_method", "plain")
	if _, back := r.location(r.post("/authorize", form)); back.Get("error") != "invalid_request" || back.Has("code") {
		t.Errorf("a form that somebody changed is answered with %v", back)
	}
}

func TestPagesRunNoScriptAndEscapeEverything(t *testing.T) {
	r := start(t)
	policy := regexp.MustCompile(`^default-src 'none'; style-src 'nonce-([A-Z2-7]+)'; base-uri 'none'; frame-ancestors 'none'$`)
	nonces := map[string]bool{}
	for name, a := range map[string]answer{
		"choice":     r.get("/authorize?" + request("v", "login_hint", "<script>", "state", `"><script>`).Encode()),
		"error":      r.get("/authorize?client_id=<script>"),
		"signed out": r.get("/end_session?state=<script>"),
	} {
		if strings.Contains(a.body, "<script") || strings.Contains(a.body, "<b>") || strings.Contains(a.body, " style=") {
			t.Errorf("%s: not escaped:\n%s", name, a.body)
		}
		m := policy.FindStringSubmatch(a.header.Get("Content-Security-Policy"))
		if m == nil {
			t.Fatalf("%s: Content-Security-Policy is %q", name, a.header.Get("Content-Security-Policy"))
		}
		if !strings.Contains(a.body, `<style nonce="`+m[1]+`">`) || nonces[m[1]] {
			t.Errorf("%s: the style does not have the policy's nonce, or it is used again", name)
		}
		nonces[m[1]] = true
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := a.header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	for _, tt := range []struct {
		name    string
		changes []string
		status  int
		want    string
	}{
		{"wrong secret", []string{"client_secret", "wrong"}, 401, "invalid_client"},
		{"no secret", []string{"client_secret", ""}, 401, "invalid_client"},
		{"wrong client", []string{"client_id", "other"}, 401, "invalid_client"},
		{"no grant type", []string{"grant_type", ""}, 400, "invalid_request"},
		{"another grant type", []string{"grant_type", "password"}, 400, "unsupported_grant_type"},
		{"no code", []string{"code", ""}, 400, "invalid_request"},
		{"unknown code", []string{"code", "AAAA"}, 400, "invalid_grant"},
		{"no redirect_uri", []string{"redirect_uri", ""}, 400, "invalid_request"},
		{"wrong redirect_uri", []string{"redirect_uri", callbackTwo}, 400, "invalid_grant"},
		{"no verifier", []string{"code_verifier", ""}, 400, "invalid_request"},
		{"wrong verifier", []string{"code_verifier", oauth2.GenerateVerifier()}, 400, "invalid_grant"},
		{"the challenge as verifier", []string{"code_verifier", oauth2.S256ChallengeFromVerifier(verifier)}, 400, "invalid_grant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := r.post("/token", redemption(r.code(verifier), verifier, tt.changes...))
			wantError(t, a, tt.status, tt.want)
			if tt.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("a parameter twice", func(t *testing.T) {
		form := redemption(r.code(verifier), verifier)
		form.Add("code", "AAAA")
		wantError(t, r.post("/token", form), 400, "invalid_request")
	})
	t.Run("parameters in the URL", func(t *testing.T) {
		wantError(t, r.post("/token?"+redemption(r.code(verifier), verifier).Encode(), nil), 401, "invalid_client")
	})
	t.Run("a form too large", func(t *testing.T) {
		wantError(t, r.post("/token", url.Values{"code": {strings.Repeat("a", 1<<20)}}), 400, "invalid_request")
	})
	t.Run("short verifier", func(t *testing.T) {
		wantError(t, r.post("/token", redemption(r.code("short"), "short")), 400, "invalid_grant")
	})
}

func TestClientSecretBasic(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	escaped := url.QueryEscape(clientSecret)
	for _, tt := range []struct {
		name, authorization, user, password string
		changes                             []string
		status                              int
		want                                string
	}{
		{"right", "", clientID, escaped, nil, 200, ""},
		{"right, with the same client_id", "", clientID, escaped, []string{"client_id", clientID}, 200, ""},
		{"wrong secret", "", clientID, "wrong", nil, 401, "invalid_client"},
		{"secret not urlencoded", "", clientID, clientSecret, nil, 401, "invalid_client"},
		{"wrong client", "", "other", escaped, nil, 401, "invalid_client"},
		{"another client_id in the form", "", clientID, escaped, []string{"client_id", "other"}, 400, "invalid_request"},
		{"a secret in the form too", "", clientID, escaped, []string{"client_secret", clientSecret}, 400, "invalid_request"},
		{"another scheme", "Bearer abc", "", "", []string{"client_id", clientID, "client_secret", clientSecret}, 401, "invalid_client"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := redemption(r.code(verifier), verifier, append([]string{"client_id", "", "client_secret", ""}, tt.changes...)...)
			req, err := http.NewRequest(http.MethodPost, r.issuer+"/token", strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(tt.user, tt.password)
			if tt.authorization != "" {
				req.Header.Set("Authorization", tt.authorization)
			}
			wantError(t, r.do(req), tt.status, tt.want)
		})
	}
}

func TestCodeWorksOnce(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	code := r.code(verifier)
	wantError(t, r.post("/token", redemption(code, verifier)), 200, "")
	wantError(t, r.post("/token", redemption(code, verifier)), 400, "invalid_grant")

	t.Run("also when sent many times at once", func(t *testing.T) {
		form := redemption(r.code(verifier), verifier).Encode()
		statuses := make([]int, 8)
		var wg sync.WaitGroup
		for i := range statuses {
			wg.Go(func() {
				req := httptest.NewRequest(http.MethodPost, r.issuer+"/token", strings.NewReader(form))
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				w := httptest.NewRecorder()
				r.provider.ServeHTTP(w, req)
				statuses[i] = w.Code
			})
		}
		wg.Wait()
		slices.Sort(statuses)
		if diff := cmp.Diff([]int{200, 400, 400, 400, 400, 400, 400, 400}, statuses); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})
	t.Run("a failed attempt uses it up", func(t *testing.T) {
		code := r.code(verifier)
		wantError(t, r.post("/token", redemption(code, oauth2.GenerateVerifier())), 400, "invalid_grant")
		wantError(t, r.post("/token", redemption(code, verifier)), 400, "invalid_grant")
	})
	t.Run("a stranger's attempt does not", func(t *testing.T) {
		code := r.code(verifier)
		wantError(t, r.post("/token", redemption(code, verifier, "client_secret", "wrong")), 401, "invalid_client")
		wantError(t, r.post("/token", redemption(code, verifier)), 200, "")
	})
}

func TestCodeLivesSixtySeconds(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	code := r.code(verifier)
	r.clock.Advance(time.Minute - time.Nanosecond)
	wantError(t, r.post("/token", redemption(code, verifier)), 200, "")

	code = r.code(verifier)
	r.clock.Advance(time.Minute)
	wantError(t, r.post("/token", redemption(code, verifier)), 400, "invalid_grant")
}

func TestOldestCodeGivesWayToTheTenThousandthAfterIt(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	first, second := r.code(verifier), r.code(verifier)
	target := r.issuer + "/authorize?" + request(verifier).Encode()
	for range 9_999 {
		r.provider.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil))
	}
	wantError(t, r.post("/token", redemption(first, verifier)), 400, "invalid_grant")
	wantError(t, r.post("/token", redemption(second, verifier)), 200, "")
}

func TestRotateKeyTakesTheOldKeyAway(t *testing.T) {
	r := start(t)
	before := r.verifier(r.discover())
	old := r.idToken()
	if _, err := before.Verify(r.ctx, old); err != nil {
		t.Fatal(err)
	}
	r.provider.RotateKey()
	// The verifier has the old key, sees an unknown kid, and asks again.
	if _, err := before.Verify(r.ctx, r.idToken()); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	if _, err := r.verifier(r.discover()).Verify(r.ctx, old); err == nil {
		t.Error("a token of the old key still verifies")
	}
}

func TestSignIDTokenSignsWhatItIsGiven(t *testing.T) {
	r := start(t)
	signed, err := r.provider.SignIDToken(map[string]any{
		"iss": r.issuer, "aud": clientID, "sub": "nobody", "exp": r.clock.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	verified, err := r.verifier(r.discover()).Verify(r.ctx, signed)
	if err != nil {
		t.Fatal(err)
	}
	if verified.Subject != "nobody" {
		t.Errorf("subject %q", verified.Subject)
	}
	if _, err := r.provider.SignIDToken(map[string]any{"f": func() {}}); err == nil {
		t.Error("claims that JSON cannot hold were signed")
	}
}

func TestLies(t *testing.T) {
	t.Run("Claims change what is signed", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) {
			claims["aud"] = []string{clientID, "other"}
			claims["sub"] = "mallory"
			delete(claims, "nonce")
		}})
		verified, err := r.verifier(r.discover()).Verify(r.ctx, r.idToken())
		if err != nil {
			t.Fatal(err)
		}
		if verified.Subject != "mallory" || verified.Nonce != "" || !slices.Equal(verified.Audience, []string{clientID, "other"}) {
			t.Errorf("token: %+v", verified)
		}
	})
	t.Run("Claims cannot change the person", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) {
			if groups, ok := claims["groups"].([]string); ok {
				groups[0] = "changed"
			}
		}})
		verifier := oauth2.GenerateVerifier()
		_, back := r.location(r.get("/authorize?" + request(verifier, "login_hint", "ada").Encode()))
		wantError(t, r.post("/token", redemption(back.Get("code"), verifier)), 200, "")
		if people[1].Groups[0] != "staff" {
			t.Error("the lie reached the configuration")
		}
	})
	t.Run("Claims that cannot be signed are a server error", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["sub"] = func() {} }})
		verifier := oauth2.GenerateVerifier()
		wantError(t, r.post("/token", redemption(r.code(verifier), verifier)), 500, "server_error")
	})
	t.Run("IDToken replaces the token", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{IDToken: func(signed string) string { return signed[:strings.LastIndex(signed, ".")+1] }})
		raw := r.idToken()
		if !strings.HasSuffix(raw, ".") {
			t.Errorf("token %q has a signature", raw)
		}
		if _, err := r.verifier(r.discover()).Verify(r.ctx, raw); err == nil {
			t.Error("a token with no signature verifies")
		}
	})
	t.Run("Discovery changes the document", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { doc["issuer"] = "https://evil.example" }})
		var mismatch *oidc.IssuerMismatchError
		if _, err := oidc.NewProvider(r.ctx, r.issuer); !errors.As(err, &mismatch) {
			t.Errorf("got %v, want a mismatch", err)
		}
	})
	t.Run("Response changes the redirect", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Response: func(v url.Values) {
			v.Set("iss", "https://evil.example")
			v.Del("code")
		}})
		to, back := r.location(r.get("/authorize?" + request("v").Encode()))
		want := url.Values{"iss": {"https://evil.example"}, "state": {"the state"}}
		if diff := cmp.Diff(want, back); diff != "" || !strings.HasPrefix(to.String(), callback+"?") {
			t.Errorf("redirect to %s (-want +got):\n%s", to, diff)
		}
	})
	t.Run("Handler takes an endpoint over", func(t *testing.T) {
		r := start(t)
		var mu sync.Mutex
		var asked []string
		r.provider.SetLie(devidp.Lie{Handler: func(endpoint string, w http.ResponseWriter, _ *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, endpoint)
			if endpoint == "discovery" {
				return false
			}
			w.WriteHeader(http.StatusTeapot)
			return true
		}})
		var statuses []int
		for _, path := range []string{"/.well-known/openid-configuration", "/jwks", "/authorize", "/token", "/end_session", "/elsewhere"} {
			statuses = append(statuses, r.get(path).status)
		}
		if diff := cmp.Diff([]int{200, 418, 418, 418, 418, 404}, statuses); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff([]string{"discovery", "jwks", "authorize", "token", "end_session"}, asked); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
	})
	t.Run("the zero Lie is honest again", func(t *testing.T) {
		r := start(t)
		r.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["aud"] = "other" }})
		if _, err := r.verifier(r.discover()).Verify(r.ctx, r.idToken()); err == nil {
			t.Error("a token for another audience verifies")
		}
		r.provider.SetLie(devidp.Lie{})
		if _, err := r.verifier(r.discover()).Verify(r.ctx, r.idToken()); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	r := start(t)
	verifier := oauth2.GenerateVerifier()
	target := r.issuer + "/authorize?" + request(verifier).Encode()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				r.provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["n"] = i }})
				w := httptest.NewRecorder()
				r.provider.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
				back, err := url.Parse(w.Header().Get("Location"))
				if err != nil {
					t.Error(err)
					return
				}
				form := redemption(back.Query().Get("code"), verifier).Encode()
				req := httptest.NewRequest(http.MethodPost, r.issuer+"/token", strings.NewReader(form))
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				w = httptest.NewRecorder()
				r.provider.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					t.Errorf("token: %d %s", w.Code, w.Body)
				}
				r.provider.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, r.issuer+"/jwks", nil))
			}
		})
	}
	wg.Go(r.provider.RotateKey)
	wg.Wait()
}

func TestEndSessionGoesBackOnlyToARegisteredURI(t *testing.T) {
	r := start(t)
	hint := r.idToken()
	foreign, err := r.provider.SignIDToken(map[string]any{"iss": r.issuer, "aud": "other", "sub": "alice"})
	if err != nil {
		t.Fatal(err)
	}
	// The client's sessions outlive the key and the token.
	r.provider.RotateKey()
	r.clock.Advance(24 * time.Hour)
	for _, tt := range []struct {
		name string
		v    url.Values
		want string // the Location; "" for the page
	}{
		{"bare", nil, ""},
		{"registered", url.Values{"post_logout_redirect_uri": {signedOut}}, signedOut},
		{"with hint, client and state", url.Values{"post_logout_redirect_uri": {signedOut}, "id_token_hint": {hint},
			"client_id": {clientID}, "state": {"a&b"}}, signedOut + "?state=a%26b"},
		{"unregistered", url.Values{"post_logout_redirect_uri": {"https://evil.example/"}, "id_token_hint": {hint}}, ""},
		{"a redirect URI of signing in", url.Values{"post_logout_redirect_uri": {callback}}, ""},
		{"longer", url.Values{"post_logout_redirect_uri": {signedOut + "more"}}, ""},
		{"twice", url.Values{"post_logout_redirect_uri": {signedOut, "https://evil.example/"}}, ""},
		{"hint that is no token", url.Values{"post_logout_redirect_uri": {signedOut}, "id_token_hint": {"abc"}}, ""},
		{"hint for another client", url.Values{"post_logout_redirect_uri": {signedOut}, "id_token_hint": {foreign}}, ""},
		{"another client", url.Values{"post_logout_redirect_uri": {signedOut}, "client_id": {"other"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for method, a := range map[string]answer{"GET": r.get("/end_session?" + tt.v.Encode()), "POST": r.post("/end_session", tt.v)} {
				status := http.StatusSeeOther
				if tt.want == "" {
					status = http.StatusOK
				}
				if a.status != status || a.header.Get("Location") != tt.want {
					t.Errorf("%s: got %d %q, want %d %q", method, a.status, a.header.Get("Location"), status, tt.want)
				}
			}
		})
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	r := startAt(t, "/base")
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/base/", 404},
		{"GET", "/base/jwks/", 404},
		{"GET", "/base/userinfo", 404},
		{"GET", "/jwks", 404},
		{"GET", "/baseball/jwks", 404},
		{"HEAD", "/base/jwks", 200},
		{"POST", "/base/jwks", 405},
		{"GET", "/base/token", 405},
		{"PUT", "/base/authorize", 405},
		{"DELETE", "/base/end_session", 405},
	} {
		req, err := http.NewRequest(tt.method, strings.TrimSuffix(r.issuer, "/base")+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := r.do(req)
		if a.status != tt.want || (a.status == 405) != (a.header.Get("Allow") != "") {
			t.Errorf("%s %s: %d, Allow %q; want %d", tt.method, tt.path, a.status, a.header.Get("Allow"), tt.want)
		}
	}
}

func TestNewRefusesAConfigurationThatCannotWork(t *testing.T) {
	good := devidp.Config{Issuer: "http://127.0.0.1:9001", ClientID: "c", ClientSecret: "s"}
	if _, err := devidp.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*devidp.Config){
		"no issuer":              func(c *devidp.Config) { c.Issuer = "" },
		"trailing slash":         func(c *devidp.Config) { c.Issuer += "/" },
		"issuer with a query":    func(c *devidp.Config) { c.Issuer += "?a" },
		"issuer of no host":      func(c *devidp.Config) { c.Issuer = "http:9001" },
		"issuer not http":        func(c *devidp.Config) { c.Issuer = "ftp://127.0.0.1" },
		"no client id":           func(c *devidp.Config) { c.ClientID = "" },
		"no client secret":       func(c *devidp.Config) { c.ClientSecret = "" },
		"relative redirect":      func(c *devidp.Config) { c.RedirectURIs = []string{"/auth/callback"} },
		"redirect with fragment": func(c *devidp.Config) { c.PostLogoutRedirectURIs = []string{"http://a/#b"} },
		"no subject":             func(c *devidp.Config) { c.People = []devidp.Person{{Name: "Alice"}} },
		"a subject twice":        func(c *devidp.Config) { c.People = []devidp.Person{{Subject: "a"}, {Subject: "a"}} },
	} {
		c := good
		change(&c)
		if _, err := devidp.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzAuthorize checks that no query or form makes the provider redirect to an unregistered URI, or break.
func FuzzAuthorize(f *testing.F) {
	r := start(f)
	verifier := oauth2.GenerateVerifier()
	f.Add(request(verifier).Encode())
	f.Add(request(verifier, "login_hint", "", "person", "alice").Encode())
	f.Add(request(verifier, "redirect_uri", "https://evil.example/").Encode())
	f.Add("client_id=noted&redirect_uri=" + url.QueryEscape(callback) + "&redirect_uri=//evil.example&state=%00%0d%0a")
	f.Add("%zz;;")
	f.Fuzz(func(t *testing.T, query string) {
		get := httptest.NewRequest(http.MethodGet, r.issuer+"/authorize", nil)
		get.URL.RawQuery = query
		post := httptest.NewRequest(http.MethodPost, r.issuer+"/authorize", strings.NewReader(query))
		post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, req := range []*http.Request{get, post} {
			w := httptest.NewRecorder()
			r.provider.ServeHTTP(w, req)
			to := w.Header().Get("Location")
			switch w.Code {
			case http.StatusOK, http.StatusBadRequest:
				if to != "" {
					t.Errorf("%d with Location %q", w.Code, to)
				}
			case http.StatusSeeOther:
				if !strings.HasPrefix(to, callback+"?") && !strings.HasPrefix(to, callbackTwo+"&") {
					t.Errorf("redirect to %q", to)
				}
			default:
				t.Errorf("status %d", w.Code)
			}
		}
	})
}

// FuzzToken checks that no form or Authorization header gets a token without a code.
func FuzzToken(f *testing.F) {
	r := start(f)
	f.Add("", redemption("AAAA", oauth2.GenerateVerifier()).Encode())
	f.Add("Basic bm90ZWQ6JXp6", "grant_type=authorization_code")
	f.Add("Basic Og==", "%zz")
	f.Fuzz(func(t *testing.T, authorization, form string) {
		req := httptest.NewRequest(http.MethodPost, r.issuer+"/token", strings.NewReader(form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		r.provider.ServeHTTP(w, req)
		if w.Code != http.StatusBadRequest && w.Code != http.StatusUnauthorized {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
