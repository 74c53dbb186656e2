package audit

import (
	"context"
	"fmt"
	"net/netip"

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

const columns = `id, actor_kind, actor_id, actor_name, action, object, target, outcome, ip, request_id, detail, org_id`

// Record writes one row for each event, in the given order, under the request in ctx.
func Record(ctx context.Context, db Execer, events ...Event) error {
	for _, event := range events {
		_, err := db.Exec(ctx, `
			insert into audit_events (`+columns+`)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, row(ctx, event)...)
		if err != nil {
			return fmt.Errorf("recording %s: %w", event.Action, err)
		}
	}
	return nil
}

// RecordFailure writes an auth.fail row about subject (a user's or key's id), unless one
// was written for it within the last minute: an attacker's noise fills no disk. The
// upsert's row lock makes that hold among replicas too.
func RecordFailure(ctx context.Context, pool *pgxpool.Pool, event Event) error {
	event.Action, event.Failure = AuthFail, true
	_, err := pool.Exec(ctx, `
		with due as (
			insert into audit_failures as f (subject, last_at) values ($13, now())
			on conflict (subject) do update set last_at = now()
				where f.last_at <= now() - interval '1 minute'
			returning subject
		)
		insert into audit_events (`+columns+`)
		select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 from due`,
		append(row(ctx, event), event.Object+":"+event.Target)...)
	if err != nil {
		return fmt.Errorf("recording %s: %w", event.Action, err)
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
	id := uuid.Must(uuid.NewV7())
	return []any{id, kind, actor, name, string(event.Action), event.Object, event.Target, outcome, ip, info.ID, event.Detail, orNull(event.Org, event.Org != uuid.Nil)}
}

// List returns up to limit events, newest first, that come after the position.
func List(ctx context.Context, pool *pgxpool.Pool, filter Filter, after page.Position, limit int) ([]Item, error) {
	rows, err := pool.Query(ctx, `
		select id, at, actor_kind, actor_id, actor_name, action, object, target, org_id, outcome,
			host(ip) as ip, request_id, detail
		from audit_events
		where (@actor::uuid is null or actor_id = @actor)
			and (@org::uuid is null or org_id = @org)
			and (@action::text is null or action = @action)
			and (@since::timestamptz is null or at >= @since)
			and (@at::timestamptz is null or (at, id) < (@at, @id))
		order by at desc, id desc
		limit @limit`,
		pgx.NamedArgs{
			"actor": orNull(filter.Actor, filter.Actor != uuid.Nil), "action": orNull(filter.Action, filter.Action != ""),
			"org":   orNull(filter.Org, filter.Org != uuid.Nil),
			"since": orNull(filter.Since, !filter.Since.IsZero()),
			"at":    orNull(after.At, !after.At.IsZero()), "id": orNull(after.ID, !after.At.IsZero()), "limit": limit,
		})
	if err != nil {
		return nil, fmt.Errorf("listing the audit record: %w", err)
	}
	items, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Item, error) {
		var item Item
		var kind, name *string
		var actor *uuid.UUID
		err := row.Scan(&item.ID, &item.At, &kind, &actor, &name, &item.Action, &item.Object, &item.Target,
			&item.OrgID, &item.Outcome, &item.IP, &item.RequestID, &item.Detail)
		if actor != nil {
			item.Actor = &Actor{ID: *actor, Kind: *kind, Name: *name}
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
