package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"noted/internal/problem"
)

// logout is what a verified logout token asks for.
type logout struct {
	issuer, sid, subject, jti string
	issuedAt                  time.Time
}

// BackchannelLogout ends sessions because their provider says so: POST
// /auth/backchannel-logout/{provider} (OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8). 200
// also when there is nothing to end; 400, with no detail and no sooner than the floor, for
// whatever is wrong with the token.
func (s *Service) BackchannelLogout(w http.ResponseWriter, r *http.Request) {
	provider, err := s.provider(chi.URLParam(r, "provider"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	asked, err := s.logoutOf(r, provider)
	if err == nil {
		err = s.logOutAtProvider(r.Context(), asked)
	}
	var failure *Failure
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.As(err, &failure):
		// Not counted by address: behind it is the provider, whose next token may be good.
		s.note(r.Context(), failure)
		if s.waitFloor(r.Context()) {
			problem.Write(w, r, problem.New(http.StatusBadRequest, ""))
		}
	default:
		s.writeFault(w, r, err)
	}
}

// logoutOf verifies a logout token (2.4, 2.6): go-oidc the signature, issuer, expiry, event,
// jti, and that there is no nonce; here the rest.
func (s *Service) logoutOf(r *http.Request, provider *Provider) (l logout, err error) {
	fail := func(err error) (logout, error) { return l, &Failure{Reason: ReasonLogoutToken, Err: err} }
	form, err := formOf(r)
	if refused := refusedBody(err); refused != nil && refused.Status != http.StatusRequestEntityTooLarge {
		return l, refused // the provider may send it again
	}
	if err != nil {
		return fail(err)
	}
	ctx, raw := r.Context(), form.Get("logout_token")
	if !canonical(raw) {
		return fail(errors.New("no logout_token of three parts in base64url"))
	}
	typ, err := headerType(raw)
	if err != nil {
		return fail(fmt.Errorf("header: %w", err))
	}
	if typ != "" && !strings.EqualFold(typ, "JWT") && !strings.EqualFold(typ, "logout+jwt") {
		return fail(fmt.Errorf("typ %.50q is no logout token's", typ))
	}
	e, err := provider.discover(ctx, s.redirectURL(provider))
	if err != nil {
		return fail(err)
	}
	token, err := e.verifier.VerifyLogout(oidc.ClientContext(ctx, e.client), raw)
	if err != nil {
		return fail(err)
	}
	var all map[string]any
	if err := token.Claims(&all); err != nil {
		return fail(err)
	}
	now := time.Now()
	event, isObject := eventOf(all)
	switch {
	case checkClaims(all) != nil:
		return fail(checkClaims(all))
	case !isObject:
		return fail(fmt.Errorf("the logout event is %.50q, no object", fmt.Sprint(event)))
	case all["nonce"] != nil:
		return fail(errors.New("it has a nonce"))
	case len(token.Audience) == 0 || slices.ContainsFunc(token.Audience, func(a string) bool { return a != provider.ClientID }):
		return fail(fmt.Errorf("audience %.300q is not noted alone", token.Audience))
	case token.IssuedAt.Unix() <= 0 || token.IssuedAt.After(now.Add(maxClockDifference)) || now.Sub(token.IssuedAt) > exchangeAge:
		return fail(fmt.Errorf("iat %v is missing, in the future or over %v ago", token.IssuedAt, exchangeAge))
	case token.Subject != "" && !isSubject(token.Subject), len(token.SessionID) > 255, len(token.TokenID) > 1024:
		return fail(errors.New("sub, sid or jti is too long, or sub is no ASCII"))
	}
	return logout{provider.Issuer, token.SessionID, token.Subject, token.TokenID, token.IssuedAt}, nil
}

func eventOf(all map[string]any) (event any, isObject bool) {
	events, _ := all["events"].(map[string]any)
	event = events["http://schemas.openid.net/event/backchannel-logout"]
	_, isObject = event.(map[string]any)
	return event, isObject
}

// logOutAtProvider ends the sessions of one sign-in, by sid, or of an identity, by sub. With both, sid
// selects, sub must match, and what was exchanged for that identity's tokens without a sid ends too:
// nobody can tell of which sign-in they were. Devices approved from those sessions, and sessions
// exchanged with their tokens, have the same identity and sid, and end with them. ID tokens of what
// was ended begin nothing any more.
func (s *Service) logOutAtProvider(ctx context.Context, l logout) error {
	return s.Write(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into spent_tokens (hash, forget_at) values ($1, now() + $2::interval)
			on conflict (hash) do nothing`, spentHash("logout", l.issuer, l.jti), spentFor)
		if err != nil {
			return fmt.Errorf("spending a logout token: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return &Failure{Reason: ReasonReplay}
		}
		// In the order of spend.
		sid, subject := spentHash("sid", l.issuer, l.sid), spentHash("sub", l.issuer, l.subject)
		var locked, ended [][]byte
		if l.sid != "" {
			locked, ended = append(locked, sid), append(ended, sid)
		}
		if l.subject != "" {
			locked = append(locked, subject)
			if l.sid != "" {
				subject = spentHash("sub without sid", l.issuer, l.subject)
			}
			ended = append(ended, subject)
		}
		for _, hash := range locked {
			if err := lockToken(ctx, tx, hash); err != nil {
				return err
			}
		}
		var other bool
		err = tx.QueryRow(ctx, `
			select exists (
				select 1 from sessions s join identities i on i.id = s.identity_id
				where i.issuer = $1 and s.provider_sid = $2 and i.subject <> $3 and $3 <> '')`, l.issuer, l.sid, l.subject).Scan(&other)
		if err != nil {
			return fmt.Errorf("comparing sid and sub: %w", err)
		}
		if other {
			return &Failure{Reason: ReasonLogoutToken, Err: errors.New("sid is of another sub")}
		}
		_, err = tx.Exec(ctx, `
			insert into spent_tokens (hash, issued_at, forget_at) select unnest($1::bytea[]), $2::timestamptz, now() + $3::interval
			on conflict (hash) do update set issued_at = greatest(spent_tokens.issued_at, excluded.issued_at), forget_at = excluded.forget_at`,
			ended, l.issuedAt, spentFor)
		if err != nil {
			return fmt.Errorf("noting a logout: %w", err)
		}
		_, err = endSessions(ctx, tx, "signed out at "+l.issuer,
			`i.issuer = $1 and case when $2 = '' then i.subject = $3
				else s.provider_sid = $2 or s.provider_sid is null and s.origin = $4 and i.subject = $3 end`,
			l.issuer, l.sid, l.subject, originExchange)
		return err
	})
}
