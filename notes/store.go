package notes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/space"
)

// columns are a note's own, named like the members of row.
const columns = `n.space_id, n.id, n.title, n.org_id, n.notebook_id, n.version, n.created_at, n.updated_at`

// summary is a note with its owner's name (from the views of identity and keys) and the caller's standing.
const summary = columns + `,
	coalesce(n.owner_id, n.owner_key) as owner_id, coalesce(o.name, k.name) as owner_name, n.owner_key is not null as by_service, ` + standing

// ownSummary is summary for the caller's own personal notes, which need no join to an organization.
// It goes with fromOwn.
const (
	ownSummary = columns + `, n.owner_id, o.name as owner_name, true as own`
	fromOwn    = `
	from notes n
	join people o on o.user_id = n.owner_id`
)

// death is what the Dead Zone adds. fromDead joins the deleter.
const (
	death = `n.deleted_at, coalesce(n.deleted_by, n.deleted_by_key) as deleted_by_id, coalesce(d.name, dk.name) as deleted_by_name,
	n.deleted_by_key is not null as deleted_by_service, n.deleted_at + @retention::interval as purge_at`
	fromDead = from + `
	left join people d on d.user_id = n.deleted_by
	left join services dk on dk.key_id = n.deleted_by_key`
)

// row is a row of the statements below: a summary, with the body, the death, or both. Columns find
// their members by name. Members without a column stay zero.
type row struct {
	DeadNote
	SpaceID                     uuid.UUID
	OwnerID, DeletedByID        uuid.UUID
	OwnerName, DeletedByName    string
	ByService, DeletedByService bool
	Own, Restricted             bool
	Role, Access                string
	Body                        *string // null if not asked for, or not allowed to be read
}

// finish fills in the nested members.
func (r *row) finish() {
	kind := map[bool]string{false: authz.KindUser, true: authz.KindService}
	r.Owner = audit.Actor{ID: r.OwnerID, Kind: kind[r.ByService], Name: r.OwnerName}
	r.DeletedBy = audit.Actor{ID: r.DeletedByID, Kind: kind[r.DeletedByService], Name: r.DeletedByName}
	if r.Body != nil {
		r.Note.Body = *r.Body
	}
}

// standing is the caller's standing.
func (r *row) standing() authz.Standing {
	return authz.Standing{Own: r.Own, Org: orNil(r.OrgID), Role: r.Role, Grant: r.Access, Restricted: r.Restricted}
}

// part is how much of a note to load.
type part bool

// Only operations that show the body load it, and only for callers who may read it. So a refusal takes
// the same time for a large note, a small one, or none.
const (
	withoutBody part = false
	withBody    part = true
)

// column is the body if the condition holds, else null.
func (p part) column(condition string) string {
	if p == withoutBody {
		return "null::text as body"
	}
	return "case when " + condition + " then n.body end as body"
}

// anySpace stands for an unknown space: only the note's or notebook's id is known.
var anySpace = uuid.Nil

// inSpace is the condition that alias has the id @id and, if its space is known, stands in @space.
func inSpace(alias string, in uuid.UUID) string {
	if in == anySpace {
		return alias + ".id = @id"
	}
	return alias + ".space_id = @space and " + alias + ".id = @id"
}

// find loads one live note of a space with the caller's standing to it. It returns errNotFound if the
// note is deleted or unknown. In a user's own space it joins no organization: each such table costs as
// much as the note. If the space is unknown, find tries the caller's own first, alone.
func find(ctx context.Context, db pg.Querier, caller *authz.Principal, in, id uuid.UUID, what part) (row, error) {
	own := caller.Kind == authz.KindUser && (in == anySpace || in == caller.ID)
	r, err := row{}, pgx.ErrNoRows
	if own {
		_, refused := caller.DecideOn("note", "read", authz.Mine)
		r, err = one(ctx, db, `select `+ownSummary+`, `+what.column("@own")+fromOwn+` where `+inSpace("n", caller.ID)+` and n.deleted_at is null`,
			pgx.NamedArgs{"space": caller.ID, "id": id, "own": refused == nil})
	}
	if errors.Is(err, pgx.ErrNoRows) && (!own || in == anySpace) {
		r, err = one(ctx, db, `select `+summary+`, `+what.column(visible)+from+` where `+inSpace("n", in)+` and n.deleted_at is null`,
			arguments(caller, "note", pgx.NamedArgs{"space": in, "id": id}))
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNotFound
	}
	return r, err
}

