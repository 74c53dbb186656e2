package keys_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/server"
	"noted/server/servertest"
)

// rotate rotates a key and returns it with its new secret.
func rotate(t testing.TB, env *servertest.Env, session, id string, body any) key {
	t.Helper()
	a := want(t, 201, env.Do(t, "POST", "/v1/keys/"+id+"/rotate", session, body))
	if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Location") != "/v1/keys/"+id {
		t.Errorf("the answer's header is %v", a.Header)
	}
	var rotated key
	a.JSON(t, &rotated)
	return rotated
}

// works reports whether a key works; only 200 and the refusal may come.
func works(t testing.TB, env *servertest.Env, secret string) bool {
	t.Helper()
	a := env.Do(t, "GET", "/v1/me", secret, nil)
	if a.Status != 200 {
		refused(t, "a key", a)
	}
	return a.Status == 200
}

func TestBothSecretsWorkUntilTheOverlapEnds(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k", "role": "key-writer", "expires_at": time.Now().Add(days(30))})
	env.Exec(t, `update key_secrets set created_at = created_at - interval '10 days', expires_at = expires_at - interval '10 days'`)
	rotated := rotate(t, env, alice, made.ID, nil)
	if rotated.ID != made.ID || rotated.Role != "key-writer" || rotated.Name != "k" || rotated.Secret == made.Secret || !rotated.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("rotated to %+v", rotated)
	}
	// The new one lives for the 30 days the old one was made for, not for its last 20.
	if !near(time.Until(rotated.ExpiresAt), days(30)) {
		t.Errorf("the new secret expires %v", rotated.ExpiresAt)
	}
	if len(rotated.Secrets) != 2 || !near(time.Until(rotated.Secrets[0].ExpiresAt), 24*time.Hour) || !rotated.Secrets[1].ExpiresAt.Equal(rotated.ExpiresAt) {
		t.Errorf("the live secrets are %+v", rotated.Secrets)
	}
	if !works(t, env, made.Secret) || !works(t, env, rotated.Secret) {
		t.Error("one of the two does not work in the overlap")
	}
	env.Exec(t, `update key_secrets set expires_at = now() + interval '5 seconds' where expires_at < now() + interval '2 days'`)
	if !works(t, env, made.Secret) {
		t.Error("the old one does not work just before the end")
	}
	env.Exec(t, `update key_secrets set expires_at = now() where expires_at < now() + interval '2 days'`)
	if works(t, env, made.Secret) || !works(t, env, rotated.Secret) {
		t.Error("after the end the old one works, or the new one does not")
	}
	if !strings.Contains(env.Log.String(), "reason=expired_key") {
		t.Error("the log does not say that it has expired")
	}
	if n := events(t, env, "key.rotate", made.ID); n != 1 {
		t.Errorf("%d rows of the record", n)
	}
}

