package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/page"
	"noted/internal/problem"
)

// A link is a second identity for the same user. Somebody who holds both sign-ins makes it in
// one session: a POST in a fresh session, the provider's sign-in, a page that names both, and
// a POST that confirms. E-mails play no part in it.

// writeIdentity is needed to let a device in, to link and to unlink.
var writeIdentity = authz.Permission{Object: "identity:own", Act: "write"}

// linkFresh is how old a session's sign-in may be to begin linking.
const linkFresh = 5 * time.Minute

// LinkedIdentity is one of a user's sign-ins as GET /v1/me/identities shows it.
type LinkedIdentity struct {
	ID           uuid.UUID `json:"id"`
	Provider     *string   `json:"provider" db:"-" doc:"null when that provider is not configured any more"`
	Issuer       string    `json:"issuer"`
	Subject      string    `json:"subject"`
	Email        *string   `json:"email"`
	CreatedAt    time.Time `json:"created_at"`
	LastSignInAt time.Time `json:"last_sign_in_at"`
}

// errNoIdentity is the 404 for an identity that is not the caller's.
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
	list, err := page.List(in.Query, "identities", func(w page.Window) ([]LinkedIdentity, error) {
		return s.listIdentities(ctx, authz.From(ctx), w)
	}, func(one LinkedIdentity) page.Position { return page.Position{At: one.CreatedAt, ID: one.ID} })
	for i := range list.Items {
		list.Items[i].Provider = s.providerID(list.Items[i].Issuer)
	}
	return &identitiesOutput{list}, err
}

// LinkStart is the body of POST /v1/me/identities.
type LinkStart struct {
	Provider string `json:"provider" minLength:"1" maxLength:"100" example:"google" doc:"The id of a provider; /auth/providers lists them"`
}

type startLinkInput struct{ Body LinkStart }

// LinkURL is the answer.
type LinkURL struct {
	URL string `json:"url" doc:"At the provider"`
}

type startLinkOutput struct{ Body LinkURL }

// startLink keeps the flow in the database, one for each session. Unlike a sign-in's, it
// belongs to a known user, and only the same session may finish it.
func (s *Service) startLink(ctx context.Context, in *startLinkInput) (*startLinkOutput, error) {
	if !authz.From(ctx).ByBrowser {
		return nil, notByBrowser(writeIdentity)
	}
	provider := s.config.Providers.ByID(in.Body.Provider)
	if provider == nil {
		return nil, problem.Invalid("body.provider", "is no provider here; /auth/providers lists them")
	}
	f := oidc.NewFlow()
	address, err := s.toProvider(ctx, provider, f, "", selectAccount)
	if err != nil {
		return nil, err
	}
	err = s.Act(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return saveLink(ctx, tx, link{f, provider.ID, authz.From(ctx).Session})
	})
	if err != nil {
		return nil, err
	}
	return &startLinkOutput{LinkURL{address}}, nil
}

// Linking is what a page may offer to somebody who wants to link another sign-in.
type Linking struct {
	Providers []ProviderItem // those that may have a sign-in to link
	Stale     bool           // the session's sign-in is too old; a new one is needed first
}

// Linking returns the caller's, without providers if the caller may not link. It leaves out a provider
// whose people all have accounts: any choice there would be refused.
func (s *Service) Linking(ctx context.Context, caller *authz.Principal) (l Linking, err error) {
	if mayNot := caller.Check(writeIdentity); mayNot != nil || !caller.ByBrowser {
		return l, nil //nolint:nilerr // that is no error here, but nothing to offer
	}
	if l.Stale, err = s.tooOldToLink(ctx, caller.Session); err != nil {
		return Linking{}, err
	}
	for _, p := range s.config.Providers {
		free := true
		if p.Subjects != nil {
			if free, err = s.anyFree(ctx, p); err != nil {
				return Linking{}, err
			}
		}
		if free {
			l.Providers = append(l.Providers, ProviderItem{p.ID, p.Name})
		}
	}
	return l, nil
}

func hashState(state string) []byte {
	sum := sha256.Sum256([]byte(state))
	return sum[:]
}

// link is a linking under way.
type link struct {
	oidc.Flow
	provider string // its id
	session  uuid.UUID
}

// LinkPage is what the page that confirms a link shows.
type LinkPage struct {
	Principal *authz.Principal
	Mine      []LinkedName // the present identities
	New       LinkedName   // the new one
	Code      string
}

// LinkedName is an identity in words.
type LinkedName struct{ Provider, Name, Email, Subject string }

// finishLink is a linking's callback. It shows the page that names both identities. What
// the provider signed waits in the database for the confirming POST.
func (s *Service) finishLink(w http.ResponseWriter, r *http.Request, provider *oidc.Provider, l link) {
	shown, code, err := s.prepareLink(r, provider, l)
	if err != nil { // else it is counted when confirmed
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

func (s *Service) prepareLink(r *http.Request, provider *oidc.Provider, l link) (shown LinkPage, code string, err error) {
	ctx := r.Context()
	if l.provider != provider.ID {
		return shown, "", &Failure{Reason: ReasonState, Err: fmt.Errorf("began at provider %.100q, came back at %q", l.provider, provider.ID)}
	}
	if shown.Principal, err = s.peekCookie(r); err != nil {
		return shown, "", err
	}
	if shown.Principal == nil || shown.Principal.Session != l.session {
		return shown, "", &Failure{Reason: ReasonState, Err: errors.New("this browser has not the session that began to link")}
	}
	in, err := s.redeem(r, provider, l.Flow)
	if err != nil {
		return shown, "", err
	}
	code = random()
	// A callback is public, but this one finishes what its session began.
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
		in.IDToken = "" // no session needs it
		return keepSignIn(ctx, tx, l, in, code)
	})
	if err != nil {
		return shown, "", err
	}
	shown.New = LinkedName{provider.Name, in.Name, in.Email, in.Subject}
	shown.Mine, err = s.linkedNames(ctx, shown.Principal)
	return shown, code, err
}

// ConfirmLink makes the link: POST /auth/link/confirm, by the same session that began it, with
// the code from the page that named both.
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
