package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Flow binds a sign-in's way to the provider to its way back (OpenID Connect Core, 3.1.2.1 and 15.5.2). The caller that
// begins one keeps it where no other browser can reach it.
type Flow struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // PKCE (RFC 7636, 4.1)
}

// NewFlow makes a flow. Each member has 256 random bits.
func NewFlow() Flow {
	return Flow{State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier()}
}

// AuthorizeURL returns where the browser goes to sign in (Core, 3.1.2.1; RFC 7636, 4.3). From there it goes to
// callback. loginHint and prompt may be empty. The error says why the provider cannot be discovered.
func (p *Provider) AuthorizeURL(ctx context.Context, callback string, f Flow, loginHint, prompt string) (string, error) {
	e, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return e.authorizeURL(p, callback, f, loginHint, prompt), nil
}

func (e *endpoints) authorizeURL(p *Provider, callback string, f Flow, loginHint, prompt string) string {
	options := []oauth2.AuthCodeOption{goidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if loginHint != "" {
		options = append(options, oauth2.SetAuthURLParam("login_hint", loginHint))
	}
	if prompt != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", prompt))
	}
	if len(p.HostedDomains) == 1 {
		options = append(options, oauth2.SetAuthURLParam("hd", p.HostedDomains[0]))
	}
	return e.comingTo(callback).AuthCodeURL(f.State, options...)
}

// comingTo returns the OAuth client whose browsers come back to callback.
func (e *endpoints) comingTo(callback string) *oauth2.Config {
	client := e.oauth
	client.RedirectURL = callback
	return &client
}

// Redeem exchanges the code that the browser brought to callback for an ID token, and verifies it for the flow. query
// is the callback request's. The caller has found the flow by its state. raw is the token as it came. The error is an
// *Error. The caller must check the gates with Admit.
func (p *Provider) Redeem(ctx context.Context, callback string, query url.Values, f Flow) (raw string, in SignIn, err error) {
	e, err := p.discover(ctx)
	if err != nil {
		return "", in, &Error{StepProvider, err}
	}
	raw, t, err := p.exchangeCode(ctx, e, callback, query, f)
	if err != nil {
		return "", in, err
	}
	return raw, p.signInOf(t), nil
}

func (p *Provider) exchangeCode(ctx context.Context, e *endpoints, callback string, query url.Values, f Flow) (raw string, t signed, err error) {
	for _, name := range []string{"state", "code", "iss", "error"} { // RFC 6749, 3.1
		if len(query[name]) > 1 {
			return "", t, &Error{StepProvider, fmt.Errorf("the response has %s twice", name)}
		}
	}
	// RFC 9207, 2.4: another provider's answer is not for this flow.
	if iss := query.Get("iss"); (iss != "" || e.sendsIssuer) && iss != p.Issuer {
		return "", t, &Error{StepProvider, fmt.Errorf("iss %.100q of the response is not the provider's", iss)}
	}
	if code := query.Get("error"); code != "" {
		return "", t, &Error{StepProvider, fmt.Errorf("the provider says %.100q: %.200q", code, query.Get("error_description"))}
	}
	answer, err := e.comingTo(callback).Exchange(goidc.ClientContext(ctx, e.client), query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return "", t, &Error{StepCode, withoutBody(err)}
	}
	raw, _ = answer.Extra("id_token").(string)
	t, err = p.verify(ctx, e, raw)
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
		return "", t, &Error{StepIDToken, err}
	}
	return raw, t, nil
}

// withoutBody keeps a provider's answer out of the log. It may hold a token.
func withoutBody(err error) error {
	var retrieve *oauth2.RetrieveError
	if errors.As(err, &retrieve) {
		return fmt.Errorf("the token endpoint answered %s %.100q", retrieve.Response.Status, retrieve.ErrorCode)
	}
	return err
}
