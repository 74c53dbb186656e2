package pgtest

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"noted/internal/migrate"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func databaseExists(t *testing.T, name string) (found bool) {
	t.Helper()
	source, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, source.server.String())
	if err := conn.QueryRow(t.Context(), "select exists (select from pg_database where datname = $1)", name).Scan(&found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPoolHasTheNewestSchema(t *testing.T) {
	var version int64
	err := Pool(t).QueryRow(t.Context(), "select max(version_id) from goose_db_version").Scan(&version)
	if err != nil {
		t.Fatal(err)
	}
	if version != migrate.Version() {
		t.Errorf("version %d, want %d", version, migrate.Version())
	}
}

func TestDatabasesAreSeparateAndDropped(t *testing.T) {
	var names []string
	t.Run("use", func(t *testing.T) {
		for range 2 {
			conn, err := pgx.Connect(t.Context(), URL(t)) // left open on purpose
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, conn.Config().Database)
			// Fails if the table already exists.
			if _, err := conn.Exec(t.Context(), "create table only_mine ()"); err != nil {
				t.Error(err)
			}
		}
	})
	for _, name := range names {
		if databaseExists(t, name) {
			t.Errorf("%s is still there", name)
		}
	}
}

// ownSource is a source on the same server without a template yet.
func ownSource(t *testing.T) *source {
	t.Helper()
	shared, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	own := &source{shared.server, "noted_template_own_" + strings.ToLower(rand.Text())}
	t.Cleanup(func() {
		if err := own.admin(context.Background(), "drop database if exists "+own.template); err != nil {
			t.Error(err)
		}
	})
	return own
}

func TestTemplateIsMadeOnceByMany(t *testing.T) {
	source := ownSource(t)
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			if err := source.makeTemplate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if !databaseExists(t, source.template) {
		t.Error("no template")
	}
	if databaseExists(t, source.template+"_new") {
		t.Error("the half-made template is still there")
	}
}

func TestHalfMadeTemplateIsMadeAnew(t *testing.T) {
	source := ownSource(t)
	half := source.template + "_new"
	if err := source.admin(t.Context(), "create database "+half); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, source.url(half)) // in use, too
	if _, err := conn.Exec(t.Context(), "create table half ()"); err != nil {
		t.Fatal(err)
	}
	if err := source.makeTemplate(t.Context()); err != nil {
		t.Fatal(err)
	}
	clone := "noted_test_" + strings.ToLower(rand.Text())
	if err := source.admin(t.Context(), "create database "+clone+" template "+source.template); err != nil {
		t.Fatal(err)
	}
	defer source.admin(context.Background(), "drop database "+clone+" with (force)")
	var left bool
	if err := connect(t, source.url(clone)).QueryRow(t.Context(), "select to_regclass('half') is not null").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left {
		t.Error("the template is the half-made one")
	}
}

func BenchmarkURL(b *testing.B) {
	URL(b) // do not measure the server and the template
	for b.Loop() {
		URL(b)
	}
}
