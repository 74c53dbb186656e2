package server_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"noted/server"
	"noted/server/servertest"
)

// Every wait has a bound. These tests make the database, or a client, stand still, and look at everybody else.

// smallPool is the pool size in these tests: small, so that starvation shows.
const smallPool = 8

// short sets a small pool and a lock_timeout that a test can wait for.
func short(o *server.Options) {
	o.Settings.DatabaseURL += fmt.Sprintf("&pool_max_conns=%d", smallPool)
	o.Settings.LockTimeout, o.Settings.StatementTimeout = 4*time.Second, 6*time.Second
}

// lockTable runs work while a table is locked against everybody.
func lockTable(t *testing.T, env *servertest.Env, table string, work func()) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), env.Pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range []string{`begin`, `lock table ` + table + ` in access exclusive mode`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	work()
}

// stuck counts the statements that wait for a lock, over a connection outside the pool.
func stuck(t *testing.T, env *servertest.Env) (count int) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), env.Pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).Scan(&count)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// until waits for a condition.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// checkUnavailable checks the answer to a wait that timed out.
func checkUnavailable(t *testing.T, what string, a servertest.Answer) {
	t.Helper()
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %v %s, want 503 with Retry-After", what, a.Status, a.Header, a.Body)
	}
}

// checkServed requires 200 within a time.
func checkServed(t *testing.T, env *servertest.Env, path, token string, within time.Duration) servertest.Answer {
	t.Helper()
	begun := time.Now()
	a := env.Do(t, http.MethodGet, path, token, nil)
	if took := time.Since(begun); a.Status != http.StatusOK || took > within {
		t.Errorf("%s: %d %s after %s, want 200 within %s", path, a.Status, a.Body, took, within)
	}
	return a
}

func TestTableThatHangsLeavesEverythingElseServed(t *testing.T) {
	env := servertest.New(t, short)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, bob, "elsewhere")
	note := env.NewNote(t, alice, "n")
	lockTable(t, env, "notes", func() {
		answers := make(chan servertest.Answer)
		const many = 5 * smallPool
		begun := time.Now()
		for i := range many {
			path := "/v1/notes"
			if i%2 == 1 {
				path += "/" + note
			}
			go func() { answers <- env.Do(t, http.MethodGet, path, alice, nil) }()
		}
		until(t, 5*time.Second, "requests hang", func() bool { return stuck(t, env) >= smallPool/2 })
		for range 3 {
			checkServed(t, env, "/readyz", "", 700*time.Millisecond)
			checkServed(t, env, "/v1/me", bob, time.Second)
			checkServed(t, env, "/v1/orgs/"+org+"/members", bob, time.Second)
			if a := env.Do(t, http.MethodPatch, "/v1/orgs/"+org, bob, `{"name":"still"}`); a.Status != http.StatusOK {
				t.Errorf("changing another organization: %d %s", a.Status, a.Body)
			}
			env.SignIn(t, "carol")
		}
		for range many {
			checkUnavailable(t, "a stuck request", <-answers)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the last answer came after %s", took)
		}
	})
	until(t, 10*time.Second, "notes are served again", func() bool {
		return env.Do(t, http.MethodGet, "/v1/notes/"+note, alice, nil).Status == http.StatusOK
	})
}

