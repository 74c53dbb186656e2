package orgs

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/name"
	"noted/internal/page"
	"noted/internal/problem"
	"noted/internal/request"
)

// Register declares the operations on organizations, members, invitations and service keys. end is
// what package notes does with an ending organization's notes.
func (s *Service) Register(api *authz.API, end func(context.Context, pgx.Tx, uuid.UUID) error) {
	tags := []string{"Organizations"}
	findOrg := authz.Then(s.Standing, func(ctx context.Context, at authz.Place) (Org, error) {
		return find(ctx, s.pool, authz.From(ctx), at.Org)
	})
	findMember := authz.Then(s.standingToMember, func(ctx context.Context, at authz.Place) (Member, error) {
		return findMember(ctx, s.pool, at.Org, at.User)
	})
	findInvitation := authz.Then(s.Standing, func(ctx context.Context, at authz.Place) (Invitation, error) {
		return findInvitation(ctx, s.pool, at.Org, at.ID)
	})
	authz.Register(api, huma.Operation{
		OperationID: "create-org", Method: http.MethodPost, Path: "/v1/orgs", Summary: "Make an organization, whose admin you are", Tags: tags,
		Description:   "429 with Retry-After for who has made too many in a day, deleted ones too.",
		DefaultStatus: http.StatusCreated, Errors: []int{http.StatusTooManyRequests},
	}, authz.Permission{Object: "org", Act: "create"}, s.createOrg)
	authz.Register(api, huma.Operation{
		OperationID: "list-orgs", Method: http.MethodGet, Path: "/v1/orgs", Summary: "Your organizations, the newest first", Tags: tags,
	}, authz.Permission{Object: "self", Act: "read"}, s.listMine)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-org", Method: http.MethodGet, Path: "/v1/orgs/{org}", Summary: "One organization", Tags: tags,
	}, "org", "read", findOrg, s.get)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "rename-org", Method: http.MethodPatch, Path: "/v1/orgs/{org}", Summary: "Rename an organization", Tags: tags,
	}, "org", "write", findOrg, s.rename)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "delete-org", Method: http.MethodDelete, Path: "/v1/orgs/{org}", Summary: "Delete an organization", Tags: tags,
		Description:   "Its notes go into the Dead Zone, from which none can be restored any more; its keys and invitations end at once.",
		DefaultStatus: http.StatusNoContent,
	}, "org", "delete", findOrg, func(ctx context.Context, _ *struct{}, found authz.Found[Org]) (*struct{}, error) {
		return nil, s.delete(ctx, found.Target, end)
	})

	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-members", Method: http.MethodGet, Path: "/v1/orgs/{org}/members", Summary: "Who is in an organization, the latest first", Tags: tags,
	}, "member", "read", authz.Only(s.Standing), s.members)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "change-member", Method: http.MethodPatch, Path: "/v1/orgs/{org}/members/{user}", Summary: "Give a member another role", Tags: tags,
		Description: "None that includes what you lack there. 409 when it would leave no admin whose account is not locked. Invitations that the member made end. 409 as well when an admin who was shown live secrets of service keys here becomes less, unless `service_keys` says what becomes of them by who holds `key:org delete`.", Errors: []int{http.StatusConflict},
	}, "member", "write", findMember, s.changeMember)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "remove-member", Method: http.MethodDelete, Path: "/v1/orgs/{org}/members/{user}", Summary: "Remove a member, or leave", Tags: tags,
		Description:   "409 when it would leave no admin whose account is not locked. The member's grants here and the invitations they made end; their notes stay. 409 as well for an admin who was shown live secrets of service keys here, unless `service_keys` says what becomes of them by who holds `key:org delete`; who leaves has only `end`.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, "member", "delete", findMember, s.removeMember)

	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-invitations", Method: http.MethodGet, Path: "/v1/orgs/{org}/invitations", Summary: "Invitations that wait, the newest first", Tags: tags,
	}, "invitation", "read", authz.Only(s.Standing), s.invitations)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "create-invitation", Method: http.MethodPost, Path: "/v1/orgs/{org}/invitations", Summary: "Invite somebody; the token is shown this once", Tags: tags,
		Description:   "For one verified e-mail, once, with a role that includes nothing that you lack there. It is also sent by mail when the server has one.",
		DefaultStatus: http.StatusCreated,
	}, "invitation", "write", authz.Only(s.Standing), s.createInvitation)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "revoke-invitation", Method: http.MethodDelete, Path: "/v1/orgs/{org}/invitations/{id}", Summary: "Revoke an invitation", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "invitation", "delete", findInvitation, s.revokeInvitation)
	authz.Register(api, huma.Operation{
		OperationID: "accept-invitation", Method: http.MethodPost, Path: "/v1/invitations/accept", Summary: "Become a member by an invitation", Tags: tags,
		Description: "404 for a token that is unknown, used, revoked, expired or for another's e-mail, alike; 409 for who is a member already.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
	}, InvitationAccept, s.acceptInvitation)

	authz.RegisterOn(api, huma.Operation{
		OperationID: "list-org-audit", Method: http.MethodGet, Path: "/v1/orgs/{org}/audit", Summary: "An organization's security record, the newest first", Tags: tags,
		Description: "What its members and keys did to it, and what platform staff did to its notes.",
	}, "audit", "read", authz.Only(s.Standing), s.audit)
	s.keys.RegisterOrgs(api, s.users, s)
}

