package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"noted/identity/oidc"
	"noted/internal/problem"
)

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

// logoutOf reads and verifies the request's logout token.
func (s *Service) logoutOf(r *http.Request, provider *oidc.Provider) (oidc.Logout, error) {
	form, err := formOf(r)
	if refused := refusedBody(err); refused != nil && refused.Status != http.StatusRequestEntityTooLarge {
		return oidc.Logout{}, refused // the provider may send it again
	}
	if err != nil {
		return oidc.Logout{}, &Failure{Reason: ReasonLogoutToken, Err: err}
	}
	asked, err := provider.VerifyLogout(r.Context(), form.Get("logout_token"))
	return asked, atProvider(err)
}

// logOutAtProvider ends the sessions of one sign-in, by sid, or of an identity, by sub. With both, sid
// selects, sub must match, and what was exchanged for that identity's tokens without a sid ends too:
// nobody can tell of which sign-in they were. Devices approved from those sessions, and sessions
// exchanged with their tokens, have the same identity and sid, and end with them. ID tokens of what
// was ended begin nothing any more.
func (s *Service) logOutAtProvider(ctx context.Context, l oidc.Logout) error {
	return s.Write(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into spent_tokens (hash, forget_at) values ($1, now() + $2::interval)
			on conflict (hash) do nothing`, spentHash("logout", l.Issuer, l.TokenID), spentFor)
		if err != nil {
			return fmt.Errorf("spending a logout token: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return &Failure{Reason: ReasonReplay}
		}
		// In the order of spend.
		sid, subject := spentHash("sid", l.Issuer, l.SessionID), spentHash("sub", l.Issuer, l.Subject)
		var locked, ended [][]byte
		if l.SessionID != "" {
			locked, ended = append(locked, sid), append(ended, sid)
		}
		if l.Subject != "" {
			locked = append(locked, subject)
			if l.SessionID != "" {
				subject = spentHash("sub without sid", l.Issuer, l.Subject)
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
				where i.issuer = $1 and s.provider_sid = $2 and i.subject <> $3 and $3 <> '')`, l.Issuer, l.SessionID, l.Subject).Scan(&other)
		if err != nil {
			return fmt.Errorf("comparing sid and sub: %w", err)
		}
		if other {
			return &Failure{Reason: ReasonLogoutToken, Err: errors.New("sid is of another sub")}
		}
		_, err = tx.Exec(ctx, `
			insert into spent_tokens (hash, issued_at, forget_at) select unnest($1::bytea[]), $2::timestamptz, now() + $3::interval
			on conflict (hash) do update set issued_at = greatest(spent_tokens.issued_at, excluded.issued_at), forget_at = excluded.forget_at`,
			ended, l.IssuedAt, spentFor)
		if err != nil {
			return fmt.Errorf("noting a logout: %w", err)
		}
		_, err = endSessions(ctx, tx, "signed out at "+l.Issuer,
			`i.issuer = $1 and case when $2 = '' then i.subject = $3
				else s.provider_sid = $2 or s.provider_sid is null and s.origin = $4 and i.subject = $3 end`,
			l.Issuer, l.SessionID, l.Subject, originExchange)
		return err
	})
}
