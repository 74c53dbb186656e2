package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/problem"
	"noted/internal/request"
)

// KeyPrefix begins every API key.
const KeyPrefix = "noted_"

// Authenticate puts the caller into the request's context. Without a credential it answers
// 401 at once. For an invalid credential it answers as fail does. If there is an
// Authorization header it reads only that, else the session cookie. Nothing else in a
// request identifies the caller.
func (s *Service) Authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := s.tokenOf(r)
		if err == nil && token == "" {
			problem.Write(w, r, problem.Unauthorized())
			return
		}
		var principal *authz.Principal
		if err == nil {
			principal, err = s.resolve(r.Context(), token)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, letIn(r, principal))
	})
}

// letIn puts the caller into the request's context, and their credential into its record.
func letIn(r *http.Request, principal *authz.Principal) *http.Request {
	by := request.Credential{Kind: string(principal.Via), ID: principal.Session, Holder: principal.ID}
	if principal.Via == authz.ViaKey {
		by.ID = principal.Key
	}
	request.From(r.Context()).Credential = by
	return r.WithContext(authz.WithPrincipal(r.Context(), principal))
}

// SignedIn is Authenticate for a page for people. It sends a stranger's browser to sign in and
// back, also when their session has ended.
func (s *Service) SignedIn(next http.Handler) http.Handler {
	authenticated := s.Authenticate(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || !request.AcceptsHTML(r) {
			authenticated.ServeHTTP(w, r)
			return
		}
		token, err := s.tokenOf(r)
		var principal *authz.Principal
		if err == nil && token != "" {
			principal, err = s.resolve(r.Context(), token)
		}
		var failure *Failure
		switch {
		case principal != nil:
			next.ServeHTTP(w, letIn(r, principal))
		case err == nil:
			redirect(w, http.StatusSeeOther, s.signInURL(r))
		case errors.As(err, &failure):
			if s.settled(w, r, failure) {
				redirect(w, http.StatusSeeOther, s.signInURL(r))
			}
		default:
			problem.Write(w, r, err)
		}
	})
}

// signInURL leads to the provider and back to the requested page. With several providers it leads
// to the page that lists them.
func (s *Service) signInURL(r *http.Request) string {
	at := "/auth/login"
	if len(s.config.Providers) != 1 {
		at = "/"
	}
	return at + "?return_to=" + url.QueryEscape(LocalPath(r.URL.RequestURI()))
}

// BySession refuses keys: the route is for a person at a browser.
func BySession(needed authz.Permission, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		check := func(caller *authz.Principal) error {
			err := caller.Check(needed)
			if err == nil && caller.Via != authz.ViaSession {
				err = problem.Forbidden(needed.String())
			}
			return err
		}
		if err := check(authz.From(r.Context())); err != nil {
			problem.Write(w, r, err)
			return
		}
		next(w, r.WithContext(authz.WithDecision(r.Context(), check)))
	}
}

// byBrowser is BySession, and refuses derived sessions too. How a session began never changes.
func byBrowser(needed authz.Permission, next http.HandlerFunc) http.HandlerFunc {
	return BySession(needed, func(w http.ResponseWriter, r *http.Request) {
		if !authz.From(r.Context()).ByBrowser {
			problem.Write(w, r, notByBrowser(needed))
			return
		}
		next(w, r)
	})
}

// notByBrowser returns a 403 for a derived session. A chain of devices, each let in by the one before,
// would outlive every sign-in.
func notByBrowser(needed authz.Permission) error {
	refused := problem.Forbidden(needed.String())
	refused.Detail = "A device's or a program's session lets no device in and links no sign-in; do it in a browser, signed in there"
	return refused
}

// tokenOf reads the credential. It returns "" without an error if none was sent (RFC 6750, 2.1).
func (s *Service) tokenOf(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return s.cookieToken(r)
	}
	scheme, token, found := strings.Cut(headers[0], " ")
	if len(headers) != 1 || !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &Failure{Reason: ReasonHeader}
	}
	return token, nil
}

// cookieToken reads the session cookie. A key there is refused. So are two cookies with different
// sessions: one was planted, and nobody can tell which.
func (s *Service) cookieToken(r *http.Request) (string, error) {
	cookies := r.CookiesNamed(s.cookies.session)
	if len(cookies) == 0 {
		return "", nil
	}
	token := cookies[0].Value
	others := slices.ContainsFunc(cookies, func(c *http.Cookie) bool { return c.Value != token })
	if others || !strings.HasPrefix(token, tokenPrefix) {
		return "", &Failure{Reason: ReasonMalformed}
	}
	return token, nil
}

// resolve returns a token's principal, or a *Failure.
func (s *Service) resolve(ctx context.Context, token string) (*authz.Principal, error) {
	hash, policy := sha256.Sum256([]byte(token)), s.policy()
	if principal := s.remembered.find(hash, policy); principal != nil {
		return principal, nil
	}
	epoch, asked := s.remembered.epoch.Load(), time.Now()
	principal, lasting, err := s.principalOf(ctx, token, policy)
	if err == nil && lasting {
		s.remembered.keep(hash, principal, policy, epoch, asked)
	}
	return principal, err
}

