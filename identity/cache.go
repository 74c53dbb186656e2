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
	// RememberedFor is how long a credential that held is believed without asking the database:
	// the longest that a replica which hears of nothing goes on accepting one that ended. One that ends by
	// itself within it is not remembered.
	RememberedFor = time.Second
	// rememberedAtMost bounds the memory; what does not fit is asked for each time.
	rememberedAtMost = 10_000
	// goodbyeTime is how long the listening connection has to be closed.
	goodbyeTime = time.Second / 2
)

// remembered are callers whose credential held a moment ago. Every change of any credential
// makes it forget all: a second's worth of look-ups is cheap, and nothing can be left behind.
type remembered struct {
	epoch   atomic.Uint64 // counts the changes that were heard of
	mu      sync.RWMutex
	of      uint64 // the epoch of callers
	callers map[[sha256.Size]byte]caller
}

// caller is a principal under the policy that was in force then.
type caller struct {
	principal *authz.Principal
	policy    *authz.Policy
	until     time.Time
}

// forget makes the next request of everybody ask the database.
func (r *remembered) forget() { r.epoch.Add(1) }

// find returns the principal of a token, by its hash; nil when the database must be asked.
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

// keep remembers a caller whose credential was looked up in the given epoch, at asked. What was
// heard of meanwhile may have ended it: then it is not kept.
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

// Forget makes this replica ask the database again for every credential. Others hear of a change
// by the database.
func (s *Service) Forget() { s.remembered.forget() }

// Write runs a transaction that may end a credential, or change what one is allowed, and forgets.
func (s *Service) Write(ctx context.Context, work func(pgx.Tx) error) error {
	defer s.Forget()
	return pgx.BeginFunc(ctx, s.pool, work)
}

// Listen hears, on a connection of its own, of every credential that changes on any replica,
// until ctx ends. While it cannot hear, what is remembered is a second old at most, as ever. It
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
