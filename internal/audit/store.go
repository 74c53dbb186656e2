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
	"noted/internal/pg"
	"noted/internal/request"
)

// Execer is a pool, or a transaction, so that the row and its change are kept together.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

const columns = `id, actor_kind, actor_id, actor_name, action, object, target, outcome, ip, request_id, detail, org_id, via_kind, via_id, by_staff`

// Record writes one row for each event, in order, under the request in ctx.
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

// row returns event in the order of columns.
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
	// A failure used no valid credential. An event about somebody else was not done with this credential.
	if by := info.Credential; by.ID != uuid.Nil && event.Action != AuthFail && event.Actor != nil && event.Actor.ID == by.Holder {
		viaKind, via = &by.Kind, &by.ID
	}
	// A list spans things of different standing: its action says whether it was staff's.
	staff := info.Staff || strings.HasSuffix(string(event.Action), "_any")
	id := uuid.Must(uuid.NewV7())
	return []any{
		id, kind, actor, name, string(event.Action), event.Object, event.Target, outcome, ip, info.ID, event.Detail,
		pg.OrNull(event.Org), viaKind, via, staff,
	}
}

// byStaff holds if only a permission on everybody's things allowed the act. Rows older than the column tell by
// their action that it did, or may have.
const byStaff = `coalesce(by_staff, action like '%\_any' or action = 'note.purge')`

// List returns events, the newest first. An organization does not see the address from which platform staff looked
// into it.
func List(ctx context.Context, pool *pgxpool.Pool, filter Filter, w page.Window) ([]Item, error) {
	rows, err := pool.Query(ctx, `
		select id, at, actor_kind, actor_id, actor_name, action, object, target, org_id, outcome,
			case when @org::uuid is null or not `+byStaff+` then host(ip) end as ip, request_id, detail, via_kind, via_id
		from audit_events
		where (@actor::uuid is null or actor_id = @actor)
			and (@org::uuid is null or org_id = @org)
			and (@via::uuid is null or via_id = @via)
			and (@action::text is null or action = @action)
			and (@since::timestamptz is null or at >= @since)
			and (@at::timestamptz is null or (at, id) < (@at, @id))
		order by at desc, id desc
		limit @limit`,
		w.Args(pgx.NamedArgs{
			"actor": pg.OrNull(filter.Actor), "action": pg.OrNull(filter.Action), "org": pg.OrNull(filter.Org), "via": pg.OrNull(filter.Via),
			"since": pg.OrNull(filter.Since),
		}))
	if err != nil {
		return nil, fmt.Errorf("listing the audit record: %w", err)
	}
	return pgx.CollectRows(rows, func(from pgx.CollectableRow) (Item, error) {
		r, err := pgx.RowToStructByName[struct {
			Item
			ActorID, ViaID                *uuid.UUID
			ActorKind, ActorName, ViaKind *string
		}](from)
		if r.ActorID != nil {
			r.Actor = &Actor{ID: *r.ActorID, Kind: *r.ActorKind, Name: *r.ActorName}
		}
		if r.ViaID != nil {
			r.Via = &Via{Kind: *r.ViaKind, ID: *r.ViaID}
		}
		return r.Item, err
	})
}
