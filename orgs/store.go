package orgs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/problem"
	"noted/keys"
)

// Standing is an authz.FindStanding: the caller's standing to an organization. It has no role for
// outsiders, and none in a deleted organization (which has no members and no keys) or an unknown one.
func (s *Service) Standing(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, error) {
	return standing(ctx, s.pool, caller, at.Org)
}

func standing(ctx context.Context, db pg.Querier, caller *authz.Principal, org uuid.UUID) (authz.Standing, error) {
	found := authz.Standing{Org: org}
	if caller.Kind == authz.KindService {
		if caller.Org == org {
			found.Role = caller.OrgRole
		}
		return found, nil
	}
	err := db.QueryRow(ctx, `select role from members where org_id = $1 and user_id = $2`, org, caller.ID).Scan(&found.Role)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return found, fmt.Errorf("finding a membership: %w", err)
	}
	return found, nil
}

// Write runs a transaction on things of an organization. It confirms the caller and locks the
// organization's row, so that nobody's rights there change meanwhile. work must decide on the caller in
// its context and on the standing it gets.
func (s *Service) Write(ctx context.Context, org uuid.UUID, work func(context.Context, pgx.Tx, authz.Standing) error) error {
	return s.transact(ctx, org, "for share", work)
}

// Change is Write for changes to who may do what there: members, roles, grants, restricting notebooks,
// the organization's end. It runs alone: no other Change or Write at the same time.
func (s *Service) Change(ctx context.Context, org uuid.UUID, work func(context.Context, pgx.Tx, authz.Standing) error) error {
	defer s.users.Forget()
	return s.transact(ctx, org, "for no key update", work)
}

func (s *Service) transact(ctx context.Context, org uuid.UUID, lock string, work func(context.Context, pgx.Tx, authz.Standing) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The organization first: its end must not wait for those it ends.
		if _, err := hold(ctx, tx, org, lock); err != nil {
			return err
		}
		ctx, err := s.users.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		found, err := standing(ctx, tx, authz.From(ctx), org)
		if err != nil {
			return err
		}
		return work(ctx, tx, found)
	})
}

// Hold locks an organization's row, shared, for another room. lives reports whether the organization
// still exists.
func (s *Service) Hold(ctx context.Context, tx pgx.Tx, org uuid.UUID) (lives bool, err error) {
	return hold(ctx, tx, org, "for share")
}

func hold(ctx context.Context, tx pgx.Tx, org uuid.UUID, lock string) (lives bool, err error) {
	err = tx.QueryRow(ctx, `select deleted_at is null from orgs where id = $1 `+lock, org).Scan(&lives)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("locking an organization: %w", err)
	}
	return lives, nil
}

const selectOrgs = `
	select o.id, o.name, coalesce(m.role, @service_role) as role, o.created_at
	from orgs o
	left join members m on m.org_id = o.id and m.user_id = @user
	where (m.role is not null or o.id = @service_org) and o.deleted_at is null`

func orgArgs(caller *authz.Principal) pgx.NamedArgs {
	args := pgx.NamedArgs{"user": nil, "service_org": nil, "service_role": nil}
	if caller.Kind == authz.KindService {
		args["service_org"], args["service_role"] = caller.Org, caller.OrgRole
	} else {
		args["user"] = caller.ID
	}
	return args
}

// Mine lists the caller's organizations by name, for GET /v1/me.
func (s *Service) Mine(ctx context.Context, caller *authz.Principal) ([]identity.MeOrg, error) {
	rows, err := s.pool.Query(ctx, selectOrgs+` order by o.name, o.id`, orgArgs(caller))
	if err != nil {
		return nil, fmt.Errorf("listing organizations: %w", err)
	}
	mine, err := pgx.CollectRows(rows, pgx.RowToStructByName[Org])
	list := make([]identity.MeOrg, len(mine))
	for i, o := range mine {
		list[i] = identity.MeOrg{ID: o.ID, Name: o.Name, Role: o.Role}
	}
	return list, err
}

