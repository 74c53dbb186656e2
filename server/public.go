package server

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"noted/identity"
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
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out := &readyOutput{}
	err := s.Pool.QueryRow(ctx, `select coalesce(max(version_id), 0) from goose_db_version`).Scan(&out.Body.Migrations)
	if err != nil {
		s.options.Log.LogAttrs(ctx, slog.LevelError, "not ready", slog.Any("error", err))
		return nil, problem.New(http.StatusServiceUnavailable, "The database cannot be reached")
	}
	if out.Body.Migrations != migrate.Version() {
		return nil, problem.New(http.StatusServiceUnavailable, "The database has schema version %d, this binary needs %d", out.Body.Migrations, migrate.Version())
	}
	out.Body.Status, out.Body.Policy = "ready", s.options.Policy.Policy().Hash
	return out, nil
}

// document adds to the OpenAPI document what is no huma operation: redirects, forms and pages.
func (s *Server) document() {
	tags := []string{"Signing in"}
	stays := map[string]any{openapi.Plain: true}
	param := func(in, name, doc, example string) *huma.Param {
		return &huma.Param{Name: name, In: in, Required: in == "path", Description: doc, Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{example}}}
	}
	provider := "google"
	if len(s.options.Providers) > 0 {
		provider = s.options.Providers[0].ID
	}
	inPath := param("path", "provider", "Its id; /auth/providers lists them", provider)
	inPath.Example = provider
	none := func(doc string) *huma.Response { return &huma.Response{Description: doc} }
	page := func(doc string) *huma.Response {
		return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"text/html": openapi.Page()}}
	}
	away := func(doc string) *huma.Response {
		return &huma.Response{Description: doc, Headers: map[string]*huma.Param{
			"Location": {Description: "Where to go on", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
		}}
	}
	answer := func(doc string, of any) *huma.Response {
		schema := s.openapi.Components.Schemas.Schema(reflect.TypeOf(of), true, "")
		return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	// A form's members are pairs: name, example or nothing. The first ones are required.
	form := func(required int, members ...string) *huma.RequestBody {
		schema := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}}
		for member := range slices.Chunk(members, 2) {
			schema.Properties[member[0]] = &huma.Schema{Type: huma.TypeString}
			if member[1] != "" {
				schema.Properties[member[0]].Examples = []any{member[1]}
			}
			if len(schema.Required) < required {
				schema.Required = append(schema.Required, member[0])
			}
		}
		return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: schema}}}
	}
	for _, op := range []*huma.Operation{
		{
			OperationID: "login", Method: http.MethodGet, Path: "/auth/login", Summary: "Send the browser to a provider",
			Parameters: []*huma.Param{
				param("query", "provider", "Its id; may be left out when there is one alone", provider),
				param("query", "return_to", "A local path to come back to, of at most 512 bytes; anything else is /", "/docs"),
				param("query", "login_hint", "Passed on to the provider", "alice"),
				param("query", "prompt", "select_account lets the person choose another account at the provider; any other word is passed over", "select_account"),
			},
			Responses: map[string]*huma.Response{"302": away("To the provider")},
			Errors:    []int{http.StatusNotFound, http.StatusServiceUnavailable},
		},
		{
			OperationID: "callback", Method: http.MethodGet, Path: "/auth/callback/{provider}", Summary: "Take the browser back from the provider",
			Parameters: []*huma.Param{
				inPath, param("query", "code", "From the provider", "SplxlOBeZQQYbYS6WxSbIA"), param("query", "state", "From the provider", "af0ifjsldkj"),
				param("query", "iss", "From the provider (RFC 9207)", "https://accounts.google.com"),
			},
			Responses: map[string]*huma.Response{
				"200": page("Of a linking: the page that names both sign-ins"), "303": away("Signed in; back to return_to"),
			},
			Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable},
		},
		{
			OperationID: "logout", Method: http.MethodPost, Path: "/auth/logout", Summary: "End this session",
			Responses: map[string]*huma.Response{"204": none("Signed out"), "303": away("Signed out; for browsers, by way of the provider")},
			Errors:    []int{http.StatusServiceUnavailable},
		},
		{
			OperationID: "token", Method: http.MethodPost, Path: "/auth/token", Summary: "Exchange an ID token (RFC 8693) or a device code (RFC 8628) for a session",
			RequestBody: form(1, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS", "client_id", "noted-cli",
				"subject_token", "", "subject_token_type", ""),
			Responses: map[string]*huma.Response{
				"200": answer("A new session", identity.TokenAnswer{}),
				"400": answer("An error of OAuth's; the same for every credential that does not hold", identity.OAuthError{}),
			},
		},
		{
			OperationID: "start-device", Method: http.MethodPost, Path: "/auth/device", Summary: "Begin a device login (RFC 8628)",
			RequestBody: form(1, "client_id", "noted-cli"),
			Responses: map[string]*huma.Response{
				"200": answer("Show the code, then poll /auth/token", identity.DeviceAnswer{}), "400": answer("An error of OAuth's", identity.OAuthError{}),
			},
		},
		{
			OperationID: "backchannel-logout", Method: http.MethodPost, Path: "/auth/backchannel-logout/{provider}", Summary: "A provider ends sessions (OpenID Connect Back-Channel Logout 1.0)",
			Parameters: []*huma.Param{inPath}, RequestBody: form(1, "logout_token", "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"),
			Responses: map[string]*huma.Response{"200": none("Ended, or nothing to end")},
		},
		{
			OperationID: "show-device", Method: http.MethodGet, Path: "/auth/device", Summary: "The page where a person lets a device in",
			Parameters: []*huma.Param{param("query", "user_code", "Shown by the device", "WDJB-MJHT")}, Security: signedIn,
			Responses: map[string]*huma.Response{"200": page("The page"), "303": away("A stranger's browser: to sign in and back")},
			Errors:    []int{http.StatusNotFound},
		},
		{
			OperationID: "confirm-device", Method: http.MethodPost, Path: "/auth/device/confirm", Summary: "Approve or deny a device", Security: signedIn,
			RequestBody: form(2, "user_code", "WDJB-MJHT", "decision", "approve"),
			Responses:   map[string]*huma.Response{"200": page("Decided")}, Errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		},
		{
			OperationID: "confirm-link", Method: http.MethodPost, Path: "/auth/link/confirm", Summary: "Confirm a linked sign-in", Security: signedIn,
			RequestBody: form(1, "code", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
			Responses:   map[string]*huma.Response{"303": away("Linked")}, Errors: []int{http.StatusConflict},
		},
	} {
		op.Tags, op.Metadata = tags, stays
		if op.Security != nil {
			op.Description = "Needs `identity:own write`, by a session that began with a sign-in in a browser."
			op.Extensions = map[string]any{"x-permission": "identity:own write"}
		}
		s.openapi.AddOperation(op)
	}
	// The one example that is another on each server.
	s.openapi.Paths["/v1/me/identities"].Post.RequestBody.Content["application/json"].Example = map[string]any{"provider": provider}
	if s.options.Hosts != nil {
		openapi.AddProblem(s.openapi, http.StatusMisdirectedRequest)
	}
	openapi.Finish(s.openapi)
}

// signedIn is the security of a page that needs a session.
var signedIn = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
