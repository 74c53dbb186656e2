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

// Config is what identity needs to know. Durations are positive.
type Config struct {
	Providers oidc.Providers
	// PublicURL is the address people see, without a slash at its end:
	// https://notes.example or http://127.0.0.1:8080.
	PublicURL string
	// Floor is the least time that a failed authentication takes; work that took longer
	// is rounded up to its next multiple.
	Floor time.Duration
	// FailuresPerMinute is how many failures an address may have before they are 429; 0 is
	// no limit.
	FailuresPerMinute int
	// A session ends SessionIdle after its last use (known to a minute) and SessionAbsolute
	// after its beginning, whatever its use.
	SessionIdle, SessionAbsolute time.Duration
	// GroupMaxAge is how long e-mail and group names count after the sign-in that showed them.
	GroupMaxAge time.Duration
	Pages       Pages
	// SignIn counts a sign-in that came to an end. Nil counts none.
	SignIn func(way Way, success bool)
	// Bodies is what the bodies of callers may hold, Strangers what those of the public routes may.
	Bodies, Strangers *bodies.Budget
	// Orgs are the organizations of which somebody is a member, or for which a service works.
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

// Ways are all of them.
var Ways = []Way{WayCallback, WayExchange, WayDevice, WayLink}

// Pages makes the pages for people. They are handed in because web imports identity.
type Pages struct {
	// Failure is shown with 401 to a browser whose sign-in at the provider failed: the same bytes for
	// one provider whatever failed.
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
	starts  *limiter // of device logins

	remembered remembered
}

// KeyVerifier finds the credential that an API key is. The error is a *Failure when the key
// is not a live one, anything else when that could not be found out. It is an interface
// because keys imports identity.
type KeyVerifier interface {
	VerifyKey(ctx context.Context, token string) (KeyCredential, error)
	// KeyLives tells, in a transaction, whether a key is not revoked and that secret of it neither
	// replaced nor expired, and holds it so until the transaction ends.
	KeyLives(ctx context.Context, tx pgx.Tx, id, secret uuid.UUID) (bool, error)
	// CountKnownTo counts the service keys of which a user was shown a secret that works.
	CountKnownTo(ctx context.Context, tx pgx.Tx, user uuid.UUID) (int, error)
}

// KeyCredential is a live API key and the person for whom it acts, or, of an organization, the
// service that it is.
type KeyCredential struct {
	ID      uuid.UUID
	Secret  uuid.UUID // of the secret that was presented
	Role    string
	Person  Person
	Service *Keyed // nil for a person's
	// Lasting tells that it holds for the next second, if nobody ends it.
	Lasting bool
}

// Keyed is what an organization's key may do beyond its key role.
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

// New makes the room. policy is the one in force, which may be another at each call; record hears of
// failed authentications of known users and keys, failed of the reason of every one. Neither may wait.
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

// Policy is the policy in force.
func (s *Service) Policy() *authz.Policy { return s.policy() }

// Names are what policy.csv may call a person: those that their providers give (oidc.Provider.Names), the
// aging ones for GroupMaxAge after the sign-in that showed them. An identity of a provider that is not
// configured any more gives no name.
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

// namesOf are the names that an identity gives always, and those that it gives until it ages.
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

// NameInPolicy is a name under which the policy sees somebody, or saw until it aged.
type NameInPolicy struct {
	Name  string     `json:"name"`
	Aged  bool       `json:"aged" doc:"It does not count until the next sign-in that shows it"`
	Until *time.Time `json:"until" doc:"When it ages or aged; null for provider:subject, which never does"`
}

// NamesInPolicy are those of a user, with those that have aged; 404 when there is no such user.
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

// RolesOf are the platform roles in force of somebody with these identities, sorted.
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
	_, _ = rand.Read(secret[:]) // it never fails: crypto/rand
	return Token(tokenPrefix + base62.Encode(secret[:], 43))
}

// Hash is what is stored of a token. ok is false for what was never a token.
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
	originExchange = "exchange" // of an ID token, by a program
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

// errNoSession is 404 for a session that is not the caller's, or has ended.
var errNoSession = problem.NotFound("session")
