package orgs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"noted/internal/name"
)

// Mailer sends invitations by SMTP (RFC 5321).
type Mailer struct {
	client *mail.Client
	from   string
}

// mailTimeout bounds one mail, from connecting to the last answer.
const mailTimeout = 10 * time.Second

// NewMailer reads smtp_url and mail_from. smtps://user:password@host:465 uses TLS from the start
// (RFC 8314, 3.3). smtp://user:password@host:587 uses STARTTLS (RFC 3207), and requires it unless the
// host is this machine. Without a user it does not authenticate.
func NewMailer(smtpURL, from string) (*Mailer, error) {
	u, err := url.Parse(smtpURL)
	if err != nil || u.Hostname() == "" || (u.Scheme != "smtp" && u.Scheme != "smtps") || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		// Not the parser's error: it prints the URL with the password.
		return nil, errors.New("smtp_url: must be smtp://user:password@host:port or smtps://user:password@host:port")
	}
	options := []mail.Option{mail.WithTimeout(mailTimeout), mail.WithTLSPolicy(mail.TLSMandatory)}
	port := 587
	if u.Scheme == "smtps" {
		options, port = append(options, mail.WithSSL()), 465
	} else if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	}
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
			return nil, errors.New("smtp_url: the port must be 1 to 65535")
		}
	}
	options = append(options, mail.WithPort(port))
	if password, _ := u.User.Password(); u.User.Username() != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(u.User.Username()), mail.WithPassword(password))
	}
	client, err := mail.NewClient(u.Hostname(), options...)
	if err != nil {
		return nil, fmt.Errorf("smtp_url: %w", err)
	}
	if err := mail.NewMsg().From(from); err != nil {
		return nil, fmt.Errorf("mail_from: must be an address such as noted <noted@example.com>: %w", err)
	}
	return &Mailer{client, from}, nil
}

// invite sends the link of an invitation.
func (m *Mailer) invite(ctx context.Context, to, org, inviter, role, link string, until time.Time) error {
	message := mail.NewMsg()
	if err := errors.Join(message.From(m.from), message.To(to)); err != nil {
		return err
	}
	message.Subject("Invitation to an organization on noted: " + quoted(org))
	message.SetBodyString(mail.TypeTextPlain, fmt.Sprintf(`You are invited to an organization on noted, as its %s.

Who invites:       %s
The organization:  %s

Both are called so by themselves. If you know them, open this link and sign in with this e-mail address to accept:

%s

It counts once, until %s. If you did not expect it, ignore it.
`, role, quoted(inviter), quoted(org), link, until.Format("2 January 2006 15:04 MST")))
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	return m.client.DialAndSendWithContext(ctx, message)
}

// quoted shows a name that a stranger chose: on one line, in quotes that it cannot close, and with
// nothing that a mail program would turn into a link. So a space follows each colon and each dot of a
// domain name (IDNA has several dots: RFC 3490, 3.1).
func quoted(called string) string {
	const limit = 100
	characters := []rune(closing.Replace(name.Clean(called, limit+1)))
	if len(characters) > limit {
		characters = append(characters[:limit-1], '…')
	}
	var line strings.Builder
	for i, r := range characters {
		line.WriteRune(r)
		if strings.ContainsRune(".。．｡:：", r) && i+1 < len(characters) && characters[i+1] != ' ' {
			line.WriteByte(' ')
		}
	}
	return `"` + line.String() + `"`
}

// closing replaces the characters that end a quotation, or seem to.
var closing = strings.NewReplacer(`"`, "'", "“", "'", "”", "'", "„", "'", "‟", "'", "«", "'", "»", "'", "＂", "'", "″", "'")
