package identity_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

const (
	logoutEvent     = "http://schemas.openid.net/event/backchannel-logout"
	backchannelPath = "/auth/backchannel-logout/dev"
	badRequest      = `{"title":"Bad Request","status":400}`
)

// postForm sends a form like a program.
func postForm(t testing.TB, env *servertest.Env, path string, form url.Values) servertest.Answer {
	t.Helper()
	return env.Do(t, http.MethodPost, path, "", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

func sign(t testing.TB, env *servertest.Env, claims map[string]any) string {
	t.Helper()
	token, err := env.Provider.SignIDToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func accessToken(t testing.TB, a servertest.Answer) string {
	t.Helper()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	want(t, http.StatusOK, a).JSON(t, &got)
	return got.AccessToken
}

func lives(t testing.TB, env *servertest.Env, token string) bool {
	t.Helper()
	return env.Do(t, http.MethodGet, "/v1/me", token, nil).Status == http.StatusOK
}

// approveDevice lets a device in with a session and returns the device's token.
func approveDevice(t testing.TB, env *servertest.Env, session string) string {
	t.Helper()
	var started struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
	}
	want(t, http.StatusOK, postForm(t, env, "/auth/device", url.Values{"client_id": {"noted-cli"}})).JSON(t, &started)
	want(t, http.StatusOK, env.Do(t, http.MethodPost, "/auth/device/confirm", session, url.Values{"user_code": {started.UserCode}, "decision": {"approve"}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded"))
	return accessToken(t, postForm(t, env, "/auth/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"noted-cli"}, "device_code": {started.DeviceCode},
	}))
}

// logoutClaims are those of a good logout token without a sub or sid; change sets more, and nil removes one.
func logoutClaims(issuer string, change map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{
		"iss": issuer, "aud": "noted", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"jti": rand.Text(), "events": map[string]any{logoutEvent: map[string]any{}},
	}
	for name, value := range change {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return all
}

func logoutToken(t testing.TB, env *servertest.Env, change map[string]any) string {
	t.Helper()
	return sign(t, env, logoutClaims(env.Issuer, change))
}

func sendLogout(t testing.TB, env *servertest.Env, token string) servertest.Answer {
	t.Helper()
	return postForm(t, env, backchannelPath, url.Values{"logout_token": {token}})
}

// signInWithSid signs somebody in with a browser; the ID token has the sid.
func signInWithSid(t testing.TB, env *servertest.Env, name, sid string) string {
	t.Helper()
	env.Provider.SetLie(claim("sid", sid))
	defer env.Provider.SetLie(devidp.Lie{})
	return env.SignIn(t, name)
}

// exchangeWithSid exchanges a fresh ID token.
func exchangeWithSid(t testing.TB, env *servertest.Env, name, sid string) string {
	t.Helper()
	return accessToken(t, exchange(t, env, newIDToken(t, env, name, map[string]any{"sid": sid})))
}

// withSecondIssuer adds the provider other, whose tokens are made by sign.
func withSecondIssuer(t testing.TB) (change func(*server.Options), sign func(claims map[string]any) string) {
	t.Helper()
	const issuer = "https://other.example"
	other, err := devidp.New(devidp.Config{Issuer: issuer, ClientID: "noted", ClientSecret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	change = func(o *server.Options) {
		o.Providers = append(o.Providers, &oidc.Provider{
			ID: "other", Name: "other", Issuer: issuer, ClientID: "noted", ClientSecret: "s", Scopes: []string{"openid"},
			Transport: inProcess{"other.example": other},
		})
	}
	sign = func(claims map[string]any) string {
		t.Helper()
		signed, err := other.SignIDToken(claims)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	return change, sign
}

func checkLives(t testing.TB, env *servertest.Env, all map[string]string) {
	t.Helper()
	for what, token := range all {
		if !lives(t, env, token) {
			t.Errorf("%s has ended", what)
		}
	}
}

func checkEnded(t testing.TB, env *servertest.Env, all map[string]string) {
	t.Helper()
	for what, token := range all {
		a := env.Do(t, http.MethodGet, "/v1/me", token, nil)
		checkRefused(t, what, a)
		if log := logOf(env, a); !strings.Contains(log, "reason=ended_session ") {
			t.Errorf("%s: logged %s", what, log)
		}
	}
}

func TestBackchannelBySidEndsWhatCameOfThatSignInAndNothingElse(t *testing.T) {
	t.Parallel()
	add, signOther := withSecondIssuer(t)
	env := servertest.New(t, add)
	web := signInWithSid(t, env, "alice", "S")
	program := exchangeWithSid(t, env, "alice", "S")
	ended := map[string]string{
		"the sign-in": web, "what was exchanged": program, "the device approved from the sign-in": approveDevice(t, env, web),
	}
	loggedOut := signInWithSid(t, env, "alice", "S")
	want(t, http.StatusNoContent, env.Do(t, http.MethodPost, "/auth/logout", loggedOut, nil))
	another := signInWithSid(t, env, "alice", "T")
	_, key := env.NewKey(t, web, "key-reader")
	stay := map[string]string{
		"another sign-in": another, "a device approved from it": approveDevice(t, env, another),
		"what was exchanged with no sid":      accessToken(t, exchange(t, env, newIDToken(t, env, "alice", nil))),
		"what was exchanged with another sid": exchangeWithSid(t, env, "alice", "s"),
		"bob":                                 signInWithSid(t, env, "bob", "U"), "a key": key,
		"the same sid of another provider": accessToken(t, exchange(t, env, signOther(idClaims("https://other.example", "alice", map[string]any{"sid": "S"})))),
	}
	// A device that is approved but has not fetched its session yet.
	var started struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
	}
	const formType = "application/x-www-form-urlencoded"
	want(t, http.StatusOK, postForm(t, env, "/auth/device", url.Values{"client_id": {"noted-cli"}})).JSON(t, &started)
	want(t, http.StatusOK, env.Do(t, http.MethodPost, "/auth/device/confirm", web,
		url.Values{"user_code": {started.UserCode}, "decision": {"approve"}}.Encode(), "Content-Type", formType))

	var ids []string
	for _, token := range ended {
		ids = append(ids, current(t, env, token))
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != 1 {
		t.Fatalf("%d ends before, want that of the logout", n)
	}
	a := want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sid": "S"})))
	if len(a.Body) != 0 || a.Header.Get("Content-Type") != "" || !slices.Equal(a.Header.Values("Cache-Control"), []string{"no-store"}) || len(a.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("200 with %q and %v", a.Body, a.Header)
	}
	checkEnded(t, env, ended)
	checkLives(t, env, stay)
	a = postForm(t, env, "/auth/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"noted-cli"}, "device_code": {started.DeviceCode},
	})
	if a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_grant"}` {
		t.Errorf("the device fetches %d %s", a.Status, a.Body)
	}
	// One row for each, also for the device that fetched nothing; none for what had ended before.
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != 1+len(ended)+1 {
		t.Errorf("%d rows of ends", n)
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and outcome = 'success' and object = 'session'
		and target = any($1) and actor_id = $2 and actor_name = 'alice' and detail = $3 and ip = '127.0.0.1' and request_id <> ''`,
		ids, user(t, env, "bob"), "signed out at "+env.Issuer); n != 0 {
		t.Errorf("%d rows name bob", n)
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and outcome = 'success' and object = 'session'
		and target = any($1) and actor_name = 'alice' and detail = $2 and ip = '127.0.0.1' and request_id <> ''`,
		ids, "signed out at "+env.Issuer); n != len(ids) {
		t.Errorf("%d rows of the %d ends", n, len(ids))
	}
	if n := number(t, env, `select count(*) from sessions where ended_at is not null and id_token is not null`); n != 0 {
		t.Errorf("%d ended sessions keep their ID token", n)
	}
}

func TestBackchannelBySubEndsAllOfThatIdentityAndNobodyElse(t *testing.T) {
	t.Parallel()
	add, signOther := withSecondIssuer(t)
	env := servertest.New(t, add)
	web := signInWithSid(t, env, "alice", "S")
	ended := map[string]string{
		"the sign-in": web, "another": signInWithSid(t, env, "alice", "T"), "a device": approveDevice(t, env, web),
		"one with no sid": accessToken(t, exchange(t, env, newIDToken(t, env, "alice", nil))),
	}
	stay := map[string]string{
		"bob": signInWithSid(t, env, "bob", "U"), "Alice": exchangeWithSid(t, env, "Alice", "V"),
		"the same sub of another provider": accessToken(t, exchange(t, env, signOther(idClaims("https://other.example", "alice", nil)))),
	}
	if a := want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "alice"}))); len(a.Body) != 0 {
		t.Errorf("200 with %q", a.Body)
	}
	checkEnded(t, env, ended)
	checkLives(t, env, stay)
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and detail = $1`, "signed out at "+env.Issuer); n != len(ended) {
		t.Errorf("%d rows of %d ends", n, len(ended))
	}
	// The sid selects, although sub matches more.
	one, two := signInWithSid(t, env, "bob", "one"), signInWithSid(t, env, "bob", "two")
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "bob", "sid": "one"})))
	checkEnded(t, env, map[string]string{"the sid's": one})
	checkLives(t, env, map[string]string{"the sub's other": two, "the sub's first": stay["bob"]})
	// A key is not a session.
	_, key := env.NewKey(t, two, "key-reader")
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "bob"})))
	checkEnded(t, env, map[string]string{"bob's": two, "bob's first": stay["bob"]})
	checkLives(t, env, map[string]string{"bob's key": key})
}

func TestBackchannelRefusalsAreOneAnswerAndEndNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	broken := devidp.Lie{Handler: func(asked string, w http.ResponseWriter, _ *http.Request) bool {
		if asked == "discovery" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return asked == "discovery"
	}}
	var first http.Header
	check := func(what, reason string, send func() servertest.Answer) {
		t.Helper()
		sent := time.Now()
		a := send()
		if took := time.Since(sent); took < servertest.Floor {
			t.Errorf("%s: answered after %v", what, took)
		}
		if a.Status != http.StatusBadRequest || string(a.Body) != badRequest || a.Header.Get("Content-Type") != "application/problem+json" ||
			!slices.Equal(a.Header.Values("Cache-Control"), []string{"no-store"}) {
			t.Errorf("%s: %d %v %s", what, a.Status, a.Header, a.Body)
		}
		if first == nil {
			first = a.Header
		}
		sameHeaders(t, what, a.Header, first)
		if log := logOf(env, a); strings.Count(log, "authentication failed") != 1 || !strings.Contains(log, "reason="+reason+" ") {
			t.Errorf("%s: the log does not say %s, once: %s", what, reason, log)
		}
	}
	checkToken := func(what, reason, token string) {
		t.Helper()
		check(what, reason, func() servertest.Answer { return sendLogout(t, env, token) })
	}
	env.Provider.SetLie(broken)
	checkToken("the provider is down", "logout_token", logoutToken(t, env, map[string]any{"sub": "alice"}))
	env.Provider.SetLie(devidp.Lie{})
	time.Sleep(1100 * time.Millisecond) // discovery is tried again after a second

	kept := capture(env)
	sessions := map[string]string{"alice": env.SignIn(t, "alice")}
	idTokenOfAlice := kept.Load().(string)
	sessions["with an sid"] = signInWithSid(t, env, "alice", "S")
	sessions["bob"] = signInWithSid(t, env, "bob", "B")
	ends := number(t, env, `select count(*) from audit_events where action = 'session.end'`)

	used := logoutToken(t, env, map[string]any{"sid": "nobody's", "jti": "used"})
	want(t, http.StatusOK, sendLogout(t, env, used))
	good := logoutToken(t, env, map[string]any{"sub": "alice"})
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	by := func(change map[string]any) string {
		t.Helper()
		all := map[string]any{"sub": "alice"}
		maps.Copy(all, change)
		return logoutToken(t, env, all)
	}
	events := func(event any) map[string]any {
		return map[string]any{"events": map[string]any{logoutEvent: event}}
	}
	now := time.Now().Unix()
	for what, token := range map[string]string{
		"nothing": "", "rubbish": "x", "three parts of rubbish": "AAAA.AAAA.AAAA",
		"an ID token":                     idTokenOfAlice,
		"an ID token with a jti":          newIDToken(t, env, "alice", nil),
		"a damaged signature":             header + "." + payload + ".AAAA" + signature[4:],
		"the signature of another":        header + "." + payload + "." + used[strings.LastIndexByte(used, '.')+1:],
		"no signature, and alg none":      "eyJhbGciOiJub25lIn0." + payload + ".",
		"padded":                          good + "==",
		"another type":                    "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9." + payload + "." + signature,
		"another audience":                by(map[string]any{"aud": "other"}),
		"another audience besides":        by(map[string]any{"aud": []string{"noted", "other"}}),
		"an empty audience":               by(map[string]any{"aud": []string{}}),
		"no audience":                     by(map[string]any{"aud": nil}),
		"another issuer":                  by(map[string]any{"iss": "https://elsewhere.example"}),
		"an issuer with a slash":          by(map[string]any{"iss": env.Issuer + "/"}),
		"no issuer":                       by(map[string]any{"iss": nil}),
		"no events":                       by(map[string]any{"events": nil}),
		"no event":                        by(map[string]any{"events": map[string]any{}}),
		"another event":                   by(map[string]any{"events": map[string]any{logoutEvent + "/": map[string]any{}}}),
		"the event in another case":       by(map[string]any{"events": map[string]any{strings.ToUpper(logoutEvent): map[string]any{}}}),
		"events that are text":            by(map[string]any{"events": logoutEvent}),
		"events that are a list":          by(map[string]any{"events": []string{logoutEvent}}),
		"Events":                          by(map[string]any{"events": nil, "Events": map[string]any{logoutEvent: map[string]any{}}}),
		"an event that is true":           by(events(true)),
		"an event that is text":           by(events("")),
		"an event that is a list":         by(events([]any{})),
		"an event that is null":           by(map[string]any{"events": map[string]any{logoutEvent: any(nil)}}),
		"a nonce":                         by(map[string]any{"nonce": "n"}),
		"an empty nonce":                  by(map[string]any{"nonce": ""}),
		"no jti":                          by(map[string]any{"jti": nil}),
		"an empty jti":                    by(map[string]any{"jti": ""}),
		"a number for a jti":              by(map[string]any{"jti": 7}),
		"a long jti":                      by(map[string]any{"jti": strings.Repeat("x", 1025)}),
		"neither sub nor sid":             by(map[string]any{"sub": nil}),
		"both empty":                      by(map[string]any{"sub": "", "sid": ""}),
		"a number for an sid":             by(map[string]any{"sid": 7}),
		"a long sid":                      by(map[string]any{"sid": strings.Repeat("x", 256)}),
		"a list for a sub":                by(map[string]any{"sub": []string{"alice"}}),
		"SUB":                             by(map[string]any{"sub": nil, "sid": "S", "SUB": "alice"}),
		"expired":                         by(map[string]any{"exp": now - 1}),
		"no expiry":                       by(map[string]any{"exp": nil}),
		"5 minutes and a second old":      by(map[string]any{"iat": now - 301}),
		"of the future":                   by(map[string]any{"iat": now + 90}),
		"no iat":                          by(map[string]any{"iat": nil}),
		"the sid of another sub":          by(map[string]any{"sid": "B"}),
		"the sid of nobody's sub":         by(map[string]any{"sid": "B", "sub": "nobody"}),
		"the sid of a sub in other case":  by(map[string]any{"sid": "B", "sub": "Bob"}),
		"another client's own audience":   by(map[string]any{"aud": "noted2"}),
		"an audience with a blank behind": by(map[string]any{"aud": "noted "}),
	} {
		checkToken(what, "logout_token", token)
	}
	checkToken("used", "token_replayed", used)
	checkToken("its jti, for another", "token_replayed", by(map[string]any{"jti": "used"}))
	form := url.Values{"logout_token": {good}}
	for what, c := range map[string][2]string{
		"the token twice":         {form.Encode() + "&" + form.Encode(), "application/x-www-form-urlencoded"},
		"no token":                {"x=y", "application/x-www-form-urlencoded"},
		"no form":                 {"%zz", "application/x-www-form-urlencoded"},
		"JSON":                    {`{"logout_token":"` + good + `"}`, "application/json"},
		"a form called a token":   {form.Encode(), "application/logout+jwt"},
		"a form that is too long": {form.Encode() + "&x=" + strings.Repeat("x", 200<<10), "application/x-www-form-urlencoded"},
	} {
		check(what, "logout_token", func() servertest.Answer {
			return env.Do(t, http.MethodPost, backchannelPath, "", c[0], "Content-Type", c[1])
		})
	}
	check("the token in the address", "logout_token", func() servertest.Answer {
		return env.Do(t, http.MethodPost, backchannelPath+"?"+form.Encode(), "", "", "Content-Type", "application/x-www-form-urlencoded")
	})
	checkLives(t, env, sessions)
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != ends {
		t.Errorf("%d ends more are in the record", n-ends)
	}
	// They stopped nobody from signing in.
	sessions["exchanged afterwards"] = exchangeWithSid(t, env, "bob", "B")
	sessions["alice afterwards"] = exchangeWithSid(t, env, "alice", "S")
	checkLives(t, env, sessions)
	// The token that was sent in so many wrong ways is still unused.
	want(t, http.StatusOK, sendLogout(t, env, good))
	checkEnded(t, env, map[string]string{"alice": sessions["alice"], "with an sid": sessions["with an sid"]})
	checkLives(t, env, map[string]string{"bob": sessions["bob"]})
	if log := env.Log.String(); strings.Contains(log, signature[:60]) {
		t.Error("a logout token is in the log")
	}
}

func TestBackchannelTakesWhatTheStandardAllows(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	now := time.Now().Unix()
	for what, change := range map[string]map[string]any{
		"an unknown sid":             {"sid": "nobody's"},
		"an unknown sub":             {"sub": "nobody"},
		"both unknown":               {"sid": "x", "sub": "nobody"},
		"a list of one audience":     {"sub": "alice", "aud": []string{"noted"}},
		"members in the event":       {"sub": "alice", "events": map[string]any{logoutEvent: map[string]any{"x": 1}}},
		"another event besides":      {"sub": "alice", "events": map[string]any{logoutEvent: map[string]any{}, "https://x.example": true}},
		"5 minutes less 5 seconds":   {"sub": "alice", "iat": now - 295},
		"half a minute ahead":        {"sub": "alice", "iat": now + 30},
		"a claim that nobody knows":  {"sub": "alice", "colour": "red"},
		"the longest jti and sid":    {"sid": strings.Repeat("x", 255), "jti": strings.Repeat("x", 1024)},
		"a claim typ of Keycloak's":  {"sub": "alice", "typ": "Logout"},
		"an sid that is beyond text": {"sid": "ä\n"},
	} {
		if a := sendLogout(t, env, logoutToken(t, env, change)); a.Status != http.StatusOK || len(a.Body) != 0 {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	if n := number(t, env, `select count(*) from audit_events`); n != 0 {
		t.Errorf("%d rows of the record, although there was nothing to end", n)
	}
	sent := time.Now()
	a := want(t, http.StatusNotFound, postForm(t, env, "/auth/backchannel-logout/nobody", url.Values{"logout_token": {logoutToken(t, env, map[string]any{"sub": "alice"})}}))
	if a.Header.Get("Content-Type") != "application/problem+json" || time.Since(sent) > 5*time.Second {
		t.Errorf("an unknown provider: %v %s", a.Header, a.Body)
	}
	if a := env.Do(t, http.MethodGet, backchannelPath, "", nil); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d, Allow %q", a.Status, a.Header.Get("Allow"))
	}
}

func TestBackchannelBySidLetsNothingOfThatSignInBeginAnyMore(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sid": "S"})))
	checkNotExchanged(t, env, "an exchange", "signed_out_at_provider", exchange(t, env, newIDToken(t, env, "alice", map[string]any{"sid": "S"})))
	checkNotExchanged(t, env, "a token newer than the logout", "signed_out_at_provider",
		exchange(t, env, newIDToken(t, env, "alice", map[string]any{"sid": "S", "iat": time.Now().Unix() + 30})))
	env.Provider.SetLie(claim("sid", "S"))
	b := newBrowser(t, env)
	a := b.get(t, b.callback(t, "alice").String())
	checkRefused(t, "a callback", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=signed_out_at_provider ") || b.session() != "" {
		t.Errorf("a callback: session %q, logged %s", b.session(), log)
	}
	if n := number(t, env, `select count(*) from sessions`) + number(t, env, `select count(*) from users`); n != 0 {
		t.Errorf("there are %d sessions and users", n)
	}
	checkLives(t, env, map[string]string{
		"another sid": exchangeWithSid(t, env, "alice", "s"), "no sid": accessToken(t, exchange(t, env, newIDToken(t, env, "alice", nil))),
		"a sign-in with another sid": signInWithSid(t, env, "alice", "T"),
	})
}

func TestBackchannelBySubLetsOlderTokensBeginNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	now := time.Now().Unix()
	at := func(subject string, iat int64) servertest.Answer {
		t.Helper()
		return exchange(t, env, newIDToken(t, env, subject, map[string]any{"iat": iat, "sid": rand.Text()}))
	}
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "alice", "iat": now - 60})))
	checkNotExchanged(t, env, "older", "signed_out_at_provider", at("alice", now-61))
	checkNotExchanged(t, env, "much older", "signed_out_at_provider", at("alice", now-200))
	checkLives(t, env, map[string]string{"newer": accessToken(t, at("alice", now-59)), "bob's older": accessToken(t, at("bob", now-200))})
	// An earlier logout that arrives later undoes nothing.
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "alice", "iat": now - 120})))
	checkNotExchanged(t, env, "between the two", "signed_out_at_provider", at("alice", now-90))
	checkLives(t, env, map[string]string{"newer than both": accessToken(t, at("alice", now-58))})

	// The same with a browser.
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "bob", "iat": now - 60})))
	env.Provider.SetLie(claim("iat", now-100))
	b := newBrowser(t, env)
	a := b.get(t, b.callback(t, "bob").String())
	checkRefused(t, "a callback with an older token", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=signed_out_at_provider ") {
		t.Errorf("logged %s", log)
	}
	env.Provider.SetLie(devidp.Lie{})
	checkLives(t, env, map[string]string{"a new sign-in": env.SignIn(t, "bob")})
}

func TestBackchannelTokenCountsOnceHoweverOftenItComesAtOnce(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := signInWithSid(t, env, "alice", "S")
	form := url.Values{"logout_token": {logoutToken(t, env, map[string]any{"sid": "S"})}}
	var mu sync.Mutex
	var group sync.WaitGroup
	answers := map[string]int{}
	for range 8 {
		group.Go(func() {
			response, err := http.PostForm(env.URL+backchannelPath, form)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = response.Body.Close() }()
			body, _ := io.ReadAll(response.Body)
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprintf("%d:%s", response.StatusCode, body)]++
		})
	}
	group.Wait()
	if want := map[string]int{"200:": 1, "400:" + badRequest: 7}; !maps.Equal(answers, want) {
		t.Errorf("answered %v", answers)
	}
	checkEnded(t, env, map[string]string{"the session": session})
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// In either order, a session of an ended sign-in has ended.
func TestBackchannelAndExchangeAtOnceLeaveNoSession(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for i := range 12 {
		who := map[string]any{"sid": fmt.Sprint("S", i)}
		form := url.Values{"logout_token": {logoutToken(t, env, who)}}
		var group sync.WaitGroup
		for range 3 {
			token := newIDToken(t, env, "alice", who)
			group.Go(func() {
				if _, _, err := tryExchange(env, token); err != nil {
					t.Error(err)
				}
			})
		}
		group.Go(func() {
			response, err := http.PostForm(env.URL+backchannelPath, form)
			if err != nil {
				t.Error(err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("the logout: %s", response.Status)
			}
		})
		group.Wait()
	}
	if n := number(t, env, `select count(*) from sessions where ended_at is null`); n != 0 {
		t.Errorf("%d sessions live on", n)
	}
	if n := number(t, env, `select count(*) from sessions`) - number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != 0 {
		t.Errorf("%d ends are not in the record", n)
	}
}

// The address that sends bad logout tokens may be the provider's.
func TestBackchannelIsNeverRefusedForItsAddress(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailuresPerMinute = 1 })
	session := signInWithSid(t, env, "alice", "S")
	for range 4 {
		if a := sendLogout(t, env, "x"); a.Status != http.StatusBadRequest || string(a.Body) != badRequest {
			t.Errorf("a bad one: %d %s", a.Status, a.Body)
		}
	}
	checkRefused(t, "the first counted failure", env.Do(t, http.MethodGet, "/v1/me", "x", nil))
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sid": "S"})))
	if lives(t, env, session) {
		t.Error("the session lives on")
	}
}

// Two servers on one database, with one provider.
func TestBackchannelAndAllOtherEndsHoldOnEveryServerWithinASecond(t *testing.T) {
	t.Parallel()
	here := servertest.New(t)
	there := servertest.NewOn(t, here.Pool.Config().ConnString(), func(o *server.Options) { o.Providers[0].Issuer = here.Issuer })
	ada, spare := here.SignIn(t, "ada"), here.SignIn(t, "alice")
	const all = "DELETE /v1/me/sessions"
	for _, c := range []struct {
		what string
		end  func(token string)
	}{
		{"logout", func(token string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/auth/logout", token, nil))
		}},
		{"DELETE of itself", func(token string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodDelete, "/v1/me/sessions/"+current(t, here, token), token, nil))
		}},
		{all, func(string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodDelete, "/v1/me/sessions", spare, nil))
		}},
		{"back-channel by sid", func(string) {
			want(t, http.StatusOK, sendLogout(t, here, logoutToken(t, here, map[string]any{"sid": "back-channel by sid"})))
		}},
		{"back-channel by sub", func(string) {
			want(t, http.StatusOK, sendLogout(t, here, logoutToken(t, here, map[string]any{"sub": "alice", "iat": time.Now().Unix() - 5})))
		}},
		{"lock", func(string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/v1/admin/users/"+user(t, here, "alice")+"/lock", ada, nil))
		}},
	} {
		session, program := signInWithSid(t, here, "alice", c.what), exchangeWithSid(t, here, "alice", c.what)
		checkLives(t, there, map[string]string{c.what + ": the sign-in": session, c.what + ": what was exchanged": program})
		c.end(session)
		ends := time.Now()
		for lives(t, there, session) {
			if time.Since(ends) > time.Second {
				t.Fatalf("%s: the session still lives on the other server", c.what)
			}
		}
		checkRefused(t, c.what, there.Do(t, http.MethodGet, "/v1/me", session, nil))
		if alone := strings.HasPrefix(c.what, "logout") || c.what == "DELETE of itself"; lives(t, there, program) != alone {
			t.Errorf("%s: what was exchanged lives: %t", c.what, !alone)
		}
	}
	here.Exec(t, `update users set locked_at = null`)

	// A token used up on one server is refused by the other.
	used := logoutToken(t, here, map[string]any{"sid": "both"})
	want(t, http.StatusOK, sendLogout(t, here, used))
	if a := sendLogout(t, there, used); a.Status != http.StatusBadRequest || string(a.Body) != badRequest {
		t.Errorf("a logout token used at the other server: %d %s", a.Status, a.Body)
	}
	token := newIDToken(t, here, "bob", nil)
	want(t, http.StatusOK, exchange(t, there, token))
	checkNotExchanged(t, here, "a token used at the other server", "token_replayed", exchange(t, here, token))
	checkNotExchanged(t, there, "the sid that ended at the other server", "signed_out_at_provider",
		exchange(t, there, newIDToken(t, here, "bob", map[string]any{"sid": "both"})))
}