// spaceOf is the space that a caller can reach. A service reaches only its organization.
func spaceOf(caller *authz.Principal) uuid.UUID {
	if caller.Kind == authz.KindService {
		return caller.Org
	}
	return anySpace
}

// findDead is find for the Dead Zone. It returns errNotDead if there is none.
func (s *Service) findDead(ctx context.Context, db pg.Querier, caller *authz.Principal, in, id uuid.UUID, what part) (row, error) {
	r, err := one(ctx, db, `select `+summary+`, `+what.column(visibleDead)+`, `+death+fromDead+` where `+inSpace("n", in)+` and n.deleted_at is not null`,
		arguments(caller, "deadzone", pgx.NamedArgs{"space": in, "id": id, "retention": s.config.Retention}))
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNotDead
	}
	return r, err
}

// lock locks a note, deleted or not, so that what is found afterwards stays so. One statement that
// locks and joins would see the other tables as they were before it waited.
func lock(ctx context.Context, tx pgx.Tx, in, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `select from notes where space_id = $1 and id = $2 for update`, in, id)
	if err != nil {
		return fmt.Errorf("locking a note: %w", err)
	}
	return nil
}

func one(ctx context.Context, db pg.Querier, sql string, args pgx.NamedArgs) (row, error) {
	rows, err := db.Query(ctx, sql, args)
	if err != nil {
		return row{}, fmt.Errorf("loading a note: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

func scan(from pgx.CollectableRow) (row, error) {
	r, err := pgx.RowToStructByNameLax[row](from)
	r.finish()
	return r, err
}

// which notes a list shows.
type which struct {
	everybody bool      // all notes
	org       uuid.UUID // those of an organization
	notebook  uuid.UUID // those in a notebook
}

// list returns live notes that the caller may read, newest change first: an organization's or a
// notebook's, else everybody's or the caller's personal ones. Those last two were decided before.
func (s *Service) list(ctx context.Context, caller *authz.Principal, w which, part page.Window) ([]row, error) {
	what, condition, in := `select `+summary+from, visible, w.org
	switch {
	case w.notebook != uuid.Nil:
		condition += ` and n.space_id = @space and n.notebook_id = @notebook`
	case w.org != uuid.Nil:
		condition += ` and n.space_id = @space`
	case w.everybody:
		condition = `true`
	default:
		what, condition, in = `select `+ownSummary+fromOwn, `n.space_id = @space`, caller.ID
	}
	rows, err := s.pool.Query(ctx, what+`
		where n.deleted_at is null and `+condition+`
			and (@at::timestamptz is null or (n.updated_at, n.id) < (@at, @id))
		order by n.updated_at desc, n.id desc
		limit @limit`,
		arguments(caller, "note", part.Args(pgx.NamedArgs{"space": in, "notebook": w.notebook})))
	if err != nil {
		return nil, fmt.Errorf("listing notes: %w", err)
	}
	return pgx.CollectRows(rows, scan)
}

// listDead is list for the Dead Zone, by any relation, newest deletion first.
func (s *Service) listDead(ctx context.Context, caller *authz.Principal, part page.Window) ([]row, error) {
	rows, err := s.pool.Query(ctx, `
		select `+summary+`, `+death+fromDead+`
		where n.deleted_at is not null and `+visibleDead+`
			and (@at::timestamptz is null or (n.deleted_at, n.id) < (@at, @id))
		order by n.deleted_at desc, n.id desc
		limit @limit`,
		arguments(caller, "deadzone", part.Args(pgx.NamedArgs{"retention": s.config.Retention})))
	if err != nil {
		return nil, fmt.Errorf("listing the Dead Zone: %w", err)
	}
	return pgx.CollectRows(rows, scan)
}

// insert makes a note of the caller's, in the organization org if not zero, and in its notebook if
// not zero.
func insert(ctx context.Context, tx pgx.Tx, caller *authz.Principal, title, body string, org, notebook uuid.UUID) (Note, error) {
	in := cmp.Or(org, caller.ID)
	id := space.NewID(in)
	user, key := actor(caller)
	_, err := tx.Exec(ctx, `
		insert into notes (space_id, id, owner_id, owner_key, title, body, org_id, notebook_id) values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		in, id, user, key, title, body, pg.OrNull(org), pg.OrNull(notebook))
	if err != nil {
		return Note{}, fmt.Errorf("writing a new note: %w", err)
	}
	r, err := find(ctx, tx, caller, in, id, withoutBody)
	r.Note.Body = body // their own words, even if they may not read the note
	return r.Note, err
}

// actor is who did something, for two columns: a user or a service's key. The other is null.
func actor(caller *authz.Principal) (user, key *uuid.UUID) {
	if caller.Kind == authz.KindService {
		return nil, &caller.ID
	}
	return &caller.ID, nil
}

// update writes the members of a change that were sent; notebook is the note's new notebook. The same transaction has
// locked the row. The clock is read once, outside the update: a database spread over machines takes no volatile
// function inside one.
func update(ctx context.Context, db pg.Querier, in, id uuid.UUID, change NoteChange, notebook *uuid.UUID) error {
	_, err := db.Exec(ctx, `
		with clock as (select clock_timestamp() as at)
		update notes
		set title = coalesce(@title, title), body = coalesce(@body, body),
			notebook_id = @notebook, version = version + 1, updated_at = greatest(clock.at, updated_at)
		from clock
		where space_id = @space and id = @id`, pgx.NamedArgs{
		"space": in, "id": id, "notebook": notebook,
		"title": sent(change.Title), "body": sent(change.Body),
	})
	if err != nil {
		return fmt.Errorf("writing a note: %w", err)
	}
	return nil
}

// deleteNote moves a locked note into the Dead Zone.
func deleteNote(ctx context.Context, db pg.Querier, in, id uuid.UUID, by *authz.Principal) error {
	user, key := actor(by)
	_, err := db.Exec(ctx, `
		update notes set deleted_at = now(), deleted_by = $3, deleted_by_key = $4 where space_id = $1 and id = $2`, in, id, user, key)
	if err != nil {
		return fmt.Errorf("deleting a note: %w", err)
	}
	return nil
}

// deleteNotesOf moves an organization's notes into the Dead Zone. The transaction must hold the
// organization exclusively.
func deleteNotesOf(ctx context.Context, tx pgx.Tx, org uuid.UUID, by *authz.Principal) error {
	user, key := actor(by)
	_, err := tx.Exec(ctx, `
		update notes set deleted_at = now(), deleted_by = $2, deleted_by_key = $3 where space_id = $1 and deleted_at is null`, org, user, key)
	if err != nil {
		return fmt.Errorf("deleting an organization's notes: %w", err)
	}
	return nil
}

// restoreNote moves a locked note out of the Dead Zone, as it was.
func restoreNote(ctx context.Context, db pg.Querier, in, id uuid.UUID) error {
	_, err := db.Exec(ctx, `
		update notes set deleted_at = null, deleted_by = null, deleted_by_key = null where space_id = $1 and id = $2`, in, id)
	if err != nil {
		return fmt.Errorf("restoring a note: %w", err)
	}
	return nil
}

// purgeNote deletes a locked note of the Dead Zone for good.
func purgeNote(ctx context.Context, db pg.Querier, in, id uuid.UUID) error {
	_, err := db.Exec(ctx, `delete from notes where space_id = $1 and id = $2 and deleted_at is not null`, in, id)
	if err != nil {
		return fmt.Errorf("deleting a note for good: %w", err)
	}
	return nil
}

// mayTakeLong lifts statement_timeout for the rest of a transaction, for work that grows with the data.
// ctx ends it.
func mayTakeLong(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `set local statement_timeout = 0`); err != nil {
		return fmt.Errorf("lifting statement_timeout: %w", err)
	}
	return nil
}

// over holds if a note's time in the Dead Zone, @retention, is over by the database's clock.
const over = `deleted_at <= now() - @retention::interval`

// due is a note whose time is over.
type due struct {
	Space, ID uuid.UUID
	DeletedAt time.Time
}

// listDue returns up to limit notes that are due, oldest deletion first, starting after another. It is
// the purge's only read of all spaces, and changes nothing.
func (s *Service) listDue(ctx context.Context, after due, limit int) ([]due, error) {
	rows, err := s.pool.Query(ctx, `
		select space_id, id, deleted_at from notes
		where `+over+` and (deleted_at, id) > (@at::timestamptz, @id)
		order by deleted_at, id
		limit @limit`, pgx.NamedArgs{"retention": s.config.Retention, "at": after.DeletedAt, "id": after.ID, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("finding what to purge: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[due])
	if err != nil {
		return nil, fmt.Errorf("finding what to purge: %w", err)
	}
	return list, nil
}

// purgeSome deletes a space's notes that are due, with an audit row for each, and returns how many. It
// skips notes that another transaction holds. So replicas may purge at the same time, each note counts
// once, and nothing waits.
func (s *Service) purgeSome(ctx context.Context, in uuid.UUID, ids []uuid.UUID) (int, error) {
	purged := 0
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := mayTakeLong(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			delete from notes
			where space_id = @space and id in (
				select id from notes
				where space_id = @space and id = any(@ids) and `+over+`
				for update skip locked)
			returning id, org_id`, pgx.NamedArgs{"retention": s.config.Retention, "space": in, "ids": ids})
		if err != nil {
			return fmt.Errorf("purging: %w", err)
		}
		gone, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
			ID  uuid.UUID
			Org *uuid.UUID
		}])
		if err != nil {
			return fmt.Errorf("purging: %w", err)
		}
		for _, one := range gone {
			if err := audit.Record(ctx, tx, audit.Event{
				Action: audit.NotePurge, Object: "deadzone", Target: one.ID.String(), Org: orNil(one.Org), Detail: "its time in the Dead Zone was over",
			}); err != nil {
				return err
			}
		}
		purged = len(gone)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}

