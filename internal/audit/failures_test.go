package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"noted/internal/audit"
	"noted/internal/localpg/pgtest"
	"noted/internal/page"
	"noted/internal/request"
)

// recorder is a Failures with its log and counters.
type recorder struct {
	*audit.Failures
	pool     *pgxpool.Pool
	registry *prometheus.Registry

	mu  sync.Mutex
	log bytes.Buffer
}

// Write implements io.Writer for the log.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// logged counts the log lines with what.
func (r *recorder) logged(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.log.String(), what)
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{pool: pgtest.Pool(t), registry: prometheus.NewRegistry()}
	r.Failures = audit.NewFailures(r.pool, slog.New(slog.NewTextHandler(r, nil)), r.registry)
	return r
}

// run writes what is noted until the test ends.
func (r *recorder) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func (r *recorder) fail(ctx context.Context, target, reason string) {
	r.Note(ctx, audit.Event{Actor: ada, Object: "key", Target: target, Detail: reason})
}

func (r *recorder) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// rows returns all recorded rows, the newest first.
func (r *recorder) rows(t *testing.T) []audit.Item {
	t.Helper()
	items, err := audit.List(t.Context(), r.pool, audit.Filter{}, page.Window{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func (r *recorder) droppedCount(t *testing.T) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "noted_audit_failures_dropped_total" {
		t.Fatalf("the metrics are %v, %v", families, err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// everything locks the times of the last records.
const everything = `lock table audit_failures in exclusive mode`

// hold locks something, and returns the function to unlock it.
func hold(t *testing.T, pool *pgxpool.Pool, lock string) (release func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	t.Cleanup(release)
	return release
}

// eventually waits for another goroutine's work.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not so after half a minute: %s", what)
		}
	}
}

func exec(t *testing.T, db audit.Execer, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// A wrong secret must not hide that a revoked key is in use.
func TestFailuresOfOneSubjectForOneReasonAreRecordedOnceAMinute(t *testing.T) {
	r := newRecorder(t)
	// Each has its own recorder, as replicas have.
	fail := func(object, target, reason string) {
		one := audit.NewFailures(r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		one.Note(t.Context(), audit.Event{Actor: ada, Object: object, Target: target, Detail: reason})
		if err := one.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	check := func(when string, want int) {
		t.Helper()
		items := r.rows(t)
		for _, item := range items {
			if item.Outcome != "failure" || item.Action != audit.AuthFail || item.Via != nil {
				t.Errorf("the row is %+v", item)
			}
		}
		if len(items) != want {
			t.Errorf("%s there are %d rows, want %d", when, len(items), want)
		}
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { fail("key", "k1", "wrong_secret") })
	}
	group.Wait()
	check("after 20 at once", 1)
	fail("key", "k2", "wrong_secret")
	fail("user", "k1", "wrong_secret") // a user with that id is another subject
	check("of three subjects", 3)
	fail("key", "k1", "revoked_key")
	check("for another reason", 4)
	age := func(seconds int) {
		exec(t, r.pool, `update audit_failures set last_at = now() - make_interval(secs => $1) where subject = 'key:k1:wrong_secret'`, seconds)
	}
	age(55)
	fail("key", "k1", "wrong_secret")
	check("within the minute", 4)
	age(60)
	fail("key", "k1", "wrong_secret")
	fail("key", "k1", "wrong_secret")
	check("after the minute", 5)
}

func TestFailuresThatWaitAreOneRowWithWhatWasKnownOfTheFirst(t *testing.T) {
	r := newRecorder(t)
	r.fail(t.Context(), "k1", "wrong_secret")
	r.flush(t)
	exec(t, r.pool, `update audit_failures set last_at = now() - interval '1 hour'`)
	release := hold(t, r.pool, `select from audit_failures for update`)
	r.run(t)
	for i := range 5 {
		info := &request.Info{ID: fmt.Sprint("r-", i), IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Logger: slog.New(slog.DiscardHandler)}
		ctx, hangUp := context.WithCancel(request.With(t.Context(), info))
		r.fail(ctx, "k1", "wrong_secret")
		hangUp() // a client that leaves keeps nothing out of the record
	}
	failed := time.Now()
	time.Sleep(time.Second)
	if n := len(r.rows(t)); n != 1 {
		t.Fatalf("%d rows, one of before, were written past the lock", n)
	}
	release()
	r.flush(t)
	items := r.rows(t)
	if len(items) != 2 || items[0].RequestID != "r-0" || *items[0].IP != "192.0.2.0" {
		t.Fatalf("the rows are %+v", items)
	}
	if late := items[0].At.Sub(failed); late > 500*time.Millisecond || late < -500*time.Millisecond {
		t.Errorf("the row is %v from the failure", late)
	}
	r.fail(t.Context(), "k1", "wrong_secret") // later ones no longer wait behind the first
	r.flush(t)
	exec(t, r.pool, `update audit_failures set last_at = now() - interval '1 hour'`)
	r.fail(t.Context(), "k1", "wrong_secret")
	r.flush(t)
	if n := len(r.rows(t)); n != 3 {
		t.Errorf("an hour later there are %d rows", n)
	}
}

func TestFailuresThatDoNotFitAreCountedAndToldOfInOneLine(t *testing.T) {
	r := newRecorder(t)
	r.TellEvery(50 * time.Millisecond)
	if n := r.droppedCount(t); n != 0 {
		t.Fatalf("%v are dropped at the start", n)
	}
	for i := range audit.FailuresAtMost + 25 {
		r.fail(t.Context(), fmt.Sprint("k", i), "wrong_secret")
		r.fail(t.Context(), "k0", "wrong_secret") // the same as a waiting one, so not another
	}
	if n := r.droppedCount(t); n != 25 {
		t.Errorf("%v were dropped, want 25", n)
	}
	if n := r.logged("not recorded"); n != 0 {
		t.Errorf("there are %d lines before it is time for one", n)
	}
	release := hold(t, r.pool, everything) // while the database is away too
	r.run(t)
	eventually(t, "the log tells", func() bool { return r.logged("dropped=25") == 1 })
	time.Sleep(300 * time.Millisecond)
	if n := r.logged("not recorded"); n != 1 {
		t.Errorf("there are %d lines about one time", n)
	}
	release()
	r.flush(t)
	if n := len(r.rows(t)); n != audit.FailuresAtMost {
		t.Errorf("%d rows of what fitted", n)
	}
	r.fail(t.Context(), "another", "wrong_secret") // there is room again
	r.flush(t)
	if n, dropped := len(r.rows(t)), r.droppedCount(t); n != audit.FailuresAtMost+1 || dropped != 25 {
		t.Errorf("%d rows, %v dropped", n, dropped)
	}
}

func TestFailuresAreRecordedOnceTheDatabaseIsBack(t *testing.T) {
	r := newRecorder(t)
	exec(t, r.pool, `alter table audit_events rename to away`)
	r.run(t)
	r.fail(t.Context(), "k1", "wrong_secret")
	r.fail(t.Context(), "k2", "wrong_secret")
	eventually(t, "it was tried again", func() bool { return r.logged("trying again") > 3 })
	exec(t, r.pool, `alter table away rename to audit_events`)
	r.flush(t)
	if n := len(r.rows(t)); n != 2 || r.droppedCount(t) != 0 {
		t.Errorf("%d rows, %v dropped", n, r.droppedCount(t))
	}
}

func TestAFailureThatCannotBeRecordedHoldsUpNoOther(t *testing.T) {
	r := newRecorder(t)
	r.run(t)
	r.fail(t.Context(), "no text for PostgreSQL: \x00", "wrong_secret")
	for i := range 5 {
		r.fail(t.Context(), fmt.Sprint("k", i), "wrong_secret")
	}
	eventually(t, "the others are recorded", func() bool { return len(r.rows(t)) == 5 })
}

func TestClosingWritesWhatWaits(t *testing.T) {
	r := newRecorder(t)
	for i := range 50 {
		r.fail(t.Context(), fmt.Sprint("k", i), "wrong_secret")
	}
	r.Close()
	if n := len(r.rows(t)); n != 50 || r.droppedCount(t) != 0 {
		t.Errorf("%d rows, %v dropped", n, r.droppedCount(t))
	}
}

func TestClosingWaitsForNoDatabaseThatIsAway(t *testing.T) {
	r := newRecorder(t)
	hold(t, r.pool, everything)
	for i := range 50 {
		r.fail(t.Context(), fmt.Sprint("k", i), "wrong_secret")
	}
	began := time.Now()
	r.Close()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	if r.droppedCount(t) != 50 || r.logged("dropped=50") != 1 {
		t.Errorf("%v dropped; %s", r.droppedCount(t), r.log.String())
	}
	r.Close()
	if r.droppedCount(t) != 50 {
		t.Errorf("%v dropped by closing again", r.droppedCount(t))
	}
}
