package notes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/problem"
)

// Grant lets a member read, or read and write, one notebook or note, whatever their role.
type Grant struct {
	UserID    uuid.UUID `json:"user_id"`
	Name      string    `json:"name"`
	Access    string    `json:"access" enum:"read,write"`
	CreatedAt time.Time `json:"created_at"`
}

// granted is what a grant is on: an organization's notebook or note.
type granted struct {
	kind   authz.Kind // notebook or note
	column string     // in grants
	// look loads the thing with the caller's standing to it.
	look func(ctx context.Context, db pg.Querier, caller *authz.Principal, org, id uuid.UUID) (authz.Standing, error)
}

var (
	onNotebook = granted{"notebook", "notebook_id", func(ctx context.Context, db pg.Querier, caller *authz.Principal, org, id uuid.UUID) (authz.Standing, error) {
		_, standing, err := findNotebook(ctx, db, caller, org, id)
		return standing, err
	}}
	onNote = granted{"note", "note_id", func(ctx context.Context, db pg.Querier, caller *authz.Principal, org, id uuid.UUID) (authz.Standing, error) {
		r, err := find(ctx, db, caller, org, id, withoutBody)
		return r.standing(), err
	}}
)

var errNoGrant = authz.NotFound("grant")

func (s *Service) registerGrants(api *authz.API, on granted) {
	kind := string(on.kind)
	path := "/v1/orgs/{org}/" + kind + "s/{id}/grants"
	tags := []string{"Grants"}
	find := s.findGranted(on)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-" + kind + "-grants", Method: http.MethodGet, Path: path, Summary: "The grants on a " + kind + ", the newest first", Tags: tags,
	}, "grant", "read", find, func(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*grantList, error) {
		return s.listGrants(ctx, in.Query, on, found.At)
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "set-" + kind + "-grant", Method: http.MethodPut, Path: path + "/{user}", Summary: "Let a member read or write a " + kind, Tags: tags,
		Description: "It adds to the member's role and never takes away. You give only what you may do to it yourself. 422 for somebody who is no member.",
	}, "grant", "write", find, func(ctx context.Context, in *struct {
		Body struct {
			Access string `json:"access" enum:"read,write" example:"write"`
		}
	}, found authz.Found[struct{}],
	) (*grantOutput, error) {
		return s.setGrant(ctx, on, found.Target, in.Body.Access)
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "remove-" + kind + "-grant", Method: http.MethodDelete, Path: path + "/{user}", Summary: "Take a grant on a " + kind + " back", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "grant", "delete", find, func(ctx context.Context, _ *struct{}, found authz.Found[struct{}]) (*struct{}, error) {
		return nil, s.removeGrant(ctx, on, found.Target)
	})
}

// findGranted finds the standing to the organization of a note or notebook; errNoGrant if a member may
// not read it.
func (s *Service) findGranted(on granted) authz.Find[struct{}] {
	return authz.Only(func(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, error) {
		standing, err := s.orgs.Standing(ctx, caller, at)
		if err == nil && standing.Role != "" {
			_, err = on.readable(ctx, s.pool, caller, at)
		}
		return standing, err
	})
}

// readable is the caller's standing to the thing. It returns errNoGrant if they may not read it or it
// is missing: managing grants shows nobody more notes.
func (on granted) readable(ctx context.Context, db pg.Querier, caller *authz.Principal, at authz.Place) (authz.Standing, error) {
	standing, err := on.look(ctx, db, caller, at.Org, at.ID)
	if err == nil {
		_, err = caller.DecideOn(on.kind, "read", standing)
	}
	var missing *problem.Error
	if errors.As(err, &missing) {
		err = errNoGrant
	}
	return standing, err
}

type grantOutput struct{ Body Grant }

type grantList struct{ Body page.Of[Grant] }

func (on granted) selectGrants() string {
	return `
	select g.user_id, p.name, g.access, g.created_at
	from grants g join people p using (user_id)
	where g.space_id = @space and g.` + on.column + ` = @thing`
}

