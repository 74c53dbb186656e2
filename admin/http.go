package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/problem"
	"noted/orgs"
)

// Register declares the operations under /v1/admin.
func (s *Service) Register(api *authz.API) {
	tags := []string{"Admin"}
	authz.Register(api, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/v1/admin/users", Summary: "Accounts, the newest first", Tags: tags,
	}, authz.Permission{Object: "user:any", Act: "read"}, s.listUsers)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/v1/admin/users/{id}", Summary: "One account", Tags: tags,
	}, "user", "read", s.users.FindUser, s.getUser)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "lock-user", Method: http.MethodPost, Path: "/v1/admin/users/{id}/lock", Summary: "Shut an account out", Tags: tags,
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, "user", "lock", s.users.FindUser, s.lock)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "unlock-user", Method: http.MethodPost, Path: "/v1/admin/users/{id}/unlock", Summary: "Let an account in again", Tags: tags,
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, "user", "lock", s.users.FindUser, s.unlock)
	authz.Register(api, huma.Operation{
		OperationID: "list-orphans", Method: http.MethodGet, Path: "/v1/admin/orgs/without-admin", Tags: tags,
		Summary: "Organizations whose admins are all locked, the newest first",
	}, authz.Permission{Object: "user:any", Act: "read"}, s.listOrphans)
	authz.Register(api, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/admin/audit", Summary: "The security record, the newest first", Tags: tags,
	}, authz.Permission{Object: "audit:any", Act: "read"}, s.listAudit)
	authz.Register(api, huma.Operation{
		OperationID: "get-policy", Method: http.MethodGet, Path: "/v1/admin/policy", Summary: "The policy in force", Tags: tags,
	}, authz.Permission{Object: "policy", Act: "read"}, s.getPolicy)
	authz.Register(api, huma.Operation{
		OperationID: "explain", Method: http.MethodPost, Path: "/v1/admin/explain", Summary: "Whether somebody may do something, and why", Tags: tags,
		Description: "For one user as the policy sees them now, for an API key, whose role narrows what its owner may do, or for a role or a name as in a g line. Of users and keys it is told only to who may read accounts.",
		Errors:      []int{http.StatusNotFound},
	}, authz.Permission{Object: "policy", Act: "explain"}, s.explain)
}

type usersOutput struct{ Body page.Of[identity.User] }

func (s *Service) listUsers(ctx context.Context, in *struct{ page.Query }) (*usersOutput, error) {
	list, err := page.List(in.Query, "users", func(w page.Window) ([]identity.User, error) {
		return s.users.Users(ctx, w)
	}, func(u identity.User) page.Position { return page.Position{At: u.CreatedAt, ID: u.ID} })
	return &usersOutput{list}, err
}

type userOutput struct{ Body identity.UserDetail }

func (s *Service) getUser(ctx context.Context, _ *struct{}, found authz.Found[identity.User]) (*userOutput, error) {
	identities, err := s.users.IdentitiesOf(ctx, found.Thing.ID)
	return &userOutput{identity.UserDetail{User: found.Thing, Identities: identities}}, err
}

func (s *Service) lock(ctx context.Context, _ *struct{}, found authz.Found[identity.User]) (*struct{}, error) {
	return nil, s.setLocked(ctx, found.Thing.ID, true)
}

func (s *Service) unlock(ctx context.Context, _ *struct{}, found authz.Found[identity.User]) (*struct{}, error) {
	return nil, s.setLocked(ctx, found.Thing.ID, false)
}

func (s *Service) setLocked(ctx context.Context, user uuid.UUID, locked bool) error {
	caller := authz.From(ctx)
	if user == caller.ID {
		return problem.New(http.StatusConflict, "You cannot lock or unlock yourself")
	}
	return s.users.SetLocked(ctx, identity.ActorOf(caller), user, locked)
}

type orphansOutput struct{ Body page.Of[orgs.Orphan] }

func (s *Service) listOrphans(ctx context.Context, in *struct{ page.Query }) (*orphansOutput, error) {
	list, err := page.List(in.Query, "orphans", func(w page.Window) ([]orgs.Orphan, error) {
		return s.orgs.Orphans(ctx, w)
	}, func(o orgs.Orphan) page.Position { return page.Position{At: o.CreatedAt, ID: o.ID} })
	return &orphansOutput{list}, err
}

type auditOutput struct{ Body page.Of[audit.Item] }

func (s *Service) listAudit(ctx context.Context, in *struct{ audit.Query }) (*auditOutput, error) {
	shown, err := in.List(ctx, s.pool, uuid.Nil)
	return &auditOutput{shown}, err
}
