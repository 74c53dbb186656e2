package identity

import (
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"noted/authz"
	"noted/internal/openapi"
)

// These routes are not huma operations: they redirect, take forms and show pages. Each is listed here with its entry in
// the OpenAPI document.

// signingIn is their tag.
var signingIn = []string{"Signing in"}

func response(doc string) *huma.Response { return &huma.Response{Description: doc} }

func away(doc string) *huma.Response {
	return &huma.Response{Description: doc, Headers: map[string]*huma.Param{
		"Location": {Description: "Where to go on", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
	}}
}

func pageResponse(doc string) *huma.Response {
	return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"text/html": openapi.Page()}}
}

func queryParam(name, doc, example string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{example}}}
}

// providerParam is a path's provider.
func (s *Service) providerParam() *huma.Param {
	return &huma.Param{
		Name: "provider", In: "path", Required: true, Description: "Its id; /auth/providers lists them", Example: s.exampleProvider(),
		Schema: &huma.Schema{Type: huma.TypeString},
	}
}

// exampleProvider is this server's first provider.
func (s *Service) exampleProvider() string {
	if len(s.config.Providers) == 0 {
		return "google"
	}
	return s.config.Providers[0].ID
}

// formBody returns a form. members are pairs of a name and an example, which may be "". The first are required.
func formBody(needed int, members ...string) *huma.RequestBody {
	schema := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}}
	for member := range slices.Chunk(members, 2) {
		schema.Properties[member[0]] = &huma.Schema{Type: huma.TypeString}
		if member[1] != "" {
			schema.Properties[member[0]].Examples = []any{member[1]}
		}
		if len(schema.Required) < needed {
			schema.Required = append(schema.Required, member[0])
		}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: schema}}}
}

// RegisterPublic mounts and documents the routes that read no credential, or never fail for one: the list of
// providers, signing in and out, and the endpoints for programs and providers.
func (s *Service) RegisterPublic(api huma.API, router chi.Router) {
	huma.Register(api, huma.Operation{
		OperationID: "list-providers", Method: http.MethodGet, Path: "/auth/providers", Summary: "Where people may sign in", Tags: signingIn,
	}, s.providers)
	document, forms := api.OpenAPI(), router.With(s.Forms)
	answer := func(doc string, of any) *huma.Response {
		schema := document.Components.Schemas.Schema(reflect.TypeOf(of), true, "")
		return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	for _, one := range []struct {
		on      chi.Router
		handler http.HandlerFunc
		says    huma.Operation
	}{
		{router, s.Login, huma.Operation{
			OperationID: "login", Method: http.MethodGet, Path: "/auth/login", Summary: "Send the browser to a provider",
			Parameters: []*huma.Param{
				queryParam("provider", "Its id; may be left out when there is one alone", s.exampleProvider()),
				queryParam("return_to", "A local path to come back to, of at most 512 bytes; anything else is /", "/docs"),
				queryParam("login_hint", "Passed on to the provider", "alice"),
				queryParam("prompt", "select_account lets the person choose another account at the provider; any other word is passed over", "select_account"),
			},
			Responses: map[string]*huma.Response{"302": away("To the provider")},
			Errors:    []int{http.StatusNotFound, http.StatusServiceUnavailable},
		}},
		{router, s.Callback, huma.Operation{
			OperationID: "callback", Method: http.MethodGet, Path: "/auth/callback/{provider}", Summary: "Take the browser back from the provider",
			Parameters: []*huma.Param{
				s.providerParam(), queryParam("code", "From the provider", "SplxlOBeZQQYbYS6WxSbIA"), queryParam("state", "From the provider", "af0ifjsldkj"),
				queryParam("iss", "From the provider (RFC 9207)", "https://accounts.google.com"),
			},
			Responses: map[string]*huma.Response{
				"200": pageResponse("Of a linking: the page that names both sign-ins"), "303": away("Signed in; back to return_to"),
			},
			Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable},
		}},
		{router, s.Logout, huma.Operation{
			OperationID: "logout", Method: http.MethodPost, Path: "/auth/logout", Summary: "End this session",
			Responses: map[string]*huma.Response{"204": response("Signed out"), "303": away("Signed out; for browsers, by way of the provider")},
			Errors:    []int{http.StatusServiceUnavailable},
		}},
		{forms, s.Token, huma.Operation{
			OperationID: "token", Method: http.MethodPost, Path: "/auth/token", Summary: "Exchange an ID token (RFC 8693) or a device code (RFC 8628) for a session",
			RequestBody: formBody(1, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
				"client_id", "noted-cli", "subject_token", "", "subject_token_type", ""),
			Responses: map[string]*huma.Response{
				"200": answer("A new session", TokenAnswer{}),
				"400": answer("An error of OAuth's; the same for every credential that does not hold", OAuthError{}),
			},
		}},
		{forms, s.StartDevice, huma.Operation{
			OperationID: "start-device", Method: http.MethodPost, Path: "/auth/device", Summary: "Begin a device login (RFC 8628)",
			RequestBody: formBody(1, "client_id", "noted-cli"),
			Responses: map[string]*huma.Response{
				"200": answer("Show the code, then poll /auth/token", DeviceAnswer{}), "400": answer("An error of OAuth's", OAuthError{}),
			},
		}},
		{forms, s.BackchannelLogout, huma.Operation{
			OperationID: "backchannel-logout", Method: http.MethodPost, Path: "/auth/backchannel-logout/{provider}",
			Summary:     "A provider ends sessions (OpenID Connect Back-Channel Logout 1.0)",
			Parameters:  []*huma.Param{s.providerParam()},
			RequestBody: formBody(1, "logout_token", "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"),
			Responses:   map[string]*huma.Response{"200": response("Ended, or nothing to end")},
		}},
	} {
		one.says.Tags, one.says.Metadata = signingIn, map[string]any{openapi.Plain: true}
		document.AddOperation(&one.says)
		one.on.Method(one.says.Method, one.says.Path, one.handler)
	}
}

