package oidc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	jsonv2 "github.com/go-json-experiment/json"
)

const (
	// TokenLimit is the maximum length of an ID or logout token in bytes.
	TokenLimit = 128 << 10
	// maxClockDifference is how far an iat may be ahead.
	maxClockDifference = time.Minute
	// maxAge is how old a logout token may be, or an ID token without a flow of ours.
	maxAge = 5 * time.Minute
)

// read lists the claims that go-oidc reads. Their names are case-sensitive (RFC 7519, 10.1.1),
// but go-oidc reads with encoding/json, which takes "SUB" for "sub".
var read = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "at_hash", "jti", "sid", "events"}

// checkClaims refuses a token with a claim that differs from one of read only in case, or that
// should be a string or a number and is not. It allows a name or an e-mail that is not a string:
// it counts as missing, so gates, roles and invitations find no e-mail.
func checkClaims(all map[string]any) error {
	for name := range all {
		for _, known := range read {
			if name != known && strings.EqualFold(name, known) {
				return fmt.Errorf("claim %.20q is not %q", name, known)
			}
		}
	}
	for _, name := range []string{"azp", "sid", "hd", "at_hash", "c_hash"} {
		if _, ok := all[name].(string); !ok && all[name] != nil {
			return fmt.Errorf("claim %s is no string", name)
		}
	}
	for _, name := range []string{"exp", "iat", "nbf"} { // RFC 7519, 2: NumericDate
		seconds, ok := all[name].(float64)
		if !ok && all[name] != nil {
			return fmt.Errorf("claim %s is no number", name)
		}
		if seconds < 0 || seconds > lastSecond {
			return fmt.Errorf("claim %s is no time: %g", name, seconds)
		}
	}
	return nil
}

// lastSecond is the last of the year 9999. Nobody means a later time, and far beyond it a count of
// nanoseconds overflows into the past.
const lastSecond = 253402300799

// canonical reports whether raw is the one spelling of a signed token: three parts, each the
// unpadded base64url of what it decodes to. Two spellings would count twice (RFC 7515, 2).
func canonical(raw string) bool {
	parts := strings.Split(raw, ".")
	for _, part := range parts {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(decoded) != part {
			return false
		}
	}
	return len(parts) == 3 && len(raw) <= TokenLimit
}

// otherTypes are values of the claim typ in Keycloak's signed tokens that are not ID tokens.
var otherTypes = []string{"Bearer", "Refresh", "Offline", "Logout"}

// headerType returns the typ of a JWS's protected header, "" if there is none. Names are
// case-sensitive (RFC 7515, 4), so it must match exactly.
func headerType(raw string) (string, error) {
	var header map[string]any
	text, err := base64.RawURLEncoding.DecodeString(raw[:strings.IndexByte(raw, '.')])
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	typ, ok := header["typ"].(string)
	switch {
	case err != nil:
	case !ok && header["typ"] != nil:
		err = errors.New("typ is no string")
	case header["crit"] != nil: // go-jose accepts b64, which RFC 7797, 7, forbids here
		err = errors.New("crit asks for an extension, and there is none for ID tokens")
	}
	return typ, err
}

// signed is a token whose signature, issuer and times are valid.
type signed struct {
	*goidc.IDToken
	all map[string]any
}

func (t signed) text(name string) string { s, _ := t.all[name].(string); return s }

