package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/problem"
	"noted/internal/request"
)

const (
	deviceClient   = "noted-cli"      // the one client of device login
	deviceLife     = 10 * time.Minute // to approve a device in
	devicePoll     = 5                // seconds between two polls, at first (RFC 8628, 3.5)
	deviceStarts   = 30               // a minute by one address, for each replica
	deviceWaiting  = 20               // undecided at once, of one address
	deviceGuesses  = 10               // wrong codes by one user in deviceGuessTime
	deviceAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
)

// deviceGuessTime is how long a wrong code is held against who typed it.
const deviceGuessTime = 15 * time.Minute

// DeviceAnswer is the answer of POST /auth/device (RFC 8628, 3.2).
type DeviceAnswer struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code" example:"WDJB-MJHT"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in" doc:"Seconds"`
	Interval                int    `json:"interval" doc:"Seconds between two polls"`
}

// newUserCode is 8 letters that are no vowels, so that they are no words, and none that is taken
// for another: 20^8 codes, 34 bits (RFC 8628, 6.1).
func newUserCode() string {
	code := make([]byte, 8)
	for i := range code {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(deviceAlphabet))))
		if err != nil {
			panic(err) // it never fails: crypto/rand
		}
		code[i] = deviceAlphabet[n.Int64()]
	}
	return string(code)
}

// readUserCode takes what a person typed: in any case, with spaces and hyphens. Empty for what
// is no code.
func readUserCode(typed string) string {
	code := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	if len(code) != 8 || strings.Trim(code, deviceAlphabet) != "" {
		return ""
	}
	return code
}

func showUserCode(code string) string { return code[:4] + "-" + code[4:] }

// hashDeviceCode is what is stored of one.
func hashDeviceCode(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// StartDevice answers POST /auth/device (RFC 8628, 3.1). Each is a row that a stranger made, so an
// address may start deviceStarts a minute, and have deviceWaiting wait for their decision.
func (s *Service) StartDevice(w http.ResponseWriter, r *http.Request) {
	form, err := formOf(r)
	if refused := refusedBody(err); refused != nil {
		problem.Write(w, r, refused)
		return
	}
	if err != nil || form.Get("client_id") == "" {
		writeOAuth(w, http.StatusBadRequest, OAuthError{"invalid_request"})
		return
	}
	if form.Get("client_id") != deviceClient {
		writeOAuth(w, http.StatusBadRequest, OAuthError{"invalid_client"})
		return
	}
	ctx, info := r.Context(), request.From(r.Context())
	if retry := s.starts.count(info.IP, time.Now()); retry > 0 {
		problem.Write(w, r, problem.New(http.StatusTooManyRequests, "This address starts too many device logins").
			With("Retry-After", strconv.Itoa(int(retry.Seconds())+1)))
		return
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails: crypto/rand
	code, user := base64.RawURLEncoding.EncodeToString(secret[:]), newUserCode()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		network := networkOf(info.IP).String()
		if err := roomForDevice(ctx, tx, network); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			insert into device_logins (device_hash, user_code, expires_at, poll_seconds, ip, network, user_agent)
			values ($1, $2, now() + $3::interval, $4, $5, $6, $7)`,
			hashDeviceCode(code), user, deviceLife, devicePoll, addressOrNull(info.IP), network, info.UserAgent)
		return err
	})
	if err != nil {
		s.writeFault(w, r, fmt.Errorf("starting a device login: %w", err))
		return
	}
	uri := s.config.PublicURL + "/auth/device"
	writeOAuth(w, http.StatusOK, DeviceAnswer{
		code, showUserCode(user), uri, uri + "?user_code=" + showUserCode(user), int(deviceLife.Seconds()), devicePoll,
	})
}

