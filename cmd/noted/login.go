package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/go-json-experiment/json"
)

type loginCommand struct {
	serverFlag
}

// Help is shown by `noted login --help`.
func (*loginCommand) Help() string {
	return `It shows an address and a code; open the address in a browser on any device, sign in there and
approve. The session is kept in noted/sessions.json in your configuration folder ($XDG_CONFIG_HOME, else
~/.config), one for each server, readable by you alone. An earlier session of this command at the
same server is ended.`
}

// Run logs in by RFC 8628, keeps the session and prints who is logged in.
func (l *loginCommand) Run(ctx context.Context, to streams) error {
	file, err := findSessionFile()
	if err != nil {
		return err
	}
	// Nobody should approve a login that cannot be kept.
	if err := file.prepare(); err != nil {
		return err
	}
	kept, err := file.read()
	if err != nil {
		return err
	}
	c, err := l.open(kept)
	if err != nil {
		return err
	}
	made, err := (&deviceLogin{client: c, now: time.Now, sleep: sleep, out: to.err}).run(ctx)
	if err != nil {
		return err
	}
	c.token = made.Token
	var earlier session
	if err := file.change(func(kept *sessions) {
		earlier = kept.Servers[c.server]
		kept.Servers[c.server] = made
		kept.Last = c.server
	}); err != nil {
		ctx, cancel := mopUp(ctx)
		defer cancel()
		if left := c.logout(ctx); left != nil {
			return errors.Join(fmt.Errorf("the login was approved, but could not be kept: %w", err), fmt.Errorf("nor could its session be ended: %w", left))
		}
		return fmt.Errorf("the login was approved, but could not be kept, and is ended: %w", err)
	}
	if earlier.Token != "" && earlier.Token != made.Token {
		ctx, cancel := mopUp(ctx)
		defer cancel()
		before := &client{server: c.server, token: earlier.Token, http: c.http}
		if err := before.logout(ctx); err != nil {
			_, _ = fmt.Fprintf(to.err, "noted: your earlier session at %s could not be ended, and lives on there until it expires: %v\n", c.server, err)
		}
	}
	who, _, err := c.me(ctx)
	if err != nil {
		return fmt.Errorf("the session is kept, but who you are could not be asked: %w", err)
	}
	_, err = fmt.Fprintf(to.err, "Signed in at %s as %s (%s).\n", c.server, c.show(who.Name), cmp.Or(c.show(who.Email), "no e-mail"))
	return err
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return stopped(ctx)
	}
}

// mopUp returns a context that outlives a Ctrl-C, to end a session that nobody would know of.
func mopUp(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
}

// logout ends the client's session on the server.
func (c *client) logout(ctx context.Context) error {
	a, err := c.send(ctx, http.MethodPost, "/auth/logout", "", nil)
	if err != nil {
		return err
	}
	if a.status != http.StatusNoContent {
		return c.refused(a)
	}
	return nil
}

// deviceLogin is the client's side of an RFC 8628 login.
type deviceLogin struct {
	client *client
	now    func() time.Time
	sleep  func(context.Context, time.Duration) error
	out    io.Writer // what the person reads
}

// deviceCode is the first answer (RFC 8628, 3.2).
type deviceCode struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"` // may be missing
	ExpiresIn               int64  `json:"expires_in"`                // seconds
	Interval                int64  `json:"interval"`                  // seconds; 5 if missing
}

const (
	clientID        = "noted-cli"
	grantDeviceCode = "urn:ietf:params:oauth:grant-type:device_code"

	usualInterval = 5 * time.Second         // RFC 8628, 3.2
	slowDown      = 5 * time.Second         // RFC 8628, 3.5
	maxBackOff    = 60 * time.Second        // between two tries if the server is away
	maxCodeLife   = time.Hour               // the longest wait, whatever the server says
	maxSession    = 10 * 365 * 24 * 60 * 60 // seconds
)

var (
	errDenied      = errors.New("the login was denied; nothing is signed in")
	errCodeExpired = errors.New("nobody approved before the code expired; run noted login again")
	errCodeUnknown = errors.New("the server does not know this login any more; run noted login again")
)

// userCode matches a code that people type; anything else might be more than a code.
var userCode = regexp.MustCompile(`^[0-9A-Za-z](-?[0-9A-Za-z]){3,31}$`)

// run returns the new session once somebody has approved it.
func (d *deviceLogin) run(ctx context.Context) (session, error) {
	code, err := d.begin(ctx)
	if err != nil {
		return session{}, err
	}
	expires := d.now().Add(seconds(code.ExpiresIn))
	d.invite(code, expires)
	return d.poll(ctx, code, expires)
}

// seconds converts a server's number of seconds, at most maxCodeLife.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, int64(maxCodeLife/time.Second))) * time.Second
}

