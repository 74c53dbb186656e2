package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/localpg"
	"noted/internal/migrate"
	"noted/internal/pg"
)

// Variable names the environment variable with the server's URL. Its user must be allowed to create databases.
const Variable = "NOTED_TEST_DATABASE_URL"

// limit bounds each step for a test; making the template may wait for other processes.
const limit = 2 * time.Minute

// URL returns the address of an empty database with the newest schema, for this test alone. It is dropped when
// the test ends.
func URL(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	source, err := prepared()
	if err != nil {
		t.Fatalf("a database for the test: %v", err)
	}
	name := "noted_test_" + strings.ToLower(rand.Text())
	if err := source.admin(ctx, "create database "+name+" template "+source.template); err != nil {
		t.Fatalf("a database for the test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		// Use force: connections left by a failed test are no reason to keep its database.
		if err := source.admin(ctx, "drop database "+name+" with (force)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return source.url(name)
}

// Pool returns a pool on URL's database. It is closed when the test ends.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(URL(t))
	if err != nil {
		t.Fatalf("a pool for the test: %v", err)
	}
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pg.Types(conn)
		return nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatalf("a pool for the test: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// source is a server with a template.
type source struct {
	server   *url.URL
	template string
}

// prepared starts the server, if there is none, and makes the template, once per process. The server ends with the
// process.
var prepared = sync.OnceValues(func() (*source, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	address := os.Getenv(Variable)
	if address == "" {
		server, err := localpg.Start(ctx, localpg.Options{Settings: map[string]string{"max_connections": "500"}})
		if err != nil {
			return nil, err
		}
		address = server.URL("postgres")
	}
	return prepare(ctx, address)
})

// prepare makes the template on a server, unless another process has.
func prepare(ctx context.Context, address string) (*source, error) {
	server, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(server.Scheme, "postgres") {
		return nil, fmt.Errorf("%s must be a postgres:// URL", Variable)
	}
	hash, err := schemaHash()
	if err != nil {
		return nil, err
	}
	s := &source{server, "noted_template_" + hash}
	return s, s.makeTemplate(ctx)
}

// schemaHash differs for every set of migrations, so that a template is never older than the code.
func schemaHash() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(migrate.Files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := migrate.Files.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n%s", path, len(text), text)
		return nil
	})
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), err
}

// templateLock is the advisory lock under which templates are made. Its number means nothing.
const templateLock = 7_236_101_944

func (s *source) makeTemplate(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, s.server.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // releases the lock
	if found, err := s.templateExists(ctx, conn); found || err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", templateLock); err != nil {
		return err
	}
	if found, err := s.templateExists(ctx, conn); found || err != nil {
		return err
	}
	// It gets its name when complete; one left half made by a killed process is dropped here.
	half := s.template + "_new"
	for _, statement := range []string{
		"drop database if exists " + half + " with (force)",
		"create database " + half,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	if err := migrate.Up(ctx, s.url(half)); err != nil {
		return err
	}
	for _, statement := range []string{
		// A template with sessions cannot be cloned. From here on, nobody can connect.
		"alter database " + half + " allow_connections false",
		"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '" + half + "'",
		"alter database " + half + " rename to " + s.template,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func (s *source) templateExists(ctx context.Context, conn *pgx.Conn) (found bool, err error) {
	err = conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", s.template).Scan(&found)
	return found, err
}

// admin runs one statement outside the test's database.
func (s *source) admin(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.server.String())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	if err != nil {
		err = fmt.Errorf("%s: %w", statement, err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// url returns the address of another database on the same server.
func (s *source) url(database string) string {
	u := *s.server
	u.Path, u.RawPath = "/"+database, ""
	return u.String()
}
