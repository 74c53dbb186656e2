package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/server/servertest"
)

// Strangers fill these tables. An hour of rows must not take longer to delete than to make.
func TestTidyDeletesAllThatIsOver(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	d := startDevice(t, env)
	env.Exec(t, `insert into sessions (id, user_id, identity_id, token_hash, expires_at, origin)
		select gen_random_uuid(), user_id, id, sha256(n::text::bytea), now() - interval '2 days', 'browser' from identities, generate_series(1, 5000) n`)
	env.Exec(t, `insert into links (session_id, state_hash, provider, nonce, verifier, expires_at)
		select id, token_hash, 'dev', '', '', now() - interval '1 minute' from sessions`)
	env.Exec(t, `insert into audit_failures (subject, last_at) select n::text, now() - interval '25 hours' from generate_series(1, 5000) n`)
	env.Exec(t, `insert into spent_tokens (hash, forget_at) select sha256(n::text::bytea), now() - interval '1 minute' from generate_series(1, 5000) n`)
	env.Exec(t, `insert into device_logins (device_hash, user_code, expires_at, network)
		select sha256(n::text::bytea), n::text, now() - interval '61 minutes', '' from generate_series(1, 5000) n`)
	env.Exec(t, `insert into device_guesses (user_id, at) select id, now() - interval '61 minutes' from users, generate_series(1, 5000)`)
	count := func() string {
		return fmt.Sprint(
			number(t, env, `select count(*) from sessions`), number(t, env, `select count(*) from links`), number(t, env, `select count(*) from audit_failures`),
			number(t, env, `select count(*) from spent_tokens`), number(t, env, `select count(*) from device_logins`), number(t, env, `select count(*) from device_guesses`))
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := env.Server.Identity.Tidy(gone, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("with no time left: %v", err)
	}
	if n := count(); n != "5001 5001 5000 5001 5001 5000" {
		t.Fatalf("there are %s", n)
	}
	if err := env.Server.Identity.Tidy(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != "1 0 0 1 1 0" { // alice's session, her ID token, the device that waits
		t.Errorf("%s are left", n)
	}
	checkLives(t, env, map[string]string{"alice": alice})
	checkOAuth(t, "the device", d.poll(t, env), "authorization_pending")
}

// shown are alice's e-mails as seen by herself, by admins and by members of her organization.
func shown(t testing.TB, env *servertest.Env, alice, ada, org, id string) string {
	t.Helper()
	type person struct{ Email *string }
	text := func(p person) string {
		if p.Email == nil {
			return "null"
		}
		return *p.Email
	}
	var me, one person
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", alice, nil)).JSON(t, &me)
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/admin/users/"+id, ada, nil)).JSON(t, &one)
	all := []string{text(me), text(one)}
	for path, token := range map[string]string{"/v1/admin/users": ada, "/v1/orgs/" + org + "/members": alice} {
		var list struct {
			Items []struct {
				person
				ID     string
				UserID string `json:"user_id"`
			}
		}
		want(t, http.StatusOK, env.Do(t, http.MethodGet, path, token, nil)).JSON(t, &list)
		for _, item := range list.Items {
			if item.ID == id || item.UserID == id {
				all = append(all, text(item.person))
			}
		}
	}
	if len(all) != 4 || all[1] != all[0] || all[2] != all[0] || all[3] != all[0] {
		t.Errorf("she is shown with %q", all)
	}
	return all[0]
}

func TestAnEMailIsShownOnlyWhenAProviderVerifiedIt(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	ada := env.SignIn(t, "ada")
	org, id := env.NewOrg(t, b.session(), "hers"), user(t, env, "alice")
	check := func(what, email string) {
		t.Helper()
		if got := shown(t, env, b.session(), ada, org, id); got != email {
			t.Errorf("%s: shown with %s, want %s", what, got, email)
		}
	}
	check("verified", "alice@dev.example")
	for _, verified := range []any{false, "true", nil} {
		env.Provider.SetLie(devidp.Lie{Claims: func(c map[string]any) { c["email"], c["email_verified"] = "ceo@dev.example", verified }})
		b.at(t, "dev", "alice")
		check(fmt.Sprintf("email_verified %v", verified), "null")
		var own struct{ Items []struct{ Email string } }
		env.Do(t, http.MethodGet, "/v1/me/identities", b.session(), nil).JSON(t, &own)
		if len(own.Items) != 1 || own.Items[0].Email != "ceo@dev.example" {
			t.Errorf("her own sign-ins are %+v", own)
		}
	}
	// A verified one of another sign-in of hers counts while that is linked.
	_, code := b.asked(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-bob"))
	location(t, confirmLink(t, env, b.session(), code), http.StatusSeeOther)
	check("linked", "bob@dev.example")
	b.at(t, "dev", "alice")
	check("signed in by the other", "bob@dev.example")
	var linked string
	if err := env.Pool.QueryRow(t.Context(), `select id::text from identities where subject = 'c-bob'`).Scan(&linked); err != nil {
		t.Fatal(err)
	}
	want(t, http.StatusNoContent, env.Do(t, http.MethodDelete, "/v1/me/identities/"+linked, b.session(), nil))
	check("unlinked", "null")
	env.Provider.SetLie(devidp.Lie{})
	b.at(t, "dev", "alice")
	check("verified again", "alice@dev.example")
}

func TestTheSessionCookieHoldsOneSession(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	_, key := env.NewKey(t, alice, "key-admin")
	const name = "noted_session="
	first := env.Do(t, http.MethodGet, "/v1/me", "", nil, "Cookie", name+"x")
	for what, cookie := range map[string]string{
		"a key": name + key, "a key, and a session": name + key + "; " + name + alice, "two sessions": name + alice + "; " + name + bob,
		"a session, and rubbish": name + alice + "; " + name + "x", "nothing": name, "a session in capitals": name + strings.ToUpper(alice),
	} {
		a := env.Do(t, http.MethodGet, "/v1/me", "", nil, "Cookie", cookie)
		checkRefused(t, what, a)
		sameHeaders(t, what, a.Header, first.Header)
		if log := logOf(env, a); !strings.Contains(log, "reason=malformed_token ") {
			t.Errorf("%s: logged %s", what, log)
		}
		want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", alice, nil, "Cookie", cookie)) // only the header counts
		if a := env.Do(t, http.MethodGet, "/notes", "", nil, "Cookie", cookie); a.Status == http.StatusOK {
			t.Errorf("%s: a page is shown", what)
		}
	}
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", "", nil, "Cookie", name+alice+"; "+name+alice))
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", key, nil))
}

// Abandoned sign-ins stay below what a server or a proxy accepts in headers.
func TestBegunSignInsTakeLittleRoomInABrowser(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{env, &http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	at := mustURL(t, env.URL)
	begin := func(to string) *url.URL {
		t.Helper()
		return location(t, b.get(t, env.URL+"/auth/login?login_hint=alice&return_to="+url.QueryEscape(to)), http.StatusFound)
	}
	var authorize []*url.URL
	for range 50 {
		authorize = append(authorize, begin("/"+strings.Repeat("x", 2000)))
	}
	for range 5 {
		authorize = append(authorize, begin("/"+strings.Repeat("é\"", 170)))
	}
	bytes := 0
	for _, cookie := range jar.Cookies(at) {
		bytes += len(cookie.Name) + len(cookie.Value) + 3
	}
	if n := len(jar.Cookies(at)); n != 5 || bytes > 8<<10 {
		t.Errorf("%d cookies of %d bytes", n, bytes)
	}
	want(t, http.StatusOK, b.get(t, env.URL+"/version"))
	checkRefused(t, "the first of them", b.get(t, b.atProvider(t, authorize[0]).String()))
	for _, begun := range authorize[50:] { // the last five are not dropped
		want(t, http.StatusSeeOther, b.get(t, b.atProvider(t, begun).String()))
	}
	want(t, http.StatusOK, b.get(t, env.URL+"/v1/me"))
	// 512 bytes lead back; 513 do not.
	for length, to := range map[int]string{512: "/" + strings.Repeat("y", 511), 513: "/"} {
		back := b.atProvider(t, begin("/"+strings.Repeat("y", length-1)))
		if got := location(t, b.get(t, back.String()), http.StatusSeeOther).String(); got != to {
			t.Errorf("%d bytes lead to %q", length, got)
		}
	}
}

func TestPollingForgetsNoCredential(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	d := startDevice(t, env)
	var heard uint64
	for end := time.Now().Add(20 * time.Second); ; { // the sign-in's change is heard of a moment later
		heard = env.Server.Identity.Heard()
		time.Sleep(300 * time.Millisecond)
		if heard == env.Server.Identity.Heard() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it never grows silent")
		}
	}
	checkOAuth(t, "a poll", d.poll(t, env), "authorization_pending")
	checkOAuth(t, "a poll too soon", d.poll(t, env), "slow_down")
	checkOAuth(t, "an unknown code", device{DeviceCode: "x"}.poll(t, env), "invalid_grant")
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/auth/device?user_code="+d.UserCode, alice, nil))
	want(t, http.StatusNotFound, env.Do(t, http.MethodGet, "/auth/device?user_code=BBBB-BBBB", alice, nil))
	startDevice(t, env)
	time.Sleep(100 * time.Millisecond)
	if n := env.Server.Identity.Heard() - heard; n != 0 {
		t.Errorf("it forgot %d times", n)
	}
	// The session works as soon as it is fetched.
	if !lives(t, env, approveDevice(t, env, alice)) {
		t.Error("the device's session does not work")
	}
}

// A database fault says nothing about the credential: nothing is counted, recorded or refused.
func TestADatabaseFaultWhileSigningInIsNoFailedAuthentication(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	alice := env.SignIn(t, "alice")
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	linking := newBrowser(t, env)
	linking.at(t, "dev", "alice")
	linkBack := linking.comeBack(t, startLink(t, env, linking.session(), "corp"), "c-alice")
	asks := newBrowser(t, env)
	asks.at(t, "dev", "alice")
	_, code := asks.asked(t, asks.comeBack(t, startLink(t, env, asks.session(), "corp"), "c-alice"))
	waiting := startDevice(t, env)
	callback := func(headers ...string) func() servertest.Answer {
		return func() servertest.Answer { return b.get(t, b.callback(t, "alice").String(), headers...) }
	}
	for _, c := range []struct {
		what, table string
		request     func() servertest.Answer
	}{
		{"a callback", "spent_tokens", callback()},
		{"a callback that asks for links", "links", callback()},
		{"a browser's callback", "sessions", callback("Accept", "text/html")},
		{"a callback that notes the identity", "identities", callback("Accept", "text/html")},
		{"a link's callback", "spent_tokens", func() servertest.Answer { return linking.get(t, linkBack, "Accept", "text/html") }},
		{"a link's callback that asks for its session", "sessions", func() servertest.Answer { return linking.get(t, linkBack) }},
		{"a link's confirmation", "audit_events", func() servertest.Answer { return confirmLink(t, env, asks.session(), code) }},
		{"an exchange", "sessions", func() servertest.Answer { return exchange(t, env, newIDToken(t, env, "alice", nil)) }},
		{"the start of a device login", "device_logins", func() servertest.Answer {
			return postForm(t, env, "/auth/device", url.Values{"client_id": {"noted-cli"}})
		}},
		{"a poll", "device_logins", func() servertest.Answer { return waiting.poll(t, env) }},
		{"a device's page", "device_logins", func() servertest.Answer {
			return env.Do(t, http.MethodGet, "/auth/device?user_code="+waiting.UserCode, alice, nil, "Accept", "text/html")
		}},
		{"an approval", "device_guesses", func() servertest.Answer { return decide(t, env, alice, waiting.UserCode, "approve") }},
		{"a logout", "audit_events", func() servertest.Answer { return env.Do(t, http.MethodPost, "/auth/logout", alice, nil) }},
		{"a back-channel logout", "spent_tokens", func() servertest.Answer {
			return sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "alice"}))
		}},
	} {
		failures := number(t, env, `select count(*) from audit_events where outcome = 'failure'`)
		env.Exec(t, `alter table `+c.table+` rename to away`)
		a := c.request()
		env.Exec(t, `alter table away rename to `+c.table)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d %v %s", c.what, a.Status, a.Header, a.Body)
		}
		log := logOf(env, a)
		if !strings.Contains(log, "level=ERROR") || strings.Contains(log, "authentication failed") {
			t.Errorf("%s: logged %s", c.what, log)
		}
		if strings.Contains(string(a.Body), c.table) || strings.Contains(string(a.Body), "42P01") {
			t.Errorf("%s: the answer tells: %s", c.what, a.Body)
		}
		if n := number(t, env, `select count(*) from audit_events where outcome = 'failure'`); n != failures {
			t.Errorf("%s: %d rows of failures", c.what, n-failures)
		}
	}
	// What was held up goes on afterwards, except codes, which count once at the provider.
	want(t, http.StatusSeeOther, confirmLink(t, env, asks.session(), code))
	want(t, http.StatusNoContent, env.Do(t, http.MethodPost, "/auth/logout", alice, nil))
}
