package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/internal/server"
	"noted/internal/server/servertest"
)

// exchangeForm is what a client sends for a token.
func exchangeForm(token string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"subject_token":      {token},
	}
}

// idToken is an honest one of alice's, with these claims besides; nil takes one away.
func idToken(t testing.TB, env *servertest.Env, claims map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": env.Issuer, "aud": "noted", "sub": "alice", "name": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"jti": time.Now().String(),
	}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return sign(t, env, all)
}

func TestIDTokenIsExchangedOnce(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	token := idToken(t, env, map[string]any{"unknown": "claim"})
	form := exchangeForm(token)
	form.Set("audience", "ignored")
	a := want(t, http.StatusOK, postForm(t, env, "/auth/token", form))
	var got map[string]any
	a.JSON(t, &got)
	seconds, _ := got["expires_in"].(float64)
	if len(got) != 4 || got["token_type"] != "Bearer" || got["issued_token_type"] != "urn:ietf:params:oauth:token-type:access_token" ||
		seconds < 7*24*3600-5 || seconds > 7*24*3600 || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v", got)
	}
	session, _ := got["access_token"].(string)
	if !lives(t, env, session) {
		t.Error("the session does not work")
	}
	if a := postForm(t, env, "/auth/token", form); a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_request"}` {
		t.Errorf("a second time: %d %s", a.Status, a.Body)
	}
	// Of many at once, one counts.
	form, worked := exchangeForm(idToken(t, env, nil)), 0
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			a := postForm(t, env, "/auth/token", form)
			mu.Lock()
			defer mu.Unlock()
			if a.Status == http.StatusOK {
				worked++
			}
		})
	}
	group.Wait()
	if worked != 1 {
		t.Errorf("8 at once made %d sessions", worked)
	}
	if log := env.Log.String(); strings.Contains(log, token[:60]) || strings.Contains(log, session) {
		t.Error("the log has a token")
	}
}

// The token that a callback used cannot be exchanged, however it is spelled.
func TestIDTokenOfACallbackIsUsed(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	var seen string
	env.Provider.SetLie(devidp.Lie{IDToken: func(signed string) string { seen = signed; return signed }})
	env.SignIn(t, "alice")
	if a := postForm(t, env, "/auth/token", exchangeForm(seen)); a.Status != http.StatusBadRequest || !strings.Contains(logOf(env, a), "reason=token_replayed") {
		t.Errorf("the callback's own token: %d %s", a.Status, logOf(env, a))
	}
}

