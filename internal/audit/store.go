package audit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/page"
	"noted/internal/request"
)

// Execer is a pool or, so that the row stands or falls with what it tells of, a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

const columns = `id, actor_kind, actor_id, actor_name, action, object, target, outcome, ip, request_id, detail, org_id, via_kind, via_id, by_staff`

// Record writes one row for each event, in the given order, under the request in ctx.
func Record(ctx context.Context, db Execer, events ...Event) error {
	for _, event := range events {
		_, err := db.Exec(ctx, `
			insert into audit_events (`+columns+`)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`, row(ctx, event)...)
		if err != nil {
			return fmt.Errorf("recording %s: %w", event.Action, err)
		}
	}
	return nil
}

// row is event in the order of columns.
func row(ctx context.Context, event Event) []any {
	info := request.From(ctx)
	outcome := "success"
	if event.Failure {
		outcome = "failure"
	}
	var kind, name *string
	var actor *uuid.UUID
	if event.Actor != nil {
		kind, actor, name = &event.Actor.Kind, &event.Actor.ID, &event.Actor.Name
	}
	var ip *netip.Addr
	if info.IP.IsValid() {
		ip = &info.IP
	}
	var viaKind *string
	var via *uuid.UUID
	// What failed was let in by nothing; what is told of somebody else, they did not do by this credential.
	if by := info.Credential; by.ID != uuid.Nil && event.Action != AuthFail && event.Actor != nil && event.Actor.ID == by.Holder {
		viaKind, via = &by.Kind, &by.ID
	}
	// A list shows things to which the caller stands in many ways: its rows say it by their action.
	staff := info.Staff || strings.HasSuffix(string(event.Action), "_any")
	id := uuid.Must(uuid.NewV7())
	return []any{
		id, kind, actor, name, string(event.Action), event.Object, event.Target, outcome, ip, info.ID, event.Detail,
		orNull(event.Org, event.Org != uuid.Nil), viaKind, via, staff,
	}
}

// byStaff holds for what nothing but a permission on everybody's things allowed. A row of a time
// when that was not noted tells it by its action, or it may have been.
const byStaff = `coalesce(by_staff, action like '%\_any' or action = 'note.purge')`

// List returns up to limit events, newest first, that come after the position. An organization is
// not shown from which address platform staff looked into it.
func List(ctx context.Context, pool *pgxpool.Pool, filter Filter, after page.Position, limit int) ([]Item, error) {
	rows, err := pool.Query(ctx, `
		select id, at, actor_kind, actor_id, actor_name, action, object, target, org_id, outcome,
			case when @org::uuid is null or not `+byStaff+` then host(ip) end, request_id, detail, via_kind, via_id
		from audit_events
		where (@actor::uuid is null or actor_id = @actor)
			and (@org::uuid is null or org_id = @org)
			and (@via::uuid is null or via_id = @via)
			and (@action::text is null or action = @action)
			and (@since::timestamptz is null or at >= @since)
			and (@at::timestamptz is null or (at, id) < (@at, @id))
		order by at desc, id desc
		limit @limit`,
		pgx.NamedArgs{
			"actor": orNull(filter.Actor, filter.Actor != uuid.Nil), "action": orNull(filter.Action, filter.Action != ""),
			"org":   orNull(filter.Org, filter.Org != uuid.Nil),
			"via":   orNull(filter.Via, filter.Via != uuid.Nil),
			"since": orNull(filter.Since, !filter.Since.IsZero()),
			"at":    orNull(after.At, !after.At.IsZero()), "id": orNull(after.ID, !after.At.IsZero()), "limit": limit,
		})
	if err != nil {
		return nil, fmt.Errorf("listing the audit record: %w", err)
	}
	items, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Item, error) {
		var item Item
		var kind, name, viaKind *string
		var actor, via *uuid.UUID
		err := row.Scan(&item.ID, &item.At, &kind, &actor, &name, &item.Action, &item.Object, &item.Target,
			&item.OrgID, &item.Outcome, &item.IP, &item.RequestID, &item.Detail, &viaKind, &via)
		if actor != nil {
			item.Actor = &Actor{ID: *actor, Kind: *kind, Name: *name}
		}
		if via != nil {
			item.Via = &Via{Kind: *viaKind, ID: *via}
		}
		item.At = item.At.UTC()
		return item, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the audit record: %w", err)
	}
	return items, nil
}

func orNull[T any](value T, ok bool) *T {
	if !ok {
		return nil
	}
	return &value
}
