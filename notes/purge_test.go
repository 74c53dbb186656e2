package notes_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"noted/internal/localpg/pgtest"
	"noted/server"
	"noted/server/servertest"
)

func TestPurgeTakesWhatIsOverAndNothingElse(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	over, almost, live := env.NewDeadNote(t, alice, "over"), env.NewDeadNote(t, alice, "almost"), env.NewNote(t, alice, "live")
	// By the database's clock: at the moment and just before it.
	env.Exec(t, `update notes set deleted_at = now() - interval '720 hours' where id = $1`, over)
	env.Exec(t, `update notes set deleted_at = now() - interval '720 hours' + interval '30 seconds' where id = $1`, almost)
	n, err := env.Server.Notes.Purge(t.Context())
	if err != nil || n != 1 {
		t.Fatalf("purged %d, %v", n, err)
	}
	ada := env.SignIn(t, "ada")
	want(t, 404, env.Do(t, "GET", "/v1/deadzone/"+over, ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/deadzone/"+almost, ada, nil))
	want(t, 200, env.Do(t, "GET", "/v1/notes/"+live, alice, nil))
	var rows int
	err = env.Pool.QueryRow(t.Context(), `select count(*) from audit_events where action = 'note.purge' and target = $1 and actor_id is null`, over).Scan(&rows)
	if err != nil || rows != 1 {
		t.Errorf("%d audit rows, %v", rows, err)
	}
}

// bury makes n dead notes of alice's that are due.
func bury(t *testing.T, env *servertest.Env, n int) {
	t.Helper()
	env.Exec(t, `
		insert into notes (space_id, id, owner_id, title, body, deleted_at, deleted_by)
		select u.id, gen_random_uuid(), u.id, 'old', '', now() - interval '721 hours', u.id
		from users u, generate_series(1, $1) where u.name = 'alice'`, n)
}

func TestTwoServersPurgeAtOnceAndEachNoteCountsOnce(t *testing.T) {
	url := pgtest.URL(t)
	one, two := servertest.NewOn(t, url), servertest.NewOn(t, url)
	one.SignIn(t, "alice")
	const notes = 1234
	bury(t, one, notes)
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 2)
	for _, env := range []*servertest.Env{one, two} {
		go func() {
			n, err := env.Server.Notes.Purge(t.Context())
			results <- result{n, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || a.n+b.n != notes {
		t.Errorf("purged %+v and %+v of %d", a, b, notes)
	}
	var rows, targets int
	err := one.Pool.QueryRow(t.Context(), `select count(*), count(distinct target) from audit_events where action = 'note.purge'`).Scan(&rows, &targets)
	if err != nil || rows != notes || targets != notes {
		t.Errorf("%d audit rows about %d notes, %v", rows, targets, err)
	}
}

// Holding the audit record, which a batch needs last, holds the batch open.
func TestOthersReadAndWriteWhileABatchIsHeldOpen(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := env.NewNote(t, alice, "of today")
	bury(t, env, 50)
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `lock table audit_events in exclusive mode`); err != nil {
		t.Fatal(err)
	}
	done := make(chan int, 1)
	go func() {
		n, _ := env.Server.Notes.Purge(context.Background())
		done <- n
	}()
	waiting := func() (yes bool) {
		_ = env.Pool.QueryRow(t.Context(), `select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%audit_events%')`).Scan(&yes)
		return yes
	}
	for deadline := time.Now().Add(20 * time.Second); !waiting(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the batch is not held open")
		}
	}
	want(t, 200, env.Do(t, "GET", "/v1/notes/"+id, alice, nil))
	want(t, 200, env.Do(t, "PATCH", "/v1/notes/"+id, alice, `{"title":"written meanwhile"}`))
	want(t, 201, env.Do(t, "POST", "/v1/notes", alice, `{"title":"new","body":""}`))
	want(t, 204, env.Do(t, "DELETE", "/v1/notes/"+id, alice, nil))
	select {
	case <-done:
		t.Fatal("the batch ended meanwhile, so this proved nothing")
	default:
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-done; n != 50 {
		t.Errorf("purged %d", n)
	}
}

func TestPurgeRunsByItselfAndSaysSo(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.DeadZonePurgeEvery = 50 * time.Millisecond })
	env.SignIn(t, "alice")
	bury(t, env, 3)
	eventually(t, "the notes are purged", func() bool {
		var left int
		_ = env.Pool.QueryRow(t.Context(), `select count(*) from notes`).Scan(&left)
		return left == 0
	})
	eventually(t, "the metrics say so", func() bool {
		metrics := string(env.Do(t, "GET", "/metrics", "", nil).Body)
		return strings.Contains(metrics, "\nnoted_purged_notes_total 3\n") && !strings.Contains(metrics, "\nnoted_purge_last_success_timestamp_seconds 0\n")
	})
	// From now on all batches fail.
	env.Exec(t, `alter table audit_events rename to elsewhere`)
	bury(t, env, 1)
	eventually(t, "the log warns", func() bool { return strings.Contains(env.Log.String(), "the purge is late") })
	var left int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from notes`).Scan(&left); err != nil || left != 1 {
		t.Errorf("a batch that failed took its note all the same: %d left, %v", left, err)
	}
	env.Exec(t, `alter table elsewhere rename to audit_events`)
	eventually(t, "the purge goes on", func() bool {
		_ = env.Pool.QueryRow(t.Context(), `select count(*) from notes`).Scan(&left)
		return left == 0
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
