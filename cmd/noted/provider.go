package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"noted/identity/oidc"
	"noted/server"
)

// checkProviderCommand is `noted check-provider`: does signing in at a configured provider work?
type checkProviderCommand struct {
	Provider string     `arg:"" help:"The provider's id in the file."`
	Config   configFile `help:"The YAML file with the settings and the providers." type:"existingfile" required:""`
	SignIn   bool       `help:"Wait for one trial sign-in and show what its ID token carries. Listens on the configured address: stop the server first."`
	server.Settings
}

// trialTime is how long a trial waits for a sign-in.
const trialTime = 10 * time.Minute

// Run prints what it finds. It stores nothing.
func (c *checkProviderCommand) Run(ctx context.Context, to streams) error {
	providers, err := c.Config.providers()
	if err != nil {
		return fmt.Errorf("the configuration cannot work:\n%w", err)
	}
	provider := providers.ByID(c.Provider)
	if provider == nil {
		return fmt.Errorf("%s has no provider with the id %q", c.Config, c.Provider)
	}
	found, err := provider.Examine(ctx)
	if err != nil {
		return err
	}
	callback := strings.TrimSuffix(c.PublicURL, "/") + "/auth/callback/" + provider.ID
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(to.out, format+"\n", args...) }
	say("discovery         ok: %s", provider.Issuer)
	say("  sign-in at      %s", found.AuthorizationEndpoint)
	say("  tokens from     %s", found.TokenEndpoint)
	say("  sign-out at     %s", orNone(found.EndSessionEndpoint))
	say("keys              ok: %d", len(found.Keys))
	for _, key := range found.Keys {
		say("  %-15s kid %s", orNone(key.Algorithm), key.ID)
	}
	say("clock difference  %v", found.ClockDifference)
	say("redirect URI      %s (register it at the provider)", callback)
	say("back-channel      %s/auth/backchannel-logout/%s (where it has a field for it)", strings.TrimSuffix(c.PublicURL, "/"), provider.ID)
	if found.ClockDifference.Abs() > 30*time.Second {
		return errors.New("the clocks differ by over 30 seconds; a sign-in fails at 60: set them by NTP")
	}
	if !c.SignIn {
		say("Next: the same with --sign-in, to see what an ID token carries.")
		return nil
	}
	if c.PublicURL == "" {
		return errors.New("public_url: a trial needs it, since the provider sends the browser there")
	}
	result, err := c.trial(ctx, to, provider, callback)
	if err != nil {
		return err
	}
	return c.show(say, provider, result)
}

// trial waits for one sign-in, at the address to which the provider sends browsers.
func (c *checkProviderCommand) trial(ctx context.Context, to streams, provider *oidc.Provider, callback string) (oidc.TrialResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, trialTime, errors.New("nobody signed in within 10 minutes"))
	defer cancel()
	trial, err := provider.NewTrial(ctx, callback)
	if err != nil {
		return oidc.TrialResult{}, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return oidc.TrialResult{}, fmt.Errorf("listen: %w; the server must be stopped for a trial", err)
	}
	type outcome struct {
		result oidc.TrialResult
		err    error
	}
	done := make(chan outcome, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /auth/callback/"+provider.ID, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !trial.Ours(r) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = fmt.Fprintln(w, "The trial is over; the terminal shows what came of it.")
		result, err := trial.Finish(r)
		select {
		case done <- outcome{result, err}:
		default: // a second one
		}
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	defer func() {
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(shut)
	}()
	_, _ = fmt.Fprintf(to.err, "\nOpen this address and sign in; nothing is stored:\n\n  %s\n\n", trial.URL())
	select {
	case <-ctx.Done():
		return oidc.TrialResult{}, context.Cause(ctx)
	case got := <-done:
		if got.err != nil {
			return got.result, fmt.Errorf("the sign-in failed: %w", got.err)
		}
		return got.result, nil
	}
}

func (c *checkProviderCommand) show(say func(string, ...any), provider *oidc.Provider, result oidc.TrialResult) error {
	say("trial sign-in     ok: %s, subject %s", result.Name, result.Subject)
	say("claims seen       %s", strings.Join(result.Claims.Names, " "))
	for _, name := range slices.Sorted(maps.Keys(result.Claims.Values)) {
		say("  %-15s %v", name, result.Claims.Values[name])
	}
	for _, name := range result.MissingGroups {
		say("  %-15s MISSING: it is in groups_claims, and the ID token has it not", name)
	}
	say("names in policy   %s", strings.Join(result.Names, " "))
	policy, err := loadPolicy(c.Model, c.Policy)
	if err != nil {
		return err
	}
	say("roles             %s", strings.Join(policy.RolesOf(result.Names...), " "))
	if result.Gate != nil {
		return fmt.Errorf("the gate of %s would not let this person in: %w", provider.ID, result.Gate)
	}
	say("gates             passed")
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