func (s *Service) list(ctx context.Context, caller *authz.Principal, w page.Window) ([]Org, error) {
	rows, err := s.pool.Query(ctx, selectOrgs+`
		and (@at::timestamptz is null or (o.created_at, o.id) < (@at, @id))
		order by o.created_at desc, o.id desc limit @limit`, w.Args(orgArgs(caller)))
	if err != nil {
		return nil, fmt.Errorf("listing organizations: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Org])
}

// find loads an organization the caller is in.
func find(ctx context.Context, db pg.Querier, caller *authz.Principal, org uuid.UUID) (Org, error) {
	args := orgArgs(caller)
	args["org"] = org
	rows, err := db.Query(ctx, selectOrgs+` and o.id = @org`, args)
	if err != nil {
		return Org{}, fmt.Errorf("finding an organization: %w", err)
	}
	o, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Org])
	if errors.Is(err, pgx.ErrNoRows) {
		err = authz.NotFound("org")
	}
	return o, err
}

// create makes an organization with the caller as admin, or returns mayMake's 429.
func (s *Service) create(ctx context.Context, tx pgx.Tx, caller *authz.Principal, name string) (uuid.UUID, error) {
	id := uuid.Must(uuid.NewV7())
	if err := s.mayMake(ctx, tx, caller.ID); err != nil {
		return id, err
	}
	if _, err := tx.Exec(ctx, `insert into orgs (id, name) values ($1, $2)`, id, name); err != nil {
		return id, fmt.Errorf("making an organization: %w", err)
	}
	if _, err := tx.Exec(ctx, `insert into members (org_id, user_id, role) values ($1, $2, $3)`, id, caller.ID, adminRole); err != nil {
		return id, fmt.Errorf("making its admin: %w", err)
	}
	return id, audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.OrgCreate, Object: "org", Target: id.String(), Org: id, Detail: name,
	})
}

// rename renames an organization that tx holds exclusively.
func rename(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org uuid.UUID, name string) error {
	var was string
	err := tx.QueryRow(ctx, `
		update orgs o set name = $2 from orgs before
		where o.id = $1 and before.id = $1 and before.name <> $2
		returning before.name`, org, name).Scan(&was)
	if errors.Is(err, pgx.ErrNoRows) { // it has this name
		return nil
	}
	if err != nil {
		return fmt.Errorf("naming an organization: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.OrgChange, Object: "org", Target: org.String(), Org: org, Detail: audit.Renamed(was, name),
	})
}

// deleteOrg ends an organization with its memberships (and their grants), its invitations and its
// keys.
func (s *Service) deleteOrg(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org uuid.UUID) error {
	var name string
	err := tx.QueryRow(ctx, `update orgs set deleted_at = now() where id = $1 and deleted_at is null returning name`, org).Scan(&name)
	if err != nil {
		return fmt.Errorf("deleting an organization: %w", err)
	}
	// First, while the caller can still be named.
	if err := s.keys.RevokeOf(ctx, tx, identity.ActorOf(caller), org); err != nil {
		return err
	}
	for _, statement := range []string{`delete from invitations where org_id = $1`, `delete from members where org_id = $1`} {
		if _, err := tx.Exec(ctx, statement, org); err != nil {
			return fmt.Errorf("deleting an organization: %w", err)
		}
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.OrgDelete, Object: "org", Target: org.String(), Org: org, Detail: name,
	})
}

// Erase deletes the rest of a deleted organization that has no notes left.
func (s *Service) Erase(ctx context.Context, tx pgx.Tx, org uuid.UUID) error {
	if err := s.keys.Erase(ctx, tx, org); err != nil {
		return fmt.Errorf("erasing an organization's keys: %w", err)
	}
	if _, err := tx.Exec(ctx, `delete from orgs where id = $1 and deleted_at is not null`, org); err != nil {
		return fmt.Errorf("erasing an organization: %w", err)
	}
	return nil
}

