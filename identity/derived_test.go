package identity_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"noted/server"
	"noted/server/servertest"
)

// expiry is the absolute end of a token's session, from the list of sessions.
func expiry(t testing.TB, env *servertest.Env, token string) time.Time {
	t.Helper()
	var list struct {
		Items []struct {
			Current   bool
			ExpiresAt time.Time `json:"expires_at"`
		}
	}
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me/sessions", token, nil)).JSON(t, &list)
	for _, one := range list.Items {
		if one.Current {
			return one.ExpiresAt
		}
	}
	t.Fatal("no current session")
	return time.Time{}
}

func TestADevicesSessionEndsNoLaterThanTheOneThatApprovedIt(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	env.Exec(t, `update sessions set expires_at = now() + interval '1 hour'`)
	d := startDevice(t, env)
	want(t, http.StatusOK, decide(t, env, alice, d.UserCode, "approve"))
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	want(t, http.StatusOK, d.poll(t, env)).JSON(t, &answer)
	if answer.ExpiresIn > 3600 || answer.ExpiresIn < 3500 {
		t.Errorf("expires_in is %d, and the approving session has an hour left", answer.ExpiresIn)
	}
	if its, approving := expiry(t, env, answer.AccessToken), expiry(t, env, alice); !its.Equal(approving) {
		t.Errorf("it ends at %v, the approving session at %v", its, approving)
	}
	// It also does not outlive a shortened session_absolute, nor its own idle end.
	env.Exec(t, `update sessions set expires_at = now() + interval '30 days' where id = $1`, current(t, env, alice))
	second := approveDevice(t, env, alice)
	if left := time.Until(expiry(t, env, second)); left > 7*24*time.Hour {
		t.Errorf("a device's session lives for %v", left)
	}
	env.Exec(t, `update sessions set last_used_at = now() - interval '24 hours' where id = $1`, current(t, env, second))
	checkRefused(t, "an idle device", env.Do(t, http.MethodGet, "/v1/me", second, nil))
	env.Exec(t, `update sessions set expires_at = now() where expires_at < now() + interval '1 hour'`)
	checkRefused(t, "an expired device", env.Do(t, http.MethodGet, "/v1/me", answer.AccessToken, nil))
}

// A derived session derives nothing itself. Otherwise a chain of devices, each let in by the
// one before, would have no end.
func TestOnlyABrowsersSessionLetsDevicesInAndLinksSignIns(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	_, code := b.asked(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-alice"))
	sessions, all := number(t, env, `select count(*) from sessions`), identities(t, env)
	for what, derived := range map[string]string{
		"a device's session":  approveDevice(t, env, b.session()),
		"a program's session": accessToken(t, exchange(t, env, newIDToken(t, env, "alice", nil))),
	} {
		d := startDevice(t, env)
		// As if an older version had let it begin a link.
		env.Exec(t, `insert into links (session_id, state_hash, provider, nonce, verifier, expires_at, sign_in, confirm_hash)
			select $1, sha256(convert_to($2, 'UTF8')), provider, nonce, verifier, expires_at, sign_in, confirm_hash from links limit 1`,
			uuid.MustParse(current(t, env, derived)), what)
		for does, a := range map[string]servertest.Answer{
			"shows the page":           env.Do(t, http.MethodGet, "/auth/device", derived, nil),
			"shows the page of a code": env.Do(t, http.MethodGet, "/auth/device?user_code="+d.UserCode, derived, nil),
			"shows it by its cookie":   env.Do(t, http.MethodGet, "/auth/device?user_code="+d.UserCode, "", nil, "Cookie", "noted_session="+derived),
			"approves":                 decide(t, env, derived, d.UserCode, "approve"),
			"denies":                   decide(t, env, derived, d.UserCode, "deny"),
			"starts to link":           startLink(t, env, derived, "corp"),
			"confirms a link":          confirmLink(t, env, derived, code),
		} {
			if a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), `"permission":"identity:own write"`) || !strings.Contains(string(a.Body), "browser") {
				t.Errorf("%s %s: %d %s", what, does, a.Status, a.Body)
			}
		}
		checkOAuth(t, "the device of "+what, d.poll(t, env), "authorization_pending")
		want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me/identities", derived, nil))
	}
	if n := identities(t, env); n != all {
		t.Errorf("%d identities, there were %d", n, all)
	}
	if n := number(t, env, `select count(*) from sessions`); n != sessions+2 {
		t.Errorf("%d sessions, there were %d and two were derived", n, sessions)
	}
}

