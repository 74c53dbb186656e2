package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// runNoted runs a command line in this process.
func runNoted(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runNotedUntil(t.Context(), args...)
}

func runNotedUntil(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, streams{&out, &err})
	return code, out.String(), err.String()
}

// obeyed returns the first character that a terminal would not merely show; 0 if there is none.
func obeyed(text string) rune {
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			return r
		}
	}
	return 0
}

// serveAnswer serves one answer for everything. It returns its address, and counts requests.
func serveAnswer(t *testing.T, answer http.HandlerFunc) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

func problemAnswer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func jsonAnswer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
}

func TestServersAreKnownByOneSpelling(t *testing.T) {
	for given, want := range map[string]string{
		"https://notes.example":         "https://notes.example",
		"https://notes.example/":        "https://notes.example",
		"HTTPS://Notes.Example:443":     "https://notes.example",
		"https://notes.example:08443":   "https://notes.example:8443",
		"https://xn--ntes-5qa.example":  "https://xn--ntes-5qa.example",
		"https://192.0.2.1":             "https://192.0.2.1",
		"https://[2001:DB8::1]:8443":    "https://[2001:db8::1]:8443",
		"http://127.0.0.1:8080":         "http://127.0.0.1:8080",
		"http://127.1.2.3":              "http://127.1.2.3",
		"http://LOCALHOST:80":           "http://localhost",
		"http://[::1]:8080":             "http://[::1]:8080",
		"http://[0:0:0:0:0:0:0:1]:8080": "http://[::1]:8080",
	} {
		if got, err := parseServer(given); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", given, got, err, want)
		}
	}
}

func TestAnAddressThatIsNoServersOrWouldCarryTheTokenInClearIsRefused(t *testing.T) {
	for given, want := range map[string]string{
		"":                                    "such as https://",
		"notes.example":                       "such as https://",
		"notes.example:8080":                  "such as https://",
		"ftp://notes.example":                 "https://notes.example",
		"http://notes.example":                "write https://notes.example",
		"http://notes.example:8080":           "in clear",
		"http://192.168.0.1":                  "in clear",
		"http://0.0.0.0:8080":                 "in clear",
		"http://127.0.0.1.notes.example":      "in clear",
		"http://localhost.notes.example":      "in clear",
		"http://127.1:8080":                   "in clear",
		"http://[fe80::1]":                    "in clear",
		"http://[::1%25eth0]:8080":            "such as https://",
		"https://notes.example/path":          "no path",
		"https://notes.example?x":             "no path",
		"https://notes.example?":              "no path",
		"https://notes.example#x":             "no path",
		"https://alice:hunter2@notes.example": "such as https://",
		"https://alice:hunter2@notes example": "such as https://",
		"https://notes.example:0":             "port",
		"https://notes.example:65536":         "port",
		"https://nötes.example":               "ASCII",
		"https://notes.example%2f":            "such as https://",
		"https://-notes.example":              "ASCII",
		"https://":                            "ASCII",
		"https://\x1b[2Jnotes.example":        "such as https://",
	} {
		got, err := parseServer(given)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %q, %v; want an error with %q in it", given, got, err, want)
			continue
		}
		if obeyed(err.Error()) != 0 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %q", given, err)
		}
	}
}

func FuzzAServersAddressIsReadTheSameTwice(f *testing.F) {
	for _, seed := range []string{"https://notes.example", "http://127.0.0.1:8080/", "http://[::1]", "https://a:b@c", "http://localhost:0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, err := parseServer(text)
		if err != nil {
			if obeyed(err.Error()) != 0 {
				t.Errorf("%q", err)
			}
			return
		}
		if twice, err := parseServer(once); err != nil || twice != once {
			t.Errorf("%q is %q, and that is %q, %v", text, once, twice, err)
		}
		if c, err := newClient(once); err != nil || c.server != once {
			t.Errorf("a client of %q: %v", once, err)
		}
		u, err := url.Parse(once)
		if err != nil {
			t.Fatal(err)
		}
		if host := u.Hostname(); u.Scheme != "https" && host != "localhost" && !net.ParseIP(host).IsLoopback() {
			t.Errorf("%q is http to another machine", once)
		}
	})
}

