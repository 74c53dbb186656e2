package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"noted/identity/oidc"
	"noted/server"
)

// configFile is --config: its scalars are defaults for the flags of the same name.
type configFile string

// BeforeResolve makes kong ask the file if no flag and no variable is set.
func (configFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	name, _ := ctx.FlagValue(trace.Flag).(configFile)
	scalars, _, err := server.ReadFile(string(name))
	if err != nil {
		return err
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, env := range flag.Envs {
			if _, set := os.LookupEnv(env); set {
				return nil, nil //nolint:nilnil // kong's way to say: not here
			}
		}
		value, ok := scalars[strings.ReplaceAll(flag.Name, "-", "_")]
		if !ok || value == nil {
			return nil, nil //nolint:nilnil // as above
		}
		return value, nil
	}))
	return nil
}

// providers are the file's, if one is named.
func (f configFile) providers() (oidc.Providers, error) {
	if f == "" {
		return nil, nil
	}
	_, entries, err := server.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	return server.Providers(entries)
}

type serveCommand struct {
	Config configFile `help:"The YAML file with the settings and the providers." type:"existingfile"`
	server.Settings
}

// Run serves until SIGINT or SIGTERM.
func (c *serveCommand) Run(ctx context.Context, to streams) error {
	providers, err := c.Config.providers()
	if err != nil {
		return err
	}
	if len(providers) == 0 {
		err = errors.New("providers: nobody could sign in; name one in the file that --config gives")
	}
	if err := errors.Join(err, c.Check()); err != nil {
		return fmt.Errorf("the configuration cannot work:\n%w", err)
	}
	policy, reload, err := policyFiles{
		model: c.Model, policy: c.Policy, needsAdmin: !c.AllowNoAdmin, providers: providers.InPolicy(),
	}.keep(ctx, syscall.SIGHUP)
	if err != nil {
		return err
	}
	log := server.NewLogger(to.err, c.LogLevel, true)
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	srv, err := server.Open(ctx, server.Options{Settings: c.Settings, Providers: providers, Policy: policy, Reload: reload, Log: log, Version: version})
	if err != nil {
		return err
	}
	defer srv.Close()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var metrics net.Listener
	if c.MetricsListen != "" {
		if metrics, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.MetricsListen); err != nil {
			return fmt.Errorf("metrics_listen: %w", err)
		}
	}
	log.Info("serving", "listen", listener.Addr().String(), "public_url", c.PublicURL, "policy", policy.Policy().Hash, "version", version)
	return srv.Run(ctx, listener, metrics)
}
