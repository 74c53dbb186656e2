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
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"

	"noted/internal/problem"
	"noted/internal/request"
)

// flow is one sign-in under way. It lives in a cookie of the browser that began it, which
// binds state and nonce to that browser (OpenID Connect Core, 3.1.2.1 and 15.5.2) with no
// table for strangers to fill. Nothing in it is worth more than the browser's own sign-in.
type flow struct {
	Provider string `json:"p"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // PKCE (RFC 7636, 4.1)
	ReturnTo string `json:"r"`
}

// A browser sends the cookies of all its sign-ins under way with each request. These bounds keep
// them below 8 KiB together, which is what many a proxy takes for one header.
const (
	maxReturnTo = 512 // bytes of a return_to; a longer one is "/"
	maxFlows    = 5   // sign-ins under way in one browser
)

// flowLife is how long somebody may take at the provider.
const flowLife = 10 * time.Minute

// selectAccount is the one prompt that a caller may ask for (OpenID Connect Core, 3.1.2.1): the provider
// then lets the person choose, where it would else answer with the account that is signed in there.
const selectAccount = "select_account"

// Login sends the browser to the provider: GET /auth/login?provider&return_to&login_hint&prompt.
func (s *Service) Login(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	provider, err := s.provider(query.Get("provider"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	e, err := s.reach(r.Context(), provider)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	f := flow{
		Provider: provider.ID, State: random(), Nonce: random(),
		Verifier: oauth2.GenerateVerifier(), ReturnTo: LocalPath(query.Get("return_to")),
	}
	if len(f.ReturnTo) > maxReturnTo {
		f.ReturnTo = "/"
	}
	value, err := json.Marshal(f)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	prompt := query.Get("prompt")
	if prompt != selectAccount { // like every other parameter that is not ours to pass on
		prompt = ""
	}
	s.dropOldFlows(w, r)
	s.cookies.set(w, s.cookies.signIn+shortState(f.State), base64.RawURLEncoding.EncodeToString(value), flowLife)
	redirect(w, http.StatusFound, e.authorizeURL(provider, f, request.Text(query.Get("login_hint"), 255), prompt))
}

// dropOldFlows makes room for one more sign-in under way. Browsers send the oldest cookie first
// (RFC 6265, 5.4); of one that does not, another sign-in is given up.
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

// reach is discover for somebody who is to be sent to the provider: 503 while it is away.
func (s *Service) reach(ctx context.Context, provider *Provider) (*endpoints, error) {
	e, err := provider.discover(ctx, s.redirectURL(provider))
	if err != nil {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelError, "provider unreachable", slog.String("provider", provider.ID), slog.String("error", brief(err)))
		return nil, problem.New(http.StatusServiceUnavailable, "The provider %s cannot be reached now; try again in a moment", provider.ID).With("Retry-After", "2")
	}
	return e, nil
}

// authorizeURL is where the browser goes to sign in (Core, 3.1.2.1; RFC 7636, 4.3).
// loginHint and prompt may be empty.
func (e *endpoints) authorizeURL(provider *Provider, f flow, loginHint, prompt string) string {
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if loginHint != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", loginHint))
	}
	if prompt != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", prompt))
	}
	if len(provider.HostedDomains) == 1 {
		options = append(options, oauth2.SetAuthURLParam("hd", provider.HostedDomains[0]))
	}
	return e.oauth.AuthCodeURL(f.State, options...)
}

// Callback takes the browser back from the provider, verifies what it brings and begins a
// session: GET /auth/callback/{provider}. Whatever is wrong with it is the one answer.
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

// finish is the callback's work. What is wrong with the sign-in is a *Failure; any other error is a
// fault here.
func (s *Service) finish(r *http.Request, provider *Provider) (f flow, token Token, expires time.Time, err error) {
	ctx := r.Context()
	f, err = s.flowOf(r, provider, r.URL.Query().Get("state"))
	if err != nil {
		return f, "", expires, &Failure{Reason: ReasonState, Err: err}
	}
	in, err := s.redeem(r, provider, f)
	if err != nil {
		return f, "", expires, err
	}
	token, expires, err = s.beginSession(ctx, in, originBrowser)
	return f, token, expires, err
}

// redeem is exchangeCode for a sign-in, with the gates.
func (s *Service) redeem(r *http.Request, provider *Provider, f flow) (in signIn, err error) {
	e, err := provider.discover(r.Context(), s.redirectURL(provider))
	if err != nil {
		return in, &Failure{Reason: ReasonProvider, Err: err}
	}
	raw, t, err := provider.exchangeCode(r.Context(), e, r.URL.Query(), f)
	if err != nil {
		return in, err
	}
	in, err = s.welcome(r.Context(), provider, raw, t)
	in.IDToken = raw
	return in, err
}

// exchangeCode exchanges the code that the browser brought for an ID token, and verifies it for the
// flow. The error is a *Failure.
func (p *Provider) exchangeCode(ctx context.Context, e *endpoints, query url.Values, f flow) (raw string, t signed, err error) {
	for _, name := range []string{"state", "code", "iss", "error"} { // RFC 6749, 3.1
		if len(query[name]) > 1 {
			return "", t, &Failure{Reason: ReasonProvider, Err: fmt.Errorf("the response has %s twice", name)}
		}
	}
	// RFC 9207, 2.4: an answer of another provider is not for this flow.
	if iss := query.Get("iss"); (iss != "" || e.sendsIssuer) && iss != p.Issuer {
		return "", t, &Failure{Reason: ReasonProvider, Err: fmt.Errorf("iss %.100q of the response is not the provider's", iss)}
	}
	if code := query.Get("error"); code != "" {
		return "", t, &Failure{Reason: ReasonProvider, Err: fmt.Errorf("the provider says %.100q: %.200q", code, query.Get("error_description"))}
	}
	answer, err := e.oauth.Exchange(oidc.ClientContext(ctx, e.client), query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return "", t, &Failure{Reason: ReasonCode, Err: withoutBody(err)}
	}
	raw, _ = answer.Extra("id_token").(string)
	t, err = p.verify(ctx, e, raw, time.Now())
	if err == nil && (f.Nonce == "" || t.Nonce != f.Nonce) {
		err = errors.New("nonce does not match")
	}
	if err == nil {
		err = p.own(t)
	}
	if err == nil {
		err = t.checkHashes(answer.AccessToken, query.Get("code"))
	}
	if err != nil {
		return "", t, &Failure{Reason: ReasonIDToken, Err: err}
	}
	return raw, t, nil
}

// welcome asks the gates about whom a verified token names, and warns of groups claims that are
// not there.
func (s *Service) welcome(ctx context.Context, provider *Provider, raw string, t signed) (signIn, error) {
	in, claims := provider.signInOf(raw, t)
	if len(claims.MissingGroups) > 0 {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelWarn, "the ID token has no such groups claim, so it gives no group roles",
			slog.String("provider", provider.ID), slog.Any("claims", claims.MissingGroups))
	}
	if err := provider.admit(in, claims); err != nil {
		return in, &Failure{Reason: ReasonGate, Err: err}
	}
	return in, nil
}

// withoutBody keeps a provider's answer, which may hold a token, out of the log.
func withoutBody(err error) error {
	var retrieve *oauth2.RetrieveError
	if errors.As(err, &retrieve) {
		return fmt.Errorf("the token endpoint answered %s %.100q", retrieve.Response.Status, retrieve.ErrorCode)
	}
	return err
}

// flowOf finds the flow that this browser began with this state, for this provider.
func (s *Service) flowOf(r *http.Request, provider *Provider, state string) (flow, error) {
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

// Logout ends the session of the Authorization header, else of the cookie, if there is one,
// and clears the cookie: POST /auth/logout. A browser goes on to the provider, to end the
// session there too (RP-Initiated Logout 1.0, 2), else to /. It never fails for a credential.
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

// endSessionURL is where the browser ends its session at the provider; empty where the
// provider has no such place, or is not reached: signing out here must not wait for it.
func (s *Service) endSessionURL(r *http.Request, issuer, idToken string) string {
	i := slices.IndexFunc(s.config.Providers, func(p *Provider) bool { return p.Issuer == issuer })
	if i < 0 || idToken == "" || !request.AcceptsHTML(r) {
		return ""
	}
	e, err := s.config.Providers[i].discover(r.Context(), s.redirectURL(s.config.Providers[i]))
	if err != nil || e.endSession == "" {
		return ""
	}
	end, err := url.Parse(e.endSession)
	if err != nil {
		return ""
	}
	query := end.Query()
	query.Set("id_token_hint", idToken)
	query.Set("post_logout_redirect_uri", s.config.PublicURL+"/")
	end.RawQuery = query.Encode()
	return end.String()
}

// provider finds a configured provider; with one alone its id may be left out.
func (s *Service) provider(id string) (*Provider, error) {
	if id == "" && len(s.config.Providers) == 1 {
		return s.config.Providers[0], nil
	}
	for _, p := range s.config.Providers {
		if p.ID == id {
			return p, nil
		}
	}
	if id == "" {
		return nil, problem.New(http.StatusNotFound, "Say which provider: /auth/providers lists them")
	}
	return nil, problem.New(http.StatusNotFound, "There is no such provider; /auth/providers lists them")
}

func (s *Service) redirectURL(p *Provider) string {
	return s.config.PublicURL + "/auth/callback/" + p.ID
}

// LocalPath is raw when it is a path on this server, with query and fragment, of at most
// 2,048 bytes; else "/". A browser reads \ as /, and drops control characters, so neither
// may stand in it; // would begin another host's address.
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

// redirect leaves the address as it is, where http.Redirect would rewrite it and add a body.
func redirect(w http.ResponseWriter, status int, location string) {
	w.Header().Set("Location", location)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// random is 256 bits for state and nonce.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// shortState names the cookie of a flow: enough to tell some tabs apart.
func shortState(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:4])
}
