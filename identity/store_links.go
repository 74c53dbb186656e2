package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/problem"
)

// listIdentities returns a user's sign-ins, newest first.
func (s *Service) listIdentities(ctx context.Context, caller *authz.Principal, w page.Window) ([]LinkedIdentity, error) {
	rows, err := s.pool.Query(ctx, `
		select id, issuer, subject, email, created_at, signed_in_at as last_sign_in_at from identities
		where user_id = @user and (@at::timestamptz is null or (created_at, id) < (@at, @id))
		order by created_at desc, id desc limit @limit`, w.Args(pgx.NamedArgs{"user": caller.ID}))
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[LinkedIdentity])
}

func (s *Service) findOwnIdentity(_ context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (LinkedIdentity, error), error) {
	return authz.Mine, func(ctx context.Context) (LinkedIdentity, error) {
		one := LinkedIdentity{ID: at.ID}
		err := s.pool.QueryRow(ctx, `select issuer, subject from identities where id = $1 and user_id = $2`, at.ID, caller.ID).Scan(&one.Issuer, &one.Subject)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errNoIdentity
		}
		return one, err
	}, nil
}

// saveLink stores a new linking, and replaces any other of its session. It returns a 403 if the session's sign-in is
// older than linkFresh.
func saveLink(ctx context.Context, tx pgx.Tx, l link) error {
	tag, err := tx.Exec(ctx, `
		insert into links (session_id, state_hash, provider, nonce, verifier, expires_at)
		select id, $2, $3, $4, $5, now() + $6::interval from sessions
		where id = $1 and signed_in_at > now() - $7::interval
		on conflict (session_id) do update set state_hash = excluded.state_hash, provider = excluded.provider,
			nonce = excluded.nonce, verifier = excluded.verifier, expires_at = excluded.expires_at,
			sign_in = null, confirm_hash = null`,
		l.session, hashState(l.State), l.provider, l.Nonce, l.Verifier, flowLife, linkFresh)
	if err != nil {
		return fmt.Errorf("beginning to link: %w", err)
	}
	if tag.RowsAffected() == 0 {
		stale := problem.Forbidden("identity:own write")
		stale.Detail = "Linking needs a sign-in that is at most 5 minutes old; sign in again first"
		return stale
	}
	return nil
}

// tooOldToLink reports whether a session's sign-in is older than linkFresh.
func (s *Service) tooOldToLink(ctx context.Context, session uuid.UUID) (old bool, err error) {
	err = s.pool.QueryRow(ctx, `select signed_in_at <= now() - $2::interval from sessions where id = $1`, session, linkFresh).Scan(&old)
	if err != nil {
		return false, fmt.Errorf("finding what can be linked: %w", err)
	}
	return old, nil
}

// anyFree reports whether any of a provider's people, who are all known, has no account.
func (s *Service) anyFree(ctx context.Context, p *oidc.Provider) (free bool, err error) {
	err = s.pool.QueryRow(ctx, `select not $2::text[] <@ coalesce(array_agg(subject), '{}') from identities where issuer = $1`,
		p.Issuer, p.Subjects).Scan(&free)
	if err != nil {
		return false, fmt.Errorf("finding what can be linked: %w", err)
	}
	return free, nil
}

// linkOf finds the linking that the callback's state belongs to, if any.
func (s *Service) linkOf(r *http.Request) (l link, ok bool, err error) {
	l.State = r.URL.Query().Get("state")
	err = s.pool.QueryRow(r.Context(), `
		select session_id, provider, nonce, verifier from links
		where state_hash = $1 and sign_in is null and expires_at > now()`, hashState(l.State)).
		Scan(&l.session, &l.provider, &l.Nonce, &l.Verifier)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return l, false, nil
	case err != nil:
		return l, false, fmt.Errorf("looking for a link: %w", err)
	}
	return l, true, nil
}

