package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"

	"noted/identity"
	"noted/internal/problem"
)

var (
	//go:embed pages.html
	pagesText string
	//go:embed static
	files embed.FS

	pages = template.Must(template.New("pages").Parse(pagesText))
)

// Pages makes identity's pages. The one for a sign-in that failed is the same for every reason.
func Pages() identity.Pages {
	return identity.Pages{
		Failure: render("failed", nil),
		Device:  func(p identity.DevicePage) []byte { return render("device", p) },
		Link:    func(p identity.LinkPage) []byte { return render("link", p) },
		Message: func(title, text string) []byte {
			return render("message", map[string]string{"Title": title, "Text": text})
		},
	}
}

func render(name string, data any) []byte {
	var out bytes.Buffer
	if err := pages.ExecuteTemplate(&out, name, data); err != nil {
		// The templates and what goes into them are ours: this is a fault of the program.
		return []byte("<!DOCTYPE html><title>noted</title><p>This page could not be made.")
	}
	return out.Bytes()
}

// homeCSP lets our scripts run: one begins to link a sign-in, one accepts an invitation. Both
// operations take JSON.
const homeCSP = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// docsCSP lets Swagger UI run: its scripts come from here, its styles are partly inline.
const docsCSP = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Mount adds the pages to the router. All of them are public: those at / and /invitation
// look at the session and never fail for it.
func Mount(router chi.Router, users *identity.Service) {
	router.Get("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", homeCSP)
		page(w, render("home", map[string]any{
			"Principal": users.Peek(r), "Providers": users.Providers(),
			"ReturnTo": identity.LocalPath(r.URL.Query().Get("return_to")),
		}))
	})
	router.Get("/invitation", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", homeCSP)
		page(w, render("invitation", map[string]any{"Principal": users.Peek(r), "Providers": users.Providers()}))
	})
	asset(router, "/static/", files, "static/%s", http.FileServerFS(files))
	docs := render("docs", nil)
	router.Get("/docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", docsCSP)
		page(w, docs)
	})
	asset(router, "/docs/", static.FS, "%s.gz", http.StripPrefix("/docs/", statigz.FileServer(static.FS)))
}

// asset serves the files below a path; any other name there, a folder's too, is a problem
// like every unknown address. stored is how a name stands in the file system.
func asset(router chi.Router, path string, in fs.FS, stored string, serve http.Handler) {
	router.Get(path+"*", func(w http.ResponseWriter, r *http.Request) {
		info, err := fs.Stat(in, fmt.Sprintf(stored, strings.TrimPrefix(r.URL.Path, path)))
		if err != nil || info.IsDir() {
			problem.Write(w, r, problem.New(http.StatusNotFound, "There is no such file"))
			return
		}
		w.Header().Set("Cache-Control", "max-age=300")
		serve.ServeHTTP(w, r)
	})
}

func page(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}
