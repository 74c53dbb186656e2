package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"noted/authz"
	"noted/internal/name"
	"noted/internal/request"
)

// Provider is an OpenID provider that noted trusts, as configured. It is discovered when
// somebody first signs in through it, and tried again after a failure at most once a second:
// a provider that is down stops nothing but its own sign-ins.
type Provider struct {
	ID           string // short, [a-z][a-z0-9-]*
	Name         string // on the sign-in link
	Issuer       string
	ClientID     string
	ClientSecret string
	Scopes       []string
	// EmailDomains are those for which this provider is authoritative: only their e-mails
	// are names in policy.csv. Lower case.
	EmailDomains []string
	// GroupsClaims are paths in the ID token (groups, realm_access.roles).
	GroupsClaims []string
	// The gates say who may sign in at all; those that are set must all pass.
	AllowedEmailDomains []string
	AllowedGroups       []string
	HostedDomains       []string
	// AllowedAudiences are other clients of the provider whose ID tokens may be exchanged.
	AllowedAudiences []string
	// Subjects are all that the provider has, where that is known: in `noted dev`. Nil of any other.
	Subjects []string
	// RootCAs trusts more than the system's certificates; nil for those alone.
	RootCAs *x509.CertPool
	// Transport carries the requests; nil for one of its own, which RootCAs is for. Tests set it.
	Transport http.RoundTripper

	mu        sync.Mutex
	asking    bool // somebody asks anew, while endpoints stand
	endpoints *endpoints
	found     time.Time // when endpoints were
	tried     time.Time
	err       error
}

// InPolicy is what a policy must know of these providers; nil for none.
func InPolicy(providers []*Provider) []authz.Provider {
	var known []authz.Provider
	for _, p := range providers {
		known = append(known, authz.Provider{ID: p.ID, EmailDomains: p.EmailDomains, Groups: len(p.GroupsClaims) > 0})
	}
	return known
}

// endpoints is what discovery found.
type endpoints struct {
	client     *http.Client
	oauth      oauth2.Config
	verifier   *oidc.IDTokenVerifier
	jwks       string
	endSession string
	// sendsIssuer: its responses carry iss (RFC 9207, 3).
	sendsIssuer bool
}

const (
	providerTimeout    = 10 * time.Second // for one exchange with a provider
	providerBodyLimit  = 1 << 20          // bytes of one answer of a provider
	providerHeadLimit  = 64 << 10         // bytes of its headers
	idTokenLimit       = 128 << 10        // bytes of one ID or logout token
	retryAfter         = time.Second      // between two attempts at discovery
	rediscoverAfter    = time.Hour        // what discovery found is asked for anew
	rediscoverRetry    = time.Minute      // between two attempts at that
	refetchKeysAfter   = 10 * time.Second // between two fetches of the keys
	maxClockDifference = time.Minute      // that an iat may be ahead
)

// discover returns the provider's endpoints (OpenID Connect Discovery 1.0, 4), asking once an
// hour for all. While the provider does not answer then, or not as it should, what was found
// before stands.
func (p *Provider) discover(ctx context.Context, redirectURL string) (*endpoints, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endpoints != nil {
		return p.rediscover(ctx, redirectURL), nil
	}
	if p.err != nil && time.Since(p.tried) < retryAfter {
		return nil, p.err
	}
	p.endpoints, p.err = p.ask(context.WithoutCancel(ctx), redirectURL)
	p.tried = time.Now()
	p.found = p.tried
	return p.endpoints, p.err
}

// TryDiscovery asks every provider once and logs what fails: a start is when an operator looks. It
// keeps nothing, and nothing waits for it.
func (s *Service) TryDiscovery(ctx context.Context, log *slog.Logger) {
	var group sync.WaitGroup
	for _, p := range s.config.Providers {
		group.Go(func() {
			if _, err := p.ask(ctx, ""); err != nil && ctx.Err() == nil {
				log.LogAttrs(ctx, slog.LevelWarn, "nobody can sign in by this provider now; the next sign-in tries again",
					slog.String("provider", p.ID), slog.String("error", brief(err)))
			}
		})
	}
	group.Wait()
}