// keepSignIn stores what the provider signed for a linking, until the code of its page confirms it. It returns a
// *Failure if the linking is over or already has a sign-in.
func keepSignIn(ctx context.Context, tx pgx.Tx, l link, in signIn, code string) error {
	tag, err := tx.Exec(ctx, `
		update links set sign_in = $3, confirm_hash = $4
		where session_id = $1 and state_hash = $2 and sign_in is null and expires_at > now()`, l.session, hashState(l.State), in, hashState(code))
	if err != nil {
		return fmt.Errorf("keeping a link: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return &Failure{Reason: ReasonState, Err: errors.New("another request used the state up")}
	}
	return nil
}

func (s *Service) linkedNames(ctx context.Context, principal *authz.Principal) (names []LinkedName, err error) {
	rows, err := s.pool.Query(ctx, `select issuer, coalesce(email, ''), subject from identities where user_id = $1 order by created_at`, principal.ID)
	if err != nil {
		return nil, fmt.Errorf("naming identities: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (LinkedName, error) {
		one := LinkedName{Name: principal.Name}
		err := row.Scan(&one.Provider, &one.Email, &one.Subject)
		if p := s.config.Providers.ByIssuer(one.Provider); p != nil {
			one.Provider = p.Name
		}
		return one, err
	})
}

// linkable returns errMine or errOthers if the identity has a user.
func linkable(ctx context.Context, tx pgx.Tx, in oidc.Identity, user uuid.UUID) error {
	if err := lockIdentity(ctx, tx, in.Issuer, in.Subject); err != nil {
		return err
	}
	var owner uuid.UUID
	err := tx.QueryRow(ctx, `select user_id from identities where issuer = $1 and subject = $2`, in.Issuer, in.Subject).Scan(&owner)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("finding an identity: %w", err)
	case owner == user:
		return errMine
	}
	return errOthers
}

func (s *Service) makeLink(ctx context.Context, tx pgx.Tx, code string) error {
	var in signIn
	err := tx.QueryRow(ctx, `
		delete from links where session_id = $1 and confirm_hash = $2 and expires_at > now() returning sign_in`,
		authz.From(ctx).Session, hashState(code)).Scan(&in)
	over := errors.Is(err, pgx.ErrNoRows)
	if err == nil { // the provider may have ended the sign-in while the page was read
		over, err = signedOut(ctx, tx, in)
	}
	if over {
		return problem.New(http.StatusConflict, "There is nothing to confirm in this session, or no longer; begin again.")
	}
	if err != nil {
		return fmt.Errorf("finding a link: %w", err)
	}
	if err := linkable(ctx, tx, in.Identity, authz.From(ctx).ID); err != nil {
		return err
	}
	if err := lockUsers(ctx, tx, authz.From(ctx).ID); err != nil {
		return err
	}
	ctx, err = s.Confirm(ctx, tx)
	if err != nil {
		return err
	}
	caller := authz.From(ctx)
	if in.Groups == nil {
		in.Groups = []string{}
	}
	id := uuid.Must(uuid.NewV7())
	_, err = tx.Exec(ctx, `
		insert into identities (id, user_id, issuer, subject, email, email_verified, groups, claims)
		values ($1, $2, $3, $4, nullif($5, ''), $6, $7, $8)`,
		id, caller.ID, in.Issuer, in.Subject, in.Email, in.EmailVerified, in.Groups, in.Claims)
	if err != nil {
		return fmt.Errorf("linking: %w", err)
	}
	if err := noteEmail(ctx, tx, caller.ID); err != nil {
		return err
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: ActorOf(caller), Action: audit.IdentityLink, Object: "identity", Target: id.String(), Detail: in.Issuer + " " + in.Subject,
	})
}

// unlink removes an identity from its user, unless it is the last. The sessions that it began end,
// and so do devices approved from them. Its names no longer count.
func (s *Service) unlink(ctx context.Context, _ *struct{}, found authz.Found[LinkedIdentity]) (*struct{}, error) {
	identity := found.Thing
	return nil, s.Write(ctx, func(tx pgx.Tx) error {
		if err := lockIdentity(ctx, tx, identity.Issuer, identity.Subject); err != nil {
			return err
		}
		// Two concurrent unlinkings must not remove both.
		if err := lockUsers(ctx, tx, authz.From(ctx).ID); err != nil {
			return err
		}
		ctx, err := s.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		caller := authz.From(ctx)
		var there, others bool
		err = tx.QueryRow(ctx, `
			select coalesce(bool_or(id = $2), false), coalesce(bool_or(id <> $2), false) from identities where user_id = $1`,
			caller.ID, identity.ID).Scan(&there, &others)
		switch {
		case err != nil:
			return fmt.Errorf("counting identities: %w", err)
		case !there:
			return errNoIdentity
		case !others:
			return problem.New(http.StatusConflict, "This is your last sign-in; without it you could not come back")
		}
		if _, err := endSessions(ctx, tx, "its sign-in was unlinked", `s.identity_id = $1`, identity.ID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from identities where id = $1`, identity.ID); err != nil {
			return fmt.Errorf("unlinking: %w", err)
		}
		if err := noteEmail(ctx, tx, caller.ID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{
			Actor: ActorOf(caller), Action: audit.IdentityUnlink, Object: "identity", Target: identity.ID.String(), Detail: identity.Issuer + " " + identity.Subject,
		})
	})
}
