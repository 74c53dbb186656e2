package identity_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"noted/identity"
	"noted/server"
	"noted/server/servertest"
)

// base62 is noted's, written with the standard library.
func base62(n *big.Int, width int) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, n.Text(62))
	return strings.Repeat("0", width-len(text)) + text
}

// withChecksum ends a key's body like a real one.
func withChecksum(body string) string {
	return body + base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), 6)
}

// wrongSecret is key with another secret, and a checksum that fits.
func wrongSecret(key string) string {
	return withChecksum(key[:29] + base62(big.NewInt(7), 43))
}

func TestAllFailuresAreOneAnswerWhateverTheReason(t *testing.T) {
	env := servertest.New(t)
	alice, ended, expired, idle := env.SignIn(t, "alice"), env.SignIn(t, "alice"), env.SignIn(t, "alice"), env.SignIn(t, "alice")
	keyed := func(name string) (id, token string) { return env.NewKey(t, env.SignIn(t, name), "key-reader") }
	goodID, good := env.NewKey(t, alice, "key-reader")
	revokedID, revoked := env.NewKey(t, alice, "key-reader")
	expiredID, expiredKey := env.NewKey(t, alice, "key-reader")
	_, absentKey := keyed("carol")
	locked := env.SignIn(t, "bob")
	_, lockedKey := keyed("bob")
	want(t, 200, env.Do(t, "GET", "/v1/me", good, nil))

	want(t, 204, env.Do(t, "DELETE", "/v1/me/sessions/"+current(t, env, ended), alice, nil))
	env.Exec(t, `update sessions set expires_at = now() where id = $1`, current(t, env, expired))
	env.Exec(t, `update sessions set last_used_at = now() - interval '2 days' where id = $1`, current(t, env, idle))
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+revokedID, alice, nil))
	env.Exec(t, `update key_secrets set created_at = now() - interval '2 days', expires_at = now() where key_id = $1`, expiredID)
	env.Exec(t, `update users set last_sign_in_at = now() - interval '90 days' where name = 'carol'`)
	env.Exec(t, `update users set locked_at = now() where name = 'bob'`)

	first := env.Do(t, "GET", "/v1/me", "nsess_", nil)
	for _, c := range []struct{ token, reason string }{
		{"x", "malformed_token"},
		{"nsess_" + strings.Repeat("z", 43), "malformed_token"},
		{string(identity.NewToken()), "unknown_session"},
		{ended, "ended_session"},
		{expired, "expired_session"},
		{idle, "expired_session"},
		{locked, "locked_user"},
		{"noted_x", "malformed_token"},
		{good + "x", "malformed_token"},
		{good[:len(good)-1] + "!", "key_checksum"},
		{withChecksum("noted_" + strings.Repeat("z", 22) + "_" + strings.Repeat("0", 43)), "malformed_token"},
		{withChecksum("noted_" + strings.Repeat("0", 22) + "_" + strings.Repeat("0", 43)), "unknown_key"},
		{wrongSecret(good), "wrong_secret"},
		{wrongSecret(revoked), "wrong_secret"},
		{revoked, "revoked_key"},
		{expiredKey, "expired_key"},
		{lockedKey, "locked_user"},
		{absentKey, "absent_owner"},
	} {
		started := time.Now()
		a := env.Do(t, "GET", "/v1/me", c.token, nil)
		if took := time.Since(started); took < servertest.Floor {
			t.Errorf("%s: answered after %v", c.reason, took)
		}
		checkRefused(t, c.reason, a)
		sameHeaders(t, c.reason, a.Header, first.Header)
		log := logOf(env, a)
		if !strings.Contains(log, "reason="+c.reason+" ") {
			t.Errorf("%.12s…: the log does not say %s: %s", c.token, c.reason, log)
		}
		if len(c.token) > 20 && strings.Contains(log, c.token[20:]) {
			t.Errorf("%s: the log has the token: %s", c.reason, log)
		}
		// It is the same with a cookie, before a handler, for unknown routes, and for a page.
		if !strings.Contains(c.token, "!") {
			checkRefused(t, c.reason, env.Do(t, "GET", "/v1/notes/x", "", nil, "Cookie", "noted_session="+c.token, "Accept", "text/html"))
		}
	}
	metrics := string(env.Do(t, "GET", "/metrics", "", nil).Body)
	for _, reason := range []string{"wrong_secret", "absent_owner", "ended_session"} {
		if !strings.Contains(metrics, `noted_auth_failures_total{reason="`+reason+`"}`) {
			t.Errorf("no metric of %s", reason)
		}
	}
	// The known ones are in the record, the unknown ones are not. No reason hides another.
	env.Recorded(t)
	for _, c := range []struct{ object, target, detail string }{
		{"key", goodID, "wrong_secret"}, {"key", revokedID, "wrong_secret"}, {"key", revokedID, "revoked_key"}, {"key", expiredID, "expired_key"},
		{"user", user(t, env, "bob"), "locked_user"}, {"user", user(t, env, "alice"), "ended_session"}, {"user", user(t, env, "alice"), "expired_session"},
	} {
		if n := number(t, env, `select count(*) from audit_events where action = 'auth.fail' and outcome = 'failure' and object = $1 and target = $2 and detail = $3 and ip = '127.0.0.1' and request_id <> ''`, c.object, c.target, c.detail); n != 1 {
			t.Errorf("%d rows about %v", n, c)
		}
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'auth.fail' and target not in (select id::text from users union select id::text from keys)`); n != 0 {
		t.Errorf("%d rows about nobody known", n)
	}
}

func TestFailuresOfAKnownUserOrKeyAreOneRowAMinute(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id, key := env.NewKey(t, alice, "key-reader")
	ended := env.SignIn(t, "alice")
	want(t, 204, env.Do(t, "POST", "/auth/logout", ended, nil))
	var group sync.WaitGroup
	for i := range 20 {
		token := wrongSecret(key)
		if i%2 == 0 {
			token = ended
		}
		group.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+"/v1/me", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != 401 {
				t.Errorf("got %d", response.StatusCode)
			}
		})
	}
	group.Wait()
	rows := func(target string) int {
		t.Helper()
		env.Recorded(t)
		return number(t, env, `select count(*) from audit_events where action = 'auth.fail' and target = $1`, target)
	}
	if k, u := rows(id), rows(user(t, env, "alice")); k != 1 || u != 1 {
		t.Errorf("%d rows about the key, %d about the user", k, u)
	}
	env.Exec(t, `update audit_failures set last_at = now() - interval '1 minute'`)
	checkRefused(t, "a minute later", env.Do(t, "GET", "/v1/me", ended, nil))
	if u := rows(user(t, env, "alice")); u != 2 {
		t.Errorf("a minute later there are %d rows", u)
	}
}

func TestAnAddressThatFailsTooOftenGets429AndAValidKeyStillWorks(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailuresPerMinute = 3 })
	alice := env.SignIn(t, "alice")
	_, key := env.NewKey(t, alice, "key-reader")
	b := newBrowser(t, env)
	back := b.callback(t, "bob")
	q := back.Query()
	q.Set("state", "x")
	back.RawQuery = q.Encode()
	if left := 60 - time.Now().Second(); left < 6 {
		time.Sleep(time.Duration(left) * time.Second) // the count is by clock minute
	}
	for range 10 { // not counted
		checkRefused(t, "no credential", env.Do(t, "GET", "/v1/me", "", nil))
	}
	checkRefused(t, "first", env.Do(t, "GET", "/v1/me", "nsess_x", nil))
	checkRefused(t, "second, a callback", b.get(t, back.String()))
	checkRefused(t, "third", env.Do(t, "GET", "/v1/me", wrongSecret(key), nil))
	for name, send := range map[string]func() servertest.Answer{
		"a key":             func() servertest.Answer { return env.Do(t, "GET", "/v1/me", wrongSecret(key), nil) },
		"a session":         func() servertest.Answer { return env.Do(t, "GET", "/v1/me", "nsess_x", nil) },
		"a callback":        func() servertest.Answer { return b.get(t, back.String()) },
		"a page's callback": func() servertest.Answer { return b.get(t, back.String(), "Accept", "text/html") },
	} {
		started := time.Now()
		a := send()
		if took := time.Since(started); took < servertest.Floor {
			t.Errorf("%s: answered after %v", name, took)
		}
		seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
		media := "application/problem+json"
		if strings.HasPrefix(name, "a page's") {
			media = "text/html; charset=utf-8"
		}
		if a.Status != 429 || err != nil || seconds < 1 || seconds > 60 || a.Header.Get("Content-Type") != media || len(a.Header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Header, a.Body)
		}
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", key, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
	checkRefused(t, "no credential", env.Do(t, "GET", "/v1/me", "", nil))
	env.SignIn(t, "carol") // a good sign-in is never refused either
}

func TestALockedUserFailsByEveryWayInAndUnlockingGivesItBack(t *testing.T) {
	env := servertest.New(t)
	ada, bob := env.SignIn(t, "ada"), env.SignIn(t, "bob")
	_, key := env.NewKey(t, bob, "key-writer")
	expires := env.SignIn(t, "bob")
	env.Exec(t, `update sessions set expires_at = now() + interval '1500 milliseconds' where id = $1`, current(t, env, expires))
	path := fmt.Sprintf("/v1/admin/users/%s/", user(t, env, "bob"))
	want(t, 204, env.Do(t, "POST", path+"lock", ada, nil))
	checkRefused(t, "session", env.Do(t, "GET", "/v1/me", bob, nil))
	checkRefused(t, "key", env.Do(t, "GET", "/v1/me", key, nil))
	b := newBrowser(t, env)
	sessions := number(t, env, `select count(*) from sessions`)
	a := b.get(t, b.callback(t, "bob").String())
	checkRefused(t, "sign-in", a)
	if log := logOf(env, a); !strings.Contains(log, "reason=locked_user") {
		t.Errorf("logged %s", log)
	}
	if n := number(t, env, `select count(*) from sessions`); n != sessions {
		t.Error("a locked user got a session")
	}
	env.Recorded(t)
	if n := number(t, env, `select count(*) from audit_events where action = 'auth.fail' and detail = 'locked_user'`); n != 2 { // user and key, once each
		t.Errorf("%d rows about the lock", n)
	}
	time.Sleep(1600 * time.Millisecond)
	want(t, 204, env.Do(t, "POST", path+"unlock", ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", bob, nil))
	want(t, 200, env.Do(t, "GET", "/v1/me", key, nil))
	checkRefused(t, "what expired meanwhile", env.Do(t, "GET", "/v1/me", expires, nil))
	env.SignIn(t, "bob")
}

func TestSigningInAndOutAreInTheRecord(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := current(t, env, alice)
	want(t, 204, env.Do(t, "POST", "/auth/logout", alice, nil))
	for _, action := range []string{"session.create", "session.end"} {
		if n := number(t, env, `select count(*) from audit_events where action = $1 and object = 'session' and target = $2 and outcome = 'success'
			and actor_kind = 'user' and actor_id = $3 and actor_name = 'alice' and ip = '127.0.0.1' and request_id <> ''`, action, id, user(t, env, "alice")); n != 1 {
			t.Errorf("%d rows of %s", n, action)
		}
	}
}

// burst sends a request with each token, all at once. It returns the step of the floor in which each was
// answered: 0 is the first.
func burst(t *testing.T, env *servertest.Env, floor time.Duration, tokens []string) []int {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: len(tokens)}
	defer transport.CloseIdleConnections()
	steps, start := make([]int, len(tokens)), make(chan struct{})
	var group sync.WaitGroup
	for i, token := range tokens {
		group.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+"/v1/me", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			<-start
			began := time.Now()
			response, err := transport.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			steps[i] = int(time.Since(began)/floor) - 1
			_ = response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				t.Errorf("got %d", response.StatusCode)
			}
		})
	}
	close(start)
	group.Wait()
	return steps
}

// A caller who knows key ids must not learn from the time whether the keys exist, not even while
// the record of failures cannot be written.
func TestABurstOfFailuresIsAnsweredAtTheFloorWhetherTheKeysAreKnownOrNot(t *testing.T) {
	const floor, many = 4 * time.Second, 300
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = floor })
	alice := meID(t, env, env.SignIn(t, "alice"))
	var ids []uuid.UUID
	var known, unknown []string
	token := func(id uuid.UUID) string {
		return withChecksum("noted_" + base62(new(big.Int).SetBytes(id[:]), 22) + "_" + base62(big.NewInt(7), 43))
	}
	for range many {
		id := uuid.Must(uuid.NewV7())
		ids, known, unknown = append(ids, id), append(known, token(id)), append(unknown, token(uuid.Must(uuid.NewV7())))
	}
	env.Exec(t, `insert into keys (id, user_id, name, role, created_by) select unnest($1::uuid[]), $2, 'k', 'key-reader', $2`, ids, alice)
	env.Exec(t, `insert into key_secrets (id, key_id, hash, expires_at, minted_by) select gen_random_uuid(), unnest($1::uuid[]), sha256('x'), now() + interval '1 day', $2`, ids, alice)
	env.Exec(t, `insert into audit_failures (subject, last_at) select 'key:' || unnest($1::uuid[]) || ':wrong_secret', now() - interval '1 hour'`, ids)
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `select from audit_failures for update`); err != nil {
		t.Fatal(err)
	}
	for name, tokens := range map[string][]string{"known": known, "unknown": unknown} {
		for i, step := range burst(t, env, floor, tokens) {
			if step != 0 {
				t.Errorf("%s key %d was answered in step %d of the floor", name, i, step)
			}
		}
	}
	if n := number(t, env, `select count(*) from audit_events where action = 'auth.fail'`); n != 0 {
		t.Fatalf("%d rows were written past the lock", n)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	env.Recorded(t)
	if n := number(t, env, `select count(distinct target) from audit_events where action = 'auth.fail' and detail = 'wrong_secret'`); n != many {
		t.Errorf("%d of %d are in the record afterwards", n, many)
	}
	if metrics := string(env.Do(t, "GET", "/metrics", "", nil).Body); !strings.Contains(metrics, "\nnoted_audit_failures_dropped_total 0\n") {
		t.Error("the metric does not say that nothing was dropped")
	}
}

// A database that is down says nothing about the credential.
func TestAStatementThatFailsIsNoFailedAuthentication(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	env.Exec(t, `alter table sessions rename to sessions_away`)
	a := want(t, 500, env.Do(t, "GET", "/v1/me", alice, nil))
	if strings.Contains(string(a.Body), "sessions") || strings.Contains(string(a.Body), "42P01") {
		t.Errorf("the answer tells: %s", a.Body)
	}
	env.Exec(t, `alter table sessions_away rename to sessions`)
	want(t, 200, env.Do(t, "GET", "/v1/me", alice, nil))
}

func TestTidyForgetsOldSessionsAndFailuresAndNothingElse(t *testing.T) {
	env := servertest.New(t)
	live, old := env.SignIn(t, "alice"), env.SignIn(t, "alice")
	env.Exec(t, `update sessions set expires_at = now() - interval '25 hours' where id = $1`, current(t, env, old))
	checkRefused(t, "old", env.Do(t, "GET", "/v1/me", old, nil))
	recent := env.SignIn(t, "alice")
	env.Exec(t, `update sessions set expires_at = now() - interval '23 hours' where id = $1`, current(t, env, recent))
	env.Recorded(t)
	env.Exec(t, `update audit_failures set last_at = now() - interval '25 hours'`)
	if err := env.Server.Identity.Tidy(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if n := number(t, env, `select count(*) from sessions`); n != 2 {
		t.Errorf("%d sessions are left", n)
	}
	if n := number(t, env, `select count(*) from audit_failures`); n != 0 {
		t.Errorf("%d failures are left", n)
	}
	want(t, 200, env.Do(t, "GET", "/v1/me", live, nil))
}
