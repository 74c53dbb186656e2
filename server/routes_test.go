package server_test

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"noted/server"
	"noted/server/servertest"
)

// publicRoutes are all routes that answer without a credential. A new one must be added here too, to confirm the
// intent.
var publicRoutes = []string{
	"GET /",
	"GET /auth/callback/{provider}",
	"GET /auth/login",
	"GET /auth/providers",
	"GET /docs",
	"GET /docs/*",
	"GET /favicon.ico",
	"GET /healthz",
	"GET /invitation",
	"GET /metrics",
	"GET /openapi.json",
	"GET /readyz",
	"GET /static/*",
	"GET /version",
	"POST /auth/backchannel-logout/{provider}",
	"POST /auth/device",
	"POST /auth/logout",
	"POST /auth/token",
}

// addressOf returns a route's path with a value for each name.
func addressOf(path string) string {
	return strings.NewReplacer("{id}", uuid.NewString(), "{provider}", "dev", "/static/*", "/static/style.css", "/docs/*", "/docs/swagger-ui.css").Replace(path)
}

func splitRoute(route string) (method, path string) {
	method, path, _ = strings.Cut(route, " ")
	return method, path
}

func TestEveryRouteButThePublicOnesAnswers401ToNobody(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	routes := routesOf(t, env)
	for _, route := range publicRoutes {
		if !slices.Contains(routes, route) {
			t.Errorf("%s is among the public routes, but the server has it not", route)
		}
	}
	for _, route := range routes {
		method, path := splitRoute(route)
		a := env.Do(t, method, addressOf(path), "", nil)
		switch {
		case !slices.Contains(publicRoutes, route) && (a.Status != http.StatusUnauthorized || string(a.Body) != unauthorizedBody):
			t.Errorf("%s: nobody gets %d %s, want the 401", route, a.Status, a.Body)
		case slices.Contains(publicRoutes, route) && a.Status == http.StatusUnauthorized && path != "/auth/callback/{provider}":
			t.Errorf("%s is public and answers 401 to nobody", route)
		}
	}
}

func TestPublicRoutesReadNoCredential(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	for _, route := range publicRoutes {
		method, path := splitRoute(route)
		plain := env.Do(t, method, addressOf(path), "", nil)
		for name, headers := range map[string][]string{
			"a wrong key":          {"Authorization", "Bearer noted_nonsense"},
			"another scheme":       {"Authorization", "Basic YWRhOg=="},
			"an expired cookie":    {"Cookie", "noted_session=nsess_" + strings.Repeat("0", 43)},
			"a cookie of nonsense": {"Cookie", "noted_session=%00"},
		} {
			if a := env.Do(t, method, addressOf(path), "", nil, headers...); a.Status != plain.Status {
				t.Errorf("%s: %d with %s, %d without", route, a.Status, name, plain.Status)
			}
		}
	}
}

func TestMetricsAreNotOnTheMainAddressOutsideDev(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Dev = false })
	if slices.Contains(routesOf(t, env), "GET /metrics") {
		t.Error("/metrics is served to everybody; serve has metrics_listen for it")
	}
	checkProblem(t, "GET /metrics", env.Do(t, http.MethodGet, "/metrics", "", nil), http.StatusNotFound)
}

// checkProblem checks that a is a problem of that status without a permission, and returns its text.
func checkProblem(t *testing.T, what string, a servertest.Answer, status int) {
	t.Helper()
	if a.Status != status {
		t.Errorf("%s: got %d %s, want %d", what, a.Status, a.Body, status)
		return
	}
	if media := a.Header.Get("Content-Type"); media != "application/problem+json" {
		t.Errorf("%s: the %d is %q, want application/problem+json: %.200s", what, a.Status, media, a.Body)
		return
	}
	var problem map[string]any
	a.JSON(t, &problem)
	if problem["status"] != float64(status) || problem["title"] != http.StatusText(status) || problem["detail"] == "" || problem["detail"] == nil {
		t.Errorf("%s: the problem says %s", what, a.Body)
	}
	if _, there := problem["permission"]; there {
		t.Errorf("%s: no permission would change this, and it names one: %s", what, a.Body)
	}
}

func TestUnknownRoutesAre404Problems(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := env.SignIn(t, "ada")
	for _, path := range []string{
		"/nothing", "/v1", "/v1/", "/v1/nothing", "/v1/notes/", "/v1/notes/" + uuid.NewString() + "/nothing", "/v2/notes",
		"/auth", "/auth/", "/auth/nothing", "/auth/callback", "/auth/callback/", "/auth/callback/nobody", "/healthz/", "/openapi.yaml",
		"/.git/config", "/policy.csv", "/debug/pprof/", "/index.html",
		"/static/", "/static/nothing.css", "/static/..%2fpages.html", "/docs/", "/docs/nothing.js",
	} {
		for who, token := range map[string]string{"nobody": "", "ada": session} {
			a := env.Do(t, http.MethodGet, path, token, nil)
			if path == "/docs/" && a.Status == http.StatusOK { // a page, if the server chooses so
				continue
			}
			checkProblem(t, "GET "+path+" by "+who, a, http.StatusNotFound)
		}
	}
	for _, method := range []string{http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodDelete, "BREW"} {
		a := env.Do(t, method, "/nothing", session, nil)
		if method == http.MethodHead {
			if a.Status != http.StatusNotFound {
				t.Errorf("HEAD /nothing: got %d", a.Status)
			}
			continue
		}
		checkProblem(t, method+" /nothing", a, http.StatusNotFound)
	}
}