// begin asks for a code and refuses an answer that would mislead a person.
func (d *deviceLogin) begin(ctx context.Context) (code deviceCode, err error) {
	a, err := d.client.sendForm(ctx, "/auth/device", url.Values{"client_id": {clientID}})
	if err != nil {
		return code, err
	}
	if a.status != http.StatusOK {
		return code, d.client.refused(a)
	}
	if err := d.client.decode(a, &code); err != nil {
		return code, err
	}
	if code.DeviceCode == "" || code.ExpiresIn <= 0 || !userCode.MatchString(code.UserCode) {
		return code, fmt.Errorf("%s answered with no code that could be typed; nothing of it is shown", d.client.server)
	}
	if err := d.client.checkOwn(code.VerificationURI); err != nil {
		return code, err
	}
	if code.VerificationURIComplete != "" {
		err = d.client.checkOwn(code.VerificationURIComplete)
	}
	return code, err
}

// checkOwn refuses an address on another server: a person who named one server must not be sent to sign in
// elsewhere.
func (c *client) checkOwn(address string) error {
	for _, r := range address {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"<>\^{|}`+"`", r) {
			return fmt.Errorf("%s answered with something else than an address to open; it is not shown", c.server)
		}
	}
	u, err := url.Parse(address)
	if err != nil || u.User != nil || len(address) > 500 {
		return fmt.Errorf("%s answered with something else than an address to open; it is not shown", c.server)
	}
	origin, err := parseServer(u.Scheme + "://" + u.Host)
	if err != nil {
		return fmt.Errorf("%s would send you to sign in where no noted server can be; refused", c.server)
	}
	if origin != c.server {
		return fmt.Errorf("%s would send you to another server to sign in (%s); refused. A noted server is to be named by the address that people open, its public_url", c.server, origin)
	}
	return nil
}

// invite tells the person what to do (RFC 8628, 3.3).
func (d *deviceLogin) invite(code deviceCode, expires time.Time) {
	_, _ = fmt.Fprintf(d.out, "To log in to %s, open this address in a browser, on any device,\n\n    %s\n\nand type in the code\n\n    %s\n\n",
		d.client.server, code.VerificationURI, code.UserCode)
	if code.VerificationURIComplete != "" {
		_, _ = fmt.Fprintf(d.out, "This address has the code in it already; compare it with the one above:\n\n    %s\n\n", code.VerificationURIComplete)
	}
	_, _ = fmt.Fprintf(d.out, "Waiting for you to approve, for %s; Ctrl-C gives up. Give the code to nobody.\n", expires.Sub(d.now()).Round(time.Second))
}

// poll asks until somebody decides or the code expires (RFC 8628, 3.4 and 3.5).
func (d *deviceLogin) poll(ctx context.Context, code deviceCode, expires time.Time) (session, error) {
	form := url.Values{"grant_type": {grantDeviceCode}, "device_code": {code.DeviceCode}, "client_id": {clientID}}
	interval := usualInterval
	if code.Interval > 0 {
		interval = seconds(code.Interval)
	}
	next, failures := interval, 0
	for {
		left := expires.Sub(d.now())
		if err := d.sleep(ctx, min(next, left)); err != nil {
			return session{}, err
		}
		if next >= left {
			return session{}, errCodeExpired
		}
		a, err := d.client.sendForm(ctx, "/auth/token", form)
		if err == nil && a.status >= 500 {
			err = &unreachable{d.client.server, d.client.refused(a)}
		}
		if away := (*unreachable)(nil); errors.As(err, &away) {
			// "MUST unilaterally reduce their polling frequency", such as by doubling the interval.
			if failures == 0 {
				_, _ = fmt.Fprintf(d.out, "noted: %v; trying again until the code expires\n", err)
			}
			failures++
			next = max(interval, min(interval<<min(failures, 10), maxBackOff), a.retryAfter(d.now()))
			continue
		}
		if err != nil {
			return session{}, err
		}
		failures = 0
		switch reason := a.oauthError(); {
		case a.status == http.StatusOK:
			return d.accept(a)
		case a.status == http.StatusTooManyRequests, reason == "authorization_pending":
		case reason == "slow_down":
			interval += slowDown
		case reason == "access_denied":
			return session{}, errDenied
		case reason == "expired_token":
			return session{}, errCodeExpired
		case reason == "invalid_grant":
			return session{}, errCodeUnknown
		case reason != "":
			return session{}, fmt.Errorf("%s refuses the login: %s", d.client.server, d.client.show(reason))
		default:
			return session{}, d.client.refused(a)
		}
		next = max(interval, a.retryAfter(d.now()))
	}
}

// oauthError returns the error of an OAuth answer (RFC 6749, 5.2); empty for any other answer.
func (a answer) oauthError() string {
	var body struct {
		Error string `json:"error"`
	}
	if a.status < 400 || !a.is("application/json") || json.Unmarshal(a.body, &body) != nil {
		return ""
	}
	return body.Error
}

// grant is the answer after approval (RFC 6749, 5.1).
type grant struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"` // seconds
}

func (d *deviceLogin) accept(a answer) (session, error) {
	var g grant
	if err := d.client.decode(a, &g); err != nil {
		return session{}, err
	}
	if !bearerToken.MatchString(g.AccessToken) || !strings.EqualFold(g.TokenType, "Bearer") || g.ExpiresIn <= 0 || g.ExpiresIn > maxSession {
		return session{}, fmt.Errorf("%s approved the login, but sent no session that this noted can keep", d.client.server)
	}
	return session{g.AccessToken, d.now().Add(time.Duration(g.ExpiresIn) * time.Second).UTC().Truncate(time.Second)}, nil
}

type logoutCommand struct {
	serverFlag
	Forget bool `help:"Remove the session here even if the server cannot be told; there it then lives on until it expires."`
}

// Help is shown by `noted logout --help`.
func (*logoutCommand) Help() string {
	return `It ends the session that noted login made: on the server, and then here. If there is none, it says so and
succeeds, since then all is as asked. ` + tokenVariable + ` is left alone: a key is revoked, not logged out.`
}

// Run ends the session on the server and removes it here. If the server cannot be told, the session stays here, so
// that it can be ended later; --forget removes it anyway.
func (l *logoutCommand) Run(ctx context.Context, to streams) error {
	file, kept, c, err := l.openKept()
	if err != nil {
		return err
	}
	c.token = kept.Servers[c.server].Token
	if c.token == "" {
		_, err := fmt.Fprintf(to.err, "Not signed in at %s; there is nothing to end.\n", c.server)
		return err
	}
	failed := c.logout(ctx)
	if failed != nil && !l.Forget {
		return fmt.Errorf("still signed in: %w\nnoted logout --forget removes the session here all the same; on the server it then lives on until %s",
			failed, kept.Servers[c.server].ExpiresAt.Format(time.RFC3339))
	}
	if err := file.change(func(kept *sessions) {
		if kept.Servers[c.server].Token == c.token { // not a login's from this very moment
			delete(kept.Servers, c.server)
		}
	}); err != nil {
		return err
	}
	if failed != nil {
		_, err = fmt.Fprintf(to.err, "Forgotten here; on the server the session lives on until it expires: %v\n", failed)
		return err
	}
	_, err = fmt.Fprintf(to.err, "Signed out at %s.\n", c.server)
	return err
}

type whoamiCommand struct {
	serverFlag
	JSON bool `name:"json" help:"Print the server's own answer, GET /v1/me."`
}

// Help is shown by `noted whoami --help`.
func (*whoamiCommand) Help() string {
	return `The credential is the one in ` + tokenVariable + `, a key or a session's token, if that variable is set; a script sets it
and NOTED_SERVER. Else it is the session of noted login.`
}

// me is GET /v1/me.
type me struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Email string   `json:"email"` // null of a service
	Via   string   `json:"via"`
	Roles []string `json:"roles"`
	Key   *struct {
		Role string `json:"role"`
	} `json:"key"`
}

