package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
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
	// RootCAs trusts more than the system's certificates; nil for those alone.
	RootCAs *x509.CertPool

	mu        sync.Mutex
	endpoints *endpoints
	tried     time.Time
	err       error
}

// endpoints is what discovery found.
type endpoints struct {
	client     *http.Client
	oauth      oauth2.Config
	verifier   *oidc.IDTokenVerifier
	endSession string
	// sendsIssuer: its responses carry iss (RFC 9207, 3).
	sendsIssuer bool
}

const (
	providerTimeout   = 10 * time.Second // for one exchange with a provider
	providerBodyLimit = 1 << 20          // bytes of one answer of a provider
	retryAfter        = time.Second      // between two attempts at discovery
)

// discover returns the provider's endpoints (OpenID Connect Discovery 1.0, 4), asking once
// for all.
func (p *Provider) discover(ctx context.Context, redirectURL string) (*endpoints, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endpoints != nil {
		return p.endpoints, nil
	}
	if p.err != nil && time.Since(p.tried) < retryAfter {
		return nil, p.err
	}
	found, err := p.ask(context.WithoutCancel(ctx), redirectURL)
	p.endpoints, p.err, p.tried = found, err, time.Now()
	return found, err
}

func (p *Provider) ask(ctx context.Context, redirectURL string) (*endpoints, error) {
	client := p.httpClient()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("discovering provider %s at %s: %w", p.ID, p.Issuer, err)
	}
	var more struct {
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		EndSession  string   `json:"end_session_endpoint"`
		SendsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, fmt.Errorf("discovering provider %s: %w", p.ID, err)
	}
	endpoint := provider.Endpoint()
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
		verifier:    provider.Verifier(&oidc.Config{ClientID: p.ClientID}),
		endSession:  more.EndSession,
		sendsIssuer: more.SendsIssuer,
	}, nil
}

// httpClient follows no redirect of a POST, which would carry the code and the client secret
// along, waits no longer than providerTimeout, and reads no more than providerBodyLimit.
func (p *Provider) httpClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // documented to be one
	if p.RootCAs != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Timeout:   providerTimeout,
		Transport: limited{transport},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if via[0].Method != http.MethodGet || len(via) >= 5 {
				return http.ErrUseLastResponse
			}
			return nil
		},
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

// claims are what noted reads of an ID token for its gates and its log, beyond the sign-in.
type claims struct {
	HostedDomain string
	// MissingGroups are the configured groups_claims that the token does not have.
	MissingGroups []string
}

// read are the claims that go-oidc reads. Their names are case-sensitive (RFC 7519, 10.1.1),
// but encoding/json, by which it reads, takes "SUB" for "sub".
var read = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "nonce"}

// checkClaims refuses a token with a claim that differs from one of read in its case alone, or
// that should be a string and is none.
func checkClaims(all map[string]any) error {
	for name := range all {
		for _, known := range read {
			if name != known && strings.EqualFold(name, known) {
				return fmt.Errorf("claim %.20q is not %q", name, known)
			}
		}
	}
	for _, name := range []string{"azp", "name", "preferred_username", "email", "hd"} {
		if _, ok := all[name].(string); !ok && all[name] != nil {
			return fmt.Errorf("claim %s is no string", name)
		}
	}
	return nil
}

// verify checks an ID token as OpenID Connect Core 3.1.3.7 has it: go-oidc the signature, the
// issuer, the audience and the expiry; here the rest: nonce, every audience, azp, iat, sub.
// What it returns is signed by the provider, all of it.
func (p *Provider) verify(ctx context.Context, e *endpoints, raw, nonce string, now time.Time) (signIn, claims, error) {
	var c claims
	token, err := e.verifier.Verify(oidc.ClientContext(ctx, e.client), raw)
	if err != nil {
		return signIn{}, c, err
	}
	var all map[string]any
	if err := token.Claims(&all); err != nil {
		return signIn{}, c, fmt.Errorf("claims: %w", err)
	}
	if err := checkClaims(all); err != nil {
		return signIn{}, c, err
	}
	claim := func(name string) string { s, _ := all[name].(string); return s }
	c.HostedDomain = claim("hd")
	switch {
	case nonce == "" || token.Nonce != nonce:
		return signIn{}, c, errors.New("nonce does not match")
	case len(token.Audience) != 1 || token.Audience[0] != p.ClientID:
		return signIn{}, c, fmt.Errorf("audience %q is not noted alone", token.Audience)
	case all["azp"] != nil && claim("azp") != p.ClientID:
		return signIn{}, c, fmt.Errorf("azp %.100q is not noted", all["azp"])
	case token.IssuedAt.Unix() <= 0:
		return signIn{}, c, errors.New("iat is missing")
	case token.IssuedAt.After(now.Add(time.Minute)):
		return signIn{}, c, fmt.Errorf("iat %v is in the future", token.IssuedAt)
	case !isSubject(token.Subject):
		return signIn{}, c, errors.New("sub is not 1 to 255 ASCII characters")
	}
	verified, _ := all["email_verified"].(bool) // only JSON true counts
	var groups []string
	for _, path := range p.GroupsClaims {
		found, ok := stringsAt(all, path)
		if !ok {
			c.MissingGroups = append(c.MissingGroups, path)
		}
		groups = append(groups, found...)
	}
	slices.Sort(groups)
	return signIn{
		Identity: Identity{
			Issuer: p.Issuer, Subject: token.Subject, Email: text(claim("email"), 320), EmailVerified: verified,
			Groups: slices.Compact(groups),
		},
		Name:    firstOf(text(claim("name"), 255), text(claim("preferred_username"), 255), text(claim("email"), 255), token.Subject),
		IDToken: raw,
	}, c, nil
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
	if i <= 0 || !isPlainEmail(email) {
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

func firstOf(candidates ...string) string {
	for _, c := range candidates {
		if c != "" {
			return c
		}
	}
	return ""
}