// standingToMember is Standing, with Own for the caller themselves.
func (s *Service) standingToMember(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, error) {
	found, err := s.Standing(ctx, caller, at)
	found.Own = caller.Kind == authz.KindUser && caller.ID == at.User
	return found, err
}

// OrgName is the request for an organization, or for a change to one.
type OrgName struct {
	Name name.Name `json:"name" maxLength:"200" example:"Gardeners"`
}

type orgOutput struct{ Body Org }

type createdOrg struct {
	Location string `header:"Location"`
	Body     Org
}

func (s *Service) createOrg(ctx context.Context, in *struct{ Body OrgName }) (*createdOrg, error) {
	out := &createdOrg{}
	err := s.users.Act(ctx, func(ctx context.Context, tx pgx.Tx) error {
		caller := authz.From(ctx)
		id, err := s.create(ctx, tx, caller, string(in.Body.Name))
		if err != nil {
			return err
		}
		out.Body, err = find(ctx, tx, caller, id)
		return err
	})
	out.Location = "/v1/orgs/" + out.Body.ID.String()
	return out, err
}

type orgList struct{ Body page.Of[Org] }

func (s *Service) listMine(ctx context.Context, in *struct{ page.Query }) (*orgList, error) {
	list, err := page.List(in.Query, "orgs", func(w page.Window) ([]Org, error) {
		return s.list(ctx, authz.From(ctx), w)
	}, func(o Org) page.Position { return page.Position{At: o.CreatedAt, ID: o.ID} })
	return &orgList{list}, err
}

func (s *Service) get(_ context.Context, _ *struct{}, found authz.Found[Org]) (*orgOutput, error) {
	return &orgOutput{found.Thing}, nil
}

func (s *Service) rename(ctx context.Context, in *struct{ Body OrgName }, found authz.Found[Org]) (*orgOutput, error) {
	out := &orgOutput{}
	// Exclusively: two that share the row would deadlock changing it.
	err := s.Change(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		caller := authz.From(ctx)
		err := rename(ctx, tx, caller, found.At.Org, string(in.Body.Name))
		if err != nil {
			return err
		}
		out.Body, err = find(ctx, tx, caller, found.At.Org)
		return err
	})
	return out, err
}

func (s *Service) delete(ctx context.Context, found authz.Target, end func(context.Context, pgx.Tx, uuid.UUID) error) error {
	org := found.At.Org
	return s.Change(ctx, org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		if err := end(ctx, tx, org); err != nil {
			return err
		}
		return s.deleteOrg(ctx, tx, authz.From(ctx), org)
	})
}

