package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/base62"
	"noted/internal/bodies"
	"noted/internal/problem"
)

// Config configures identity. Durations are positive.
type Config struct {
	Providers oidc.Providers
	// PublicURL is the address people see, without a final slash:
	// https://notes.example or http://127.0.0.1:8080.
	PublicURL string
	// Floor is the least time that a failed authentication takes. Longer work is rounded up
	// to its next multiple.
	Floor time.Duration
	// FailuresPerMinute is how many failures an address may have before it gets 429; 0 is
	// no limit.
	FailuresPerMinute int
	// A session ends SessionIdle after its last use (known to a minute), and in any case
	// SessionAbsolute after it began.
	SessionIdle, SessionAbsolute time.Duration
	// GroupMaxAge is how long e-mail and group names count after the sign-in that showed them.
	GroupMaxAge time.Duration
	Pages       Pages
	// SignIn counts a finished sign-in. Nil counts none.
	SignIn func(way Way, success bool)
	// Bodies is the budget for callers' bodies; Strangers is that for public routes.
	Bodies, Strangers *bodies.Budget
	// Orgs returns the organizations that a user is a member of, or that a service works for.
	Orgs func(context.Context, *authz.Principal) ([]MeOrg, error)
}

// Way is how somebody signs in, or links another sign-in.
type Way string

// The ways: at the provider, by a token exchange, by a device login, and by linking.
const (
	WayCallback Way = "callback"
	WayExchange Way = "exchange"
	WayDevice   Way = "device"
	WayLink     Way = "link"
)

// Ways lists them all.
var Ways = []Way{WayCallback, WayExchange, WayDevice, WayLink}

// Pages makes the pages for people. They are passed in because web imports identity.
type Pages struct {
	// Failure is shown with 401 to a browser whose sign-in at the provider failed. A provider's page
	// has the same bytes whatever failed.
	Failure func(provider string) []byte
	Device  func(DevicePage) []byte
	Link    func(LinkPage) []byte
	Message func(title, text string) []byte
}

// Service is the identity room.
type Service struct {
	config  Config
	pool    *pgxpool.Pool
	policy  func() *authz.Policy
	keys    KeyVerifier
	record  *audit.Failures
	failed  func(reason string) // counts a failure by its reason
	cookies cookieNames
	limiter *limiter
	starts  *limiter // for device logins

	remembered remembered
}

// KeyVerifier looks up API keys. VerifyKey returns a *Failure if the key is not live, and
// another error if that could not be found out. It is an interface because keys imports
// identity.
type KeyVerifier interface {
	VerifyKey(ctx context.Context, token string) (KeyCredential, error)
	// KeyLives reports whether a key is not revoked and its secret neither replaced nor expired. It
	// keeps that so until the transaction ends.
	KeyLives(ctx context.Context, tx pgx.Tx, id, secret uuid.UUID) (bool, error)
	// CountKnownTo counts the service keys for which a user was shown a working secret.
	CountKnownTo(ctx context.Context, tx pgx.Tx, user uuid.UUID) (int, error)
}

// KeyCredential is a live API key with the person for whom it acts. An organization's key has a
// service instead.
type KeyCredential struct {
	ID      uuid.UUID
	Secret  uuid.UUID // the id of the presented secret
	Role    string
	Person  Person
	Service *Keyed // nil for a person's key
	// Lasting: it is valid for the next second unless somebody ends it.
	Lasting bool
}

// Keyed is the service of an organization's key.
type Keyed struct {
	Name string
	Org  uuid.UUID
	Role string // in the organization
}

// Person is a user as the view `people` shows them to other rooms.
type Person struct {
	ID         uuid.UUID
	Name       string
	Email      string
	Locked     bool
	Identities []Identity
}

// Identity is one (issuer, subject) pair of a person, with what its last sign-in showed.
// The JSON is that of the view `people`.
type Identity struct {
	oidc.Identity
	AgeSeconds float64 `json:"age_seconds"` // since that sign-in, by the database's clock
}

// New makes the room. policy returns the policy in force, which may change between calls. record gets
// failed authentications of known users and keys; failed gets the reason of each. Neither may block.
func New(pool *pgxpool.Pool, policy func() *authz.Policy, keys KeyVerifier, config Config, record *audit.Failures, failed func(reason string)) *Service {
	if config.SignIn == nil {
		config.SignIn = func(Way, bool) {}
	}
	return &Service{
		config: config, pool: pool, policy: policy, keys: keys, record: record, failed: failed,
		cookies: cookieNamesFor(config.PublicURL), limiter: newLimiter(config.FailuresPerMinute),
		starts: newLimiter(deviceStarts),
	}
}

