package identity_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

func TestSigningInGoesByTheCodeFlowWithStateNonceAndPKCE(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	a := b.get(t, env.URL+"/auth/login?return_to=/version%3Fx=1%23top&login_hint=alice")
	authorize := location(t, a, http.StatusFound)
	query := authorize.Query()
	for name, value := range map[string]string{
		"response_type": "code", "client_id": "noted", "redirect_uri": env.URL + "/auth/callback/dev",
		"code_challenge_method": "S256", "login_hint": "alice", "scope": "openid email profile",
	} {
		if got := query[name]; !slices.Equal(got, []string{value}) {
			t.Errorf("%s is %q", name, got)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if raw, err := base64.RawURLEncoding.DecodeString(query.Get(name)); err != nil || len(raw) != 32 {
			t.Errorf("%s is %q, not 256 bits in base64url", name, query.Get(name))
		}
	}
	if query.Get("state") == query.Get("nonce") || len(a.Body) > 0 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %v with %q", a.Header, a.Body)
	}
	cookies := (&http.Response{Header: a.Header}).Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].Path != "/" || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Secure || cookies[0].MaxAge != 600 {
		t.Fatalf("cookies %v", cookies)
	}
	signIn := cookies[0].Name

	back := b.atProvider(t, authorize)
	a = b.get(t, back.String())
	if to := a.Header.Get("Location"); a.Status != http.StatusSeeOther || to != "/version?x=1#top" {
		t.Errorf("sent to %q by %d", to, a.Status)
	}
	set := map[string]*http.Cookie{}
	for _, cookie := range (&http.Response{Header: a.Header}).Cookies() {
		set[cookie.Name] = cookie
	}
	session := set["noted_session"]
	if len(set) != 2 || session == nil || !session.HttpOnly || session.Path != "/" || session.SameSite != http.SameSiteLaxMode || session.Secure || session.Domain != "" {
		t.Fatalf("cookies %v", a.Header.Values("Set-Cookie"))
	}
	if life := time.Duration(session.MaxAge) * time.Second; life > 168*time.Hour || life < 168*time.Hour-time.Minute {
		t.Errorf("the cookie lives %v", life)
	}
	if set[signIn] == nil || set[signIn].MaxAge >= 0 {
		t.Errorf("the sign-in's cookie stays: %v", a.Header.Values("Set-Cookie"))
	}
	if !strings.HasPrefix(session.Value, "nsess_") || len(session.Value) != 49 {
		t.Errorf("the token is %q", session.Value)
	}
	// The cookie and the header are one credential.
	byCookie := want(t, 200, b.get(t, env.URL+"/v1/me"))
	byHeader := want(t, 200, env.Do(t, "GET", "/v1/me", session.Value, nil))
	if string(byCookie.Body) != string(byHeader.Body) {
		t.Errorf("by cookie %s, by header %s", byCookie.Body, byHeader.Body)
	}
	// Nothing in one sign-in can be guessed from another.
	again := newBrowser(t, env).begin(t, "alice").Query()
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if again.Get(name) == query.Get(name) {
			t.Errorf("%s is the same twice", name)
		}
	}
}

func TestOverHTTPSTheCookieIsBoundToTheHost(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.PublicURL = "https://notes.example" })
	a := env.Do(t, "GET", "/auth/login?login_hint=alice", "", nil)
	location(t, a, http.StatusFound)
	cookies := (&http.Response{Header: a.Header}).Cookies()
	if len(cookies) != 1 || !strings.HasPrefix(cookies[0].Name, "__Host-noted_signin_") || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].Domain != "" || cookies[0].Path != "/" {
		t.Errorf("cookies %v", cookies)
	}
	if a.Header.Get("Strict-Transport-Security") == "" {
		t.Error("no Strict-Transport-Security")
	}
	if name := env.Server.Identity.SessionCookie(); name != "__Host-noted_session" {
		t.Errorf("the session cookie is %s", name)
	}
	a = env.Do(t, "POST", "/auth/logout", "", nil)
	if set := a.Header.Values("Set-Cookie"); len(set) != 1 || !strings.HasPrefix(set[0], "__Host-noted_session=;") || !strings.Contains(set[0], "Secure") {
		t.Errorf("logout sets %q", set)
	}
	// The plain name is not a credential there.
	checkRefused(t, "plain cookie", env.Do(t, "GET", "/v1/me", "", nil, "Cookie", "noted_session="+string(identity.NewToken())))
}

