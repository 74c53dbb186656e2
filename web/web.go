package web

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"

	"noted/identity"
)

var (
	//go:embed pages.html
	pagesText string
	//go:embed static
	files embed.FS

	pages = template.Must(template.New("pages").Parse(pagesText))
)

// FailurePage is what a browser gets whose sign-in failed; the same for every reason.
func FailurePage() []byte {
	return render("failed", nil)
}

func render(name string, data any) []byte {
	var out bytes.Buffer
	if err := pages.ExecuteTemplate(&out, name, data); err != nil {
		// The templates and what goes into them are ours: this is a fault of the program.
		return []byte("<!DOCTYPE html><title>noted</title><p>This page could not be made.")
	}
	return out.Bytes()
}

// docsCSP lets Swagger UI run: its scripts come from here, its styles are partly inline.
const docsCSP = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Mount adds the pages to the router. All of them are public: the one at / looks at the
// session and never fails for it.
func Mount(router chi.Router, users *identity.Service) {
	router.Get("/", func(w http.ResponseWriter, r *http.Request) {
		page(w, render("home", map[string]any{"Principal": users.Peek(r), "Providers": users.Providers()}))
	})
	assets := http.FileServerFS(files)
	router.Get("/static/*", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/static/" { // no listing
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=300")
		assets.ServeHTTP(w, r)
	})
	docs := render("docs", nil)
	router.Get("/docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", docsCSP)
		page(w, docs)
	})
	router.Get("/docs/*", http.StripPrefix("/docs/", statigz.FileServer(static.FS)).ServeHTTP)
}

func page(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}
