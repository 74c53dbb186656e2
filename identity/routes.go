package identity

import (
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"noted/authz"
)

// These routes are no huma operations: they redirect, take forms and show pages. Each stands here with what the OpenAPI
// document says of it.

// signingIn is the tag of all of them.
var signingIn = []string{"Signing in"}

func response(doc string) *huma.Response { return &huma.Response{Description: doc} }

func queryParam(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func providerParam() *huma.Param {
	return &huma.Param{Name: "provider", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
}

// formBody is a form whose parameters are all needed, but for the optional ones.
func formBody(needed []string, optional ...string) *huma.RequestBody {
	schema := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, Required: needed}
	for _, name := range slices.Concat(optional, needed) {
		schema.Properties[name] = &huma.Schema{Type: huma.TypeString}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: schema}}}
}

const databaseAway = "The database failed or is away"

// RegisterPublic mounts and documents what reads no credential, or looks at one and never fails for it: the list of
// providers, signing in and out, and the endpoints of programs and providers.
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
				queryParam("provider", "Its id; may be left out when there is one alone"),
				queryParam("return_to", "A local path to come back to, of at most 512 bytes; anything else is /"),
				queryParam("login_hint", "Passed on to the provider"),
				queryParam("prompt", "select_account lets the person choose another account at the provider; any other word is passed over"),
			},
			Responses: map[string]*huma.Response{
				"302": response("To the provider"), "404": response("No such provider"), "503": response("The provider cannot be reached"),
			},
		}},
		{router, s.Callback, huma.Operation{
			OperationID: "callback", Method: http.MethodGet, Path: "/auth/callback/{provider}", Summary: "Take the browser back from the provider",
			Parameters: []*huma.Param{
				providerParam(),
				queryParam("code", "From the provider"), queryParam("state", "From the provider"), queryParam("iss", "From the provider (RFC 9207)"),
			},
			Responses: map[string]*huma.Response{
				"303": response("Signed in; back to return_to"), "401": response("Authentication failed"), "404": response("No such provider"),
				"429": response("This address failed too often"), "503": response(databaseAway),
			},
		}},
		{router, s.Logout, huma.Operation{
			OperationID: "logout", Method: http.MethodPost, Path: "/auth/logout", Summary: "End this session",
			Responses: map[string]*huma.Response{
				"204": response("Signed out"), "303": response("Signed out; for browsers, by way of the provider"), "503": response(databaseAway),
			},
		}},
		{forms, s.Token, huma.Operation{
			OperationID: "token", Method: http.MethodPost, Path: "/auth/token", Summary: "Exchange an ID token (RFC 8693) or a device code (RFC 8628) for a session",
			RequestBody: formBody([]string{"grant_type"}, "subject_token", "subject_token_type", "device_code", "client_id"),
			Responses: map[string]*huma.Response{
				"200": answer("A new session", TokenAnswer{}), "400": response("An error of OAuth's; the same for every credential that does not hold"),
				"429": response("This address failed too often"), "503": response(databaseAway),
			},
		}},
		{forms, s.StartDevice, huma.Operation{
			OperationID: "start-device", Method: http.MethodPost, Path: "/auth/device", Summary: "Begin a device login (RFC 8628)",
			RequestBody: formBody([]string{"client_id"}),
			Responses: map[string]*huma.Response{
				"200": answer("Show the code, then poll /auth/token", DeviceAnswer{}), "400": response("An error of OAuth's"),
				"429": response("This address starts too many, or 20 of its wait to be approved"), "503": response(databaseAway),
			},
		}},
		{forms, s.BackchannelLogout, huma.Operation{
			OperationID: "backchannel-logout", Method: http.MethodPost, Path: "/auth/backchannel-logout/{provider}",
			Summary:     "A provider ends sessions (OpenID Connect Back-Channel Logout 1.0)",
			Parameters:  []*huma.Param{providerParam()},
			RequestBody: formBody([]string{"logout_token"}),
			Responses: map[string]*huma.Response{
				"200": response("Ended, or nothing to end"), "400": response("The token does not hold"), "404": response("No such provider"), "503": response(databaseAway),
			},
		}},
	} {
		one.says.Tags = signingIn
		document.AddOperation(&one.says)
		one.on.Method(one.says.Method, one.says.Path, one.handler)
	}
}

// RegisterPages declares, mounts and documents the pages and forms for people whose session began in a browser: a
// device's, and the form that confirms a link.
func (s *Service) RegisterPages(api *authz.API, document *huma.OpenAPI, router chi.Router) {
	pages := router.With(s.SignedIn)
	for _, one := range []struct {
		handler http.HandlerFunc
		says    huma.Operation
	}{
		{s.ShowDevice, huma.Operation{
			OperationID: "show-device", Method: http.MethodGet, Path: "/auth/device", Summary: "The page where a person lets a device in",
			Parameters: []*huma.Param{queryParam("user_code", "Shown by the device")},
			Responses: map[string]*huma.Response{
				"200": response("The page"), "303": response("A stranger's browser: to sign in and back"), "404": response("No device waits with this code"),
				"429": response("Too many wrong codes"),
			},
		}},
		{s.ConfirmDevice, huma.Operation{
			OperationID: "confirm-device", Method: http.MethodPost, Path: "/auth/device/confirm", Summary: "Approve or deny a device",
			RequestBody: formBody([]string{"user_code", "decision"}),
			Responses: map[string]*huma.Response{
				"200": response("Decided"), "404": response("No device waits with this code"), "422": response("decision is neither approve nor deny"),
				"429": response("Too many wrong codes"),
			},
		}},
		{s.ConfirmLink, huma.Operation{
			OperationID: "confirm-link", Method: http.MethodPost, Path: "/auth/link/confirm", Summary: "Confirm a linked sign-in",
			RequestBody: formBody([]string{"code"}),
			Responses: map[string]*huma.Response{
				"303": response("Linked"), "409": response("Nothing to confirm, or another account's"),
			},
		}},
	} {
		page := &one.says
		page.Tags, page.Security = signingIn, []map[string][]string{{"bearer": {}}, {"cookie": {}}}
		page.Description = "Needs `" + writeIdentity.String() + "`, by a session that began with a sign-in in a browser."
		page.Extensions = map[string]any{"x-permission": writeIdentity.String()}
		maps.Copy(page.Responses, map[string]*huma.Response{
			"401": response("Authentication failed"), "403": response("By a key or a derived session, or from another site"), "503": response(databaseAway),
		})
		document.AddOperation(page)
		api.DeclarePage(page.Method, page.Path, writeIdentity)
		pages.Method(page.Method, page.Path, byBrowser(writeIdentity, s.Forms(one.handler).ServeHTTP))
	}
}