// waitBlocked waits until that many statements of the database wait for a lock.
func waitBlocked(t testing.TB, env *servertest.Env, statements int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := number(t, env, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		if n >= statements {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d statements wait, want %d", n, statements)
		}
	}
}

// hold runs SQL in a transaction that stays open until release.
func hold(t testing.TB, env *servertest.Env, sql string, args ...any) (release func()) {
	t.Helper()
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(once)
	return once
}

// beginning is a way in which a session begins, or a sign-in is added to an account, prepared up to
// the request that does it. It holds what blocks that request between its look for a logout
// and its end.
type beginning struct {
	request func() servertest.Answer
	stop    string
	stopBy  []any
	after   func() // what may follow the answer
}

const lockPair = `select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 1))`

// beginnings are all of them, for alice's sign-in with the sid S, whose session is web.
// other is a session of another sign-in.
func beginnings(t *testing.T, env *servertest.Env) map[string]func(web, other string) beginning {
	lockDevice := func(d device) (string, []any) {
		return `select from device_logins where user_code = $1 for update`, []any{strings.Replace(d.UserCode, "-", "", 1)}
	}
	return map[string]func(web, other string) beginning{
		"a callback": func(string, string) beginning {
			env.Provider.SetLie(claim("sid", "S"))
			b := newBrowser(t, env)
			back := b.callback(t, "alice").String()
			return beginning{request: func() servertest.Answer { return b.get(t, back) }, stop: lockPair, stopBy: []any{env.Issuer, "alice"}}
		},
		"an exchange": func(string, string) beginning {
			token := newIDToken(t, env, "alice", map[string]any{"sid": "S"})
			return beginning{request: func() servertest.Answer { return exchange(t, env, token) }, stop: lockPair, stopBy: []any{env.Issuer, "alice"}}
		},
		"an approval": func(web, _ string) beginning {
			d := startDevice(t, env)
			stop, by := lockDevice(d)
			return beginning{request: func() servertest.Answer { return decide(t, env, web, d.UserCode, "approve") }, stop: stop, stopBy: by, after: func() { d.poll(t, env) }}
		},
		"a fetch": func(web, _ string) beginning {
			d := startDevice(t, env)
			want(t, http.StatusOK, decide(t, env, web, d.UserCode, "approve"))
			stop, by := lockDevice(d)
			return beginning{request: func() servertest.Answer { return d.poll(t, env) }, stop: stop, stopBy: by}
		},
		"the start of a link": func(web, _ string) beginning {
			return beginning{
				request: func() servertest.Answer { return startLink(t, env, web, "corp") },
				stop:    `lock table links in share mode`,
				after: func() {
					if a := startLink(t, env, web, "corp"); a.Status != http.StatusUnauthorized {
						t.Errorf("the session links on: %d", a.Status)
					}
				},
			}
		},
		// The sign-in to be linked is the one that ends; the linking session is of another.
		"a link's page": func(_, other string) beginning {
			b := newBrowser(t, env)
			b.client.Jar.SetCookies(mustURL(t, env.URL), []*http.Cookie{{Name: "noted_session", Value: other}})
			env.Provider.SetLie(claim("sid", "S"))
			back := b.comeBack(t, startLink(t, env, other, "dev"), "carol")
			var code string
			return beginning{
				request: func() servertest.Answer {
					a := b.get(t, back, "Accept", "text/html")
					if found := codeField.FindStringSubmatch(string(a.Body)); found != nil {
						code = found[1]
					}
					return a
				},
				stop: lockPair, stopBy: []any{env.Issuer, "carol"},
				after: func() {
					if a := confirmLink(t, env, other, code); a.Status != http.StatusConflict {
						t.Errorf("a sign-in that ended is linked: %d %s", a.Status, a.Body)
					}
				},
			}
		},
	}
}

