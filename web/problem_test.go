package web_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"noted/internal/devidp"
	"noted/server/servertest"
)

var title = regexp.MustCompile(`<title>([^<]*)</title>`)

// titleOf is the browser tab's title.
func titleOf(a servertest.Answer) string {
	if match := title.FindSubmatch(a.Body); match != nil {
		return string(match[1])
	}
	return ""
}

const form = "application/x-www-form-urlencoded"

// Browsers get a page, with the request's id to tell the operator; programs get the problem.
func TestErrorsArePagesToABrowserAndProblemsToOthers(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	_, key := env.NewKey(t, alice, "key-admin")
	for name, one := range map[string]struct {
		method, path, token, body string
		headers                   []string
		status                    int
		title                     string
	}{
		"an unknown address":       {"GET", "/nothing", "", "", nil, 404, "Not found"},
		"… of somebody signed in":  {"GET", "/nothing", alice, "", nil, 404, "Not found"},
		"… below /auth":            {"GET", "/auth/nothing", "", "", nil, 404, "Not found"},
		"a file that is not there": {"GET", "/static/nothing.css", "", "", nil, 404, "Not found"},
		"an unknown provider":      {"GET", "/auth/login?provider=nobody", "", "", nil, 404, "Not found"},
		"… at the callback":        {"GET", "/auth/callback/nobody", "", "", nil, 404, "Not found"},
		"nobody, at a form":        {"POST", "/auth/device/confirm", "", "user_code=x&decision=deny", nil, 401, "Not signed in"},
		"an ended session":         {"POST", "/auth/link/confirm", "nsess_x", "code=x", nil, 401, "Not signed in"},
		"nobody, at an invitation": {"POST", "/invitation", "", "token=x", nil, 401, "Not signed in"},
		"a key at a page":          {"GET", "/auth/device", key, "", nil, 403, "Not allowed"},
		"another site":             {"POST", "/auth/logout", alice, "", []string{"Sec-Fetch-Site", "cross-site"}, 403, "Not allowed"},
		"nothing to link":          {"POST", "/auth/link/confirm", alice, "code=x", nil, 409, "Not possible"},
		"another method":           {"POST", "/docs", "", "", nil, 405, "Method Not Allowed"},
		"a decision that is none":  {"POST", "/auth/device/confirm", alice, "user_code=x&decision=x", nil, 422, "Not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			var body any
			if one.method == "POST" {
				body = one.body
			}
			headers := append([]string{"Content-Type", form}, one.headers...)
			program := env.Do(t, one.method, one.path, one.token, body, append(headers, "Accept", "*/*")...)
			if program.Status != one.status || program.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("a program gets %d %s", program.Status, program.Header.Get("Content-Type"))
			}
			browser := env.Do(t, one.method, one.path, one.token, body, append(headers, "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")...)
			checkErrorPage(t, browser, one.status, one.title)
			for _, same := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "WWW-Authenticate", "Allow", "Retry-After"} {
				if browser.Header.Get(same) != program.Header.Get(same) {
					t.Errorf("%s is %q for a browser, %q for a program", same, browser.Header.Get(same), program.Header.Get(same))
				}
			}
		})
	}
}

func checkErrorPage(t *testing.T, a servertest.Answer, status int, title string) {
	t.Helper()
	text := string(a.Body)
	if a.Status != status || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || titleOf(a) != title+" · noted" {
		t.Errorf("a browser gets %d %s %q, want %d and the title %q", a.Status, a.Header.Get("Content-Type"), titleOf(a), status, title)
	}
	if id := a.Header.Get("X-Request-Id"); id == "" || !strings.Contains(text, "<code>"+id+"</code>") {
		t.Errorf("the page does not show the request id %q: %s", id, text)
	}
	if !strings.Contains(text, `href="/static/style.css"`) || !strings.Contains(text, `href="/static/icon.svg"`) || !strings.Contains(text, `<a href="/">`) {
		t.Errorf("the page is not like the others: %s", text)
	}
	if a.Header.Values("Cache-Control")[0] != "no-store" || len(a.Header.Values("Cache-Control")) != 1 {
		t.Errorf("Cache-Control: %q", a.Header.Values("Cache-Control"))
	}
}

