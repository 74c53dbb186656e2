package identity_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"noted/server/servertest"
)

func TestEveryChangeOfACredentialIsHeardOnTheOtherServer(t *testing.T) {
	t.Parallel()
	here := servertest.New(t)
	there := servertest.NewOn(t, here.Pool.Config().ConnString())
	alice := here.SignIn(t, "alice")
	note := here.NewNote(t, alice, "a note")
	_, key := here.NewKey(t, alice, "key-reader")
	heard := func() uint64 { return there.Server.Identity.Heard() }
	still := func() uint64 { // wait for notifications under way
		t.Helper()
		for {
			before := heard()
			time.Sleep(300 * time.Millisecond)
			if heard() == before {
				return before
			}
		}
	}
	exec := func(sql string) func() {
		return func() {
			t.Helper()
			if _, err := here.Pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, change := range map[string]func(){
		"a lock":                    exec(`update users set locked_at = now() where false`),
		"another name":              exec(`update users set name = name`),
		"an end of a session":       exec(`update sessions set ended_at = null where false`),
		"another end of a session":  exec(`update sessions set expires_at = expires_at`),
		"a session deleted":         exec(`delete from sessions where false`),
		"another group":             exec(`update identities set groups = groups`),
		"an identity deleted":       exec(`delete from identities where false`),
		"a revocation":              exec(`update keys set revoked_at = null where false`),
		"another role of a key":     exec(`update keys set role = role`),
		"a key deleted":             exec(`delete from keys where false`),
		"another end of a secret":   exec(`update key_secrets set expires_at = expires_at`),
		"a secret deleted":          exec(`delete from key_secrets where false`),
		"a sign-in":                 func() { here.SignIn(t, "bob") },
		"a rotation, over the wire": func() { want(t, http.StatusCreated, rotateFirst(t, here, alice)) },
	} {
		before := still()
		change()
		for end := time.Now().Add(20 * time.Second); heard() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s was not heard of", what)
			}
		}
	}
	// Use is not a change, or nothing would ever be remembered.
	for what, use := range map[string]func(){
		"a read by session": func() { want(t, http.StatusOK, here.Do(t, http.MethodGet, "/v1/notes/"+note, alice, nil)) },
		"a read by key":     func() { want(t, http.StatusOK, here.Do(t, http.MethodGet, "/v1/notes/"+note, key, nil)) },
		"a write":           func() { here.NewNote(t, alice, "another") },
		"a mark of use":     exec(`update sessions set last_used_at = now()`),
		"a key's mark":      exec(`update keys set last_used_at = now(), last_used_ip = '::1'`),
	} {
		before := still()
		use()
		if still() != before {
			t.Errorf("%s made the other server forget", what)
		}
	}
}

func rotateFirst(t *testing.T, env *servertest.Env, session string) servertest.Answer {
	t.Helper()
	id, _ := env.NewKey(t, session, "key-reader")
	return env.Do(t, http.MethodPost, "/v1/keys/"+id+"/rotate", session, nil)
}

// The listener's connection is killed again and again. Still no request that begins a second after a
// credential ended is let in.
func TestASecondIsTheFloorWhileTheListenerIsDown(t *testing.T) {
	t.Parallel()
	here := servertest.New(t)
	there := servertest.NewOn(t, here.Pool.Config().ConnString())
	ada, alice := here.SignIn(t, "ada"), here.SignIn(t, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		killed := 0
		for ctx.Err() == nil {
			var n int
			err := here.Pool.QueryRow(ctx, `
				select count(pg_terminate_backend(pid)) from pg_stat_activity
				where datname = current_database() and query = 'listen noted_credentials'`).Scan(&n)
			if err == nil {
				killed += n
			}
			time.Sleep(2 * time.Millisecond)
		}
		done <- killed
	}()
	lateness := func(what, token string, end func()) {
		t.Helper()
		for range 3 { // so that it is remembered there
			want(t, http.StatusOK, there.Do(t, http.MethodGet, "/v1/me", token, nil))
		}
		end()
		ended := time.Now()
		after := 0
		for {
			began := time.Now()
			a := there.Do(t, http.MethodGet, "/v1/me", token, nil)
			if a.Status == http.StatusUnauthorized {
				break
			}
			after++
			if began.Sub(ended) > time.Second {
				t.Fatalf("%s: let in %v after its end", what, began.Sub(ended))
			}
		}
		t.Logf("%s: %d requests let in after it, for %v", what, after, time.Since(ended))
	}
	id, key := here.NewKey(t, alice, "key-reader")
	lateness("a key revoked", key, func() { want(t, http.StatusNoContent, here.Do(t, http.MethodDelete, "/v1/keys/"+id, alice, nil)) })
	_, second := here.NewKey(t, alice, "key-reader")
	session := here.SignIn(t, "alice")
	lateness("a session ended", session, func() { want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/auth/logout", session, nil)) })
	lateness("an owner locked", second, func() {
		want(t, http.StatusNoContent, here.Do(t, http.MethodPost, "/v1/admin/users/"+user(t, here, "alice")+"/lock", ada, nil))
	})
	cancel()
	if killed := <-done; killed < 2 {
		t.Errorf("the listener was killed %d times: this proves little", killed)
	}
	if !strings.Contains(there.Log.String(), "not told of changed credentials") {
		t.Error("the log does not tell that the listener is down")
	}
	// It comes back on its own.
	before := there.Server.Identity.Heard()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := here.Pool.Exec(t.Context(), `update users set name = name`); err != nil {
			t.Fatal(err)
		}
		if there.Server.Identity.Heard() > before+3 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not listen again")
		}
	}
}
