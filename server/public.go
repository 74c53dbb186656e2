package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"runtime"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"noted/identity"
	"noted/internal/migrate"
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
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(s.openapi) })
	s.router.Get("/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		body, err := document()
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

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

// document adds to the OpenAPI document what is no huma operation: redirects and forms.
func (s *Server) document() {
	// huma cannot say that a member which is an object may be null.
	for _, member := range []struct{ schema, name string }{{"Me", "key"}, {"Item", "actor"}, {"Item", "via"}, {"ExplainOutputBody", "missing"}} {
		properties := s.openapi.Components.Schemas.Map()[member.schema].Properties
		properties[member.name] = &huma.Schema{OneOf: []*huma.Schema{properties[member.name], {Type: "null"}}}
	}
	tags := []string{"Signing in"}
	query := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	plain := func(doc string) *huma.Response { return &huma.Response{Description: doc} }
	away := plain("The database failed or is away")
	s.openapi.AddOperation(&huma.Operation{
		OperationID: "login", Method: http.MethodGet, Path: "/auth/login", Summary: "Send the browser to a provider", Tags: tags,
		Parameters: []*huma.Param{
			query("provider", "Its id; may be left out when there is one alone"),
			query("return_to", "A local path to come back to, of at most 512 bytes; anything else is /"),
			query("login_hint", "Passed on to the provider"),
			query("prompt", "select_account lets the person choose another account at the provider; any other word is passed over"),
		},
		Responses: map[string]*huma.Response{
			"302": plain("To the provider"), "404": plain("No such provider"), "503": plain("The provider cannot be reached"),
		},
	})
	s.openapi.AddOperation(&huma.Operation{
		OperationID: "callback", Method: http.MethodGet, Path: "/auth/callback/{provider}", Summary: "Take the browser back from the provider", Tags: tags,
		Parameters: []*huma.Param{
			{Name: "provider", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
			query("code", "From the provider"), query("state", "From the provider"), query("iss", "From the provider (RFC 9207)"),
		},
		Responses: map[string]*huma.Response{
			"303": plain("Signed in; back to return_to"), "401": plain("Authentication failed"), "404": plain("No such provider"),
			"429": plain("This address failed too often"), "503": away,
		},
	})
	s.openapi.AddOperation(&huma.Operation{
		OperationID: "logout", Method: http.MethodPost, Path: "/auth/logout", Summary: "End this session", Tags: tags,
		Responses: map[string]*huma.Response{
			"204": plain("Signed out"), "303": plain("Signed out; for browsers, by way of the provider"), "503": away,
		},
	})
	form := func(names ...string) *huma.RequestBody {
		schema := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, Required: names}
		for _, name := range names {
			schema.Properties[name] = &huma.Schema{Type: huma.TypeString}
		}
		return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: schema}}}
	}
	answer := func(doc string, of any) *huma.Response {
		schema := s.openapi.Components.Schemas.Schema(reflect.TypeOf(of), true, "")
		return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	token := form("grant_type")
	for _, name := range []string{"subject_token", "subject_token_type", "device_code", "client_id"} {
		token.Content["application/x-www-form-urlencoded"].Schema.Properties[name] = &huma.Schema{Type: huma.TypeString}
	}
	s.openapi.AddOperation(&huma.Operation{
		OperationID: "token", Method: http.MethodPost, Path: "/auth/token", Summary: "Exchange an ID token (RFC 8693) or a device code (RFC 8628) for a session", Tags: tags,
		RequestBody: token,
		Responses: map[string]*huma.Response{
			"200": answer("A new session", identity.TokenAnswer{}), "400": plain("An error of OAuth's; the same for every credential that does not hold"), "429": plain("This address failed too often"), "503": away,
		},
	})
	s.openapi.AddOperation(&huma.Operation{
		OperationID: "start-device", Method: http.MethodPost, Path: "/auth/device", Summary: "Begin a device login (RFC 8628)", Tags: tags,
		RequestBody: form("client_id"),
		Responses: map[string]*huma.Response{
			"200": answer("Show the code, then poll /auth/token", identity.DeviceAnswer{}), "400": plain("An error of OAuth's"), "429": plain("This address starts too many, or 20 of its wait to be approved"), "503": away,
		},
	})
	backchannel := &huma.Operation{
		OperationID: "backchannel-logout", Method: http.MethodPost, Path: "/auth/backchannel-logout/{provider}", Summary: "A provider ends sessions (OpenID Connect Back-Channel Logout 1.0)", Tags: tags,
		Parameters:  []*huma.Param{{Name: "provider", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}},
		RequestBody: form("logout_token"),
		Responses:   map[string]*huma.Response{"200": plain("Ended, or nothing to end"), "400": plain("The token does not hold"), "404": plain("No such provider"), "503": away},
	}
	s.openapi.AddOperation(backchannel)
	for _, page := range []*huma.Operation{
		{
			OperationID: "show-device", Method: http.MethodGet, Path: "/auth/device", Summary: "The page where a person lets a device in",
			Parameters: []*huma.Param{query("user_code", "Shown by the device")},
			Responses:  map[string]*huma.Response{"200": plain("The page"), "303": plain("A stranger's browser: to sign in and back"), "404": plain("No device waits with this code")},
		},
		{
			OperationID: "confirm-device", Method: http.MethodPost, Path: "/auth/device/confirm", Summary: "Approve or deny a device", RequestBody: form("user_code", "decision"),
			Responses: map[string]*huma.Response{"200": plain("Decided"), "404": plain("No device waits with this code"), "422": plain("decision is neither approve nor deny")},
		},
		{
			OperationID: "confirm-link", Method: http.MethodPost, Path: "/auth/link/confirm", Summary: "Confirm a linked sign-in", RequestBody: form("code"),
			Responses: map[string]*huma.Response{"303": plain("Linked"), "409": plain("Nothing to confirm, or another account's")},
		},
	} {
		page.Tags, page.Security = tags, []map[string][]string{{"bearer": {}}, {"cookie": {}}}
		page.Description = "Needs `identity:own write`, by a session that began with a sign-in in a browser."
		page.Extensions = map[string]any{"x-permission": "identity:own write"}
		page.Responses["401"], page.Responses["403"] = plain("Authentication failed"), plain("By a key or a derived session, or from another site")
		page.Responses["429"], page.Responses["503"] = plain("Too many wrong codes"), away
		if page.OperationID == "confirm-link" {
			delete(page.Responses, "429")
		}
		s.openapi.AddOperation(page)
	}
}
