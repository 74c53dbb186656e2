package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"noted/identity"
	"noted/internal/bodies"
	"noted/internal/problem"
	"noted/internal/request"
)

// metrics are the server's; rooms register their own.
type metrics struct {
	log      *slog.Logger
	requests *prometheus.HistogramVec
	inFlight prometheus.Gauge
	failures *prometheus.CounterVec
	signIns  *prometheus.CounterVec
}

// newMetrics registers the metrics. Every label of a counter exists from the start, at 0: one that first appears
// with its first event would show no rate.
func newMetrics(registry prometheus.Registerer, log *slog.Logger, version string, pool *pgxpool.Pool, turns *turns) metrics {
	m := metrics{
		log: log,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "noted_http_request_duration_seconds", Help: "Answered requests by route and status.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method", "route", "status"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "noted_http_requests_in_flight", Help: "Requests that are being answered.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "noted_auth_failures_total", Help: "Failed authentications by reason.",
		}, []string{"reason"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "noted_sign_ins_total", Help: "Sign-ins that came to an end, by way and outcome.",
		}, []string{"way", "outcome"}),
	}
	for _, reason := range identity.Reasons {
		m.failures.WithLabelValues(string(reason))
	}
	for _, way := range identity.Ways {
		m.signIns.WithLabelValues(string(way), outcome(true))
		m.signIns.WithLabelValues(string(way), outcome(false))
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "noted_build_info", Help: "1: which noted this is, and by which Go it was built.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	info.Set(1)
	registry.MustRegister(m.requests, m.inFlight, m.failures, m.signIns, info)
	registerPool(registry, pool, turns)
	return m
}

func outcome(success bool) string {
	if success {
		return "success"
	}
	return "failure"
}

// registerPool shows the database connections: a full pool makes requests wait.
func registerPool(registry prometheus.Registerer, pool *pgxpool.Pool, turns *turns) {
	gauge := func(name, help string, value func(*pgxpool.Stat) int32) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(pool.Stat())) }))
	}
	gauge("noted_db_connections_acquired", "Connections to the database that are at work.", (*pgxpool.Stat).AcquiredConns)
	gauge("noted_db_connections_idle", "Connections to the database that wait for work.", (*pgxpool.Stat).IdleConns)
	gauge("noted_db_connections_max", "How many connections there may be.", (*pgxpool.Stat).MaxConns)
	registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "noted_db_waits_total", Help: "How often work had to wait for a connection.",
		}, func() float64 { return float64(pool.Stat().EmptyAcquireCount() + turns.waits.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "noted_db_wait_seconds_total", Help: "How long work had to wait for connections.",
		}, func() float64 {
			return (pool.Stat().EmptyAcquireWaitTime() + time.Duration(turns.waited.Load())).Seconds()
		}),
	)
}

// arrive gives each request its id, its client's address and its logger. It trusts no header but X-Forwarded-For
// from a trusted proxy, which chi's middleware has already read. The request ends after timeout, plus the time
// that its body may take.
func arrive(log *slog.Logger, timeout time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ip, err := netip.ParseAddr(middleware.GetClientIP(r.Context()))
			if err != nil { // a proxy's own request, or a garbage header: the peer is still known
				peer, _ := netip.ParseAddrPort(r.RemoteAddr)
				ip = peer.Addr().Unmap()
			}
			info := request.New(r, ip, log)
			w.Header().Set("X-Request-Id", info.ID)
			// A hanging database must not hold requests forever.
			limit := timeout
			if r.ContentLength != 0 {
				limit += bodies.Whole
			}
			ctx, cancel := context.WithTimeout(request.With(r.Context(), info), limit)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// securityHeaders sets the headers of every answer (OWASP's list for APIs and pages). A page may set another
// policy.
func securityHeaders(https bool) func(http.Handler) http.Handler {
	always := map[string][]string{ // canonical names; shared among requests, so never written to
		"Content-Security-Policy":      {"default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"},
		"X-Content-Type-Options":       {"nosniff"},
		"X-Frame-Options":              {"DENY"},
		"Referrer-Policy":              {"same-origin"}, // with no-referrer, browsers would send Origin: null with our own forms
		"Cross-Origin-Opener-Policy":   {"same-origin"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
	}
	if https {
		always["Strict-Transport-Security"] = []string{"max-age=31536000"}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			maps.Copy(h, always)
			if strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/auth/") {
				h.Set("Cache-Control", "no-store")
			}
			next.ServeHTTP(w, r)
		})
	}
}

