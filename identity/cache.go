package identity

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"noted/authz"
)

const (
	// RememberedFor is how long a valid credential is accepted without asking the database. A replica
	// that gets no notifications accepts an ended one at most that long. A credential that expires
	// within that time is not remembered.
	RememberedFor = time.Second
	// rememberedAtMost bounds the memory. When it is full, it starts again empty.
	rememberedAtMost = 10_000
	// goodbyeTime is how long closing the listening connection may take.
	goodbyeTime = time.Second / 2
)

// remembered holds callers whose credential was valid a moment ago. Any change of a credential
// makes it forget all: a second's worth of look-ups is cheap, and nothing can be left behind.
type remembered struct {
	epoch   atomic.Uint64 // counts the changes heard of
	mu      sync.RWMutex
	of      uint64 // the epoch of callers
	callers map[[sha256.Size]byte]caller
}

// caller is a principal under the policy then in force.
type caller struct {
	principal *authz.Principal
	policy    *authz.Policy
	until     time.Time
}

// forget makes everybody's next request ask the database.
func (r *remembered) forget() { r.epoch.Add(1) }

// find returns a token's principal by its hash. It returns nil if the database must be asked.
func (r *remembered) find(token [sha256.Size]byte, policy *authz.Policy) *authz.Principal {
	r.mu.RLock()
	found, ok := r.callers[token]
	fresh := r.of == r.epoch.Load()
	r.mu.RUnlock()
	if !ok || !fresh || found.policy != policy || !time.Now().Before(found.until) {
		return nil
	}
	return found.principal
}

// keep remembers a caller whose credential was looked up in the given epoch, at asked. If the
// epoch has changed, it keeps nothing: the credential may have ended.
func (r *remembered) keep(token [sha256.Size]byte, principal *authz.Principal, policy *authz.Policy, epoch uint64, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.epoch.Load() {
		return
	}
	if r.of != epoch || r.callers == nil || len(r.callers) >= rememberedAtMost {
		r.of, r.callers = epoch, map[[sha256.Size]byte]caller{}
	}
	r.callers[token] = caller{principal, policy, asked.Add(RememberedFor)}
}

// Forget makes this replica ask the database again for every credential. The database notifies the
// others of changes.
func (s *Service) Forget() { s.remembered.forget() }

// Write runs a transaction that may end a credential or change what it allows, and then forgets.
func (s *Service) Write(ctx context.Context, work func(pgx.Tx) error) error {
	defer s.Forget()
	return pgx.BeginFunc(ctx, s.pool, work)
}

// Listen waits on its own connection for credential changes on any replica, until ctx ends.
// While it is not connected, what is remembered is still at most a second old. It
// relies on PostgreSQL's LISTEN and on the triggers that notify noted_credentials.
func (s *Service) Listen(ctx context.Context, log *slog.Logger) {
	for {
		err := s.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		s.Forget()
		log.LogAttrs(ctx, slog.LevelWarn, "not told of changed credentials; they are believed for a second all the same", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
