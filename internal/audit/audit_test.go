package audit_test

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"noted/internal/audit"
	"noted/internal/localpg/pgtest"
	"noted/internal/page"
	"noted/internal/request"
)

var (
	ada   = &audit.Actor{ID: uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a01"), Kind: "user", Name: "ada"}
	alice = &audit.Actor{ID: uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a02"), Kind: "user", Name: "alice"}
)

func targets(items []audit.Item) string {
	var list []string
	for _, item := range items {
		list = append(list, item.Target)
	}
	return strings.Join(list, " ")
}

func TestAnEventIsReadBackWithTheRequestItBelongsTo(t *testing.T) {
	pool := pgtest.Pool(t)
	ctx := request.With(t.Context(), &request.Info{ID: "r-1", IP: netip.MustParseAddr("2001:db8::1"), Logger: slog.New(slog.DiscardHandler)})
	err := audit.Record(ctx, pool,
		audit.Event{Actor: ada, Action: audit.UserLock, Object: "user", Target: "x", Detail: "why"})
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.Record(t.Context(), pool, audit.Event{Action: audit.NotePurge, Object: "note", Target: "y", Failure: true}); err != nil {
		t.Fatal(err)
	}
	items, err := audit.List(ctx, pool, audit.Filter{}, page.Window{Limit: 10})
	if err != nil || len(items) != 2 {
		t.Fatalf("%v, %v", items, err)
	}
	nobody, somebody := items[0], items[1]
	if nobody.Actor != nil || nobody.IP != nil || nobody.RequestID != "" || nobody.Outcome != "failure" {
		t.Errorf("outside a request: %+v", nobody)
	}
	if somebody.IP == nil || *somebody.IP != "2001:db8::1" || somebody.At.Location() != time.UTC || time.Since(somebody.At) > time.Minute {
		t.Errorf("got %+v", somebody)
	}
	want := audit.Item{ID: somebody.ID, At: somebody.At, IP: somebody.IP, Actor: ada, Action: "user.lock", Object: "user", Target: "x", Outcome: "success", RequestID: "r-1", Detail: "why"}
	if diff := cmp.Diff(want, somebody); diff != "" {
		t.Error(diff)
	}
}

// Neither the subject of somebody else's request nor a failed caller used its credential.
func TestOnlyTheHolderOfACredentialActedByIt(t *testing.T) {
	pool := pgtest.Pool(t)
	session := uuid.Must(uuid.NewV7())
	ctx := request.With(t.Context(), &request.Info{
		Credential: request.Credential{Kind: "session", ID: session, Holder: ada.ID}, Logger: slog.New(slog.DiscardHandler),
	})
	failures := audit.NewFailures(pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	failures.Note(ctx, audit.Event{Actor: ada, Object: "user", Target: "failed", Detail: "ended_session"})
	if err := failures.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := audit.Record(ctx, pool,
		audit.Event{Actor: ada, Action: audit.SessionEnd, Object: "session", Target: "her own"},
		audit.Event{Actor: alice, Action: audit.SessionEnd, Object: "session", Target: "another's"},
		audit.Event{Action: audit.NotePurge, Object: "note", Target: "nobody's"},
	); err != nil {
		t.Fatal(err)
	}
	items, err := audit.List(ctx, pool, audit.Filter{}, page.Window{Limit: 10})
	if err != nil || len(items) != 4 {
		t.Fatalf("%v, %v", items, err)
	}
	for _, item := range items {
		if (item.Via != nil) != (item.Target == "her own") || item.Via != nil && *item.Via != (audit.Via{Kind: "session", ID: session}) {
			t.Errorf("%s by %v", item.Target, item.Via)
		}
	}
	if items, err := audit.List(ctx, pool, audit.Filter{Via: session}, page.Window{Limit: 10}); err != nil || targets(items) != "her own" {
		t.Errorf("by the session: %v, %v", targets(items), err)
	}
}

// Rows older than the column tell by their action who may have been staff.
func TestAnOrganizationIsNotShownTheAddressesOfStaff(t *testing.T) {
	pool, org := pgtest.Pool(t), uuid.Must(uuid.NewV7())
	for action, staff := range map[audit.Action]*bool{
		audit.NoteReadAny: nil, audit.NotePurge: nil, audit.MemberJoin: nil, audit.KeyRevoke: new(true), audit.MemberRemove: new(false),
	} {
		_, err := pool.Exec(t.Context(), `
			insert into audit_events (id, action, object, target, outcome, org_id, ip, by_staff)
			values (gen_random_uuid(), $1, 'x', 'x', 'success', $2, '192.0.2.1', $3)`, string(action), org, staff)
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, filter := range map[string]audit.Filter{"the platform's": {}, "the organization's": {Org: org}} {
		items, err := audit.List(t.Context(), pool, filter, page.Window{Limit: 10})
		if err != nil || len(items) != 5 {
			t.Fatalf("%v, %v", items, err)
		}
		for _, item := range items {
			shown := filter.Org == uuid.Nil || item.Action == audit.MemberJoin || item.Action == audit.MemberRemove
			if shown != (item.IP != nil) {
				t.Errorf("%s record: the address of %s is shown: %v", name, item.Action, item.IP != nil)
			}
		}
	}
}

func TestEveryActionIsInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range audit.Actions {
		if !strings.Contains(string(manual), "`"+string(action)+"`") {
			t.Errorf("docs/operations.md does not tell of %s", action)
		}
	}
}

func TestFiltersSelectByActorActionAndTime(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, e := range []struct {
		actor  *audit.Actor
		action audit.Action
		at     string
		target string
	}{
		{ada, audit.UserLock, "2026-01-01T00:00:00Z", "a"},
		{ada, audit.KeyCreate, "2026-01-02T00:00:00Z", "b"},
		{alice, audit.KeyCreate, "2026-01-03T00:00:00Z", "c"},
		{nil, audit.NotePurge, "2026-01-04T00:00:00Z", "d"},
	} {
		insertAt(t, pool, e.actor, e.action, e.at, e.target)
	}
	noon := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		filter audit.Filter
		want   string
	}{
		{"all", audit.Filter{}, "d c b a"},
		{"one actor", audit.Filter{Actor: ada.ID}, "b a"},
		{"one action", audit.Filter{Action: "key.create"}, "c b"},
		{"both", audit.Filter{Actor: alice.ID, Action: "key.create"}, "c"},
		{"a stranger", audit.Filter{Actor: uuid.New()}, ""},
		{"no such action", audit.Filter{Action: "key.%"}, ""},
		{"since, the moment itself too", audit.Filter{Since: noon}, "d c b"},
		{"since a microsecond later", audit.Filter{Since: noon.Add(time.Microsecond)}, "d c"},
		{"since, in another zone", audit.Filter{Since: noon.In(time.FixedZone("", 5*3600))}, "d c b"},
		{"all three", audit.Filter{Actor: ada.ID, Action: "key.create", Since: noon}, "b"},
	} {
		items, err := audit.List(t.Context(), pool, c.filter, page.Window{Limit: 10})
		if err != nil || targets(items) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, targets(items), err, c.want)
		}
	}
}

