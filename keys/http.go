package keys

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/duration"
	"noted/internal/name"
	"noted/internal/page"
	"noted/internal/problem"
	"noted/internal/strictjson"
)

// Organizations is what this room needs from package orgs, which imports it.
type Organizations interface {
	// Standing is the caller's standing to the organization.
	Standing(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, error)
	// Write confirms the caller and runs work in a transaction, with the confirmed caller in its context.
	// The caller's standing cannot change meanwhile.
	Write(ctx context.Context, org uuid.UUID, work func(context.Context, pgx.Tx, authz.Standing) error) error
	// KeyRevoked ends a service's invitations.
	KeyRevoked(ctx context.Context, tx pgx.Tx, org, key uuid.UUID) error
}

// operations are the handlers for personal keys and for an organization's.
type operations struct {
	*Service
	users *identity.Service
	orgs  Organizations // nil for personal keys
}

// Register declares the operations of /v1/keys.
func (s *Service) Register(api *authz.API, users *identity.Service) {
	o := operations{s, users, nil}
	tags := []string{"API keys"}
	authz.Register(api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/v1/keys", Summary: "Your API keys, the newest first", Tags: tags,
	}, authz.Permission{Object: "key:own", Act: "read"}, func(ctx context.Context, in *struct{ page.Query }) (*listOutput, error) {
		return o.list(ctx, in.Query, ownerOf(ctx, authz.Place{}))
	})
	authz.Register(api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: "/v1/keys", Summary: "Make an API key; its secret is shown this once", Tags: tags,
		DefaultStatus: http.StatusCreated,
	}, authz.Permission{Object: "key:own", Act: "write"}, func(ctx context.Context, in *struct{ Body NewKey }) (*createOutput, error) {
		return o.create(ctx, in.Body, authz.Target{}, "")
	})
	o.registerOne(api, "", "/v1/keys/{id}", tags)
}

// RegisterOrgs declares the operations on organizations' service keys.
func (s *Service) RegisterOrgs(api *authz.API, users *identity.Service, orgs Organizations) {
	o := operations{s, users, orgs}
	const path = "/v1/orgs/{org}/keys"
	tags := []string{"Organizations"}
	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-org-keys", Method: http.MethodGet, Path: path, Summary: "An organization's service keys, the newest first", Tags: tags,
	}, "key", "read", authz.Only(orgs.Standing), func(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*listOutput, error) {
		return o.list(ctx, in.Query, ownerOf(ctx, found.At))
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "create-org-key", Method: http.MethodPost, Path: path, Summary: "Make a service key; its secret is shown this once", Tags: tags,
		Description: "It acts for nobody: what it may do is what its role in the organization and its key role both allow, in this organization alone. It works on when who made it is no member any more, unless its secrets are ended then.", DefaultStatus: http.StatusCreated,
	}, "key", "write", authz.Only(orgs.Standing), func(ctx context.Context, in *struct{ Body NewOrgKey }, found authz.Found[struct{}]) (*createOutput, error) {
		return o.create(ctx, in.Body.NewKey, found.Target, in.Body.OrgRole)
	})
	o.registerOne(api, "org-", path+"/{id}", tags)
}

// registerOne declares the operations on one key.
func (o operations) registerOne(api *authz.API, prefix, path string, tags []string) {
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-" + prefix + "key", Method: http.MethodGet, Path: path, Summary: "One API key", Tags: tags,
	}, "key", "read", o.finder(false), func(_ context.Context, _ *struct{}, found authz.Found[Key]) (*keyOutput, error) {
		return &keyOutput{found.Thing}, nil
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "rename-" + prefix + "key", Method: http.MethodPatch, Path: path, Summary: "Rename an API key", Tags: tags,
	}, "key", "write", o.finder(false), func(ctx context.Context, in *struct{ Body KeyName }, found authz.Found[Key]) (*keyOutput, error) {
		return o.rename(ctx, in.Body, found)
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "rotate-" + prefix + "key", Method: http.MethodPost, Path: path + "/rotate", Tags: tags, DefaultStatus: http.StatusCreated, Errors: []int{http.StatusConflict},
		Summary:     "Give an API key a new secret; the old one works until the overlap ends",
		Description: "The new secret lives as long as the old one was made for. At most two work at a time: a further rotation ends the oldest. 409 for a key that has expired or is revoked. 403 for who lacks what is in a service key's role in the organization.",
	}, "key", "write", o.rotatable(), func(ctx context.Context, in *struct{ Body *Rotation }, found authz.Found[Key]) (*createOutput, error) {
		return o.rotate(ctx, in.Body, found)
	})
	authz.RegisterOn(api, huma.Operation{
		OperationID: "revoke-" + prefix + "key", Method: http.MethodDelete, Path: path, Summary: "Revoke an API key", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "key", "delete", o.finder(false), func(ctx context.Context, _ *struct{}, found authz.Found[Key]) (*struct{}, error) {
		return nil, o.revoke(ctx, found)
	})
}