const selectMembers = `
	select m.user_id, p.name, nullif(p.email, '') as email, m.role, m.joined_at
	from members m join people p using (user_id)
	where m.org_id = @org`

func (s *Service) listMembers(ctx context.Context, org uuid.UUID, w page.Window) ([]Member, error) {
	rows, err := s.pool.Query(ctx, selectMembers+`
		and (@at::timestamptz is null or (m.joined_at, m.user_id) < (@at, @id))
		order by m.joined_at desc, m.user_id desc limit @limit`,
		w.Args(pgx.NamedArgs{"org": org}))
	if err != nil {
		return nil, fmt.Errorf("listing members: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Member])
}

// findMember loads a member, or returns errNoMember.
func findMember(ctx context.Context, db pg.Querier, org, user uuid.UUID) (Member, error) {
	rows, err := db.Query(ctx, selectMembers+` and m.user_id = @user`, pgx.NamedArgs{"org": org, "user": user})
	if err != nil {
		return Member{}, fmt.Errorf("finding a member: %w", err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Member])
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoMember
	}
	return m, err
}

// keepsAdmin returns errLastAdmin if the organization has no unlocked admin left. tx must hold the
// organization exclusively.
func keepsAdmin(ctx context.Context, tx pgx.Tx, org uuid.UUID) error {
	var kept bool
	err := tx.QueryRow(ctx, `
		select exists (select from members m join people p using (user_id) where m.org_id = $1 and m.role = $2 and not p.locked)`,
		org, adminRole).Scan(&kept)
	if err == nil && !kept {
		return errLastAdmin
	}
	return err
}

// setRole changes a member's role. It ends the invitations they made in the old role.
func (s *Service) setRole(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member, role string, keys keysOf) error {
	if was.Role == role {
		return nil
	}
	caller, org := authz.From(ctx), standing.Org
	if err := caller.GivesRole(standing, role); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update members set role = $3 where org_id = $1 and user_id = $2`, org, was.UserID, role); err != nil {
		return fmt.Errorf("changing a role: %w", err)
	}
	if err := s.settle(ctx, tx, standing, was, keys); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.MemberChange, Object: "member", Target: was.UserID.String(), Org: org,
		Detail: was.Role + " to " + role,
	})
}

// remove ends a membership, with its grants and the member's invitations.
func (s *Service) remove(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member, keys keysOf) error {
	caller, org := authz.From(ctx), standing.Org
	if _, err := tx.Exec(ctx, `delete from members where org_id = $1 and user_id = $2`, org, was.UserID); err != nil {
		return fmt.Errorf("removing a member: %w", err)
	}
	if err := s.settle(ctx, tx, standing, was, keys); err != nil {
		return err
	}
	detail := was.Role + ", removed"
	if standing.Own {
		detail = was.Role + ", left"
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.MemberRemove, Object: "member", Target: was.UserID.String(), Org: org, Detail: detail,
	})
}

// keysOf says what becomes of the service keys of which a former admin was shown a live secret. With
// it they could go on, and invite themselves back.
type keysOf string

const (
	keysUnsaid keysOf = ""
	keysEnd    keysOf = "end"
	keysKeep   keysOf = "keep"
)

// settle cleans up after a member who loses their role. An admin must remain, the member's pending
// invitations end, and their knowledge of service keys' secrets is dealt with.
func (s *Service) settle(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member, keys keysOf) error {
	caller := authz.From(ctx)
	if was.Role == adminRole {
		if err := keepsAdmin(ctx, tx, standing.Org); err != nil {
			return err
		}
		if err := s.settleKeys(ctx, tx, standing, was, keys); err != nil {
			return err
		}
	}
	return endInvitations(ctx, tx, caller, standing.Org, "created_by", was.UserID)
}

// settleKeys lets those decide who may end the keys. Members may give up their own secrets.
func (s *Service) settleKeys(ctx context.Context, tx pgx.Tx, standing authz.Standing, was Member, keys keysOf) error {
	caller, org := authz.From(ctx), standing.Org
	known, err := s.keys.KnownTo(ctx, tx, org, was.UserID)
	if err != nil || len(known) == 0 {
		return err
	}
	givesUp := standing.Own && keys == keysEnd
	if keys == keysUnsaid || !givesUp && caller.DecideAll("key", "delete", standing) != nil {
		return errKnowsKeys(known, standing.Own, caller.DecideAll("key", "read", standing) == nil)
	}
	if keys == keysKeep {
		return nil
	}
	revoked, err := s.keys.EndKnownTo(ctx, tx, identity.ActorOf(caller), org, was.UserID)
	if err != nil {
		return err
	}
	for _, key := range revoked {
		if err := s.KeyRevoked(ctx, tx, org, key); err != nil {
			return err
		}
	}
	// Their invitations by a key whose secrets others know too.
	return endInvitations(ctx, tx, caller, org, "behind", was.UserID)
}

// errKnowsKeys is a 409, with the keys if the caller may read them, else their number.
func errKnowsKeys(known []keys.Known, leaves, readable bool) error {
	e := problem.New(http.StatusConflict, "The member was shown secrets of service keys here that still work; "+
		"?service_keys=end ends these secrets, ?service_keys=keep leaves them working. This needs the permission %q", "key:org delete")
	if leaves {
		e = problem.New(http.StatusConflict, "You were shown secrets of service keys here that still work; ?service_keys=end ends these secrets as you leave")
	}
	e.ServiceKeys = len(known)
	if readable {
		e.ServiceKeys = known
	}
	return e
}

// endInvitations revokes a maker's pending invitations. column is created_by for a member, created_key
// for a service, behind for a person, by themselves or by a service's secret.
func endInvitations(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org uuid.UUID, column string, maker uuid.UUID) error {
	rows, err := tx.Query(ctx, `
		update invitations set revoked_at = now()
		where org_id = $1 and `+column+` = $2 and accepted_at is null and revoked_at is null
		returning id`, org, maker)
	if err != nil {
		return fmt.Errorf("revoking invitations: %w", err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return fmt.Errorf("revoking invitations: %w", err)
	}
	for _, id := range ended {
		if err := recordEnd(ctx, tx, caller, org, id, "with the membership, role or key of who made it"); err != nil {
			return err
		}
	}
	return nil
}

func recordEnd(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org, invitation uuid.UUID, detail string) error {
	return audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.InvitationEnd, Object: "invitation", Target: invitation.String(), Org: org, Detail: detail,
	})
}

// KeyRevoked ends the invitations that a service made.
func (s *Service) KeyRevoked(ctx context.Context, tx pgx.Tx, org, key uuid.UUID) error {
	return endInvitations(ctx, tx, authz.From(ctx), org, "created_key", key)
}

// An invitation is pending until accepted, revoked or expired, by the database's clock.
const selectInvitations = `
	select id, email, role, expires_at, created_at from invitations
	where org_id = @org and accepted_at is null and revoked_at is null and expires_at > now()`

func (s *Service) listInvitations(ctx context.Context, org uuid.UUID, w page.Window) ([]Invitation, error) {
	rows, err := s.pool.Query(ctx, selectInvitations+`
		and (@at::timestamptz is null or (created_at, id) < (@at, @id))
		order by created_at desc, id desc limit @limit`,
		w.Args(pgx.NamedArgs{"org": org}))
	if err != nil {
		return nil, fmt.Errorf("listing invitations: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Invitation])
}

func findInvitation(ctx context.Context, db pg.Querier, org, id uuid.UUID) (Invitation, error) {
	rows, err := db.Query(ctx, selectInvitations+` and id = @id`, pgx.NamedArgs{"org": org, "id": id})
	if err != nil {
		return Invitation{}, fmt.Errorf("finding an invitation: %w", err)
	}
	i, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Invitation])
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoInvitation
	}
	return i, err
}

// invite makes an invitation.
func (s *Service) invite(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org uuid.UUID, email, role string) (Invitation, Token, error) {
	id, token := uuid.Must(uuid.NewV7()), newToken()
	behind, err := s.keys.Behind(ctx, tx, caller)
	if err != nil {
		return Invitation{}, "", err
	}
	var maker, key *uuid.UUID
	if caller.Kind == authz.KindUser {
		maker = &caller.ID
	}
	if caller.Via == authz.ViaKey {
		key = &caller.Key
	}
	_, err = tx.Exec(ctx, `
		insert into invitations (id, org_id, email, role, token_hash, created_by, created_key, behind, expires_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval)`,
		id, org, email, role, token.hash(), maker, key, behind, s.config.InvitationLifetime)
	if err != nil {
		return Invitation{}, "", fmt.Errorf("making an invitation: %w", err)
	}
	made, err := findInvitation(ctx, tx, org, id)
	if err != nil {
		return made, "", err
	}
	return made, token, audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.InvitationMake, Object: "invitation", Target: id.String(), Org: org, Detail: role + ": " + email,
	})
}

// revoke ends a pending invitation.
func revoke(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		update invitations set revoked_at = now()
		where org_id = $1 and id = $2 and accepted_at is null and revoked_at is null and expires_at > now()`, org, id)
	if err != nil {
		return fmt.Errorf("revoking an invitation: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errNoInvitation
	}
	return recordEnd(ctx, tx, caller, org, id, "")
}

// countsFor holds if the invitation i with the hash @token counts for somebody with the verified e-mails
// @emails. It is one condition, so that all failures look alike: the invitation is pending and for one of
// those e-mails, its maker is not locked, and the key it was made with, a service's or a person's, still
// works. Losing the role ends the invitation itself (setRole, remove, KeyRevoked, deleteOrg). couldInvite
// asks the policy.
const countsFor = `
	i.token_hash = @token and i.email = any(@emails) and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
	and not exists (select from people p where p.user_id = i.created_by and p.locked)
	and (i.created_key is null or exists (select from live_keys k where k.key_id = i.created_key))`

// look is what accept would do with the token, but changes nothing. Those who may not accept learn no
// more than from accept.
func (s *Service) look(ctx context.Context, tx pgx.Tx, caller *authz.Principal, token Token) (offer Offer, err error) {
	emails, err := s.users.VerifiedEmails(ctx, tx, caller.ID)
	if err != nil {
		return offer, err
	}
	var org uuid.UUID
	var by, key *uuid.UUID
	err = tx.QueryRow(ctx, `
		select o.name, i.role, coalesce(maker.name, service.name), i.org_id, i.created_by, i.created_key
		from invitations i
			join orgs o on o.id = i.org_id and o.deleted_at is null
			left join people maker on maker.user_id = i.created_by
			left join services service on service.key_id = i.created_key
		where `+countsFor, pgx.NamedArgs{"token": token.hash(), "emails": emails}).Scan(&offer.Org, &offer.Role, &offer.By, &org, &by, &key)
	if errors.Is(err, pgx.ErrNoRows) {
		return offer, errNoInvitation
	}
	if err != nil {
		return offer, fmt.Errorf("looking at an invitation: %w", err)
	}
	if may, err := s.couldInvite(ctx, tx, org, by, key, offer.Role); err != nil || !may {
		return Offer{}, cmp.Or(err, errNoInvitation)
	}
	return offer, nil
}

// holdInvitation locks an invitation's organization exclusively. It returns the zero id if there is none.
func holdInvitation(ctx context.Context, tx pgx.Tx, token Token) (org uuid.UUID, err error) {
	err = tx.QueryRow(ctx, `select org_id from invitations where token_hash = $1`, token.hash()).Scan(&org)
	if errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, nil
	}
	if err == nil {
		_, err = hold(ctx, tx, org, "for no key update")
	}
	if err != nil {
		return org, fmt.Errorf("finding an invitation: %w", err)
	}
	return org, nil
}

