package server

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"noted/internal/migrate"
	"noted/internal/openapi"
	"noted/internal/problem"
)

// hookOnce points huma's global error hooks here, before the first API is made.
var hookOnce = sync.OnceFunc(problem.Huma)

type statusOutput struct{ Body Status }

// Status is the answer of /healthz.
type Status struct {
	Status string `json:"status" example:"ok"`
}

type readyOutput struct{ Body Readiness }

// Readiness is the answer of /readyz.
type Readiness struct {
	Status     string `json:"status" example:"ready"`
	Database   string `json:"database" enum:"read-write,read-only" doc:"read-only: what reads is served, what writes gets 503"`
	Policy     string `json:"policy" doc:"The hash of the policy in force"`
	Migrations int64  `json:"migrations" doc:"The schema's version"`
}

type versionOutput struct{ Body Version }

// Version is the answer of /version.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// registerPublic declares the operations about the process itself.
func (s *Server) registerPublic(api huma.API) {
	tags := []string{"The server"}
	huma.Register(api, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/healthz", Summary: "Whether the process runs", Tags: tags,
	}, func(context.Context, *struct{}) (*statusOutput, error) {
		out := &statusOutput{}
		out.Body.Status = "ok"
		return out, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/readyz", Summary: "Whether requests can be served", Tags: tags,
		Errors: []int{http.StatusServiceUnavailable},
	}, s.ready)
	huma.Register(api, huma.Operation{
		OperationID: "version", Method: http.MethodGet, Path: "/version", Summary: "Which noted this is", Tags: tags,
	}, func(context.Context, *struct{}) (*versionOutput, error) {
		out := &versionOutput{}
		out.Body.Version, out.Body.Go = s.options.Version, runtime.Version()
		return out, nil
	})
	if s.options.Dev {
		s.router.Method(http.MethodGet, "/metrics", s.metricsHandler())
	}
	s.router.Get("/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		body, err := s.Document()
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

// Document is the OpenAPI document, as /openapi.json serves it.
func (s *Server) Document() ([]byte, error) { return s.openapiText() }

// ready asks the database whether it answers and has the schema that this binary was made for.
func (s *Server) ready(ctx context.Context, _ *struct{}) (*readyOutput, error) {
	if s.draining.Load() {
		return nil, problem.New(http.StatusServiceUnavailable, "The server is stopping")
	}
	out := &readyOutput{}
	found, err := s.readiness.ask(ctx)
	if err != nil {
		s.options.Log.LogAttrs(ctx, slog.LevelError, "not ready", slog.Any("error", err))
		return nil, problem.New(http.StatusServiceUnavailable, "The database cannot be reached")
	}
	out.Body.Database, out.Body.Migrations = "read-write", found.schema
	if found.readOnly {
		out.Body.Database = "read-only"
	}
	if out.Body.Migrations != migrate.Version() {
		return nil, problem.New(http.StatusServiceUnavailable, "The database has schema version %d, this binary needs %d", out.Body.Migrations, migrate.Version())
	}
	out.Body.Status, out.Body.Policy = "ready", s.options.Policy.Policy().Hash
	return out, nil
}

// document finishes the OpenAPI document; all operations are in it by now.
func (s *Server) document() {
	if s.options.Hosts != nil {
		openapi.AddProblem(s.openapi, http.StatusMisdirectedRequest)
	}
	openapi.Finish(s.openapi)
}
