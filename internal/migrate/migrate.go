package migrate

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Files are the migrations, sql/NNNNN_name.sql.
//
//go:embed sql/*.sql
var Files embed.FS

// ErrNewer is returned when the database was migrated by a newer noted.
var ErrNewer = errors.New("the database belongs to a newer noted")

// Up migrates the database at url (a PostgreSQL connection string) to Version. It waits for a replica that is
// migrating. It changes nothing and returns ErrNewer if the schema is newer than this binary, or ErrDev if the
// database is `noted dev`'s.
func Up(ctx context.Context, url string) error { return up(ctx, url, refuseDev) }

// UpDev is Up for `noted dev`, which puts people without passwords into its database. It marks an empty database,
// and accepts one that it has marked. For any other it changes nothing and returns ErrNotDev. private means that
// only `noted dev` can have made the database: then it is marked regardless.
func UpDev(ctx context.Context, url string, private bool) error {
	return up(ctx, url, func(ctx context.Context, db *sql.Conn) error { return claimForDev(ctx, db, private) })
}

// up calls check before it changes anything, under the lock: if a serve and a dev start at once on an empty
// database, the second sees what the first did.
func up(ctx context.Context, url string, check func(context.Context, *sql.Conn) error) error {
	config, err := pgxpool.ParseConfig(url) // knows the pool's parameters, such as pool_max_conns
	if err != nil {
		return fmt.Errorf("database_url: %w", err)
	}
	db := stdlib.OpenDB(*config.ConnConfig)
	defer func() { _ = db.Close() }()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("reaching the database: %w", err)
	}
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	// The lock has its own connection, and ends with it. An advisory lock waits in line; goose's own would poll
	// every few seconds.
	lock, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("reaching the database: %w", err)
	}
	defer func() {
		_, _ = lock.ExecContext(context.WithoutCancel(ctx), `select pg_advisory_unlock($1)`, lockID)
		_ = lock.Close()
	}()
	if _, err := lock.ExecContext(ctx, `select pg_advisory_lock($1)`, lockID); err != nil {
		return fmt.Errorf("waiting for another replica's migration: %w", err)
	}
	if err := check(ctx, lock); err != nil {
		return err
	}
	if err := refuseNewer(ctx, provider); err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// lockID is the advisory lock under which noted migrates; an arbitrary number.
const lockID = 0x6e6f746564 // "noted"

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(Files, "sql")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithAllowOutofOrder(false))
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	return provider, nil
}

func refuseNewer(ctx context.Context, provider *goose.Provider) error {
	version, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if newest := Version(); version > newest {
		return fmt.Errorf("%w: its schema has version %d, this binary knows %d; run the newer binary, or restore the backup made before it", ErrNewer, version, newest)
	}
	return nil
}

// Version is the newest schema version that this binary knows.
func Version() int64 {
	entries, err := Files.ReadDir("sql")
	if err != nil || len(entries) == 0 {
		return 0
	}
	version, err := goose.NumericComponent(entries[len(entries)-1].Name())
	if err != nil {
		return 0
	}
	return version
}
