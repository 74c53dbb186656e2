package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/internal/server/servertest"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// postForm sends a form as a program does.
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

// signOut sends a logout token with these claims beside the usual ones; nil takes one away.
func signOut(t testing.TB, env *servertest.Env, claims map[string]any) servertest.Answer {
	t.Helper()
	all := map[string]any{
		"iss": env.Issuer, "aud": "noted", "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(),
		"jti": time.Now().String(), "events": map[string]any{logoutEvent: map[string]any{}},
	}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return postForm(t, env, "/auth/backchannel-logout/dev", url.Values{"logout_token": {sign(t, env, all)}})
}

// exchangeAs exchanges a fresh ID token of that subject and sid; the answer is returned whatever it is.
func exchangeAs(t testing.TB, env *servertest.Env, subject, sid string, iat time.Time) servertest.Answer {
	t.Helper()
	return postForm(t, env, "/auth/token", url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"subject_token": {sign(t, env, map[string]any{
			"iss": env.Issuer, "aud": "noted", "sub": subject, "sid": sid, "iat": iat.Unix(),
			"exp": time.Now().Add(time.Hour).Unix(), "name": subject, "jti": time.Now().String(),
		})},
	})
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

func TestProviderEndsOneSignInBySidAndWhatCameFromIt(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	env.Provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["sid"] = "first" }})
	first := env.SignIn(t, "alice")
	env.Provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["sid"] = "second" }})
	second := env.SignIn(t, "alice")
	exchanged := accessToken(t, exchangeAs(t, env, "alice", "first", time.Now()))
	device := approveDevice(t, env, first)

	a := want(t, http.StatusOK, signOut(t, env, map[string]any{"sid": "first", "sub": "alice"}))
	if len(a.Body) != 0 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("200 with %q, Cache-Control %q", a.Body, a.Header.Get("Cache-Control"))
	}
	for what, token := range map[string]string{"the sign-in": first, "what was exchanged with it": exchanged, "the device approved from it": device} {
		if lives(t, env, token) {
			t.Errorf("%s still lives", what)
		}
	}
	if !lives(t, env, second) {
		t.Error("another sign-in ended too")
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and detail like 'signed out at %'`); n != 3 {
		t.Errorf("%d rows of the record, want 3", n)
	}
	// A token of the ended sign-in begins nothing any more.
	if a := exchangeAs(t, env, "alice", "first", time.Now()); a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_request"}` {
		t.Errorf("a token of the ended sign-in: %d %s", a.Status, a.Body)
	}
	if strings.Count(env.Log.String(), "reason=signed_out_at_provider") != 1 {
		t.Error("the log does not say why")
	}
}

// approveDevice lets a device in by a session and returns the device's token.
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

func TestProviderEndsAllOfAnIdentityBySub(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	one, two, bob := env.SignIn(t, "alice"), env.SignIn(t, "alice"), env.SignIn(t, "bob")
	want(t, http.StatusOK, signOut(t, env, map[string]any{"sub": "alice"}))
	if lives(t, env, one) || lives(t, env, two) {
		t.Error("a session of alice still lives")
	}
	if !lives(t, env, bob) {
		t.Error("bob was signed out")
	}
	if a := exchangeAs(t, env, "alice", "x", time.Now().Add(-30*time.Second)); a.Status != http.StatusBadRequest {
		t.Errorf("a token older than the logout: %d", a.Status)
	}
	if token := accessToken(t, exchangeAs(t, env, "alice", "y", time.Now().Add(2*time.Second))); !lives(t, env, token) {
		t.Error("a token younger than the logout does not count")
	}
}