// rediscover asks anew, for one caller alone: a provider that hangs must not hold up the others,
// for whom what was found before stands. p.mu is held, but for the asking.
func (p *Provider) rediscover(ctx context.Context, redirectURL string) *endpoints {
	if p.asking || time.Since(p.found) < rediscoverAfter || p.err != nil && time.Since(p.tried) < rediscoverRetry {
		return p.endpoints
	}
	p.asking = true
	p.mu.Unlock()
	found, err := p.ask(context.WithoutCancel(ctx), redirectURL)
	p.mu.Lock()
	p.asking, p.err, p.tried = false, err, time.Now()
	if err == nil {
		p.endpoints, p.found = found, p.tried
	} else {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelWarn, "discovery failed; what was found before stands",
			slog.String("provider", p.ID), slog.String("error", brief(err)))
	}
	return p.endpoints
}

func (p *Provider) ask(ctx context.Context, redirectURL string) (*endpoints, error) {
	client := p.httpClient()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), p.Issuer)
	var other *oidc.IssuerMismatchError
	if errors.As(err, &other) && strings.TrimSuffix(other.Discovered, "/") == strings.TrimSuffix(p.Issuer, "/") {
		return nil, fmt.Errorf("provider %s: issuer: write %s as the discovery document has it, not %s", p.ID, other.Discovered, p.Issuer)
	}
	if err != nil {
		return nil, fmt.Errorf("discovering provider %s at %s: %w", p.ID, p.Issuer, err)
	}
	var more discovered
	if err := provider.Claims(&more); err != nil {
		return nil, fmt.Errorf("discovering provider %s: %w", p.ID, err)
	}
	endpoint := provider.Endpoint()
	for _, named := range []struct{ member, address string }{
		{"authorization_endpoint", endpoint.AuthURL}, {"token_endpoint", endpoint.TokenURL},
		{"jwks_uri", more.JWKS}, {"end_session_endpoint", more.EndSession},
	} {
		if named.address == "" && named.member == "end_session_endpoint" {
			continue
		}
		if err := checkEndpoint(p.Issuer, named.address); err != nil {
			return nil, fmt.Errorf("discovering provider %s: %s: %w", p.ID, named.member, err)
		}
	}
	// Said, not tried out: oauth2 would send the code, which counts once, twice. The default is
	// basic (Discovery 1.0, 3).
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(more.AuthMethods) > 0 && !slices.Contains(more.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &endpoints{
		client: client,
		oauth: oauth2.Config{
			ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: endpoint,
			RedirectURL: redirectURL, Scopes: p.Scopes,
		},
		// Whose tokens count, verify says: in an exchange, those of other clients may.
		verifier: oidc.NewVerifier(p.Issuer, &keySet{client: client, address: more.JWKS}, &oidc.Config{
			SkipClientIDCheck: true, SupportedSigningAlgs: more.algorithms(),
		}),
		jwks:        more.JWKS,
		endSession:  more.EndSession,
		sendsIssuer: more.SendsIssuer,
	}, nil
}

// discovered is what noted reads of a discovery document beyond go-oidc (Discovery 1.0, 3).
type discovered struct {
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	Algorithms  []string `json:"id_token_signing_alg_values_supported"`
	JWKS        string   `json:"jwks_uri"`
	EndSession  string   `json:"end_session_endpoint"`
	SendsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
}

// algorithms are those that ID tokens may be signed by; RS256 where none is listed.
func (d discovered) algorithms() []string {
	known := slices.DeleteFunc(slices.Clone(d.Algorithms), func(a string) bool {
		return !slices.Contains(signatureAlgorithms, jose.SignatureAlgorithm(a))
	})
	if len(known) == 0 {
		return []string{oidc.RS256}
	}
	return known
}

// checkEndpoint refuses an address that a browser or a secret must not be sent to: anything
// but https, and http where the issuer itself has it.
func checkEndpoint(issuer, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(issuer, "http:")) {
		return fmt.Errorf("%.200q is no https address", address)
	}
	return nil
}

// httpClient follows no redirect: that of a POST would carry the code and the client secret
// along, and an issuer's documents stand where it says. It waits no longer than
// providerTimeout, and reads no more than providerBodyLimit.
func (p *Provider) httpClient() *http.Client {
	next := p.Transport
	if next == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // documented to be one
		transport.MaxResponseHeaderBytes = providerHeadLimit
		if p.RootCAs != nil {
			transport.TLSClientConfig = &tls.Config{RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12}
		}
		next = transport
	}
	return &http.Client{
		Timeout:       providerTimeout,
		Transport:     limited{next},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// limited cuts answers off: neither go-oidc nor oauth2 limits all that it reads.
type limited struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = &limitedBody{ReadCloser: response.Body, left: providerBodyLimit}
	return response, nil
}

type limitedBody struct {
	io.ReadCloser
	left int64
}