// principalOf asks the database. A credential is not lasting if it ends while it would still be
// remembered.
func (s *Service) principalOf(ctx context.Context, token string, policy *authz.Policy) (p *authz.Principal, lasting bool, err error) {
	if strings.HasPrefix(token, KeyPrefix) {
		key, err := s.keys.VerifyKey(ctx, token)
		if err != nil {
			return nil, false, err
		}
		made := authz.Principal{Via: authz.ViaKey, Key: key.ID, KeyRole: key.Role, Secret: key.Secret}
		if key.Service != nil {
			made.ID, made.Kind, made.Name, made.Org, made.OrgRole = key.ID, authz.KindService, key.Service.Name, key.Service.Org, key.Service.Role
			return authz.NewPrincipal(made, policy, nil), key.Lasting, nil
		}
		return s.principal(key.Person, made, policy), key.Lasting, nil
	}
	hash, ok := Token(token).Hash()
	if !ok {
		return nil, false, &Failure{Reason: ReasonMalformed}
	}
	found, err := s.findSession(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, false, &Failure{Reason: ReasonUnknownSession}
	}
	if err != nil {
		return nil, false, err
	}
	if found.refused != "" {
		return nil, false, failureOf(found.refused, found.person)
	}
	if found.unmarked {
		if err := s.markUsed(ctx, found.session); err != nil {
			request.From(ctx).Log().LogAttrs(ctx, slog.LevelWarn, "noting a session's use", slog.Any("error", err))
		}
	}
	made := authz.Principal{Via: authz.ViaSession, Session: found.session, ByBrowser: found.origin == originBrowser}
	return s.principal(found.person, made, policy), found.lasting, nil
}

func (s *Service) principal(person Person, p authz.Principal, policy *authz.Policy) *authz.Principal {
	p.ID, p.Kind, p.Name, p.Email = person.ID, authz.KindUser, person.Name, person.Email
	return authz.NewPrincipal(p, policy, s.Names(person.Identities))
}

// Act is Write for an operation on the caller's own things, or on nobody's. work gets the context from
// Confirm.
func (s *Service) Act(ctx context.Context, work func(context.Context, pgx.Tx) error) error {
	return s.Write(ctx, func(tx pgx.Tx) error {
		ctx, err := s.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		return work(ctx, tx)
	})
}

// actAlone is Act, but never runs at the same time as another for the caller or the others.
func (s *Service) actAlone(ctx context.Context, work func(context.Context, pgx.Tx) error, others ...uuid.UUID) error {
	return s.Write(ctx, func(tx pgx.Tx) error {
		if err := lockUsers(ctx, tx, append(others, authz.From(ctx).ID)...); err != nil {
			return err
		}
		ctx, err := s.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		return work(ctx, tx)
	})
}

// Confirm decides on the caller again, in the transaction that writes. While a request waits for its body,
// its session can end, its secret be replaced, its user be locked, a sign-in be unlinked, a name age out
// or the policy change. The credential must still be valid. The caller, made anew from the policy in force
// and their identities, must still be allowed what the operation declares. The returned context carries
// that caller, for later decisions in the transaction. Credential and identities cannot change until tx
// ends. The error is a *Failure or a 403.
func (s *Service) Confirm(ctx context.Context, tx pgx.Tx) (context.Context, error) {
	caller := authz.From(ctx)
	fresh, reason, err := s.confirm(ctx, tx, caller)
	if err != nil {
		return ctx, fmt.Errorf("confirming the credential: %w", err)
	}
	if reason != "" {
		failure := failureOf(reason, Person{ID: caller.ID, Name: caller.Name})
		if caller.Kind == authz.KindService {
			failure.Object, failure.Actor, failure.Org = "key", ActorOf(caller), caller.Org
		}
		failure.service = s
		return ctx, failure
	}
	return authz.Again(ctx, fresh)
}

func (s *Service) confirm(ctx context.Context, tx pgx.Tx, caller *authz.Principal) (*authz.Principal, Reason, error) {
	if caller.Kind == authz.KindService {
		reason, err := s.confirmKey(ctx, tx, caller)
		return authz.NewPrincipal(*caller, s.policy(), nil), reason, err
	}
	lives, err := userLives(ctx, tx, caller.ID)
	if err != nil {
		return nil, "", err
	}
	if !lives {
		return nil, ReasonLocked, nil
	}
	if caller.Via == authz.ViaKey {
		if reason, err := s.confirmKey(ctx, tx, caller); err != nil || reason != "" {
			return nil, reason, err
		}
	} else {
		if lives, err = s.sessionLives(ctx, tx, caller.Session); err != nil {
			return nil, "", err
		}
		if !lives {
			return nil, ReasonEndedSession, nil
		}
	}
	person, err := personIn(ctx, tx, caller.ID)
	return s.principal(person, *caller, s.policy()), "", err
}

func (s *Service) confirmKey(ctx context.Context, tx pgx.Tx, caller *authz.Principal) (Reason, error) {
	lives, err := s.keys.KeyLives(ctx, tx, caller.Key, caller.Secret)
	if err != nil || lives {
		return "", err
	}
	return ReasonRevokedKey, nil
}

// failureOf returns a Failure for a known person.
func failureOf(reason Reason, person Person) *Failure {
	return &Failure{
		Reason: reason, Object: "user", Target: person.ID.String(),
		Actor: &audit.Actor{ID: person.ID, Kind: "user", Name: person.Name},
	}
}

// Peek returns who is signed in by the request's session, for the page at /. It returns nil
// for a stranger and for an invalid credential. It never fails. A key is not a sign-in.
func (s *Service) Peek(r *http.Request) *authz.Principal {
	token, err := s.tokenOf(r)
	if err != nil || !strings.HasPrefix(token, tokenPrefix) {
		return nil
	}
	principal, err := s.resolve(r.Context(), token)
	if err != nil {
		return nil
	}
	return principal
}

// peekCookie is Peek by the session cookie alone. The error is a server fault, never a *Failure.
func (s *Service) peekCookie(r *http.Request) (*authz.Principal, error) {
	token, err := s.cookieToken(r)
	var principal *authz.Principal
	if err == nil && token != "" {
		principal, err = s.resolve(r.Context(), token)
	}
	var failure *Failure
	if errors.As(err, &failure) { // and there is no principal
		err = nil
	}
	return principal, err
}