// An operation that hangs on the notes table and is not listed as such would take connections meant for others.
func TestNoOperationThatHangsWithNotesStarvesOthers(t *testing.T) {
	// Longer than the probes take, so that the hanging request outlives them.
	w := &orgWorld{accessWorld: newAccessWorld(t, short, func(o *server.Options) {
		o.Settings.LockTimeout, o.Settings.StatementTimeout = 8*time.Second, 12*time.Second
	})}
	w.make(t)
	rows, _ := readOrgAccess(t)
	personal, _ := readAccess(t)
	var calls []call
	for _, row := range rows {
		if strings.HasPrefix(row.cells["admin"], "2") {
			calls = append(calls, w.callOf(t, row, "admin"))
		}
	}
	if len(calls) < 30 {
		t.Fatalf("the matrix has %d calls", len(calls))
	}
	seen := map[string]bool{}
	for _, row := range personal {
		if method, path := splitRoute(row.operation); !strings.Contains(path, "{") && !seen[row.operation] && strings.HasPrefix(row.cells["ada"], "2") {
			seen[row.operation] = true
			calls = append(calls, call{method: method, path: path + "?"[:min(1, len(row.query))] + row.query, body: validBodies[row.operation], token: w.sessions["ada"]})
		}
	}
	outsider := w.sessions["alice"]
	lockTable(t, w.Env, "notes", func() {
		var sent sync.WaitGroup
		for _, c := range calls {
			for range smallPool {
				sent.Go(func() {
					a := w.Do(t, c.method, c.path, c.token, bodyOf(c))
					if a.Status >= http.StatusInternalServerError {
						checkUnavailable(t, c.method+" "+c.path, a)
					}
				})
			}
		}
		until(t, 10*time.Second, "requests hang", func() bool { return stuck(t, w.Env) >= smallPool/2 })
		// At first many that can be served are there too; what stays is hanging.
		time.Sleep(2500 * time.Millisecond)
		for range 5 {
			checkServed(t, w.Env, "/v1/me", outsider, 1500*time.Millisecond)
			checkServed(t, w.Env, "/v1/orgs", outsider, 1500*time.Millisecond)
		}
		sent.Wait()
	})
}

func bodyOf(c call) any {
	if c.body == "" {
		return nil
	}
	return c.body
}