var errTooLarge = errors.New("the provider's answer is larger than 1 MiB")

// Read fails, where io.LimitReader would end, so that half an answer is never taken for one.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// claims are what noted reads of an ID token beyond the sign-in.
type claims struct {
	HostedDomain string
	SessionID    string // the provider's own session: sid
	// MissingGroups are the configured groups_claims that the token does not have.
	MissingGroups []string
	Seen          SeenClaims
}

// SeenClaims is what an ID token carried, for those who run the place.
type SeenClaims struct {
	Names  []string       `json:"names" nullable:"false" doc:"The names of all claims"`
	Values map[string]any `json:"values" doc:"The values of those that the provider's configuration names"`
}

// read are the claims that go-oidc reads. Their names are case-sensitive (RFC 7519, 10.1.1),
// but encoding/json, by which it reads, takes "SUB" for "sub".
var read = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "at_hash", "jti", "sid", "events"}

// checkClaims refuses a token with a claim that differs from one of read in its case alone, or
// that should be a string or a number and is none. A name or an e-mail that is no string is left
// out: they are shown, and what counts on an e-mail (gates, roles, invitations) finds none.
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

// lastSecond is that of the year 9999: what is later is no time that anybody means, and far
// beyond it counting nanoseconds starts anew in the past.
const lastSecond = 253402300799

// canonical holds for the one spelling of a signed token: three parts, each the unpadded
// base64url of what it decodes to. Two spellings of one token would count twice (RFC 7515, 2).
func canonical(raw string) bool {
	parts := strings.Split(raw, ".")
	for _, part := range parts {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(decoded) != part {
			return false
		}
	}
	return len(parts) == 3 && len(raw) <= idTokenLimit
}

// otherTypes are what Keycloak calls, in the claim typ, signed tokens of its own that are no
// ID tokens.
var otherTypes = []string{"Bearer", "Refresh", "Offline", "Logout"}

// headerType is the typ of a JWS's protected header, empty if there is none. Names are
// case-sensitive (RFC 7515, 4), so it is read by its exact one.
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
	case header["crit"] != nil: // go-jose takes b64, which RFC 7797, 7, forbids here
		err = errors.New("crit asks for an extension, and there is none for ID tokens")
	}
	return typ, err
}

// signed is a token whose signature, issuer and times hold.
type signed struct {
	*oidc.IDToken
	all map[string]any
}

func (t signed) text(name string) string { s, _ := t.all[name].(string); return s }

// verify checks an ID token as OpenID Connect Core 3.1.3.7 has it: go-oidc the signature, the
// issuer and the expiry; here the rest: spelling, type, every audience, azp, iat, sub. What it
// returns is signed by the provider, all of it. The caller has checked nonce or age.
func (p *Provider) verify(ctx context.Context, e *endpoints, raw string, now time.Time) (signed, error) {
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
	token, err := e.verifier.Verify(oidc.ClientContext(ctx, e.client), raw)
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
	case token.IssuedAt.After(now.Add(maxClockDifference)):
		return signed{}, fmt.Errorf("iat %v is in the future", token.IssuedAt)
	case !isSubject(token.Subject):
		return signed{}, errors.New("sub is not 1 to 255 ASCII characters")
	}
	return t, nil
}

// own refuses a token that is not for noted's own client, as the code flow has it.
func (p *Provider) own(t signed) error {
	if !slices.Contains(t.Audience, p.ClientID) || t.all["azp"] != nil && t.text("azp") != p.ClientID {
		return fmt.Errorf("audience %.300q, azp %.100q: not for noted", t.Audience, t.all["azp"])
	}
	return nil
}

// checkHashes holds an ID token to the access token and the code that it came with, where it says of
// which it is (Core 3.1.3.6, 3.1.3.8 and 3.3.2.11). A token to be exchanged comes with neither.
func (t signed) checkHashes(accessToken, code string) error {
	for _, one := range []struct{ claim, of string }{{"at_hash", accessToken}, {"c_hash", code}} {
		if t.all[one.claim] == nil {
			continue
		}
		token := *t.IDToken
		token.AccessTokenHash = t.text(one.claim) // both are made alike
		if err := token.VerifyAccessToken(one.of); err != nil {
			return fmt.Errorf("%s is of another: %w", one.claim, err)
		}
	}
	return nil
}

