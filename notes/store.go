package notes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/page"
)

// querier is the pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// The members of a note, with the owner's name from the view that identity publishes, and
// the caller's relation to it. A personal note is its owner's own and anybody else's "any":
// there is no third way to it, so whoever holds neither note:own as its owner nor note:any
// reads nothing.
const summary = `n.id, n.title, n.owner_id, o.name, n.version, n.created_at, n.updated_at,
	case when n.owner_id = @caller then 'own' else 'any' end as relation`

// row is what the statements below return, in parts: a summary, then a body, then a death.
type row struct {
	note     DeadNote
	relation authz.Relation
}

func (r *row) summary() []any {
	r.note.Owner.Kind = "user"
	return []any{
		&r.note.ID, &r.note.Title, &r.note.Owner.ID, &r.note.Owner.Name, &r.note.Version,
		&r.note.CreatedAt, &r.note.UpdatedAt, &r.relation,
	}
}

func (r *row) death() []any {
	r.note.DeletedBy.Kind = "user"
	return []any{&r.note.DeletedAt, &r.note.DeletedBy.ID, &r.note.DeletedBy.Name, &r.note.PurgeAt}
}

// utc gives times the zone in which they are shown.
func (r *row) utc() {
	for _, t := range []*time.Time{&r.note.CreatedAt, &r.note.UpdatedAt, &r.note.DeletedAt, &r.note.PurgeAt} {
		*t = t.UTC()
	}
}

// find loads one live note with the caller's relation to it, locked if lock says so ("for
// update of n"). errNotFound for one that is deleted or never was.
func find(ctx context.Context, db querier, caller, id uuid.UUID, lock string) (row, error) {
	r, err := one(ctx, db, `
		select `+summary+`, n.body
		from notes n join people o on o.user_id = n.owner_id
		where n.id = @id and n.deleted_at is null `+lock,
		pgx.NamedArgs{"caller": caller, "id": id},
		func(r *row) []any { return append(r.summary(), &r.note.Body) })
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNotFound
	}
	return r, err
}

// findDead is find for the Dead Zone: the same relation, of the same columns.
func (s *Service) findDead(ctx context.Context, db querier, caller, id uuid.UUID, lock string) (row, error) {
	r, err := one(ctx, db, `
		select `+summary+`, n.body, n.deleted_at, d.user_id, d.name, n.deleted_at + @retention::interval
		from notes n join people o on o.user_id = n.owner_id join people d on d.user_id = n.deleted_by
		where n.id = @id and n.deleted_at is not null `+lock,
		pgx.NamedArgs{"caller": caller, "id": id, "retention": s.config.Retention},
		func(r *row) []any { return append(append(r.summary(), &r.note.Body), r.death()...) })
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNotDead
	}
	return r, err
}

