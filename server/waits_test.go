package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"noted/server/servertest"
)

// Requests wait for a row that the test's transaction has locked, after they were decided and before they write.
// This shows whether they decide again, and what they lock.

// underWay is a sent request; its answer comes when nothing holds it.
type underWay struct{ answer chan servertest.Answer }

func begin(t testing.TB, env *servertest.Env, c call) *underWay {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.method, env.URL+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(c.path, "/auth/") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	u := &underWay{make(chan servertest.Answer, 1)}
	go func() { u.answer <- servertest.Send(t, http.DefaultTransport, r) }()
	return u
}

// waiting counts the statements that wait for a lock in the test's database.
func waiting(t testing.TB, env *servertest.Env) (count int) {
	t.Helper()
	err := env.Pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).Scan(&count)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// waits reports whether the request comes to wait, so that count statements do, or gets an answer instead.
func (u *underWay) waits(t testing.TB, env *servertest.Env, count int) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case a := <-u.answer:
			u.answer <- a
			return false
		default:
		}
		if waiting(t, env) >= count {
			return true
		}
	}
	t.Fatal("the request neither waits nor is answered")
	return false
}

// end makes every waiting statement fail, so that the request changes nothing.
func (u *underWay) end(t testing.TB, env *servertest.Env) {
	t.Helper()
	for {
		select {
		case <-u.answer:
			return
		case <-time.After(time.Millisecond):
		}
		_, err := env.Pool.Exec(t.Context(), `select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// beside runs work while a transaction of the test holds what sql locks. The transaction, with work's changes, is
// committed when work returns.
func beside(t testing.TB, env *servertest.Env, work func(tx pgx.Tx), sql string, args ...any) {
	t.Helper()
	defer env.Server.Identity.Forget()
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
	work(tx)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *orgWorld) callOf(t testing.TB, row orgRow, caller string) call {
	t.Helper()
	method, path, body := w.request(t, row, caller)
	c := call{method: method, path: path, token: w.tokens[caller]}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		c.body = string(text)
	}
	return c
}

// writesInOrg reports whether in the row an organization's admin changes something in it.
func (r orgRow) writesInOrg() bool {
	return !strings.HasPrefix(r.operation, "GET ") && strings.HasPrefix(r.cells["admin"], "2") && r.operation != "POST /v1/orgs"
}

// If a caller's role has changed when their request gets its turn, it is answered by the access matrix for their
// present role, or none.
func TestRoleThatChangesWhileARequestWaitsCountsAsItIsNow(t *testing.T) {
	t.Parallel()
	rows, _ := readOrgAccess(t)
	w := &orgWorld{accessWorld: newAccessWorld(t)}
	w.make(t)
	for _, row := range rows {
		if row.writesInOrg() {
			t.Run(row.operation+" on "+row.target, func(t *testing.T) { w.losesTheirRole(t, row, "admin") })
		}
	}
	// Only platform admins have the Dead Zone unless the policy opens it.
	opened := &orgWorld{accessWorld: newAccessWorld(t, withPolicy(t, "p, org-admin, deadzone:org, read", "p, org-admin, deadzone:org, restore", "p, org-admin, deadzone:org, purge"))}
	opened.make(t)
	for operation, success := range map[string]string{"POST /v1/deadzone/{id}/restore": "200", "DELETE /v1/deadzone/{id}": "204"} {
		row := orgRow{operation, "dead", map[string]string{"admin": success, "writer": "404", "reader": "404", "outsider": "404"}}
		t.Run(operation, func(t *testing.T) { opened.losesTheirRole(t, row, "admin") })
	}
}

func (w *orgWorld) losesTheirRole(t *testing.T, row orgRow, caller string) {
	t.Helper()
	check := &accessCheck{notFound: map[string]*servertest.Answer{}}
	for _, becomes := range []string{"writer", "reader", "outsider"} {
		c := w.callOf(t, row, caller)
		var u *underWay
		beside(t, w.Env, func(tx pgx.Tx) {
			if u = begin(t, w.Env, c); !u.waits(t, w.Env, 1) {
				t.Errorf("%s %s does not wait for the organization", c.method, c.path)
			}
			sql := `update members set role = $3 where org_id = $1 and user_id = $2`
			if becomes == "outsider" {
				sql = `delete from members where org_id = $1 and user_id = $2 and $3::text is not null`
			}
			if _, err := tx.Exec(t.Context(), sql, w.here.org, w.users["carol"], becomes); err != nil {
				t.Fatal(err)
			}
		}, `select from orgs where id = $1 for update`, w.here.org)
		a := <-u.answer
		as := accessRow{operation: row.operation, target: row.target, cells: row.cells}
		if row.decidedByBody() && a.Status == http.StatusNotFound { // of several kinds of things
			as.operation += " " + string(a.Body)
		}
		check.answer(t, as, becomes, a)
		w.make(t)
	}
}

// locksAlone are the operations that change permissions in an organization, or its own row: nothing else there is
// written at the same time.
var locksAlone = map[string]bool{
	"PATCH /v1/orgs/{org}":                               true,
	"DELETE /v1/orgs/{org}":                              true,
	"PATCH /v1/orgs/{org}/members/{user}":                true,
	"DELETE /v1/orgs/{org}/members/{user}":               true,
	"POST /v1/orgs/{org}/invitations":                    true,
	"PATCH /v1/orgs/{org}/notebooks/{id}":                true,
	"DELETE /v1/orgs/{org}/notebooks/{id}":               true,
	"PUT /v1/orgs/{org}/notebooks/{id}/grants/{user}":    true,
	"DELETE /v1/orgs/{org}/notebooks/{id}/grants/{user}": true,
	"PUT /v1/orgs/{org}/notes/{id}/grants/{user}":        true,
	"DELETE /v1/orgs/{org}/notes/{id}/grants/{user}":     true,
}

// What a decision rests on stays unchanged until the allowed change is done: the organization, the note, and the
// credential's rows. A request waits for whoever holds them.
func TestEachChangeWaitsForWhatItsDecisionRestsOn(t *testing.T) {
	t.Parallel()
	const organization, user, session, key, note = `select from orgs where id = $1 for no key update`, `select from users where id = $1 for update`,
		`select from sessions where user_id = $1 for update`, `select from keys where $1 in (id, user_id) for update`, `select from notes where id = $1 for update`
	type lock struct {
		on, sql string
		id      any
	}
	rows, _ := readOrgAccess(t)
	w := &orgWorld{accessWorld: newAccessWorld(t)}
	w.make(t)
	for _, row := range rows {
		if !row.writesInOrg() {
			continue
		}
		t.Run(row.operation+" on "+row.target, func(t *testing.T) {
			for caller, rest := range map[string][]lock{
				"admin":             {{"the organization", organization, w.here.org}, {"the caller", user, w.users["carol"]}, {"the session", session, w.users["carol"]}},
				"admin's key-admin": {{"the caller", user, w.users["carol"]}, {"the key", key, w.users["carol"]}},
				"service admin":     {{"the service's key", key, w.self["service admin"]}},
			} {
				if !strings.HasPrefix(row.cells[caller], "2") {
					continue
				}
				if strings.Contains(row.operation, "/v1/notes/{id}") {
					id := w.here.note
					if strings.HasPrefix(row.target, "restricted") {
						id = w.here.secret
					}
					rest = append(rest, lock{"the note", note, id})
				}
				c := w.callOf(t, row, caller)
				w.must(t, http.MethodGet, "/v1/me", c.token, http.StatusOK) // a key's first use is written to its row
				for _, l := range rest {
					beside(t, w.Env, func(pgx.Tx) {
						u := begin(t, w.Env, c)
						if !u.waits(t, w.Env, 1) {
							differs(t, "%s by %s does not wait for %s: %d %s", row.operation, caller, l.on, (<-u.answer).Status, row.target)
							return
						}
						u.end(t, w.Env)
					}, l.sql, l.id)
				}
			}
			// Beside another change by the same right, or alone.
			alone := locksAlone[row.operation]
			c := w.callOf(t, row, "admin")
			beside(t, w.Env, func(pgx.Tx) {
				u := begin(t, w.Env, c)
				switch waits := u.waits(t, w.Env, 1); {
				case waits != alone:
					differs(t, "%s waits for other changes in the organization: %t, want %t", row.operation, waits, alone)
				case waits:
					u.end(t, w.Env)
				default:
					<-u.answer
				}
			}, `select from orgs where id = $1 for share`, w.here.org)
			if !alone {
				w.make(t)
			}
		})
	}
}

// The same for people's own things, and for what platform admins do.
func TestEachChangeOfOnesOwnWaitsForTheCredential(t *testing.T) {
	t.Parallel()
	rows, _ := readAccess(t)
	w := newAccessWorld(t)
	for _, row := range rows {
		if strings.HasPrefix(row.operation, "GET ") || row.operation == "POST /v1/admin/explain" {
			continue
		}
		t.Run(row.String(), func(t *testing.T) {
			for _, caller := range []string{"alice", "alice's key-writer", "ada", "ada's key-admin"} {
				if !strings.HasPrefix(row.cells[caller], "2") {
					continue
				}
				locks := []string{`select from users where id = $1 for update`, `select from sessions where user_id = $1 for update`}
				if strings.Contains(caller, "key") {
					locks[1] = `select from keys where user_id = $1 for update`
				}
				if strings.Contains(row.operation, "/v1/notes/{id}") || strings.Contains(row.operation, "/v1/deadzone/{id}") {
					locks = append(locks, `select from notes where $1::uuid is not null for update`)
				}
				for _, sql := range locks {
					w.reset(t)
					c, _ := w.prepare(t, row, caller)
					w.must(t, http.MethodGet, "/v1/me", c.token, http.StatusOK) // a key's first use is written to its row
					beside(t, w.Env, func(pgx.Tx) {
						u := begin(t, w.Env, c)
						if !u.waits(t, w.Env, 1) {
							differs(t, "%s by %s does not wait: %s: %d", row, caller, sql, (<-u.answer).Status)
							return
						}
						u.end(t, w.Env)
					}, sql, w.users[accessCallers[caller].user])
				}
			}
		})
	}
}

// actsAlone are the changes that lock people's rows before they share them, in one order: two at once would
// otherwise deadlock.
var actsAlone = map[string]bool{
	"DELETE /v1/me/sessions": true, "DELETE /v1/me/sessions/{id}": true, "POST /v1/admin/users/{id}/lock": true, "POST /v1/admin/users/{id}/unlock": true,
}

func TestWhatEndsCredentialsOfSomebodyWaitsForWhoeverSharesTheirRow(t *testing.T) {
	t.Parallel()
	rows, _ := readAccess(t)
	w := newAccessWorld(t)
	for _, row := range rows {
		if !actsAlone[row.operation] || !strings.HasPrefix(row.cells["ada"], "2") {
			continue
		}
		t.Run(row.String(), func(t *testing.T) {
			w.reset(t)
			c, _ := w.prepare(t, row, "ada")
			beside(t, w.Env, func(pgx.Tx) {
				u := begin(t, w.Env, c)
				if !u.waits(t, w.Env, 1) {
					differs(t, "%s does not wait: %d", row, (<-u.answer).Status)
					return
				}
				u.end(t, w.Env)
			}, `select from users where id = $1 for share`, w.users["ada"])
		})
	}
}

// An invitation is made alone: if a service's key were revoked meanwhile, the invitation would remain, made by
// nobody.
func TestInvitationThatAServiceMakesWhileItsKeyIsRevokedEndsWithTheKey(t *testing.T) {
	t.Parallel()
	w := &orgWorld{accessWorld: newAccessWorld(t)}
	w.make(t)
	path := "/v1/orgs/" + w.here.org
	w.Exec(t, `delete from invitations`)
	w.must(t, http.MethodGet, "/v1/me", w.tokens["service admin"], http.StatusOK)
	var invites, revokes *underWay
	beside(t, w.Env, func(pgx.Tx) {
		invites = begin(t, w.Env, call{http.MethodPost, path + "/invitations", w.tokens["service admin"], `{"email":"late@dev.example","role":"reader"}`})
		if !invites.waits(t, w.Env, 1) {
			t.Fatalf("inviting leaves no row in the record: %d", (<-invites.answer).Status)
		}
		revokes = begin(t, w.Env, call{http.MethodDelete, path + "/keys/" + w.self["service admin"], w.tokens["admin"], ""})
		revokes.waits(t, w.Env, 2)
	}, `lock table audit_events in share mode`) // inviting writes it last
	if a, b := <-invites.answer, <-revokes.answer; a.Status != http.StatusCreated || b.Status != http.StatusNoContent {
		t.Fatalf("inviting: %d %s, revoking: %d %s", a.Status, a.Body, b.Status, b.Body)
	}
	var waiting int
	if err := w.Pool.QueryRow(t.Context(), `select count(*) from invitations where revoked_at is null`).Scan(&waiting); err != nil || waiting != 0 {
		t.Errorf("%d invitations of the revoked key wait (%v)", waiting, err)
	}
}
