package notes

import (
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"noted/identity"
	"noted/internal/audit"
	"noted/internal/problem"
	"noted/orgs"
)

// Limits of a note.
const (
	MaxTitle = 200       // characters, at least one
	MaxBody  = 1_048_576 // bytes of UTF-8
	// MaxRequest is the largest request with a note, in bytes. JSON may escape each byte of a body
	// as six.
	MaxRequest = 7 << 20
)

// Config is the life of deleted notes. Durations are positive.
type Config struct {
	Retention  time.Duration // from deletion to the purge
	PurgeEvery time.Duration // between two purges
}

// Service is the notes room.
type Service struct {
	pool    *pgxpool.Pool
	config  Config
	log     *slog.Logger
	metrics metrics
	users   *identity.Service
	orgs    *orgs.Service
}

// New makes the room and registers its metrics.
func New(pool *pgxpool.Pool, users *identity.Service, orgs *orgs.Service, config Config, log *slog.Logger, registry prometheus.Registerer) *Service {
	return &Service{pool: pool, users: users, orgs: orgs, config: config, log: log, metrics: newMetrics(registry)}
}

// Summary is a note without its body, for lists.
type Summary struct {
	ID         uuid.UUID   `json:"id"`
	Title      string      `json:"title"`
	Owner      audit.Actor `json:"owner" db:"-"`
	OrgID      *uuid.UUID  `json:"org_id" doc:"null for a personal note"`
	NotebookID *uuid.UUID  `json:"notebook_id"`
	Version    int64       `json:"version"`
	CreatedAt  time.Time   `json:"created_at"`
	UpdatedAt  time.Time   `json:"updated_at"`
}

// Note is a note.
type Note struct {
	Summary
	Body string `json:"body" db:"-"`
}

// Death is what the Dead Zone adds to a note.
type Death struct {
	DeletedAt time.Time   `json:"deleted_at"`
	DeletedBy audit.Actor `json:"deleted_by" db:"-"`
	PurgeAt   time.Time   `json:"purge_at" doc:"From then on it may be purged at any moment"`
}

// DeadSummary is a deleted note without its body.
type DeadSummary struct {
	Summary
	Death
}

// DeadNote is a deleted note.
type DeadNote struct {
	Note
	Death
}

// Errors of the room. What the caller may not read gets the same 404 as what is missing.
var (
	errNotFound = problem.NotFound("note")
	errOrgGone  = problem.New(409, "The organization of this note is deleted; it cannot come back")
	errNotDead  = problem.NotFound("note in the Dead Zone")
	errStale    = problem.New(412, "The note has changed since; read it again and repeat the change")
)
