package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"noted/admin"
	"noted/authz"
	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/bodies"
	"noted/internal/migrate"
	"noted/internal/openapi"
	"noted/internal/pg"
	"noted/internal/problem"
	"noted/internal/strictjson"
	"noted/keys"
	"noted/notes"
	"noted/orgs"
	"noted/web"
)

// Options is what a server is made from.
type Options struct {
	Settings  Settings // checked
	Providers oidc.Providers
	Policy    *authz.InForce
	// Reload asks for a reload of the policy: on a signal or a change of its files.
	Reload  <-chan struct{}
	Log     *slog.Logger
	Version string
	// Dev serves /metrics on the same address.
	Dev bool
	// Migrate makes the database ready; nil for migrate.Up.
	Migrate func(ctx context.Context, url string) error
	// Tracer sees each statement that the pool runs; nil for none.
	Tracer pgx.QueryTracer
	// Hosts are the Host headers that requests may carry; any other gets 421. Nil allows all.
	Hosts []string
	// Around wraps all that is served; nil for nothing. Tests use it to check every answer.
	Around func(http.Handler) http.Handler
}

// Server is noted. Its rooms are open to cmd/noted, which makes the people of `noted dev`.
type Server struct {
	Pool     *pgxpool.Pool
	Identity *identity.Service
	Keys     *keys.Service
	Orgs     *orgs.Service
	Notes    *notes.Service
	Failures *audit.Failures

	options Options
	router  *chi.Mux
	openapi *huma.OpenAPI
	// openapiText is openapi in JSON, made once.
	openapiText func() ([]byte, error)
	registry    *prometheus.Registry
	draining    atomic.Bool
	work        *background

	policyMetrics policyMetrics
	memory        memory
	turns         *turns
	readiness     *readiness
	connections   *connections
}

// publicRoutes read no credential. Any other route must declare a permission, or the start fails.
var publicRoutes = map[string]bool{
	"GET /":                         true, // looks at the session, never fails for it
	"GET /invitation":               true, // looks at the session, never fails for it; the token is in the fragment
	"GET /static/*":                 true,
	"GET /favicon.ico":              true,
	"GET /docs":                     true,
	"GET /docs/*":                   true,
	"GET /openapi.json":             true,
	"GET /healthz":                  true,
	"GET /readyz":                   true,
	"GET /version":                  true,
	"GET /metrics":                  true, // in dev; serve has metrics_listen
	"GET /auth/providers":           true,
	"GET /auth/login":               true,
	"GET /auth/callback/{provider}": true,
	"POST /auth/logout":             true, // looks at the session, never fails for it
	"POST /auth/token":              true,
	"POST /auth/device":             true,

	"POST /auth/backchannel-logout/{provider}": true,
}

// Open migrates the database and wires the rooms. Close it after Run.
func Open(ctx context.Context, options Options) (*Server, error) {
	settings := options.Settings
	ready := options.Migrate
	if ready == nil {
		ready = migrate.Up
	}
	if err := ready(ctx, settings.DatabaseURL); err != nil {
		return nil, err
	}
	pool, turns, err := openPool(ctx, settings, options.Tracer)
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	readiness, err := newReadiness(ctx, settings.DatabaseURL)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("database_url: %w", err)
	}
	s := &Server{
		Pool: pool, turns: turns, readiness: readiness, options: options, registry: prometheus.NewRegistry(), memory: findMemory(os.DirFS("/")),
	}
	if err := s.wire(); err != nil {
		s.closePools()
		return nil, err
	}
	return s, nil
}

// openPool connects. Nothing in between waits longer than bound allows.
func openPool(ctx context.Context, settings Settings, tracer pgx.QueryTracer) (*pgxpool.Pool, *turns, error) {
	config, err := pgxpool.ParseConfig(settings.DatabaseURL)
	if err != nil {
		return nil, nil, err
	}
	plain, err := pgx.ParseConfig(settings.DatabaseURL) // without the pool's own parameters
	if err != nil {
		return nil, nil, err
	}
	if plain.RuntimeParams["pool_max_conns"] == "" {
		config.MaxConns = poolSize
	}
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pg.Types(conn)
		return nil
	}
	turns := bound(config, settings)
	if tracer != nil {
		config.ConnConfig.Tracer = multitracer.New(turns, tracer)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return pool, turns, err
}

