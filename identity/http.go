package identity

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/page"
)

// Register declares the operations of /v1/me.
func (s *Service) Register(api *authz.API) {
	authz.Register(api, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/v1/me", Summary: "Who is calling", Tags: []string{"Me"},
	}, authz.Permission{Object: "self", Act: "read"}, s.me)
	authz.Register(api, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/v1/me/sessions", Summary: "Your live sessions, the newest first", Tags: []string{"Me"},
	}, authz.Permission{Object: "session:own", Act: "read"}, s.sessions)
	authz.Register(api, huma.Operation{
		OperationID: "end-other-sessions", Method: http.MethodDelete, Path: "/v1/me/sessions", Summary: "End all your other sessions", Tags: []string{"Me"},
		DefaultStatus: http.StatusNoContent,
	}, authz.Permission{Object: "session:own", Act: "delete"}, s.endOthers)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "end-session", Method: http.MethodDelete, Path: "/v1/me/sessions/{id}", Summary: "End one of your sessions", Tags: []string{"Me"},
		DefaultStatus: http.StatusNoContent,
	}, "session", "delete", s.findOwnSession, s.endOne)
	s.registerIdentities(api)
}

// ProviderItem is one provider as the sign-in links show it.
type ProviderItem struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Providers returns the configured providers in their order.
func (s *Service) Providers() []ProviderItem {
	items := []ProviderItem{}
	for _, p := range s.config.Providers {
		items = append(items, ProviderItem{p.ID, p.Name})
	}
	return items
}

// Issuer returns a configured provider's issuer; "" if no provider has that id.
func (s *Service) Issuer(provider string) string {
	if p := s.config.Providers.ByID(provider); p != nil {
		return p.Issuer
	}
	return ""
}

// providerID returns the id of the configured provider with the issuer; nil if it is gone.
func (s *Service) providerID(issuer string) *string {
	if p := s.config.Providers.ByIssuer(issuer); p != nil {
		return &p.ID
	}
	return nil
}

// ProviderList is the answer of /auth/providers.
type ProviderList struct {
	Items []ProviderItem `json:"items" nullable:"false"`
}

type providersOutput struct{ Body ProviderList }

func (s *Service) providers(context.Context, *struct{}) (*providersOutput, error) {
	return &providersOutput{ProviderList{s.Providers()}}, nil
}

// Me is who is calling.
type Me struct {
	ID    uuid.UUID `json:"id"`
	Kind  string    `json:"kind" enum:"user,service"`
	Name  string    `json:"name"`
	Email *string   `json:"email"`
	Via   string    `json:"via" enum:"session,key"`
	Roles []string  `json:"roles" nullable:"false" doc:"The platform roles in force"`
	Key   *MeKey    `json:"key" doc:"null by session"`
	Orgs  []MeOrg   `json:"orgs" nullable:"false"`
}

// MeKey is the API key that is calling.
type MeKey struct {
	ID   uuid.UUID `json:"id"`
	Role string    `json:"role"`
}

// MeOrg is an organization that the user is a member of, or that the service works for.
type MeOrg struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
	Role string    `json:"role"`
}

type meOutput struct{ Body Me }

func (s *Service) me(ctx context.Context, _ *struct{}) (*meOutput, error) {
	caller := authz.From(ctx)
	out := &meOutput{Body: Me{
		ID: caller.ID, Kind: caller.Kind, Name: caller.Name, Via: string(caller.Via), Roles: caller.Roles,
	}}
	if caller.Email != "" {
		out.Body.Email = &caller.Email
	}
	if caller.Via == authz.ViaKey {
		out.Body.Key = &MeKey{ID: caller.Key, Role: caller.KeyRole}
	}
	orgs, err := s.config.Orgs(ctx, caller)
	out.Body.Orgs = orgs
	return out, err
}

type sessionsOutput struct{ Body page.Of[Session] }

func (s *Service) sessions(ctx context.Context, in *struct{ page.Query }) (*sessionsOutput, error) {
	list, err := page.List(in.Query, "sessions", func(w page.Window) ([]Session, error) {
		return s.listSessions(ctx, authz.From(ctx), w)
	}, func(one Session) page.Position { return page.Position{At: one.CreatedAt, ID: one.ID} })
	for i := range list.Items {
		list.Items[i].Provider = s.providerID(list.Items[i].Issuer)
	}
	return &sessionsOutput{list}, err
}

func (s *Service) endOne(ctx context.Context, _ *struct{}, found authz.Found[uuid.UUID]) (*struct{}, error) {
	return nil, s.actAlone(ctx, func(ctx context.Context, tx pgx.Tx) error {
		ended, err := endOwnSession(ctx, tx, authz.From(ctx), found.Thing)
		if err == nil && ended == 0 { // another request ended it first
			err = errNoSession
		}
		return err
	})
}

func (s *Service) endOthers(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, s.actAlone(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return endOtherSessions(ctx, tx, authz.From(ctx))
	})
}