// signed replaces a token's header and signature; sign may be nil for none.
func signed(token, header string, sign func(input string) []byte) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Split(token, ".")[1]
	if sign == nil {
		return input + "."
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

// claim sets one claim; nil removes it.
func claim(name string, value any) devidp.Lie {
	return devidp.Lie{Claims: func(c map[string]any) {
		if value == nil {
			delete(c, name)
			return
		}
		c[name] = value
	}}
}

// response changes one parameter of the way back; empty removes it.
func response(name, value string) devidp.Lie {
	return devidp.Lie{Response: func(v url.Values) {
		v.Del(name)
		if value != "" {
			v.Set(name, value)
		}
	}}
}

// atToken takes the token endpoint over.
func atToken(answer http.HandlerFunc) devidp.Lie {
	return devidp.Lie{Handler: func(endpoint string, w http.ResponseWriter, r *http.Request) bool {
		if endpoint != "token" {
			return false
		}
		_ = r.ParseForm()
		answer(w, r)
		return true
	}}
}

func tokenJSON(body string) devidp.Lie {
	return atToken(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	})
}

// later is the second that begins at least d from now.
func later(d time.Duration) int64 { return time.Now().Add(d + time.Second - 1).Unix() }

func TestEveryWrongSignInIsTheOneAnswer(t *testing.T) {
	t.Parallel()
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		trapped.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"sub":"alice","email":"ada@dev.example"}`))
	}))
	defer trap.Close()
	env := servertest.New(t, func(o *server.Options) {
		o.Providers = append(o.Providers, &oidc.Provider{ID: "other", Name: "other", Issuer: "http://127.0.0.1:1", ClientID: "noted"})
	})
	// Discovery is asked once. This one promises userinfo, for the whole test.
	userinfo := func(doc map[string]any) { doc["userinfo_endpoint"] = trap.URL + "/userinfo" }
	otherKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	otherProvider, err := devidp.New(devidp.Config{Issuer: env.Issuer, ClientID: "noted", ClientSecret: "x"})
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(input string) []byte {
		mac := hmac.New(sha256.New, []byte("for this test"))
		mac.Write([]byte(input))
		return mac.Sum(nil)
	}
	rs256 := func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		s, _ := rsa.SignPKCS1v15(rand.Reader, otherKey, crypto.SHA256, sum[:])
		return s
	}
	header := func(token string) string {
		h, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		return string(h)
	}
	idToken := func(change func(string) string) devidp.Lie { return devidp.Lie{IDToken: change} }

	type hostile struct {
		name   string
		lie    devidp.Lie
		back   func(*url.URL)           // changes the way back to noted
		from   func(*browser, *url.URL) // who goes that way, if not the browser that began
		reason string
	}
	query := func(name, value string) func(*url.URL) {
		return func(u *url.URL) {
			q := u.Query()
			q.Del(name)
			if value != "" {
				q.Set(name, value)
			}
			u.RawQuery = q.Encode()
		}
	}
	stranger := func(b *browser, _ *url.URL) { b.client = newBrowser(t, env).client }
	cases := []hostile{
		{name: "wrong issuer", lie: claim("iss", "https://evil.example"), reason: "id_token"},
		{name: "issuer with a slash", lie: claim("iss", env.Issuer+"/"), reason: "id_token"},
		{name: "no issuer", lie: claim("iss", nil), reason: "id_token"},
		{name: "wrong audience", lie: claim("aud", "somebody"), reason: "id_token"},
		{name: "no audience", lie: claim("aud", nil), reason: "id_token"},
		{name: "empty audience", lie: claim("aud", []string{}), reason: "id_token"},
		{name: "extra audience", lie: claim("aud", []string{"noted", "somebody"}), reason: "id_token"},
		{name: "extra audience first", lie: devidp.Lie{Claims: func(c map[string]any) { c["aud"], c["azp"] = []string{"somebody", "noted"}, "noted" }}, reason: "id_token"},
		{name: "audience that is a number", lie: claim("aud", 7), reason: "id_token"},
		{name: "azp of another", lie: claim("azp", "somebody"), reason: "id_token"},
		{name: "azp empty", lie: claim("azp", ""), reason: "id_token"},
		{name: "azp no string", lie: claim("azp", 1), reason: "id_token"},
		{name: "expired", lie: claim("exp", time.Now().Unix()-1), reason: "id_token"},
		{name: "no expiry", lie: claim("exp", nil), reason: "id_token"},
		{name: "not valid yet", lie: claim("nbf", later(10*time.Minute)), reason: "id_token"},
		{name: "iat 61 s ahead", lie: devidp.Lie{Claims: func(c map[string]any) { c["iat"] = later(61 * time.Second) }}, reason: "id_token"},
		{name: "no nonce", lie: claim("nonce", nil), reason: "id_token"},
		{name: "other nonce", lie: claim("nonce", "x"), reason: "id_token"},
		{name: "empty nonce", lie: claim("nonce", ""), reason: "id_token"},
		{name: "empty sub", lie: claim("sub", ""), reason: "id_token"},
		{name: "no sub", lie: claim("sub", nil), reason: "id_token"},
		{name: "sub of 256", lie: claim("sub", strings.Repeat("a", 256)), reason: "id_token"},
		{name: "sub beyond ASCII", lie: claim("sub", "ålice"), reason: "id_token"},
		{name: "sub with a line end", lie: claim("sub", "ali\nce"), reason: "id_token"},
		{name: "sub with NUL", lie: claim("sub", "alice\x00"), reason: "id_token"},
		{name: "sub a number", lie: claim("sub", 7), reason: "id_token"},
		{name: "alg none", lie: idToken(func(s string) string { return signed(s, `{"alg":"none"}`, nil) }), reason: "id_token"},
		{name: "alg None", lie: idToken(func(s string) string { return signed(s, `{"alg":"None","typ":"JWT"}`, nil) }), reason: "id_token"},
		{name: "HS256 by the client secret", lie: idToken(func(s string) string { return signed(s, `{"alg":"HS256"}`, hs256) }), reason: "id_token"},
		{name: "another key under the same kid", lie: idToken(func(s string) string { return signed(s, header(s), rs256) }), reason: "id_token"},
		{name: "another key in the header", lie: idToken(func(s string) string {
			return signed(s, `{"alg":"RS256","jwk":{"kty":"RSA","e":"AQAB","n":"`+base64.RawURLEncoding.EncodeToString(otherKey.N.Bytes())+`"}}`, rs256)
		}), reason: "id_token"},
		{name: "another provider's key", lie: devidp.Lie{Claims: func(c map[string]any) {}, IDToken: func(string) string {
			s, _ := otherProvider.SignIDToken(map[string]any{"iss": env.Issuer, "sub": "alice", "aud": "noted", "exp": later(time.Hour), "iat": time.Now().Unix()})
			return s
		}}, reason: "id_token"},
		{name: "changed payload", lie: idToken(func(s string) string {
			parts := strings.Split(s, ".")
			payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"alice"`, `"ada"`, 1)))
			return strings.Join(parts, ".")
		}), reason: "id_token"},
		{name: "no signature", lie: idToken(func(s string) string { return s[:strings.LastIndex(s, ".")+1] }), reason: "id_token"},
		{name: "two parts", lie: idToken(func(s string) string { return s[:strings.LastIndex(s, ".")] }), reason: "id_token"},
		{name: "no token at all", lie: idToken(func(string) string { return "garbage" }), reason: "id_token"},
		{name: "empty id_token", lie: idToken(func(string) string { return "" }), reason: "id_token"},
		{name: "claims of the wrong type", lie: claim("sid", 7), reason: "id_token"},

		{name: "no state", back: query("state", ""), reason: "state"},
		{name: "foreign state", back: query("state", "x"), reason: "state"},
		{name: "a state of no cookie", back: query("state", base64.RawURLEncoding.EncodeToString(make([]byte, 32))), reason: "state"},
		{name: "of another browser", from: stranger, reason: "state"},
		{name: "reused after success", from: func(b *browser, u *url.URL) { want(t, 303, b.get(t, u.String())) }, reason: "state"},
		{name: "at another provider's callback", back: func(u *url.URL) { u.Path = "/auth/callback/other" }, reason: "state"},

		{name: "the provider says no", lie: devidp.Lie{Response: func(v url.Values) {
			v.Del("code")
			v.Set("error", "access_denied")
			v.Set("error_description", "no\nreason=fake \x00")
		}}, reason: "provider_error"},
		{name: "an error beside a code", lie: response("error", "server_error"), reason: "provider_error"},
		{name: "no iss though promised", lie: response("iss", ""), reason: "provider_error"},
		{name: "wrong iss", lie: response("iss", "https://evil.example"), reason: "provider_error"},
		{name: "no code", lie: response("code", ""), reason: "code_exchange"},
		{name: "another code", lie: response("code", "x"), reason: "code_exchange"},

		{name: "the token endpoint redirects", lie: atToken(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, trap.URL+"/token", http.StatusTemporaryRedirect)
		}), reason: "code_exchange"},
		{name: "the token endpoint redirects to a GET", lie: atToken(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, trap.URL+"/token", http.StatusFound)
		}), reason: "code_exchange"},
		{name: "an answer over 1 MiB", lie: tokenJSON(`{"access_token":"x","token_type":"Bearer","id_token":"` + strings.Repeat("a", 1<<20) + `"}`), reason: "code_exchange"},
		{name: "broken JSON", lie: tokenJSON(`{"access_token":"eyJsecret`), reason: "code_exchange"},
		{name: "no id_token", lie: tokenJSON(`{"access_token":"eyJsecret","token_type":"Bearer"}`), reason: "id_token"},
		{name: "an id_token that is no string", lie: tokenJSON(`{"access_token":"eyJsecret","token_type":"Bearer","id_token":{"a":1}}`), reason: "id_token"},
		{name: "an error with secrets in it", lie: atToken(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"eyJsecret"}`))
		}), reason: "code_exchange"},
		{name: "500", lie: atToken(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "eyJsecret", 500) }), reason: "code_exchange"},
		{name: "the connection is cut", lie: atToken(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), reason: "code_exchange"},
	}
	// Somebody signed in before, so that a refusal is not for lack of a user.
	env.Provider.SetLie(devidp.Lie{Discovery: userinfo})
	first := newBrowser(t, env)
	want(t, 303, first.get(t, first.callback(t, "alice").String()))
	var json, html *servertest.Answer
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, accept := range []string{"application/json", "text/html,*/*;q=0.8"} {
				c.lie.Discovery = userinfo
				env.Provider.SetLie(c.lie)
				b := newBrowser(t, env)
				back := b.callback(t, "alice")
				if c.back != nil {
					c.back(back)
				}
				if c.from != nil {
					c.from(b, back)
				}
				sessions, users := number(t, env, `select count(*) from sessions`), number(t, env, `select count(*) from users`)
				started := time.Now()
				a := b.get(t, back.String(), "Accept", accept)
				if took := time.Since(started); took < servertest.Floor {
					t.Errorf("answered after %v", took)
				}
				seen := json
				if strings.HasPrefix(accept, "text/html") {
					seen = html
					if html == nil {
						html, seen = &a, &a
					}
					text := string(a.Body)
					if a.Status != 401 || !strings.Contains(text, "Authentication failed") || !strings.Contains(text, "<a href=") ||
						!strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") || len(a.Header.Values("Set-Cookie")) > 0 {
						t.Errorf("page: %d %v %s", a.Status, a.Header, a.Body)
					}
				} else {
					if json == nil {
						json, seen = &a, &a
					}
					checkRefused(t, c.name, a)
				}
				// Its links lead to the callback's provider. Nothing else differs for another provider.
				if strings.HasPrefix(back.Path, "/auth/callback/other") && seen == html {
					a.Body = bytes.ReplaceAll(a.Body, []byte("provider=other"), []byte("provider=dev"))
					a.Header.Set("Content-Length", strconv.Itoa(len(a.Body)))
				}
				sameHeaders(t, c.name, a.Header, seen.Header)
				if string(a.Body) != string(seen.Body) {
					t.Errorf("another body: %s", a.Body)
				}
				if n := number(t, env, `select count(*) from sessions`); n != sessions {
					t.Errorf("%d sessions, there were %d", n, sessions)
				}
				if n := number(t, env, `select count(*) from users`); n != users {
					t.Errorf("%d users, there were %d", n, users)
				}
				if log := logOf(env, a); !strings.Contains(log, "reason="+c.reason+" ") {
					t.Errorf("the log does not say %s: %s", c.reason, log)
				}
			}
		})
	}
	if n := trapped.Load(); n > 0 {
		t.Errorf("%d requests came to where the token endpoint redirects, or to userinfo", n)
	}
	for _, secret := range []string{"eyJ", "nsess_", "code=", "for this test"} {
		if strings.Contains(env.Log.String(), secret) {
			t.Errorf("the log has %q in it", secret)
		}
	}
}

// The same callback again, with the cookie kept, as if somebody had copied both.
func TestACodeIsSpentByItsUse(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	back := b.callback(t, "alice")
	at, _ := url.Parse(env.URL)
	kept := b.client.Jar.Cookies(at)
	want(t, 303, b.get(t, back.String()))
	thief := newBrowser(t, env)
	thief.client.Jar.SetCookies(at, kept)
	a := thief.get(t, back.String())
	checkRefused(t, "a spent code", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=code_exchange") {
		t.Errorf("logged %s", log)
	}
}

// PKCE and nonce bind the code to the flow: another flow's code is useless in this one.
func TestACodeOfAnotherFlowIsRefused(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	victim, attacker := newBrowser(t, env), newBrowser(t, env)
	mine, theirs := attacker.callback(t, "bob"), victim.callback(t, "alice")
	q := theirs.Query()
	q.Set("code", mine.Query().Get("code"))
	theirs.RawQuery = q.Encode()
	a := victim.get(t, theirs.String())
	checkRefused(t, "an injected code", a)
	if victim.session() != "" {
		t.Error("the victim is signed in as somebody")
	}
}

func TestDamagedSignInCookiesAreTheOneAnswer(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, value := range []string{"", "x", "%", base64.RawURLEncoding.EncodeToString([]byte(`{}`)), base64.RawURLEncoding.EncodeToString([]byte(`{"s":7}`)), base64.RawURLEncoding.EncodeToString([]byte(`null`)), strings.Repeat("A", 4000)} {
		b := newBrowser(t, env)
		back := b.callback(t, "alice")
		at, _ := url.Parse(env.URL)
		name := b.client.Jar.Cookies(at)[0].Name
		a := env.Do(t, "GET", back.RequestURI(), "", nil, "Cookie", name+"="+value)
		checkRefused(t, "cookie "+value, a)
	}
}

func TestWhatIsOnlyUnusualSignsIn(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for name, lie := range map[string]devidp.Lie{
		"iat 30 s ahead":        claim("iat", later(29*time.Second)),
		"sub of 255":            claim("sub", strings.Repeat("a", 255)),
		"audience as a list":    claim("aud", []string{"noted"}),
		"azp ours":              claim("azp", "noted"),
		"no e-mail":             claim("email", nil),
		"an e-mail, a number":   claim("email", 7),
		"no name":               claim("name", nil),
		"a name, an object":     claim("name", map[string]any{"en": "Alice"}),
		"a name of 300":         claim("name", strings.Repeat("n", 300)),
		"a name with NUL":       claim("name", "al\x00ice"),
		"a name of emoji":       claim("name", strings.Repeat("😀", 60)),
		"an e-mail of 400":      claim("email", strings.Repeat("e", 400)+"@dev.example"),
		"groups of all sorts":   claim("groups", []any{"a", 7, nil, "b\x00", "", map[string]any{"c": 1}}),
		"groups as one string":  claim("groups", "a"),
		"groups as an object":   claim("groups", map[string]any{"a": 1}),
		"unknown claims":        claim("https://x.example/y", []any{1, "2"}),
		"email_verified a word": claim("email_verified", "true"),
	} {
		env.Provider.SetLie(lie)
		b := newBrowser(t, env)
		if a := b.get(t, b.callback(t, "alice").String()); a.Status != 303 || b.session() == "" {
			t.Errorf("%s: %d %s\n%s", name, a.Status, a.Body, logOf(env, a))
		}
	}
}

func TestASlowTokenEndpointEndsAsTheOneAnswer(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	stop := make(chan struct{})
	defer close(stop)
	env.Provider.SetLie(atToken(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	back, started := b.callback(t, "alice"), time.Now()
	a := b.get(t, back.String())
	checkRefused(t, "slow", a)
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("waited %v for the provider", took)
	}
}

func TestASlowlyDrippingTokenEndpointEndsToo(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	env.Provider.SetLie(atToken(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 300 {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}))
	back, started := b.callback(t, "alice"), time.Now()
	checkRefused(t, "dripping", b.get(t, back.String()))
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("waited %v for the provider", took)
	}
}

func TestAnUnknownProviderIs404AndOneThatIsDownIs503(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) {
		o.Providers = append(o.Providers, &oidc.Provider{ID: "down", Name: "down", Issuer: "http://127.0.0.1:1", ClientID: "noted"})
	})
	for _, path := range []string{"/auth/login?provider=none", "/auth/login?provider=DEV", "/auth/login", "/auth/callback/none?code=x&state=y", "/auth/callback/DEV"} {
		a := want(t, 404, env.Do(t, "GET", path, "", nil))
		if a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(a.Body), "/auth/providers") {
			t.Errorf("%s: %s", path, a.Body)
		}
	}
	a := want(t, 503, env.Do(t, "GET", "/auth/login?provider=down", "", nil))
	if !strings.Contains(string(a.Body), "down") || a.Header.Get("Retry-After") == "" || strings.Contains(string(a.Body), "127.0.0.1:1") || len(a.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("%v %s", a.Header, a.Body)
	}
	// Nobody else's sign-in is affected.
	b := newBrowser(t, env)
	want(t, 303, b.get(t, b.callback(t, "alice").String()))
	a = want(t, 200, env.Do(t, "GET", "/auth/providers", "", nil))
	if string(a.Body) != `{"items":[{"id":"dev","name":"dev"},{"id":"down","name":"down"}]}` {
		t.Errorf("providers %s", a.Body)
	}
}

func TestADiscoveryDocumentOfAnotherIssuerIsRefusedUntilItIsRight(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, issuer := range []any{"https://evil.example", env.Issuer + "/", "", 7, nil} {
		env.Provider.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { doc["issuer"] = issuer }})
		want(t, 503, env.Do(t, "GET", "/auth/login", "", nil))
	}
	env.Provider.SetLie(devidp.Lie{})
	time.Sleep(1100 * time.Millisecond) // a failure is kept for a second
	env.SignIn(t, "alice")
}

func TestGatesLetInWhoPassesAllOfThem(t *testing.T) {
	t.Parallel()
	type person = map[string]any
	for _, c := range []struct {
		name   string
		set    func(*oidc.Provider)
		claims person
		pass   bool
	}{
		{"domain", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{}, true},
		{"domain in upper case", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "Alice@DEV.example"}, true},
		{"domain unverified", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email_verified": false}, false},
		{"domain verified by a word", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email_verified": "true"}, false},
		{"domain verified by a number", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email_verified": 1}, false},
		{"domain with nothing said", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email_verified": nil}, false},
		{"another domain", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"corp.example"} }, person{}, false},
		{"a domain that ends alike", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "a@evil-dev.example"}, false},
		{"a subdomain", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "a@x.dev.example"}, false},
		{"a domain that begins alike", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "a@dev.example.evil.example"}, false},
		{"two @", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "a@dev.example@evil.example"}, false},
		{"the domain alone", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": "@dev.example"}, false},
		{"no e-mail", func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example"} }, person{"email": nil}, false},
		{"group", func(p *oidc.Provider) { p.AllowedGroups = []string{"staff", "guests"} }, person{"groups": []string{"x", "guests"}}, true},
		{"group at a path", func(p *oidc.Provider) {
			p.GroupsClaims, p.AllowedGroups = []string{"groups", "realm_access.roles"}, []string{"staff"}
		}, person{"realm_access": map[string]any{"roles": []string{"staff"}}}, true},
		{"another group", func(p *oidc.Provider) { p.AllowedGroups = []string{"staff"} }, person{"groups": []string{"Staff", "staff2", "/staff"}}, false},
		{"no group", func(p *oidc.Provider) { p.AllowedGroups = []string{"staff"} }, person{}, false},
		{"group in another claim", func(p *oidc.Provider) { p.AllowedGroups = []string{"staff"} }, person{"roles": []string{"staff"}}, false},
		{"hosted domain", func(p *oidc.Provider) { p.HostedDomains = []string{"corp.example"} }, person{"hd": "Corp.example"}, true},
		{"another hosted domain", func(p *oidc.Provider) { p.HostedDomains = []string{"corp.example"} }, person{"hd": "evil.example"}, false},
		{"no hosted domain", func(p *oidc.Provider) { p.HostedDomains = []string{"corp.example"} }, person{}, false},
		{"all three", func(p *oidc.Provider) {
			p.AllowedEmailDomains, p.AllowedGroups, p.HostedDomains = []string{"dev.example"}, []string{"staff"}, []string{"corp.example"}
		}, person{"groups": []string{"staff"}, "hd": "corp.example"}, true},
		{"two of three", func(p *oidc.Provider) {
			p.AllowedEmailDomains, p.AllowedGroups, p.HostedDomains = []string{"dev.example"}, []string{"staff"}, []string{"corp.example"}
		}, person{"groups": []string{"staff"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := servertest.New(t, func(o *server.Options) { c.set(o.Providers[0]) })
			env.Provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) {
				for name, value := range c.claims {
					if claims[name] = value; value == nil {
						delete(claims, name)
					}
				}
			}})
			b := newBrowser(t, env)
			authorize := b.begin(t, "alice")
			a := b.get(t, b.atProvider(t, authorize).String())
			if c.pass {
				want(t, 303, a)
				return
			}
			checkRefused(t, c.name, a)
			if log := logOf(env, a); !strings.Contains(log, "reason=gate ") {
				t.Errorf("logged %s", log)
			}
			if n := number(t, env, `select count(*) from users`); n != 0 {
				t.Errorf("%d users were made", n)
			}
		})
	}
}

func TestSixteenFirstSignInsAtOnceMakeOneUser(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	const many = 16
	browsers, backs, errs := make([]*browser, many), make([]*url.URL, many), make([]string, many)
	for i := range many {
		browsers[i] = newBrowser(t, env)
		backs[i] = browsers[i].callback(t, "carol")
	}
	var group sync.WaitGroup
	for i := range many {
		group.Go(func() {
			a, err := browsers[i].try(t.Context(), backs[i].String())
			if err != nil {
				errs[i] = err.Error()
			} else if a.Status != 303 {
				errs[i] = string(a.Body)
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != "" {
			t.Error(err)
		}
	}
	users, identities, sessions := number(t, env, `select count(*) from users`), number(t, env, `select count(*) from identities`), number(t, env, `select count(distinct user_id) + count(*) from sessions`)
	if users != 1 || identities != 1 || sessions != 1+many {
		t.Errorf("%d users, %d identities, %d sessions", users, identities, sessions-1)
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.create'`); n != many {
		t.Errorf("%d sign-ins are in the record", n)
	}
}