// A client that gives up while its request waits for a connection leaves nothing behind.
func TestClientsThatGaveUpWhileOthersHoldThePoolAreForgotten(t *testing.T) {
	env := servertest.New(t, short, func(o *server.Options) {
		o.Settings.LockTimeout, o.Settings.StatementTimeout = time.Minute, time.Minute
	})
	alice := env.SignIn(t, "alice")
	lockTable(t, env, "notes", func() {
		ctx, cancel := context.WithCancel(t.Context())
		var holding sync.WaitGroup
		for range smallPool {
			holding.Go(func() { hang(ctx, env, alice) })
		}
		until(t, 5*time.Second, "notes have all that they may", func() bool { return stuck(t, env) == smallPool/2 })
		time.Sleep(3 * time.Second) // those without a place have got their 503
		before := runtime.NumGoroutine()
		const many = 300
		for range many {
			conn, err := net.Dial("tcp", strings.TrimPrefix(env.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"title\":\"t\",\"body\":", alice)
			_ = conn.Close()
		}
		until(t, 2*time.Second, "they are under way", func() bool { return runtime.NumGoroutine() > before+many/2 })
		until(t, 5*time.Second, "they have ended", func() bool { return runtime.NumGoroutine() < before+many/20 })
		cancel()
		holding.Wait()
	})
}

// hang sends a request that waits for the table of notes, until ctx ends.
func hang(ctx context.Context, env *servertest.Env, token string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, env.URL+"/v1/notes", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if response, err := http.DefaultTransport.RoundTrip(r); err == nil {
		_ = response.Body.Close()
	}
}

// What the database cannot do now may work in a moment. A read-only server may have been demoted: the next
// connection may reach another.
func TestDatabaseThatCannotNowIs503WithRetryAfter(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	env.Exec(t, `create sequence refused`) // survives a rollback
	for state, drops := range map[string]bool{"53100": false, "53200": false, "25006": true, "57014": false, "55P03": false} {
		env.Exec(t, `create or replace function refuse() returns trigger language plpgsql as $$ begin
			perform setval('refused', pg_backend_pid());
			raise exception 'refused' using errcode = '`+state+`';
		end $$`)
		env.Exec(t, `create or replace trigger refuse before insert on notes for each row execute function refuse()`)
		checkUnavailable(t, state, env.Do(t, http.MethodPost, "/v1/notes", alice, `{"title":"t","body":"b"}`))
		there := func() (there bool) {
			t.Helper()
			if err := env.Pool.QueryRow(t.Context(), `select exists (select from pg_stat_activity where pid = (select last_value from refused))`).Scan(&there); err != nil {
				t.Fatal(err)
			}
			return there
		}
		if drops {
			until(t, 5*time.Second, "the connection is gone", func() bool { return !there() })
		} else if !there() {
			t.Errorf("%s: the connection is gone", state)
		}
		env.Exec(t, `drop trigger refuse on notes`)
		if a := env.Do(t, http.MethodPost, "/v1/notes", alice, `{"title":"t","body":"b"}`); a.Status != http.StatusCreated {
			t.Errorf("after %s: %d %s", state, a.Status, a.Body)
		}
	}
}

// A hanging request holds its caller's session row; the caller's other requests do not wait to note their use.
func TestNotingTheUseOfACredentialWaitsForNobody(t *testing.T) {
	env := servertest.New(t)
	session := env.SignIn(t, "alice")
	_, key := env.NewKey(t, session, "key-reader")
	env.Exec(t, `update sessions set last_used_at = now() - interval '2 minutes'`)
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	mustExec(t, tx, `select from sessions for share`)
	mustExec(t, tx, `select from keys for share`)
	checkServed(t, env, "/v1/me", session, 2*time.Second)
	checkServed(t, env, "/v1/me", key, 2*time.Second)
}

// A full disk, as PostgreSQL sees it.
func TestFullDiskIs503AndReadsGoOn(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "n")
	var data string
	if err := env.Pool.QueryRow(t.Context(), `select setting from pg_settings where name = 'data_directory'`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Skipf("PostgreSQL is elsewhere: %v", err)
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // so it is on Linux
	dir, err := os.MkdirTemp("", "noted-full-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(dir) }()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=2m,mode=0700,uid=%d,gid=%d", owner.Uid, owner.Gid)); err != nil {
		t.Skipf("no small file system can be mounted: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	space := "full_" + strings.ReplaceAll(note, "-", "")
	env.Exec(t, `create tablespace `+space+` location '`+dir+`'`)
	env.Exec(t, `alter table notes set tablespace `+space)
	defer func() {
		env.Exec(t, `alter table notes set tablespace pg_default`)
		env.Exec(t, `drop tablespace `+space)
	}()
	words := make([]byte, 512<<10) // incompressible
	_, _ = rand.Read(words)
	body := base64.StdEncoding.EncodeToString(words)
	full := 0
	for range 10 {
		if a := env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]string{"title": "t", "body": body}); a.Status != http.StatusCreated {
			checkUnavailable(t, "a write to the full disk", a)
			full++
		}
	}
	if full == 0 {
		t.Error("the disk never got full")
	}
	checkServed(t, env, "/v1/notes/"+note, alice, 2*time.Second)
	checkServed(t, env, "/readyz", "", time.Second)
}