// RegisterPages declares, mounts and documents the pages and forms for people whose session began in a browser: those
// for devices, and the form that confirms a link.
func (s *Service) RegisterPages(api *authz.API, document *huma.OpenAPI, router chi.Router) {
	pages := router.With(s.SignedIn)
	for _, one := range []struct {
		handler http.HandlerFunc
		says    huma.Operation
	}{
		{s.ShowDevice, huma.Operation{
			OperationID: "show-device", Method: http.MethodGet, Path: "/auth/device", Summary: "The page where a person lets a device in",
			Parameters: []*huma.Param{queryParam("user_code", "Shown by the device", "WDJB-MJHT")},
			Responses:  map[string]*huma.Response{"200": pageResponse("The page"), "303": away("A stranger's browser: to sign in and back")},
			Errors:     []int{http.StatusNotFound},
		}},
		{s.ConfirmDevice, huma.Operation{
			OperationID: "confirm-device", Method: http.MethodPost, Path: "/auth/device/confirm", Summary: "Approve or deny a device",
			RequestBody: formBody(2, "user_code", "WDJB-MJHT", "decision", "approve"),
			Responses:   map[string]*huma.Response{"200": pageResponse("Decided")},
			Errors:      []int{http.StatusNotFound, http.StatusUnprocessableEntity},
		}},
		{s.ConfirmLink, huma.Operation{
			OperationID: "confirm-link", Method: http.MethodPost, Path: "/auth/link/confirm", Summary: "Confirm a linked sign-in",
			RequestBody: formBody(1, "code", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
			Responses:   map[string]*huma.Response{"303": away("Linked")},
			Errors:      []int{http.StatusConflict},
		}},
	} {
		page := &one.says
		page.Tags, page.Metadata, page.Security = signingIn, map[string]any{openapi.Plain: true}, []map[string][]string{{"bearer": {}}, {"cookie": {}}}
		page.Description = "Needs `" + writeIdentity.String() + "`, by a session that began with a sign-in in a browser."
		page.Extensions = map[string]any{"x-permission": writeIdentity.String()}
		document.AddOperation(page)
		api.DeclarePage(page.Method, page.Path, writeIdentity)
		pages.Method(page.Method, page.Path, byBrowser(writeIdentity, s.Forms(one.handler).ServeHTTP))
	}
	// The only example of a body that differs between servers.
	document.Paths["/v1/me/identities"].Post.RequestBody.Content["application/json"].Example = map[string]any{"provider": s.exampleProvider()}
}
