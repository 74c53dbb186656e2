package keys

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/page"
	"noted/internal/problem"
	"noted/internal/strictjson"
)

// operations are the room's handlers; policy says which key roles there are, confirm whether
// the caller's credential still holds.
type operations struct {
	*Service
	policy  func() *authz.Policy
	write   func(context.Context, func(pgx.Tx) error) error
	confirm func(context.Context, pgx.Tx) error
}

// Register declares the operations of /v1/keys.
func (s *Service) Register(api *authz.API, users *identity.Service) {
	o := operations{s, users.Policy, users.Write, users.Confirm}
	tags := []string{"API keys"}
	authz.Register(api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/v1/keys", Summary: "Your API keys, the newest first", Tags: tags,
	}, authz.Permission{Object: "key:own", Act: "read"}, o.list)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-key", Method: http.MethodGet, Path: "/v1/keys/{id}", Summary: "One of your API keys", Tags: tags,
	}, "key", "read", s.findOwn, o.get)
	authz.Register(api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: "/v1/keys", Summary: "Make an API key; its secret is shown this once", Tags: tags,
		DefaultStatus: http.StatusCreated,
	}, authz.Permission{Object: "key:own", Act: "write"}, o.create)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "rename-key", Method: http.MethodPatch, Path: "/v1/keys/{id}", Summary: "Rename an API key", Tags: tags,
	}, "key", "write", s.findOwn, o.rename)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "rotate-key", Method: http.MethodPost, Path: "/v1/keys/{id}/rotate", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Give an API key a new secret; the old one works until the overlap ends",
		Description: "The new secret lives as long as the old one was made for. At most two work at a time: a further rotation ends the oldest. 409 for a key that has expired or is revoked.",
	}, "key", "write", s.findOwnOrRevoked, o.rotate)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "revoke-key", Method: http.MethodDelete, Path: "/v1/keys/{id}", Summary: "Revoke an API key", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "key", "delete", s.findOwn, o.revoke)
}

type keyOutput struct{ Body Key }

type listOutput struct{ Body page.Of[Key] }

func (o operations) list(ctx context.Context, in *struct{ page.Query }) (*listOutput, error) {
	const list = "keys"
	after, err := in.After(list)
	if err != nil {
		return nil, err
	}
	rows, err := o.Service.list(ctx, authz.From(ctx).ID, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return &listOutput{page.Make(rows, in.Limit, list, func(k Key) page.Position {
		return page.Position{At: k.CreatedAt, ID: k.ID}
	})}, nil
}

func (o operations) get(_ context.Context, _ *authz.PathID, found authz.Found[Key]) (*keyOutput, error) {
	return &keyOutput{found.Thing}, nil
}

type createInput struct{ Body NewKey }

// NewKey is what a key is made from.
type NewKey struct {
	Name      string                         `json:"name" minLength:"1" maxLength:"100"`
	Role      strictjson.Optional[string]    `json:"role,omitempty" maxLength:"100" doc:"A key role of the policy; key-reader if left out"`
	ExpiresAt strictjson.Optional[time.Time] `json:"expires_at,omitempty" doc:"In 90 days if left out"`
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

func (o operations) create(ctx context.Context, in *createInput) (*createOutput, error) {
	role := DefaultRole
	if in.Body.Role.Sent {
		role = in.Body.Role.Value
	}
	if known := o.policy().KeyRoles(); !slices.Contains(known, role) {
		return nil, problem.Invalid("body.role", "is none of the key roles: %s", strings.Join(known, ", "))
	}
	var until *time.Time
	if in.Body.ExpiresAt.Sent {
		exact := in.Body.ExpiresAt.Value.Truncate(time.Microsecond) // as PostgreSQL keeps it
		until = &exact
	}
	caller := authz.From(ctx)
	out := &createOutput{}
	err := o.write(ctx, func(tx pgx.Tx) error {
		if err := o.confirm(ctx, tx); err != nil {
			return err
		}
		if err := o.checkExpiry(ctx, tx, until); err != nil {
			return err
		}
		id, token, err := o.mint(ctx, tx, identity.ActorOf(caller), in.Body.Name, role, min(DefaultAge, o.config.MaxAge), until)
		out.Body.ID, out.Body.Secret = id, token
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Body.Key, _, err = o.findOwn(ctx, caller, out.Body.ID)
	out.Location = "/v1/keys/" + out.Body.ID.String()
	return out, err
}

// checkExpiry judges by the transaction's own time, at which the key is made.
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

type renameInput struct {
	authz.PathID
	Body KeyName
}

// KeyName is what may change of a key.
type KeyName struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
}

func (o operations) rename(ctx context.Context, in *renameInput, found authz.Found[Key]) (*keyOutput, error) {
	err := o.write(ctx, func(tx pgx.Tx) error {
		if err := o.confirm(ctx, tx); err != nil {
			return err
		}
		return o.Service.rename(ctx, tx, authz.From(ctx).ID, found.Thing.ID, in.Body.Name)
	})
	if err != nil {
		return nil, err
	}
	found.Thing.Name = in.Body.Name
	return &keyOutput{found.Thing}, nil
}

type rotateInput struct {
	authz.PathID
	Body *Rotation
}

// Rotation is how a key gets a new secret.
type Rotation struct {
	Overlap strictjson.Optional[string] `json:"overlap,omitempty" maxLength:"40" doc:"How long the old secret works on, such as 24h, at most until its own end; 0s for not at all. 24h if left out"`
}

// overlap is DefaultOverlap, or what was asked for.
func (r *Rotation) overlap() (time.Duration, error) {
	if r == nil || !r.Overlap.Sent {
		return DefaultOverlap, nil
	}
	overlap, err := time.ParseDuration(r.Overlap.Value)
	if err != nil || overlap < 0 {
		return 0, problem.Invalid("body.overlap", "is no length of time; write 24h, 90m or 0s")
	}
	return overlap, nil
}

func (o operations) rotate(ctx context.Context, in *rotateInput, found authz.Found[Key]) (*createOutput, error) {
	overlap, err := in.Body.overlap()
	if err != nil {
		return nil, err
	}
	caller := authz.From(ctx)
	out := &createOutput{Location: "/v1/keys/" + found.Thing.ID.String()}
	err = o.write(ctx, func(tx pgx.Tx) error {
		if err := o.confirm(ctx, tx); err != nil {
			return err
		}
		out.Body.Secret, err = o.Service.rotate(ctx, tx, identity.ActorOf(caller), found.Thing.ID, overlap)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Body.Key, _, err = o.findOwn(ctx, caller, found.Thing.ID)
	return out, err
}

func (o operations) revoke(ctx context.Context, _ *authz.PathID, found authz.Found[Key]) (*struct{}, error) {
	return nil, o.write(ctx, func(tx pgx.Tx) error {
		if err := o.confirm(ctx, tx); err != nil {
			return err
		}
		return o.Service.revoke(ctx, tx, identity.ActorOf(authz.From(ctx)), found.Thing.ID)
	})
}