// A read-only database serves reads, and is ready for them.
func TestReadOnlyDatabaseIsReadyForReads(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "n")
	ready := func() (is struct{ Status, Database string }) {
		t.Helper()
		checkServed(t, env, "/readyz", "", 700*time.Millisecond).JSON(t, &is)
		return is
	}
	if is := ready(); is.Database != "read-write" {
		t.Errorf("ready: %+v", is)
	}
	conn, err := pgx.ConnectConfig(t.Context(), env.Pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// Like a standby: new connections can only read. (This connection is older.)
	become := func(setting string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), `alter database `+conn.Config().Database+` set default_transaction_read_only = `+setting); err != nil {
			t.Fatal(err)
		}
	}
	become("on")
	if _, err := conn.Exec(t.Context(), `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "it is ready for reads", func() bool { return env.Do(t, http.MethodGet, "/readyz", "", nil).Status == http.StatusOK })
	if is := ready(); is.Status != "ready" || is.Database != "read-only" {
		t.Errorf("read-only: %+v", is)
	}
	until(t, 5*time.Second, "reads are served", func() bool { return env.Do(t, http.MethodGet, "/v1/me", alice, nil).Status == http.StatusOK })
	checkServed(t, env, "/v1/notes/"+note, alice, time.Second)
	checkUnavailable(t, "a write", env.Do(t, http.MethodPost, "/v1/notes", alice, `{"title":"t","body":"b"}`))

	// Connections to the demoted server are dropped one by one, as writes fail on them.
	become("off")
	until(t, 10*time.Second, "writes are taken again", func() bool {
		return env.Do(t, http.MethodPost, "/v1/notes", alice, `{"title":"t","body":"b"}`).Status == http.StatusCreated
	})
	until(t, 20*time.Second, "it is ready for writes", func() bool { return ready().Database == "read-write" })
}

// Readiness waits neither for the pool nor for a database that does not answer.
func TestReadinessAnswersWhileThePoolIsTakenAndTheDatabaseHangs(t *testing.T) {
	env := servertest.New(t, short)
	env.SignIn(t, "alice")
	for range 2 { // background work's limit
		conn, err := env.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	checkServed(t, env, "/readyz", "", 700*time.Millisecond)
	lockTable(t, env, "goose_db_version", func() {
		var asked sync.WaitGroup
		for range 50 { // only one asks
			asked.Go(func() {
				begun := time.Now()
				a := env.Do(t, http.MethodGet, "/readyz", "", nil)
				if took := time.Since(begun); a.Status != http.StatusServiceUnavailable || took > 1200*time.Millisecond {
					t.Errorf("%d %s after %s", a.Status, a.Body, took)
				}
			})
		}
		asked.Wait()
		if n := stuck(t, env); n > 2 {
			t.Errorf("%d statements of readiness wait", n)
		}
	})
	until(t, 5*time.Second, "it is ready again", func() bool { return env.Do(t, http.MethodGet, "/readyz", "", nil).Status == http.StatusOK })
}

// Idle connections never keep active clients out, and do not cut them off.
func TestIdleConnectionsMakeRoomForWhoAsks(t *testing.T) {
	const most = 20
	env := servertest.New(t, func(o *server.Options) { o.Settings.HTTPConnections = most })
	alice := env.SignIn(t, "alice")
	const note = `{"title":"slow","body":"b"}`
	finish := held(t, env, http.MethodPost, "/v1/notes", alice, note)
	for i := range 5 * most {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(env.URL, "http://"), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if i%2 == 0 { // served once, then idle; the others stay silent
			_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
	}
	begun := time.Now()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.URL+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+alice)
	a := servertest.Send(t, &http.Transport{DisableKeepAlives: true}, r)
	if took := time.Since(begun); a.Status != http.StatusOK || took > time.Second {
		t.Errorf("who asks: %d after %s", a.Status, took)
	}
	checkStatus(t, "who was asking", finish(), http.StatusCreated, "")
	samples := metricsOf(t, env)
	if n := samples["noted_http_connections"]; n > most || samples["noted_http_connections_dropped_total"] < 4*most-2 {
		t.Errorf("%v connections, %v were dropped", n, samples["noted_http_connections_dropped_total"])
	}
}

// A client that announces too large a body gets its answer before it sends it, whatever the media type.
func TestBodyThatIsAnnouncedTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "n")
	for _, route := range []string{
		"POST /v1/notes", "PATCH /v1/notes/" + note, "POST /v1/keys", "POST /v1/orgs", "POST /auth/device/confirm", "POST /auth/link/confirm",
		"POST /auth/device", "POST /auth/token", "POST /invitation",
	} {
		u := startUpload(t, env, route, alice, 100<<20, "", "Expect: 100-continue")
		if a := u.answer(); a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %s", route, a.Status, a.Body)
		}
	}
	for _, media := range []string{"application/json", "text/plain"} {
		a := env.Do(t, http.MethodPost, "/auth/device", "", strings.Repeat("a", 300<<10), "Content-Type", media)
		if a.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("/auth/device, %s: %d %s", media, a.Status, a.Body)
		}
	}
}