// One e-mail under two subjects is two people: an e-mail never finds anybody.
func TestAnEMailNeverFindsOrLinksAnybody(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	env.SignIn(t, "alice")
	env.Provider.SetLie(claim("email", "alice@dev.example"))
	env.SignIn(t, "bob")
	if user(t, env, "alice") == user(t, env, "bob") {
		t.Error("bob became alice by her e-mail")
	}
}

func TestWhatIsShownOfAPersonIsThatOfTheLastSignIn(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	before := env.SignIn(t, "alice")
	env.Provider.SetLie(devidp.Lie{Claims: func(c map[string]any) { c["name"], c["email"] = "Alice ☂", "new@dev.example" }})
	env.SignIn(t, "alice")
	var me struct{ Name, Email string }
	want(t, 200, env.Do(t, "GET", "/v1/me", before, nil)).JSON(t, &me)
	if me.Name != "Alice ☂" || me.Email != "new@dev.example" {
		t.Errorf("got %+v", me)
	}
}

// Others read it, in lists and mails.
func TestAPersonsNameTurnsNoTextBreaksNoLineAndIsNeverBlank(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for given, shown := range map[string]string{
		"Ada \u202etfil\u202c\u2028Lovelace\u0085": "Ada tfilLovelace",
		"\u2066Ada\u2069":                          "Ada",
		"\u200b\u00ad":                             "alice", // blank: the next claim is used
		" Ada ":                                    "Ada",
		"Ada\u200f ☂":                              "Ada\u200f ☂",
	} {
		env.Provider.SetLie(devidp.Lie{Claims: func(c map[string]any) {
			c["name"], c["preferred_username"], c["email"] = given, "alice", "al\u202eice@dev.example"
		}})
		var me struct{ Name, Email string }
		want(t, 200, env.Do(t, "GET", "/v1/me", env.SignIn(t, "alice"), nil)).JSON(t, &me)
		if me.Name != shown || me.Email != "" {
			t.Errorf("%q is shown as %q, with the e-mail %q", given, me.Name, me.Email)
		}
	}
}

