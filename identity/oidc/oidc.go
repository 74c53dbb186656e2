package oidc

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"noted/authz"
	"noted/internal/request"
)

// Provider is an OpenID provider that noted trusts, as configured. It is discovered when
// somebody first signs in through it. After a failure it is tried again at most once a second.
// A provider that is down stops only its own sign-ins.
type Provider struct {
	ID           string // short: authz.IsProviderID
	Name         string // on the sign-in link
	Issuer       string
	ClientID     string
	ClientSecret string
	Scopes       []string
	// EmailDomains are the domains for which this provider is authoritative, in lower case.
	// Only their e-mails are names in policy.csv.
	EmailDomains []string
	// GroupsClaims are paths in the ID token (groups, realm_access.roles).
	GroupsClaims []string
	// The gates decide who may sign in at all. All that are set must pass.
	AllowedEmailDomains []string
	AllowedGroups       []string
	HostedDomains       []string
	// AllowedAudiences are other clients of the provider whose ID tokens may be exchanged.
	AllowedAudiences []string
	// Subjects are all that the provider has, if known: in `noted dev`. Nil for any other.
	Subjects []string
	// RootCAs trusts more than the system's certificates; nil for only those.
	RootCAs *x509.CertPool
	// Transport sends the requests; nil for one of its own, which uses RootCAs. Tests set it.
	Transport http.RoundTripper
	// Now returns the time; nil for time.Now. Tests set it.
	Now func() time.Time

	mu        sync.Mutex
	asking    bool // discovery is being repeated; endpoints stay in use
	endpoints *endpoints
	found     time.Time // when endpoints were found
	tried     time.Time
	err       error
}

func (p *Provider) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// Providers are the configured providers, in their order.
type Providers []*Provider

// ByID returns the provider with the id, nil if there is none.
func (ps Providers) ByID(id string) *Provider {
	return ps.first(func(p *Provider) bool { return p.ID == id })
}

// ByIssuer returns the provider with the issuer, nil if there is none.
func (ps Providers) ByIssuer(issuer string) *Provider {
	return ps.first(func(p *Provider) bool { return p.Issuer == issuer })
}

func (ps Providers) first(is func(*Provider) bool) *Provider {
	if i := slices.IndexFunc(ps, is); i >= 0 {
		return ps[i]
	}
	return nil
}

// InPolicy returns what a policy must know about these providers; nil for none.
func (ps Providers) InPolicy() []authz.Provider {
	var known []authz.Provider
	for _, p := range ps {
		known = append(known, authz.Provider{ID: p.ID, EmailDomains: p.EmailDomains, Groups: len(p.GroupsClaims) > 0})
	}
	return known
}

// TryDiscovery asks every provider once and logs failures: operators look at the log at a start. It
// keeps nothing, and nothing waits for it.
func (ps Providers) TryDiscovery(ctx context.Context, log *slog.Logger) {
	var group sync.WaitGroup
	for _, p := range ps {
		group.Go(func() {
			if _, err := p.ask(ctx); err != nil && ctx.Err() == nil {
				log.LogAttrs(ctx, slog.LevelWarn, "nobody can sign in by this provider now; the next sign-in tries again",
					slog.String("provider", p.ID), slog.String("error", Brief(err)))
			}
		})
	}
	group.Wait()
}

// Identity is what an ID token says about the person: the pair that identifies them, and what may name them in the
// policy. It is also stored and read as this JSON.
type Identity struct {
	Issuer        string   `json:"issuer"`
	Subject       string   `json:"subject"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Groups        []string `json:"groups"`
}

// Names returns what policy.csv may call a person with this identity, whose issuer is the provider's. provider:subject
// always counts. A verified e-mail of a domain for which the provider is authoritative, and group:provider:value, count
// only until the sign-in that showed them has aged.
func (p *Provider) Names(i Identity) (always, aging []string) {
	// Check for plain ASCII first: ToLower turns the Kelvin sign into an ASCII k, another's name.
	if i.EmailVerified && IsPlainEmail(i.Email) && slices.Contains(p.EmailDomains, domainOf(i.Email)) {
		aging = append(aging, strings.ToLower(i.Email))
	}
	for _, group := range i.Groups {
		aging = append(aging, "group:"+p.ID+":"+group)
	}
	return []string{p.ID + ":" + i.Subject}, aging
}

// SignIn is what a verified ID token says.
type SignIn struct {
	Identity
	Name         string // fit to be shown to others
	IssuedAt     time.Time
	SessionID    string // the provider's sid
	HostedDomain string // hd
	Claims       SeenClaims
	// MissingGroups are the configured groups_claims that the token does not have.
	MissingGroups []string
}

// SeenClaims is what an ID token contained, for operators.
type SeenClaims struct {
	Names  []string       `json:"names" nullable:"false" doc:"The names of all claims"`
	Values map[string]any `json:"values" doc:"The values of those that the provider's configuration names"`
}

// Admit checks by the gates whether somebody may sign in at all. The error names the gate that refuses.
func (p *Provider) Admit(in SignIn) error {
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
	if len(p.HostedDomains) > 0 && (!isSubject(in.HostedDomain) || !slices.Contains(p.HostedDomains, strings.ToLower(in.HostedDomain))) {
		return errors.New("hosted_domains: hd is another one or missing")
	}
	return nil
}

// The steps at which a sign-in or a logout fails: Error.Step.
const (
	StepProvider    = "provider_error" // the provider is down or refuses, or its answer is not for this flow
	StepCode        = "code_exchange"
	StepIDToken     = "id_token"
	StepLogoutToken = "logout_token"
)

// Error is what is wrong with what a provider says. It is for the log and for operators. It never contains a token.
type Error struct {
	Step string
	Err  error
}

// Error names the step and the cause.
func (e *Error) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Brief returns at most 600 bytes of an error for the log: go-oidc puts a provider's whole answer into its own.
// It returns "" for nil.
func Brief(err error) string {
	if err == nil {
		return ""
	}
	return request.Text(err.Error(), 600)
}