// purgeOrgs erases deleted organizations that have no notes left.
func (s *Service) purgeOrgs(ctx context.Context) error {
	const batch = 100
	var last uuid.UUID
	for {
		rows, err := s.pool.Query(ctx, `select org_id from organizations where deleted and org_id > $1 order by org_id limit $2`, last, batch)
		if err != nil {
			return fmt.Errorf("finding organizations to erase: %w", err)
		}
		deleted, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return fmt.Errorf("finding organizations to erase: %w", err)
		}
		for _, org := range deleted {
			if err := s.purgeOrg(ctx, org); err != nil {
				return fmt.Errorf("erasing an organization: %w", err)
			}
		}
		if len(deleted) < batch {
			return nil
		}
		last = deleted[batch-1]
	}
}

// purgeOrg erases a deleted organization if it has no notes left. A deleted one gets no new notes.
func (s *Service) purgeOrg(ctx context.Context, org uuid.UUID) error {
	var waits bool
	if err := s.pool.QueryRow(ctx, `select exists (select from notes where space_id = $1)`, org).Scan(&waits); err != nil || waits {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := mayTakeLong(ctx, tx); err != nil {
			return err
		}
		if _, err := s.orgs.Hold(ctx, tx, org); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from notebooks where space_id = $1`, org); err != nil {
			return err
		}
		return s.orgs.Erase(ctx, tx, org)
	})
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}
