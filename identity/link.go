package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/problem"
)

// A link is a second identity for the same user. It is made by one who holds both sign-ins, in
// one session: a POST in a session that is fresh, the provider's sign-in, a page that names
// both, and a POST that confirms. An e-mail plays no part in it.

// writeIdentity is what letting a device in, linking and unlinking need.
var writeIdentity = authz.Permission{Object: "identity:own", Act: "write"}

// linkFresh is how old the sign-in of a session may be that begins to link.
const linkFresh = 5 * time.Minute

// LinkedIdentity is one of a user's sign-ins, as GET /v1/me/identities shows it.
type LinkedIdentity struct {
	ID           uuid.UUID `json:"id"`
	Provider     *string   `json:"provider" doc:"null when that provider is not configured any more"`
	Issuer       string    `json:"issuer"`
	Subject      string    `json:"subject"`
	Email        *string   `json:"email"`
	CreatedAt    time.Time `json:"created_at"`
	LastSignInAt time.Time `json:"last_sign_in_at"`
}

// errNoIdentity is 404 for an identity that is not the caller's.
var errNoIdentity = problem.NotFound("identity")

// registerIdentities declares the operations of /v1/me/identities.
func (s *Service) registerIdentities(api *authz.API) {
	authz.Register(api, huma.Operation{
		OperationID: "list-identities", Method: http.MethodGet, Path: "/v1/me/identities", Summary: "The sign-ins that are yours", Tags: []string{"Me"},
	}, writeIdentity, s.identities)
	authz.Register(api, huma.Operation{
		OperationID: "start-linking", Method: http.MethodPost, Path: "/v1/me/identities", Summary: "Begin to link a second sign-in", Tags: []string{"Me"},
		Description:   "Open the url in the browser whose session this is. Only by a session that began with a sign-in in a browser, at most 5 minutes ago.",
		DefaultStatus: http.StatusOK, Errors: []int{http.StatusServiceUnavailable},
	}, writeIdentity, s.startLink)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "unlink-identity", Method: http.MethodDelete, Path: "/v1/me/identities/{id}", Summary: "Unlink a sign-in; never the last", Tags: []string{"Me"},
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict},
	}, "identity", "write", s.findOwnIdentity, s.unlink)
}

type identitiesOutput struct{ Body page.Of[LinkedIdentity] }

func (s *Service) identities(ctx context.Context, in *struct{ page.Query }) (*identitiesOutput, error) {
	const list = "identities"
	after, err := in.After(list)
	if err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, `
		select id, issuer, subject, email, created_at, signed_in_at from identities
		where user_id = $1 and ($2::timestamptz is null or (created_at, id) < ($2, $3))
		order by created_at desc, id desc limit $4`, authz.From(ctx).ID, after.TimeOrNull(), after.ID, in.Limit+1)
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	items, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (LinkedIdentity, error) {
		var one LinkedIdentity
		err := row.Scan(&one.ID, &one.Issuer, &one.Subject, &one.Email, &one.CreatedAt, &one.LastSignInAt)
		one.CreatedAt, one.LastSignInAt = one.CreatedAt.UTC(), one.LastSignInAt.UTC()
		if i := slices.IndexFunc(s.config.Providers, func(p *Provider) bool { return p.Issuer == one.Issuer }); i >= 0 {
			one.Provider = &s.config.Providers[i].ID
		}
		return one, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	return &identitiesOutput{page.Make(items, in.Limit, list, func(one LinkedIdentity) page.Position {
		return page.Position{At: one.CreatedAt, ID: one.ID}
	})}, nil
}

// LinkStart is the body of POST /v1/me/identities.
type LinkStart struct {
	Provider string `json:"provider" minLength:"1" maxLength:"100" example:"google" doc:"The id of a provider; /auth/providers lists them"`
}

type startLinkInput struct{ Body LinkStart }

// LinkURL is its answer.
type LinkURL struct {
	URL string `json:"url" doc:"At the provider"`
}

type startLinkOutput struct{ Body LinkURL }

