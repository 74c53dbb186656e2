package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

// Only this test is inside the package: from outside nobody can add a route to a server, which is the point.
func TestARouteWithoutADeclarationStopsTheStart(t *testing.T) {
	nothing := func(http.ResponseWriter, *http.Request) {}
	routerWith := func(add func(chi.Router)) chi.Router {
		router := chi.NewRouter()
		router.Get("/healthz", nothing)
		router.Get("/v1/notes", nothing)
		if add != nil {
			add(router)
		}
		return router
	}
	declared := map[string]string{"GET /v1/notes": "note:own read"}
	if err := checkRoutes(routerWith(nil), declared); err != nil {
		t.Errorf("a public and a declared route: %v", err)
	}
	for name, test := range map[string]struct {
		add  func(chi.Router)
		want string
	}{
		"a plain route":            {func(r chi.Router) { r.Get("/v1/backdoor", nothing) }, "GET /v1/backdoor"},
		"another method of a path": {func(r chi.Router) { r.Delete("/v1/notes", nothing) }, "DELETE /v1/notes"},
		"a public path's POST":     {func(r chi.Router) { r.Post("/healthz", nothing) }, "POST /healthz"},
		"behind another prefix":    {func(r chi.Router) { r.Route("/inner", func(r chi.Router) { r.Put("/{id}", nothing) }) }, "PUT /inner/{id}"},
		"in a group":               {func(r chi.Router) { r.Group(func(r chi.Router) { r.Patch("/grouped", nothing) }) }, "PATCH /grouped"},
		"mounted": {func(r chi.Router) {
			sub := chi.NewRouter()
			sub.Get("/there", nothing)
			r.Mount("/mounted", sub)
		}, "GET /mounted/there"},
		"a mounted handler":   {func(r chi.Router) { r.Mount("/debug", http.HandlerFunc(nothing)) }, "/debug"},
		"all methods at once": {func(r chi.Router) { r.HandleFunc("/anything", nothing) }, "/anything"},
	} {
		err := checkRoutes(routerWith(test.add), declared)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got the error %v, want one that names %s", name, err, test.want)
		}
	}
	if err := checkRoutes(routerWith(nil), map[string]string{"GET /v1/notes": "note:own read", "GET /healthz": "self read"}); err == nil {
		t.Error("a route that is public and declared: no error")
	}
	if err := checkRoutes(routerWith(nil), nil); err == nil || strings.Contains(err.Error(), "/healthz") {
		t.Errorf("only the undeclared route is wrong, got %v", err)
	}
}
