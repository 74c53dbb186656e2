package authz_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"noted/authz"
	"noted/internal/bodies"
)

type nothing struct{}

func newAPI() (*authz.API, chi.Routes) {
	router := chi.NewRouter()
	config := huma.DefaultConfig("test", "1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	return authz.NewAPI(humachi.New(router, config), bodies.New(bodies.Limits{}, func(string) {})), router
}

func operation(method, path string) huma.Operation {
	return huma.Operation{OperationID: strings.ToLower(method) + "-it", Method: method, Path: path}
}

func handle(context.Context, *nothing) (*nothing, error) { return &nothing{}, nil }

func handleOn(context.Context, *struct{}, authz.Found[int]) (*nothing, error) {
	return &nothing{}, nil
}

func find(context.Context, *authz.Principal, authz.Place) (authz.Standing, func(context.Context) (int, error), error) {
	return authz.Mine, nil, nil
}

func TestAnOperationThatDeclaresNothingSensibleIsAnErrorAndNoRoute(t *testing.T) {
	get := func(path string) huma.Operation { return operation(http.MethodGet, path) }
	register := func(path string, p authz.Permission) func(*authz.API) {
		return func(a *authz.API) { authz.Register(a, get(path), p, handle) }
	}
	registerKind := func(path string, kind authz.Kind, act authz.Act) func(*authz.API) {
		return func(a *authz.API) { authz.RegisterKind(a, get(path), kind, act, handle) }
	}
	registerOn := func(path string, kind authz.Kind, act authz.Act) func(*authz.API) {
		return func(a *authz.API) { authz.RegisterOn(a, get(path), kind, act, find, handleOn) }
	}
	for name, test := range map[string]struct {
		register func(*authz.API)
		says     string
	}{
		"no permission":                        {register("/things", authz.Permission{}), "vocabulary"},
		"an unknown object":                    {register("/things", authz.Permission{Object: "thing:own", Act: "read"}), "vocabulary"},
		"an unknown act":                       {register("/things", authz.Permission{Object: "note:own", Act: "reed"}), "vocabulary"},
		"an act of another object":             {register("/things", authz.Permission{Object: "note:own", Act: "purge"}), "vocabulary"},
		"an object without its relation":       {register("/things", authz.Permission{Object: "note", Act: "read"}), "vocabulary"},
		"another case":                         {register("/things", authz.Permission{Object: "Note:own", Act: "read"}), "vocabulary"},
		"a target declared as none":            {register("/things/{id}", authz.Permission{Object: "note:own", Act: "read"}), "RegisterOn"},
		"another name declared as none":        {register("/things/{thing}", authz.Permission{Object: "note:own", Act: "read"}), "RegisterOn"},
		"a kind: a target declared as none":    {registerKind("/things/{id}", "deadzone", "read"), "RegisterOn"},
		"a kind: unknown":                      {registerKind("/things", "thing", "read"), "vocabulary"},
		"a kind: no act":                       {registerKind("/things", "deadzone", ""), "vocabulary"},
		"a kind: an act of another":            {registerKind("/things", "deadzone", "write"), "vocabulary"},
		"a target: unknown kind":               {registerOn("/things/{id}", "thing", "read"), "vocabulary"},
		"a target: no kind":                    {registerOn("/things/{id}", "", ""), "vocabulary"},
		"a target: an act of another":          {registerOn("/things/{id}", "note", "restore"), "vocabulary"},
		"a target: a path without one":         {registerOn("/things", "note", "read"), "target"},
		"a target: a path with another name":   {registerOn("/things/{thing}", "note", "read"), "target"},
		"a target: a path with a second name":  {registerOn("/orgs/{org}/things/{id}", "note", "read"), "target"},
		"an organization's: on another path":   {registerOn("/things/{org}", "org", "read"), "target"},
		"an organization's: an act of another": {registerOn("/v1/orgs/{org}", "org", "purge"), "vocabulary"},
		"an organization's: unknown kind":      {registerOn("/v1/orgs/{org}/things", "thing", "read"), "vocabulary"},
		"an organization's: another name":      {registerOn("/v1/orgs/{org}/members/{member}", "member", "read"), "target"},
		"a target: no way to find it": {func(a *authz.API) {
			authz.RegisterOn[int](a, get("/things/{id}"), "note", "read", nil, handleOn)
		}, "target"},
	} {
		api, router := newAPI()
		test.register(api)
		if err := api.Err(); err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "GET /") {
			t.Errorf("%s: got the error %v, want one with the operation and %q", name, err, test.says)
		}
		if len(api.Declared()) != 0 || len(router.Routes()) != 0 {
			t.Errorf("%s: it is served all the same, as %v", name, api.Declared())
		}
	}
}

func TestASoundDeclarationIsServedAndNoted(t *testing.T) {
	api, router := newAPI()
	authz.Register(api, operation(http.MethodPost, "/things"), authz.Permission{Object: "note:own", Act: "write"}, handle)
	authz.RegisterKind(api, operation(http.MethodGet, "/things"), "deadzone", "read", handle)
	authz.RegisterOn(api, operation(http.MethodDelete, "/things/{id}"), "note", "delete", find, handleOn)
	if err := api.Err(); err != nil {
		t.Fatal(err)
	}
	for route, needs := range map[string]string{
		"POST /things": "note:own write", "GET /things": "read", "DELETE /things/{id}": "delete",
	} {
		if got := api.Declared()[route]; !strings.HasSuffix(got, needs) {
			t.Errorf("%s is declared with %q, want %q", route, got, needs)
		}
	}
	if n := len(router.Routes()); n != 2 {
		t.Errorf("%d paths are served, want 2", n)
	}
}

func TestEveryErrorOfEveryDeclarationIsToldAtOnce(t *testing.T) {
	api, _ := newAPI()
	authz.Register(api, operation(http.MethodGet, "/one"), authz.Permission{}, handle)
	authz.Register(api, operation(http.MethodGet, "/two"), authz.Permission{}, handle)
	if err := api.Err(); err == nil || !strings.Contains(err.Error(), "/one") || !strings.Contains(err.Error(), "/two") {
		t.Errorf("got %v, want both", err)
	}
}