// startLink keeps the flow in the database, one for each session: unlike a sign-in's, its
// beginner is known, and only their very session may end it.
func (s *Service) startLink(ctx context.Context, in *startLinkInput) (*startLinkOutput, error) {
	if !authz.From(ctx).ByBrowser {
		return nil, notByBrowser(writeIdentity)
	}
	i := slices.IndexFunc(s.config.Providers, func(p *Provider) bool { return p.ID == in.Body.Provider })
	if i < 0 {
		return nil, problem.Invalid("body.provider", "is no provider here; /auth/providers lists them")
	}
	provider := s.config.Providers[i]
	e, err := s.reach(ctx, provider)
	if err != nil {
		return nil, err
	}
	f := flow{Provider: provider.ID, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier()}
	err = s.Act(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into links (session_id, state_hash, provider, nonce, verifier, expires_at)
			select id, $2, $3, $4, $5, now() + $6::interval from sessions
			where id = $1 and signed_in_at > now() - $7::interval
			on conflict (session_id) do update set state_hash = excluded.state_hash, provider = excluded.provider,
				nonce = excluded.nonce, verifier = excluded.verifier, expires_at = excluded.expires_at,
				sign_in = null, confirm_hash = null`,
			authz.From(ctx).Session, hashState(f.State), f.Provider, f.Nonce, f.Verifier, flowLife, linkFresh)
		if err != nil {
			return fmt.Errorf("beginning to link: %w", err)
		}
		if tag.RowsAffected() == 0 {
			stale := problem.Forbidden("identity:own write")
			stale.Detail = "Linking needs a sign-in that is at most 5 minutes old; sign in again first"
			return stale
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &startLinkOutput{LinkURL{e.authorizeURL(provider, f, "", selectAccount)}}, nil
}

// Linking is what a page may offer to somebody who wants to link another sign-in.
type Linking struct {
	Providers []ProviderItem // where there may be one that can be linked
	Stale     bool           // the session's own sign-in is too old to begin; a new one is needed first
}

// Linking is the caller's; it has no providers for a caller who may not link. A provider all of whose
// people have accounts already is left out: whoever was chosen there, it would be refused.
func (s *Service) Linking(ctx context.Context, caller *authz.Principal) (l Linking, err error) {
	if mayNot := caller.Check(writeIdentity); mayNot != nil || !caller.ByBrowser {
		return l, nil //nolint:nilerr // that is no error here, but nothing to offer
	}
	err = s.pool.QueryRow(ctx, `select signed_in_at <= now() - $2::interval from sessions where id = $1`, caller.Session, linkFresh).Scan(&l.Stale)
	for i := 0; i < len(s.config.Providers) && err == nil; i++ {
		p, free := s.config.Providers[i], true
		if p.Subjects != nil {
			err = s.pool.QueryRow(ctx, `select not $2::text[] <@ coalesce(array_agg(subject), '{}') from identities where issuer = $1`,
				p.Issuer, p.Subjects).Scan(&free)
		}
		if free {
			l.Providers = append(l.Providers, ProviderItem{p.ID, p.Name})
		}
	}
	if err != nil {
		return Linking{}, fmt.Errorf("finding what can be linked: %w", err)
	}
	return l, nil
}

func hashState(state string) []byte {
	sum := sha256.Sum256([]byte(state))
	return sum[:]
}

// link is one under way.
type link struct {
	flow
	session uuid.UUID
}

// linkOf finds the linking that the callback's state belongs to, if it belongs to one.
func (s *Service) linkOf(r *http.Request) (l link, ok bool, err error) {
	l.State = r.URL.Query().Get("state")
	err = s.pool.QueryRow(r.Context(), `
		select session_id, provider, nonce, verifier from links
		where state_hash = $1 and sign_in is null and expires_at > now()`, hashState(l.State)).
		Scan(&l.session, &l.Provider, &l.Nonce, &l.Verifier)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return l, false, nil
	case err != nil:
		return l, false, fmt.Errorf("looking for a link: %w", err)
	}
	return l, true, nil
}

// LinkPage is what the page shows that asks to confirm a link.
type LinkPage struct {
	Principal *authz.Principal
	Mine      []LinkedName // the identities that there are
	New       LinkedName   // the one to come
	Code      string
}

// LinkedName is an identity in words.
type LinkedName struct{ Provider, Name, Email, Subject string }

// finishLink is the callback of a linking. It shows the page that names both identities; what
// the provider signed waits in the database for the confirming POST.
func (s *Service) finishLink(w http.ResponseWriter, r *http.Request, provider *Provider, l link) {
	shown, code, err := s.prepareLink(r, provider, l)
	if err != nil { // else it ends when it is confirmed
		s.config.SignIn(WayLink, false)
	}
	var conflict *problem.Error
	switch {
	case err == nil:
		shown.Code = code
		s.writePage(w, http.StatusOK, s.config.Pages.Link(shown))
	case errors.As(err, &conflict):
		problem.Write(w, r, err)
	default:
		s.failPage(w, r, provider, err)
	}
}

var (
	errOthers = problem.New(http.StatusConflict, "This sign-in belongs to another account. Sign in with it and unlink it there first, if that account is yours too.")
	errMine   = problem.New(http.StatusConflict, "This sign-in is linked to your account already.")
)

func (s *Service) prepareLink(r *http.Request, provider *Provider, l link) (shown LinkPage, code string, err error) {
	ctx := r.Context()
	if l.Provider != provider.ID {
		return shown, "", &Failure{Reason: ReasonState, Err: fmt.Errorf("began at provider %.100q, came back at %q", l.Provider, provider.ID)}
	}
	if shown.Principal, err = s.peekCookie(r); err != nil {
		return shown, "", err
	}
	if shown.Principal == nil || shown.Principal.Session != l.session {
		return shown, "", &Failure{Reason: ReasonState, Err: errors.New("this browser has not the session that began to link")}
	}
	in, err := s.redeem(r, provider, l.flow)
	if err != nil {
		return shown, "", err
	}
	code = random()
	// A callback is public; this one is the second half of what its session began.
	asking := authz.WithDecision(authz.WithPrincipal(ctx, shown.Principal), func(p *authz.Principal) error { return p.Check(writeIdentity) })
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := spend(ctx, tx, in); err != nil {
			return err
		}
		if _, err := s.Confirm(asking, tx); err != nil {
			return err
		}
		if err := linkable(ctx, tx, in.Identity, shown.Principal.ID); err != nil {
			return err
		}
		in.IDToken = "" // nothing begins by it
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
	})
	if err != nil {
		return shown, "", err
	}
	shown.New = LinkedName{provider.Name, in.Name, in.Email, in.Subject}
	shown.Mine, err = s.linkedNames(ctx, shown.Principal)
	return shown, code, err
}

func (s *Service) linkedNames(ctx context.Context, principal *authz.Principal) (names []LinkedName, err error) {
	rows, err := s.pool.Query(ctx, `select issuer, coalesce(email, ''), subject from identities where user_id = $1 order by created_at`, principal.ID)
	if err != nil {
		return nil, fmt.Errorf("naming identities: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (LinkedName, error) {
		one := LinkedName{Name: principal.Name}
		err := row.Scan(&one.Provider, &one.Email, &one.Subject)
		for _, p := range s.config.Providers {
			if p.Issuer == one.Provider {
				one.Provider = p.Name
			}
		}
		return one, err
	})
}

// linkable refuses an identity that is somebody's already.
func linkable(ctx context.Context, tx pgx.Tx, in Identity, user uuid.UUID) error {
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

// ConfirmLink makes the link: POST /auth/link/confirm, by the very session that began it, with
// the code of the page that named both.
func (s *Service) ConfirmLink(w http.ResponseWriter, r *http.Request) {
	form, err := ReadForm(r)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	ctx := r.Context()
	err = s.Write(ctx, func(tx pgx.Tx) error { return s.makeLink(ctx, tx, form.Get("code")) })
	s.config.SignIn(WayLink, err == nil)
	if err != nil {
		s.writeFault(w, r, err)
		return
	}
	redirect(w, http.StatusSeeOther, "/")
}

func (s *Service) makeLink(ctx context.Context, tx pgx.Tx, code string) error {
	var in signIn
	err := tx.QueryRow(ctx, `
		delete from links where session_id = $1 and confirm_hash = $2 and expires_at > now() returning sign_in`,
		authz.From(ctx).Session, hashState(code)).Scan(&in)
	over := errors.Is(err, pgx.ErrNoRows)
	if err == nil { // the provider may have ended the sign-in while its page was read
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

// unlink takes an identity from its user, unless it is the last. The sessions that it began end,
// with the devices approved from them; its names count no more.
func (s *Service) unlink(ctx context.Context, _ *struct{}, found authz.Found[LinkedIdentity]) (*struct{}, error) {
	identity := found.Thing
	return nil, s.Write(ctx, func(tx pgx.Tx) error {
		if err := lockIdentity(ctx, tx, identity.Issuer, identity.Subject); err != nil {
			return err
		}
		// Two unlinkings at once must not leave none.
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