// accept uses up an invitation and makes the caller a member. org must be held exclusively.
func (s *Service) accept(ctx context.Context, tx pgx.Tx, caller *authz.Principal, org uuid.UUID, token Token) (_ uuid.UUID, role string, err error) {
	emails, err := s.users.VerifiedEmails(ctx, tx, caller.ID)
	if err != nil {
		return org, "", err
	}
	var id uuid.UUID
	var maker, key *uuid.UUID
	err = tx.QueryRow(ctx, `
		update invitations i set accepted_at = now()
		where `+countsFor+`
		returning id, role, created_by, created_key`, pgx.NamedArgs{"token": token.hash(), "emails": emails}).Scan(&id, &role, &maker, &key)
	if errors.Is(err, pgx.ErrNoRows) {
		return org, "", errNoInvitation
	}
	if err != nil {
		return org, "", fmt.Errorf("accepting an invitation: %w", err)
	}
	if may, err := s.couldInvite(ctx, tx, org, maker, key, role); err != nil || !may {
		return org, "", cmp.Or(err, errNoInvitation)
	}
	tag, err := tx.Exec(ctx, `
		insert into members (org_id, user_id, role) values ($1, $2, $3) on conflict (org_id, user_id) do nothing`, org, caller.ID, role)
	if err != nil {
		return org, "", fmt.Errorf("joining an organization: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return org, "", errMember
	}
	return org, role, audit.Record(ctx, tx, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.MemberJoin, Object: "member", Target: caller.ID.String(), Org: org,
		Detail: role + ", by invitation " + id.String(),
	})
}

