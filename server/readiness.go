package server

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"
)

// readinessTime is how long the database may take over the question whether it is there.
const readinessTime = 600 * time.Millisecond

// readiness asks whether the database is there, on a connection of its own: it must not wait in the queue that it
// reports on. However many ask at a time, the database is asked once.
type readiness struct {
	pool   *pgxpool.Pool
	asking singleflight.Group
}

func newReadiness(ctx context.Context, url string) (*readiness, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MinConns, config.MinIdleConns, config.MaxConns = 0, 0, 1
	config.ConnConfig.ConnectTimeout = readinessTime
	// One that is new now and then asks again where database_url leads, for a server may have been demoted.
	config.MaxConnLifetime = 10 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &readiness{pool: pool}, err
}

// state is what the database says of itself.
type state struct {
	schema   int64 // its version
	readOnly bool
}

// ask asks the database, or waits for the answer to who has just asked.
func (r *readiness) ask(ctx context.Context) (state, error) {
	answer, err, _ := r.asking.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readinessTime)
		defer cancel()
		var now state
		err := r.pool.QueryRow(ctx, `
			select coalesce(max(version_id), 0), current_setting('transaction_read_only')::boolean from goose_db_version`).Scan(&now.schema, &now.readOnly)
		if err != nil {
			return now, fmt.Errorf("asking the database: %w", err)
		}
		return now, nil
	})
	now, _ := answer.(state)
	return now, err
}
