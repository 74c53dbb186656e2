package oidc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"noted/internal/request"
)

// endpoints is what discovery found.
type endpoints struct {
	client     *http.Client
	oauth      oauth2.Config // without a redirect URI, which is the caller's
	verifier   *goidc.IDTokenVerifier
	jwks       string
	endSession string
	// sendsIssuer: its responses have iss (RFC 9207, 3).
	sendsIssuer bool
}

const (
	providerTimeout   = 10 * time.Second // for one exchange with a provider
	providerBodyLimit = 1 << 20          // bytes in a provider's answer
	providerHeadLimit = 64 << 10         // bytes in its headers
	retryAfter        = time.Second      // between two attempts at discovery
	rediscoverAfter   = time.Hour        // until discovery is repeated
	rediscoverRetry   = time.Minute      // between two attempts at that
	refetchKeysAfter  = 10 * time.Second // between two fetches of the keys
)

// discover returns the provider's endpoints (OpenID Connect Discovery 1.0, 4). It asks once an
// hour for all callers. If the provider then gives no valid answer, the earlier result stays
// in use.
func (p *Provider) discover(ctx context.Context) (*endpoints, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endpoints != nil {
		return p.rediscover(ctx), nil
	}
	if p.err != nil && p.now().Sub(p.tried) < retryAfter {
		return nil, p.err
	}
	p.endpoints, p.err = p.ask(context.WithoutCancel(ctx))
	p.tried = p.now()
	p.found = p.tried
	return p.endpoints, p.err
}

// rediscover asks again, for one caller only. A provider that hangs must not hold up the others,
// who use the earlier result. p.mu is held, except while asking.
func (p *Provider) rediscover(ctx context.Context) *endpoints {
	if p.asking || p.now().Sub(p.found) < rediscoverAfter || p.err != nil && p.now().Sub(p.tried) < rediscoverRetry {
		return p.endpoints
	}
	p.asking = true
	p.mu.Unlock()
	found, err := p.ask(context.WithoutCancel(ctx))
	p.mu.Lock()
	p.asking, p.err, p.tried = false, err, p.now()
	if err == nil {
		p.endpoints, p.found = found, p.tried
	} else {
		request.From(ctx).Log().LogAttrs(ctx, slog.LevelWarn, "discovery failed; what was found before stands",
			slog.String("provider", p.ID), slog.String("error", Brief(err)))
	}
	return p.endpoints
}

func (p *Provider) ask(ctx context.Context) (*endpoints, error) {
	client := p.httpClient()
	provider, err := goidc.NewProvider(goidc.ClientContext(ctx, client), p.Issuer)
	var other *goidc.IssuerMismatchError
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
	// Set explicitly: to find out, oauth2 would send the code twice, and it is valid once. The
	// default is basic (Discovery 1.0, 3).
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(more.AuthMethods) > 0 && !slices.Contains(more.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &endpoints{
		client: client,
		oauth: oauth2.Config{
			ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: endpoint, Scopes: p.Scopes,
		},
		// verify checks the audience: an exchange may accept tokens of other clients.
		verifier: goidc.NewVerifier(p.Issuer, &keySet{client: client, address: more.JWKS, now: p.now}, &goidc.Config{
			SkipClientIDCheck: true, SupportedSigningAlgs: more.algorithms(), Now: p.now,
		}),
		jwks:        more.JWKS,
		endSession:  more.EndSession,
		sendsIssuer: more.SendsIssuer,
	}, nil
}

// discovered is what noted, beyond go-oidc, reads of a discovery document (Discovery 1.0, 3).
type discovered struct {
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	Algorithms  []string `json:"id_token_signing_alg_values_supported"`
	JWKS        string   `json:"jwks_uri"`
	EndSession  string   `json:"end_session_endpoint"`
	SendsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
}

// algorithms returns those that may sign ID tokens; RS256 if no known one is listed.
func (d discovered) algorithms() []string {
	known := slices.DeleteFunc(slices.Clone(d.Algorithms), func(a string) bool {
		return !slices.Contains(signatureAlgorithms, jose.SignatureAlgorithm(a))
	})
	if len(known) == 0 {
		return []string{goidc.RS256}
	}
	return known
}

// checkEndpoint returns an error for an address to which no browser or secret may be sent. Only
// https is allowed, and http if the issuer itself uses it.
func checkEndpoint(issuer, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(issuer, "http:")) {
		return fmt.Errorf("%.200q is no https address", address)
	}
	return nil
}

// httpClient returns a client that follows no redirects: a redirected POST would carry the
// code and the client secret along, and an issuer's documents are where it says. It waits
// at most providerTimeout and reads at most providerBodyLimit.
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

// limited limits answers: neither go-oidc nor oauth2 limits all that it reads.
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

// Read fails where io.LimitReader would end, so that half an answer is never taken for a whole.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
