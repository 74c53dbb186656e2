package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/devidp"
	"noted/internal/localpg"
	"noted/internal/migrate"
	"noted/keys"
	"noted/server"
)

// devPeople are the people of `noted dev` with a key, and their roles, set in memory. The provider also has
// devOthers: each gets an account at the first sign-in.
var (
	devPeople = []devPerson{{"alice", ""}, {"bob", ""}, {"mona", "moderator"}, {"ada", "admin"}}
	devOthers = []string{"carol", "dave", "erin", "frank", "grace", "heidi"}
)

type devPerson struct{ name, role string }

const (
	devProvider = server.DevProvider
	devKeyName  = "noted dev" // each start revokes the previous key of this name
	devKeyRole  = "key-admin"
)

type devCommand struct {
	Config configFile `help:"A YAML file with settings, and with providers beside the one of dev." type:"existingfile"`
	Data   string     `help:"The folder that keeps everything between two starts; in your data folder if left out." type:"path"`
	Empty  bool       `help:"Make no sample notes."`
	People []string   `placeholder:"NAME" help:"People beside the four to give an account and a key, names with commas between; the provider has carol, dave, erin, frank, grace and heidi besides."`
	server.Settings

	people []devPerson // those with a key: the four, then those of --people
	own    bool        // the database is a private one
}

// Run serves until SIGINT or SIGTERM, or until its PostgreSQL ends.
func (c *devCommand) Run(ctx context.Context, to streams) error {
	if err := server.CheckLoopback(c.Listen); err != nil {
		return err
	}
	if err := c.choosePeople(); err != nil {
		return err
	}
	providers, err := c.Config.providers()
	if err != nil {
		return err
	}
	policy, reload, err := policyFiles{model: c.Model, policy: c.Policy, added: devGroupings()}.keep(ctx, syscall.SIGHUP)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopDatabase, err := c.startDatabase(ctx, to, cancel)
	if err != nil {
		return err
	}
	defer stopDatabase()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w; --listen 127.0.0.1:0 takes a free port", err)
	}
	c.PublicURL = "http://" + listener.Addr().String()
	if err := c.Check(); err != nil {
		return fmt.Errorf("the configuration cannot work:\n%w", err)
	}
	provider, oldIssuers, err := c.startProvider(ctx)
	if err != nil {
		return err
	}
	srv, err := server.Open(ctx, server.Options{
		Settings: c.Settings, Providers: append(oidc.Providers{provider}, providers...), Policy: policy, Reload: reload,
		Log: server.NewLogger(to.err, c.LogLevel, false), Version: version, Dev: true,
		Migrate: func(ctx context.Context, url string) error { return migrate.UpDev(ctx, url, c.own) },
		Hosts:   server.LoopbackHosts(listener.Addr()),
	})
	if err != nil {
		return err
	}
	defer srv.Close()
	people, first, err := c.meetPeople(ctx, srv, oldIssuers)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, listener, nil) }()
	if first && !c.Empty {
		if err := errors.Join(writeSamples(ctx, c.PublicURL, people), writeOrganization(ctx, srv, c.PublicURL, people)); err != nil {
			cancel(err)
			return errors.Join(fmt.Errorf("writing the samples: %w", err), <-done)
		}
	}
	announce(to, c.PublicURL, people)
	err = <-done
	if cause := context.Cause(ctx); errors.Is(cause, errDatabaseEnded) {
		err = errors.Join(cause, err)
	}
	return err
}

var devName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// choosePeople reads --people.
func (c *devCommand) choosePeople() error {
	c.people = slices.Clone(devPeople)
	for _, name := range c.People {
		if !devName.MatchString(name) {
			return fmt.Errorf("people: %.50q is no name; write lower-case letters, digits and hyphens, a letter first", name)
		}
		if !slices.ContainsFunc(c.people, func(p devPerson) bool { return p.name == name }) {
			c.people = append(c.people, devPerson{name: name})
		}
	}
	return nil
}

