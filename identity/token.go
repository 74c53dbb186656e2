package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/bodies"
	"noted/internal/problem"
	"noted/internal/request"
)

// The names from RFC 8693 (2.1, 3) and RFC 8628 (3.4).
const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantDevice     = "urn:ietf:params:oauth:grant-type:device_code"
	typeIDToken     = "urn:ietf:params:oauth:token-type:id_token"     //nolint:gosec // a name
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token" //nolint:gosec // a name
)

// formLimit is the maximum size of a form: one token and a little more.
const formLimit = oidc.TokenLimit + 16<<10

// TokenAnswer is the answer of POST /auth/token (RFC 6749, 5.1; RFC 8693, 2.2.1).
type TokenAnswer struct {
	AccessToken     string `json:"access_token" doc:"The token of a new session"`
	IssuedTokenType string `json:"issued_token_type,omitzero" doc:"With a token exchange"`
	TokenType       string `json:"token_type" enum:"Bearer"`
	ExpiresIn       int    `json:"expires_in" doc:"Seconds until the session's absolute end"`
}

// tokenError is an error as OAuth writes it (RFC 6749, 5.2). It is sent at once: it is about
// the request, not about a credential.
type tokenError string

// Error returns the code.
func (e tokenError) Error() string { return string(e) }

// Token answers POST /auth/token. It gives a session for an ID token (RFC 8693) or a device code
// (RFC 8628, 3.4). An invalid credential is settled by settle, and answered in OAuth's form.
func (s *Service) Token(w http.ResponseWriter, r *http.Request) {
	form, err := formOf(r)
	if err != nil {
		if refused := refusedBody(err); refused != nil {
			problem.Write(w, r, refused)
			return
		}
		writeOAuth(w, http.StatusBadRequest, OAuthError{"invalid_request"})
		return
	}
	refused, way := "invalid_request", WayExchange
	var answer TokenAnswer
	switch form.Get("grant_type") {
	case grantExchange:
		answer, err = s.exchange(r.Context(), form)
	case grantDevice:
		refused, way = "invalid_grant", WayDevice
		answer, err = s.fetchDevice(r.Context(), form)
	case "":
		err = tokenError("invalid_request")
	default:
		err = tokenError("unsupported_grant_type")
	}
	var plain tokenError
	var failure *Failure
	// A request error is not a sign-in, except for a device login that ended without a session.
	if !errors.As(err, &plain) || plain == "access_denied" || plain == "expired_token" {
		s.config.SignIn(way, err == nil)
	}
	switch {
	case err == nil:
		writeOAuth(w, http.StatusOK, answer)
	case plain != "":
		writeOAuth(w, http.StatusBadRequest, OAuthError{string(plain)})
	case errors.As(err, &failure):
		if s.settled(w, r, failure) {
			writeOAuth(w, http.StatusBadRequest, OAuthError{refused})
		}
	default:
		s.writeFault(w, r, err)
	}
}

// OAuthError is an error as OAuth writes it (RFC 6749, 5.2).
type OAuthError struct {
	Error string `json:"error" example:"invalid_request"`
}

// writeOAuth answers by RFC 6749, 5.1 and 5.2.
func writeOAuth(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // structs of plain strings and numbers
		status, text = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text) //nolint:gosec // JSON, and said to be
}

var errForm = errors.New("a form with each parameter once is needed (application/x-www-form-urlencoded)")

// Forms is middleware for routes that take a form. It limits the body and counts it against the
// caller, or, without one, against the stranger's network.
func (s *Service) Forms(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		budget, caller := s.config.Strangers, any(networkOf(request.From(r.Context()).IP))
		if principal := authz.From(r.Context()); principal != nil {
			budget, caller = s.config.Bodies, principal.ID
		}
		body, err := budget.Take(w, r, caller, formLimit)
		if err != nil {
			r.Body = refusedForm{r.Body, err} // each route reports it in its own way
		} else {
			defer body.Release()
		}
		next.ServeHTTP(w, r)
	})
}

// refusedForm is a form's body that was refused before it was read.
type refusedForm struct {
	io.Closer
	err error
}

func (f refusedForm) Read([]byte) (int, error) { return 0, f.err }

// refusedBody returns the problem that stopped the reading of the body. It is nil if a form is
// refused for its content.
func refusedBody(err error) (refused *problem.Error) {
	errors.As(err, &refused)
	return refused
}

// formOf reads a request's form, without its query. A parameter may appear once (RFC 6749, 3.2).
// It returns errForm on a route without Forms.
func formOf(r *http.Request) (url.Values, error) {
	switch body := r.Body.(type) {
	case *bodies.Body:
	case refusedForm: // whatever is in it
		return nil, body.err
	default:
		return nil, errForm
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, errForm
	}
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return nil, errForm
		}
	}
	return r.PostForm, nil
}

// ReadForm is formOf for the forms of pages. Its error is a problem: for a body that is not a form, a 415 that
// says what is needed.
func ReadForm(r *http.Request) (url.Values, error) {
	form, err := formOf(r)
	if refused := refusedBody(err); refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, problem.New(http.StatusUnsupportedMediaType, "%s", errForm.Error())
	}
	return form, nil
}

// exchange begins a session for an ID token that has just been issued to noted's client or one of
// the provider's allowed_audiences. The token counts once, and only while it is new.
func (s *Service) exchange(ctx context.Context, form url.Values) (TokenAnswer, error) {
	raw := form.Get("subject_token")
	if raw == "" || form.Get("subject_token_type") != typeIDToken {
		return TokenAnswer{}, tokenError("invalid_request")
	}
	if wanted := form.Get("requested_token_type"); wanted != "" && wanted != typeAccessToken {
		return TokenAnswer{}, tokenError("invalid_request")
	}
	issuer, err := oidc.IssuerOf(raw)
	if err != nil {
		return TokenAnswer{}, &Failure{Reason: ReasonIDToken, Err: err}
	}
	provider := s.config.Providers.ByIssuer(issuer)
	if provider == nil {
		return TokenAnswer{}, &Failure{Reason: ReasonIDToken, Err: fmt.Errorf("issuer %.200q is not a configured one", issuer)}
	}
	said, err := provider.VerifyIDToken(ctx, raw)
	if err != nil {
		return TokenAnswer{}, atProvider(err)
	}
	in, err := welcome(ctx, provider, raw, said)
	if err != nil {
		return TokenAnswer{}, err
	}
	token, expires, err := s.beginSession(ctx, in, originExchange)
	if err != nil {
		return TokenAnswer{}, err
	}
	return TokenAnswer{string(token), typeAccessToken, "Bearer", int(time.Until(expires).Round(time.Second).Seconds())}, nil
}