func TestAWrongMethodIs405AndNamesTheRightOnes(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := env.SignIn(t, "ada")
	takes := map[string][]string{}
	for _, route := range routesOf(t, env) {
		method, path := splitRoute(route)
		takes[path] = append(takes[path], method)
		if method == http.MethodGet {
			takes[path] = append(takes[path], http.MethodHead)
		}
	}
	for path, methods := range takes {
		slices.Sort(methods)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, "BREW"} {
			if slices.Contains(methods, method) {
				continue
			}
			for who, token := range map[string]string{"nobody": "", "ada": session} {
				what := method + " " + path + " by " + who
				a := env.Do(t, method, addressOf(path), token, nil)
				checkProblem(t, what, a, http.StatusMethodNotAllowed)
				allowed := strings.Split(a.Header.Get("Allow"), ", ")
				slices.Sort(allowed)
				if diff := cmp.Diff(methods, allowed); a.Status == http.StatusMethodNotAllowed && diff != "" {
					t.Errorf("%s: Allow differs (-want +got):\n%s", what, diff)
				}
			}
		}
	}
}

func TestABrowsersRequestFromAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := env.SignIn(t, "alice")
	cookie := []string{"Cookie", "noted_session=" + session}
	key, _ := env.NewKey(t, session, "key-reader")
	requests := []struct{ method, path, body string }{
		{http.MethodPost, "/v1/notes", `{"title":"a","body":"b"}`},
		{http.MethodPost, "/v1/keys", `{"name":"a"}`},
		{http.MethodPatch, "/v1/keys/" + key, `{"name":"a"}`},
		{http.MethodDelete, "/v1/keys/" + key, ""},
		{http.MethodPost, "/auth/logout", ""},
	}
	host := strings.TrimPrefix(env.URL, "http://")
	for name, headers := range map[string][]string{
		"Sec-Fetch-Site: cross-site":         {"Sec-Fetch-Site", "cross-site"},
		"Sec-Fetch-Site: same-site":          {"Sec-Fetch-Site", "same-site"},
		"Sec-Fetch-Site that nobody knows":   {"Sec-Fetch-Site", "whatever"},
		"Origin of another host":             {"Origin", "https://evil.example"},
		"Origin null":                        {"Origin", "null"},
		"Origin of another port":             {"Origin", "http://127.0.0.1:1"},
		"Origin that has ours in it":         {"Origin", "http://" + host + ".evil.example"},
		"cross-site with another's Origin":   {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		"X-Forwarded-Host to fit the Origin": {"Origin", "https://evil.example", "X-Forwarded-Host", "evil.example"},
	} {
		for _, r := range requests {
			a := env.Do(t, r.method, r.path, "", r.body, slices.Concat(cookie, headers)...)
			checkProblem(t, r.method+" "+r.path+" with "+name, a, http.StatusForbidden)
		}
		if a := env.Do(t, http.MethodGet, "/v1/notes", "", nil, slices.Concat(cookie, headers)...); a.Status != http.StatusOK {
			t.Errorf("reading with %s: got %d %s; a read changes nothing", name, a.Status, a.Body)
		}
	}
	if a := env.Do(t, http.MethodGet, "/v1/me", session, nil); a.Status != http.StatusOK {
		t.Errorf("a refused sign-out ended the session: %d", a.Status)
	}
	for name, headers := range map[string][]string{
		"Sec-Fetch-Site: same-origin": {"Sec-Fetch-Site", "same-origin"},
		"Sec-Fetch-Site: none":        {"Sec-Fetch-Site", "none"},
		"our Origin":                  {"Origin", env.URL},
		"both":                        {"Sec-Fetch-Site", "same-origin", "Origin", env.URL},
		"neither, as scripts do":      nil,
	} {
		a := env.Do(t, http.MethodPost, "/v1/notes", "", requests[0].body, slices.Concat(cookie, headers)...)
		if a.Status != http.StatusCreated {
			t.Errorf("a note with %s: got %d %s", name, a.Status, a.Body)
		}
		a = env.Do(t, http.MethodPost, "/auth/logout", env.SignIn(t, "bob"), nil, headers...)
		if a.Status != http.StatusNoContent {
			t.Errorf("signing out with %s: got %d %s", name, a.Status, a.Body)
		}
	}
}

