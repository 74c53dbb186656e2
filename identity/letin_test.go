package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"noted/server/servertest"
)

// device is a device login in progress.
type device struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int    `json:"expires_in"`
	Interval   int
}

func startDevice(t testing.TB, env *servertest.Env) (d device) {
	t.Helper()
	want(t, http.StatusOK, postForm(t, env, "/auth/device", url.Values{"client_id": {"noted-cli"}})).JSON(t, &d)
	return d
}

func (d device) poll(t testing.TB, env *servertest.Env) servertest.Answer {
	t.Helper()
	return postForm(t, env, "/auth/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"noted-cli"}, "device_code": {d.DeviceCode},
	})
}

func decide(t testing.TB, env *servertest.Env, token, code, decision string) servertest.Answer {
	t.Helper()
	return env.Do(t, http.MethodPost, "/auth/device/confirm", token, url.Values{"user_code": {code}, "decision": {decision}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded")
}

func checkOAuth(t testing.TB, what string, a servertest.Answer, code string) {
	t.Helper()
	if a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"`+code+`"}` {
		t.Errorf("%s: %d %s, want %s", what, a.Status, a.Body, code)
	}
}

func TestDeviceIsLetInByAPersonOnce(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	d := startDevice(t, env)
	if len(d.UserCode) != 9 || d.UserCode[4] != '-' || strings.Trim(d.UserCode, "BCDFGHJKLMNPQRSTVWXZ-") != "" || d.URI != env.URL+"/auth/device" ||
		d.Complete != d.URI+"?user_code="+d.UserCode || d.ExpiresIn != 600 || d.Interval != 5 || len(d.DeviceCode) != 43 {
		t.Errorf("got %+v", d)
	}
	checkOAuth(t, "before a decision", d.poll(t, env), "authorization_pending")
	checkOAuth(t, "at once again", d.poll(t, env), "slow_down")
	if n := number(t, env, `select poll_seconds from device_logins`); n != 10 {
		t.Errorf("the interval is %d", n)
	}
	env.Exec(t, `update device_logins set polled_at = now() - interval '9.6 seconds'`)
	checkOAuth(t, "in time", d.poll(t, env), "authorization_pending")

	typed := " " + strings.ToLower(strings.Replace(d.UserCode, "-", " ", 1))
	page := want(t, http.StatusOK, env.Do(t, http.MethodGet, "/auth/device?user_code="+url.QueryEscape(typed), alice, nil, "User-Agent", "x"))
	for _, named := range []string{d.UserCode, "<strong>alice</strong>", "noted-cli", "Go-http-client", "127.0.0.1"} {
		if !strings.Contains(string(page.Body), named) {
			t.Errorf("the page does not name %s:\n%s", named, page.Body)
		}
	}
	if got := number(t, env, `select count(*) from sessions`); got != 1 {
		t.Fatalf("a GET let it in")
	}
	want(t, http.StatusOK, decide(t, env, alice, typed, "approve"))
	if a := decide(t, env, alice, d.UserCode, "deny"); a.Status != http.StatusNotFound {
		t.Errorf("a second decision: %d", a.Status)
	}
	// Of two concurrent polls, one gets the token.
	answers := make([]servertest.Answer, 2)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() { answers[i] = d.poll(t, env) })
	}
	group.Wait()
	if answers[0].Status == http.StatusOK {
		answers[0], answers[1] = answers[1], answers[0]
	}
	checkOAuth(t, "the other of two polls", answers[0], "invalid_grant")
	token := accessToken(t, answers[1])
	if !lives(t, env, token) {
		t.Error("the device's session does not work")
	}
	if log := env.Log.String(); strings.Contains(log, token) || strings.Contains(log, d.DeviceCode) || strings.Contains(log, d.UserCode) {
		t.Error("a secret is in the log")
	}
}

func TestDeviceThatIsNotLetInGetsNothing(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	denied, late, ended := startDevice(t, env), startDevice(t, env), startDevice(t, env)
	want(t, http.StatusOK, decide(t, env, alice, denied.UserCode, "deny"))
	checkOAuth(t, "denied", denied.poll(t, env), "access_denied")
	env.Exec(t, `update device_logins set expires_at = now() where user_code = $1`, strings.Replace(late.UserCode, "-", "", 1))
	checkOAuth(t, "expired", late.poll(t, env), "expired_token")
	if a := decide(t, env, alice, late.UserCode, "approve"); a.Status != http.StatusNotFound {
		t.Errorf("approving an expired one: %d", a.Status)
	}
	if a := decide(t, env, alice, ended.UserCode, "maybe"); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("no decision: %d", a.Status)
	}
	// Whatever ends sessions also ends one that its device has not fetched yet.
	want(t, http.StatusOK, decide(t, env, alice, ended.UserCode, "approve"))
	want(t, http.StatusNoContent, env.Do(t, http.MethodDelete, "/v1/me/sessions", alice, nil))
	checkOAuth(t, "ended before it was fetched", ended.poll(t, env), "invalid_grant")
	checkOAuth(t, "an unknown code", device{DeviceCode: "x"}.poll(t, env), "invalid_grant")
	checkOAuth(t, "another client", postForm(t, env, "/auth/device", url.Values{"client_id": {"other"}}), "invalid_client")
	_, key := env.NewKey(t, alice, "key-admin")
	for what, a := range map[string]servertest.Answer{
		"the page":     env.Do(t, http.MethodGet, "/auth/device", key, nil),
		"the decision": decide(t, env, key, "BCDFGHJK", "approve"),
	} {
		if a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), `"permission":"identity:own write"`) {
			t.Errorf("%s by a key: %d %s", what, a.Status, a.Body)
		}
	}
}

func TestStrangersBrowserIsSentToSignInAndBack(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ended := env.SignIn(t, "alice")
	want(t, http.StatusNoContent, env.Do(t, http.MethodPost, "/auth/logout", ended, nil))
	const back = "/auth/login?return_to=%2Fauth%2Fdevice%3Fuser_code%3DBCDF-GHJK"
	for what, headers := range map[string][]string{
		"a stranger":       {"Accept", "text/html"},
		"an ended session": {"Accept", "text/html", "Cookie", "noted_session=" + ended},
	} {
		a := env.Do(t, http.MethodGet, "/auth/device?user_code=BCDF-GHJK", "", nil, headers...)
		if a.Status != http.StatusSeeOther || a.Header.Get("Location") != back {
			t.Errorf("%s: %d to %s", what, a.Status, a.Header.Get("Location"))
		}
	}
	checkRefused(t, "a program", env.Do(t, http.MethodGet, "/auth/device", "", nil))
}

func TestUserCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	d := startDevice(t, env)
	look := func(token, code string) servertest.Answer {
		return env.Do(t, http.MethodGet, "/auth/device?user_code="+code, token, nil)
	}
	for range 10 {
		want(t, http.StatusNotFound, look(alice, "BBBB-BBBB"))
	}
	want(t, http.StatusOK, look(alice, d.UserCode)) // ten are not too many
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() { look(alice, "CCCC-CCCC") })
	}
	group.Wait()
	if n := number(t, env, `select count(*) from device_guesses`); n != 11 {
		t.Errorf("%d guesses were looked up, want 11", n)
	}
	for what, a := range map[string]servertest.Answer{"a wrong code": look(alice, "BBBB-BBBB"), "the right code": look(alice, d.UserCode), "its approval": decide(t, env, alice, d.UserCode, "approve")} {
		if a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d", what, a.Status)
		}
	}
	want(t, http.StatusOK, look(bob, d.UserCode))
	env.Exec(t, `update device_guesses set at = now() - interval '15 minutes'`)
	want(t, http.StatusOK, decide(t, env, alice, d.UserCode, "approve"))
}

func TestAddressStartsOnlySoManyDevices(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	started := 0
	for range 70 { // at a minute's end the count starts again
		if a := postForm(t, env, "/auth/device", url.Values{"client_id": {"noted-cli"}}); a.Status == http.StatusOK {
			started++
			var d device
			a.JSON(t, &d)
			want(t, http.StatusOK, decide(t, env, alice, d.UserCode, "deny")) // it no longer waits
		} else if a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	if started < 30 || started > 60 {
		t.Errorf("%d were started", started)
	}
}
