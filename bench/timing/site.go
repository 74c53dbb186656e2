package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"noted"
	"noted/internal/devidp"
	"noted/internal/localpg"
)

const (
	clientID     = "noted"
	clientSecret = "for this run"
	readyLimit   = time.Minute
	endLimit     = 30 * time.Second
)

// replica is one noted of several that share a database.
type replica struct{ address, metrics, log string }

// site is all around noted: a database, a provider and an operator's files. close removes it all.
type site struct {
	dir      string // everything but the database
	replicas []replica
	issuer   string
	provider *devidp.Provider
	issuing  *httptest.Server
	database *localpg.Server
}

// open builds noted and sets up the replicas, each with the given number of database connections. Close the site
// even after an error.
func open(ctx context.Context, replicas, connections int) (s *site, err error) {
	s = &site{}
	if s.dir, err = os.MkdirTemp("", "noted-timing-"); err != nil {
		return s, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", s.binary(), "noted/cmd/noted") //nolint:gosec // our own folder
	if out, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("building noted: %w\n%s", err, out)
	}
	// As in production, commits wait for the disk. Each replica has one more connection, which listens.
	s.database, err = localpg.Start(ctx, localpg.Options{
		Durable:  true,
		Settings: map[string]string{"max_connections": strconv.Itoa(replicas*(connections+1) + 10)},
	})
	if err != nil {
		return s, err
	}
	addresses, err := freeAddresses(ctx, 2*replicas)
	if err != nil {
		return s, err
	}
	for i := range replicas {
		s.replicas = append(s.replicas, replica{addresses[2*i], addresses[2*i+1], filepath.Join(s.dir, fmt.Sprint("log", i))})
	}
	if err := s.startProvider(); err != nil {
		return s, err
	}
	policy := filepath.Join(s.dir, "policy.csv")
	if err := os.WriteFile(policy, slices.Concat(noted.Policy, []byte("\ng, corp:ada, admin\n")), 0o600); err != nil {
		return s, err
	}
	config := fmt.Sprintf(`public_url: http://%s
database_url: %q
policy: %s
auth_failures_per_minute: 0
providers:
  - id: corp
    issuer: %s
    client_id: %s
    client_secret: %s
    allow_everyone: true
`, s.public(), s.database.URL("postgres")+"&pool_max_conns="+strconv.Itoa(connections), policy, s.issuer, clientID, clientSecret)
	return s, os.WriteFile(s.config(), []byte(config), 0o600)
}

func (s *site) binary() string { return filepath.Join(s.dir, "noted") }
func (s *site) config() string { return filepath.Join(s.dir, "noted.yaml") }

// public is the address for people.
func (s *site) public() string { return s.replicas[0].address }

func (s *site) close() error {
	var err error
	if s.issuing != nil {
		s.issuing.Close()
	}
	if s.database != nil {
		err = s.database.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *site) startProvider() error {
	s.issuing = httptest.NewUnstartedServer(nil)
	s.issuer = "http://" + s.issuing.Listener.Addr().String()
	var people []devidp.Person
	for _, name := range []string{"alice", "bob", "ada"} {
		people = append(people, devidp.Person{Subject: name, Name: name, Email: name + "@corp.example", EmailVerified: true})
	}
	var err error
	s.provider, err = devidp.New(devidp.Config{
		Issuer: s.issuer, ClientID: clientID, ClientSecret: clientSecret, People: people,
		RedirectURIs: []string{"http://" + s.public() + "/auth/callback/corp"},
	})
	if err != nil {
		return err
	}
	s.issuing.Config.Handler = s.provider
	s.issuing.Start()
	return nil
}

// serve runs the replicas with the given floor during work. If one ends, it cancels work's context.
func (s *site) serve(ctx context.Context, floor time.Duration, work func(context.Context) error) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer func() {
		if cause := context.Cause(ctx); cause != nil { // the cause of work's error
			err = cause
		}
		stop(nil)
		running.Wait()
	}()
	for i, r := range s.replicas {
		cmd, err := s.start(ctx, r, floor)
		if err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
		running.Go(func() {
			err := cmd.Wait()
			stop(fmt.Errorf("replica %d ended: %w\n%s", i, err, r.lastWords()))
		})
		if err := r.awaitReady(ctx); err != nil { // the first one makes the tables
			return fmt.Errorf("replica %d: %w", i, err)
		}
	}
	return work(ctx)
}

