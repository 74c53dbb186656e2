package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"

	"noted/internal/problem"
	"noted/server"
)

const (
	defaultServer = "http://127.0.0.1:8080" // where `noted dev` serves
	tokenVariable = "NOTED_TOKEN"
)

// serverFlag is the flag of every client command.
type serverFlag struct {
	Server string `env:"NOTED_SERVER" placeholder:"URL" help:"The noted server. If left out: that of your last login, else http://127.0.0.1:8080."`
}

// open returns a client of the named server, without a credential.
func (f serverFlag) open(kept sessions) (*client, error) {
	return newClient(cmp.Or(f.Server, kept.Last, defaultServer))
}

// openKept is open that also returns the kept sessions and their file.
func (f serverFlag) openKept() (file sessionFile, kept sessions, c *client, err error) {
	if file, err = findSessionFile(); err != nil {
		return file, kept, nil, err
	}
	if kept, err = file.read(); err != nil {
		return file, kept, nil, err
	}
	c, err = f.open(kept)
	return file, kept, c, err
}

// signedIn returns a client with a credential: the token in NOTED_TOKEN (a session's or a key), else the session
// kept for the server. Without either, the error says how to get one.
func (f serverFlag) signedIn() (*client, error) {
	token := os.Getenv(tokenVariable)
	if token != "" && !bearerToken.MatchString(token) {
		return nil, errors.New(tokenVariable + " has something in it that is no token; it must be the key or the session's token alone")
	}
	var kept sessions
	if token == "" || f.Server == "" { // a script that sets both needs no home folder
		file, err := findSessionFile()
		if err != nil {
			return nil, err
		}
		if kept, err = file.read(); err != nil {
			return nil, err
		}
	}
	c, err := f.open(kept)
	if err != nil {
		return nil, err
	}
	c.token, c.given = token, token != ""
	if !c.given {
		c.token = kept.Servers[c.server].Token
	}
	if c.token == "" {
		return nil, fmt.Errorf("not signed in at %s; run: noted login --server %[1]s", c.server)
	}
	return c, nil
}

// hostName is a DNS name, with internationalized ones in their xn-- form. Non-ASCII characters could imitate
// another name.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?$`)

// parseServer normalizes a server's address to the form that sessions use: scheme and host in lower case, the port
// unless it is the default, nothing more. It never quotes what it refuses, which may contain a password.
func parseServer(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", errors.New("the server's address must be one such as https://notes.example, with no path")
	}
	host := strings.ToLower(u.Hostname())
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() == "":
		host = ip.String()
	case !hostName.MatchString(host):
		return "", errors.New("the server's address must be one such as https://notes.example: a scheme and a name, in ASCII")
	}
	address := host
	if ip.Is6() {
		address = "[" + host + "]"
	}
	scheme := strings.ToLower(u.Scheme)
	switch scheme {
	case "https":
	case "http":
		if !server.IsLoopback(host) {
			return "", fmt.Errorf("http would send your session to %s in clear; write https://%[1]s (http is for 127.0.0.1, [::1] and localhost alone)", address)
		}
	default:
		return "", fmt.Errorf("the server's address must begin with https://, such as https://%s", address)
	}
	if port := u.Port(); port != "" {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return "", errors.New("the server's address has a port that is none")
		}
		if (scheme == "https" && number != 443) || (scheme == "http" && number != 80) {
			address += ":" + strconv.FormatUint(number, 10)
		}
	}
	return scheme + "://" + address, nil
}

// client talks to one server. It trusts the server only with its own credential: not with the terminal, unlimited
// memory or time, or the name of another server.
type client struct {
	server string // as parseServer writes it
	token  string // sent as a bearer token; empty: none
	given  bool   // the token is NOTED_TOKEN's
	http   *http.Client
}

const (
	dialTimeout    = 10 * time.Second
	requestTimeout = time.Minute // one whole request; the longest are a purge and a 1 MiB note
	maxAnswer      = 8 << 20     // a 1 MiB note with every byte escaped as \u00XX, and room
)

func newClient(server string) (*client, error) {
	server, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
		ResponseHeaderTimeout: requestTimeout, IdleConnTimeout: requestTimeout, MaxResponseHeaderBytes: 64 << 10,
	}
	if strings.HasPrefix(server, "https:") {
		transport.Proxy = http.ProxyFromEnvironment // it tunnels, and sees nothing
	} else {
		dialer.Control = onlyLoopback
	}
	return &client{server: server, http: &http.Client{
		Transport: transport, Timeout: requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// onlyLoopback keeps plain HTTP on this machine, whatever localhost resolves to.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().IsLoopback() {
		return errors.New("http goes to this machine alone")
	}
	return nil
}

// answer is the server's answer, whatever its status.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// unreachable is a request that got no answer, or one that is not HTTP.
type unreachable struct {
	server string
	err    error
}

// Error omits the request's path, and any server text that could control a terminal.
func (e *unreachable) Error() string {
	err := e.err
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Sprintf("cannot reach %s: %s", e.server, printable(err.Error(), 300))
}