func (s *Server) wire() error {
	settings := s.options.Settings
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := newMetrics(s.registry, s.options.Log, s.options.Version, s.Pool, s.turns)
	s.policyMetrics = newPolicyMetrics(s.registry, s.options.Policy)
	s.Failures = audit.NewFailures(s.Pool, s.options.Log, s.registry)
	s.connections = newConnections(s.mostConnections(), s.registry)
	callers, strangers := s.newBudgets()
	s.Keys = keys.New(s.Pool, keys.Config{MaxAge: settings.KeyMaxAge, OwnerMaxAbsence: settings.KeyOwnerMaxAbsence})
	s.Identity = identity.New(s.Pool, s.options.Policy.Policy, s.Keys, identity.Config{
		Providers: s.options.Providers, PublicURL: settings.PublicURL,
		Floor: settings.AuthFailureFloor, FailuresPerMinute: settings.AuthFailuresPerMinute,
		SessionIdle: settings.SessionIdle, SessionAbsolute: settings.SessionAbsolute, GroupMaxAge: settings.GroupMaxAge,
		Pages:  web.Pages(),
		SignIn: func(way identity.Way, success bool) { m.signIns.WithLabelValues(string(way), outcome(success)).Inc() },
		Bodies: callers, Strangers: strangers,
		Orgs: func(ctx context.Context, caller *authz.Principal) ([]identity.MeOrg, error) {
			return s.Orgs.Mine(ctx, caller)
		},
	}, s.Failures, func(reason string) { m.failures.WithLabelValues(reason).Inc() })
	mailer, err := settings.mailer()
	if err != nil {
		return err
	}
	s.Orgs = orgs.New(s.Pool, s.Identity, s.Keys, orgs.Config{
		InvitationLifetime: settings.InvitationLifetime, PerDay: settings.OrgsPerDay, PublicURL: settings.PublicURL, Mail: mailer,
	}, s.options.Log)
	s.Notes = notes.New(s.Pool, s.Identity, s.Orgs, notes.Config{Retention: settings.DeadZoneRetention, PurgeEvery: settings.DeadZonePurgeEvery}, s.options.Log, s.registry)

	router, err := s.newRouter(m)
	if err != nil {
		return err
	}
	s.router = router

	hookOnce()
	config := s.humaConfig()
	s.openapi = config.OpenAPI
	s.openapiText = sync.OnceValues(func() ([]byte, error) { return json.Marshal(s.openapi) })
	public := humachi.New(router, config)
	s.registerPublic(public)
	s.Identity.RegisterPublic(public, router)

	api := authz.NewAPI(humachi.New(router.With(s.Identity.Authenticate), config), callers)
	web.Mount(router, api, s.Identity, s.Orgs)
	s.Identity.Register(api)
	s.Identity.RegisterPages(api, s.openapi, router)
	s.Keys.Register(api, s.Identity)
	s.Orgs.Register(api, s.Notes.EndOf)
	s.Notes.Register(api)
	admin.New(s.Pool, s.Identity, s.Keys, s.Orgs, s.options.Policy).Register(api)
	s.document()
	return errors.Join(api.Err(), checkRoutes(router, api.Declared()))
}

// newRouter is the path of a request up to authentication.
func (s *Server) newRouter(m metrics) (*chi.Mux, error) {
	protect, err := sameOrigin(s.options.Settings.PublicURL)
	if err != nil {
		return nil, err
	}
	clientIP := middleware.ClientIPFromRemoteAddr
	if trusted := s.options.Settings.TrustedProxies; len(trusted) > 0 {
		clientIP = middleware.ClientIPFromXFF(trusted...)
	}
	router := chi.NewRouter()
	router.Use(clientIP, arrive(s.options.Log, s.options.Settings.RequestTimeout), s.sayStopping, problem.Pages(web.Problem), m.observe, recoverer,
		securityHeaders(strings.HasPrefix(s.options.Settings.PublicURL, "https:")), OnlyFor(s.options.Hosts), protect, middleware.GetHead)
	router.NotFound(notFound)
	router.MethodNotAllowed(methodNotAllowed(router))
	return router, nil
}

// checkRoutes refuses a route that is neither public nor declared with a permission, however it was added.
func checkRoutes(router chi.Routes, declared map[string]string) error {
	var errs []error
	err := chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		key := method + " " + route
		if declared[key] == "" && !publicRoutes[key] {
			errs = append(errs, fmt.Errorf("%s declares no permission and is not among the public routes", key))
		}
		if declared[key] != "" && publicRoutes[key] {
			errs = append(errs, fmt.Errorf("%s declares a permission and is among the public routes", key))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// humaConfig is huma without its own pages, hooks and links, and with strict JSON.
func (s *Server) humaConfig() huma.Config {
	config := huma.DefaultConfig("noted", s.options.Version)
	config.Info.Description = "A note-taking backend that a team runs itself. Every operation names the permission it needs."
	config.CreateHooks = nil
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.Formats = map[string]huma.Format{"application/json": strictjson.Format(), "json": strictjson.Format()}
	config.DefaultFormat = "application/json"
	config.RejectUnknownQueryParameters = true
	config.Servers = []*huma.Server{{URL: "/"}}
	openapi.Setup(config.OpenAPI)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "A session token (nsess_…) or an API key (noted_…)"},
		"cookie": {Type: "apiKey", In: "cookie", Name: s.Identity.SessionCookie(), Description: "The session that signing in set"},
	}
	return config
}

// Handler serves everything but metrics_listen.
func (s *Server) Handler() http.Handler { return s.router }