// subjects are all people of the provider, with a key or without.
func (c *devCommand) subjects() []string {
	var names []string
	for _, p := range c.people {
		names = append(names, p.name)
	}
	for _, name := range devOthers {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func devGroupings() []authz.Grouping {
	var list []authz.Grouping
	for _, p := range devPeople {
		if p.role != "" {
			list = append(list, authz.Grouping{Who: devProvider + ":" + p.name, Role: p.role})
		}
	}
	return list
}

var errDatabaseEnded = errors.New("PostgreSQL ended by itself; its log stands above")

// startDatabase starts a private PostgreSQL in the data folder and sets DatabaseURL, unless a server is named.
func (c *devCommand) startDatabase(ctx context.Context, to streams, cancel context.CancelCauseFunc) (stop func(), err error) {
	if c.Data == "" {
		if c.Data, err = dataFolder(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if c.DatabaseURL != "" {
		return func() {}, nil
	}
	log, err := os.OpenFile(filepath.Join(c.Data, "postgresql.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	postgres, err := localpg.Start(ctx, localpg.Options{Data: c.Data, Durable: true, Log: log})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	c.DatabaseURL, c.own = postgres.URL("postgres"), true
	go func() {
		<-postgres.Done()
		cancel(errDatabaseEnded)
	}()
	return func() {
		if err := errors.Join(postgres.Stop(), log.Close()); err != nil {
			_, _ = fmt.Fprintln(to.err, "noted: stopping PostgreSQL:", err)
		}
	}, nil
}

// dataFolder is the default folder for the data of `noted dev` (XDG Base Directory).
func dataFolder() (string, error) {
	if base := os.Getenv("XDG_DATA_HOME"); base != "" {
		return filepath.Join(base, "noted-dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder; name a folder with --data: %w", err)
	}
	return filepath.Join(home, ".local", "share", "noted-dev"), nil
}

// startProvider serves the dev provider, on the last start's port if that is free. It returns noted's settings for
// it and the issuers of earlier starts. The data folder lists these, the latest last, so that a start killed half
// way leaves nobody behind at a forgotten issuer.
func (c *devCommand) startProvider(ctx context.Context) (provider *oidc.Provider, old []string, err error) {
	note := filepath.Join(c.Data, "dev-issuer")
	text, err := os.ReadFile(note) //nolint:gosec // in our own data folder
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	known := strings.Fields(string(text))
	last := ""
	if len(known) > 0 {
		last = known[len(known)-1]
	}
	host, _, _ := net.SplitHostPort(c.Listen) // CheckLoopback has checked it
	listener, err := listenAgain(ctx, last, host)
	if err != nil {
		return nil, nil, fmt.Errorf("dev provider: %w", err)
	}
	issuer := "http://" + listener.Addr().String()
	var people []devidp.Person
	for _, name := range c.subjects() {
		people = append(people, devidp.Person{Subject: name, Name: name, Email: devEmail(name), EmailVerified: true})
	}
	secret := string(identity.NewToken())
	handler, err := devidp.New(devidp.Config{
		Issuer: issuer, ClientID: "noted", ClientSecret: secret, People: people,
		RedirectURIs:           []string{c.PublicURL + "/auth/callback/" + devProvider},
		PostLogoutRedirectURIs: []string{c.PublicURL + "/"},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("dev provider: %w", err)
	}
	srv := &http.Server{Handler: server.OnlyFor(server.LoopbackHosts(listener.Addr()))(handler), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	old = slices.DeleteFunc(known, func(one string) bool { return one == issuer })
	if err := os.WriteFile(note, []byte(strings.Join(append(slices.Clone(old), issuer), "\n")+"\n"), 0o600); err != nil { //nolint:gosec // in our own data folder
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	return &oidc.Provider{
		ID: devProvider, Name: "dev", Issuer: issuer, ClientID: "noted", ClientSecret: secret,
		Scopes: []string{"openid", "email", "profile"}, EmailDomains: []string{"dev.example"}, GroupsClaims: []string{"groups"},
		Subjects: c.subjects(),
	}, old, nil
}

// listenAgain listens on oldIssuer's address, else on a free port of host.
func listenAgain(ctx context.Context, oldIssuer, host string) (net.Listener, error) {
	config := &net.ListenConfig{}
	if u, err := url.Parse(oldIssuer); err == nil && u.Host != "" {
		if listener, err := config.Listen(ctx, "tcp", u.Host); err == nil {
			return listener, nil
		}
	}
	return config.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
}

func devEmail(name string) string { return name + "@dev.example" }

// person is one of those with a key, and this start's key.
type person struct {
	name string
	id   uuid.UUID
	key  keys.Token
}

// meetPeople moves the identities of earlier issuers to this start's, revokes earlier starts' keys, signs in the
// people with keys and gives each a new one. first is true if the four were new.
func (c *devCommand) meetPeople(ctx context.Context, srv *server.Server, oldIssuers []string) (people []person, first bool, err error) {
	issuer := srv.Identity.Issuer(devProvider)
	for _, old := range oldIssuers {
		if err := srv.Identity.MoveIssuer(ctx, old, issuer); err != nil {
			return nil, false, err
		}
	}
	if err := srv.Keys.RevokeNamed(ctx, devKeyName); err != nil {
		return nil, false, err
	}
	for i, p := range c.people {
		var user uuid.UUID
		err := pgx.BeginFunc(ctx, srv.Pool, func(tx pgx.Tx) error {
			var made bool
			var err error
			user, _, made, err = identity.SaveIdentity(ctx, tx, oidc.Identity{
				Issuer: issuer, Subject: p.name, Email: devEmail(p.name), EmailVerified: true,
			}, p.name)
			first = first || made && i < len(devPeople)
			return err
		})
		var failure *identity.Failure
		if err != nil && (!errors.As(err, &failure) || failure.Reason != identity.ReasonLocked) {
			return nil, first, fmt.Errorf("signing %s in: %w", p.name, err)
		}
		// Somebody locked by ada gets a key all the same; it fails as it should.
		key, err := srv.Keys.Mint(ctx, audit.Actor{ID: user, Kind: "user", Name: p.name}, devKeyName, devKeyRole)
		if err != nil {
			return nil, first, err
		}
		people = append(people, person{p.name, user, key})
	}
	return people, first, nil
}

// announce says that requests are served: to programs on standard output, to people on standard error.
func announce(to streams, address string, people []person) {
	alice, ada := people[0].key, people[len(devPeople)-1].key
	_, _ = fmt.Fprintf(to.err, `
noted runs at %[1]s . Open it and sign in as alice, bob, mona (moderator), ada (admin) or somebody else, or try:

  curl -H 'Authorization: Bearer %[2]s' %[1]s/v1/notes

  curl -H 'Authorization: Bearer %[3]s' %[1]s/v1/deadzone

The first lists alice's notes, the second what waits in the Dead Zone, which only ada may see.
Every operation can be tried at %[1]s/docs . Ctrl-C stops; the data stays.

`, address, alice, ada)
	for _, p := range people {
		_, _ = fmt.Fprintf(to.out, "key %s %s\n", p.name, p.key)
	}
	_, _ = fmt.Fprintf(to.out, "ready %s\n", address)
}