// verify checks an ID token by OpenID Connect Core 3.1.3.7. go-oidc checks signature, issuer and
// expiry. The rest is checked here: spelling, type, every audience, azp, iat, sub. All that it
// returns is signed by the provider. The caller must check nonce or age.
func (p *Provider) verify(ctx context.Context, e *endpoints, raw string) (signed, error) {
	if !canonical(raw) {
		return signed{}, errors.New("not three parts in base64url, or too long")
	}
	typ, err := headerType(raw)
	if err != nil {
		return signed{}, fmt.Errorf("header: %w", err)
	}
	if typ != "" && !strings.EqualFold(typ, "JWT") {
		return signed{}, fmt.Errorf("typ %.50q is no ID token's", typ)
	}
	token, err := e.verifier.Verify(goidc.ClientContext(ctx, e.client), raw)
	if err != nil {
		return signed{}, err
	}
	t := signed{IDToken: token}
	if err := token.Claims(&t.all); err != nil {
		return signed{}, fmt.Errorf("claims: %w", err)
	}
	if err := checkClaims(t.all); err != nil {
		return signed{}, err
	}
	ours := func(audience string) bool {
		return audience == p.ClientID || slices.Contains(p.AllowedAudiences, audience)
	}
	switch {
	case t.all["events"] != nil:
		return signed{}, errors.New("it has events: a logout token is no ID token")
	case slices.Contains(otherTypes, t.text("typ")):
		return signed{}, fmt.Errorf("the claim typ says %q", t.text("typ"))
	case len(token.Audience) == 0 || slices.ContainsFunc(token.Audience, func(a string) bool { return !ours(a) }):
		return signed{}, fmt.Errorf("audience %.300q is not noted's alone", token.Audience)
	case t.all["azp"] != nil && !ours(t.text("azp")):
		return signed{}, fmt.Errorf("azp %.100q is not noted", t.all["azp"])
	case token.IssuedAt.Unix() <= 0:
		return signed{}, errors.New("iat is missing")
	case token.IssuedAt.After(p.now().Add(maxClockDifference)):
		return signed{}, fmt.Errorf("iat %v is in the future", token.IssuedAt)
	case !isSubject(token.Subject):
		return signed{}, errors.New("sub is not 1 to 255 ASCII characters")
	}
	return t, nil
}

// own refuses a token that is not for noted's own client, as the code flow requires.
func (p *Provider) own(t signed) error {
	if !slices.Contains(t.Audience, p.ClientID) || t.all["azp"] != nil && t.text("azp") != p.ClientID {
		return fmt.Errorf("audience %.300q, azp %.100q: not for noted", t.Audience, t.all["azp"])
	}
	return nil
}

// checkHashes checks the access token and the code that came with an ID token, if the ID token has
// their hashes (Core 3.1.3.6, 3.1.3.8 and 3.3.2.11). A token to be exchanged comes with neither.
func (t signed) checkHashes(accessToken, code string) error {
	for _, one := range []struct{ claim, of string }{{"at_hash", accessToken}, {"c_hash", code}} {
		if t.all[one.claim] == nil {
			continue
		}
		token := *t.IDToken
		token.AccessTokenHash = t.text(one.claim) // both are computed alike
		if err := token.VerifyAccessToken(one.of); err != nil {
			return fmt.Errorf("%s is of another: %w", one.claim, err)
		}
	}
	return nil
}

// VerifyIDToken verifies an ID token to be exchanged, which comes without a flow. It must be for noted's client or one
// of AllowedAudiences, and at most five minutes old. The error is an *Error: with StepProvider if the provider cannot be
// discovered, else with StepIDToken. The caller must check the gates with Admit.
func (p *Provider) VerifyIDToken(ctx context.Context, raw string) (SignIn, error) {
	e, err := p.discover(ctx)
	if err != nil {
		return SignIn{}, &Error{StepProvider, err}
	}
	t, err := p.verify(ctx, e, raw)
	if err == nil && p.now().Sub(t.IssuedAt) > maxAge {
		err = fmt.Errorf("iat %v is over %v ago", t.IssuedAt, maxAge)
	}
	if err != nil {
		return SignIn{}, &Error{StepIDToken, err}
	}
	return p.signInOf(t), nil
}

// googleWithoutScheme is how Google's ID tokens may spell their issuer.
const googleIssuer, googleWithoutScheme = "https://accounts.google.com", "accounts.google.com"

// IssuerOf reads the issuer that a token claims. Nothing is verified yet.
func IssuerOf(raw string) (string, error) {
	if !canonical(raw) {
		return "", errors.New("not three parts in base64url, or too long")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := jsonv2.Unmarshal(payload, &claims); err != nil {
		return "", errors.New("the payload is no JSON object")
	}
	if claims.Issuer == googleWithoutScheme {
		claims.Issuer = googleIssuer
	}
	return claims.Issuer, nil
}
