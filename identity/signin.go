package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"

	"noted/identity/oidc"
	"noted/internal/problem"
	"noted/internal/request"
)

// flow is a sign-in under way. It is in a cookie of the browser that began it. That binds
// state and nonce to that browser (OpenID Connect Core, 3.1.2.1 and 15.5.2) without a table
// that strangers could fill. Nothing in it is worth more than the browser's own sign-in.
type flow struct {
	oidc.Flow
	Provider string `json:"p"`
	ReturnTo string `json:"r"`
}

// A browser sends the cookies of all its sign-ins under way with each request. These bounds keep
// them below 8 KiB together. Many proxies accept no more in one header.
const (
	maxReturnTo = 512 // bytes of a return_to; a longer one is "/"
	maxFlows    = 5   // sign-ins under way in one browser
)

// flowLife is how long a sign-in may take at the provider.
const flowLife = 10 * time.Minute

// selectAccount is the only prompt that a caller may ask for (OpenID Connect Core, 3.1.2.1). The provider
// then lets the person choose, instead of using the account that is signed in there.
const selectAccount = "select_account"

// Login sends the browser to the provider: GET /auth/login?provider&return_to&login_hint&prompt.
func (s *Service) Login(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	provider, err := s.provider(query.Get("provider"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	prompt := query.Get("prompt")
	if prompt != selectAccount { // not passed on, like any other unknown parameter
		prompt = ""
	}
	f := flow{Flow: oidc.NewFlow(), Provider: provider.ID, ReturnTo: LocalPath(query.Get("return_to"))}
	address, err := s.toProvider(r.Context(), provider, f.Flow, request.Text(query.Get("login_hint"), 255), prompt)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	if len(f.ReturnTo) > maxReturnTo {
		f.ReturnTo = "/"
	}
	value, err := json.Marshal(f)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	s.dropOldFlows(w, r)
	s.cookies.set(w, s.cookies.signIn+shortState(f.State), base64.RawURLEncoding.EncodeToString(value), flowLife)
	redirect(w, http.StatusFound, address)
}

// dropOldFlows makes room for one more sign-in under way. Browsers send the oldest cookie first
// (RFC 6265, 5.4). If one does not, another sign-in is dropped.
func (s *Service) dropOldFlows(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, cookie := range r.Cookies() {
		if strings.HasPrefix(cookie.Name, s.cookies.signIn) {
			names = append(names, cookie.Name)
		}
	}
	for _, name := range names[:max(0, len(names)-(maxFlows-1))] {
		s.cookies.set(w, name, "", -1)
	}
}

// toProvider returns where a browser goes to sign in, or a 503 if the provider is down. Hint and prompt may be empty.
func (s *Service) toProvider(ctx context.Context, provider *oidc.Provider, f oidc.Flow, loginHint, prompt string) (string, error) {
	address, err := provider.AuthorizeURL(ctx, s.redirectURL(provider), f, loginHint, prompt)
	if err != nil {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelError, "provider unreachable", slog.String("provider", provider.ID), slog.String("error", oidc.Brief(err)))
		return "", problem.New(http.StatusServiceUnavailable, "The provider %s cannot be reached now; try again in a moment", provider.ID).With("Retry-After", "2")
	}
	return address, nil
}

// Callback takes the browser back from the provider, verifies what it brings and begins a
// session: GET /auth/callback/{provider}. Every failure gets the same answer.
func (s *Service) Callback(w http.ResponseWriter, r *http.Request) {
	provider, err := s.provider(chi.URLParam(r, "provider"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	link, ok, err := s.linkOf(r)
	if err != nil {
		s.writeFault(w, r, err)
		return
	}
	if ok {
		s.finishLink(w, r, provider, link)
		return
	}
	f, token, expires, err := s.finish(r, provider)
	s.config.SignIn(WayCallback, err == nil)
	if err != nil {
		s.failPage(w, r, provider, err)
		return
	}
	s.cookies.set(w, s.cookies.signIn+shortState(f.State), "", -1)
	s.cookies.set(w, s.cookies.session, string(token), time.Until(expires))
	redirect(w, http.StatusSeeOther, LocalPath(f.ReturnTo))
}

// finish does the callback's work. A failed sign-in is a *Failure. Any other error is a fault of the
// server.
func (s *Service) finish(r *http.Request, provider *oidc.Provider) (f flow, token Token, expires time.Time, err error) {
	ctx := r.Context()
	f, err = s.flowOf(r, provider, r.URL.Query().Get("state"))
	if err != nil {
		return f, "", expires, &Failure{Reason: ReasonState, Err: err}
	}
	in, err := s.redeem(r, provider, f.Flow)
	if err != nil {
		return f, "", expires, err
	}
	token, expires, err = s.beginSession(ctx, in, originBrowser)
	return f, token, expires, err
}

// redeem verifies what the provider sent by the browser, and checks the gates.
func (s *Service) redeem(r *http.Request, provider *oidc.Provider, f oidc.Flow) (in signIn, err error) {
	raw, said, err := provider.Redeem(r.Context(), s.redirectURL(provider), r.URL.Query(), f)
	if err != nil {
		return in, atProvider(err)
	}
	in, err = welcome(r.Context(), provider, raw, said)
	in.IDToken = raw
	return in, err
}

// welcome checks the gates for the person in a verified token, and warns of missing groups
// claims.
func welcome(ctx context.Context, provider *oidc.Provider, raw string, said oidc.SignIn) (signIn, error) {
	in := signIn{SignIn: said, spent: spentIDToken(raw)}
	if len(said.MissingGroups) > 0 {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelWarn, "the ID token has no such groups claim, so it gives no group roles",
			slog.String("provider", provider.ID), slog.Any("claims", said.MissingGroups))
	}
	if err := provider.Admit(said); err != nil {
		return in, &Failure{Reason: ReasonGate, Err: err}
	}
	return in, nil
}

// flowOf finds the flow that this browser began with this state for this provider.
func (s *Service) flowOf(r *http.Request, provider *oidc.Provider, state string) (flow, error) {
	var f flow
	if state == "" {
		return f, errors.New("no state")
	}
	cookie, err := r.Cookie(s.cookies.signIn + shortState(state))
	if err != nil {
		return f, errors.New("this browser began no such sign-in")
	}
	value, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(value, &f) != nil {
		return f, errors.New("the sign-in's cookie is damaged")
	}
	if subtle.ConstantTimeCompare([]byte(f.State), []byte(state)) != 1 {
		return f, errors.New("state does not match")
	}
	if f.Provider != provider.ID {
		return f, fmt.Errorf("began at provider %.100q, came back at %q", f.Provider, provider.ID)
	}
	return f, nil
}

// Logout ends the session of the Authorization header or else of the cookie, if any, and
// clears the cookie: POST /auth/logout. A browser goes on to the provider to end the session
// there too (RP-Initiated Logout 1.0, 2), else to /. No credential makes it fail.
func (s *Service) Logout(w http.ResponseWriter, r *http.Request) {
	next := s.config.PublicURL + "/"
	token, err := s.tokenOf(r)
	if hash, ok := Token(token).Hash(); err == nil && ok {
		issuer, idToken, err := s.logOut(r.Context(), hash)
		if err != nil {
			s.writeFault(w, r, err)
			return
		}
		if end := s.endSessionURL(r, issuer, idToken); end != "" {
			next = end
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	s.cookies.set(w, s.cookies.session, "", -1)
	if request.AcceptsHTML(r) {
		redirect(w, http.StatusSeeOther, next)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// endSessionURL returns where a browser ends its session at the provider; "" if it cannot.
func (s *Service) endSessionURL(r *http.Request, issuer, idToken string) string {
	provider := s.config.Providers.ByIssuer(issuer)
	if provider == nil || idToken == "" || !request.AcceptsHTML(r) {
		return ""
	}
	return provider.EndSessionURL(r.Context(), idToken, s.config.PublicURL+"/")
}

// provider finds a configured provider. If there is only one, id may be empty.
func (s *Service) provider(id string) (*oidc.Provider, error) {
	if id == "" && len(s.config.Providers) == 1 {
		return s.config.Providers[0], nil
	}
	if p := s.config.Providers.ByID(id); p != nil {
		return p, nil
	}
	if id == "" {
		return nil, problem.New(http.StatusNotFound, "Say which provider: /auth/providers lists them")
	}
	return nil, problem.New(http.StatusNotFound, "There is no such provider; /auth/providers lists them")
}

func (s *Service) redirectURL(p *oidc.Provider) string {
	return s.config.PublicURL + "/auth/callback/" + p.ID
}

// LocalPath returns raw if it is a path on this server, with query and fragment, of at most
// 2,048 bytes; else "/". A browser reads \ as / and drops control characters, so raw must
// have neither. // would begin another host's address.
func LocalPath(raw string) string {
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' }
	if len(raw) > 2048 || !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") || strings.ContainsFunc(raw, bad) {
		return "/"
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") {
		return "/"
	}
	return raw
}

// redirect leaves the address as it is. http.Redirect would rewrite it and add a body.
func redirect(w http.ResponseWriter, status int, location string) {
	w.Header().Set("Location", location)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// random returns 256 bits that nobody can guess.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// shortState names a flow's cookie. It is long enough to tell a few tabs apart.
func shortState(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:4])
}