// signInOf reads who a verified token is about.
func (p *Provider) signInOf(raw string, t signed) (signIn, claims) {
	c := claims{HostedDomain: t.text("hd"), SessionID: text(t.text("sid"), 255), Seen: p.seen(t.all)}
	verified, _ := t.all["email_verified"].(bool) // only JSON true counts
	email := text(t.text("email"), 320)
	if name.Wrong(email) != "" { // others read it, as they read a name
		email = ""
	}
	var groups []string
	for _, path := range p.GroupsClaims {
		found, ok := stringsAt(t.all, path)
		if !ok {
			c.MissingGroups = append(c.MissingGroups, path)
		}
		groups = append(groups, found...)
	}
	slices.Sort(groups)
	return signIn{
		Identity: Identity{
			Issuer: p.Issuer, Subject: t.Subject, Email: email, EmailVerified: verified,
			Groups: slices.Compact(groups),
		},
		Name:      nameOf(t),
		IssuedAt:  t.IssuedAt,
		SessionID: c.SessionID,
		Claims:    c.Seen,
		spent:     spentIDToken(raw),
	}, c
}

// nameOf is what others will read of somebody: what the provider calls them, as far as it can be
// read as a name.
func nameOf(t signed) string {
	for _, candidate := range []string{t.text("name"), t.text("preferred_username"), t.text("email"), t.Subject} {
		if called := name.Clean(text(candidate, 255), 255); called != "" {
			return called
		}
	}
	return "unnamed"
}

// seen notes which claims there are, and the values of those that gates and roles read.
func (p *Provider) seen(all map[string]any) SeenClaims {
	seen := SeenClaims{Names: []string{}, Values: map[string]any{}}
	for name := range all {
		if text(name, 100) != "" && len(seen.Names) < 200 {
			seen.Names = append(seen.Names, name)
		}
	}
	slices.Sort(seen.Names)
	for _, path := range p.GroupsClaims {
		if found, ok := stringsAt(all, path); ok {
			seen.Values[path] = found
		}
	}
	var named []string
	if len(p.EmailDomains)+len(p.AllowedEmailDomains) > 0 {
		named = append(named, "email", "email_verified")
	}
	if len(p.HostedDomains) > 0 {
		named = append(named, "hd")
	}
	for _, name := range named {
		switch value := all[name].(type) {
		case bool:
			seen.Values[name] = value
		case string:
			seen.Values[name] = request.Text(value, 320)
		}
	}
	return seen
}

// admit asks the gates whether somebody may sign in at all.
func (p *Provider) admit(in signIn, c claims) error {
	if len(p.AllowedEmailDomains) > 0 {
		if !in.EmailVerified {
			return errors.New("allowed_email_domains: the e-mail is not verified")
		}
		if !slices.Contains(p.AllowedEmailDomains, domainOf(in.Email)) {
			return errors.New("allowed_email_domains: the e-mail is of another domain")
		}
	}
	if len(p.AllowedGroups) > 0 && !slices.ContainsFunc(in.Groups, func(g string) bool { return slices.Contains(p.AllowedGroups, g) }) {
		return errors.New("allowed_groups: in none of them")
	}
	if len(p.HostedDomains) > 0 && (!isSubject(c.HostedDomain) || !slices.Contains(p.HostedDomains, strings.ToLower(c.HostedDomain))) {
		return errors.New("hosted_domains: hd is another one or missing")
	}
	return nil
}

func (p *Provider) isAuthoritativeFor(email string) bool {
	return slices.Contains(p.EmailDomains, domainOf(email))
}

// domainOf is what follows the last @, in lower case; empty for what is no plain e-mail.
func domainOf(email string) string {
	i := strings.LastIndexByte(email, '@')
	if i <= 0 || !IsPlainEmail(email) {
		return ""
	}
	return strings.ToLower(email[i+1:])
}

// isSubject holds for 1 to 255 printable ASCII characters (Core, 2).
func isSubject(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 255
}

// text is a claim fit to be stored; one that is too long or has control characters is
// dropped, not cut: a part of an e-mail is another e-mail.
func text(s string, limit int) string {
	if len(s) > limit || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return ""
	}
	return s
}

// stringsAt are the strings at a path of names with dots between, a list or a single one; ok
// is false when there is no such claim.
func stringsAt(all map[string]any, path string) (found []string, ok bool) {
	var value any = all
	for _, name := range strings.Split(path, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		value = object[name]
	}
	if one, ok := value.(string); ok {
		value = []any{one}
	}
	list, ok := value.([]any)
	for _, item := range list {
		if s, ok := item.(string); ok && text(s, 255) != "" {
			found = append(found, s)
		}
	}
	return found, ok
}
