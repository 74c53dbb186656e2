package orgs_test

import (
	"bufio"
	"fmt"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"strings"
	"sync"
	"testing"

	"noted/internal/server"
	"noted/internal/server/servertest"
	"noted/orgs"
)

// mailServer takes mail by SMTP (RFC 5321) and keeps it.
type mailServer struct {
	address string
	refuses bool // every recipient

	mu   sync.Mutex
	mail []string // "to\n" and the message
}

func newMailServer(t *testing.T, refuses bool) *mailServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mailServer{address: listener.Addr().String(), refuses: refuses}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); wait.Wait() })
	return s
}

func (s *mailServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	say := func(line string) { _, _ = fmt.Fprintf(conn, "%s\r\n", line) }
	lines := bufio.NewScanner(conn)
	say("220 here")
	to := ""
	for lines.Scan() {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch strings.ToUpper(verb) {
		case "RCPT":
			if to = rest; s.refuses {
				say("550 no such mailbox")
				continue
			}
			say("250 ok")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for lines.Scan() && lines.Text() != "." {
				text.WriteString(strings.TrimPrefix(lines.Text(), ".") + "\r\n")
			}
			s.mu.Lock()
			s.mail = append(s.mail, to+"\n"+text.String())
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func withMail(address string) func(*server.Options) {
	return func(o *server.Options) {
		o.Settings.SMTPURL, o.Settings.MailFrom = "smtp://"+address, "noted <noted@dev.example>"
	}
}

func TestAnInvitationIsMailed(t *testing.T) {
	server := newMailServer(t, false)
	env := servertest.New(t, withMail(server.address))
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "Ärger & Söhne\r\nBcc: everybody@dev.example")
	made := invite(t, env, alice, org, "bob@dev.example", "writer")
	if !made.Mailed || len(server.mail) != 1 {
		t.Fatalf("mailed is %t, %d mails came", made.Mailed, len(server.mail))
	}
	to, text, _ := strings.Cut(server.mail[0], "\n")
	message, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	body := new(strings.Builder)
	reader := bufio.NewReader(quotedprintable.NewReader(message.Body))
	if _, err := reader.WriteTo(body); err != nil {
		t.Fatal(err)
	}
	switch {
	case !strings.Contains(to, "<bob@dev.example>"):
		t.Errorf("it went to %s", to)
	case message.Header.Get("Bcc") != "" || message.Header.Get("To") != "<bob@dev.example>" || message.Header.Get("From") != `"noted" <noted@dev.example>`:
		t.Errorf("its header is %v", message.Header)
	case !strings.Contains(body.String(), env.URL+"/invitation#"+made.Token) || !strings.Contains(body.String(), "alice invites you") || !strings.Contains(body.String(), "Ärger & Söhne"):
		t.Errorf("it says %s", body)
	}
	if strings.Contains(env.Log.String(), made.Token) {
		t.Error("the token is in the log")
	}
	want(t, "accepting", accept(t, env, env.SignIn(t, "bob"), made.Token), http.StatusOK)
}

func TestAMailServerThatIsDownOrRefusesLosesNoInvitation(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	for what, address := range map[string]string{"down": down.Addr().String(), "refusing": newMailServer(t, true).address} {
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

// noted is no way to send mail to strangers.
func TestOnlySoManyInvitationsAreMailedInAnHour(t *testing.T) {
	server := newMailServer(t, false)
	env := servertest.New(t, withMail(server.address))
	alice := env.SignIn(t, "alice")
	first, second := env.NewOrg(t, alice, "first"), env.NewOrg(t, alice, "second")
	for i := range 33 {
		org := []string{first, second}[i%2]
		made := invite(t, env, alice, org, fmt.Sprintf("stranger%d@example.com", i), "reader")
		if made.Mailed != (i < 30) {
			t.Errorf("invitation %d: mailed is %t", i+1, made.Mailed)
		}
	}
	if len(server.mail) != 30 {
		t.Errorf("%d mails were sent, want 30", len(server.mail))
	}
	env.Exec(t, `update invitations set created_at = created_at - interval '1 hour'`)
	if made := invite(t, env, alice, first, "later@example.com", "reader"); !made.Mailed {
		t.Error("an hour later none is mailed")
	}
}
