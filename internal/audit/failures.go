package audit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// failuresAtMost is how many failures may wait, counted by subject and reason.
	failuresAtMost = 1000
	// writeTime is how long the database may take to write one.
	writeTime = 5 * time.Second
	// If the database is away, it is asked again after firstPause, then after twice as long each time, up to
	// longestPause.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// closeTime is how long Close tries to write what still waits.
	closeTime = time.Second
	// tellEvery is how often the log reports drops, if there are any.
	tellEvery = time.Minute
)

// Failures records failed authentications of known users and keys in the background: the time of an answer must
// not depend on who failed, nor on the database. One failure per subject and reason is recorded a minute, so that
// an attacker's noise fills no disk. The queue is bounded; what does not fit is dropped, counted and logged.
type Failures struct {
	db        Execer
	log       *slog.Logger
	dropped   prometheus.Counter
	tellEvery time.Duration

	mu      sync.Mutex
	waiting map[string]failure // by subject; the first one stands for later ones while it waits
	order   []string           // of waiting
	untold  int                // dropped since the log last reported it

	wake chan struct{} // holds one when something waits
	turn chan struct{} // holds one during a write
}

// failure waits to be recorded.
type failure struct {
	row []any
	at  time.Time // with Go's monotonic clock
}

// NewFailures makes the recorder. Run writes what it gets.
func NewFailures(db Execer, log *slog.Logger, registry prometheus.Registerer) *Failures {
	f := &Failures{
		db: db, log: log, tellEvery: tellEvery, waiting: map[string]failure{}, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "noted_audit_failures_dropped_total", Help: "Failed authentications of known users and keys that were not recorded, for too many waited or the server ended.",
		}),
	}
	registry.MustRegister(f.dropped)
	return f
}

// Note queues an auth.fail row for the event's object and target, under the request in ctx. The event's detail is
// the reason. Note never waits.
func (f *Failures) Note(ctx context.Context, event Event) {
	event.Action, event.Failure = AuthFail, true
	subject, one := event.Object+":"+event.Target+":"+event.Detail, failure{row(ctx, event), time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, waits := f.waiting[subject]; waits {
		return
	}
	if len(f.order) >= failuresAtMost {
		f.drop(1)
		return
	}
	f.waiting[subject], f.order = one, append(f.order, subject)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run writes what is noted, and logs what is dropped, until ctx ends.
func (f *Failures) Run(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() {
		ticker := time.NewTicker(f.tellEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				f.tell(ctx)
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			_ = f.Flush(ctx) // it ends when nothing waits, or with ctx
		}
	}
}

// Flush returns when nothing waits any more, or with ctx's error if that ends first.
func (f *Failures) Flush(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	pause := firstPause
	for {
		subject, one, waits := f.first()
		if !waits {
			return nil
		}
		err := f.write(ctx, subject, one)
		f.tried(subject, err == nil)
		if err == nil {
			pause = firstPause
			continue
		}
		if ctx.Err() == nil {
			f.log.LogAttrs(ctx, slog.LevelError, "audit record; trying again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// Close writes what still waits, for a second at most, and drops the rest.
func (f *Failures) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := f.Flush(ctx); err != nil {
		f.mu.Lock()
		f.drop(len(f.order))
		f.waiting, f.order = map[string]failure{}, nil
		f.mu.Unlock()
	}
	f.tell(ctx)
}

// drop counts drops. tell logs them later: one line for each would itself be the noise to avoid.
func (f *Failures) drop(n int) {
	f.dropped.Add(float64(n))
	f.untold += n
}

func (f *Failures) tell(ctx context.Context) {
	f.mu.Lock()
	n := f.untold
	f.untold = 0
	f.mu.Unlock()
	if n > 0 {
		f.log.LogAttrs(ctx, slog.LevelError, "failed authentications were not recorded", slog.Int("dropped", n))
	}
}

func (f *Failures) first() (subject string, one failure, waits bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.order) == 0 {
		return "", failure{}, false
	}
	return f.order[0], f.waiting[f.order[0]], true
}

// tried removes a failure that was written. Otherwise it moves it to the end, so that it does not block the
// others.
func (f *Failures) tried(subject string, written bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.order, subject)
	if i < 0 {
		return // Close gave it up
	}
	f.order = slices.Delete(f.order, i, i+1)
	if written {
		delete(f.waiting, subject)
	} else {
		f.order = append(f.order, subject)
	}
}

// write writes the row, unless a row of the subject was written within the minute before the failure. The upsert's
// row lock ensures that among replicas too. The time is the database's clock, less the failure's age.
func (f *Failures) write(ctx context.Context, subject string, one failure) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	_, err := f.db.Exec(ctx, `
		with due as (
			insert into audit_failures as f (subject, last_at) values ($16, now() - $17::interval)
			on conflict (subject) do update set last_at = excluded.last_at
				where f.last_at <= excluded.last_at - interval '1 minute'
			returning last_at
		)
		insert into audit_events (`+columns+`, at)
		select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, last_at from due`,
		append(one.row, subject, time.Since(one.at))...)
	if err != nil {
		return fmt.Errorf("recording a failed authentication: %w", err)
	}
	return nil
}