// me asks whose the credential is.
func (c *client) me(ctx context.Context) (who me, a answer, err error) {
	a, err = c.read(ctx, "/v1/me", &who)
	if err == nil && (who.ID == "" || who.Via == "") {
		err = c.noSense()
	}
	return who, a, err
}

// Run prints who is signed in.
func (w *whoamiCommand) Run(ctx context.Context, to streams) error {
	c, err := w.signedIn()
	if err != nil {
		return err
	}
	who, a, err := c.me(ctx)
	if err != nil {
		return err
	}
	if w.JSON {
		_, err = fmt.Fprintln(to.out, escaped(c.hide(strings.TrimSpace(string(a.body)))))
		return err
	}
	via := c.show(who.Via)
	if who.Key != nil {
		via += ", " + c.show(who.Key.Role)
	}
	_, err = fmt.Fprintf(to.out, "name    %s\ne-mail  %s\nvia     %s\nroles   %s\nserver  %s\n",
		c.show(who.Name), cmp.Or(c.show(who.Email), "none"), via, cmp.Or(c.show(strings.Join(who.Roles, ", ")), "none"), c.server)
	return err
}

// escaped writes JSON's invisible characters as escapes, so that a terminal shows them and does not obey them. The
// JSON stays the same to programs: such characters occur only in strings.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) || r == '\n' || r == '\r' || r == '\t' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			_, _ = fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
