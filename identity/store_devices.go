package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/pg"
	"noted/internal/problem"
	"noted/internal/request"
)

// saveDevice stores a new device login, of a stranger at info's address.
func saveDevice(ctx context.Context, tx pgx.Tx, code, user, network string, info *request.Info) error {
	_, err := tx.Exec(ctx, `
		insert into device_logins (device_hash, user_code, expires_at, poll_seconds, ip, network, user_agent)
		values ($1, $2, now() + $3::interval, $4, $5, $6, $7)`,
		hashDeviceCode(code), user, deviceLife, devicePoll, pg.OrNull(info.IP), network, info.UserAgent)
	return err
}

// roomForDevice returns a 429 if deviceWaiting logins from the network are already waiting, on any
// replica. No other from that network can begin until tx ends.
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
		where s.id = $1 and u.id = s.user_id and `+notOver+`
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

// notePoll answers a poll before the decision. A poll that comes too soon makes the interval five
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

// lookUp finds an undecided device by its user code, for a person who may be guessing. With
// more than deviceGuesses wrong codes within deviceGuessTime, it returns a 429. It locks the
// person's guesses until tx ends, so that concurrent requests guess one after another. If it
// returns errUserCode, the caller must commit to keep the guess.
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

// decide records the decision. Approving makes the device's session. It has the approving session's
// sign-in, so that both end with it at the provider, and is no fresher and ends no later. The
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
		var nobodys [32]byte // no token has this hash; the device fetches one later
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