func TestHTTPReachesThisMachineAloneWhateverTheNameStandsFor(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "192.0.2.1:80": false, "[2001:db8::1]:80": false, "": false} {
		if got := onlyLoopback("tcp", address, nil) == nil; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
	c, err := newClient("http://localhost:9")
	if err != nil {
		t.Fatal(err)
	}
	transport := c.http.Transport.(*http.Transport)
	if _, err := transport.DialContext(t.Context(), "tcp", "192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "this machine alone") {
		t.Errorf("the transport of an http server dials 192.0.2.1: %v", err)
	}
	if transport.Proxy != nil {
		t.Error("http goes through a proxy")
	}
}

func TestACredentialDoesNotFollowARedirect(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	elsewhere, asked := serveAnswer(t, jsonAnswer(`{"name": "mallory"}`))
	for _, status := range []int{301, 302, 303, 307, 308} {
		url, _ := serveAnswer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", elsewhere+r.URL.Path)
			w.WriteHeader(status)
		})
		for _, command := range []string{"whoami", "login"} {
			code, stdout, stderr := runNoted(t, command, "--server", url)
			if code != 1 || stdout != "" || !strings.Contains(stderr, "sends on to another address") || strings.Contains(stderr, elsewhere) {
				t.Errorf("%s, %d: exit code %d, standard output %q, standard error: %s", command, status, code, stdout, stderr)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests arrived where the redirects point", n)
	}
}

func TestAServerWithoutATrustedCertificateGetsNoRequest(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	requests := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	code, _, stderr := runNoted(t, "whoami", "--server", server.URL)
	if code != 1 || !strings.Contains(stderr, "cannot reach "+server.URL+": tls: ") || requests != 0 {
		t.Errorf("exit code %d, %d requests, standard error: %s", code, requests, stderr)
	}
}

func TestWhatTheServerRefusesIsShownAsItSaysIt(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	many := `{"title":"Unprocessable Entity","status":422,"detail":"Many","errors":[` + strings.Repeat(`{"location":"body.x","message":"m"},`, 60) + `{"location":"last","message":"m"}]}`
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"the detail":   {problemAnswer(409, `{"title":"Conflict","status":409,"detail":"It is there already"}`), "noted: It is there already\n"},
		"only a title": {problemAnswer(409, `{"title":"Conflict","status":409}`), "noted: Conflict\n"},
		"nothing":      {problemAnswer(503, `{}`), "noted: SERVER answered 503 Service Unavailable\n"},
		"no JSON":      {problemAnswer(500, `{"detail":`), "noted: SERVER answered 500 Internal Server Error\n"},
		"a page": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad gateway</h1>", http.StatusBadGateway)
		}, "noted: SERVER answered 502 Bad Gateway\n"},
		"the permission":      {problemAnswer(403, `{"title":"Forbidden","status":403,"detail":"You may not","permission":"self read"}`), "noted: You may not (missing permission: self read)\n"},
		"the permission once": {problemAnswer(403, `{"title":"Forbidden","status":403,"detail":"This needs the permission \"self read\"","permission":"self read"}`), "noted: This needs the permission \"self read\"\n"},
		"the values":          {problemAnswer(422, `{"title":"U","status":422,"detail":"Invalid values","errors":[{"location":"body.title","message":"too long"},{"message":"odd"}]}`), "noted: Invalid values\n  body.title: too long\n  ?: odd\n"},
		"many values":         {problemAnswer(422, many), "noted: Many\n" + strings.Repeat("  body.x: m\n", 50) + "  and 11 more\n"},
		"when to try again": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "17")
			problemAnswer(429, `{"detail":"Too often"}`)(w, r)
		}, "noted: Too often; try again in 17s\n"},
		"our own token": {problemAnswer(400, `{"detail":"bad `+oneToken+`","permission":"p `+oneToken+`","errors":[{"location":"`+oneToken+`","message":"`+oneToken+`"}]}`), "noted: bad … (missing permission: p …)\n  …: …\n"},
		"control characters": {problemAnswer(400, `{"detail":"a\u001b[2Jb\u009bc\u202ed\ne","permission":"note\u0007own","errors":[{"location":"\u001b","message":"x\ry"}]}`),
			"noted: a\ufffd[2Jb\ufffdc\ufffdd e (missing permission: note\ufffdown)\n  \ufffd: x y\n"},
		"far too much": {problemAnswer(400, `{"detail":"`+strings.Repeat("x", 10000)+`"}`), "noted: " + strings.Repeat("x", maxShown) + "…\n"},
	} {
		url, _ := serveAnswer(t, c.answer)
		code, stdout, stderr := runNoted(t, "whoami", "--server", url)
		want := strings.ReplaceAll(c.want, "SERVER", url)
		if diff := cmp.Diff(want, stderr); code != 1 || stdout != "" || diff != "" {
			t.Errorf("%s: exit code %d, standard output %q, standard error -want +got:\n%s", name, code, stdout, diff)
		}
	}
}