// couldInvite reports whether the maker of an invitation, with the key if any, could make it now under
// the policy in force.
func (s *Service) couldInvite(ctx context.Context, tx pgx.Tx, org uuid.UUID, maker, key *uuid.UUID, role string) (bool, error) {
	p := authz.Principal{Kind: authz.KindUser, Via: authz.ViaSession}
	if maker == nil {
		p.Kind = authz.KindService
	}
	if key != nil {
		p.Via = authz.ViaKey
	}
	stands := authz.Standing{Org: org}
	err := tx.QueryRow(ctx, `
		select coalesce(m.role, k.org_role, ''), coalesce(k.key_role, '')
		from (select) nothing
		left join members m on m.org_id = $1 and m.user_id = $2
		left join live_keys k on k.key_id = $3`, org, maker, key).Scan(&stands.Role, &p.KeyRole)
	if err != nil {
		return false, fmt.Errorf("finding who made an invitation: %w", err)
	}
	made := authz.NewPrincipal(p, s.users.Policy(), nil)
	return made.DecideAll("invitation", "write", stands) == nil && made.GivesRole(stands, role) == nil, nil
}

// Join makes somebody a member without an invitation, for `noted dev`.
func (s *Service) Join(ctx context.Context, org, user uuid.UUID, role string) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into members (org_id, user_id, role) values ($1, $2, $3)`, org, user, role); err != nil {
			return fmt.Errorf("joining an organization: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{Action: audit.MemberJoin, Object: "member", Target: user.String(), Org: org, Detail: role + ", by noted dev"})
	})
}

// Orphan is an organization without an admin who could sign in.
type Orphan struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Members   int       `json:"members"`
	CreatedAt time.Time `json:"created_at"`
}

// Orphans returns the organizations whose admins are all locked, newest first.
func (s *Service) Orphans(ctx context.Context, w page.Window) ([]Orphan, error) {
	rows, err := s.pool.Query(ctx, `
		select o.id, o.name, (select count(*) from members where org_id = o.id) as members, o.created_at
		from orgs o
		where o.deleted_at is null
			and not exists (select from members m join people p using (user_id) where m.org_id = o.id and m.role = @admin and not p.locked)
			and (@at::timestamptz is null or (o.created_at, o.id) < (@at, @id))
		order by o.created_at desc, o.id desc limit @limit`,
		w.Args(pgx.NamedArgs{"admin": adminRole}))
	if err != nil {
		return nil, fmt.Errorf("listing organizations without an admin: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Orphan])
}