func mustURL(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// In either order, and whichever is held up in the middle, nothing of the sign-in lives when both
// are over.
func TestNothingThatBeginsDuringABackchannelLogoutSurvivesIt(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"sid", "sub", "sid and sub"} {
		env := newTwoProviders(t)
		for what, prepare := range beginnings(t, env) {
			for _, held := range []string{"the beginning", "the logout"} {
				if what == "a link's page" && by == "sid and sub" {
					continue // carol links, and the sid is alice's
				}
				t.Run(fmt.Sprintf("%s by %s, %s held up", what, by, held), func(t *testing.T) {
					env.Exec(t, `delete from sessions`)
					env.Exec(t, `delete from spent_tokens`)
					web, other := signInWithSid(t, env, "alice", "S"), env.SignIn(t, "bob")
					begin := prepare(web, other)
					subject := "alice"
					if what == "a link's page" {
						subject = "carol"
					}
					claims := map[string]any{"sid": "S", "sub": subject, "iat": time.Now().Unix() + 30}
					if by != "sid and sub" {
						claims = map[string]any{by: claims[by], "iat": claims["iat"]}
					}
					logout := logoutToken(t, env, claims)
					var group sync.WaitGroup
					var logoutAnswer servertest.Answer
					logOut := func() { logoutAnswer = sendLogout(t, env, logout) }
					first, second, stop, stopBy := func() { begin.request() }, logOut, begin.stop, begin.stopBy
					if held == "the logout" {
						first, second = second, first
						stop, stopBy = `select from sessions where id = $1 for share`, []any{uuid.MustParse(current(t, env, web))}
						if what == "a link's page" && by == "sub" { // it ends no session
							stop, stopBy = `select pg_advisory_xact_lock(0)`, nil
						}
					}
					release := hold(t, env, stop, stopBy...)
					group.Go(first)
					if stopBy != nil || held == "the beginning" {
						waitBlocked(t, env, 1)
					}
					group.Go(second)
					time.Sleep(50 * time.Millisecond) // it goes as far as it can
					release()
					group.Wait()
					env.Provider.SetLie(claim("sid", "T"))
					if logoutAnswer.Status != http.StatusOK {
						t.Errorf("the logout: %d %s", logoutAnswer.Status, logoutAnswer.Body)
					}
					if begin.after != nil {
						begin.after()
					}
					if n := number(t, env, `select count(*) from sessions s join identities i on i.id = s.identity_id
						where s.ended_at is null and i.subject in ('alice', 'carol') and i.issuer = $1`, env.Issuer); n != 0 && what != "a link's page" {
						t.Errorf("%d sessions live on", n)
					}
					if n := number(t, env, `select count(*) from identities where subject = 'carol'`); n != 0 {
						t.Error("it was linked")
					}
					ended := number(t, env, `select count(*) from sessions where ended_at is not null`)
					if n := number(t, env, `select count(distinct target) from audit_events where action = 'session.end' and target in (select id::text from sessions)`); n != ended {
						t.Errorf("%d rows of %d ends", n, ended)
					}
				})
			}
		}
	}
}

// With both, sid selects; sessions exchanged for that identity's tokens without a sid end too.
func TestBackchannelBySidAndSubEndsWhatWasExchangedWithoutASid(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	now := time.Now().Unix()
	at := func(subject string, iat int64) servertest.Answer {
		t.Helper()
		return exchange(t, env, newIDToken(t, env, subject, map[string]any{"iat": iat}))
	}
	ended := map[string]string{"the sign-in": signInWithSid(t, env, "alice", "S"), "exchanged with no sid": accessToken(t, at("alice", now-10))}
	stay := map[string]string{
		"another sign-in": signInWithSid(t, env, "alice", "T"), "exchanged with another sid": exchangeWithSid(t, env, "alice", "U"),
		"bob's, exchanged with no sid": accessToken(t, at("bob", now-10)),
	}
	env.Provider.SetLie(claim("sid", nil))
	stay["a browser's with no sid"] = env.SignIn(t, "alice")
	want(t, http.StatusOK, sendLogout(t, env, logoutToken(t, env, map[string]any{"sub": "alice", "sid": "S", "iat": now - 5})))
	checkEnded(t, env, ended)
	checkLives(t, env, stay)
	checkNotExchanged(t, env, "an older token with no sid", "signed_out_at_provider", at("alice", now-6))
	checkLives(t, env, map[string]string{
		"a newer token with no sid": accessToken(t, at("alice", now-4)), "bob's older token": accessToken(t, at("bob", now-6)),
		"an older token with another sid": accessToken(t, exchange(t, env, newIDToken(t, env, "alice", map[string]any{"iat": now - 6, "sid": "V"}))),
	})
}