func TestAnAnswerThatMakesNoSenseIsNoSuccess(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	for name, answer := range map[string]http.HandlerFunc{
		"a page":         func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<h1>Welcome</h1>")) },
		"no JSON":        jsonAnswer(`{"name":`),
		"JSON and more":  jsonAnswer(`{"name":"alice"} {"name":"ada"}`),
		"a name twice":   jsonAnswer(`{"name":"alice","name":"ada"}`),
		"another shape":  jsonAnswer(`{"name":{}}`),
		"no UTF-8":       jsonAnswer("{\"name\":\"\xff\"}"),
		"nobody":         jsonAnswer(`{}`),
		"null":           jsonAnswer(`null`),
		"another status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
	} {
		url, _ := serveAnswer(t, answer)
		for _, args := range [][]string{{"whoami"}, {"whoami", "--json"}} {
			code, stdout, stderr := runNoted(t, append(args, "--server", url)...)
			if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "noted: ") {
				t.Errorf("%s, %q: exit code %d, standard output %q, standard error: %s", name, args, code, stdout, stderr)
			}
		}
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	url, _ := serveAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for chunk := bytes.Repeat([]byte(" "), 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	code, _, stderr := runNoted(t, "whoami", "--server", url)
	if code != 1 || !strings.Contains(stderr, "more than 8 MiB") {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
}

func TestAHeaderWithoutEndIsCutOff(t *testing.T) {
	freshHome(t)
	t.Setenv("NOTED_TOKEN", oneToken)
	url, _ := serveAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		jsonAnswer(`{"id":"x","via":"session"}`)(w, r)
	})
	code, stdout, stderr := runNoted(t, "whoami", "--server", url)
	if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "noted: cannot reach "+url+": ") || len(stderr) > 500 {
		t.Errorf("exit code %d, standard output %q, standard error: %s", code, stdout, stderr)
	}
}

func TestAServerThatStaysSilentIsGivenUp(t *testing.T) {
	url, _ := serveAnswer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c, err := newClient(url)
	if err != nil {
		t.Fatal(err)
	}
	if c.http.Timeout <= 0 || c.http.Timeout > 2*time.Minute {
		t.Errorf("a request may take %s", c.http.Timeout)
	}
	c.http.Timeout = 50 * time.Millisecond // the rest of the test need not wait for it
	var who me
	if _, err := c.read(t.Context(), "/v1/me", &who); err == nil || !strings.HasPrefix(err.Error(), "cannot reach "+url+": ") || strings.Contains(err.Error(), "/v1/me") {
		t.Errorf("got %v", err)
	}
}

func TestWhoamiSaysWhoTheCredentialIs(t *testing.T) {
	file := freshHome(t)
	credential := ""
	answers := map[string]string{
		oneToken:   `{"id":"x","kind":"user","name":"Alice","email":"alice@dev.example","via":"session","roles":["user","moderator"],"key":null,"orgs":[],"new":1}`,
		"noted_k1": `{"id":"x","kind":"service","name":"back\u001b]0;up","email":null,"via":"key","roles":[],"key":{"id":"y","role":"key-reader"},"orgs":[]}`,
	}
	url, _ := serveAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		credential = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		jsonAnswer(answers[credential])(w, r)
	})
	if err := file.change(func(s *sessions) { s.Last, s.Servers[url] = url, session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, args ...string) {
		t.Helper()
		code, stdout, stderr := runNoted(t, args...)
		if diff := cmp.Diff(want, stdout); code != 0 || stderr != "" || diff != "" {
			t.Errorf("%s: exit code %d, standard error %q, standard output -want +got:\n%s", what, code, stderr, diff)
		}
	}
	check("the session kept", "name    Alice\ne-mail  alice@dev.example\nvia     session\nroles   user, moderator\nserver  "+url+"\n", "whoami")
	check("its JSON", answers[oneToken]+"\n", "whoami", "--json")
	answers[oneToken] = `{"id":"x","via":"session","name":"` + "a\u202e\u009b" + oneToken + `"}`
	check("JSON with what a terminal obeys", `{"id":"x","via":"session","name":"a\u202e\u009b…"}`+"\n", "whoami", "--json")
	t.Setenv("NOTED_TOKEN", "noted_k1")
	check("a key in NOTED_TOKEN", "name    back\ufffd]0;up\ne-mail  none\nvia     key, key-reader\nroles   none\nserver  "+url+"\n", "whoami")
	t.Setenv("NOTED_SERVER", url)
	keep(t, file, "damaged", 0o600)
	check("NOTED_TOKEN and NOTED_SERVER need no file", answers["noted_k1"]+"\n", "whoami", "--json")
}

