package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"noted"
	"noted/authz"
	"noted/internal/watch"
)

const (
	usualModel  = "model.conf"
	usualPolicy = "policy.csv"
)

// loadPolicy reads the named files, else those in the current folder, else the shipped ones.
func loadPolicy(modelName, policyName string, added ...authz.Grouping) (*authz.Policy, error) {
	model, err := source(modelName, usualModel, noted.Model)
	if err != nil {
		return nil, err
	}
	policy, err := source(policyName, usualPolicy, noted.Policy)
	if err != nil {
		return nil, err
	}
	return authz.Load(model, policy, added...)
}

// source reads a file; - is standard input.
func source(name, usual string, shipped []byte) (authz.Source, error) {
	if name == "-" {
		text, err := io.ReadAll(os.Stdin)
		return authz.Source{Name: "standard input", Text: text}, err
	}
	text, err := os.ReadFile(cmp.Or(name, usual))
	switch {
	case err == nil:
		return authz.Source{Name: cmp.Or(name, usual), Text: text}, nil
	case name == "" && errors.Is(err, os.ErrNotExist):
		return authz.Source{Name: usual + " as shipped", Text: shipped}, nil
	}
	return authz.Source{}, err
}

// policyFiles are the policy files of a server.
type policyFiles struct {
	model, policy string // as in the settings; empty: the usual name
	added         []authz.Grouping
	needsAdmin    bool
	providers     []authz.Provider // the admin must be able to sign in at one
}

// keep loads the policy, and returns a channel that asks to reload it after a file change or one of the signals,
// until ctx ends. A file that existed once must stay: the shipped one does not replace a deleted one.
func (f policyFiles) keep(ctx context.Context, signals ...os.Signal) (*authz.InForce, <-chan struct{}, error) {
	names := []string{cmp.Or(f.model, usualModel), cmp.Or(f.policy, usualPolicy)}
	files := watch.Files(names...)
	policy, err := authz.NewInForce(func() (*authz.Policy, error) {
		for i, name := range []*string{&f.model, &f.policy} {
			if _, err := os.Stat(names[i]); err == nil {
				*name = names[i]
			}
		}
		policy, err := loadPolicy(f.model, f.policy, f.added...)
		if err == nil && f.needsAdmin {
			err = policy.RequireAdmin(f.providers)
		}
		return policy, err
	})
	if err != nil {
		return nil, nil, err
	}
	reload := make(chan struct{}, 1)
	ask := func() {
		select {
		case reload <- struct{}{}:
		default: // already asked
		}
	}
	go files.Run(ctx, ask)
	if len(signals) > 0 {
		received := make(chan os.Signal, 1)
		signal.Notify(received, signals...)
		go func() {
			defer signal.Stop(received)
			for {
				select {
				case <-ctx.Done():
					return
				case <-received:
					ask()
				}
			}
		}()
	}
	return policy, reload, nil
}
