package web

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"

	"noted/authz"
	"noted/identity"
	"noted/internal/problem"
	"noted/orgs"
)

var (
	//go:embed pages.html
	pagesText string
	//go:embed static
	files embed.FS

	pages = template.Must(template.New("pages").Parse(pagesText))
)

// Pages makes identity's pages. Every failed sign-in gets the same page, whatever the reason.
func Pages() identity.Pages {
	return identity.Pages{
		Failure: func(provider string) []byte { return render("failed", provider) },
		Device:  func(p identity.DevicePage) []byte { return render("device", p) },
		Link:    func(p identity.LinkPage) []byte { return render("link", p) },
		Message: func(title, text string) []byte {
			return render("message", map[string]string{"Title": title, "Text": text})
		},
	}
}

// headings are the problem pages' headings; other statuses use their HTTP name.
var headings = map[int]string{
	http.StatusUnauthorized:        "Not signed in",
	http.StatusForbidden:           "Not allowed",
	http.StatusNotFound:            "Not found",
	http.StatusConflict:            "Not possible",
	http.StatusUnprocessableEntity: "Not understood",
	http.StatusTooManyRequests:     "Too often",
	http.StatusInternalServerError: "Something went wrong",
	http.StatusServiceUnavailable:  "Not available now",
}

// Problem is a browser's page for a problem (a problem.Page).
func Problem(e *problem.Error, requestID string) []byte {
	return render("problem", map[string]any{
		"Heading": cmp.Or(headings[e.Status], http.StatusText(e.Status)), "Problem": e, "RequestID": requestID,
	})
}

func render(name string, data any) []byte {
	var out bytes.Buffer
	if err := pages.ExecuteTemplate(&out, name, data); err != nil {
		// The templates and their data are ours, so this is a bug.
		return []byte("<!DOCTYPE html><title>noted</title><p>This page could not be made.")
	}
	return out.Bytes()
}

// scriptCSP lets our scripts run: one starts linking a sign-in, by an operation that takes JSON; one
// passes an invitation's token on.
const scriptCSP = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// docsCSP lets Swagger UI run. Its scripts come from here; some styles are inline.
const docsCSP = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Mount adds the pages to the router. / and /invitation read the session but work without one. The
// invitation's form needs one, and is declared with the API's operations.
func Mount(router chi.Router, api *authz.API, users *identity.Service, organizations *orgs.Service) {
	router.Get("/", func(w http.ResponseWriter, r *http.Request) { home(w, r, users, organizations) })
	invitations{users, organizations}.mount(router, api)
	icon, err := fs.ReadFile(files, "static/icon.svg")
	if err != nil {
		panic(err) // it is embedded
	}
	// Browsers ask for it with anything that is not our page, such as JSON.
	router.Get("/favicon.ico", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		w.Header().Set("Cache-Control", "max-age=86400")
		_, _ = w.Write(icon)
	})
	asset(router, "/static/", files, "static/%s", http.FileServerFS(files))
	docs := render("docs", nil)
	router.Get("/docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", docsCSP)
		page(w, http.StatusOK, docs)
	})
	asset(router, "/docs/", static.FS, "%s.gz", http.StripPrefix("/docs/", statigz.FileServer(static.FS)))
}

// home is the page at /: who is signed in, their organizations, how to sign in.
func home(w http.ResponseWriter, r *http.Request, users *identity.Service, organizations *orgs.Service) {
	shown := struct {
		Principal *authz.Principal
		Orgs      []identity.MeOrg
		Linking   identity.Linking
		Providers []identity.ProviderItem
		ReturnTo  string
	}{Principal: users.Peek(r), Providers: users.Providers(), ReturnTo: identity.LocalPath(r.URL.Query().Get("return_to"))}
	if shown.Principal != nil {
		var err error
		if shown.Orgs, err = organizations.Mine(r.Context(), shown.Principal); err == nil {
			shown.Linking, err = users.Linking(r.Context(), shown.Principal)
		}
		if err != nil {
			problem.Write(w, r, err)
			return
		}
	}
	w.Header().Set("Content-Security-Policy", scriptCSP)
	page(w, http.StatusOK, render("home", shown))
}

// asset serves the files below a path. Any other name there, a folder's too, is a 404 like every
// unknown address. stored is the format of a name in the file system.
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

func page(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
