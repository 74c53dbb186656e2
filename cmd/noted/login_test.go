package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// peer plays the server in a login, as badly as the test wants.
type peer struct {
	url    string
	device http.HandlerFunc // the answer of /auth/device; nil: an honest one
	token  http.HandlerFunc // the answer of /auth/token once answers are used up
	me     http.HandlerFunc // the answer of /v1/me; nil: alice
	logout http.HandlerFunc // the answer of /auth/logout; nil: 204

	mu      sync.Mutex
	answers []http.HandlerFunc // of /auth/token, in order
	forms   []url.Values       // what came to /auth/device and /auth/token
	ended   []string           // the Authorization of each /auth/logout
}

const (
	deviceSecret = "the-secret-device-code" //nolint:gosec // of no server
	pendingBody  = `{"error":"authorization_pending"}`
)

func newPeer(t *testing.T) *peer {
	t.Helper()
	p := &peer{}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := http.NotFound
	switch r.Method + " " + r.URL.Path {
	case "POST /auth/device":
		_ = r.ParseForm()
		p.forms = append(p.forms, r.PostForm)
		if answer = p.device; answer == nil {
			answer = jsonAnswer(p.code(nil))
		}
	case "POST /auth/token":
		_ = r.ParseForm()
		p.forms = append(p.forms, r.PostForm)
		answer = p.token
		if len(p.answers) > 0 {
			answer, p.answers = p.answers[0], p.answers[1:]
		}
	case "GET /v1/me":
		if answer = p.me; answer == nil {
			answer = jsonAnswer(`{"id":"x","kind":"user","name":"Alice","email":"alice@dev.example","via":"session","roles":[],"key":null,"orgs":[]}`)
		}
	case "POST /auth/logout":
		p.ended = append(p.ended, r.Header.Get("Authorization"))
		if answer = p.logout; answer == nil {
			answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
		}
	}
	answer(w, r)
}

