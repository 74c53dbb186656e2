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
	// poolSize is the most connections, unless database_url sets pool_max_conns.
	poolSize = 24
	// poolWait is how long work waits for a connection. Beyond it the database is too slow for the load, and
	// waiting longer would only make the queue longer.
	poolWait = 2 * time.Second
	// connectTime is how long connecting may take, unless database_url sets connect_timeout.
	connectTime = 5 * time.Second
	// readOnly is PostgreSQL's read_only_sql_transaction.
	readOnly = "25006"
)

// bound sets limits on the pool's connections in PostgreSQL, and makes work take turns for them. Limits are SET
// after connecting: a pooler such as PgBouncer refuses startup parameters that it does not know.
func bound(config *pgxpool.Config, settings Settings) *turns {
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTime
	}
	// A read-only server may have been demoted in favor of another: the next connection resolves database_url
	// again.
	closing := config.ConnConfig.OnPgError
	config.ConnConfig.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != readOnly && closing(conn, err)
	}
	// A transaction never outlives its request.
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

// lane is a kind of work. Each may hold only a part of the pool, so that work that hangs does not take all of it.
// When all statements on notes hang, so do other changes that wait for their locks. Reads of other things have the
// rest: who signs in, who is calling, which organizations exist.
type lane int

const (
	changes lane = iota // of anything but notes; also background work, by default
	reads               // of anything but notes
	onNotes             // whatever reads or changes the table of notes
	laneCount
)

// most returns how many connections each lane may hold. All lanes but reads together hold three quarters.
func (l lane) most(connections int) int {
	return max(1, connections*map[lane]int{changes: 1, reads: 3, onNotes: 2}[l]/4)
}

type laneKey struct{}

// inLane sets the lane of background work.
func inLane(ctx context.Context, l lane) context.Context { return context.WithValue(ctx, laneKey{}, l) }

// aboutNotes are parts of the routes that read or change the table of notes.
var aboutNotes = []string{"/notes", "/notebooks", "/deadzone"}

// laneOf finds the lane by the request's route, or by inLane for other work.
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

// turns bounds how long work waits for a connection, and what a lane holds. It is the pool's tracer: pgx calls it
// before it acquires a connection, and the tracer may replace the context.
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

// TraceAcquireStart implements pgxpool.AcquireTracer. If the lane has no turn within poolWait, it returns an ended
// context, which ends Acquire.
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

// held is the key under which a connection keeps its lane.
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

// TraceQueryStart implements pgx.QueryTracer, as every tracer must.
func (t *turns) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *turns) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
