package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"noted"
	"noted/authz"
	"noted/internal/localpg/pgtest"
	"noted/server"
	"noted/server/servertest"
)

// policySource is the source of a server's policy; a new text triggers a reload.
type policySource struct {
	text   atomic.Pointer[string]
	loads  atomic.Int64
	reload chan struct{}
}

func newPolicySource(text string) *policySource {
	s := &policySource{reload: make(chan struct{})}
	s.text.Store(&text)
	return s
}

// set asks for another policy, and returns when the server has read it.
func (s *policySource) set(text string) {
	s.text.Store(&text)
	before := s.loads.Load()
	s.reload <- struct{}{}
	for s.loads.Load() == before {
		time.Sleep(time.Millisecond)
	}
}

func (s *policySource) use(t *testing.T) func(*server.Options) {
	return func(o *server.Options) {
		var err error
		o.Reload = s.reload
		o.Policy, err = authz.NewInForce(func() (*authz.Policy, error) {
			defer s.loads.Add(1)
			return authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: []byte(*s.text.Load())})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

const adaIsAdmin = "g, dev:ada, admin\n"

func TestAReloadIsSeenEverywhere(t *testing.T) {
	base := string(noted.Policy) + adaIsAdmin
	source := newPolicySource(base)
	env := servertest.New(t, source.use(t))
	ada, mona, bob := env.SignIn(t, "ada"), env.SignIn(t, "mona"), env.SignIn(t, "bob")
	note := env.NewNote(t, bob, "bob's")
	_, key := env.NewKey(t, mona, "key-admin")
	state := func() (p struct {
		Hash     string
		LoadedAt time.Time `json:"loaded_at"`
		Error    *string
		Roles    []string
	}) {
		t.Helper()
		a := env.Do(t, "GET", "/v1/admin/policy", ada, nil)
		checkStatus(t, "the policy", a, 200, "")
		a.JSON(t, &p)
		return p
	}
	first := state()
	if len(first.Hash) != 64 || first.Error != nil || time.Since(first.LoadedAt) > time.Minute || !slices.Contains(first.Roles, "org-admin") || !slices.IsSorted(first.Roles) {
		t.Fatalf("got %+v", first)
	}
	checkStatus(t, "before", env.Do(t, "GET", "/v1/notes/"+note, mona, nil), 404, "")
	checkStatus(t, "before, by key", env.Do(t, "GET", "/v1/notes/"+note, key, nil), 404, "")

	source.set(base + "g, dev:mona, moderator\n")
	eventually(t, "mona is a moderator", func() bool { return state().Hash != first.Hash })
	checkStatus(t, "after", env.Do(t, "GET", "/v1/notes/"+note, mona, nil), 200, "")
	checkStatus(t, "after, by key", env.Do(t, "GET", "/v1/notes/"+note, key, nil), 200, "")
	if a := env.Do(t, "GET", "/v1/me", mona, nil); !strings.Contains(string(a.Body), `"roles":["moderator","user"]`) {
		t.Errorf("got %s", a.Body)
	}
	second := state()
	if a := env.Do(t, "GET", "/readyz", "", nil); !strings.Contains(string(a.Body), second.Hash) {
		t.Errorf("ready with another hash: %s", a.Body)
	}
	var detail string
	eventually(t, "the audit row", func() bool {
		return env.Pool.QueryRow(t.Context(), `select detail from audit_events where action = 'policy.reload' and target = $1 and actor_id is null`, second.Hash).Scan(&detail) == nil
	})
	for _, want := range []string{first.Hash, second.Hash, "dev:mona gains the role moderator; gains note:any read, note:any write"} {
		if !strings.Contains(detail, want) {
			t.Errorf("%q is not in %q", want, detail)
		}
	}
	checkStatus(t, "the record", env.Do(t, "GET", "/v1/admin/audit?action=policy.reload", ada, nil), 200, "")

	// A bad one changes nothing, and is reported.
	source.set(base + "g, dev:mona, moderatr\n")
	eventually(t, "the refusal", func() bool { return state().Error != nil })
	refused := state()
	if refused.Hash != second.Hash || !refused.LoadedAt.Equal(second.LoadedAt) || !strings.Contains(*refused.Error, `no line defines the role "moderatr"; write moderator`) {
		t.Errorf("got %+v", refused)
	}
	checkStatus(t, "under the last good one", env.Do(t, "GET", "/v1/notes/"+note, mona, nil), 200, "")
	metrics := string(env.Do(t, "GET", "/metrics", "", nil).Body)
	for _, want := range []string{
		`noted_policy_reloads_total{result="changed"} 1`, `noted_policy_reloads_total{result="refused"} 1`, "noted_policy_refused 1",
		`noted_policy_info{hash="` + second.Hash + `"} 1`, "noted_policy_loaded_timestamp_seconds ", "noted_policy_warnings 0",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if log := env.Log.String(); !strings.Contains(log, "the policy was refused") || !strings.Contains(log, "moderatr") {
		t.Error("the log does not tell of the refusal")
	}
	// The policy in force again: nothing changed.
	source.set(base + "g, dev:mona, moderator\n")
	eventually(t, "no error any more", func() bool { return state().Error == nil })
	if again := state(); again.Hash != second.Hash || !again.LoadedAt.Equal(second.LoadedAt) {
		t.Errorf("got %+v", again)
	}
	// Then it is removed.
	source.set(base)
	eventually(t, "the first again", func() bool { return state().Hash == first.Hash })
	checkStatus(t, "mona is none any more", env.Do(t, "GET", "/v1/notes/"+note, mona, nil), 404, "")
	checkStatus(t, "nor by key", env.Do(t, "GET", "/v1/notes/"+note, key, nil), 404, "")
}

// Two policies that share nothing for mona but note:any read, with bad ones in between.
func TestReloadsUnderLoadFailNoRequestAndAreNeverHalf(t *testing.T) {
	const reloads, clients = 200, 16
	base := strings.ReplaceAll(string(noted.Policy), "p, user, org, create\n", "") + adaIsAdmin
	moderates := base + "g, dev:mona, moderator\np, user, org, create\n"
	watches := base + "g, dev:mona, watcher\np, watcher, note:any, read\np, watcher, user:any, read\n"
	bad := []string{base + "g, dev:mona, watchr\n", "p, user, note:own\n", "", moderates[:len(moderates)/2] + "\np,"}
	source := newPolicySource(moderates)
	env := servertest.New(t, source.use(t))
	mona, bob := env.SignIn(t, "mona"), env.SignIn(t, "bob")
	note := env.NewNote(t, bob, "bob's")

	var stop atomic.Bool
	var asked, moderated, watched atomic.Int64
	var group sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	get := func(path string) (int, string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+path, nil)
		if err != nil {
			return 0, "", err
		}
		r.Header.Set("Authorization", "Bearer "+mona)
		answer, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		body, err := io.ReadAll(answer.Body)
		return answer.StatusCode, string(body), errors.Join(err, answer.Body.Close())
	}
	one := func(n int) error {
		switch n % 3 {
		case 0:
			status, body, err := get("/v1/me")
			var me struct{ Roles []string }
			if err = errors.Join(err, json.Unmarshal([]byte(body), &me)); err != nil || status != 200 {
				return fmt.Errorf("me: %d %s %w", status, body, err)
			}
			switch strings.Join(me.Roles, " ") {
			case "moderator user":
				moderated.Add(1)
			case "user watcher":
				watched.Add(1)
			default:
				return fmt.Errorf("mona is %v", me.Roles)
			}
		case 1:
			if status, body, err := get("/v1/notes/" + note); err != nil || status != 200 {
				return fmt.Errorf("a note that both allow: %d %s %w", status, body, err)
			}
		case 2:
			status, body, err := get("/v1/admin/users")
			if err != nil || status != 200 && (status != 403 || !strings.Contains(body, `"permission":"user:any read"`)) {
				return fmt.Errorf("accounts: %d %s %w", status, body, err)
			}
		}
		return nil
	}
	for c := range clients {
		group.Go(func() {
			for n := c; !stop.Load(); n++ {
				if err := one(n); err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for i := range reloads {
		switch i % 4 {
		case 0:
			source.set(watches)
		case 2:
			source.set(moderates)
		default:
			source.set(bad[i/2%len(bad)])
		}
		time.Sleep(5 * time.Millisecond)
	}
	source.set(moderates)
	stop.Store(true)
	group.Wait()
	client.CloseIdleConnections()
	t.Logf("%d reloads, %d requests, of which %d saw one policy and %d the other", reloads+1, asked.Load(), moderated.Load(), watched.Load())
	if moderated.Load() == 0 || watched.Load() == 0 {
		t.Error("only one of the policies was seen: this proves little")
	}
	var rows int
	eventually(t, "an audit row for each change", func() bool {
		err := env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'policy.reload'`).Scan(&rows)
		return err == nil && rows == reloads/2
	})
}

func TestAReloadWhileTheDatabaseIsAwayIsRecordedLater(t *testing.T) {
	base := string(noted.Policy) + adaIsAdmin
	source := newPolicySource(base)
	env := servertest.NewOn(t, pgtest.URL(t), source.use(t))
	env.Exec(t, `alter table audit_events rename to away`)
	source.set(base + "g, dev:mona, moderator\n")
	eventually(t, "the log's complaint", func() bool {
		return strings.Contains(env.Log.String(), "recording a reload of the policy; trying again")
	})
	env.Exec(t, `alter table away rename to audit_events`)
	var rows int
	eventually(t, "the audit row", func() bool {
		return env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'policy.reload'`).Scan(&rows) == nil && rows == 1
	})
}