func TestWhoamiWithoutALiveCredentialSaysHowToGetOne(t *testing.T) {
	file := freshHome(t)
	url, requests := serveAnswer(t, problemAnswer(401, `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`))
	check := func(what, want string) {
		t.Helper()
		code, stdout, stderr := runNoted(t, "whoami", "--server", url)
		if code != 1 || stdout != "" || stderr != "noted: "+want+"\n" {
			t.Errorf("%s: exit code %d, standard output %q, standard error: %s", what, code, stdout, stderr)
		}
	}
	check("nothing", "not signed in at "+url+"; run: noted login --server "+url)
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests with no credential", n)
	}
	if _, err := os.Stat(string(file)); err == nil {
		t.Error("asking who one is wrote a file")
	}
	if err := file.change(func(s *sessions) { s.Servers[url] = session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	check("an ended session", "not signed in at "+url+" any more; run: noted login --server "+url)
	t.Setenv("NOTED_TOKEN", "noted_k1")
	check("a wrong key", url+" does not accept the token in NOTED_TOKEN")
	before := requests.Load()
	for _, bad := range []string{"two words", "one\nX-Evil: 1", "ünsafe", strings.Repeat("x", 2000)} {
		t.Setenv("NOTED_TOKEN", bad)
		check("no token", "NOTED_TOKEN has something in it that is no token; it must be the key or the session's token alone")
	}
	if n := requests.Load() - before; n != 0 {
		t.Errorf("%d requests with what is no token", n)
	}
}

func TestASessionGoesToItsOwnServerAlone(t *testing.T) {
	file := freshHome(t)
	var got []string
	url, _ := serveAnswer(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		problemAnswer(404, `{}`)(w, r)
	})
	if err := file.change(func(s *sessions) {
		s.Last, s.Servers["https://notes.example"] = "https://notes.example", session{oneToken, soon}
	}); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"whoami", "logout", "login"} {
		_, _, _ = runNoted(t, command, "--server", url)
	}
	if diff := cmp.Diff([]string{""}, got); diff != "" { // login's alone
		t.Errorf("Authorization headers -want +got:\n%s", diff)
	}
}

func TestRetryAfterIsReadAsSecondsOrADateAndBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "17": 17 * time.Second, "-5": 0, "soon": 0, "1e9": 0,
		"99999999":                      24 * time.Hour,
		"18446744073709551615":          24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0,
		"Fri, 02 Jan 2099 03:03:05 GMT": 24 * time.Hour,
	} {
		if got := (answer{header: http.Header{"Retry-After": {text}}}).retryAfter(now); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func FuzzWhatIsShownControlsNoTerminal(f *testing.F) {
	f.Add("a\x1b[2J\u009b\u202e\xff\u200bb", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit = min(limit, 1000); limit < 0 {
			return
		}
		got := printable(text, limit)
		if r := obeyed(got); r != 0 || strings.Contains(got, "\n") {
			t.Errorf("%q becomes %q, with %U", text, got, r)
		}
		if n := utf8.RuneCountInString(got); n > limit+1 {
			t.Errorf("%d characters, want at most %d and a mark", n, limit)
		}
	})
}

func FuzzEscapedJSONIsTheSameJSON(f *testing.F) {
	for _, seed := range []string{"{\"a\u009b\":\"\u202e\x7f\U000e0001\"}", "[\"\u00ad\", 1]", "\"\\u001b\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || !json.Valid([]byte(text)) {
			return
		}
		got := escaped(text)
		if r := obeyed(strings.NewReplacer("\t", "", "\r", "").Replace(got)); r != 0 {
			t.Errorf("%q becomes %q, with %U", text, got, r)
		}
		var before, after any
		if err := json.Unmarshal([]byte(text), &before); err != nil {
			return // a number out of range
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("-before +after:\n%s", diff)
		}
	})
}