func TestExchangeTakesOnlyTokensMadeForItJustNow(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) {
		o.Providers[0].AllowedAudiences = []string{"mobile"}
		o.Providers[0].AllowedEmailDomains = []string{"dev.example"}
	})
	mail := func(more map[string]any) map[string]any {
		all := map[string]any{"email": "alice@dev.example", "email_verified": true}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	ago := func(d time.Duration) map[string]any { return mail(map[string]any{"iat": time.Now().Add(-d).Unix()}) }
	for _, c := range []struct {
		what   string
		claims map[string]any
		reason string // empty: it counts
	}{
		{"its own client", mail(nil), ""},
		{"an allowed audience", mail(map[string]any{"aud": "mobile", "azp": "mobile"}), ""},
		{"both", mail(map[string]any{"aud": []string{"mobile", "noted"}, "azp": "noted"}), ""},
		{"another audience", mail(map[string]any{"aud": "other"}), "id_token"},
		{"another audience besides", mail(map[string]any{"aud": []string{"noted", "other"}}), "id_token"},
		{"no audience", mail(map[string]any{"aud": nil}), "id_token"},
		{"a foreign azp", mail(map[string]any{"azp": "other"}), "id_token"},
		{"4 m 55 s old", ago(4*time.Minute + 55*time.Second), ""},
		{"5 m 2 s old", ago(5*time.Minute + 2*time.Second), "id_token"},
		{"55 s to come", ago(-55 * time.Second), ""},
		{"65 s to come", ago(-65 * time.Second), "id_token"},
		{"no iat", mail(map[string]any{"iat": nil}), "id_token"},
		{"expired", mail(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "id_token"},
		{"no sub", mail(map[string]any{"sub": nil}), "id_token"},
		{"an empty sub", mail(map[string]any{"sub": ""}), "id_token"},
		{"a logout token", mail(map[string]any{"events": map[string]any{logoutEvent: map[string]any{}}}), "id_token"},
		{"Keycloak's access token", mail(map[string]any{"typ": "Bearer"}), "id_token"},
		{"another issuer", mail(map[string]any{"iss": "https://elsewhere.example"}), "id_token"},
		{"a gate", mail(map[string]any{"email": "alice@other.example"}), "gate"},
		{"an e-mail that is not verified", mail(map[string]any{"email_verified": "true"}), "gate"},
	} {
		sent := time.Now()
		a := postForm(t, env, "/auth/token", exchangeForm(idToken(t, env, c.claims)))
		switch {
		case c.reason == "":
			if a.Status != http.StatusOK {
				t.Errorf("%s: %d %s", c.what, a.Status, logOf(env, a))
			}
		case a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_request"}` || time.Since(sent) < servertest.Floor:
			t.Errorf("%s: %d %s after %v", c.what, a.Status, a.Body, time.Since(sent))
		case !strings.Contains(logOf(env, a), "reason="+c.reason+" "):
			t.Errorf("%s: %s", c.what, logOf(env, a))
		}
	}
}

// What is wrong with the request, and not with a credential, is said at once.
func TestTokenRequestThatMakesNoSenseIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = 5 * time.Second })
	good := exchangeForm("x.y.z")
	without := func(name string) url.Values {
		form := url.Values{}
		for key, values := range good {
			if key != name {
				form[key] = values
			}
		}
		return form
	}
	with := func(name string, values ...string) url.Values {
		form := without(name)
		form[name] = values
		return form
	}
	sent := time.Now()
	for what, c := range map[string]struct {
		form url.Values
		want string
	}{
		"no grant_type":          {without("grant_type"), "invalid_request"},
		"another grant_type":     {with("grant_type", "password"), "unsupported_grant_type"},
		"no subject_token":       {without("subject_token"), "invalid_request"},
		"no subject_token_type":  {without("subject_token_type"), "invalid_request"},
		"another token's type":   {with("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"), "invalid_request"},
		"a refresh token wanted": {with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"},
		"a parameter twice":      {with("subject_token", "x.y.z", "x.y.z"), "invalid_request"},
		"no device_code":         {url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"noted-cli"}}, "invalid_request"},
	} {
		if a := postForm(t, env, "/auth/token", c.form); a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"`+c.want+`"}` {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	if a := env.Do(t, http.MethodPost, "/auth/token", "", good.Encode()); a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_request"}` {
		t.Errorf("a form that says it is JSON: %d %s", a.Status, a.Body)
	}
	if a := postForm(t, env, "/auth/token", exchangeForm(strings.Repeat("x", 200<<10))); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("200 KiB: %d %s", a.Status, a.Body)
	}
	if took := time.Since(sent); took > 4*time.Second {
		t.Errorf("all of them took %v", took)
	}
}

func TestAddressThatFailsToExchangeTooOftenGets429(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailuresPerMinute = 3 })
	statuses := map[int]int{}
	var last servertest.Answer
	for range 8 { // over a minute's end the count begins anew
		last = postForm(t, env, "/auth/token", exchangeForm("x.y.z"))
		statuses[last.Status]++
	}
	if statuses[http.StatusBadRequest] < 3 || statuses[http.StatusTooManyRequests] < 2 || len(statuses) != 2 {
		t.Errorf("the answers were %v", statuses)
	}
	if last.Status == http.StatusTooManyRequests && last.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	if accessToken(t, exchangeAs(t, env, "alice", "s", time.Now())) == "" {
		t.Error("a good token is refused for its address")
	}
}