func TestReturnToIsOnThisServerOrTheFrontPage(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for raw, to := range map[string]string{
		"/notes?x=1#y": "/notes?x=1#y", "": "/", "https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/",
		"/\t/evil.example": "/", "javascript:alert(1)": "/", "notes": "/", "/%2f%2fevil.example": "/", "/" + strings.Repeat("a", 3000): "/",
	} {
		b := newBrowser(t, env)
		authorize := location(t, b.get(t, env.URL+"/auth/login?login_hint=alice&return_to="+url.QueryEscape(raw)), 302)
		a := want(t, 303, b.get(t, b.atProvider(t, authorize).String()))
		if got := a.Header.Get("Location"); got != to {
			t.Errorf("%q: sent to %q", raw, got)
		}
	}
}

func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{
		"", "/", "/a", "//x", "/\\x", "\\/x", "/%2f/x", "/%2fx", "/a//b", "/../x", "/..//x", "/.//x", "/./\\x", "/a?u=//x", "/a#//x", "/\tx", "/\n/x", "http://x", "http:x",
		"/@x", "/:x", "/x:y", "///x", "/;//x", "/?", "/#", "/%", "/%zz", "/\x00", "/é", "/\xff", " /x", "/ /x", "/%09/x", "/%5cx", "/.%2f/x", "/\u2028/x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := identity.LocalPath(raw)
		if got != "/" && got != raw {
			t.Fatalf("%q became %q", raw, got)
		}
		if len(got) > 2048 || !strings.HasPrefix(got, "/") || strings.ContainsAny(got, "\r\n\t\\") {
			t.Fatalf("%q is taken", got)
		}
		base, _ := url.Parse("https://host/x")
		to, err := base.Parse(got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if to.Scheme != "https" || to.Host != "host" || to.User != nil {
			t.Fatalf("%q leads to %s", got, to)
		}
		// Browsers drop tabs and line ends and read \ as / (WHATWG URL, 4.4). After that it must lead here too.
		clean := strings.NewReplacer("\t", "", "\r", "", "\n", "", "\\", "/").Replace(got)
		if strings.HasPrefix(clean, "//") {
			t.Fatalf("a browser goes to another host by %q", got)
		}
		// Without dot segments there must be no // at the start: browsers keep that as a path, proxies may not.
		if strings.HasPrefix(to.EscapedPath(), "//") {
			t.Logf("%q resolves to %q", got, to.EscapedPath())
		}
	})
}