func TestHEADWorksWhereGETDoes(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := env.SignIn(t, "ada")
	key, _ := env.NewKey(t, session, "key-reader")
	var me struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", session, nil).JSON(t, &me)
	org := env.NewOrg(t, session, "o")
	notebook := env.Make(t, session, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "n"})
	note := env.Make(t, session, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org})
	addresses := map[string]string{
		"/v1/notes/{id}":       "/v1/notes/" + env.NewNote(t, session, "live"),
		"/v1/deadzone/{id}":    "/v1/deadzone/" + env.NewDeadNote(t, session, "dead"),
		"/v1/keys/{id}":        "/v1/keys/" + key,
		"/v1/admin/users/{id}": "/v1/admin/users/" + me.ID,

		"/v1/orgs/{org}/notebooks/{id}": "/v1/orgs/{org}/notebooks/" + notebook,
		"/v1/orgs/{org}/keys/{id}":      "/v1/orgs/{org}/keys/" + env.Make(t, session, "/v1/orgs/"+org+"/keys", map[string]any{"name": "k", "org_role": "reader"}),
	}
	for _, route := range routesOf(t, env) {
		method, path := splitRoute(route)
		if method != http.MethodGet {
			continue
		}
		address := addresses[path]
		if address == "" {
			address = addressOf(strings.NewReplacer("/notebooks/{id}/", "/notebooks/"+notebook+"/", "/notes/{id}/", "/notes/"+note+"/").Replace(path))
		}
		address = strings.Replace(address, "{org}", org, 1)
		// Go's client asks for gzip by itself, but not for HEAD.
		get := env.Do(t, http.MethodGet, address, session, nil, "Accept-Encoding", "identity")
		head := env.Do(t, http.MethodHead, address, session, nil, "Accept-Encoding", "identity")
		if head.Status != get.Status || len(head.Body) != 0 {
			t.Errorf("%s: HEAD is %d with %d bytes, GET is %d %.200s", path, head.Status, len(head.Body), get.Status, get.Body)
		}
		if get.Status != http.StatusOK && path != "/auth/login" && path != "/auth/callback/{provider}" {
			t.Errorf("%s: GET %s is %d %.200s", path, address, get.Status, get.Body)
		}
		for _, name := range []string{"Content-Type", "ETag", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options"} {
			if diff := cmp.Diff(get.Header[http.CanonicalHeaderKey(name)], head.Header[http.CanonicalHeaderKey(name)]); diff != "" {
				t.Errorf("%s: %s differs (-GET +HEAD):\n%s", path, name, diff)
			}
		}
	}
	// A HEAD is decided like its GET.
	if a := env.Do(t, http.MethodHead, "/v1/me", "", nil); a.Status != http.StatusUnauthorized {
		t.Errorf("HEAD /v1/me by nobody: got %d", a.Status)
	}
	if a := env.Do(t, http.MethodHead, "/v1/admin/audit", env.SignIn(t, "alice"), nil); a.Status != http.StatusForbidden {
		t.Errorf("HEAD /v1/admin/audit by alice: got %d", a.Status)
	}
}

func TestEveryAnswerCarriesTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	session := env.SignIn(t, "ada")
	for _, route := range append(routesOf(t, env), "GET /nothing", "BREW /v1/notes", "PUT /v1/notes") {
		method, path := splitRoute(route)
		a := env.Do(t, method, addressOf(path), session, nil)
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", route, name, got, want)
			}
		}
		if got := a.Header.Get("Referrer-Policy"); got != "no-referrer" && got != "same-origin" {
			t.Errorf("%s: Referrer-Policy is %q; other sites need not learn where people come from", route, got)
		}
		if !strings.Contains(a.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: has the headers %v", route, slices.Sorted(maps.Keys(a.Header)))
		}
		if strings.HasPrefix(path, "/v1/") && a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be stored: %q", route, a.Header.Get("Cache-Control"))
		}
		if method == http.MethodPost && path == "/auth/logout" || path == "/v1/me/sessions" && method == http.MethodDelete {
			session = env.SignIn(t, "ada")
		}
	}
}

func TestTheDocumentNamesEveryIdOfEveryPath(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
	}
	env.Do(t, http.MethodGet, "/openapi.json", "", nil).JSON(t, &document)
	braces, checked := regexp.MustCompile(`\{(\w+)\}`), 0
	for path, methods := range document.Paths {
		var want []string
		for _, match := range braces.FindAllStringSubmatch(path, -1) {
			want = append(want, match[1])
		}
		for method, operation := range methods {
			var got []string
			for _, parameter := range operation.Parameters {
				if parameter.In == "path" {
					got = append(got, parameter.Name)
				}
			}
			checked++
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: the parameters of its path (-path +document):\n%s", method, path, diff)
			}
		}
	}
	if checked < 60 {
		t.Errorf("%d operations only", checked)
	}
}