// ownerOf is the owner of an operation's keys: the caller or an organization.
func ownerOf(ctx context.Context, at authz.Place) Owner {
	if at.Org != uuid.Nil {
		return Owner{Org: at.Org}
	}
	return Owner{User: authz.From(ctx).ID}
}

// finder finds keys. If revoked is true, revoked keys are found too.
func (o operations) finder(revoked bool) authz.Find[Key] {
	stand := func(context.Context, *authz.Principal, authz.Place) (authz.Standing, error) { return authz.Mine, nil }
	if o.orgs != nil {
		stand = o.orgs.Standing
	}
	return authz.Then(stand, func(ctx context.Context, at authz.Place) (Key, error) {
		return o.find(ctx, ownerOf(ctx, at), at.ID, revoked)
	})
}

// rotatable is finder for a rotation, revoked keys included. Seeing a service key's secret gives its
// role, so the caller must hold all of that role.
func (o operations) rotatable() authz.Find[Key] {
	find := o.finder(true)
	if o.orgs == nil {
		return find
	}
	return func(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (Key, error), error) {
		standing, load, err := find(ctx, caller, at)
		return standing, func(ctx context.Context) (Key, error) {
			key, err := load(ctx)
			if err == nil {
				err = caller.GivesRole(standing, key.OrgRole)
			}
			return key, err
		}, err
	}
}

// write runs work in a transaction, after confirming the caller. In an organization it also decides the
// permission again, and whether the caller may give the role gives, if any.
func (o operations) write(ctx context.Context, found authz.Target, gives string, work func(context.Context, pgx.Tx) error) error {
	if o.orgs == nil {
		return o.users.Act(ctx, work)
	}
	defer o.users.Forget()
	return o.orgs.Write(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		if gives != "" {
			if err := authz.From(ctx).GivesRole(standing, gives); err != nil {
				return err
			}
		}
		return work(ctx, tx)
	})
}

type keyOutput struct{ Body Key }

type listOutput struct{ Body page.Of[Key] }

func (o operations) list(ctx context.Context, in page.Query, owner Owner) (*listOutput, error) {
	list, err := page.List(in, "keys "+owner.Org.String(), func(w page.Window) ([]Key, error) {
		return o.Service.list(ctx, owner, w)
	}, func(k Key) page.Position { return page.Position{At: k.CreatedAt, ID: k.ID} })
	return &listOutput{list}, err
}

// NewKey is a request for a key.
type NewKey struct {
	Name      name.Name                      `json:"name" maxLength:"100" example:"backup"`
	Role      strictjson.Optional[string]    `json:"role,omitempty" maxLength:"100" example:"key-reader" doc:"A key role of the policy; key-reader if left out"`
	ExpiresAt strictjson.Optional[time.Time] `json:"expires_at,omitempty" doc:"In 90 days if left out"`
}

// NewOrgKey is a request for a service key.
type NewOrgKey struct {
	NewKey
	OrgRole string `json:"org_role" enum:"admin,writer,reader" example:"reader" doc:"Its role in the organization, none that includes what you lack there"`
}

type createOutput struct {
	Location string `header:"Location"`
	Body     MintedKey
}

// MintedKey is a new key with its secret.
type MintedKey struct {
	Key
	Secret Token `json:"secret" doc:"The key itself; it cannot be read again"`
}

