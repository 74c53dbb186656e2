package orgs_test

import (
	"bufio"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"noted/internal/mailtest"
	"noted/orgs"
	"noted/server"
	"noted/server/servertest"
)

func withMail(address string) func(*server.Options) {
	return func(o *server.Options) {
		o.Settings.SMTPURL, o.Settings.MailFrom = "smtp://"+address, "noted <noted@dev.example>"
	}
}

// read parses a mail: recipient, header and text.
func read(t *testing.T, sent string) (to string, header mail.Header, text string) {
	t.Helper()
	to, raw, _ := strings.Cut(sent, "\n")
	message, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	body := new(strings.Builder)
	if _, err := bufio.NewReader(quotedprintable.NewReader(message.Body)).WriteTo(body); err != nil {
		t.Fatal(err)
	}
	return to, message.Header, strings.ReplaceAll(body.String(), "\r\n", "\n")
}

func TestAnInvitationIsMailed(t *testing.T) {
	server := mailtest.New(t, false)
	env := servertest.New(t, withMail(server.Address))
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "Ärger & Söhne")
	made := invite(t, env, alice, org, "bob@dev.example", "writer")
	if !made.Mailed || len(server.Mail()) != 1 {
		t.Fatalf("mailed is %t, %d mails came", made.Mailed, len(server.Mail()))
	}
	to, header, text := read(t, server.Mail()[0])
	subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
	switch {
	case !strings.Contains(to, "<bob@dev.example>"):
		t.Errorf("it went to %s", to)
	case err != nil || subject != `Invitation to an organization on noted: "Ärger & Söhne"`:
		t.Errorf("its subject is %q, %v", subject, err)
	case header.Get("To") != "<bob@dev.example>" || header.Get("From") != `"noted" <noted@dev.example>`:
		t.Errorf("its header is %v", header)
	case !strings.Contains(text, "\n"+env.URL+"/invitation#"+made.Token+"\n") || !strings.Contains(text, "\nWho invites:       \"alice\"\nThe organization:  \"Ärger & Söhne\"\n"):
		t.Errorf("it says %s", text)
	}
	if strings.Contains(env.Log.String(), made.Token) {
		t.Error("the token is in the log")
	}
	want(t, "accepting", accept(t, env, env.SignIn(t, "bob"), made.Token), http.StatusOK)
}

// Mail comes from noted. Strangers' words in it must not look like noted's.
func TestAMailQuotesWhatStrangersWrote(t *testing.T) {
	server := mailtest.New(t, false)
	env := servertest.New(t, withMail(server.Address))
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	secret := serviceKey(t, env, alice, org, "admin", "key-admin").Secret
	// A database may still hold names that requests no longer allow.
	env.Exec(t, `alter table orgs drop constraint orgs_name`)
	env.Exec(t, `alter table keys drop constraint keys_name`)
	whole := regexp.MustCompile(`^You are invited to an organization on noted, as its reader\.

Who invites:       "([^"\n]*)"
The organization:  "([^"\n]*)"

Both are called so by themselves\. If you know them, open this link and sign in with this e-mail address to accept:

` + regexp.QuoteMeta(env.URL) + `/invitation#[0-9A-Za-z]{43}

It counts once, until [^\n]+ UTC\. If you did not expect it, ignore it\.
$`)
	for name, shown := range map[string]string{
		"acme":                                    "acme",
		"Acme Inc. of J.R. Hartley":               "Acme Inc. of J. R. Hartley",
		"evil.example/login":                      "evil. example/login",
		"https://evil.example/login":              "https: //evil. example/login",
		"http://3232235777/":                      "http: //3232235777/",
		"evil。example":                            "evil。 example",
		"acme\r\nBcc: everybody@dev.example":      "acmeBcc: everybody@dev. example",
		"acme\n\nYour account is locked. Open it": "acmeYour account is locked. Open it",
		"acme\"\u2028Open \"this":                 "acme'Open 'this",
		"acme” on noted: open “this":              "acme' on noted: open 'this",
		"\u202egro.live":                          "gro. live",
		strings.Repeat("x", 200):                  strings.Repeat("x", 99) + "…",
		"\x00\u2066"[1:]:                          "",
	} {
		env.Exec(t, `update orgs set name = $1`, name)
		env.Exec(t, `update keys set name = left($1, 100)`, name)
		server.Forget()
		if made := invite(t, env, secret, org, "bob@dev.example", "reader"); !made.Mailed {
			t.Fatalf("%q: not mailed", name)
		}
		_, header, text := read(t, server.Mail()[0])
		subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
		if err != nil || subject != `Invitation to an organization on noted: "`+shown+`"` {
			t.Errorf("%q: the subject is %q, %v", name, subject, err)
		}
		if header.Get("Bcc") != "" || len(header["To"]) != 1 || len(header["Subject"]) != 1 {
			t.Errorf("%q: the header is %v", name, header)
		}
		if match := whole.FindStringSubmatch(text); len(match) != 3 || match[2] != shown || match[1] != shown && len(name) < 100 {
			t.Errorf("%q: the mail says %s", name, text)
		}
	}
}

