package migrate_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"noted/internal/localpg/pgtest"
	"noted/internal/migrate"
)

// empty makes a database with nothing in it, on the server of the test's own one.
func empty(t *testing.T) string {
	t.Helper()
	beside := pgtest.URL(t)
	name := "noted_empty_" + strings.ToLower(rand.Text())
	exec(t, beside, "create database "+name+" template template0")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, beside)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(ctx) }()
		if _, err := conn.Exec(ctx, "drop database "+name+" with (force)"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(beside)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func exec(t *testing.T, address, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func version(t *testing.T, address string) (newest int64, rows int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), `select max(version_id), count(*) from goose_db_version where version_id > 0`).Scan(&newest, &rows); err != nil {
		t.Fatal(err)
	}
	return newest, rows
}

func TestAnEmptyDatabaseIsMigratedAndASecondTimeChangesNothing(t *testing.T) {
	address := empty(t)
	for range 2 {
		if err := migrate.Up(t.Context(), address); err != nil {
			t.Fatal(err)
		}
		if newest, rows := version(t, address); newest != migrate.Version() || int64(rows) != migrate.Version() {
			t.Errorf("version %d in %d rows, want %d", newest, rows, migrate.Version())
		}
	}
}

// What a running installation has before it learns where sessions come from.
func TestSessionsAndEMailsOfAnOlderSchemaAreTakenForNoMoreThanTheyAre(t *testing.T) {
	address := empty(t)
	upTo(t, address, 4)
	exec(t, address, `
		insert into users (id, name, email) select n::text::uuid, 'x', 'shown@example.com' from generate_series(10000000000000000000000000000001, 10000000000000000000000000000003) n;
		insert into identities (id, user_id, issuer, subject, email, email_verified, signed_in_at) values
			(gen_random_uuid(), '10000000-0000-0000-0000-000000000001', 'i', 'a', 'unverified@example.com', false, now()),
			(gen_random_uuid(), '10000000-0000-0000-0000-000000000002', 'i', 'b', 'older@example.com', true, now() - interval '2 days'),
			(gen_random_uuid(), '10000000-0000-0000-0000-000000000002', 'j', 'b', 'newer@example.com', true, now() - interval '1 day'),
			(gen_random_uuid(), '10000000-0000-0000-0000-000000000002', 'k', 'b', 'newest@example.com', false, now()),
			(gen_random_uuid(), '10000000-0000-0000-0000-000000000003', 'i', 'c', null, true, now());
		insert into sessions (id, user_id, identity_id, token_hash, created_at, expires_at, id_token, signed_in_at)
		select gen_random_uuid(), user_id, id, sha256(what::bytea), now() - created, now() - created + interval '7 days', id_token, now() - signed_in
		from identities, (values
			('browser', interval '6 days', interval '6 days', 'x'), ('exchange', interval '1 day', interval '1 day', null),
			('device', interval '1 day', interval '6 days', null), ('device just approved', interval '0', interval '0', null)) v (what, created, signed_in, id_token)
		where subject = 'a';
		insert into device_logins (device_hash, user_code, expires_at, decided_at, session_id)
		select sha256('d'), 'x', expires_at, created_at, id from sessions where token_hash = sha256('device just approved')`)
	if err := migrate.Up(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sql, want string }{
		{`select string_agg(coalesce(email, 'null'), ' ' order by id) from users`, "null newer@example.com null"},
		{`select string_agg(origin || round(extract(epoch from expires_at - now()) / 86400), ' ' order by origin, expires_at) from sessions`, "browser1 device1 device7 exchange6"},
	} {
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := conn.QueryRow(t.Context(), c.sql).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.sql, got, c.want, err)
		}
		_ = conn.Close(t.Context())
	}
}

// upTo migrates as an older binary did.
func upTo(t *testing.T, address string, version int64) {
	t.Helper()
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	files, err := fs.Sub(migrate.Files, "sql")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}

func TestEightReplicasMayStartOnAnEmptyDatabaseAtOnce(t *testing.T) {
	address := empty(t)
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		group.Go(func() { errs[i] = migrate.Up(t.Context(), address) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if newest, rows := version(t, address); newest != migrate.Version() || int64(rows) != migrate.Version() {
		t.Errorf("version %d in %d rows, want %d once each", newest, rows, migrate.Version())
	}
}

func TestANewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	address := empty(t)
	if err := migrate.Up(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	exec(t, address, `insert into goose_db_version (version_id, is_applied) values (9999, true)`)
	err := migrate.Up(t.Context(), address)
	if !errors.Is(err, migrate.ErrNewer) || !strings.Contains(err.Error(), "9999") {
		t.Errorf("got %v", err)
	}
	if newest, _ := version(t, address); newest != 9999 {
		t.Errorf("the version is %d now", newest)
	}
}

func TestADatabaseThatCannotBeReachedIsAnErrorWithoutThePassword(t *testing.T) {
	for _, address := range []string{"postgres://noted:hunter2@127.0.0.1:1/noted?connect_timeout=2", "postgres://noted:hunter2@127.0.0.1:port/noted", "hunter2://"} {
		err := migrate.Up(t.Context(), address)
		if err == nil || (strings.Contains(address, "@") && strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestTheRecordOfTheDatabaseCannotBeChangedOrDeleted(t *testing.T) {
	pool := pgtest.Pool(t)
	if _, err := pool.Exec(t.Context(), `insert into audit_events (id, action, object, target, outcome) values (gen_random_uuid(), 'user.lock', 'user', 'x', 'success')`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`update audit_events set target = 'y'`, `delete from audit_events`, `truncate audit_events`,
		`delete from audit_events where false`, `merge into audit_events using (select 1) as x on true when matched then delete`,
		`set session_replication_role = replica; delete from audit_events`, // no way round it for a superuser's session either
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var rows int
	if err := pool.QueryRow(t.Context(), `select count(*) from audit_events where target = 'x'`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows are left, %v", rows, err)
	}
}

func TestReplicasThatFindNothingToDoDoNotWaitForEachOther(t *testing.T) {
	address := pgtest.URL(t)
	started := time.Now()
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		group.Go(func() { errs[i] = migrate.Up(t.Context(), address) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	// A rolling restart of an up-to-date installation is the usual start.
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("four starts at once on a migrated database took %v", took)
	}
}

// What is the pool's in the connection string is no setting of PostgreSQL's.
func TestPoolOptionsOfTheURLAreNoObstacle(t *testing.T) {
	url := pgtest.URL(t)
	joint := "?"
	if strings.Contains(url, "?") {
		joint = "&"
	}
	if err := migrate.Up(t.Context(), url+joint+"pool_max_conns=7"); err != nil {
		t.Fatal(err)
	}
}
