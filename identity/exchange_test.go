package identity_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

const (
	exchangeGrant  = "urn:ietf:params:oauth:grant-type:token-exchange"
	idTokenType    = "urn:ietf:params:oauth:token-type:id_token"
	invalidRequest = `{"error":"invalid_request"}`
)

// idClaims are those of a fresh ID token about somebody; change sets more, and nil removes one.
func idClaims(issuer, subject string, change map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{
		"iss": issuer, "aud": "noted", "sub": subject, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"name": subject, "email": subject + "@dev.example", "email_verified": true, "jti": rand.Text(),
	}
	for name, value := range change {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return all
}

// newIDToken makes an ID token with idClaims, signed by the dev provider.
func newIDToken(t testing.TB, env *servertest.Env, subject string, change map[string]any) string {
	t.Helper()
	return sign(t, env, idClaims(env.Issuer, subject, change))
}

// exchangeForm is what a client sends for a token.
func exchangeForm(token string) url.Values {
	return url.Values{"grant_type": {exchangeGrant}, "subject_token_type": {idTokenType}, "subject_token": {token}}
}

func exchange(t testing.TB, env *servertest.Env, idToken string) servertest.Answer {
	t.Helper()
	return postForm(t, env, "/auth/token", exchangeForm(idToken))
}

// tryExchange is exchange without a test, for goroutines.
func tryExchange(env *servertest.Env, idToken string) (status int, body string, err error) {
	response, err := http.PostForm(env.URL+"/auth/token", exchangeForm(idToken))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// checkNotExchanged requires the one answer of a failed exchange, and its reason in the log.
func checkNotExchanged(t testing.TB, env *servertest.Env, what, reason string, a servertest.Answer) {
	t.Helper()
	if a.Status != http.StatusBadRequest || string(a.Body) != invalidRequest {
		t.Errorf("%s: %d %s", what, a.Status, a.Body)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"} {
		if got := a.Header.Values(name); !slices.Equal(got, []string{value}) {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	for _, name := range []string{"Set-Cookie", "WWW-Authenticate", "Retry-After"} {
		if got := a.Header.Values(name); len(got) > 0 {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	if log := logOf(env, a); strings.Count(log, "authentication failed") != 1 || !strings.Contains(log, "reason="+reason+" ") {
		t.Errorf("%s: the log does not say %s, once: %s", what, reason, log)
	}
}

// capture keeps the last ID token that the provider signed for a callback.
func capture(env *servertest.Env) *atomic.Value {
	var kept atomic.Value
	env.Provider.SetLie(devidp.Lie{IDToken: func(signed string) string {
		kept.Store(signed)
		return signed
	}})
	return &kept
}

func rolesOf(t testing.TB, env *servertest.Env, session string) []string {
	t.Helper()
	var me struct{ Roles []string }
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", session, nil)).JSON(t, &me)
	return me.Roles
}

func TestExchangeGivesASessionOnceForAnIDToken(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	token := newIDToken(t, env, "alice", map[string]any{"sid": "s", "nonce": "of another client"})
	a := want(t, http.StatusOK, exchange(t, env, token))
	var got struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	a.JSON(t, &got)
	if body := fmt.Sprintf(`{"access_token":%q,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":%d}`,
		got.AccessToken, got.ExpiresIn); string(a.Body) != body || !strings.HasPrefix(got.AccessToken, "nsess_") {
		t.Errorf("answered %s", a.Body)
	}
	if got.ExpiresIn > 604_800 || got.ExpiresIn < 604_790 {
		t.Errorf("expires_in is %d, want that of 168 hours", got.ExpiresIn)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"} {
		if h := a.Header.Values(name); !slices.Equal(h, []string{value}) {
			t.Errorf("%s is %q", name, h)
		}
	}
	if cookies := a.Header.Values("Set-Cookie"); len(cookies) > 0 {
		t.Errorf("sets %q", cookies)
	}
	var me struct{ Name, Via, Email string }
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", got.AccessToken, nil)).JSON(t, &me)
	if me.Name != "alice" || me.Via != "session" || me.Email != "alice@dev.example" {
		t.Errorf("the session is %+v", me)
	}
	if all := list(t, env, got.AccessToken).Items; len(all) != 1 || all[0].Provider == nil || *all[0].Provider != "dev" || all[0].ExpiresAt.Sub(all[0].CreatedAt) != 168*time.Hour {
		t.Errorf("the sessions are %+v", all)
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.create' and outcome = 'success' and actor_id = $1 and target = $2 and detail = $3`,
		user(t, env, "alice"), current(t, env, got.AccessToken), "by "+env.Issuer); n != 1 {
		t.Errorf("%d rows of the record", n)
	}
	if n := number(t, env, `select count(*) from sessions where id_token is not null`); n != 0 {
		t.Error("another client's ID token is kept")
	}

	sent := time.Now()
	a = exchange(t, env, token)
	if took := time.Since(sent); took < servertest.Floor {
		t.Errorf("the second time was answered after %v", took)
	}
	checkNotExchanged(t, env, "the second time", "token_replayed", a)
	if n := number(t, env, `select count(*) from sessions`); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if !lives(t, env, got.AccessToken) {
		t.Error("the second time ended the session of the first")
	}
	if log := env.Log.String(); strings.Contains(log, token[:60]) || strings.Contains(log, token[len(token)-60:]) || strings.Contains(log, got.AccessToken) {
		t.Error("a token is in the log")
	}
}

func TestExchangeTakesOneSpellingOfAToken(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	token := newIDToken(t, env, "alice", nil)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	for what, other := range map[string]string{
		"with bits that are no data": token[:len(token)-1] + string(alphabet[last^1]),
		"padded":                     token + "==",
		"with a line break":          token[:20] + "\n" + token[20:],
		"with a blank behind it":     token + " ",
		"with a part more":           token + ".e30",
		"without its signature":      token[:strings.LastIndexByte(token, '.')],
		"with an empty signature":    token[:strings.LastIndexByte(token, '.')+1],
	} {
		checkNotExchanged(t, env, what, "id_token", exchange(t, env, other))
	}
	want(t, http.StatusOK, exchange(t, env, token))
}

func TestExchangeOfOneTokenAtOnceGivesOneSession(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	// Each answer is its status and whether its body is that of a failure.
	atOnce := func(tokens []string) (answers map[string]int) {
		t.Helper()
		answers = map[string]int{}
		var mu sync.Mutex
		var group sync.WaitGroup
		start := make(chan struct{})
		for _, token := range tokens {
			group.Go(func() {
				<-start
				status, body, err := tryExchange(env, token)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[fmt.Sprintf("%d %t", status, body == invalidRequest)]++
			})
		}
		close(start)
		group.Wait()
		return answers
	}
	if got := atOnce(slices.Repeat([]string{newIDToken(t, env, "alice", nil)}, 8)); !maps.Equal(got, map[string]int{"200 false": 1, "400 true": 7}) {
		t.Errorf("one token eight times: %v", got)
	}
	if n := number(t, env, `select count(*) from sessions`); n != 1 {
		t.Errorf("%d sessions of one token", n)
	}
	var tokens []string
	for range 8 {
		tokens = append(tokens, newIDToken(t, env, "bob", nil))
	}
	if got := atOnce(tokens); !maps.Equal(got, map[string]int{"200 false": 8}) {
		t.Errorf("eight tokens: %v", got)
	}
	if n := number(t, env, `select count(*) from sessions s join identities i on i.id = s.identity_id where i.subject = 'bob'`); n != 8 {
		t.Errorf("%d sessions of eight tokens", n)
	}
	if n := number(t, env, `select count(*) from users`); n != 2 {
		t.Errorf("%d users, want alice and bob", n)
	}
}

func TestExchangeAndCallbackUseTheSameTokenOnce(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	kept := capture(env)
	session := env.SignIn(t, "alice")
	checkNotExchanged(t, env, "a callback's token", "token_replayed", exchange(t, env, kept.Load().(string)))
	if !lives(t, env, session) {
		t.Error("the callback's session ended")
	}

	// The other way round: it is exchanged while the callback fetches it.
	var status atomic.Int64
	env.Provider.SetLie(devidp.Lie{IDToken: func(signed string) string {
		got, _, _ := tryExchange(env, signed)
		status.Store(int64(got))
		return signed
	}})
	b := newBrowser(t, env)
	a := b.get(t, b.callback(t, "bob").String())
	if status.Load() != http.StatusOK {
		t.Fatalf("the exchange: %d", status.Load())
	}
	checkRefused(t, "a callback with an exchanged token", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=token_replayed ") {
		t.Errorf("logged %s", log)
	}
	if b.session() != "" {
		t.Error("the browser has a session")
	}
	if n := number(t, env, `select count(*) from sessions`); n != 2 {
		t.Errorf("%d sessions, want alice's and the exchanged one", n)
	}
}

func TestExchangeSaysAtOnceWhatIsWrongWithTheRequest(t *testing.T) {
	t.Parallel()
	const floor = 3 * time.Second
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = floor })
	token := newIDToken(t, env, "alice", nil)
	good := exchangeForm(token)
	with := func(name string, values ...string) string {
		form := maps.Clone(good)
		if form[name] = values; len(values) == 0 {
			delete(form, name)
		}
		return form.Encode()
	}
	const formType = "application/x-www-form-urlencoded"
	for _, c := range []struct{ name, path, contentType, body, code string }{
		{"no grant_type", "", formType, with("grant_type"), "invalid_request"},
		{"an empty grant_type", "", formType, with("grant_type", ""), "invalid_request"},
		{"no subject_token", "", formType, with("subject_token"), "invalid_request"},
		{"an empty subject_token", "", formType, with("subject_token", ""), "invalid_request"},
		{"no subject_token_type", "", formType, with("subject_token_type"), "invalid_request"},
		{"an access token", "", formType, with("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"), "invalid_request"},
		{"a JWT", "", formType, with("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"), "invalid_request"},
		{"an ID token asked for", "", formType, with("requested_token_type", idTokenType), "invalid_request"},
		{"grant_type twice", "", formType, with("grant_type", exchangeGrant, exchangeGrant), "invalid_request"},
		{"subject_token twice", "", formType, with("subject_token", token, token), "invalid_request"},
		{"subject_token and an empty one", "", formType, with("subject_token", token, ""), "invalid_request"},
		{"an unknown parameter twice", "", formType, with("colour", "red", "blue"), "invalid_request"},
		{"nothing", "", formType, "", "invalid_request"},
		{"no form", "", formType, "%zz", "invalid_request"},
		{"JSON", "", "application/json", `{"grant_type":"` + exchangeGrant + `"}`, "invalid_request"},
		{"a form called text", "", "text/plain", good.Encode(), "invalid_request"},
		{"a form called nothing", "", "", good.Encode(), "invalid_request"},
		{"a form in parts", "", "multipart/form-data; boundary=x", good.Encode(), "invalid_request"},
		{"all in the address", "?" + good.Encode(), formType, "", "invalid_request"},
		{"the token in the address", "?subject_token=" + token, formType, with("subject_token"), "invalid_request"},
		{"a password", "", formType, with("grant_type", "password"), "unsupported_grant_type"},
		{"a code", "", formType, with("grant_type", "authorization_code"), "unsupported_grant_type"},
		{"another case", "", formType, with("grant_type", strings.ToUpper(exchangeGrant)), "unsupported_grant_type"},
		{"a blank behind it", "", formType, with("grant_type", exchangeGrant+" "), "unsupported_grant_type"},
	} {
		sent := time.Now()
		a := env.Do(t, http.MethodPost, "/auth/token"+c.path, "", c.body, "Content-Type", c.contentType)
		if took := time.Since(sent); took > floor/2 {
			t.Errorf("%s: answered after %v", c.name, took)
		}
		if a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"`+c.code+`"}` {
			t.Errorf("%s: %d %s", c.name, a.Status, a.Body)
		}
		if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Content-Type %q, Cache-Control %q", c.name, a.Header.Get("Content-Type"), a.Header.Get("Cache-Control"))
		}
	}
	if strings.Contains(env.Log.String(), "authentication failed") {
		t.Error("one of them counts as a failed authentication")
	}
	if a := env.Do(t, http.MethodGet, "/auth/token", "", nil); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d, Allow %q", a.Status, a.Header.Get("Allow"))
	}
	// None of them used the token up. Unknown parameters are ignored, and so are the request's credentials.
	more := maps.Clone(good)
	maps.Copy(more, url.Values{"colour": {"red"}, "audience": {"x"}, "resource": {"https://x.example"}, "scope": {"openid"}, "client_id": {"x"},
		"requested_token_type": {""}, "device_code": {"x"}})
	want(t, http.StatusOK, env.Do(t, http.MethodPost, "/auth/token?grant_type=password", "no token", more.Encode(),
		"Content-Type", formType+"; charset=utf-8", "Cookie", "noted_session=x"))
	more = exchangeForm(newIDToken(t, env, "alice", nil))
	more.Set("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
	want(t, http.StatusOK, postForm(t, env, "/auth/token", more))
}

func TestExchangeTakesOnlyTokensMadeForItJustNow(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Providers[0].AllowedAudiences = []string{"mobile", "desktop"} })
	for _, c := range []struct {
		name string
		iat  any
		ok   bool
	}{
		{"now", time.Now().Unix(), true},
		{"5 minutes less 5 seconds", time.Now().Unix() - 295, true},
		{"5 minutes and a second", time.Now().Unix() - 301, false},
		{"an hour", time.Now().Unix() - 3600, false},
		{"57 seconds ahead", time.Now().Unix() + 57, true},
		{"66 seconds ahead", time.Now().Unix() + 66, false},
		{"none", nil, false},
		{"zero", 0, false},
		{"negative", -1, false},
	} {
		a := exchange(t, env, newIDToken(t, env, "alice", map[string]any{"iat": c.iat}))
		if !c.ok {
			checkNotExchanged(t, env, c.name, "id_token", a)
		} else if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", c.name, a.Status, a.Body)
		}
	}
	for _, c := range []struct {
		aud, azp any
		ok       bool
	}{
		{"noted", nil, true},
		{"mobile", nil, true},
		{"desktop", "desktop", true},
		{[]string{"noted"}, nil, true},
		{[]string{"noted", "mobile"}, nil, true},
		{[]string{"mobile", "desktop"}, "mobile", true},
		{[]string{"mobile", "noted"}, "noted", true},
		{"noted", "mobile", true},
		{"mobile", "noted", true},
		{"other", nil, false},
		{"Mobile", nil, false},
		{"mobile ", nil, false},
		{"", nil, false},
		{nil, nil, false},
		{[]string{}, nil, false},
		{[]string{"noted", "other"}, nil, false},
		{[]string{"other", "mobile"}, "mobile", false},
		{"noted", "other", false},
		{"mobile", "other", false},
		{"noted", "", false},
		{"noted", 7, false},
		{"noted", []string{"noted"}, false},
	} {
		what := fmt.Sprintf("aud %q, azp %q", c.aud, c.azp)
		a := exchange(t, env, newIDToken(t, env, "alice", map[string]any{"aud": c.aud, "azp": c.azp}))
		if !c.ok {
			checkNotExchanged(t, env, what, "id_token", a)
		} else if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	// The code flow refuses another client's token.
	env.Provider.SetLie(claim("aud", "mobile"))
	b := newBrowser(t, env)
	checkRefused(t, "a callback with another client's token", b.get(t, b.callback(t, "alice").String()))

	alone := servertest.New(t)
	checkNotExchanged(t, alone, "with no allowed audiences", "id_token", exchange(t, alone, newIDToken(t, alone, "alice", map[string]any{"aud": "mobile"})))
}

func TestExchangeAsksTheGates(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) {
		o.Providers[0].AllowedEmailDomains, o.Providers[0].AllowedGroups = []string{"dev.example"}, []string{"staff"}
	})
	for _, c := range []struct {
		name   string
		change map[string]any
		ok     bool
	}{
		{"both pass", map[string]any{"groups": []string{"other", "staff"}}, true},
		{"another domain", map[string]any{"groups": []string{"staff"}, "email": "alice@other.example"}, false},
		{"a subdomain", map[string]any{"groups": []string{"staff"}, "email": "alice@x.dev.example"}, false},
		{"not verified", map[string]any{"groups": []string{"staff"}, "email_verified": false}, false},
		{"verified, as text", map[string]any{"groups": []string{"staff"}, "email_verified": "true"}, false},
		{"nothing of verified", map[string]any{"groups": []string{"staff"}, "email_verified": nil}, false},
		{"no e-mail", map[string]any{"groups": []string{"staff"}, "email": nil}, false},
		{"another group", map[string]any{"groups": []string{"Staff"}}, false},
		{"no group", nil, false},
	} {
		before := number(t, env, `select count(*) from sessions`)
		a := exchange(t, env, newIDToken(t, env, "alice", c.change))
		if !c.ok {
			checkNotExchanged(t, env, c.name, "gate", a)
			if n := number(t, env, `select count(*) from sessions`); n != before {
				t.Errorf("%s: there is a session", c.name)
			}
		} else if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", c.name, a.Status, a.Body)
		}
	}
	checkNotExchanged(t, env, "somebody new", "gate", exchange(t, env, newIDToken(t, env, "dave", nil)))
	if n := number(t, env, `select count(*) from identities where subject = 'dave'`); n != 0 {
		t.Error("a gate made a user")
	}
}

// No answer shows what is wrong with a token.
func TestExchangeFailuresAreOneAnswerWhateverTheReason(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Providers[0].AllowedEmailDomains = []string{"dev.example"} })
	var first http.Header
	check := func(what, reason, token string) {
		t.Helper()
		sent := time.Now()
		a := exchange(t, env, token)
		if took := time.Since(sent); took < servertest.Floor {
			t.Errorf("%s: answered after %v", what, took)
		}
		checkNotExchanged(t, env, what, reason, a)
		if first == nil {
			first = a.Header
		}
		sameHeaders(t, what, a.Header, first)
		if len(token) > 100 && strings.Contains(env.Log.String(), token[len(token)-60:]) {
			t.Errorf("%s: the token is in the log", what)
		}
	}
	at := func(endpoint string) devidp.Lie {
		return devidp.Lie{Handler: func(asked string, w http.ResponseWriter, _ *http.Request) bool {
			if asked == endpoint {
				w.WriteHeader(http.StatusInternalServerError)
			}
			return asked == endpoint
		}}
	}
	fresh := func(change map[string]any) string { return newIDToken(t, env, "alice", change) }
	env.Provider.SetLie(at("discovery"))
	check("the provider is down", "provider_error", fresh(nil))
	env.Provider.SetLie(at("jwks"))
	time.Sleep(1100 * time.Millisecond) // discovery is tried again after a second
	check("the provider's keys are away", "id_token", fresh(nil))
	env.Provider.SetLie(devidp.Lie{})
	time.Sleep(1100 * time.Millisecond) // the keys are too
	used := fresh(nil)
	want(t, http.StatusOK, exchange(t, env, used))

	good := fresh(nil)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	long := strings.Repeat("x", 256)
	for _, c := range []struct{ what, reason, token string }{
		{"no token", "id_token", "x"},
		{"two parts", "id_token", "a.b"},
		{"three parts of nothing", "id_token", ".."},
		{"three parts of rubbish", "id_token", "AAAA.AAAA.AAAA"},
		{"no object", "id_token", header + ".W10." + signature},
		{"100 KiB", "id_token", strings.Repeat("A", 100<<10)},
		{"over 128 KiB", "id_token", header + "." + payload + "." + strings.Repeat("A", 130<<10)},
		{"another payload", "id_token", header + "." + strings.Split(fresh(nil), ".")[1] + "." + signature},
		{"no signature, and alg none", "id_token", "eyJhbGciOiJub25lIn0." + payload + "."},
		{"a damaged signature", "id_token", header + "." + payload + ".AAAA" + signature[4:]},
		{"another issuer", "id_token", fresh(map[string]any{"iss": "https://elsewhere.example"})},
		{"an issuer with a slash", "id_token", fresh(map[string]any{"iss": env.Issuer + "/"})},
		{"Google's issuer", "id_token", fresh(map[string]any{"iss": "accounts.google.com"})},
		{"no issuer", "id_token", fresh(map[string]any{"iss": nil})},
		{"a number for an issuer", "id_token", fresh(map[string]any{"iss": 7})},
		{"another audience", "id_token", fresh(map[string]any{"aud": "other"})},
		{"another azp", "id_token", fresh(map[string]any{"azp": "other"})},
		{"expired", "id_token", fresh(map[string]any{"exp": time.Now().Unix() - 1})},
		{"no expiry", "id_token", fresh(map[string]any{"exp": nil})},
		{"too old", "id_token", fresh(map[string]any{"iat": time.Now().Unix() - 301})},
		{"of the future", "id_token", fresh(map[string]any{"iat": time.Now().Unix() + 66})},
		{"not yet valid", "id_token", fresh(map[string]any{"nbf": time.Now().Unix() + 3600})},
		{"no subject", "id_token", fresh(map[string]any{"sub": nil})},
		{"an empty subject", "id_token", fresh(map[string]any{"sub": ""})},
		{"a long subject", "id_token", fresh(map[string]any{"sub": long})},
		{"a subject beyond ASCII", "id_token", fresh(map[string]any{"sub": "ålice"})},
		{"a subject in another case", "id_token", fresh(map[string]any{"SUB": "bob"})},
		{"a number for an sid", "id_token", fresh(map[string]any{"sid": 7})},
		{"a logout token", "id_token", fresh(map[string]any{"events": map[string]any{logoutEvent: map[string]any{}}})},
		{"an access token of Keycloak's", "id_token", fresh(map[string]any{"typ": "Bearer"})},
		{"a gate", "gate", fresh(map[string]any{"email": "alice@other.example"})},
		{"used", "token_replayed", used},
	} {
		check(c.what, c.reason, c.token)
	}
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sid": "over"})))
	check("signed out at the provider", "signed_out_at_provider", fresh(map[string]any{"sid": "over"}))
	env.Exec(t, `update users set locked_at = now()`)
	check("locked", "locked_user", fresh(nil))
	env.Recorded(t)
	if n := number(t, env, `select count(*) from audit_events where action = 'auth.fail' and outcome = 'failure' and object = 'user' and target = $1 and detail = 'locked_user'`, user(t, env, "alice")); n != 1 {
		t.Errorf("%d rows about the locked user", n)
	}
	if n := number(t, env, `select count(*) from sessions`); n != 1 {
		t.Errorf("%d sessions, want the one of the good token", n)
	}
	env.Exec(t, `update users set locked_at = null`)
	want(t, http.StatusOK, exchange(t, env, good))
}

func TestExchangeOfAnAddressThatFailsTooOftenIs429(t *testing.T) {
	t.Parallel()
	const perMinute = 3
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailuresPerMinute = perMinute })
	for range 5 { // these are not failed authentications
		want(t, http.StatusBadRequest, postForm(t, env, "/auth/token", url.Values{"grant_type": {"password"}}))
	}
	if left := 60 - time.Now().Second(); left < 12 { // all within one minute of the clock
		time.Sleep(time.Duration(left+1) * time.Second)
	}
	for range perMinute {
		checkNotExchanged(t, env, "within the limit", "id_token", exchange(t, env, "x"))
	}
	sent := time.Now()
	a := exchange(t, env, "x")
	if took := time.Since(sent); took < servertest.Floor {
		t.Errorf("429 after %v", took)
	}
	retry, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Status != http.StatusTooManyRequests || err != nil || retry < 1 || retry > 61 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s, Retry-After %q", a.Status, a.Body, a.Header.Get("Retry-After"))
	}
	// A valid credential is not refused for its address.
	want(t, http.StatusOK, exchange(t, env, newIDToken(t, env, "alice", nil)))
	want(t, http.StatusTooManyRequests, env.Do(t, http.MethodGet, "/v1/me", "x", nil))
}

func TestExchangeOfAFormThatIsTooLargeIs413(t *testing.T) {
	t.Parallel()
	const floor = 3 * time.Second
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = floor })
	sent := time.Now()
	a := exchange(t, env, strings.Repeat("a", 200<<10))
	if took := time.Since(sent); took > floor/2 {
		t.Errorf("answered after %v", took)
	}
	var said struct{ Status int }
	a.JSON(t, &said)
	if a.Status != http.StatusRequestEntityTooLarge || said.Status != a.Status || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if strings.Contains(env.Log.String(), "authentication failed") {
		t.Error("it counts as a failed authentication")
	}
}

func TestExchangeGivesTheRolesOfTheTokensGroups(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "g, group:dev:/noted/mods, moderator\n"))
	session := accessToken(t, exchange(t, env, newIDToken(t, env, "alice", map[string]any{"groups": []string{"/noted/mods", "x"}})))
	if got := rolesOf(t, env, session); !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("with the group: %q", got)
	}
	without := accessToken(t, exchange(t, env, newIDToken(t, env, "alice", map[string]any{"groups": []string{"x"}})))
	for _, one := range []string{session, without} {
		if got := rolesOf(t, env, one); !slices.Equal(got, []string{"user"}) {
			t.Errorf("after a token without it: %q", got)
		}
	}
	var stored map[string]any
	var text []byte
	if err := env.Pool.QueryRow(t.Context(), `select claims from identities`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &stored); err != nil || stored["names"] == nil || stored["values"] == nil {
		t.Errorf("of the claims is kept %s (%v)", text, err)
	}
}

func TestExchangeIsRefusedToPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	token := newIDToken(t, env, "alice", nil)
	body := exchangeForm(token).Encode()
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		a := env.Do(t, http.MethodPost, "/auth/token", "", body, append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
		if a.Status != http.StatusForbidden || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%q: %d %s", headers, a.Status, a.Body)
		}
	}
	want(t, http.StatusOK, exchange(t, env, token))
}
