package e2e

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"noted/internal/localpg/pgtest"
)

// laptop is where somebody uses the client: its own home folder.
type laptop struct {
	home string
	env  []string
}

func newLaptop(t *testing.T, env ...string) laptop {
	t.Helper()
	return laptop{publicFolder(t, nil), env}
}

// run runs a command to its end.
func (l laptop) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	code, p := run(t, command{args: args, dir: l.home, env: l.env})
	return code, p.stdout.String(), p.stderr.String()
}

// want runs a command that must succeed, and returns its standard output.
func (l laptop) want(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := l.run(t, args...)
	if code != 0 {
		t.Fatalf("noted %q: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// keptFile is the client's session file.
func (l laptop) keptFile() string { return filepath.Join(l.home, ".config", "noted", "sessions.json") }

// kept returns the client's tokens by server.
func (l laptop) kept(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(l.keptFile())
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Servers map[string]struct {
			Token string `json:"token"`
		} `json:"servers"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for server, one := range file.Servers {
		tokens[server] = one.Token
	}
	return tokens
}

// device is a login under way, and its text for the person.
type device struct {
	*process
	page, code, complete string
}

var (
	codeLine    = regexp.MustCompile(`(?m)^    ([0-9A-Z-]+)$`)
	addressLine = regexp.MustCompile(`(?m)^    (http\S+)$`)
)

// startLogin runs `noted login` until it gives instructions.
func (l laptop) startLogin(t *testing.T, args ...string) *device {
	t.Helper()
	d := &device{process: start(t, command{args: append([]string{"login"}, args...), dir: l.home, env: l.env})}
	d.await(t, settleLimit, "it waits for the person", func() bool { return strings.Contains(d.stderr.String(), "Waiting") })
	addresses, codes := addressLine.FindAllStringSubmatch(d.stderr.String(), -1), codeLine.FindStringSubmatch(d.stderr.String())
	if len(addresses) != 2 || codes == nil {
		t.Fatalf("not two addresses and a code:\n%s", d.stderr.String())
	}
	d.page, d.complete, d.code = addresses[0][1], addresses[1][1], codes[1]
	return d
}

// submit sends a form like a page of the server.
func (b browser) submit(t *testing.T, path string, form url.Values) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Origin": b.base, "Sec-Fetch-Site": "same-origin",
	} {
		r.Header.Set(name, value)
	}
	response, err := b.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(text), url: response.Request.URL.String()}
	if err := b.held(t.Context(), response.Request, a); err != nil {
		t.Fatal(err)
	}
	return a
}

// decide opens the address with the code, and decides there.
func (b browser) decide(t *testing.T, d *device, decision string) {
	t.Helper()
	path, ok := strings.CutPrefix(d.complete, b.base)
	if !ok {
		t.Fatalf("%s is not on %s", d.complete, b.base)
	}
	page := b.do(t, http.MethodGet, path, nil, "Accept", "text/html").want(t, http.StatusOK)
	if !strings.Contains(page.body, d.code) {
		t.Fatalf("the page does not show the code %s to compare:\n%s", d.code, page.body)
	}
	b.submit(t, "/auth/device/confirm", url.Values{"user_code": {d.code}, "decision": {decision}}).want(t, http.StatusOK)
}

// signedIn returns a browser with somebody signed in.
func (d *dev) signedIn(t *testing.T, who string) browser {
	t.Helper()
	b := newBrowser(t, d.url, nil, nil)
	b.signIn(t, "/auth/login?login_hint="+who, "noted_session")
	return b
}

// approved logs the laptop in.
func (l laptop) approved(t *testing.T, b browser, args ...string) *device {
	t.Helper()
	d := l.startLogin(t, args...)
	b.decide(t, d, "approve")
	if code := d.exit(t); code != 0 {
		t.Fatalf("noted login, approved, ends with %d: %s", code, d.stderr.String())
	}
	return d
}

func TestLoginIsApprovedInABrowserAndEndedByLogout(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	alice := server.signedIn(t, "alice")
	l := newLaptop(t, "NOTED_SERVER="+server.url)
	d := l.startLogin(t)
	// The person takes longer than the first poll.
	d.await(t, settleLimit, "it polls", func() bool { return strings.Contains(server.stderr.String(), "route=/auth/token") })
	alice.decide(t, d, "approve")
	if code := d.exit(t); code != 0 {
		t.Fatalf("noted login, approved, ends with %d: %s", code, d.stderr.String())
	}
	if stdout := d.stdout.String(); stdout != "" {
		t.Errorf("login prints on standard output: %s", stdout)
	}
	if d.page != server.url+"/auth/device" {
		t.Errorf("the page to open is %s", d.page)
	}
	if text := d.stderr.String(); !strings.HasSuffix(text, "Signed in at "+server.url+" as alice (alice@dev.example).\n") {
		t.Errorf("login ends with:\n%s", text)
	}
	for path, want := range map[string]os.FileMode{l.keptFile(): 0o600, filepath.Dir(l.keptFile()): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v (%v), want %#o", path, info.Mode(), err, want)
		}
	}
	token := l.kept(t)[server.url]
	if m := plainClient(server.url, token).me(t); m.Name != "alice" || m.Via != "session" {
		t.Errorf("the token kept is of %+v", m)
	}
	who := "name    alice\ne-mail  alice@dev.example\nvia     session\nroles   user\nserver  " + server.url + "\n"
	if diff := cmp.Diff(who, l.want(t, "whoami")); diff != "" {
		t.Errorf("whoami -want +got:\n%s", diff)
	}
	var asked, printed any
	plainClient(server.url, token).get(t, "/v1/me").want(t, http.StatusOK).into(t, &asked)
	if err := json.Unmarshal([]byte(l.want(t, "whoami", "--json")), &printed); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asked, printed); diff != "" {
		t.Errorf("whoami --json -server +printed:\n%s", diff)
	}

	if stdout := l.want(t, "logout"); stdout != "" {
		t.Errorf("logout prints on standard output: %s", stdout)
	}
	plainClient(server.url, token).get(t, "/v1/me").wantUnauthorized(t)
	if m := alice.me(t); m.Name != "alice" {
		t.Errorf("the browser's own session is of %+v now", m)
	}
	if len(l.kept(t)) != 0 {
		t.Errorf("after logout there is a session of %v", l.kept(t))
	}
	if code, stdout, stderr := l.run(t, "whoami"); code != 1 || stdout != "" || !strings.Contains(stderr, "noted login --server "+server.url) {
		t.Errorf("whoami after logout: exit code %d, standard output %q, standard error: %s", code, stdout, stderr)
	}
	if code, _, stderr := l.run(t, "logout"); code != 0 || !strings.Contains(stderr, "Not signed in") {
		t.Errorf("a second logout: exit code %d, standard error: %s", code, stderr)
	}
	for where, text := range map[string]string{"login": d.stderr.String(), "the server's log": server.stderr.String()} {
		wantNone(t, where, text, []string{token})
	}
}

func TestLoginThatThePersonDeniesSignsNobodyIn(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	d := l.startLogin(t, "--server", server.url)
	server.signedIn(t, "alice").decide(t, d, "deny")
	if code := d.exit(t); code != 1 || !strings.HasSuffix(d.stderr.String(), "noted: the login was denied; nothing is signed in\n") {
		t.Errorf("exit code %d, standard error: %s", code, d.stderr.String())
	}
	if len(l.kept(t)) != 0 {
		t.Errorf("a session is kept of %v", l.kept(t))
	}
}

func TestLoginsAtTwoServersStandSideBySide(t *testing.T) {
	t.Parallel()
	one, two := startDev(t, publicFolder(t, nil), nil), startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	l.approved(t, one.signedIn(t, "alice"), "--server", one.url)
	l.approved(t, two.signedIn(t, "bob"), "--server", two.url)
	name := func(args ...string) string {
		var m me
		if err := json.Unmarshal([]byte(l.want(t, append([]string{"whoami", "--json"}, args...)...)), &m); err != nil {
			t.Fatal(err)
		}
		return m.Name + " by " + m.Via
	}
	check := func(want string, args ...string) {
		t.Helper()
		if got := name(args...); got != want {
			t.Errorf("whoami %q is %s, want %s", args, got, want)
		}
	}
	check("bob by session") // at the server of the last login
	check("alice by session", "--server", one.url)
	check("bob by session", "--server", two.url)

	tokens := l.kept(t)
	l.want(t, "logout", "--server", two.url)
	plainClient(two.url, tokens[two.url]).get(t, "/v1/me").wantUnauthorized(t)
	if diff := cmp.Diff(map[string]string{one.url: tokens[one.url]}, l.kept(t)); diff != "" {
		t.Errorf("after logout at one of two, -want +got:\n%s", diff)
	}
	check("alice by session", "--server", one.url)

	key := laptop{l.home, []string{"NOTED_TOKEN=" + one.keys["mona"], "NOTED_SERVER=" + one.url}}
	if got := key.want(t, "whoami"); !strings.Contains(got, "name    mona\n") || !strings.Contains(got, "via     key, key-admin\n") {
		t.Errorf("whoami by mona's key:\n%s", got)
	}
	wrong := laptop{l.home, []string{"NOTED_TOKEN=" + wrongToken, "NOTED_SERVER=" + one.url}}
	if code, _, stderr := wrong.run(t, "whoami"); code != 1 || stderr != "noted: "+one.url+" does not accept the token in NOTED_TOKEN\n" {
		t.Errorf("whoami by a wrong token: exit code %d, standard error: %s", code, stderr)
	}
}

func TestASecondLoginEndsTheSessionOfTheFirst(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	alice := server.signedIn(t, "alice")
	l := newLaptop(t)
	l.approved(t, alice, "--server", server.url)
	first := l.kept(t)[server.url]
	l.approved(t, alice) // the server of the last login
	second := l.kept(t)[server.url]
	plainClient(server.url, first).get(t, "/v1/me").wantUnauthorized(t)
	if m := plainClient(server.url, second).me(t); m.Name != "alice" {
		t.Errorf("the session kept is of %+v", m)
	}
}

func TestLogoutKeepsTheSessionWhileTheServerIsDown(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	l.approved(t, server.signedIn(t, "alice"), "--server", server.url)
	token := l.kept(t)[server.url]
	server.stop(t)
	code, _, stderr := l.run(t, "logout")
	if code != 1 || !strings.Contains(stderr, "cannot reach "+server.url) || !strings.Contains(stderr, "--forget") {
		t.Errorf("exit code %d, standard error: %s", code, stderr)
	}
	if got := l.kept(t)[server.url]; got != token {
		t.Error("the session is not kept any more")
	}
	l.want(t, "logout", "--forget")
	if len(l.kept(t)) != 0 {
		t.Errorf("a session is kept of %v", l.kept(t))
	}
}

func TestLoginThatIsInterruptedKeepsNothing(t *testing.T) {
	t.Parallel()
	server := startDev(t, publicFolder(t, nil), nil)
	l := newLaptop(t)
	d := l.startLogin(t, "--server", server.url)
	d.signal(os.Interrupt)
	if code := d.exit(t); code != 1 || !strings.Contains(d.stderr.String(), "\nnoted: stopped: ") {
		t.Errorf("exit code %d, standard error: %s", code, d.stderr.String())
	}
	if len(l.kept(t)) != 0 {
		t.Errorf("a session is kept of %v", l.kept(t))
	}
}

// certificate writes the certificate of the site's proxy.
func (s *site) certificate(t *testing.T) (path string) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: s.tls}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.public, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return writeFile(t, s.dir, "proxy.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown.Raw})))
}

func TestLoginGoesThroughATLSProxyToTheAddressThatPeopleOpen(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs SSL_CERT_FILE, which Go reads on Linux")
	}
	s := newSite(t, pgtest.URL(t), "")
	s.serve(t, nil)
	ada := s.browser(t)
	ada.signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	l := newLaptop(t, "SSL_CERT_FILE="+s.certificate(t))
	l.approved(t, ada, "--server", s.public)
	if got := l.want(t, "whoami"); !strings.Contains(got, "name    ada\n") || !strings.Contains(got, "server  "+s.public+"\n") {
		t.Errorf("whoami:\n%s", got)
	}
	sessions := list[struct {
		UserAgent string `json:"user_agent"`
	}](t, ada.client, "/v1/me/sessions")
	clients := 0
	for _, one := range sessions {
		if strings.HasPrefix(one.UserAgent, "noted-cli/") {
			clients++
		}
	}
	if len(sessions) != 2 || clients != 1 {
		t.Errorf("ada sees these sessions of hers: %+v", sessions)
	}

	// The address behind the proxy is not the server that people open.
	code, _, stderr := l.run(t, "login", "--server", s.direct)
	if code != 1 || !strings.Contains(stderr, "another server") || !strings.Contains(stderr, s.public) || strings.Contains(stderr, "Waiting") {
		t.Errorf("login at the address behind the proxy: exit code %d, standard error: %s", code, stderr)
	}
	stranger := newLaptop(t)
	code, _, stderr = stranger.run(t, "login", "--server", s.public)
	if code != 1 || !strings.Contains(stderr, "cannot reach "+s.public+": tls: ") {
		t.Errorf("login at a server with an unknown certificate: exit code %d, standard error: %s", code, stderr)
	}
}

func TestLoginEndsWhenTheServerSaysThatTheCodeHasExpired(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs SSL_CERT_FILE, which Go reads on Linux")
	}
	database := pgtest.URL(t)
	s := newSite(t, database, "")
	s.serve(t, nil)
	l := newLaptop(t, "SSL_CERT_FILE="+s.certificate(t))
	d := l.startLogin(t, "--server", s.public)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// Its ten minutes are over.
	done, err := conn.Exec(t.Context(), "update device_logins set created_at = created_at - interval '1 hour', expires_at = expires_at - interval '1 hour'")
	if err != nil || done.RowsAffected() != 1 {
		t.Fatalf("%d logins are under way (%v), want this one", done.RowsAffected(), err)
	}
	if code := d.exit(t); code != 1 || !strings.HasSuffix(d.stderr.String(), "noted: nobody approved before the code expired; run noted login again\n") {
		t.Errorf("exit code %d, standard error: %s", code, d.stderr.String())
	}
	if len(l.kept(t)) != 0 {
		t.Errorf("a session is kept of %v", l.kept(t))
	}
}