func one(ctx context.Context, db querier, sql string, args pgx.NamedArgs, targets func(*row) []any) (row, error) {
	rows, err := db.Query(ctx, sql, args)
	if err != nil {
		return row{}, fmt.Errorf("loading a note: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, scan(targets))
}

func scan(targets func(*row) []any) pgx.RowToFunc[row] {
	return func(from pgx.CollectableRow) (row, error) {
		var r row
		err := from.Scan(targets(&r)...)
		r.utc()
		return r, err
	}
}

// list returns up to limit live notes, the newest change first, after the position: the
// caller's own, or everybody's for who may read them all.
func (s *Service) list(ctx context.Context, caller uuid.UUID, everybody bool, after page.Position, limit int) ([]row, error) {
	which := "and n.owner_id = @caller"
	if everybody {
		which = ""
	}
	rows, err := s.pool.Query(ctx, `
		select `+summary+`
		from notes n join people o on o.user_id = n.owner_id
		where n.deleted_at is null `+which+`
			and (@at::timestamptz is null or (n.updated_at, n.id) < (@at, @id))
		order by n.updated_at desc, n.id desc
		limit @limit`,
		pgx.NamedArgs{"caller": caller, "at": after.TimeOrNull(), "id": after.ID, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("listing notes: %w", err)
	}
	return pgx.CollectRows(rows, scan((*row).summary))
}

// listDead is list for the Dead Zone, the newest deletion first.
func (s *Service) listDead(ctx context.Context, caller uuid.UUID, everybody bool, after page.Position, limit int) ([]row, error) {
	which := "and n.owner_id = @caller"
	if everybody {
		which = ""
	}
	rows, err := s.pool.Query(ctx, `
		select `+summary+`, n.deleted_at, d.user_id, d.name, n.deleted_at + @retention::interval
		from notes n join people o on o.user_id = n.owner_id join people d on d.user_id = n.deleted_by
		where n.deleted_at is not null `+which+`
			and (@at::timestamptz is null or (n.deleted_at, n.id) < (@at, @id))
		order by n.deleted_at desc, n.id desc
		limit @limit`,
		pgx.NamedArgs{"caller": caller, "retention": s.config.Retention, "at": after.TimeOrNull(), "id": after.ID, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("listing the Dead Zone: %w", err)
	}
	return pgx.CollectRows(rows, scan(func(r *row) []any { return append(r.summary(), r.death()...) }))
}

// insert makes a note of the caller's.
func insert(ctx context.Context, db querier, caller uuid.UUID, title, body string) (Note, error) {
	r, err := one(ctx, db, `
		with n as (insert into notes (id, owner_id, title, body) values (@id, @caller, @title, @body) returning *)
		select `+summary+`, n.body
		from n join people o on o.user_id = n.owner_id`,
		pgx.NamedArgs{"id": uuid.Must(uuid.NewV7()), "caller": caller, "title": title, "body": body},
		func(r *row) []any { return append(r.summary(), &r.note.Body) })
	return r.note.Note, err
}

// update writes what is not nil. The row is locked by the same transaction.
func update(ctx context.Context, db querier, id uuid.UUID, title, body *string) error {
	_, err := db.Exec(ctx, `
		update notes
		set title = coalesce($2, title), body = coalesce($3, body), version = version + 1,
			updated_at = greatest(clock_timestamp(), updated_at)
		where id = $1`, id, title, body)
	if err != nil {
		return fmt.Errorf("writing a note: %w", err)
	}
	return nil
}

// bury moves a locked note into the Dead Zone.
func bury(ctx context.Context, db querier, id, by uuid.UUID) error {
	_, err := db.Exec(ctx, `update notes set deleted_at = now(), deleted_by = $2 where id = $1`, id, by)
	if err != nil {
		return fmt.Errorf("deleting a note: %w", err)
	}
	return nil
}

// unbury moves a locked note out of the Dead Zone, as it was.
func unbury(ctx context.Context, db querier, id uuid.UUID) error {
	_, err := db.Exec(ctx, `update notes set deleted_at = null, deleted_by = null where id = $1`, id)
	if err != nil {
		return fmt.Errorf("restoring a note: %w", err)
	}
	return nil
}

// destroy deletes a locked note of the Dead Zone for good.
func destroy(ctx context.Context, db querier, id uuid.UUID) error {
	_, err := db.Exec(ctx, `delete from notes where id = $1 and deleted_at is not null`, id)
	if err != nil {
		return fmt.Errorf("deleting a note for good: %w", err)
	}
	return nil
}

// purgeBatch deletes up to limit notes whose time in the Dead Zone is over by the database's
// clock, with a row for each in the audit record, and returns how many. It takes no note that
// another transaction holds, so replicas may purge at the same time, each note counts once,
// and nothing waits for it.
func (s *Service) purgeBatch(ctx context.Context, limit int) (int, error) {
	var purged int
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			delete from notes
			where id in (
				select id from notes
				where deleted_at <= now() - $1::interval
				order by deleted_at
				limit $2
				for update skip locked)
			returning id`, s.config.Retention, limit)
		if err != nil {
			return fmt.Errorf("purging: %w", err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return fmt.Errorf("purging: %w", err)
		}
		for _, id := range ids {
			if err := audit.Record(ctx, tx, audit.Event{
				Action: audit.NotePurge, Object: "deadzone", Target: id.String(), Detail: "its time in the Dead Zone was over",
			}); err != nil {
				return err
			}
		}
		purged = len(ids)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}