// Unwrap returns the cause.
func (e *unreachable) Unwrap() error { return e.err }

// send sends one request. It returns *unreachable if there was no answer at all; a status is never an error. An
// empty mediaType means no body.
func (c *client) send(ctx context.Context, method, path, mediaType string, body []byte) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Accept", "application/json, "+problem.MediaType)
	r.Header.Set("User-Agent", "noted-cli/"+version)
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, c.noAnswer(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return answer{}, c.noAnswer(ctx, err)
	}
	if len(text) > maxAnswer {
		return answer{}, fmt.Errorf("%s sent more than %d MiB, which no answer of noted is", c.server, maxAnswer>>20)
	}
	return answer{response.StatusCode, response.Header, text}, nil
}

// noAnswer distinguishes a person's Ctrl-C from a server that is away.
func (c *client) noAnswer(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return stopped(ctx)
	}
	return &unreachable{c.server, err}
}

func stopped(ctx context.Context) error { return fmt.Errorf("stopped: %w", context.Cause(ctx)) }

// sendForm sends a form (application/x-www-form-urlencoded).
func (c *client) sendForm(ctx context.Context, path string, form url.Values) (answer, error) {
	return c.send(ctx, http.MethodPost, path, "application/x-www-form-urlencoded", []byte(form.Encode()))
}

// read is a GET that must get JSON with status 200. It returns *refusal if the server refuses.
func (c *client) read(ctx context.Context, path string, out any) (answer, error) {
	a, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return a, err
	}
	if a.status != http.StatusOK {
		return a, c.refused(a)
	}
	return a, c.decode(a, out)
}

// decode reads an answer's JSON. It ignores unknown members, since a newer server may send more.
func (c *client) decode(a answer, out any) error {
	if !a.is("application/json") || json.Unmarshal(a.body, out) != nil {
		return c.noSense()
	}
	return nil
}

func (c *client) noSense() error {
	return fmt.Errorf("what answers at %s is no noted server, or another version of it: its answer makes no sense here", c.server)
}

func (a answer) is(mediaType string) bool {
	got, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	return err == nil && got == mediaType
}

// retryAfter returns what Retry-After asks for (RFC 9110, 10.2.3), at most a day; 0 if nothing.
func (a answer) retryAfter(now time.Time) time.Duration {
	text := a.header.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		wait = time.Duration(min(seconds, 24*60*60)) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), 24*time.Hour)
}

// refusal is an answer that is not a success.
type refusal struct {
	status int
	text   string // for people, fit for a terminal
}

// Error says what the server said.
func (e *refusal) Error() string { return e.text }

// maxShown bounds how much of one server text is shown.
const maxShown = 500

// refused returns the error for an answer that is not a success: a problem's detail (RFC 9457) with noted's
// additions (the missing permission, the invalid values), or what to do about it.
func (c *client) refused(a answer) error {
	switch {
	case a.status == http.StatusUnauthorized && c.given:
		return &refusal{a.status, fmt.Sprintf("%s does not accept the token in %s", c.server, tokenVariable)}
	case a.status == http.StatusUnauthorized:
		return &refusal{a.status, fmt.Sprintf("not signed in at %s any more; run: noted login --server %[1]s", c.server)}
	case a.status >= 300 && a.status < 400:
		return &refusal{a.status, c.server + " sends on to another address, and a credential is not taken there; name the address that people open with --server"}
	}
	text := fmt.Sprintf("%s answered %d %s", c.server, a.status, http.StatusText(a.status))
	var p problem.Error
	if a.is(problem.MediaType) && json.Unmarshal(a.body, &p) == nil {
		text = c.describe(p, text)
	}
	if wait := a.retryAfter(time.Now()); wait > 0 {
		text += fmt.Sprintf("; try again in %s", wait.Round(time.Second))
	}
	return &refusal{a.status, text}
}

// describe puts a problem in words; otherwise is for one without words.
func (c *client) describe(p problem.Error, otherwise string) string {
	text := cmp.Or(c.show(p.Detail), c.show(p.Title), otherwise)
	if permission := c.show(p.Permission); permission != "" && !strings.Contains(text, permission) {
		text += fmt.Sprintf(" (missing permission: %s)", permission)
	}
	for i, field := range p.Errors {
		if i == 50 {
			text += fmt.Sprintf("\n  and %d more", len(p.Errors)-i)
			break
		}
		text += fmt.Sprintf("\n  %s: %s", cmp.Or(c.show(field.Location), "?"), c.show(field.Message))
	}
	return text
}

// show makes a server's text safe to show: it cannot control the terminal, and our own token is hidden if the
// server returns it.
func (c *client) show(text string) string {
	return printable(c.hide(text), maxShown)
}

func (c *client) hide(text string) string {
	if c.token == "" {
		return text
	}
	return strings.ReplaceAll(text, c.token, "…")
}

// printable replaces invisible characters: controls, which a terminal obeys (including C1 and ESC), invisible and
// direction-changing ones, bad UTF-8. White space becomes a space. It keeps at most limit characters.
func printable(text string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n == limit {
			b.WriteRune('…')
			break
		}
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r):
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