// Run serves on the listener, and metrics on metricsListener unless it is nil, until ctx ends. Then it drains:
// /readyz says 503, no new connections are taken, requests under way get ShutdownGrace to finish and 503 after it,
// and the failures so far are recorded. It returns when all that and the background work is over, at most three
// seconds after ShutdownGrace, whatever the database does.
func (s *Server) Run(ctx context.Context, listener, metricsListener net.Listener) error {
	s.memory.apply(s.options.Log)
	workContext, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.work = &background{cancel: cancel}
	defer s.work.stop()
	s.work.run(inLane(workContext, onNotes), s.Notes.RunPurge)
	s.work.run(workContext, s.tidy)
	s.work.run(workContext, s.Failures.Run)
	s.work.run(workContext, s.rest)
	s.work.run(workContext, s.keepPolicy)
	s.work.run(workContext, func(ctx context.Context) { s.options.Providers.TryDiscovery(ctx, s.options.Log) })
	s.work.run(workContext, func(ctx context.Context) { s.Identity.Listen(ctx, s.options.Log) })

	requests, stopRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopRequests(nil)
	handler := s.Handler()
	if s.options.Around != nil {
		handler = s.options.Around(handler)
	}
	servers := []*http.Server{s.httpServer(requests, handler)}
	servers[0].ConnState = s.connections.follow
	s.connections.Listener = listener
	failed := make(chan error, 2)
	serve := func(server *http.Server, on net.Listener) {
		go func() { failed <- server.Serve(on) }()
	}
	serve(servers[0], s.connections)
	if metricsListener != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", s.metricsHandler())
		servers = append(servers, s.httpServer(requests, mux))
		serve(servers[1], metricsListener)
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	grace, cancelGrace := context.WithTimeout(context.WithoutCancel(ctx), s.options.Settings.ShutdownGrace)
	defer cancelGrace()
	s.draining.Store(true)
	s.options.Log.Info("stopping: finishing requests under way")
	if !s.options.Dev {
		select {
		case <-time.After(drainNotice):
		case <-grace.Done():
		}
	}
	err := shutdown(grace, servers)
	if err != nil {
		s.options.Log.Warn("requests are under way after shutdown_grace; they get 503")
		stopRequests(errStopping)
		s.connections.dropWaiting() // Shutdown takes a connection with nothing sent yet for busy
		last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
		defer cancelLast()
		if err = shutdown(last, servers); err != nil {
			err = fmt.Errorf("requests were cut off after shutdown_grace: %w", err)
			for _, server := range servers {
				err = errors.Join(err, server.Close())
			}
		}
	}
	_ = s.Failures.Flush(grace) // Close handles what is left
	return err
}

// shutdown takes nothing new and waits for requests under way, until ctx ends.
func shutdown(ctx context.Context, servers []*http.Server) error {
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

const (
	// drainNotice is how long /readyz says 503 before the listener closes, so that a load balancer notices.
	// Answers say Connection: close meanwhile, so that few idle connections are left.
	drainNotice = time.Second
	// lastAnswers is how long requests have to answer 503 after shutdown_grace.
	lastAnswers = 2 * time.Second
	// closeTime is how long the database connections have to close politely.
	closeTime = time.Second / 2
)

// errStopping is what requests still under way after shutdown_grace get.
var errStopping = problem.New(http.StatusServiceUnavailable, "The server is stopping; try again in a moment").With("Retry-After", "2")

// sayStopping tells clients that their connection closes after the answer, so that they send their next request
// elsewhere and none on a connection about to close.
func (s *Server) sayStopping(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Close records the failures that still wait, for a second at most, and closes the pool. If the database hangs,
// Close does not wait for it.
func (s *Server) Close() {
	s.Failures.Close()
	s.closePools()
}

func (s *Server) closePools() {
	closed := make(chan struct{})
	go func() {
		s.readiness.pool.Close()
		s.Pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTime):
	}
}

// mostConnections is http_connections, or less if the process may not open so many: a quarter of its descriptors
// is for all else.
func (s *Server) mostConnections() int {
	most := s.options.Settings.HTTPConnections
	if room := descriptors() / 4 * 3; room > 0 && room < most {
		s.options.Log.Warn("the limit of open files allows fewer connections than http_connections", "connections", room)
		return room
	}
	return most
}

// httpServer bounds what a slow or greedy client can hold. Each operation sets its own deadline for reading a
// body. Requests end with ctx.
func (s *Server) httpServer(ctx context.Context, handler http.Handler) *http.Server {
	whole := s.options.Settings.RequestTimeout + bodies.Whole
	return &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       bodies.Whole + 10*time.Second,
		WriteTimeout:      whole + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		// Let our handlers serve OPTIONS * like any other request.
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               32 << 10,
		ErrorLog:                     slog.NewLogLogger(s.options.Log.Handler(), slog.LevelWarn),
	}
}

func (s *Server) metricsHandler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
}

// tidy runs once an hour: it deletes what is no longer needed, and warns of keys that stop soon.
func (s *Server) tidy(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := errors.Join(s.Identity.Tidy(ctx, 1000), s.Orgs.Tidy(ctx, 1000), s.Keys.WarnOfEnds(ctx, s.options.Log)); err != nil && ctx.Err() == nil {
			s.options.Log.LogAttrs(ctx, slog.LevelError, "tidying", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
