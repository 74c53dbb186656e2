package oidc

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Examination is what can be found out about a provider without a sign-in.
type Examination struct {
	AuthorizationEndpoint, TokenEndpoint, EndSessionEndpoint string
	SendsIssuer                                              bool // RFC 9207
	Keys                                                     []ExaminedKey
	// ClockDifference is how far the provider's clock is ahead of ours, to about a second.
	ClockDifference time.Duration
}

// ExaminedKey is a key that may sign ID tokens.
type ExaminedKey struct{ ID, Algorithm string }

// Examine asks the provider for its discovery document and its keys.
func (p *Provider) Examine(ctx context.Context) (Examination, error) {
	e, err := p.ask(ctx)
	if err != nil {
		return Examination{}, err
	}
	found := Examination{
		AuthorizationEndpoint: e.oauth.Endpoint.AuthURL, TokenEndpoint: e.oauth.Endpoint.TokenURL,
		EndSessionEndpoint: e.endSession, SendsIssuer: e.sendsIssuer,
	}
	sent := p.now()
	keys, header, err := fetchKeys(ctx, e.client, e.jwks)
	if err != nil {
		return found, err
	}
	took := p.now().Sub(sent)
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		// Date is cut to the second.
		found.ClockDifference = (date.Add(time.Second / 2).Sub(sent.Add(took / 2))).Round(time.Second)
	}
	for _, key := range keys {
		found.Keys = append(found.Keys, ExaminedKey{key.KeyID, key.Algorithm})
	}
	if len(keys) == 0 {
		return found, errors.New("the keys: there is none for signatures")
	}
	return found, nil
}

// Trial is one sign-in that begins no session. It shows what a provider's ID tokens contain. A
// Trial is for one goroutine.
type Trial struct {
	provider  *Provider
	endpoints *endpoints
	callback  string
	flow      Flow
}

// TrialResult is what a trial sign-in showed.
type TrialResult struct {
	SignIn
	Names []string // for the policy
	Gate  error    // why this person could not sign in; nil if they could
}

// NewTrial prepares a Trial. callback is the redirect URI that the provider knows.
func (p *Provider) NewTrial(ctx context.Context, callback string) (*Trial, error) {
	e, err := p.ask(ctx)
	if err != nil {
		return nil, err
	}
	return &Trial{p, e, callback, NewFlow()}, nil
}

// URL returns where to sign in.
func (t *Trial) URL() string { return t.endpoints.authorizeURL(t.provider, t.callback, t.flow, "", "") }

// Ours reports whether a callback's request belongs to this trial.
func (t *Trial) Ours(r *http.Request) bool { return r.URL.Query().Get("state") == t.flow.State }

// Finish verifies what the browser brought back, as the server does. The error is for the
// operator and says all that is known.
func (t *Trial) Finish(r *http.Request) (TrialResult, error) {
	_, token, err := t.provider.exchangeCode(r.Context(), t.endpoints, t.callback, r.URL.Query(), t.flow)
	if err != nil {
		return TrialResult{}, err
	}
	in := t.provider.signInOf(token)
	always, aging := t.provider.Names(in.Identity)
	return TrialResult{SignIn: in, Names: append(always, aging...), Gate: t.provider.Admit(in)}, nil
}
