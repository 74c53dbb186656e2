package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// poolSize is how many connections there are at most when database_url does not say (pool_max_conns).
	poolSize = 24
	// poolWait is how long work waits for a connection. Beyond it the database is too slow for what is asked,
	// and waiting longer would only make the queue longer.
	poolWait = 2 * time.Second
	// connectTime is how long connecting may take when database_url does not say (connect_timeout).
	connectTime = 5 * time.Second
	// readOnly is PostgreSQL's read_only_sql_transaction.
	readOnly = "25006"
)

// bound gives the pool's connections their limits in PostgreSQL, and work its turn for them. Limits are SET
// after connecting, not sent with it: a pooler such as PgBouncer refuses parameters that it does not know.
func bound(config *pgxpool.Config, settings Settings) *turns {
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTime
	}
	// A server that takes no writes may have been demoted, while another does: the next connection asks again
	// where database_url leads.
	closing := config.ConnConfig.OnPgError
	config.ConnConfig.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != readOnly && closing(conn, err)
	}
	// A transaction is never older than its request.
	set := fmt.Sprintf(`set statement_timeout = %d; set lock_timeout = %d; set idle_in_transaction_session_timeout = %d`,
		settings.StatementTimeout.Milliseconds(), settings.LockTimeout.Milliseconds(), settings.RequestTimeout.Milliseconds())
	after := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.PgConn().Exec(ctx, set).ReadAll(); err != nil {
			return fmt.Errorf("setting the limits of a connection: %w", err)
		}
		return after(ctx, conn)
	}
	t := newTurns(int(config.MaxConns))
	config.ConnConfig.Tracer = t
	return t
}

// lane is a kind of work, which may hold only a part of the pool, so that what hangs does not take it whole. When
// every statement on notes hangs, so do the changes of other things that wait for locks of those; all that reads
// other things has the rest: who signs in, who is calling, what organizations there are.
type lane int

const (
	changes lane = iota // of what is not a note; also background work, which says nothing else
	reads               // of what is not a note
	onNotes             // whatever reads or changes the table of notes
	laneCount
)

// most is how many connections of a pool each lane may hold. All but reads together hold three quarters.
func (l lane) most(connections int) int {
	return max(1, connections*map[lane]int{changes: 1, reads: 3, onNotes: 2}[l]/4)
}

type laneKey struct{}

// inLane says in which lane background work is.
func inLane(ctx context.Context, l lane) context.Context { return context.WithValue(ctx, laneKey{}, l) }

// aboutNotes are parts of the routes that read or change the table of notes.
var aboutNotes = []string{"/notes", "/notebooks", "/deadzone"}

// laneOf tells by a request's route in which lane its work is, and by inLane for other work.
func laneOf(ctx context.Context) lane {
	route := chi.RouteContext(ctx)
	if route == nil {
		l, _ := ctx.Value(laneKey{}).(lane)
		return l
	}
	for _, pattern := range route.RoutePatterns {
		for _, part := range aboutNotes {
			if strings.Contains(pattern, part) {
				return onNotes
			}
		}
		if pattern == "/v1/orgs/{org}" && route.RouteMethod == http.MethodDelete { // with its notes
			return onNotes
		}
	}
	if route.RouteMethod == http.MethodGet || route.RouteMethod == http.MethodHead {
		return reads
	}
	return changes
}

// turns bounds how long work waits for a connection, and what a lane holds. It is the pool's tracer, which is called
// before a connection is acquired, with a context that it may replace.
type turns struct {
	lanes  [laneCount]chan struct{} // holds one for each connection of the lane
	waits  atomic.Int64             // how often work waited for its lane
	waited atomic.Int64             // how long, in nanoseconds
}

func newTurns(connections int) *turns {
	t := &turns{}
	for l := range laneCount {
		t.lanes[l] = make(chan struct{}, l.most(connections))
	}
	return t
}

type turnKey struct{}

// turn is the wait for one connection.
type turn struct {
	lane  chan struct{}
	taken bool
	stop  context.CancelFunc
}

// TraceAcquireStart implements pgxpool.AcquireTracer. When the lane has no turn within poolWait, the context
// returned has ended, and so ends Acquire.
func (t *turns) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	mine := &turn{lane: t.lanes[laneOf(ctx)]}
	ctx, mine.stop = context.WithTimeout(ctx, poolWait)
	select {
	case mine.lane <- struct{}{}:
		mine.taken = true
	default:
		begun := time.Now()
		select {
		case mine.lane <- struct{}{}:
			mine.taken = true
		case <-ctx.Done():
		}
		t.waits.Add(1)
		t.waited.Add(int64(time.Since(begun)))
	}
	return context.WithValue(ctx, turnKey{}, mine)
}

// held is where a connection keeps the lane that holds it.
const held = "noted.lane"

// TraceAcquireEnd implements pgxpool.AcquireTracer.
func (t *turns) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, data pgxpool.TraceAcquireEndData) {
	mine, _ := ctx.Value(turnKey{}).(*turn)
	mine.stop()
	switch {
	case data.Conn != nil:
		data.Conn.PgConn().CustomData()[held] = mine.lane
	case mine.taken:
		<-mine.lane
	}
}

// TraceRelease implements pgxpool.ReleaseTracer.
func (t *turns) TraceRelease(_ *pgxpool.Pool, data pgxpool.TraceReleaseData) {
	if lane, ok := data.Conn.PgConn().CustomData()[held].(chan struct{}); ok {
		<-lane
	}
}

// TraceQueryStart implements pgx.QueryTracer, which every tracer must.
func (t *turns) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *turns) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