// Below /v1 all is for programs, whatever they accept.
func TestOperationsAnswerABrowserByProblemsToo(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	for path, status := range map[string]int{"/v1": 404, "/v1/nothing": 404, "/v1/deadzone": 403, "/v1/notes/x": 404} {
		a := env.Do(t, "GET", path, alice, nil, "Accept", "text/html")
		if a.Status != status || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, a.Status, a.Header.Get("Content-Type"))
		}
	}
	if a := env.Do(t, "GET", "/v1/me", "", nil, "Accept", "text/html"); a.Status != 401 || string(a.Body) != `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}` {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

func TestAProviderThatIsAwayIsAPageOf503(t *testing.T) {
	env := servertest.New(t)
	env.Provider.SetLie(devidp.Lie{Handler: func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	}})
	a := env.Do(t, "GET", "/auth/login?provider=dev", "", nil, "Accept", "text/html")
	checkErrorPage(t, a, 503, "Not available now")
	if a.Header.Get("Retry-After") == "" || !strings.Contains(string(a.Body), "try again in a moment") {
		t.Errorf("%v %s", a.Header, a.Body)
	}
}

func TestTooManyWrongCodesAreAPageOf429(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	for range 11 {
		a := env.Do(t, "GET", "/auth/device?user_code=BBBB-BBBB", alice, nil, "Accept", "text/html")
		if id := a.Header.Get("X-Request-Id"); a.Status != 404 || !strings.Contains(string(a.Body), `name="user_code"`) || !strings.Contains(string(a.Body), id) {
			t.Fatalf("a wrong code: %d %s", a.Status, a.Body)
		}
	}
	a := env.Do(t, "GET", "/auth/device?user_code=BBBB-BBBB", alice, nil, "Accept", "text/html")
	if id := a.Header.Get("X-Request-Id"); a.Status != 429 || titleOf(a) != "Let a device in · noted" || !strings.Contains(string(a.Body), id) || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
}

// It shows neither what failed nor which request it was.
func TestTheFailedSignInPageHasTheSameBytesWhateverFailed(t *testing.T) {
	env := servertest.New(t)
	var first servertest.Answer
	for _, query := range []string{"", "?state=x&code=y", "?error=access_denied&state=x", "?state=x&return_to=/elsewhere", "?code=" + strings.Repeat("x", 500)} {
		a := env.Do(t, "GET", "/auth/callback/dev"+query, "", nil, "Accept", "text/html")
		if a.Status != 401 || a.Header.Get("WWW-Authenticate") != "Bearer" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", query, a.Status, a.Header)
		}
		if first.Body == nil {
			first = a
		}
		if string(a.Body) != string(first.Body) || strings.Contains(string(a.Body), a.Header.Get("X-Request-Id")) {
			t.Errorf("%s: the page differs: %s", query, a.Body)
		}
	}
	text := string(first.Body)
	for _, want := range []string{
		"<p>Authentication failed</p>", `<a href="/auth/login?provider=dev">Try again</a>`,
		`<a href="/auth/login?provider=dev&amp;prompt=select_account">Try another account</a>`, "<title>Authentication failed · noted</title>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has not %s: %s", want, text)
		}
	}
	if links := strings.Count(text, "<a "); links != 2 {
		t.Errorf("%d links: %s", links, text)
	}
}

func TestThereIsAnIconAlsoForWhatIsNoPage(t *testing.T) {
	env := servertest.New(t)
	for _, path := range []string{"/static/icon.svg", "/favicon.ico"} {
		a := env.Do(t, "GET", path, "", nil)
		if a.Status != 200 || a.Header.Get("Content-Type") != "image/svg+xml" || !strings.HasPrefix(string(a.Body), "<svg ") {
			t.Errorf("%s: %d %s %.50s", path, a.Status, a.Header.Get("Content-Type"), a.Body)
		}
	}
	for _, path := range []string{"/", "/docs", "/invitation", "/nothing"} {
		a := env.Do(t, "GET", path, "", nil, "Accept", "text/html")
		if !strings.Contains(string(a.Body), `<link rel="icon" href="/static/icon.svg" type="image/svg+xml">`) {
			t.Errorf("%s has no icon: %s", path, a.Body)
		}
		if got := titleOf(a); path != "/" && !strings.HasSuffix(got, " · noted") || path == "/" && got != "noted" {
			t.Errorf("%s has the title %q", path, got)
		}
	}
}