// roomForDevice is 429 when deviceWaiting logins of the network wait already, on whichever replica
// they began. It lets no other of that network begin until tx ends.
func roomForDevice(ctx context.Context, tx pgx.Tx, network string) error {
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1, 4))`, network); err != nil {
		return fmt.Errorf("locking a network: %w", err)
	}
	var waiting int
	var next float64 // seconds until one of them is over
	err := tx.QueryRow(ctx, `
		select count(*), coalesce(extract(epoch from min(expires_at) - now()), 0) from device_logins
		where network = $1 and decided_at is null and expires_at > now()`, network).Scan(&waiting, &next)
	if err != nil {
		return fmt.Errorf("counting device logins: %w", err)
	}
	if waiting < deviceWaiting {
		return nil
	}
	return problem.New(http.StatusTooManyRequests, "%d device logins of this address wait to be approved; approve or deny one, or wait", waiting).
		With("Retry-After", strconv.Itoa(int(next)+1))
}

// fetchDevice is a poll (RFC 8628, 3.4 and 3.5): the session's token, once, when somebody has
// approved the device.
func (s *Service) fetchDevice(ctx context.Context, form url.Values) (answer TokenAnswer, err error) {
	code := form.Get("device_code")
	if code == "" || form.Get("client_id") == "" {
		return answer, tokenError("invalid_request")
	}
	if form.Get("client_id") != deviceClient {
		return answer, tokenError("invalid_client")
	}
	var plain tokenError
	// No Write: the token that a session gets here is its first, and nobody's is remembered.
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var err error
		answer, err = s.poll(ctx, tx, hashDeviceCode(code))
		if errors.As(err, &plain) { // what the poll noted stays
			return nil
		}
		return err
	})
	if err == nil && plain != "" {
		err = plain
	}
	return answer, err
}

func (s *Service) poll(ctx context.Context, tx pgx.Tx, hash []byte) (answer TokenAnswer, err error) {
	var expired, decided, fetched, soon bool
	var session *uuid.UUID
	err = tx.QueryRow(ctx, `
		select expires_at <= now(), decided_at is not null, fetched_at is not null, session_id,
			polled_at > now() - make_interval(secs => poll_seconds - 0.5) is true
		from device_logins where device_hash = $1 for update`, hash).Scan(&expired, &decided, &fetched, &session, &soon)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return answer, &Failure{Reason: ReasonDeviceCode, Err: errors.New("there is no such code")}
	case err != nil:
		return answer, fmt.Errorf("polling: %w", err)
	case fetched:
		return answer, &Failure{Reason: ReasonDeviceCode, Err: errors.New("the code was used")}
	case expired:
		return answer, tokenError("expired_token")
	case decided && session == nil:
		return answer, tokenError("access_denied")
	case !decided:
		return answer, notePoll(ctx, tx, hash, soon)
	}
	token := NewToken()
	tokenHash, _ := token.Hash()
	var left float64
	var locked bool
	var person Person
	err = tx.QueryRow(ctx, `
		update sessions s set token_hash = $2 from users u
		where s.id = $1 and u.id = s.user_id and s.ended_at is null and s.expires_at > now()
		returning extract(epoch from s.expires_at - now()), u.locked_at is not null, u.id, u.name`, *session, tokenHash).
		Scan(&left, &locked, &person.ID, &person.Name)
	if errors.Is(err, pgx.ErrNoRows) {
		return answer, &Failure{Reason: ReasonEndedSession, Err: errors.New("the approved session has ended")}
	}
	if err != nil {
		return answer, fmt.Errorf("giving a device its session: %w", err)
	}
	if locked {
		return answer, failureOf(ReasonLocked, person)
	}
	if _, err := tx.Exec(ctx, `update device_logins set fetched_at = now() where device_hash = $1`, hash); err != nil {
		return answer, fmt.Errorf("using a device code up: %w", err)
	}
	return TokenAnswer{AccessToken: string(token), TokenType: "Bearer", ExpiresIn: int(left)}, nil
}

// notePoll answers a poll before the decision; one that comes too soon makes the interval five
// seconds longer (RFC 8628, 3.5).
func notePoll(ctx context.Context, tx pgx.Tx, hash []byte, soon bool) error {
	more, answer := 0, tokenError("authorization_pending")
	if soon {
		more, answer = 5, "slow_down"
	}
	_, err := tx.Exec(ctx, `
		update device_logins set polled_at = now(), poll_seconds = least(poll_seconds + $2, 300)
		where device_hash = $1`, hash, more)
	if err != nil {
		return fmt.Errorf("noting a poll: %w", err)
	}
	return answer
}

// DevicePage is what the page about a device shows.
type DevicePage struct {
	Principal *authz.Principal
	Code      string // as typed, or of the device found
	Device    *Device
	Message   string // in place of a device
	RequestID string // with Message
}

// Device is what asks to be let in, and from where.
type Device struct {
	Client, IP, UserAgent string
	Age                   time.Duration
}

var errUserCode = problem.New(http.StatusNotFound, "There is no device waiting with this code; read it again, or start anew on the device")

// ShowDevice is the person's page: GET /auth/device. Without user_code it asks for one; with it, it
// names what asks and from where, for the person to approve or deny (RFC 8628, 3.3 and 5.4).
func (s *Service) ShowDevice(w http.ResponseWriter, r *http.Request) {
	page := DevicePage{Principal: authz.From(r.Context()), Code: request.Text(r.URL.Query().Get("user_code"), 20)}
	if page.Code == "" {
		s.writePage(w, http.StatusOK, s.config.Pages.Device(page))
		return
	}
	ctx := r.Context()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		page.Device, page.Code, err = s.lookUp(ctx, tx, page.Code)
		return keepGuess(err)
	})
	if err == nil && page.Device == nil {
		err = errUserCode
	}
	s.answerDevice(w, r, page, err)
}

// keepGuess commits what lookUp noted of a wrong code.
func keepGuess(err error) error {
	if errors.Is(err, errUserCode) {
		return nil
	}
	return err
}

// answerDevice shows the page, with what was wrong in place of the device.
func (s *Service) answerDevice(w http.ResponseWriter, r *http.Request, page DevicePage, err error) {
	status := http.StatusOK
	if err != nil {
		answer := problem.From(r.Context(), unavailable(r.Context(), err))
		if !request.AcceptsHTML(r) || answer.Status >= http.StatusInternalServerError || answer.Status == http.StatusUnauthorized {
			problem.Write(w, r, answer)
			return
		}
		for name, values := range answer.GetHeaders() {
			w.Header()[name] = values
		}
		status, page.Message, page.RequestID, page.Device = answer.Status, answer.Detail, request.From(r.Context()).ID, nil
	}
	s.writePage(w, status, s.config.Pages.Device(page))
}

// lookUp finds an undecided device by its user code, for a person who may be guessing: after
// deviceGuesses wrong ones within deviceGuessTime, nothing is looked up any more. It locks
// the person's guesses until tx ends, so that requests at once guess one after another. The
// guess is kept when the caller commits although the error is errUserCode.
func (s *Service) lookUp(ctx context.Context, tx pgx.Tx, typed string) (*Device, string, error) {
	caller := authz.From(ctx)
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1::text, 3))`, caller.ID.String()); err != nil {
		return nil, typed, fmt.Errorf("locking guesses: %w", err)
	}
	var wrong int
	err := tx.QueryRow(ctx, `select count(*) from device_guesses where user_id = $1 and at > now() - $2::interval`,
		caller.ID, deviceGuessTime).Scan(&wrong)
	if err != nil {
		return nil, typed, fmt.Errorf("counting guesses: %w", err)
	}
	tooMany := problem.New(http.StatusTooManyRequests, "Too many wrong codes; wait a quarter of an hour").
		With("Retry-After", strconv.Itoa(int(deviceGuessTime.Seconds())))
	if wrong > deviceGuesses {
		return nil, typed, tooMany
	}
	code := readUserCode(typed)
	device := Device{Client: deviceClient}
	var age float64
	err = tx.QueryRow(ctx, `
		select coalesce(host(ip), ''), user_agent, extract(epoch from now() - created_at) from device_logins
		where user_code = $1 and decided_at is null and expires_at > now() for update`, code).
		Scan(&device.IP, &device.UserAgent, &age)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := tx.Exec(ctx, `insert into device_guesses (user_id) values ($1)`, caller.ID); err != nil {
			return nil, typed, fmt.Errorf("noting a guess: %w", err)
		}
		return nil, typed, errUserCode
	}
	if err != nil {
		return nil, typed, fmt.Errorf("finding a device: %w", err)
	}
	device.Age = time.Duration(age * float64(time.Second)).Round(time.Second)
	return &device, showUserCode(code), nil
}

