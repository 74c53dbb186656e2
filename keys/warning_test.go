package keys_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/server/servertest"
)

func TestAKeyWarnsAWeekBeforeItStops(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	made := makeKey(t, env, alice, map[string]any{"name": "backup", "expires_at": time.Now().Add(days(80))})
	other := makeKey(t, env, alice, map[string]any{"name": "other"})
	revoked := makeKey(t, env, alice, map[string]any{"name": "revoked", "expires_at": time.Now().Add(days(3))})
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+revoked.ID, alice, nil))
	warning := func(id string) string {
		t.Helper()
		var k struct{ Warning string }
		want(t, 200, env.Do(t, "GET", "/v1/keys/"+id, alice, nil)).JSON(t, &k)
		return k.Warning
	}
	logged := func() []string {
		t.Helper()
		log := &servertest.Log{}
		if err := env.Server.Keys.WarnOfEnds(t.Context(), slog.New(slog.NewTextHandler(log, nil))); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(log.String()) {
			lines = append(lines, line)
		}
		return lines
	}
	if warning(made.ID) != "" || len(logged()) != 0 {
		t.Errorf("it warns of a key for 80 days: %q", warning(made.ID))
	}
	expire := func(in string) {
		t.Helper()
		env.Exec(t, `update key_secrets set created_at = now() - interval '60 days', expires_at = now() + $2::interval where key_id = $1`, made.ID, in)
	}
	expire("7 days 5 minutes")
	if warning(made.ID) != "" {
		t.Errorf("five minutes early: %q", warning(made.ID))
	}
	expire("6 days 23 hours 55 minutes")
	if got := warning(made.ID); !strings.HasPrefix(got, "It expires at ") || !strings.HasSuffix(got, "UTC; rotate it before") {
		t.Errorf("got %q", got)
	}
	if strings.Contains(string(env.Do(t, "GET", "/v1/keys/"+other.ID, alice, nil).Body), "warning") {
		t.Error("a key that lives long has the member")
	}
	// One log line a day, however many look at once.
	var group sync.WaitGroup
	var mu sync.Mutex
	var lines []string
	for range 4 {
		group.Go(func() {
			got := logged()
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, got...)
		})
	}
	group.Wait()
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], made.ID) || !strings.Contains(lines[0], "owner=alice") || !strings.Contains(lines[0], "rotate it before") {
		t.Errorf("logged %q", lines)
	}
	if strings.Contains(strings.Join(lines, ""), made.Secret[30:]) {
		t.Error("the log has the secret")
	}
	env.Exec(t, `update keys set warned_at = now() - interval '1 day'`)
	if got := logged(); len(got) != 1 {
		t.Errorf("the day after: %q", got)
	}
	expire("-1 second")
	if got := warning(made.ID); !strings.HasPrefix(got, "It expired at ") {
		t.Errorf("got %q", got)
	}
	env.Exec(t, `update keys set warned_at = null`)
	if got := logged(); len(got) != 0 {
		t.Errorf("of a key that has stopped: %q", got)
	}
	// Its owner stays away: that stops both keys, and signing in helps.
	env.Exec(t, `update users set last_sign_in_at = now() - interval '85 days' where name = 'alice'`)
	if got := warning(other.ID); !strings.HasPrefix(got, "It stops at ") || !strings.HasSuffix(got, "unless its owner signs in before") {
		t.Errorf("got %q", got)
	}
	if got := logged(); len(got) != 1 || !strings.Contains(got[0], other.ID) {
		t.Errorf("logged %q", got)
	}
	env.Exec(t, `update users set last_sign_in_at = now() - interval '91 days' where name = 'alice'`)
	if got := warning(other.ID); !strings.HasSuffix(got, "signing in starts it again") {
		t.Errorf("got %q", got)
	}
	alice = env.SignIn(t, "alice")
	if warning(other.ID) != "" {
		t.Errorf("after signing in: %q", warning(other.ID))
	}
}