// create makes the caller's own key, or a service key with orgRole.
func (o operations) create(ctx context.Context, in NewKey, found authz.Target, orgRole string) (*createOutput, error) {
	role := DefaultRole
	if in.Role.Sent {
		role = in.Role.Value
	}
	if known := o.users.Policy().KeyRoles(); !slices.Contains(known, role) {
		return nil, problem.Invalid("body.role", "is none of the key roles: %s", strings.Join(known, ", "))
	}
	var until *time.Time
	if in.ExpiresAt.Sent {
		exact := in.ExpiresAt.Value.Truncate(time.Microsecond) // as PostgreSQL keeps it
		until = &exact
	}
	owner, out := ownerOf(ctx, found.At), &createOutput{}
	owner.OrgRole = orgRole
	err := o.write(ctx, found, orgRole, func(ctx context.Context, tx pgx.Tx) error {
		if err := o.checkExpiry(ctx, tx, until); err != nil {
			return err
		}
		id, token, err := o.mint(ctx, tx, identity.ActorOf(authz.From(ctx)), owner, string(in.Name), role, min(DefaultAge, o.config.MaxAge), until)
		out.Body.ID, out.Body.Secret = id, token
		return err
	})
	if err != nil {
		return nil, err
	}
	return o.minted(ctx, out, owner, out.Body.ID)
}

// minted completes the answer with a new secret.
func (o operations) minted(ctx context.Context, out *createOutput, owner Owner, id uuid.UUID) (_ *createOutput, err error) {
	out.Location = "/v1/keys/" + id.String()
	if owner.Org != uuid.Nil {
		out.Location = "/v1/orgs/" + owner.Org.String() + "/keys/" + id.String()
	}
	out.Body.Key, err = o.find(ctx, owner, id, false)
	return out, err
}

// checkExpiry compares with the transaction's time, when the key is made.
func (o operations) checkExpiry(ctx context.Context, tx pgx.Tx, until *time.Time) error {
	if until == nil {
		return nil
	}
	var now time.Time
	err := tx.QueryRow(ctx, `select now()`).Scan(&now)
	switch {
	case err != nil:
		return err
	case !until.After(now):
		return problem.Invalid("body.expires_at", "is in the past; the time here is %s", now.UTC().Format(time.RFC3339))
	case until.After(now.Add(o.config.MaxAge)):
		return problem.Invalid("body.expires_at", "is too far away; at most %s from now", o.config.MaxAge)
	}
	return nil
}

// KeyName is a change to a key.
type KeyName struct {
	Name name.Name `json:"name" maxLength:"100" example:"nightly backup"`
}

func (o operations) rename(ctx context.Context, in KeyName, found authz.Found[Key]) (*keyOutput, error) {
	err := o.write(ctx, found.Target, "", func(ctx context.Context, tx pgx.Tx) error {
		return o.Service.rename(ctx, tx, ownerOf(ctx, found.At), found.Thing.ID, string(in.Name))
	})
	if err != nil {
		return nil, err
	}
	found.Thing.Name = string(in.Name)
	return &keyOutput{found.Thing}, nil
}

// Rotation is a request for a new secret.
type Rotation struct {
	Overlap strictjson.Optional[string] `json:"overlap,omitempty" maxLength:"40" example:"24h" doc:"How long the old secret works on, such as 24h or 7d, at most until its own end; 0s for not at all. 24h if left out"`
}

// overlap is what was sent, else DefaultOverlap.
func (r *Rotation) overlap() (time.Duration, error) {
	if r == nil || !r.Overlap.Sent {
		return DefaultOverlap, nil
	}
	overlap, err := duration.Parse(r.Overlap.Value)
	if err != nil {
		return 0, problem.Invalid("body.overlap", "%s", err.Error())
	}
	if overlap < 0 {
		return 0, problem.Invalid("body.overlap", "must not be negative; write 0s for no overlap")
	}
	return overlap, nil
}

func (o operations) rotate(ctx context.Context, in *Rotation, found authz.Found[Key]) (*createOutput, error) {
	overlap, err := in.overlap()
	if err != nil {
		return nil, err
	}
	owner, out := ownerOf(ctx, found.At), &createOutput{}
	err = o.write(ctx, found.Target, found.Thing.OrgRole, func(ctx context.Context, tx pgx.Tx) error {
		out.Body.Secret, err = o.Service.rotate(ctx, tx, identity.ActorOf(authz.From(ctx)), owner, found.Thing.ID, overlap)
		return err
	})
	if err != nil {
		return nil, err
	}
	return o.minted(ctx, out, owner, found.Thing.ID)
}

func (o operations) revoke(ctx context.Context, found authz.Found[Key]) error {
	return o.write(ctx, found.Target, "", func(ctx context.Context, tx pgx.Tx) error {
		if o.orgs != nil {
			if err := o.orgs.KeyRevoked(ctx, tx, found.At.Org, found.Thing.ID); err != nil {
				return err
			}
		}
		return o.Service.revoke(ctx, tx, identity.ActorOf(authz.From(ctx)), ownerOf(ctx, found.At), found.Thing.ID)
	})
}