func TestAMailServerThatIsDownOrRefusesLosesNoInvitation(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	for what, address := range map[string]string{"down": down.Addr().String(), "refusing": mailtest.New(t, true).Address} {
		env := servertest.New(t, withMail(address))
		alice := env.SignIn(t, "alice")
		made := invite(t, env, alice, env.NewOrg(t, alice, "acme"), "bob@dev.example", "writer")
		if made.Mailed || made.Token == "" || !strings.Contains(env.Log.String(), "could not be mailed") {
			t.Errorf("%s: mailed is %t; the log says %s", what, made.Mailed, env.Log)
		}
		if strings.Contains(env.Log.String(), made.Token) {
			t.Errorf("%s: the token is in the log", what)
		}
		want(t, what+": accepting", accept(t, env, env.SignIn(t, "bob"), made.Token), http.StatusOK)
	}
}

func TestMailSettings(t *testing.T) {
	for _, url := range []string{"smtp://mail.example", "smtp://mail.example:25", "smtps://user:pass%20word@mail.example:465", "smtp://[::1]:2525", "smtp://user:p@mail.example/"} {
		if _, err := orgs.NewMailer(url, "noted <noted@example.com>"); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"", "mail.example:25", "http://mail.example", "smtp://", "smtp://user:sesame@", "smtp://user:sesame@mail.example:0", "smtp://user:sesame@mail.example/x", "smtp://user:sesame@mail example", "smtp://user:sesame@mail.example:port"} {
		_, err := orgs.NewMailer(url, "noted@example.com")
		if err == nil || !strings.Contains(err.Error(), "smtp_url") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := orgs.NewMailer("smtp://mail.example", "nobody"); err == nil || !strings.Contains(err.Error(), "mail_from") {
		t.Errorf("a sender that is none: %v", err)
	}
}

// noted cannot send mail to strangers.
func TestOnlySoManyInvitationsAreMailedInAnHour(t *testing.T) {
	server := mailtest.New(t, false)
	env := servertest.New(t, withMail(server.Address))
	alice := env.SignIn(t, "alice")
	first, second := env.NewOrg(t, alice, "first"), env.NewOrg(t, alice, "second")
	for i := range 33 {
		org := []string{first, second}[i%2]
		made := invite(t, env, alice, org, fmt.Sprintf("stranger%d@example.com", i), "reader")
		if made.Mailed != (i < 30) {
			t.Errorf("invitation %d: mailed is %t", i+1, made.Mailed)
		}
	}
	if len(server.Mail()) != 30 {
		t.Errorf("%d mails were sent, want 30", len(server.Mail()))
	}
	anHourLater(t, env)
	if made := invite(t, env, alice, first, "later@example.com", "reader"); !made.Mailed {
		t.Error("an hour later none is mailed")
	}
}

// anHourLater ages all counts by an hour.
func anHourLater(t *testing.T, env *servertest.Env) {
	t.Helper()
	env.Exec(t, `update counts set times = array(select t - interval '1 hour' from unnest(times) t)`)
}

func TestNothingGivesMailsBack(t *testing.T) {
	server := mailtest.New(t, false)
	env := servertest.New(t, withMail(server.Address))
	alice := env.SignIn(t, "alice")
	mailed := func(as, org string, n int) (count int) {
		for i := range n {
			if invite(t, env, as, org, fmt.Sprintf("stranger%d@example.com", i), "reader").Mailed {
				count++
			}
		}
		return count
	}
	org := env.NewOrg(t, alice, "first")
	if got := mailed(alice, org, 10); got != 10 {
		t.Errorf("by a session: %d of 10 are mailed", got)
	}
	_, own := env.NewKey(t, alice, "key-admin")
	if got := mailed(own, org, 10); got != 10 {
		t.Errorf("by a key of hers: %d of 10 are mailed", got)
	}
	want(t, "deleting it", env.Do(t, http.MethodDelete, "/v1/orgs/"+org, alice, nil), http.StatusNoContent)
	org = env.NewOrg(t, alice, "second")
	service := serviceKey(t, env, alice, org, "admin", "key-admin")
	if got := mailed(service.Secret, org, 9); got != 9 {
		t.Errorf("by a service key that she made: %d of 9 are mailed", got)
	}
	want(t, "revoking it", env.Do(t, http.MethodDelete, "/v1/orgs/"+org+"/keys/"+service.ID, alice, nil), http.StatusNoContent)
	again := serviceKey(t, env, alice, org, "admin", "key-admin").Secret
	if got := mailed(again, org, 3); got != 1 {
		t.Errorf("30 an hour for alice, whatever she does it with: then %d are mailed", got)
	}
	// Bob's secret counts for bob, and for the organization.
	bob := env.Join(t, alice, org, "bob", "admin")
	rotated := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys/"+serviceKey(t, env, alice, org, "admin", "key-admin").ID+"/rotate", bob, nil)
	want(t, "bob rotates a key of hers", rotated, http.StatusCreated)
	var key struct{ Secret string }
	rotated.JSON(t, &key)
	if got := mailed(key.Secret, org, 22); got != 20 {
		t.Errorf("30 an hour for the organization: by bob's secret %d are mailed", got)
	}
	if got := mailed(bob, env.NewOrg(t, bob, "bob's"), 12); got != 10 {
		t.Errorf("30 an hour for bob: %d are mailed after the 20", got)
	}
	anHourLater(t, env)
	if got := mailed(alice, org, 1); got != 1 {
		t.Error("an hour later none is mailed")
	}
}

func TestSomebodyMakesSoManyOrganizationsInADay(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	_, key := env.NewKey(t, alice, "key-admin")
	var mu sync.Mutex
	var wait sync.WaitGroup
	var made []string
	for i := range 30 {
		wait.Go(func() {
			a := env.Do(t, http.MethodPost, "/v1/orgs", []string{alice, key}[i%2], map[string]string{"name": "acme"})
			var org struct{ ID string }
			a.JSON(t, &org)
			mu.Lock()
			defer mu.Unlock()
			seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
			switch {
			case a.Status == http.StatusCreated:
				made = append(made, org.ID)
			case a.Status != http.StatusTooManyRequests || seconds < 86000 || seconds > 86401:
				t.Errorf("beyond the limit: %d %s, Retry-After %d", a.Status, a.Body, seconds)
			}
		})
	}
	wait.Wait()
	if len(made) != 20 {
		t.Errorf("30 at once made %d organizations, want 20", len(made))
	}
	for _, org := range made {
		want(t, "deleting one", env.Do(t, http.MethodDelete, "/v1/orgs/"+org, alice, nil), http.StatusNoContent)
	}
	post := func() servertest.Answer {
		return env.Do(t, http.MethodPost, "/v1/orgs", alice, map[string]string{"name": "acme"})
	}
	want(t, "when all are deleted", post(), http.StatusTooManyRequests)
	env.NewOrg(t, env.SignIn(t, "bob"), "another's")
	env.Exec(t, `update counts set times = (select array_agg(t - interval '1 day' order by t) from unnest(times[1:3]) t) || times[4:]`)
	for range 3 {
		want(t, "when three are a day old", post(), http.StatusCreated)
	}
	want(t, "and then", post(), http.StatusTooManyRequests)
}

func TestAnInstallationMayLimitNoOrganizations(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) { o.Settings.OrgsPerDay = 0 })
	alice := env.SignIn(t, "alice")
	for range 25 {
		env.NewOrg(t, alice, "acme")
	}
}

func TestCountsAreTidiedOnceTheyCountForNothing(t *testing.T) {
	env := servertest.New(t)
	env.NewOrg(t, env.SignIn(t, "alice"), "acme")
	env.NewOrg(t, env.SignIn(t, "bob"), "acme")
	env.Exec(t, `update counts set times = array[now() - interval '1 day'] where who = $1`, idOf(t, env, env.SignIn(t, "alice")))
	if err := env.Server.Orgs.Tidy(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := env.Pool.QueryRow(t.Context(), `select count(*) from counts`).Scan(&left); err != nil || left != 1 {
		t.Errorf("%d counts are left, %v; want bob's", left, err)
	}
}

// serviceKey makes a service key.
func serviceKey(t *testing.T, env *servertest.Env, as, org, orgRole, role string) (key struct{ ID, Secret string }) {
	t.Helper()
	a := env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys", as, map[string]string{"name": "robot", "org_role": orgRole, "role": role})
	want(t, "making a service key", a, http.StatusCreated)
	a.JSON(t, &key)
	return key
}