type memberList struct{ Body page.Of[Member] }

func (s *Service) members(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*memberList, error) {
	list, err := page.List(in.Query, "members "+found.At.Org.String(), func(w page.Window) ([]Member, error) {
		return s.listMembers(ctx, found.At.Org, w)
	}, func(m Member) page.Position { return page.Position{At: m.JoinedAt, ID: m.UserID} })
	return &memberList{list}, err
}

type memberOutput struct{ Body Member }

// MemberChange is a change to a member.
type MemberChange struct {
	Role string `json:"role" enum:"admin,writer,reader" example:"writer"`
}

// KeysQuery says what becomes of service keys when a member stops being an admin.
type KeysQuery struct {
	ServiceKeys string `query:"service_keys" enum:"end,keep" example:"end" doc:"What becomes of service keys' live secrets that the member was shown, when the role admin is taken from them: end them, or keep them"`
}

func (s *Service) changeMember(ctx context.Context, in *struct {
	KeysQuery
	Body MemberChange
}, found authz.Found[Member],
) (*memberOutput, error) {
	out := &memberOutput{}
	err := s.changeOne(ctx, found.Target, func(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member) error {
		if err := s.setRole(ctx, tx, standing, was, in.Body.Role, keysOf(in.ServiceKeys)); err != nil {
			return err
		}
		var err error
		out.Body, err = findMember(ctx, tx, found.At.Org, found.At.User)
		return err
	})
	return out, err
}

func (s *Service) removeMember(ctx context.Context, in *struct{ KeysQuery }, found authz.Found[Member]) (*struct{}, error) {
	if found.Standing.Own && keysOf(in.ServiceKeys) == keysKeep {
		return nil, problem.Invalid("query.service_keys", "must be end: who leaves keeps no key")
	}
	return nil, s.changeOne(ctx, found.Target, func(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member) error {
		return s.remove(ctx, tx, standing, was, keysOf(in.ServiceKeys))
	})
}

// changeOne decides again on the member, under the exclusive lock.
func (s *Service) changeOne(ctx context.Context, found authz.Target, work func(context.Context, pgx.Tx, authz.Standing, Member) error) error {
	return s.Change(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		standing.Own = found.Standing.Own
		was, err := findMember(ctx, tx, found.At.Org, found.At.User)
		if err != nil {
			return found.Gone(ctx, standing, err)
		}
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		return work(ctx, tx, standing, was)
	})
}

type invitationList struct{ Body page.Of[Invitation] }

func (s *Service) invitations(ctx context.Context, in *struct{ page.Query }, found authz.Found[struct{}]) (*invitationList, error) {
	list, err := page.List(in.Query, "invitations "+found.At.Org.String(), func(w page.Window) ([]Invitation, error) {
		return s.listInvitations(ctx, found.At.Org, w)
	}, func(i Invitation) page.Position { return page.Position{At: i.CreatedAt, ID: i.ID} })
	return &invitationList{list}, err
}

// NewInvitation is a request for an invitation.
type NewInvitation struct {
	Email string `json:"email" minLength:"3" maxLength:"320" example:"bob@example.com"`
	Role  string `json:"role" enum:"admin,writer,reader" example:"writer"`
}

// MadeInvitation is a new invitation with its token.
type MadeInvitation struct {
	Invitation
	Token  Token  `json:"token" doc:"It cannot be read again"`
	URL    string `json:"url" doc:"Where the invited person accepts; the token stands in the fragment"`
	Mailed bool   `json:"mailed" doc:"Whether the mail server took it; if not, hand on the url"`
}

type createdInvitation struct {
	Location string `header:"Location"`
	Body     MadeInvitation
}

