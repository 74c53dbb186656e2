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

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"noted/internal/localpg/pgtest"
	"noted/internal/migrate"
)

// empty makes an empty database on the test's server.
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

// A running installation before it learns where sessions come from.
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

// Personal notes, an organization's, a service's, deleted ones, in notebooks and outside, and grants on both.
const filled = `
	insert into users (id, name) values ('10000000-0000-0000-0000-000000000001', 'a'), ('10000000-0000-0000-0000-000000000002', 'b');
	insert into orgs (id, name) values ('20000000-0000-0000-0000-000000000001', 'o'), ('20000000-0000-0000-0000-000000000002', 'p');
	insert into members (org_id, user_id, role) select o.id, u.id, 'admin' from orgs o, users u;
	insert into keys (id, name, role, created_by, org_id, org_role)
		select gen_random_uuid(), 'k', 'key-writer', '10000000-0000-0000-0000-000000000001', id, 'writer' from orgs;
	insert into notebooks (id, org_id, name, restricted) select gen_random_uuid(), id, 'n', n = 2 from orgs, generate_series(1, 2) n;
	insert into notes (id, owner_id, title, body) select gen_random_uuid(), id, 'own', repeat('x', 3000 * n) from users, generate_series(1, 3) n;
	insert into notes (id, owner_id, org_id, notebook_id, title, body)
		select gen_random_uuid(), u.id, b.org_id, case when b.restricted then b.id end, 'of the organization', '' from users u, notebooks b;
	insert into notes (id, owner_key, org_id, notebook_id, title, body)
		select gen_random_uuid(), k.id, b.org_id, b.id, 'of the service', '' from keys k join notebooks b using (org_id);
	update notes set deleted_at = now(), deleted_by = '10000000-0000-0000-0000-000000000001'
		where id in (select min(id::text)::uuid from notes group by title);
	insert into grants (org_id, user_id, notebook_id, access) select b.org_id, u.id, b.id, 'read' from notebooks b, users u;
	insert into grants (org_id, user_id, note_id, access) select n.org_id, u.id, n.id, 'write' from notes n, users u where n.org_id is not null`

func TestWhatAFilledDatabaseHoldsGetsItsSpace(t *testing.T) {
	address := empty(t)
	upTo(t, address, 7)
	exec(t, address, filled)
	rows := func(hidden string) string {
		t.Helper()
		return text(t, address, `
			select string_agg(x, e'\n' order by x) from (
				select 'note ' || (to_jsonb(n) - 'space_id')::text from notes n
				union all select 'notebook ' || (to_jsonb(b) - 'space_id')::text from notebooks b
				union all select 'grant ' || (to_jsonb(g) - '`+hidden+`')::text from grants g) all_of_it (x)`)
	}
	schema := func() string {
		t.Helper()
		return text(t, address, `
			select string_agg(x, e'\n' order by x) from (
				select indexdef from pg_indexes where schemaname = 'public'
				union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace) s (x)`)
	}
	before, shape := rows("org_id"), schema()
	upTo(t, address, 8)
	if diff := cmp.Diff(before, rows("space_id")); diff != "" {
		t.Errorf("what was there has changed (-before +after):\n%s", diff)
	}
	if got, want := text(t, address, `
		select concat_ws(' ',
			(select count(*) from notes), (select count(*) from notes where space_id = case when org_id is null then owner_id else org_id end),
			(select count(*) from notebooks where space_id = org_id),
			(select count(*) from grants g where exists (select from notes n where n.id = g.note_id and n.space_id = g.space_id)
				or exists (select from notebooks b where b.id = g.notebook_id and b.space_id = g.space_id)))`), "18 18 4 32"; got != want {
		t.Errorf("notes, those in their space, notebooks and grants in theirs: %s, want %s", got, want)
	}
	provider(t, address, func(p *goose.Provider) error {
		_, err := p.DownTo(t.Context(), 7)
		return err
	})
	if after := rows("org_id"); after != before {
		t.Errorf("after going back:\n%s\nbefore:\n%s", after, before)
	}
	if after := schema(); after != shape {
		t.Errorf("the schema after going back:\n%s\nbefore:\n%s", after, shape)
	}
}

func text(t *testing.T, address, sql string) (got string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

// upTo migrates like an older binary.
func upTo(t *testing.T, address string, version int64) {
	t.Helper()
	provider(t, address, func(p *goose.Provider) error {
		_, err := p.UpTo(t.Context(), version)
		return err
	})
}

func provider(t *testing.T, address string, run func(*goose.Provider) error) {
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
	p, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(p); err != nil {
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
		`set session_replication_role = replica; delete from audit_events`, // not even in a superuser's session
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
	// Usually a start is a rolling restart of an up-to-date installation.
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("four starts at once on a migrated database took %v", took)
	}
}

// The pool's options in the connection string are not PostgreSQL settings.
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
