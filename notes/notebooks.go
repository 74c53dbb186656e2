package notes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/name"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/problem"
	"noted/internal/space"
	"noted/internal/strictjson"
)

// Notebook is a notebook of an organization. A restricted one and its notes are visible only to callers
// whom the policy admits and to those with a grant.
type Notebook struct {
	ID         uuid.UUID `json:"id"`
	OrgID      uuid.UUID `json:"org_id"`
	Name       string    `json:"name"`
	Restricted bool      `json:"restricted"`
	CreatedAt  time.Time `json:"created_at"`
}

var (
	errNoNotebook = authz.NotFound("notebook")
	errNotEmpty   = problem.New(http.StatusConflict, "There are notes in this notebook, perhaps in the Dead Zone; move them out, or wait until they are purged")
)

func (s *Service) registerNotebooks(api *authz.API) {
	const path = "/v1/orgs/{org}/notebooks"
	tags := []string{"Notebooks"}
	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-notebooks", Method: http.MethodGet, Path: path, Summary: "The notebooks that you may read, the newest first", Tags: tags,
	}, "notebook", "read", authz.Only(s.orgs.Standing), s.listNotebooks)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "create-notebook", Method: http.MethodPost, Path: path, Summary: "Make a notebook", Tags: tags,
		DefaultStatus: http.StatusCreated,
	}, "notebook", "write", authz.Only(s.orgs.Standing), s.createNotebook)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-notebook", Method: http.MethodGet, Path: path + "/{id}", Summary: "One notebook", Tags: tags,
	}, "notebook", "read", s.findTheNotebook, func(_ context.Context, _ *struct{}, found authz.Found[Notebook]) (*notebookOutput, error) {
		return &notebookOutput{found.Thing}, nil
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "change-notebook", Method: http.MethodPatch, Path: path + "/{id}", Summary: "Rename a notebook, restrict it or open it", Tags: tags,
		Description: "Changing whether it is restricted needs `notebook:restricted write`.",
	}, "notebook", "write", s.findTheNotebook, s.changeNotebook)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "delete-notebook", Method: http.MethodDelete, Path: path + "/{id}", Summary: "Delete an empty notebook", Tags: tags,
		Description:   "409 while notes are in it, in the Dead Zone too.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, "notebook", "delete", s.findTheNotebook, s.deleteNotebook)
}

const (
	notebookRole = `coalesce(m.role, case when b.org_id = @service_org then @service_role end)`

	selectNotebooks = `
	select b.id, b.org_id, b.name, b.restricted, b.created_at, coalesce(` + notebookRole + `, '') as role, coalesce(g.access, '') as access
	from notebooks b
	left join memberships m on m.org_id = b.org_id and m.user_id = @user
	left join grants g on g.space_id = b.space_id and g.notebook_id = b.id and g.user_id = @user`

	// visibleNotebook is DecideOn in SQL for reading a notebook, as visible is for notes.
	visibleNotebook = `(
		(not b.restricted and ` + notebookRole + ` = any(@plain_roles))
		or (b.restricted and ` + notebookRole + ` = any(@restricted_roles))
		or g.access = any(@accesses)
	)`
)

func notebookArgs(caller *authz.Principal, more pgx.NamedArgs) pgx.NamedArgs {
	args := pgx.NamedArgs{
		"plain_roles":      caller.RolesFor(authz.Permission{Object: "notebook", Act: "read"}),
		"restricted_roles": caller.RolesFor(authz.Permission{Object: "notebook:restricted", Act: "read"}),
		"accesses":         caller.AccessesFor(authz.Permission{Object: "notebook", Act: "read"}),
	}
	args["user"], args["service_org"], args["service_role"] = who(caller)
	maps.Copy(args, more)
	return args
}

// notebookRow is a notebook with the caller's standing to it.
type notebookRow struct {
	Notebook
	Role, Access string
}