func (s *Service) createInvitation(ctx context.Context, in *struct{ Body NewInvitation }, found authz.Found[struct{}]) (*createdInvitation, error) {
	email, err := plainEmail(in.Body.Email)
	if err != nil {
		return nil, err
	}
	org, out := found.At.Org, &createdInvitation{}
	var called, inviter string
	var mails bool
	// Exclusively: if the caller lost their role meanwhile, nobody would revoke this invitation.
	err = s.Change(ctx, org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		caller := authz.From(ctx)
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		if err := caller.GivesRole(standing, in.Body.Role); err != nil {
			return err
		}
		inviter = caller.Name
		if err := tx.QueryRow(ctx, `select name from orgs where id = $1`, org).Scan(&called); err != nil {
			return err
		}
		var err error
		if out.Body.Invitation, out.Body.Token, err = s.invite(ctx, tx, caller, org, email, in.Body.Role); err != nil {
			return err
		}
		if s.config.Mail == nil {
			return nil
		}
		person, err := s.keys.Behind(ctx, tx, caller)
		if err != nil {
			return err
		}
		mails, err = mailsPerHour.countAll(ctx, tx, org, person)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Location = "/v1/orgs/" + org.String() + "/invitations/" + out.Body.ID.String()
	out.Body.URL = s.link(out.Body.Token)
	out.Body.Mailed = mails && s.mail(ctx, called, inviter, out.Body)
	return out, nil
}

// mail sends an invitation that is already stored, and reports whether it could.
func (s *Service) mail(ctx context.Context, org, inviter string, made MadeInvitation) bool {
	err := s.config.Mail.invite(ctx, made.Email, org, inviter, made.Role, made.URL, made.ExpiresAt)
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelError, "an invitation could not be mailed",
			slog.String("request_id", request.From(ctx).ID), slog.String("invitation", made.ID.String()), slog.Any("error", err))
	}
	return err == nil
}

func (s *Service) revokeInvitation(ctx context.Context, _ *struct{}, found authz.Found[Invitation]) (*struct{}, error) {
	return nil, s.Write(ctx, found.At.Org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
		if _, err := found.Again(ctx, standing); err != nil {
			return err
		}
		return revoke(ctx, tx, authz.From(ctx), found.At.Org, found.At.ID)
	})
}

type acceptInput struct {
	Body struct {
		Token Token `json:"token" maxLength:"200" example:"0Q3YtR7bVwFzKk2mXcJpLs8dNhGuAe5iTo9rWyBvCf1"`
	}
}

type acceptOutput struct {
	Body struct {
		OrgID uuid.UUID `json:"org_id"`
		Role  string    `json:"role"`
	}
}

func (s *Service) acceptInvitation(ctx context.Context, in *acceptInput) (*acceptOutput, error) {
	out := &acceptOutput{}
	var err error
	out.Body.OrgID, out.Body.Role, err = s.Accept(ctx, in.Body.Token)
	return out, err
}

// Accept makes the caller a member by an invitation, and returns the organization and role. It
// returns errNoInvitation if the token does not count, for any reason; errMember for a member.
func (s *Service) Accept(ctx context.Context, token Token) (org uuid.UUID, role string, err error) {
	err = s.users.Write(ctx, func(tx pgx.Tx) error {
		// The organization first, like every change to one: its holder may wait for the caller's row,
		// which Confirm shares.
		held, err := holdInvitation(ctx, tx, token)
		if err != nil {
			return err
		}
		ctx, err := s.users.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		org, role, err = s.accept(ctx, tx, authz.From(ctx), held, token)
		return err
	})
	return org, role, err
}

// Look is what Accept would do, or its errNoInvitation.
func (s *Service) Look(ctx context.Context, token Token) (offer Offer, err error) {
	err = s.users.Act(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		offer, err = s.look(ctx, tx, authz.From(ctx), token)
		return err
	})
	return offer, err
}

// InvitationAccept is the permission for Accept.
var InvitationAccept = authz.Permission{Object: "invitation:own", Act: "accept"}

type auditList struct{ Body page.Of[audit.Item] }

func (s *Service) audit(ctx context.Context, in *struct{ audit.Query }, found authz.Found[struct{}]) (*auditList, error) {
	shown, err := in.List(ctx, s.pool, found.At.Org)
	return &auditList{shown}, err
}