// Policy returns the policy in force.
func (s *Service) Policy() *authz.Policy { return s.policy() }

// Names returns what policy.csv may call a person: the names from their providers (oidc.Provider.Names).
// Aging names count for GroupMaxAge after the sign-in that showed them. A provider that is no longer
// configured gives no names.
func (s *Service) Names(identities []Identity) []string {
	var names []string
	for _, identity := range identities {
		always, aging := s.namesOf(identity)
		names = append(names, always...)
		if !s.aged(identity) {
			names = append(names, aging...)
		}
	}
	return names
}

// namesOf returns the names that an identity always gives, and those that it gives until it ages.
func (s *Service) namesOf(identity Identity) (always, aging []string) {
	provider := s.config.Providers.ByIssuer(identity.Issuer)
	if provider == nil {
		return nil, nil
	}
	return provider.Names(identity.Identity)
}

func (s *Service) aged(identity Identity) bool {
	return identity.AgeSeconds >= s.config.GroupMaxAge.Seconds()
}

// NameInPolicy is a name by which the policy knows somebody, or did until it aged.
type NameInPolicy struct {
	Name  string     `json:"name"`
	Aged  bool       `json:"aged" doc:"It does not count until the next sign-in that shows it"`
	Until *time.Time `json:"until" doc:"When it ages or aged; null for provider:subject, which never does"`
}

// NamesInPolicy returns a user's names, aged ones too. It returns a 404 for an unknown user.
func (s *Service) NamesInPolicy(ctx context.Context, user uuid.UUID) ([]NameInPolicy, error) {
	identities, err := s.identitiesOf(ctx, user)
	if err != nil {
		return nil, err
	}
	names := []NameInPolicy{}
	for _, identity := range identities {
		always, aging := s.namesOf(identity)
		for _, name := range always {
			names = append(names, NameInPolicy{Name: name})
		}
		until := time.Now().UTC().Add(s.config.GroupMaxAge - time.Duration(identity.AgeSeconds*float64(time.Second))).Truncate(time.Second)
		for _, name := range aging {
			names = append(names, NameInPolicy{Name: name, Aged: s.aged(identity), Until: &until})
		}
	}
	return names, nil
}

// RolesOf returns the platform roles in force of somebody with these identities, sorted.
func (s *Service) RolesOf(identities []Identity) []string {
	return s.policy().RolesOf(s.Names(identities)...)
}

// Token is a session token, `nsess_` and 43 base62 characters of 256 random bits. Only its
// hash is stored.
type Token string

const tokenPrefix = "nsess_"

// NewToken makes a token.
func NewToken() Token {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // crypto/rand never fails
	return Token(tokenPrefix + base62.Encode(secret[:], 43))
}

// Hash returns what is stored. ok is false if t cannot be a token.
func (t Token) Hash() (hash []byte, ok bool) {
	var secret [32]byte
	text, found := strings.CutPrefix(string(t), tokenPrefix)
	if !found || len(text) != 43 || base62.Decode(secret[:], text) != nil {
		return nil, false
	}
	sum := sha256.Sum256([]byte(t))
	return sum[:], true
}

// How a session began: sessions.origin.
const (
	originBrowser  = "browser"
	originDevice   = "device"   // approved from a browser's session
	originExchange = "exchange" // by a program, for an ID token
)

// Session is one of a user's sessions, as GET /v1/me/sessions shows it.
type Session struct {
	ID         uuid.UUID `json:"id"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at" doc:"Exact to a minute"`
	ExpiresAt  time.Time `json:"expires_at" doc:"Its absolute end; unused it ends sooner"`
	IP         *string   `json:"ip"`
	UserAgent  string    `json:"user_agent"`
	Provider   *string   `json:"provider" db:"-" doc:"null when that provider is not configured any more"`
	Current    bool      `json:"current"`
	Issuer     string    `json:"-"`
}

// ActorOf is how the audit record names a principal.
func ActorOf(p *authz.Principal) *audit.Actor {
	return &audit.Actor{ID: p.ID, Kind: p.Kind, Name: p.Name}
}

// errNoSession is the 404 for a session that is not the caller's or has ended.
var errNoSession = problem.NotFound("session")