// Ending all others also ends a session that one of them is just letting in.
func TestADeviceApprovedWhileAllOthersEndEndsWithThem(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	keep, web := env.SignIn(t, "alice"), env.SignIn(t, "alice")
	d := startDevice(t, env)
	release := hold(t, env, `select from device_logins where user_code = $1 for update`, strings.Replace(d.UserCode, "-", "", 1))
	var group sync.WaitGroup
	group.Go(func() { decide(t, env, web, d.UserCode, "approve") })
	waitBlocked(t, env, 1)
	group.Go(func() { env.Do(t, http.MethodDelete, "/v1/me/sessions", keep, nil) })
	waitBlocked(t, env, 2)
	release()
	group.Wait()
	checkOAuth(t, "the device", d.poll(t, env), "invalid_grant")
	if n := number(t, env, `select count(*) from sessions where ended_at is null`); n != 1 || !lives(t, env, keep) {
		t.Errorf("%d sessions live", n)
	}
}

// The addresses of one customer count together, on all replicas, and only logins that wait count.
func TestAnAddressHasOnlySoManyDevicesWaiting(t *testing.T) {
	t.Parallel()
	behindProxy := func(o *server.Options) { o.Settings.TrustedProxies = []string{"127.0.0.1/32"} }
	here := servertest.New(t, behindProxy)
	there := servertest.NewOn(t, here.Pool.Config().ConnString(), behindProxy)
	from := func(env *servertest.Env, address string) servertest.Answer {
		return env.Do(t, http.MethodPost, "/auth/device", "", "client_id=noted-cli", "Content-Type", "application/x-www-form-urlencoded", "X-Forwarded-For", address)
	}
	var mu sync.Mutex
	var started []device
	for _, network := range []string{"2001:db8:1:2::%x", "192.0.2.7"} {
		var group sync.WaitGroup
		refused := 0
		started = nil
		for i := range 28 {
			address := network
			if strings.Contains(network, "%") {
				address = fmt.Sprintf(network, i+1)
			}
			group.Go(func() {
				a := from([]*servertest.Env{here, there}[i%2], address)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case a.Status == http.StatusOK:
					var d device
					a.JSON(t, &d)
					started = append(started, d)
				case a.Status == http.StatusTooManyRequests && a.Header.Get("Retry-After") != "":
					refused++
				default:
					t.Errorf("%d %s", a.Status, a.Body)
				}
			})
		}
		group.Wait()
		if len(started) != 20 || refused != 8 {
			t.Errorf("%s: %d were started, %d refused", network, len(started), refused)
		}
	}
	want(t, http.StatusOK, from(here, "2001:db8:1:3::1"))
	want(t, http.StatusOK, from(here, "192.0.2.8"))
	// A decided or expired one no longer waits.
	alice := here.SignIn(t, "alice")
	want(t, http.StatusOK, decide(t, here, alice, started[0].UserCode, "deny"))
	here.Exec(t, `update device_logins set expires_at = now() where user_code = $1`, strings.Replace(started[1].UserCode, "-", "", 1))
	want(t, http.StatusOK, from(there, "192.0.2.7"))
	want(t, http.StatusOK, from(here, "192.0.2.7"))
	a := want(t, http.StatusTooManyRequests, from(there, "192.0.2.7"))
	if seconds := a.Header.Get("Retry-After"); len(seconds) != 3 || seconds > "601" {
		t.Errorf("Retry-After is %q", seconds)
	}
}
