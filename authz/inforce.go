package authz

import (
	"sync"
	"sync/atomic"
	"time"
)

// InForce is the policy by which requests are decided. Reload puts another in its place in one
// step; whoever asked for Policy before keeps what they got.
type InForce struct {
	load func() (*Policy, error)
	one  sync.Mutex // reload at a time
	now  atomic.Pointer[State]
}

// State is a policy in force, and what is wrong with the files, if they are not what is in force.
type State struct {
	Policy   *Policy
	LoadedAt time.Time
	Err      error // of the last reload
}

// NewInForce loads the first policy; load must give one.
func NewInForce(load func() (*Policy, error)) (*InForce, error) {
	f := &InForce{load: load}
	policy, err := load()
	if err != nil {
		return nil, err
	}
	f.now.Store(&State{Policy: policy, LoadedAt: time.Now().UTC()})
	return f, nil
}

// Policy is the one in force.
func (f *InForce) Policy() *Policy { return f.now.Load().Policy }

// State is the policy in force with its circumstances.
func (f *InForce) State() State { return *f.now.Load() }

// Reload loads again, and returns the policy in force before and after. One that cannot be
// loaded changes nothing but State's Err; one that is the same, nothing but that it is nil.
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