// observe logs and counts each request by its route's pattern, never by its path, query or headers: those contain
// ids, codes and credentials.
func (m metrics) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		m.inFlight.Inc()
		defer m.inFlight.Dec() // even if a handler aborts
		next.ServeHTTP(recorded, r)
		info := request.From(r.Context())
		took := time.Since(info.Arrived)
		status := recorded.Status()
		if status == 0 {
			status = http.StatusOK
		}
		route := chi.RouteContext(r.Context()).RoutePattern()
		if route == "" || route == "/*" {
			route = "unknown"
		}
		method := r.Method
		if !slices.Contains(methods, method) {
			method = "other"
		}
		m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
		level := slog.LevelInfo
		if route == "/healthz" || route == "/readyz" || route == "/metrics" {
			level = slog.LevelDebug
		}
		m.log.LogAttrs(r.Context(), level, "request", slog.String("request_id", info.ID),
			slog.String("method", method), slog.String("route", route), slog.Int("status", status),
			slog.Int("bytes", recorded.BytesWritten()), slog.Duration("took", took), slog.String("ip", info.IP.String()))
	})
}

// methods that routes may have.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// recoverer turns a panic into a 500 and a log line with the stack.
func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				request.From(r.Context()).Log().LogAttrs(r.Context(), slog.LevelError, "panic", slog.Any("value", v), slog.String("stack", string(debug.Stack())))
				problem.Write(w, r, fmt.Errorf("panic: %v", v))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses state-changing requests that the browser says are cross-site.
func sameOrigin(publicURL string) (func(http.Handler) http.Handler, error) {
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin(publicURL); err != nil {
		return nil, fmt.Errorf("public_url: %w", err)
	}
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.New(http.StatusForbidden, "A browser sent this from another site; send it from %s", publicURL))
	}))
	return protection.Handler, nil
}

// OnlyFor answers 421 to requests for any host but these; with no hosts, it allows all. If a page elsewhere points
// its name here (DNS rebinding), it is same-origin to the browser; its Host gives it away.
func OnlyFor(hosts []string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if hosts == nil {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !slices.Contains(hosts, strings.ToLower(r.Host)) {
				problem.Write(w, r, problem.New(http.StatusMisdirectedRequest, "This server is not the one that was asked for; it is at http://%s", hosts[0]))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// LoopbackHosts are the names of a server that listens only on this machine, at address: address itself,
// localhost, 127.0.0.1 and [::1], with its port.
func LoopbackHosts(address net.Addr) []string {
	hosts := []string{address.String()}
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return hosts
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		hosts = append(hosts, net.JoinHostPort(name, port))
		if port == "80" { // browsers leave it out
			hosts = append(hosts, strings.TrimSuffix(net.JoinHostPort(name, port), ":80"))
		}
	}
	return hosts
}

// notFound answers unknown routes.
func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.New(http.StatusNotFound, "There is nothing at this address; /docs lists what there is"))
}

// methodNotAllowed answers a route that does not take the method, and lists those it takes (RFC 9110, 15.5.6).
func methodNotAllowed(router chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range methods {
			if router.Match(chi.NewRouteContext(), method, r.URL.Path) {
				allowed = append(allowed, method)
				if method == http.MethodGet {
					allowed = append(allowed, http.MethodHead)
				}
			}
		}
		if allowed == nil { // a method unknown to chi, at an unknown address
			notFound(w, r)
			return
		}
		problem.Write(w, r, problem.New(http.StatusMethodNotAllowed, "This address takes %s", strings.Join(allowed, ", ")).
			With("Allow", strings.Join(allowed, ", ")))
	}
}

// NewLogger writes JSON lines, or text for people. Requests log no path, query or header.
func NewLogger(out io.Writer, levelName string, json bool) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(levelName)) // checked by the enum
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}

// background runs work until ctx ends; Close waits for it.
type background struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// run starts work that ends with ctx. Work may start more.
func (b *background) run(ctx context.Context, work func(context.Context)) {
	b.group.Go(func() { work(ctx) })
}

func (b *background) stop() {
	b.cancel()
	b.group.Wait()
}