// code is an honest answer of /auth/device with changed members; the value "" removes one.
func (p *peer) code(changed map[string]string) string {
	members := map[string]string{
		"device_code": `"` + deviceSecret + `"`, "user_code": `"WDJB-MJHT"`, "verification_uri": `"` + p.url + `/auth/device"`,
		"verification_uri_complete": `"` + p.url + `/auth/device?user_code=WDJB-MJHT"`, "expires_in": "600", "interval": "5",
	}
	for name, value := range changed {
		members[name] = value
		if value == "" {
			delete(members, name)
		}
	}
	var list []string
	for name, value := range members {
		list = append(list, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(list, ",") + "}"
}

// oauth is an answer of /auth/token with a status other than 200.
func oauth(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for pair := range slices.Chunk(headers, 2) {
			w.Header().Set(pair[0], pair[1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func granted(token string) http.HandlerFunc {
	return jsonAnswer(fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":604800}`, token))
}

// hangUp closes the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// clock is a time that passes only during sleeps.
type clock struct {
	at    time.Time
	slept []time.Duration
}

func (c *clock) now() time.Time { return c.at }

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.slept, c.at = append(c.slept, d), c.at.Add(d)
	return ctx.Err()
}

func (c *clock) total() (sum time.Duration) {
	for _, d := range c.slept {
		sum += d
	}
	return sum
}

// login runs only the device login, on the test's own clock.
func (p *peer) login(t *testing.T) (made session, told string, c *clock, err error) {
	t.Helper()
	client, err := newClient(p.url)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c = &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	made, err = (&deviceLogin{client: client, now: c.now, sleep: c.sleep, out: &out}).run(t.Context())
	return made, out.String(), c, err
}

func TestLoginAsksAsOftenAsTheServerWantsAndNoMore(t *testing.T) {
	pending, slower := oauth(400, pendingBody), oauth(400, `{"error":"slow_down"}`)
	const s = time.Second
	for name, c := range map[string]struct {
		code    map[string]string
		answers []http.HandlerFunc
		want    []time.Duration
	}{
		"at once":                {nil, nil, []time.Duration{5 * s}},
		"its interval":           {map[string]string{"interval": "7"}, []http.HandlerFunc{pending, pending}, []time.Duration{7 * s, 7 * s, 7 * s}},
		"no interval":            {map[string]string{"interval": ""}, []http.HandlerFunc{pending}, []time.Duration{5 * s, 5 * s}},
		"a hostile interval":     {map[string]string{"interval": "-1"}, []http.HandlerFunc{pending}, []time.Duration{5 * s, 5 * s}},
		"slow down, for good":    {nil, []http.HandlerFunc{slower, pending, slower, pending}, []time.Duration{5 * s, 10 * s, 10 * s, 15 * s, 15 * s}},
		"too often":              {nil, []http.HandlerFunc{oauth(429, `{}`, "Retry-After", "17"), pending}, []time.Duration{5 * s, 17 * s, 5 * s}},
		"too often, soon again":  {nil, []http.HandlerFunc{oauth(429, `{}`, "Retry-After", "1")}, []time.Duration{5 * s, 5 * s}},
		"too often, no more":     {nil, []http.HandlerFunc{oauth(429, `{}`)}, []time.Duration{5 * s, 5 * s}},
		"away, and back":         {nil, []http.HandlerFunc{hangUp, hangUp, hangUp, pending}, []time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 5 * s}},
		"away for long":          {nil, slices.Repeat([]http.HandlerFunc{hangUp}, 6), []time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 60 * s, 60 * s, 60 * s}},
		"away twice":             {nil, []http.HandlerFunc{hangUp, hangUp, pending, hangUp}, []time.Duration{5 * s, 10 * s, 20 * s, 5 * s, 10 * s}},
		"a proxy without server": {nil, []http.HandlerFunc{oauth(502, `x`), oauth(503, `x`, "Retry-After", "30")}, []time.Duration{5 * s, 10 * s, 30 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			p.device, p.answers, p.token = jsonAnswer(p.code(c.code)), c.answers, granted(oneToken)
			made, told, clock, err := p.login(t)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, clock.slept); diff != "" {
				t.Errorf("slept, -want +got:\n%s", diff)
			}
			want := session{oneToken, clock.at.Add(7 * 24 * time.Hour)}
			if diff := cmp.Diff(want, made); diff != "" {
				t.Errorf("session -want +got:\n%s", diff)
			}
			away := map[string]int{"away, and back": 1, "away for long": 1, "away twice": 2, "a proxy without server": 1}[name]
			if got := strings.Count(told, "trying again"); got != away {
				t.Errorf("it was said %d times that the server is away, want %d:\n%s", got, away, told)
			}
		})
	}
}

func TestLoginSendsWhatTheStandardNames(t *testing.T) {
	p := newPeer(t)
	p.token = granted(oneToken)
	if _, _, _, err := p.login(t); err != nil {
		t.Fatal(err)
	}
	want := []url.Values{
		{"client_id": {"noted-cli"}},
		{"client_id": {"noted-cli"}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {deviceSecret}},
	}
	if diff := cmp.Diff(want, p.forms); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLoginEndsWithWhatTheServerDecided(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"denied":             {oauth(400, `{"error":"access_denied"}`), "denied"},
		"expired":            {oauth(400, `{"error":"expired_token"}`), "expired"},
		"unknown":            {oauth(400, `{"error":"invalid_grant"}`), "does not know this login"},
		"another error":      {oauth(400, `{"error":"invalid_\u001bclient\u202e","error_description":"`+deviceSecret+`"}`), "refuses the login: invalid_\ufffdclient\ufffd"},
		"a problem":          {problemAnswer(403, `{"detail":"Not from here"}`), "Not from here"},
		"a page":             {http.NotFound, "answered 404 Not Found"},
		"a redirect":         {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/x"); w.WriteHeader(307) }, "sends on"},
		"no JSON":            {jsonAnswer(`{"access_token":"` + oneToken), "makes no sense"},
		"a page for token":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Welcome")) }, "makes no sense"},
		"an error for token": {jsonAnswer(pendingBody), "no session that this noted can keep"},
		"no token":           {jsonAnswer(`{"access_token":"","token_type":"Bearer","expires_in":60}`), "no session"},
		"two lines":          {jsonAnswer(`{"access_token":"` + oneToken + `\nX-Evil: 1","token_type":"Bearer","expires_in":60}`), "no session"},
		"another type":       {jsonAnswer(`{"access_token":"` + oneToken + `","token_type":"DPoP","expires_in":60}`), "no session"},
		"expired already":    {jsonAnswer(`{"access_token":"` + oneToken + `","token_type":"Bearer","expires_in":0}`), "no session"},
		"without end":        {jsonAnswer(`{"access_token":"` + oneToken + `","token_type":"Bearer","expires_in":9223372036854775807}`), "no session"},
		"beyond numbers":     {jsonAnswer(`{"access_token":"` + oneToken + `","token_type":"Bearer","expires_in":1e30}`), "makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			p.answers, p.token = []http.HandlerFunc{oauth(400, pendingBody), c.answer}, granted(otherToken)
			made, told, _, err := p.login(t)
			if err == nil || !strings.Contains(err.Error(), c.want) || made.Token != "" {
				t.Fatalf("got %v, %v; want an error with %q in it", made, err, c.want)
			}
			for _, text := range []string{told, err.Error()} {
				if obeyed(text) != 0 || strings.Contains(text, oneToken) || strings.Contains(text, deviceSecret) {
					t.Errorf("%q", text)
				}
			}
			if len(p.forms) != 3 {
				t.Errorf("%d requests, want none after the decision", len(p.forms))
			}
		})
	}
}

func TestLoginWaitsAsLongAsTheCodeLivesAndNeverForEver(t *testing.T) {
	for _, c := range []struct {
		code  map[string]string
		token http.HandlerFunc
		want  time.Duration
	}{
		{map[string]string{"expires_in": "12"}, oauth(400, pendingBody), 12 * time.Second},
		{map[string]string{"expires_in": "600"}, hangUp, 600 * time.Second},
		{map[string]string{"expires_in": "60", "interval": "9223372036854775807"}, oauth(400, pendingBody), time.Minute},
		{map[string]string{"expires_in": "60"}, oauth(429, `{}`, "Retry-After", "99999999999"), time.Minute},
		{map[string]string{"expires_in": "9223372036854775807", "interval": "600"}, oauth(400, pendingBody), time.Hour},
		{map[string]string{"expires_in": "86400"}, oauth(400, `{"error":"slow_down"}`), time.Hour},
	} {
		p := newPeer(t)
		p.device, p.token = jsonAnswer(p.code(c.code)), c.token
		_, _, clock, err := p.login(t)
		if !errors.Is(err, errCodeExpired) || clock.total() != c.want {
			t.Errorf("%v: %v after %s, want the code's end after %s", c.code, err, clock.total(), c.want)
		}
	}
}

func TestLoginShowsNothingThatWouldLeadAPersonAstray(t *testing.T) {
	const evil = "evil.example"
	for name, changed := range map[string]map[string]string{
		"another server":              {"verification_uri": `"https://evil.example/auth/device"`},
		"another server, complete":    {"verification_uri_complete": `"https://evil.example/auth/device?user_code=WDJB-MJHT"`},
		"another port":                {"verification_uri": `"http://127.0.0.1:1/auth/device"`},
		"another scheme":              {"verification_uri": `"https://HOST/auth/device"`},
		"our name as a user":          {"verification_uri": `"http://HOST@evil.example/auth/device"`},
		"a user at our name":          {"verification_uri": `"http://evil.example@HOST/auth/device"`},
		"a backslash":                 {"verification_uri": `"http://evil.example\\@HOST/auth/device"`},
		"a script":                    {"verification_uri": `"javascript:alert(1)"`},
		"no scheme":                   {"verification_uri": `"//HOST/auth/device"`},
		"a path":                      {"verification_uri": `"/auth/device"`},
		"none":                        {"verification_uri": ""},
		"plain http elsewhere":        {"verification_uri": `"http://evil.example/auth/device"`},
		"an escape in the address":    {"verification_uri": `"http://HOST/\u001b[2Jevil.example"`},
		"a C1 control in it":          {"verification_uri": `"http://HOST/\u009bevil.example"`},
		"a line in it":                {"verification_uri": `"http://HOST/\nOpen https://evil.example"`},
		"words in it":                 {"verification_uri": `"http://HOST/ or https://evil.example"`},
		"a turned direction":          {"verification_uri": `"http://HOST/\u202eevil.example"`},
		"letters that look alike":     {"verification_uri": `"http://HOST/\u0430"`},
		"a very long one":             {"verification_uri": `"http://HOST/` + strings.Repeat("x", 5000) + `"`},
		"an escape in the complete":   {"verification_uri_complete": `"http://HOST/\u001b[2Jevil.example"`},
		"a code with an escape":       {"user_code": `"\u001b[2JWDJB-MJHT"`},
		"a code with a line":          {"user_code": `"WDJB\nOpen evil.example"`},
		"a code of words":             {"user_code": `"open evil.example"`},
		"a code that is an address":   {"user_code": `"https://evil.example"`},
		"a code with other letters":   {"user_code": `"WDJB-M\u0408HT"`},
		"a code too long":             {"user_code": `"` + strings.Repeat("WDJB", 20) + `"`},
		"no code":                     {"user_code": ""},
		"no device code":              {"device_code": ""},
		"expired already":             {"expires_in": "0"},
		"expired long ago":            {"expires_in": "-600"},
		"no expiry":                   {"expires_in": ""},
		"an expiry that is no number": {"expires_in": `"600"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			host := strings.TrimPrefix(p.url, "http://")
			p.device, p.token = jsonAnswer(strings.ReplaceAll(p.code(changed), "HOST", host)), granted(oneToken)
			_, told, clock, err := p.login(t)
			if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), "what answers at "), p.url) {
				t.Fatalf("got %v, want an error that names the server", err)
			}
			if told != "" || len(p.forms) != 1 || len(clock.slept) != 0 {
				t.Errorf("%d requests, and this was shown: %s", len(p.forms), told)
			}
			// The other server's name may be shown, so that a mistake in public_url can be found; a full address
			// may not.
			if obeyed(err.Error()) != 0 || strings.Contains(err.Error(), evil+"/") || strings.Contains(err.Error(), deviceSecret) || len(err.Error()) > 300 {
				t.Errorf("the error shows: %q", err)
			}
		})
	}
}

func FuzzWhatLoginShowsIsOfItsOwnServer(f *testing.F) {
	for _, seed := range []string{
		"https://notes.example/auth/device", "https://notes.example:443/", "https://notes.example@evil.example/", "https://notes.example\\.evil.example",
		"https://notes.example%2f@evil.example", "https:notes.example", "HTTPS://NOTES.EXAMPLE/\u202e",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		err := (&client{server: "https://notes.example"}).checkOwn(address)
		if err != nil {
			if obeyed(err.Error()) != 0 {
				t.Errorf("%q", err)
			}
			return
		}
		lower := strings.ToLower(address)
		rest, ok := strings.CutPrefix(lower, "https://notes.example")
		if port, found := strings.CutPrefix(rest, ":"); found {
			rest = strings.TrimLeft(port, "0123456789")
		}
		if !ok || (rest != "" && !strings.ContainsAny(rest[:1], "/?#")) || obeyed(address) != 0 || strings.Contains(address, "\n") {
			t.Errorf("%q would be shown", address)
		}
	})
}

// quick sets the peer's shortest interval, for logins on the real clock.
func (p *peer) quick() { p.device = jsonAnswer(p.code(map[string]string{"interval": "1"})) }

func TestLoginShowsTheAddressAndTheCodeOnStandardErrorAndKeepsTheSession(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	p.answers, p.token = []http.HandlerFunc{oauth(400, pendingBody)}, granted(oneToken)
	before := time.Now()
	code, stdout, stderr := runNoted(t, "login", "--server", p.url+"/")
	if code != 0 || stdout != "" {
		t.Fatalf("exit code %d, standard output %q, standard error: %s", code, stdout, stderr)
	}
	for _, want := range []string{"    " + p.url + "/auth/device\n", "    WDJB-MJHT\n", "    " + p.url + "/auth/device?user_code=WDJB-MJHT\n", "Signed in at " + p.url + " as Alice (alice@dev.example).\n"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error lacks %q:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, oneToken) || strings.Contains(stderr, deviceSecret) {
		t.Errorf("a secret is shown:\n%s", stderr)
	}
	got := kept(t, file)
	expires := got.Servers[p.url].ExpiresAt
	if expires.Before(before.Add(7*24*time.Hour-time.Second)) || expires.After(time.Now().Add(7*24*time.Hour)) {
		t.Errorf("the session ends at %s", expires)
	}
	want := sessions{Last: p.url, Servers: map[string]session{p.url: {oneToken, expires}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept, -want +got:\n%s", diff)
	}
	if len(p.ended) != 0 {
		t.Errorf("sessions were ended: %q", p.ended)
	}
}

func TestASecondLoginEndsTheFirstSessionOnlyOnceItHasAnother(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	if err := file.change(func(s *sessions) {
		s.Last, s.Servers[p.url], s.Servers["https://other.example"] = p.url, session{oneToken, soon}, session{"other", soon}
	}); err != nil {
		t.Fatal(err)
	}
	p.token = oauth(400, `{"error":"access_denied"}`)
	if code, _, stderr := runNoted(t, "login"); code != 1 || !strings.Contains(stderr, "denied") {
		t.Fatalf("exit code %d, standard error: %s", code, stderr)
	}
	if got := kept(t, file).Servers[p.url].Token; got != oneToken || len(p.ended) != 0 {
		t.Fatalf("after a login that was denied %q is kept, and these were ended: %q", got, p.ended)
	}
	p.token = granted(otherToken)
	stored := ""
	p.logout = func(w http.ResponseWriter, _ *http.Request) {
		stored = kept(t, file).Servers[p.url].Token
		w.WriteHeader(http.StatusNoContent)
	}
	if code, _, stderr := runNoted(t, "login"); code != 0 {
		t.Fatalf("exit code %d, standard error: %s", code, stderr)
	}
	if diff := cmp.Diff([]string{"Bearer " + oneToken}, p.ended); diff != "" || stored != otherToken {
		t.Errorf("ended while %q was kept, -want +got:\n%s", stored, diff)
	}
	if got := kept(t, file).Servers["https://other.example"].Token; got != "other" {
		t.Errorf("the session of another server is %q now", got)
	}
}

func TestASessionThatCouldNotBeEndedIsSpokenOfAndTheNewOneKept(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	p.token, p.logout = granted(otherToken), problemAnswer(503, `{"detail":"Away for `+oneToken+`"}`)
	if err := file.change(func(s *sessions) { s.Servers[p.url] = session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runNoted(t, "login", "--server", p.url)
	if code != 0 || !strings.Contains(stderr, "could not be ended") || !strings.Contains(stderr, "Away for …") || strings.Contains(stderr, oneToken) {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
	if got := kept(t, file).Servers[p.url].Token; got != otherToken {
		t.Errorf("%q is kept", got)
	}
}

func TestCtrlCLeavesNoEarlierSessionBehind(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	p.token = granted(otherToken)
	ctx, stop := context.WithCancel(t.Context())
	p.logout = func(w http.ResponseWriter, r *http.Request) {
		stop()
		select {
		case <-r.Context().Done():
			t.Error("the request that ends the earlier session was given up")
		case <-time.After(200 * time.Millisecond):
		}
		w.WriteHeader(http.StatusNoContent)
	}
	if err := file.change(func(s *sessions) { s.Servers[p.url] = session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	_, _, stderr := runNotedUntil(ctx, "login", "--server", p.url)
	if strings.Contains(stderr, "could not be ended") {
		t.Errorf("standard error: %s", stderr)
	}
	if diff := cmp.Diff([]string{"Bearer " + oneToken}, p.ended); diff != "" || kept(t, file).Servers[p.url].Token != otherToken {
		t.Errorf("kept %v, ended -want +got:\n%s", kept(t, file), diff)
	}
}

func TestCtrlCEndsALogoutThatTheServerHoldsUp(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	ctx, stop := context.WithCancelCause(t.Context())
	p.logout = func(_ http.ResponseWriter, r *http.Request) {
		stop(errors.New("interrupted"))
		<-r.Context().Done()
	}
	if err := file.change(func(s *sessions) { s.Servers[p.url] = session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runNotedUntil(ctx, "logout", "--server", p.url)
	if code != 1 || !strings.HasPrefix(stderr, "noted: still signed in: stopped: interrupted\n") || kept(t, file).Servers[p.url].Token != oneToken {
		t.Errorf("exit code %d, kept %v, standard error: %s", code, kept(t, file), stderr)
	}
}

func TestALoginThatCannotBeKeptIsEndedOnTheServer(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	const damaged = "damaged while the person was approving"
	p.token = func(w http.ResponseWriter, r *http.Request) {
		keep(t, file, damaged, 0o600)
		granted(oneToken)(w, r)
	}
	code, _, stderr := runNoted(t, "login", "--server", p.url)
	if code != 1 || !strings.Contains(stderr, "could not be kept, and is ended") || strings.Contains(stderr, oneToken) {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
	if diff := cmp.Diff([]string{"Bearer " + oneToken}, p.ended); diff != "" {
		t.Errorf("ended, -want +got:\n%s", diff)
	}
	if text, err := os.ReadFile(string(file)); err != nil || string(text) != damaged {
		t.Errorf("the file is now %q, %v", text, err)
	}

	if err := os.Remove(string(file)); err != nil {
		t.Fatal(err)
	}
	p.logout = problemAnswer(503, `{"detail":"The database is away"}`)
	code, _, stderr = runNoted(t, "login", "--server", p.url)
	if code != 1 || strings.Contains(stderr, "is ended") || !strings.Contains(stderr, "nor could its session be ended: The database is away") {
		t.Errorf("when it cannot be ended either: exit code %d, standard error: %s", code, stderr)
	}
}

func TestNobodyIsAskedToApproveALoginThatCannotBeKept(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.token = granted(oneToken)
	if err := os.WriteFile(strings.TrimSuffix(string(file), "/sessions.json"), []byte("in the folder's place"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runNoted(t, "login", "--server", p.url)
	if code != 1 || !strings.HasPrefix(stderr, "noted: sessions: ") || len(p.forms) != 0 {
		t.Errorf("exit code %d, %d requests, standard error: %s", code, len(p.forms), stderr)
	}
}

func TestLoginKeepsTheSessionWhenWhoOneIsCannotBeAsked(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	p.quick()
	p.token, p.me = granted(oneToken), problemAnswer(503, `{"detail":"The database is away"}`)
	code, _, stderr := runNoted(t, "login", "--server", p.url)
	if code != 1 || !strings.Contains(stderr, "the session is kept") || !strings.Contains(stderr, "The database is away") {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
	if got := kept(t, file).Servers[p.url].Token; got != oneToken {
		t.Errorf("%q is kept", got)
	}
}

func TestCtrlCEndsTheWaitAndKeepsNothing(t *testing.T) {
	for _, when := range []string{"while waiting", "while asking"} {
		file := freshHome(t)
		p := newPeer(t)
		ctx, stop := context.WithCancelCause(t.Context())
		device := jsonAnswer(p.code(map[string]string{"interval": "1"}))
		interrupt := func() { stop(errors.New("interrupted")) }
		p.device = func(w http.ResponseWriter, r *http.Request) {
			device(w, r)
			if when == "while waiting" {
				time.AfterFunc(50*time.Millisecond, interrupt)
			}
		}
		p.token = func(_ http.ResponseWriter, r *http.Request) {
			interrupt()
			<-r.Context().Done()
		}
		began := time.Now()
		code, _, stderr := runNotedUntil(ctx, "login", "--server", p.url)
		if code != 1 || !strings.HasSuffix(stderr, "noted: stopped: interrupted\n") || time.Since(began) > 20*time.Second {
			t.Errorf("%s: exit code %d after %s, standard error: %s", when, code, time.Since(began), stderr)
		}
		if got := kept(t, file); len(got.Servers) != 0 {
			t.Errorf("%s: kept %v", when, got)
		}
	}
}

func TestLogoutEndsTheSessionOnTheServerAndThenHere(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	if err := file.change(func(s *sessions) {
		s.Last, s.Servers[p.url], s.Servers["https://other.example"] = p.url, session{oneToken, soon}, session{"other", soon}
	}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTED_TOKEN", "noted_k1") // logout must not use this
	code, stdout, stderr := runNoted(t, "logout")
	if code != 0 || stdout != "" || stderr != "Signed out at "+p.url+".\n" {
		t.Errorf("exit code %d, standard output %q, standard error: %s", code, stdout, stderr)
	}
	want := sessions{Last: p.url, Servers: map[string]session{"https://other.example": {"other", soon}}}
	if diff := cmp.Diff(want, kept(t, file)); diff != "" {
		t.Errorf("kept, -want +got:\n%s", diff)
	}
	code, stdout, stderr = runNoted(t, "logout")
	if code != 0 || stdout != "" || stderr != "Not signed in at "+p.url+"; there is nothing to end.\n" {
		t.Errorf("the second time: exit code %d, standard output %q, standard error: %s", code, stdout, stderr)
	}
	if diff := cmp.Diff([]string{"Bearer " + oneToken}, p.ended); diff != "" {
		t.Errorf("ended, -want +got:\n%s", diff)
	}
}

func TestASessionThatTheServerDidNotEndStaysUnlessItIsToBeForgotten(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no server":   hangUp,
		"an error":    problemAnswer(503, `{"detail":"The database is away"}`),
		"a redirect":  func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/"); w.WriteHeader(303) },
		"a page":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Bye")) },
		"too many":    problemAnswer(429, `{"detail":"Too often"}`),
		"not allowed": problemAnswer(405, `{"detail":"Not here"}`),
	} {
		file := freshHome(t)
		p := newPeer(t)
		p.logout = answer
		if err := file.change(func(s *sessions) { s.Last, s.Servers[p.url] = p.url, session{oneToken, soon} }); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := runNoted(t, "logout")
		if code != 1 || !strings.HasPrefix(stderr, "noted: still signed in: ") || !strings.Contains(stderr, "--forget") || !strings.Contains(stderr, "2030-01-02T03:04:05Z") {
			t.Errorf("%s: exit code %d, standard error: %s", name, code, stderr)
		}
		if got := kept(t, file).Servers[p.url].Token; got != oneToken {
			t.Errorf("%s: %q is kept", name, got)
		}
		code, _, stderr = runNoted(t, "logout", "--forget")
		if code != 0 || !strings.HasPrefix(stderr, "Forgotten here; on the server the session lives on until it expires: ") {
			t.Errorf("%s, to be forgotten: exit code %d, standard error: %s", name, code, stderr)
		}
		if got := len(kept(t, file).Servers); got != 0 {
			t.Errorf("%s: %d sessions are kept, which were to be forgotten", name, got)
		}
	}
}

func TestLogoutLeavesALoginOfTheSameMomentAlone(t *testing.T) {
	file := freshHome(t)
	p := newPeer(t)
	if err := file.change(func(s *sessions) { s.Last, s.Servers[p.url] = p.url, session{oneToken, soon} }); err != nil {
		t.Fatal(err)
	}
	p.logout = func(w http.ResponseWriter, _ *http.Request) {
		if err := file.change(func(s *sessions) { s.Servers[p.url] = session{otherToken, soon} }); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}
	if code, _, stderr := runNoted(t, "logout"); code != 0 {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
	if got := kept(t, file).Servers[p.url].Token; got != otherToken {
		t.Errorf("%q is kept", got)
	}
}
