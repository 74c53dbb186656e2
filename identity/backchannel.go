package identity

import (
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"

	"noted/identity/oidc"
	"noted/internal/problem"
)

// BackchannelLogout ends sessions at their provider's request: POST
// /auth/backchannel-logout/{provider} (OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8). It
// answers 200 even if there is nothing to end. For any invalid token it answers 400, without
// detail and not before the floor.
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
		// Not counted by address: it is the provider's, whose next token may be good.
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