// What does not hold is 400, always with the same bytes, no sooner than the floor, and ends nothing.
func TestLogoutTokenThatDoesNotHoldEndsNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	env.Provider.SetLie(devidp.Lie{Claims: func(claims map[string]any) { claims["sid"] = "the one" }})
	session := env.SignIn(t, "alice")
	for what, claims := range map[string]map[string]any{
		"another audience":           {"sub": "alice", "aud": "other"},
		"another audience besides":   {"sub": "alice", "aud": []string{"noted", "other"}},
		"another issuer":             {"sub": "alice", "iss": "https://elsewhere.example"},
		"no events":                  {"sub": "alice", "events": nil},
		"another event":              {"sub": "alice", "events": map[string]any{"http://schemas.example/x": map[string]any{}}},
		"an event that is no object": {"sub": "alice", "events": map[string]any{logoutEvent: true}},
		"a nonce":                    {"sub": "alice", "nonce": "x"},
		"no jti":                     {"sub": "alice", "jti": nil},
		"neither sub nor sid":        {},
		"an sid of another sub":      {"sid": "the one", "sub": "bob"},
		"expired":                    {"sub": "alice", "exp": time.Now().Add(-time.Second).Unix()},
		"no exp":                     {"sub": "alice", "exp": nil},
		"no iat":                     {"sub": "alice", "iat": nil},
		"an iat long ago":            {"sub": "alice", "iat": time.Now().Add(-6 * time.Minute).Unix()},
		"an iat to come":             {"sub": "alice", "iat": time.Now().Add(2 * time.Minute).Unix()},
		"SUB for sub":                {"SUB": "alice", "sid": "unknown"},
	} {
		sent := time.Now()
		a := signOut(t, env, claims)
		if a.Status != http.StatusBadRequest || string(a.Body) != `{"title":"Bad Request","status":400}` {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
		if took := time.Since(sent); took < servertest.Floor {
			t.Errorf("%s: after %v", what, took)
		}
	}
	foreign := sign(t, env, map[string]any{"sub": "alice"})
	for what, token := range map[string]string{"nonsense": "x.y.z", "nothing": "", "a bad signature": foreign[:len(foreign)-8] + "AAAAAAAA"} {
		if a := postForm(t, env, "/auth/backchannel-logout/dev", url.Values{"logout_token": {token}}); a.Status != http.StatusBadRequest || string(a.Body) != `{"title":"Bad Request","status":400}` {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	if !lives(t, env, session) {
		t.Fatal("one of them ended the session")
	}
	want(t, http.StatusOK, signOut(t, env, map[string]any{"sid": "no such"}))
	if want(t, http.StatusNotFound, postForm(t, env, "/auth/backchannel-logout/other", url.Values{})); !lives(t, env, session) {
		t.Error("an unknown sid ended the session")
	}
	replayed := map[string]any{"sid": "the one", "jti": "once"}
	want(t, http.StatusOK, signOut(t, env, replayed))
	if a := signOut(t, env, replayed); a.Status != http.StatusBadRequest {
		t.Errorf("the same jti again: %d", a.Status)
	}
	if lives(t, env, session) {
		t.Error("the good one ended nothing")
	}
}

// However a session ends on one server, it is over on another that shares the database.
func TestSessionThatEndsOnOneServerEndsOnAllWithinASecond(t *testing.T) {
	t.Parallel()
	here := servertest.New(t)
	there := servertest.NewOn(t, here.Server.Pool.Config().ConnString())
	ada := here.SignIn(t, "ada")
	for what, end := range map[string]func(token string){
		"POST /auth/logout": func(token string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/auth/logout", token, nil))
		},
		"DELETE /v1/me/sessions/{id}": func(token string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodDelete, "/v1/me/sessions/"+current(t, here, token), token, nil))
		},
		"back-channel logout": func(string) {
			want(t, http.StatusOK, signOut(t, here, map[string]any{"sub": "alice"}))
		},
		"a lock": func(string) {
			want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/v1/admin/users/"+user(t, here, "alice")+"/lock", ada, nil))
		},
	} {
		here.Exec(t, `update users set locked_at = null`)
		token := here.SignIn(t, "alice")
		if !lives(t, there, token) {
			t.Fatalf("%s: the session does not work on the other server", what)
		}
		end(token)
		ended := time.Now()
		for lives(t, there, token) {
			if time.Since(ended) > time.Second {
				t.Errorf("%s: on the other server the session still lives", what)
				break
			}
		}
	}
}
