package authz

import (
	"sync"
	"sync/atomic"
	"time"
)

// InForce holds the policy that decides requests. Reload replaces it in one step. Callers that
// already have a Policy keep theirs.
type InForce struct {
	load func() (*Policy, error)
	one  sync.Mutex // one reload at a time
	now  atomic.Pointer[State]
}

// State is the policy in force, and what is wrong with the files if they could not be loaded.
type State struct {
	Policy   *Policy
	LoadedAt time.Time
	Err      error // of the last reload
}

// NewInForce loads the first policy. It returns load's error.
func NewInForce(load func() (*Policy, error)) (*InForce, error) {
	f := &InForce{load: load}
	policy, err := load()
	if err != nil {
		return nil, err
	}
	f.now.Store(&State{Policy: policy, LoadedAt: time.Now().UTC()})
	return f, nil
}

// Policy returns the policy in force.
func (f *InForce) Policy() *Policy { return f.now.Load().Policy }

// State returns the policy in force and how it was loaded.
func (f *InForce) State() State { return *f.now.Load() }

// Reload loads again, and returns the policy in force before and after. If loading fails, only
// State's Err changes. If the policy is the same, Err is cleared.
func (f *InForce) Reload() (before, after *Policy, err error) {
	f.one.Lock()
	defer f.one.Unlock()
	next := f.State()
	before = next.Policy
	policy, err := f.load()
	next.Err = err
	if err == nil && policy.Hash != before.Hash {
		next.Policy, next.LoadedAt = policy, time.Now().UTC()
	}
	f.now.Store(&next)
	return before, next.Policy, err
}