// ConfirmDevice takes the person's decision: POST /auth/device/confirm.
func (s *Service) ConfirmDevice(w http.ResponseWriter, r *http.Request) {
	form, err := ReadForm(r)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	approve := form.Get("decision") == "approve"
	if !approve && form.Get("decision") != "deny" {
		problem.Write(w, r, problem.Invalid("form.decision", "must be approve or deny"))
		return
	}
	page := DevicePage{Principal: authz.From(r.Context()), Code: request.Text(form.Get("user_code"), 20)}
	wrong := false
	ctx := r.Context()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := s.decide(ctx, tx, page.Code, approve)
		wrong = errors.Is(err, errUserCode)
		return keepGuess(err)
	})
	if wrong {
		err = errUserCode
	}
	if err != nil {
		s.answerDevice(w, r, page, err)
		return
	}
	title, text := "Not let in", "The device is not let in. You may close this page."
	if approve {
		title, text = "Let in", "The device is signed in as you. You may close this page; your list of sessions has it."
	}
	s.writePage(w, http.StatusOK, s.config.Pages.Message(title, text))
}

// decide notes the decision. Approving makes the device's session: of the same sign-in as the one that
// approves, so that it ends with it at the provider, no fresher than it, and with no later end. The
// approving session's row stays locked, shared, until tx ends: endSessions relies on it.
func (s *Service) decide(ctx context.Context, tx pgx.Tx, typed string, approve bool) error {
	ctx, err := s.Confirm(ctx, tx)
	if err != nil {
		return err
	}
	caller := authz.From(ctx)
	_, code, err := s.lookUp(ctx, tx, typed)
	if err != nil {
		return err
	}
	var session *uuid.UUID
	if approve {
		id := uuid.Must(uuid.NewV7())
		session = &id
		var nobodys [32]byte // the hash of no token, until the device fetches one
		_, _ = rand.Read(nobodys[:])
		_, err := tx.Exec(ctx, `
			insert into sessions (id, user_id, identity_id, token_hash, expires_at, ip, user_agent, provider_sid, signed_in_at, origin)
			select $1, s.user_id, s.identity_id, $2, least(s.expires_at, now() + $3::interval), d.ip, d.user_agent, s.provider_sid, s.signed_in_at, $6
			from sessions s, device_logins d where s.id = $4 and d.user_code = $5`,
			id, nobodys[:], s.config.SessionAbsolute, caller.Session, readUserCode(code), originDevice)
		if err != nil {
			return fmt.Errorf("making a device's session: %w", err)
		}
		err = audit.Record(ctx, tx, audit.Event{
			Actor: ActorOf(caller), Action: audit.SessionCreate, Object: "session", Target: id.String(), Detail: "device approved",
		})
		if err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `update device_logins set decided_at = now(), session_id = $2 where user_code = $1`, readUserCode(code), session)
	if err != nil {
		return fmt.Errorf("noting a decision: %w", err)
	}
	return nil
}
