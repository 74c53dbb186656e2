package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/problem"
	"noted/internal/request"
)

const (
	deviceClient   = "noted-cli"      // the one client of device login
	deviceLife     = 10 * time.Minute // the time to approve a device
	devicePoll     = 5                // seconds between two polls, at first (RFC 8628, 3.5)
	deviceStarts   = 30               // a minute per address and replica
	deviceWaiting  = 20               // undecided at once, per address
	deviceGuesses  = 10               // wrong codes by one user in deviceGuessTime
	deviceAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
)

// deviceGuessTime is how long a wrong code counts against its user.
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

// newUserCode returns 8 letters. There are no vowels, so that they form no words, and no letters
// that look alike. That makes 20^8 codes, 34 bits (RFC 8628, 6.1).
func newUserCode() string {
	code := make([]byte, 8)
	for i := range code {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(deviceAlphabet))))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		code[i] = deviceAlphabet[n.Int64()]
	}
	return string(code)
}

// readUserCode reads a typed code in any case, with spaces and hyphens. It returns "" if it is
// not a code.
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

// hashDeviceCode returns what is stored.
func hashDeviceCode(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// StartDevice answers POST /auth/device (RFC 8628, 3.1). Each start is a row made by a stranger. So
// an address may start deviceStarts a minute and have deviceWaiting undecided.
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
	code, user := random(), newUserCode()
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		network := networkOf(info.IP).String()
		if err := roomForDevice(ctx, tx, network); err != nil {
			return err
		}
		return saveDevice(ctx, tx, code, user, network, info)
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

// fetchDevice answers a poll (RFC 8628, 3.4 and 3.5). It returns the session's token, once, after
// somebody has approved the device.
func (s *Service) fetchDevice(ctx context.Context, form url.Values) (answer TokenAnswer, err error) {
	code := form.Get("device_code")
	if code == "" || form.Get("client_id") == "" {
		return answer, tokenError("invalid_request")
	}
	if form.Get("client_id") != deviceClient {
		return answer, tokenError("invalid_client")
	}
	var plain tokenError
	// No Write: this is the session's first token, so none can be remembered.
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var err error
		answer, err = s.poll(ctx, tx, hashDeviceCode(code))
		if errors.As(err, &plain) { // keep what the poll recorded
			return nil
		}
		return err
	})
	if err == nil && plain != "" {
		err = plain
	}
	return answer, err
}

// DevicePage is what the page about a device shows.
type DevicePage struct {
	Principal *authz.Principal
	Code      string // as typed, or of the device found
	Device    *Device
	Message   string // instead of a device
	RequestID string // with Message
}

// Device is what asks to be let in and from where.
type Device struct {
	Client, IP, UserAgent string
	Age                   time.Duration
}

var errUserCode = problem.New(http.StatusNotFound, "There is no device waiting with this code; read it again, or start anew on the device")

// ShowDevice is the person's page: GET /auth/device. Without user_code it asks for one. With one, it
// shows what asks and from where, for the person to approve or deny (RFC 8628, 3.3 and 5.4).
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

// keepGuess commits the wrong code that lookUp recorded.
func keepGuess(err error) error {
	if errors.Is(err, errUserCode) {
		return nil
	}
	return err
}

// answerDevice shows the page, with an error instead of the device.
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