func (r *notebookRow) standing() authz.Standing {
	return authz.Standing{Org: r.OrgID, Role: r.Role, Grant: r.Access, Restricted: r.Restricted}
}

// findNotebook loads a notebook of the organization (its space), or of any with anySpace, and the
// caller's standing to it. It returns errNoNotebook if there is none.
func findNotebook(ctx context.Context, db pg.Querier, caller *authz.Principal, org, id uuid.UUID) (Notebook, authz.Standing, error) {
	rows, err := db.Query(ctx, selectNotebooks+` where `+inSpace("b", org), notebookArgs(caller, pgx.NamedArgs{"id": id, "space": org}))
	if err != nil {
		return Notebook{}, authz.Standing{}, fmt.Errorf("finding a notebook: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[notebookRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return Notebook{}, authz.Standing{}, errNoNotebook
	}
	return r.Notebook, r.standing(), err
}

// findTheNotebook runs the same queries whether the notebook exists or not.
func (s *Service) findTheNotebook(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (Notebook, error), error) {
	outside, err := s.orgs.Standing(ctx, caller, at)
	if err != nil || outside.Role == "" {
		return outside, nil, err
	}
	notebook, standing, err := findNotebook(ctx, s.pool, caller, at.Org, at.ID)
	if err != nil {
		return outside, nil, err
	}
	return standing, func(context.Context) (Notebook, error) { return notebook, nil }, nil
}

type notebookOutput struct{ Body Notebook }

type notebookList struct{ Body page.Of[Notebook] }

func (s *Service) listNotebooks(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*notebookList, error) {
	list, err := page.List(in.Query, "notebooks "+found.At.Org.String(), func(w page.Window) ([]notebookRow, error) {
		rows, err := s.pool.Query(ctx, selectNotebooks+`
			where b.space_id = @space and `+visibleNotebook+`
				and (@at::timestamptz is null or (b.created_at, b.id) < (@at, @id))
			order by b.created_at desc, b.id desc limit @limit`,
			notebookArgs(authz.From(ctx), w.Args(pgx.NamedArgs{"space": found.At.Org})))
		if err != nil {
			return nil, fmt.Errorf("listing notebooks: %w", err)
		}
		return pgx.CollectRows(rows, pgx.RowToStructByName[notebookRow])
	}, func(r notebookRow) page.Position { return page.Position{At: r.CreatedAt, ID: r.ID} })
	return &notebookList{page.Map(list, func(r notebookRow) Notebook { return r.Notebook })}, err
}

// NewNotebook is a request for a notebook.
type NewNotebook struct {
	Name       name.Name                 `json:"name" maxLength:"200" example:"Recipes"`
	Restricted strictjson.Optional[bool] `json:"restricted,omitempty" doc:"false if left out; true needs notebook:restricted write"`
}

type createdNotebook struct {
	Location string `header:"Location"`
	Body     Notebook
}

func (s *Service) createNotebook(ctx context.Context, in *struct{ Body NewNotebook }, found authz.Found[struct{}]) (*createdNotebook, error) {
	org, id := found.At.Org, space.NewID(found.At.Org)
	out := &createdNotebook{Location: "/v1/orgs/" + org.String() + "/notebooks/" + id.String()}
	return out, s.orgs.Write(ctx, org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		caller := authz.From(ctx)
		standing.Restricted = in.Body.Restricted.Value
		if err := caller.Require("notebook", "write", standing); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `insert into notebooks (space_id, id, org_id, name, restricted) values ($1, $2, $1, $3, $4)`,
			org, id, in.Body.Name, in.Body.Restricted.Value); err != nil {
			return fmt.Errorf("making a notebook: %w", err)
		}
		var err error
		if out.Body, _, err = findNotebook(ctx, tx, caller, org, id); err != nil {
			return err
		}
		return recordNotebook(ctx, tx, audit.NotebookCreate, out.Body, out.Body.inRecord())
	})
}