// start runs one replica until ctx ends.
func (s *site) start(ctx context.Context, r replica, floor time.Duration) (*exec.Cmd, error) {
	log, err := os.Create(r.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()                                                            // noted has its own by then
	cmd := exec.CommandContext(ctx, s.binary(), "serve", "--config", s.config(), //nolint:gosec // just built
		"--listen", r.address, "--metrics-listen", r.metrics, "--auth-failure-floor", floor.String())
	cmd.Dir, cmd.Env = s.dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endLimit // then it is killed
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

func (r replica) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		status, _, err := send(ctx, http.MethodGet, "http://"+r.address+"/readyz", "", nil)
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %d, %w\n%s", status, errors.Join(err, context.Cause(ctx)), r.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastWords returns the end of the log.
func (r replica) lastWords() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// failures returns how often authentication has failed for each reason, as counted by the replicas.
func (s *site) failures(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, r := range s.replicas {
		status, body, err := send(ctx, http.MethodGet, "http://"+r.metrics+"/metrics", "", nil)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("reading the metrics: %d, %w", status, err)
		}
		for line := range strings.Lines(string(body)) {
			rest, found := strings.CutPrefix(line, `noted_auth_failures_total{reason="`)
			if !found {
				continue
			}
			reason, number, _ := strings.Cut(rest, `"}`)
			count, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				return nil, fmt.Errorf("reading the metrics: %w", err)
			}
			counts[reason] += count
		}
	}
	return counts, nil
}

// freeAddresses returns n free addresses on 127.0.0.1. Their ports are below those that the system assigns, so
// that no connection of ours takes one before noted does.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	var err error
	for range 100 + 2*n {
		l, listenErr := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))) //nolint:gosec // no secret
		if listenErr != nil {
			err = listenErr
			continue
		}
		defer l.Close() //nolint:errcheck,gocritic,revive // held until all are found, so that none is found twice
		if addresses = append(addresses, l.Addr().String()); len(addresses) == n {
			return addresses, nil
		}
	}
	return nil, fmt.Errorf("no free addresses: %w", err)
}

// send sends one request, with body as JSON unless it is nil.
func send(ctx context.Context, method, address, token string, body any) (status int, answer []byte, err error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// exchange trades an ID token, then used up, for a session.
func (s *site) exchange(ctx context.Context, form url.Values) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.public()+"/auth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("exchanging an ID token: %s", response.Status)
	}
	return nil
}

// maker gets credentials as people do. After the first error it does nothing more.
type maker struct {
	ctx  context.Context
	site *site
	err  error
}

// do sends a request that must get the given status, and decodes its answer unless into is nil.
func (k *maker) do(method, path, token string, body any, want int, into any) {
	if k.err != nil {
		return
	}
	status, answer, err := send(k.ctx, method, "http://"+k.site.public()+path, token, body)
	if err == nil && status != want {
		err = fmt.Errorf("the status is %d, not %d: %s", status, want, answer)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(answer, into)
	}
	if err != nil {
		k.err = fmt.Errorf("%s %s: %w", method, path, err)
	}
}

// signIn signs somebody in through the provider and returns the session's token.
func (k *maker) signIn(name string) (token string) {
	if k.err != nil {
		return ""
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		k.err = err
		return ""
	}
	browser := &http.Client{Jar: jar}
	r, err := http.NewRequestWithContext(k.ctx, http.MethodGet, "http://"+k.site.public()+"/auth/login?return_to=/version&login_hint="+name, http.NoBody)
	if err != nil {
		k.err = err
		return ""
	}
	response, err := browser.Do(r)
	if err != nil {
		k.err = err
		return ""
	}
	_ = response.Body.Close()
	for _, cookie := range jar.Cookies(response.Request.URL) {
		if cookie.Name == "noted_session" {
			return cookie.Value
		}
	}
	k.err = fmt.Errorf("%s is not signed in: %s at %s", name, response.Status, response.Request.URL.Path)
	return ""
}

// newKey makes an API key with a session.
func (k *maker) newKey(session string) (id, token string) {
	var key struct{ ID, Secret string }
	k.do(http.MethodPost, "/v1/keys", session, map[string]string{"name": "timing"}, http.StatusCreated, &key)
	return key.ID, key.Secret
}

// me returns the id of the signed-in user.
func (k *maker) me(session string) string {
	var me struct{ ID string }
	k.do(http.MethodGet, "/v1/me", session, nil, http.StatusOK, &me)
	return me.ID
}

// current returns a session's id.
func (k *maker) current(session string) string {
	var list struct {
		Items []struct {
			ID      string
			Current bool
		}
	}
	k.do(http.MethodGet, "/v1/me/sessions?limit=200", session, nil, http.StatusOK, &list)
	for _, one := range list.Items {
		if one.Current {
			return one.ID
		}
	}
	k.err = errors.Join(k.err, errors.New("the list of sessions has no current one"))
	return ""
}

// exec runs SQL that no client can: it moves time.
func (k *maker) exec(sql string, args ...any) {
	if k.err != nil {
		return
	}
	conn, err := pgx.Connect(k.ctx, k.site.database.URL("postgres"))
	if err != nil {
		k.err = err
		return
	}
	tag, err := conn.Exec(k.ctx, sql, args...)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%d rows, not 1: %s", tag.RowsAffected(), sql)
	}
	k.err = errors.Join(err, conn.Close(k.ctx))
}