func events(t testing.TB, env *servertest.Env, action, target string) (n int) {
	t.Helper()
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = $1 and target = $2 and object = 'key'`, action, target).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnOverlapEndsWithTheOldSecretsOwnEnd(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k", "expires_at": time.Now().Add(time.Hour)})
	rotated := rotate(t, env, alice, made.ID, `{"overlap":"9000h"}`)
	if len(rotated.Secrets) != 2 || (rotated.Secrets[0].ExpiresAt.Sub(made.ExpiresAt)).Abs() > 0 {
		t.Errorf("the old one ended %v, now %+v", made.ExpiresAt, rotated.Secrets)
	}
	half := rotate(t, env, alice, made.ID, `{"overlap":"0d30m"}`)
	if len(half.Secrets) != 2 || !near(time.Until(half.Secrets[0].ExpiresAt), 30*time.Minute) || works(t, env, made.Secret) || !works(t, env, rotated.Secret) {
		t.Errorf("a further rotation leaves %+v", half.Secrets)
	}
	at := rotate(t, env, alice, made.ID, `{"overlap":"0s"}`)
	if len(at.Secrets) != 1 || works(t, env, half.Secret) || works(t, env, rotated.Secret) || !works(t, env, at.Secret) {
		t.Errorf("with no overlap there are %+v", at.Secrets)
	}
	// Revoking ends all.
	last := rotate(t, env, alice, made.ID, `{}`)
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+made.ID, alice, nil))
	if works(t, env, at.Secret) || works(t, env, last.Secret) {
		t.Error("a secret of a revoked key works")
	}
}

func TestAKeyThatHasEndedIsNotRotated(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	expired, revoked, bobs := makeKey(t, env, alice, map[string]any{"name": "k"}), makeKey(t, env, alice, map[string]any{"name": "k"}), makeKey(t, env, bob, map[string]any{"name": "k"})
	if _, err := env.Pool.Exec(t.Context(), `update key_secrets set created_at = now() - interval '2 days', expires_at = now() where key_id = $1`, expired.ID); err != nil {
		t.Fatal(err)
	}
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+revoked.ID, alice, nil))
	want(t, 409, env.Do(t, "POST", "/v1/keys/"+expired.ID+"/rotate", alice, nil))
	want(t, 409, env.Do(t, "POST", "/v1/keys/"+revoked.ID+"/rotate", alice, nil))
	want(t, 404, env.Do(t, "POST", "/v1/keys/"+bobs.ID+"/rotate", alice, nil))
	for _, k := range []key{expired, revoked, bobs} {
		if n := events(t, env, "key.rotate", k.ID); n != 0 {
			t.Errorf("%d rows of the record", n)
		}
	}
	for _, body := range []string{`{"overlap":"1 day"}`, `{"overlap":"-1s"}`, `{"overlap":""}`, `{"overlap":null}`, `{"overlap":24}`, `{"overlap":"NaNh"}`, `{"overlap":"-1d"}`, `{"overlap":"1h1d"}`, `{"overlap":"9999999999h"}`} {
		a := env.Do(t, "POST", "/v1/keys/"+bobs.ID+"/rotate", bob, body)
		if a.Status != 422 || !slices.Contains(where(t, a), "body.overlap") {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	want(t, 422, env.Do(t, "POST", "/v1/keys/"+bobs.ID+"/rotate", bob, `{"role":"key-admin"}`))
	want(t, 200, env.Do(t, "GET", "/v1/me", bobs.Secret, nil))
}

// Lowering key_max_age shortens rotated keys too.
func TestARotatedKeyLivesNoLongerThanTheMax(t *testing.T) {
	wide := servertest.New(t)
	alice := wide.SignIn(t, "alice")
	made := makeKey(t, wide, alice, map[string]any{"name": "k", "expires_at": time.Now().Add(days(300))})
	narrow := servertest.NewOn(t, wide.Pool.Config().ConnString(), func(o *server.Options) { o.Settings.KeyMaxAge = days(10) })
	rotated := rotate(t, narrow, alice, made.ID, `{"overlap":"4000h"}`)
	for _, secret := range rotated.Secrets {
		if !near(time.Until(secret.ExpiresAt), days(10)) {
			t.Errorf("a secret expires %v", secret.ExpiresAt)
		}
	}
}

func TestRotationsAtOnceLeaveTwoSecrets(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "k"})
	var mu sync.Mutex
	secrets := []string{made.Secret}
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			a := env.Do(t, "POST", "/v1/keys/"+made.ID+"/rotate", alice, nil)
			if a.Status != 201 {
				t.Errorf("%d %s", a.Status, a.Body)
				return
			}
			var one key
			a.JSON(t, &one)
			mu.Lock()
			defer mu.Unlock()
			secrets = append(secrets, one.Secret)
		})
	}
	group.Wait()
	live := 0
	for _, secret := range secrets {
		if works(t, env, secret) {
			live++
		}
	}
	var kept int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from key_secrets where key_id = $1`, made.ID).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	if live != 2 || len(secrets) != 17 || kept > 5 {
		t.Errorf("of %d secrets %d work, %d are kept", len(secrets), live, kept)
	}
}

// Two servers on one database: what ends at one ends at the other.
func TestWhatEndsAKeyCountsOnEveryServerWithinASecond(t *testing.T) {
	here := servertest.New(t)
	there := servertest.NewOn(t, here.Pool.Config().ConnString())
	alice, ada := here.SignIn(t, "alice"), here.SignIn(t, "ada")
	var me struct{ ID string }
	want(t, 200, here.Do(t, "GET", "/v1/me", alice, nil)).JSON(t, &me)
	for _, c := range []struct {
		what string
		end  func(id string)
	}{
		{"revoked", func(id string) { want(t, 204, here.Do(t, "DELETE", "/v1/keys/"+id, alice, nil)) }},
		{"rotated with no overlap", func(id string) { rotate(t, here, alice, id, `{"overlap":"0s"}`) }},
		{"its overlap over", func(id string) {
			rotate(t, here, alice, id, nil)
			here.Exec(t, `update key_secrets set expires_at = greatest(now(), created_at + interval '1 microsecond') where expires_at < now() + interval '2 days'`)
		}},
		{"its owner locked", func(string) { want(t, 204, here.Do(t, "POST", "/v1/admin/users/"+me.ID+"/lock", ada, nil)) }},
	} {
		made := makeKey(t, here, alice, map[string]any{"name": c.what})
		if !works(t, there, made.Secret) {
			t.Fatalf("%s: it does not work at the other server", c.what)
		}
		c.end(made.ID)
		ended := time.Now()
		for works(t, there, made.Secret) {
			if time.Since(ended) > time.Second {
				t.Fatalf("%s: after a second it works at the other server", c.what)
			}
		}
	}
}