// NotebookChange is a change to a notebook. Omitted members stay.
type NotebookChange struct {
	Name       strictjson.Optional[name.Name] `json:"name,omitempty" maxLength:"200" example:"Family recipes"`
	Restricted strictjson.Optional[bool]      `json:"restricted,omitempty"`
}

func (s *Service) changeNotebook(ctx context.Context, in *struct{ Body NotebookChange }, found authz.Found[Notebook]) (*notebookOutput, error) {
	out := &notebookOutput{}
	return out, s.changeOne(ctx, found.Target, func(ctx context.Context, tx pgx.Tx, was Notebook, standing authz.Standing) error {
		caller, restricted := authz.From(ctx), was.Restricted
		if in.Body.Restricted.Sent && in.Body.Restricted.Value != restricted {
			restricted = in.Body.Restricted.Value
			if err := caller.Require("notebook", "write", authz.Standing{Org: standing.Org, Role: standing.Role, Restricted: true}); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `update notebooks set name = coalesce($3, name), restricted = $4 where space_id = $1 and id = $2`,
			was.OrgID, was.ID, sent(in.Body.Name), restricted)
		if err != nil {
			return fmt.Errorf("changing a notebook: %w", err)
		}
		if out.Body, _, err = findNotebook(ctx, tx, caller, was.OrgID, was.ID); err != nil {
			return err
		}
		change := was.changeTo(out.Body)
		if change == "" {
			return nil
		}
		return recordNotebook(ctx, tx, audit.NotebookChange, was, change)
	})
}

func (s *Service) deleteNotebook(ctx context.Context, _ *struct{}, found authz.Found[Notebook]) (*struct{}, error) {
	return nil, s.changeOne(ctx, found.Target, func(ctx context.Context, tx pgx.Tx, was Notebook, _ authz.Standing) error {
		tag, err := tx.Exec(ctx, `
			delete from notebooks
			where space_id = $1 and id = $2 and not exists (select from notes where space_id = $1 and notebook_id = $2)`, was.OrgID, was.ID)
		if err != nil {
			return fmt.Errorf("deleting a notebook: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errNotEmpty
		}
		return recordNotebook(ctx, tx, audit.NotebookDelete, was, was.inRecord())
	})
}

// recordNotebook records what was done to a notebook.
func recordNotebook(ctx context.Context, tx pgx.Tx, action audit.Action, n Notebook, detail string) error {
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(authz.From(ctx)), Action: action, Object: "notebook", Target: n.ID.String(), Org: n.OrgID, Detail: detail,
	})
}

// inRecord is a notebook's name in the record. Readers of the record may not see restricted
// notebooks, so it does not name those.
func (n Notebook) inRecord() string {
	if n.Restricted {
		return "restricted"
	}
	return n.Name
}

// changeTo describes the change for the record. It is empty if nothing changed.
func (n Notebook) changeTo(is Notebook) string {
	var changes []string
	switch {
	case n.Name == is.Name:
	case n.Restricted || is.Restricted:
		changes = append(changes, "renamed")
	default:
		changes = append(changes, audit.Renamed(n.Name, is.Name))
	}
	switch {
	case !n.Restricted && is.Restricted:
		changes = append(changes, "restricted")
	case n.Restricted && !is.Restricted:
		changes = append(changes, "opened")
	}
	return strings.Join(changes, ", ")
}

// changeOne decides again on the notebook under the lock.
func (s *Service) changeOne(ctx context.Context, found authz.Target, work func(context.Context, pgx.Tx, Notebook, authz.Standing) error) error {
	return s.orgs.Change(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, outside authz.Standing) error {
		was, standing, err := findNotebook(ctx, tx, authz.From(ctx), found.At.Org, found.At.ID)
		if err != nil {
			return found.Gone(ctx, outside, err)
		}
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		return work(ctx, tx, was, standing)
	})
}