func insertAt(t *testing.T, db audit.Execer, actor *audit.Actor, action audit.Action, at, target string) {
	t.Helper()
	var id *uuid.UUID
	var kind, name *string
	if actor != nil {
		id, kind, name = &actor.ID, &actor.Kind, &actor.Name
	}
	_, err := db.Exec(t.Context(), `
		insert into audit_events (id, at, actor_id, actor_kind, actor_name, action, object, target, outcome)
		values (gen_random_uuid(), $1::text::timestamptz, $2, $3, $4, $5, 'x', $6, 'success')`, at, id, kind, name, string(action), target)
	if err != nil {
		t.Fatal(err)
	}
}

// Rows of one transaction have the same time: only the id tells a page where to continue.
func TestPagesOfRowsWithOneTimeShowEachRowOnce(t *testing.T) {
	pool := pgtest.Pool(t)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		for range 10 {
			if err := audit.Record(t.Context(), tx, audit.Event{Actor: ada, Action: audit.SessionEnd, Object: "session", Target: "s"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uuid.UUID]bool{}
	var after page.Position
	var last audit.Item
	for range 4 {
		items, err := audit.List(t.Context(), pool, audit.Filter{}, page.Window{After: after, Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if seen[item.ID] {
				t.Errorf("%s is there twice", item.ID)
			}
			if last.ID != uuid.Nil && !item.At.Equal(last.At) {
				t.Errorf("the times differ: %v, %v", item.At, last.At)
			}
			seen[item.ID], last = true, item
			// Use a cursor, as a client does.
			position, err := page.Query{Cursor: page.Position{At: item.At, ID: item.ID}.Cursor("x")}.After("x")
			if err != nil {
				t.Fatal(err)
			}
			after = position
		}
	}
	if len(seen) != 10 {
		t.Errorf("the pages showed %d rows of 10", len(seen))
	}
}

func TestARowStandsOrFallsWithItsTransaction(t *testing.T) {
	pool := pgtest.Pool(t)
	_ = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if err := audit.Record(t.Context(), tx, audit.Event{Action: audit.UserLock, Object: "user", Target: "x"}); err != nil {
			t.Fatal(err)
		}
		return pgx.ErrNoRows // whatever failed afterwards
	})
	if items, err := audit.List(t.Context(), pool, audit.Filter{}, page.Window{Limit: 10}); err != nil || len(items) != 0 {
		t.Errorf("got %v, %v", items, err)
	}
}