func (s *Service) listGrants(ctx context.Context, in page.Query, on granted, at authz.Place) (*grantList, error) {
	list, err := page.List(in, "grants "+at.ID.String(), func(w page.Window) ([]Grant, error) {
		rows, err := s.pool.Query(ctx, on.selectGrants()+`
			and (@at::timestamptz is null or (g.created_at, g.user_id) < (@at, @id))
			order by g.created_at desc, g.user_id desc limit @limit`, w.Args(pgx.NamedArgs{"space": at.Org, "thing": at.ID}))
		if err != nil {
			return nil, fmt.Errorf("listing grants: %w", err)
		}
		return pgx.CollectRows(rows, pgx.RowToStructByName[Grant])
	}, func(g Grant) page.Position { return page.Position{At: g.CreatedAt, ID: g.UserID} })
	return &grantList{list}, err
}

// changeGrant decides again under the lock, then runs work with the caller's standing to the thing.
func (s *Service) changeGrant(ctx context.Context, on granted, found authz.Target, work func(ctx context.Context, tx pgx.Tx, thing authz.Standing) error) error {
	return s.orgs.Change(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		var thing authz.Standing
		if standing.Role != "" {
			var err error
			if thing, err = on.readable(ctx, tx, authz.From(ctx), found.At); err != nil {
				return found.Gone(ctx, standing, err)
			}
		}
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		return work(ctx, tx, thing)
	})
}

func (s *Service) setGrant(ctx context.Context, on granted, found authz.Target, access string) (*grantOutput, error) {
	at, out := found.At, &grantOutput{}
	return out, s.changeGrant(ctx, on, found, func(ctx context.Context, tx pgx.Tx, thing authz.Standing) error {
		var member bool
		var was string
		err := tx.QueryRow(ctx, `
			select exists (select from memberships where org_id = $1 and user_id = $2),
				coalesce((select access from grants where space_id = $1 and user_id = $2 and `+on.column+` = $3), '')`, at.Org, at.User, at.ID).Scan(&member, &was)
		if err != nil {
			return fmt.Errorf("finding a member: %w", err)
		}
		if was != access {
			if err := authz.From(ctx).GivesAccess(on.kind, thing, access); err != nil {
				return err
			}
		}
		if !member {
			return problem.Invalid("path.user", "is no member of the organization; grants are for members")
		}
		if _, err := tx.Exec(ctx, `
			insert into grants (space_id, user_id, `+on.column+`, access) values ($1, $2, $3, $4)
			on conflict (space_id, user_id, notebook_id, note_id) do update set access = excluded.access`, at.Org, at.User, at.ID, access); err != nil {
			return fmt.Errorf("granting: %w", err)
		}
		rows, err := tx.Query(ctx, on.selectGrants()+` and g.user_id = @user`, pgx.NamedArgs{"space": at.Org, "thing": at.ID, "user": at.User})
		if err != nil {
			return fmt.Errorf("granting: %w", err)
		}
		if out.Body, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Grant]); err != nil {
			return fmt.Errorf("granting: %w", err)
		}
		return on.record(ctx, tx, audit.GrantSet, at, access+" to "+at.User.String())
	})
}

func (s *Service) removeGrant(ctx context.Context, on granted, found authz.Target) error {
	at := found.At
	return s.changeGrant(ctx, on, found, func(ctx context.Context, tx pgx.Tx, _ authz.Standing) error {
		tag, err := tx.Exec(ctx, `delete from grants where space_id = $1 and user_id = $2 and `+on.column+` = $3`, at.Org, at.User, at.ID)
		if err != nil {
			return fmt.Errorf("taking a grant back: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errNoGrant
		}
		return on.record(ctx, tx, audit.GrantRemove, at, "from "+at.User.String())
	})
}

func (on granted) record(ctx context.Context, tx pgx.Tx, action audit.Action, at authz.Place, detail string) error {
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(authz.From(ctx)), Action: action, Object: string(on.kind), Target: at.ID.String(), Org: at.Org, Detail: detail,
	})
}
