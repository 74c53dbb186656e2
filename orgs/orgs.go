package orgs

import (
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/authz"
	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/base62"
	"noted/internal/problem"
	"noted/keys"
)

// Config is the life and sending of invitations, and how many organizations a person may make.
type Config struct {
	InvitationLifetime time.Duration // positive
	PerDay             int           // organizations that one person may make in a day; 0: no limit
	// PublicURL is the address people see, without a final slash.
	PublicURL string
	// Mail sends invitations; nil without a mail server.
	Mail *Mailer
}

// Service is the orgs room.
type Service struct {
	pool   *pgxpool.Pool
	users  *identity.Service
	keys   *keys.Service
	config Config
	log    *slog.Logger
}

// New makes the room.
func New(pool *pgxpool.Pool, users *identity.Service, keys *keys.Service, config Config, log *slog.Logger) *Service {
	return &Service{pool: pool, users: users, keys: keys, config: config, log: log}
}

// Org is an organization as a member sees it.
type Org struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role" doc:"The caller's role in it"`
	CreatedAt time.Time `json:"created_at"`
}

// Member is somebody in an organization.
type Member struct {
	UserID   uuid.UUID `json:"user_id"`
	Name     string    `json:"name"`
	Email    *string   `json:"email"`
	Role     string    `json:"role"`
	JoinedAt time.Time `json:"joined_at"`
}

// Invitation is a pending invitation.
type Invitation struct {
	ID        uuid.UUID `json:"id"`
	Email     string    `json:"email"`
	Role      string    `json:"role"`
	ExpiresAt time.Time `json:"expires_at"`
	CreatedAt time.Time `json:"created_at"`
}

// Offer is what an invitation offers.
type Offer struct {
	Org  string // the organization's name
	Role string
	By   string // its maker's name
}

// adminRole is the role of which each organization keeps an unlocked member.
const adminRole = "admin"

// Errors of the room.
var (
	errNoMember     = authz.NotFound("member")
	errNoInvitation = authz.NotFound("invitation")
	errLastAdmin    = problem.New(http.StatusConflict, "The organization would have no admin left whose account is not locked; make another member an admin first")
	errMember       = problem.New(http.StatusConflict, "You are a member of this organization already; your role there is unchanged")
)

// Token is an invitation's: 256 random bits in 43 base62 characters. Only its SHA-256 is stored.
type Token string

func newToken() Token {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // crypto/rand never fails
	return Token(base62.Encode(secret[:], 43))
}

func (t Token) hash() []byte {
	sum := sha256.Sum256([]byte("noted invitation " + t))
	return sum[:]
}

// link is where a person accepts. The token is in the fragment, which no browser sends.
func (s *Service) link(token Token) string {
	return s.config.PublicURL + "/invitation#" + string(token)
}

// plainEmail is an e-mail in lower case, for comparing, or a 422.
func plainEmail(email string) (string, error) {
	local, domain, _ := strings.Cut(email, "@")
	if !oidc.IsPlainEmail(email) || local == "" || domain == "" {
		return "", problem.Invalid("body.email", "is no e-mail address such as ada@example.com, in ASCII")
	}
	return strings.ToLower(email), nil
}
