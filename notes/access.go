package notes

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/page"
)

// Access is what one person or service may do to one note or notebook, and why.
type Access struct {
	ID      uuid.UUID      `json:"id" doc:"The user's; the key's for a service"`
	Kind    string         `json:"kind" enum:"user,service"`
	Name    string         `json:"name"`
	Locked  bool           `json:"locked" doc:"Shut out for now: the account is locked"`
	Acts    []authz.Act    `json:"acts" nullable:"false"`
	Reasons []authz.Reason `json:"reasons" nullable:"false"`

	since time.Time
}

func (s *Service) registerAccess(api *authz.API, on granted) {
	kind := string(on.kind)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-" + kind + "-access", Method: http.MethodGet, Path: "/v1/orgs/{org}/" + kind + "s/{id}/access", Tags: []string{"Grants"},
		Summary:     "Who may do what to a " + kind + ", and why; the newest account or key first",
		Description: "Members, service keys and platform staff, with every reason. A personal API key may do no more than its person.",
	}, "grant", "read", s.findGranted(on), func(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*accessList, error) {
		return s.listAccess(ctx, in.Query, on, found.At)
	})
}

type accessList struct{ Body page.Of[Access] }

func (s *Service) listAccess(ctx context.Context, in page.Query, on granted, at authz.Place) (*accessList, error) {
	list, err := page.List(in, "access "+at.ID.String(), func(w page.Window) ([]Access, error) {
		all, err := s.access(ctx, on, at)
		if after := w.After; !after.At.IsZero() {
			all = slices.DeleteFunc(all, func(a Access) bool {
				return a.since.After(after.At) || a.since.Equal(after.At) && bytes.Compare(a.ID[:], after.ID[:]) >= 0
			})
		}
		return all, err
	}, func(a Access) page.Position { return page.Position{At: a.since, ID: a.ID} })
	return &accessList{list}, err
}

// access is everybody who may do anything to a thing. It looks at members, services, and people to whom
// the policy may give every note of the platform.
func (s *Service) access(ctx context.Context, on granted, at authz.Place) ([]Access, error) {
	// Everybody's standing, once the caller's own role and grant are taken out.
	thing, err := on.look(ctx, s.pool, authz.From(ctx), at.Org, at.ID)
	if err != nil {
		return nil, err
	}
	thing.Role, thing.Grant = "", ""
	policy := s.users.Policy()
	staff, err := s.users.CalledBy(ctx, policy.HoldersOf("note:any"))
	if err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, `
		select p.user_id, p.name, p.locked, p.created_at, p.identities, coalesce(m.role, ''), coalesce(gn.access, ''), coalesce(gb.access, '')
		from people p
		left join memberships m on m.org_id = @org and m.user_id = p.user_id
		left join notes n on n.space_id = @org and n.id = @thing and @is_note
		left join grants gn on gn.space_id = @org and gn.user_id = p.user_id and gn.note_id = n.id
		left join grants gb on gb.space_id = @org and gb.user_id = p.user_id and gb.notebook_id = case when @is_note then n.notebook_id else @thing end
		where m.role is not null or p.user_id = any(@staff)`,
		pgx.NamedArgs{"staff": staff, "org": at.Org, "thing": at.ID, "is_note": on.kind == "note"})
	if err != nil {
		return nil, fmt.Errorf("finding who has access: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Access, error) {
		a, stands := Access{Kind: authz.KindUser}, thing
		var identities []identity.Identity
		var byNote, byNotebook string
		if err := row.Scan(&a.ID, &a.Name, &a.Locked, &a.since, &identities, &stands.Role, &byNote, &byNotebook); err != nil {
			return a, err
		}
		names := s.users.Names(identities)
		p := authz.NewPrincipal(authz.Principal{ID: a.ID, Kind: a.Kind, Via: authz.ViaSession}, policy, names)
		a.Reasons = slices.Concat(p.ReasonsByRole(on.kind, stands), p.ReasonsByGrant(on.kind, stands, "note", byNote),
			p.ReasonsByGrant(on.kind, stands, "notebook", byNotebook), p.ReasonsByPlatform(on.kind, stands, names))
		stands.Grant = max(byNote, byNotebook)
		a.decide(p, on.kind, stands)
		return a, nil
	})
	if err != nil {
		return nil, fmt.Errorf("finding who has access: %w", err)
	}
	rows, err = s.pool.Query(ctx, `select key_id, name, created_at, org_role, key_role from services where org_id = $1 and live`, at.Org)
	if err != nil {
		return nil, fmt.Errorf("finding which services have access: %w", err)
	}
	services, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Access, error) {
		a, stands, p := Access{Kind: authz.KindService}, thing, authz.Principal{Kind: authz.KindService, Via: authz.ViaKey}
		if err := row.Scan(&a.ID, &a.Name, &a.since, &stands.Role, &p.KeyRole); err != nil {
			return a, err
		}
		p.ID, p.Org, p.OrgRole = a.ID, at.Org, stands.Role
		service := authz.NewPrincipal(p, policy, nil)
		a.Reasons = service.ReasonsByRole(on.kind, stands)
		a.decide(service, on.kind, stands)
		return a, nil
	})
	if err != nil {
		return nil, fmt.Errorf("finding which services have access: %w", err)
	}
	all = slices.DeleteFunc(append(all, services...), func(a Access) bool { return len(a.Acts) == 0 })
	slices.SortFunc(all, func(a, b Access) int {
		if c := b.since.Compare(a.since); c != 0 {
			return c
		}
		return bytes.Compare(b.ID[:], a.ID[:])
	})
	return all, nil
}

// decide fills in the acts that DecideOn allows.
func (a *Access) decide(p *authz.Principal, kind authz.Kind, s authz.Standing) {
	a.Acts = []authz.Act{}
	for _, act := range []authz.Act{"read", "write", "delete"} {
		if _, err := p.DecideOn(kind, act, s); err == nil {
			a.Acts = append(a.Acts, act)
		}
	}
}
