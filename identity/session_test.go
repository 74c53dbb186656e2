package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"noted/identity"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

type session struct {
	ID         string
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	IP         *string
	UserAgent  string `json:"user_agent"`
	Provider   *string
	Current    bool
}

type sessions struct {
	Items      []session
	NextCursor *string `json:"next_cursor"`
}

func list(t testing.TB, env *servertest.Env, token string) (all sessions) {
	t.Helper()
	want(t, 200, env.Do(t, "GET", "/v1/me/sessions", token, nil)).JSON(t, &all)
	return all
}

// current is the session's own id.
func current(t testing.TB, env *servertest.Env, token string) string {
	t.Helper()
	for _, one := range list(t, env, token).Items {
		if one.Current {
			return one.ID
		}
	}
	t.Fatal("no session is the current one")
	return ""
}

func TestSessionsAreListedEndedOneByOneAndAllOthers(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	first, second, third, bob := env.SignIn(t, "alice"), env.SignIn(t, "alice"), env.SignIn(t, "alice"), env.SignIn(t, "bob")
	a := want(t, 200, env.Do(t, "GET", "/v1/me/sessions", second, nil))
	if strings.Contains(string(a.Body), "nsess_") || strings.Contains(string(a.Body), "hash") {
		t.Errorf("the list has a token: %s", a.Body)
	}
	var all sessions
	a.JSON(t, &all)
	if len(all.Items) != 3 || all.NextCursor != nil {
		t.Fatalf("got %s", a.Body)
	}
	for i, one := range all.Items {
		if one.Current != (i == 1) || one.IP == nil || *one.IP != "127.0.0.1" || one.Provider == nil || *one.Provider != "dev" || !strings.HasPrefix(one.UserAgent, "Go-http-client") {
			t.Errorf("session %d is %+v", i, one)
		}
		if life := one.ExpiresAt.Sub(one.CreatedAt); life != 168*time.Hour || one.CreatedAt.Location() != time.UTC {
			t.Errorf("it lives %v", life)
		}
		if i > 0 && one.CreatedAt.After(all.Items[i-1].CreatedAt) {
			t.Error("the newest is not the first")
		}
	}
	// Pages.
	var one, two sessions
	want(t, 200, env.Do(t, "GET", "/v1/me/sessions?limit=2", second, nil)).JSON(t, &one)
	want(t, 200, env.Do(t, "GET", "/v1/me/sessions?limit=2&cursor="+*one.NextCursor, second, nil)).JSON(t, &two)
	if len(one.Items) != 2 || len(two.Items) != 1 || two.NextCursor != nil || two.Items[0].ID != all.Items[2].ID {
		t.Errorf("pages %+v, %+v", one, two)
	}
	want(t, 422, env.Do(t, "GET", "/v1/keys?cursor="+*one.NextCursor, second, nil))

	ids := map[string]string{"first": current(t, env, first), "third": current(t, env, third), "bob": current(t, env, bob)}
	for name, id := range map[string]string{"bob's": ids["bob"], "unknown": "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "no id": "x", "upper case": strings.ToUpper(ids["bob"]), "braces": "{" + ids["third"] + "}"} {
		a := env.Do(t, "DELETE", "/v1/me/sessions/"+url.PathEscape(id), second, nil)
		if a.Status != 404 {
			t.Errorf("ending %s session: %d %s", name, a.Status, a.Body)
		}
	}
	want(t, 204, env.Do(t, "DELETE", "/v1/me/sessions/"+ids["first"], second, nil))
	checkRefused(t, "the ended one", env.Do(t, "GET", "/v1/me", first, nil))
	want(t, 404, env.Do(t, "DELETE", "/v1/me/sessions/"+ids["first"], second, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", third, nil))
	want(t, 204, env.Do(t, "DELETE", "/v1/me/sessions", second, nil))
	checkRefused(t, "another one", env.Do(t, "GET", "/v1/me", third, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", bob, nil))
	if left := list(t, env, second).Items; len(left) != 1 || !left[0].Current {
		t.Errorf("left are %+v", left)
	}
	want(t, 204, env.Do(t, "DELETE", "/v1/me/sessions", second, nil)) // none to end is fine
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and outcome = 'success' and actor_id = $1`, user(t, env, "alice")); n != 2 {
		t.Errorf("%d ends are in the record", n)
	}
	if n := number(t, env, `select count(*) from sessions where ended_at is not null and id_token is not null`); n != 0 {
		t.Errorf("%d ended sessions keep their ID token", n)
	}
	if n := number(t, env, `select count(*) from sessions where ended_at is null and id_token is not null`); n != 2 {
		t.Errorf("%d live sessions have an ID token", n)
	}
	// One's own session may be ended too.
	want(t, 204, env.Do(t, "DELETE", "/v1/me/sessions/"+current(t, env, second), second, nil))
	checkRefused(t, "one's own", env.Do(t, "GET", "/v1/me", second, nil))
}

func TestAKeyTouchesNoSession(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	_, key := env.NewKey(t, alice, "key-admin")
	for _, c := range [][3]string{{"GET", "/v1/me/sessions", "session:own read"}, {"DELETE", "/v1/me/sessions", "session:own delete"}, {"DELETE", "/v1/me/sessions/" + current(t, env, alice), "session:own delete"}} {
		a := want(t, 403, env.Do(t, c[0], c[1], key, nil))
		if !strings.Contains(string(a.Body), `"permission":"`+c[2]+`"`) {
			t.Errorf("%s %s: %s", c[0], c[1], a.Body)
		}
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
}

func TestASessionEndsAtItsIdleAndItsAbsoluteEnd(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, beside := env.SignIn(t, "alice"), env.SignIn(t, "alice")
	id := current(t, env, alice)
	set := func(sql string) { t.Helper(); env.Exec(t, `update sessions set `+sql+` where id = $1`, id) }
	set(`last_used_at = now() - interval '24 hours' + interval '10 seconds'`)
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil)) // this is a use
	set(`last_used_at = now() - interval '24 hours'`)
	a := env.Do(t, "GET", "/v1/me", alice, nil)
	checkRefused(t, "idle", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=expired_session") {
		t.Errorf("logged %s", log)
	}
	if got := list(t, env, beside).Items; len(got) != 1 {
		t.Errorf("an idle session is in the list: %+v", got)
	}
	want(t, 404, env.Do(t, "DELETE", "/v1/me/sessions/"+id, beside, nil))
	set(`last_used_at = now(), expires_at = now() + interval '10 seconds'`)
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	set(`expires_at = now()`)
	checkRefused(t, "expired", env.Do(t, "GET", "/v1/me", alice, nil))
	if got := list(t, env, beside).Items; len(got) != 1 {
		t.Errorf("an expired session is in the list: %+v", got)
	}
	want(t, 404, env.Do(t, "DELETE", "/v1/me/sessions/"+id, beside, nil))
	// Use never moves the absolute end.
	set(`expires_at = now() + interval '3 seconds', last_used_at = now() - interval '2 minutes'`)
	before := number(t, env, `select extract(epoch from expires_at)::bigint from sessions where id = $1`, id)
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	if after := number(t, env, `select extract(epoch from expires_at)::bigint from sessions where id = $1`, id); after != before {
		t.Error("a use moved the absolute end")
	}
}

func TestASessionsUseIsWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	stamp := func() (at time.Time) {
		t.Helper()
		if err := env.Pool.QueryRow(t.Context(), `select last_used_at from sessions`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	env.Exec(t, `update sessions set last_used_at = now() - interval '50 seconds'`)
	before := stamp()
	for range 3 {
		want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	}
	if !stamp().Equal(before) {
		t.Error("it was written within the minute")
	}
	env.Exec(t, `update sessions set last_used_at = now() - interval '60 seconds'`)
	before = stamp()
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	written := stamp()
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	if !written.After(before) || !stamp().Equal(written) {
		t.Errorf("%v became %v, then %v", before, written, stamp())
	}
}

func TestLoggingOutEndsTheSession(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	a := want(t, 204, env.Do(t, "POST", "/auth/logout", alice, nil))
	checkCleared(t, a)
	after := env.Do(t, "GET", "/v1/me", alice, nil)
	checkRefused(t, "after logout", after)
	if log := logOf(env, after); !strings.Contains(log, "reason=ended_session") {
		t.Errorf("logged %s", log)
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end' and object = 'session' and actor_name = 'alice'`); n != 1 {
		t.Errorf("%d rows", n)
	}
	want(t, 204, env.Do(t, "POST", "/auth/logout", alice, nil))
	if n := number(t, env, `select count(*) from audit_events where action = 'session.end'`); n != 1 {
		t.Errorf("logging out twice leaves %d rows", n)
	}
	// A key is not a session, and outlives it.
	_, key := env.NewKey(t, env.SignIn(t, "alice"), "key-reader")
	want(t, 204, env.Do(t, "POST", "/auth/logout", key, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", key, nil))
}

// checkCleared requires that the answer deletes the session cookie (RFC 6265, 5.2.2: Max-Age=0).
func checkCleared(t testing.TB, a servertest.Answer) {
	t.Helper()
	cookies := (&http.Response{Header: a.Header}).Cookies()
	if len(cookies) != 1 || cookies[0].Name != "noted_session" || cookies[0].Value != "" || cookies[0].MaxAge >= 0 {
		t.Errorf("the cookie is not deleted: %q", a.Header.Values("Set-Cookie"))
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q", a.Header.Get("Cache-Control"))
	}
}

func TestABrowserLogsOutAtTheProviderToo(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	want(t, 303, b.get(t, b.callback(t, "alice").String()))
	token := b.session()
	var idToken string
	if err := env.Pool.QueryRow(t.Context(), `select id_token from sessions`).Scan(&idToken); err != nil {
		t.Fatal(err)
	}
	a := env.Do(t, "POST", "/auth/logout", "", nil, "Accept", "text/html", "Cookie", "noted_session="+token)
	checkCleared(t, a)
	to := location(t, a, http.StatusSeeOther)
	if !strings.HasPrefix(to.String(), env.Issuer+"/end_session?") || to.Query().Get("id_token_hint") != idToken || to.Query().Get("post_logout_redirect_uri") != env.URL+"/" || len(to.Query()) != 2 {
		t.Errorf("sent to %s", to)
	}
	if back := location(t, b.get(t, to.String()), http.StatusSeeOther); back.String() != env.URL+"/" {
		t.Errorf("the provider sends back to %s", back)
	}
	if n := number(t, env, `select count(*) from sessions where id_token is not null`); n != 0 {
		t.Error("the ID token is kept")
	}
	checkRefused(t, "after logout", env.Do(t, "GET", "/v1/me", token, nil))
	if strings.Contains(env.Log.String(), idToken) || strings.Contains(env.Log.String(), "id_token_hint") {
		t.Error("the ID token is in the log")
	}
}

// A browser that has logged out sends no credential, so it is a stranger: no failure, no wait.
func TestABrowserIsAStrangerAfterLogout(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	b := newBrowser(t, env)
	want(t, 303, b.get(t, b.callback(t, "alice").String()))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env.URL+"/auth/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	at, _ := url.Parse(env.URL)
	if left := b.client.Jar.Cookies(at); len(left) != 0 {
		t.Errorf("the browser keeps %v", left)
	}
	failures := strings.Count(env.Log.String(), "authentication failed")
	want(t, 401, b.get(t, env.URL+"/v1/me"))
	if strings.Count(env.Log.String(), "authentication failed") != failures {
		t.Error("its next request is a failed authentication")
	}
}

func TestLogoutNeverFailsForACredential(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	expired := env.SignIn(t, "alice")
	env.Exec(t, `update sessions set expires_at = now()`)
	for name, headers := range map[string][]string{
		"none":           nil,
		"expired":        {"Authorization", "Bearer " + expired},
		"expired cookie": {"Cookie", "noted_session=" + expired},
		"unknown":        {"Authorization", "Bearer " + string(identity.NewToken())},
		"garbage":        {"Authorization", "Basic x"},
		"empty":          {"Authorization", ""},
		"garbage cookie": {"Cookie", "noted_session=%%%"},
		"empty cookie":   {"Cookie", "noted_session="},
	} {
		started := time.Now()
		a := want(t, 204, env.Do(t, "POST", "/auth/logout", "", nil, headers...))
		if cookies := a.Header.Values("Set-Cookie"); len(cookies) != 1 || time.Since(started) > 5*time.Second {
			t.Errorf("%s: %q", name, cookies)
		}
		a = env.Do(t, "POST", "/auth/logout", "", nil, append(headers, "Accept", "text/html")...)
		if to := location(t, a, http.StatusSeeOther); to.String() != env.URL+"/" && to.String() != "/" {
			t.Errorf("%s: sent to %s", name, to)
		}
	}
	want(t, 405, env.Do(t, "GET", "/auth/logout", "", nil))
	want(t, 403, env.Do(t, "POST", "/auth/logout", "", nil, "Sec-Fetch-Site", "cross-site"))
}

func TestLogoutPrefersTheHeaderToTheCookie(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	byHeader, byCookie := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	want(t, 204, env.Do(t, "POST", "/auth/logout", byHeader, nil, "Cookie", "noted_session="+byCookie))
	checkRefused(t, "the header's", env.Do(t, "GET", "/v1/me", byHeader, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", byCookie, nil))
	// An invalid header ends nothing, not even the cookie's session.
	want(t, 204, env.Do(t, "POST", "/auth/logout", "", nil, "Authorization", "Basic x", "Cookie", "noted_session="+byCookie))
	want(t, 200, env.Do(t, "GET", "/v1/me", byCookie, nil))
}

func TestWithoutAnEndSessionEndpointABrowserGoesToTheFrontPage(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	env.Provider.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { delete(doc, "end_session_endpoint") }})
	alice := env.SignIn(t, "alice")
	a := env.Do(t, "POST", "/auth/logout", alice, nil, "Accept", "text/html")
	if to := location(t, a, http.StatusSeeOther); to.String() != env.URL+"/" && to.String() != "/" {
		t.Errorf("sent to %s", to)
	}
	checkRefused(t, "after logout", env.Do(t, "GET", "/v1/me", alice, nil))
}

func TestTheAuthorizationHeaderAloneCountsAndMustBeWellFormed(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	send := func(values []string, cookie string) servertest.Answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+"/v1/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		if values != nil {
			r.Header["Authorization"] = values
		}
		if cookie != "" {
			r.Header.Set("Cookie", "noted_session="+cookie)
		}
		return servertest.Send(t, http.DefaultTransport, r)
	}
	for name, values := range map[string][]string{
		"empty":                  {""},
		"Basic":                  {"Basic YTpi"},
		"Basic with the token":   {"Basic " + alice},
		"Bearer":                 {"Bearer"},
		"Bearer and a blank":     {"Bearer "},
		"two blanks":             {"Bearer  " + alice},
		"a tab":                  {"Bearer\t" + alice},
		"the token alone":        {alice},
		"two headers":            {"Bearer " + alice, "Bearer " + alice},
		"two different":          {"Bearer " + alice, "Basic x"},
		"an empty one first":     {"", "Bearer " + alice},
		"two in one":             {"Bearer " + alice + ", Bearer " + alice},
		"something after it":     {"Bearer " + alice + " x"},
		"quotes":                 {`Bearer "` + alice + `"`},
		"Token":                  {"Token " + alice},
		"changed by one":         {"Bearer " + alice[:len(alice)-1] + "!"},
		"in upper case":          {"Bearer " + strings.ToUpper(alice)},
		"an unknown session":     {"Bearer " + string(identity.NewToken())},
		"an enormous one":        {"Bearer " + strings.Repeat("a", 20_000)},
		"an empty key":           {"Bearer noted_"},
		"bytes that are no text": {"Bearer nsess_\xff\xfe"},
	} {
		// A valid cookie beside it does not help.
		for _, cookie := range []string{"", bob} {
			started := time.Now()
			checkRefused(t, name, send(values, cookie))
			if took := time.Since(started); took < servertest.Floor {
				t.Errorf("%s: answered after %v", name, took)
			}
		}
	}
	for _, scheme := range []string{"Bearer", "bearer", "BEARER", "bEaReR"} { // RFC 9110, 11.1
		a := want(t, 200, send([]string{scheme + " " + alice}, bob))
		if !strings.Contains(string(a.Body), `"alice"`) {
			t.Errorf("%s: %s", scheme, a.Body)
		}
	}
	want(t, 200, send(nil, bob))
	checkRefused(t, "a cookie of garbage", send(nil, "x"))
	_, key := env.NewKey(t, alice, "key-reader")
	want(t, 200, send([]string{"Bearer " + key}, ""))
}

func TestNoCredentialIsAnsweredAtOnceWithTheSameBytes(t *testing.T) {
	t.Parallel()
	const floor = 2 * time.Second
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = floor })
	started := time.Now()
	none := env.Do(t, "GET", "/v1/me", "", nil)
	if took := time.Since(started); took > floor/2 {
		t.Errorf("a stranger waited %v", took)
	}
	checkRefused(t, "no credential", none)
	started = time.Now()
	failed := env.Do(t, "GET", "/v1/me", "nsess_x", nil)
	if took := time.Since(started); took < floor || took > 2*floor {
		t.Errorf("a failure took %v", took)
	}
	checkRefused(t, "a failure", failed)
	sameHeaders(t, "no credential", none.Header, failed.Header)
	// Unknown paths and methods say so to strangers too; known ones do not.
	for _, c := range [][2]string{{"GET", "/v1/notes"}, {"POST", "/v1/notes"}, {"GET", "/v1/notes/x"}, {"GET", "/v1/admin/users"}, {"DELETE", "/v1/me/sessions"}} {
		checkRefused(t, c[1], env.Do(t, c[0], c[1], "", nil))
	}
}

func TestPublicRoutesReadNoCredential(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, path := range []string{"/auth/providers", "/healthz", "/readyz", "/version", "/openapi.json", "/docs", "/", "/metrics"} {
		want(t, 200, env.Do(t, "GET", path, "garbage", nil, "Cookie", "noted_session=garbage"))
	}
	want(t, 302, env.Do(t, "GET", "/auth/login", "garbage", nil, "Cookie", "noted_session=garbage"))
	if strings.Contains(env.Log.String(), "authentication failed") {
		t.Error("a public route noted a failure")
	}
}
