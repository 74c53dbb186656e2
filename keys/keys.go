package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/identity"
	"noted/internal/audit"
	"noted/internal/base62"
	"noted/internal/problem"
)

// Config bounds the life of keys. Durations are positive.
type Config struct {
	MaxAge          time.Duration // the longest allowed expiry
	OwnerMaxAbsence time.Duration // a key stops when its owner has not signed in for this long
}

// DefaultAge is the default expiry, if MaxAge allows it.
const DefaultAge = 90 * 24 * time.Hour

// DefaultOverlap is how long the old secret works after a rotation by default.
const DefaultOverlap = 24 * time.Hour

// DefaultRole is the default key role, the narrowest one.
const DefaultRole = "key-reader"

// Service is the keys room.
type Service struct {
	pool   *pgxpool.Pool
	config Config
}

// Owner is a key's owner: the person User, or the organization Org with the key's role in it.
type Owner struct {
	User, Org uuid.UUID
	OrgRole   string
}

// New makes the room.
func New(pool *pgxpool.Pool, config Config) *Service {
	return &Service{pool: pool, config: config}
}

// Key is an API key, without its secret.
type Key struct {
	ID         uuid.UUID   `json:"id"`
	Name       string      `json:"name"`
	Role       string      `json:"role"`
	OrgID      *uuid.UUID  `json:"org_id,omitempty" doc:"Of a service key: its organization"`
	OrgRole    string      `json:"org_role,omitempty" doc:"Of a service key: its role there"`
	CreatedBy  audit.Actor `json:"created_by" db:"-"`
	CreatedAt  time.Time   `json:"created_at"`
	ExpiresAt  time.Time   `json:"expires_at"`
	StopsAt    time.Time   `json:"stops_at" doc:"The first of its expiry and the day its owner has not signed in for too long"`
	LastUsedAt *time.Time  `json:"last_used_at" doc:"Exact to a minute; null if never"`
	LastUsedIP *string     `json:"last_used_ip"`
	Secrets    []Secret    `json:"secrets" db:"-" nullable:"false" doc:"Those that still live"`
	Warning    string      `json:"warning,omitempty" db:"-" doc:"That it stops within a week or has stopped, and what helps"`
}

// warnBefore is how early the owner is warned that a key stops.
const warnBefore = 7 * 24 * time.Hour

// warn fills in the warning. If absent, the owner's absence stops the key, not its expiry.
func (k *Key) warn(stopped, soon, absent bool) {
	at := k.StopsAt.Format("2006-01-02 15:04 MST")
	switch {
	case stopped && absent:
		k.Warning = "It stopped at " + at + ", as its owner had not signed in for too long; signing in starts it again"
	case stopped:
		k.Warning = "It expired at " + at + "; make a new one"
	case soon && absent:
		k.Warning = "It stops at " + at + " unless its owner signs in before"
	case soon:
		k.Warning = "It expires at " + at + "; rotate it before"
	}
}

// Secret is one live secret of a key, without its value.
type Secret struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// errNotFound is 404 for a key that is revoked, unknown, or somebody else's.
var errNotFound = problem.NotFound("API key")

// errEnded is 409 for rotating a key that no longer works.
var errEnded = problem.New(http.StatusConflict, "This key has expired or is revoked; make a new one")

// Token is a key as scripts send it: noted_<id>_<secret><checksum>. The parts are base62: the id (a
// UUID) 22 characters, the secret (256 random bits) 43, the checksum 6. The checksum is the CRC-32
// (IEEE) of all before it.
type Token string

const (
	idSize, secretSize, checksumSize = 22, 43, 6
	tokenSize                        = len(identity.KeyPrefix) + idSize + 1 + secretSize + checksumSize
)

// errMalformed and errChecksum say why a string is no key, in the log only.
var (
	errMalformed = errors.New("not of the form noted_<id>_<secret><checksum>")
	errChecksum  = errors.New("the checksum does not match")
)

// newToken makes a token for the key id, and its hash.
func newToken(id uuid.UUID) (Token, []byte) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // crypto/rand never fails
	text := identity.KeyPrefix + base62.Encode(id[:], idSize) + "_" + base62.Encode(secret[:], secretSize)
	sum := sha256.Sum256(secret[:])
	return Token(text + checksum(text)), sum[:]
}

// parse returns the key's id and the hash of its secret, or errMalformed or errChecksum. It allocates
// nothing, as anybody can make a server run it.
func (t Token) parse() (id uuid.UUID, hash [32]byte, err error) {
	text := string(t)
	if len(text) != tokenSize || !strings.HasPrefix(text, identity.KeyPrefix) || text[len(identity.KeyPrefix)+idSize] != '_' {
		return id, hash, errMalformed
	}
	body, sum := text[:tokenSize-checksumSize], text[tokenSize-checksumSize:]
	var stated [4]byte
	if base62.Decode(stated[:], sum) != nil || binary.BigEndian.Uint32(stated[:]) != crc(body) {
		return id, hash, errChecksum
	}
	var secret [32]byte
	start := len(identity.KeyPrefix)
	if base62.Decode(id[:], text[start:start+idSize]) != nil || base62.Decode(secret[:], body[start+idSize+1:]) != nil {
		return id, hash, errMalformed
	}
	return id, sha256.Sum256(secret[:]), nil
}

// checksum is the crc in base62.
func checksum(text string) string {
	return base62.Encode(binary.BigEndian.AppendUint32(nil, crc(text)), checksumSize)
}

// crc is the CRC-32 (IEEE) of text. The library's takes bytes, so text would be copied.
func crc(text string) uint32 {
	sum := ^uint32(0)
	for i := range len(text) {
		sum = crc32.IEEETable[byte(sum)^text[i]] ^ sum>>8
	}
	return ^sum
}
