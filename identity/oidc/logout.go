package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
)

// Logout is what a verified logout token asks for: to end the sessions of one sign-in, by its sid, or of a
// subject. One of the two may be empty.
type Logout struct {
	Issuer, SessionID, Subject, TokenID string
	IssuedAt                            time.Time
}

// VerifyLogout verifies a logout token (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6). go-oidc checks signature,
// issuer, expiry, event, jti, and that there is no nonce. The rest is checked here. The error is an *Error.
func (p *Provider) VerifyLogout(ctx context.Context, raw string) (Logout, error) {
	fail := func(err error) (Logout, error) { return Logout{}, &Error{StepLogoutToken, err} }
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
	e, err := p.discover(ctx)
	if err != nil {
		return fail(err)
	}
	token, err := e.verifier.VerifyLogout(goidc.ClientContext(ctx, e.client), raw)
	if err != nil {
		return fail(err)
	}
	var all map[string]any
	if err := token.Claims(&all); err != nil {
		return fail(err)
	}
	now := p.now()
	event, isObject := eventOf(all)
	switch {
	case checkClaims(all) != nil:
		return fail(checkClaims(all))
	case !isObject:
		return fail(fmt.Errorf("the logout event is %.50q, no object", fmt.Sprint(event)))
	case all["nonce"] != nil:
		return fail(errors.New("it has a nonce"))
	case len(token.Audience) == 0 || slices.ContainsFunc(token.Audience, func(a string) bool { return a != p.ClientID }):
		return fail(fmt.Errorf("audience %.300q is not noted alone", token.Audience))
	case token.IssuedAt.Unix() <= 0 || token.IssuedAt.After(now.Add(maxClockDifference)) || now.Sub(token.IssuedAt) > maxAge:
		return fail(fmt.Errorf("iat %v is missing, in the future or over %v ago", token.IssuedAt, maxAge))
	case token.Subject != "" && !isSubject(token.Subject), len(token.SessionID) > 255, len(token.TokenID) > 1024:
		return fail(errors.New("sub, sid or jti is too long, or sub is no ASCII"))
	}
	return Logout{p.Issuer, token.SessionID, token.Subject, token.TokenID, token.IssuedAt}, nil
}

func eventOf(all map[string]any) (event any, isObject bool) {
	events, _ := all["events"].(map[string]any)
	event = events["http://schemas.openid.net/event/backchannel-logout"]
	_, isObject = event.(map[string]any)
	return event, isObject
}

// EndSessionURL returns where the browser ends its session at the provider and then comes to back (RP-Initiated
// Logout 1.0, 2). It returns "" if the provider has no such place or cannot be discovered: signing out here must not
// wait for it.
func (p *Provider) EndSessionURL(ctx context.Context, idToken, back string) string {
	e, err := p.discover(ctx)
	if err != nil || e.endSession == "" {
		return ""
	}
	end, err := url.Parse(e.endSession)
	if err != nil {
		return ""
	}
	query := end.Query()
	query.Set("id_token_hint", idToken)
	query.Set("post_logout_redirect_uri", back)
	end.RawQuery = query.Encode()
	return end.String()
}
