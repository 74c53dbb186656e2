package server

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"
)

// readinessTime is how long the database may take to answer the readiness check.
const readinessTime = 600 * time.Millisecond

// readiness checks that the database is there. It has its own connection, since it must not wait in the queue that
// it reports on. However many ask at once, the database is asked once.
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
	// Reconnect now and then to resolve database_url again: the server may have been demoted.
	config.MaxConnLifetime = 10 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &readiness{pool: pool}, err
}

// state is what the database says of itself.
type state struct {
	schema   int64 // its version
	readOnly bool
}

// ask asks the database, or shares the answer of a query under way.
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
