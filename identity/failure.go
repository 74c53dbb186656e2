package identity

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/problem"
	"noted/internal/request"
)

// Reason is why an authentication failed. It goes to the log, the metric and the audit record,
// never to the caller.
type Reason string

// The reasons.
const (
	ReasonHeader         Reason = "malformed_header"
	ReasonMalformed      Reason = "malformed_token"
	ReasonUnknownSession Reason = "unknown_session"
	ReasonEndedSession   Reason = "ended_session"
	ReasonExpiredSession Reason = "expired_session"
	ReasonLocked         Reason = "locked_user"
	ReasonChecksum       Reason = "key_checksum"
	ReasonUnknownKey     Reason = "unknown_key"
	ReasonWrongSecret    Reason = "wrong_secret"
	ReasonExpiredKey     Reason = "expired_key"
	ReasonRevokedKey     Reason = "revoked_key"
	ReasonAbsentOwner    Reason = "absent_owner"
	ReasonState          Reason = "state"
	ReasonProvider       Reason = oidc.StepProvider
	ReasonCode           Reason = oidc.StepCode
	ReasonIDToken        Reason = oidc.StepIDToken
	ReasonGate           Reason = "gate"
	ReasonReplay         Reason = "token_replayed"
	ReasonLoggedOut      Reason = "signed_out_at_provider"
	ReasonDeviceCode     Reason = "device_code"
	ReasonLogoutToken    Reason = oidc.StepLogoutToken
)

// Reasons lists them all.
var Reasons = []Reason{
	ReasonHeader, ReasonMalformed, ReasonUnknownSession, ReasonEndedSession, ReasonExpiredSession,
	ReasonLocked, ReasonChecksum, ReasonUnknownKey, ReasonWrongSecret, ReasonExpiredKey,
	ReasonRevokedKey, ReasonAbsentOwner, ReasonState, ReasonProvider, ReasonCode,
	ReasonIDToken, ReasonGate, ReasonReplay, ReasonLoggedOut, ReasonDeviceCode,
	ReasonLogoutToken,
}

// Failure is a failed authentication. Object and Target name the known user or key that it
// concerns. Without them it goes only to log and metric.
type Failure struct {
	Reason         Reason
	Object, Target string
	Actor          *audit.Actor
	Org            uuid.UUID // of an organization's key
	Err            error     // more for the log; never a token

	service *Service // set if it is found while the request is served
}

// Late answers, as fail does, for a credential that ended while its request was served.
func (f *Failure) Late(ctx context.Context) *problem.Error {
	if f.service != nil {
		if tooMany, _ := f.service.settle(ctx, f); tooMany != nil {
			return tooMany
		}
	}
	return problem.Unauthorized()
}

// Error is for the log.
func (f *Failure) Error() string {
	if f.Err != nil {
		return string(f.Reason) + ": " + f.Err.Error()
	}
	return string(f.Reason)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// atProvider turns an *oidc.Error into a *Failure. Other errors stay as they are.
func atProvider(err error) error {
	var wrong *oidc.Error
	if errors.As(err, &wrong) {
		return &Failure{Reason: Reason(wrong.Step), Err: wrong.Err}
	}
	return err
}

// fail is the only place that answers a failed authentication. What is known about it goes
// to log, metric and audit record. The caller gets the same bytes and headers whatever
// failed, not before the floor after the request came, or at a multiple of the floor if
// the check took longer. An error that is not a Failure (the database is down) is a problem
// like any other: it says nothing about the credential.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	var failure *Failure
	if !errors.As(err, &failure) {
		problem.Write(w, r, err)
		return
	}
	if s.settled(w, r, failure) {
		problem.Write(w, r, problem.Unauthorized())
	}
}

// settle records the failure and waits for the floor. It returns a 429 if the address has failed
// too often. here is false if the client has gone.
func (s *Service) settle(ctx context.Context, failure *Failure) (tooMany *problem.Error, here bool) {
	s.note(ctx, failure)
	retry := s.limiter.count(request.From(ctx).IP, time.Now())
	here = s.waitFloor(ctx)
	if retry > 0 {
		tooMany = problem.New(http.StatusTooManyRequests, "Too many failed authentications from this address").
			With("Retry-After", strconv.Itoa(int(retry.Seconds())+1))
	}
	return tooMany, here
}

// settled settles the failure and reports whether an answer is still needed: not if the client has
// gone or the address got its 429.
func (s *Service) settled(w http.ResponseWriter, r *http.Request, failure *Failure) bool {
	tooMany, here := s.settle(r.Context(), failure)
	if here && tooMany != nil {
		problem.Write(w, r, tooMany)
	}
	return here && tooMany == nil
}

// failPage is fail for a browser whose sign-in at the provider failed. Its page has the same one
// sentence for every reason.
func (s *Service) failPage(w http.ResponseWriter, r *http.Request, provider *oidc.Provider, err error) {
	var failure *Failure
	switch {
	case !errors.As(err, &failure):
		s.writeFault(w, r, err)
	case !request.AcceptsHTML(r):
		s.fail(w, r, failure)
	case s.settled(w, r, failure):
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.writePage(w, http.StatusUnauthorized, s.config.Pages.Failure(provider.ID))
	}
}

// writeFault answers, where people and programs sign in and out, an error that is not a failed
// authentication. It says nothing about the credential, so it is not counted or recorded for anybody.
func (s *Service) writeFault(w http.ResponseWriter, r *http.Request, err error) {
	problem.Write(w, r, unavailable(r.Context(), err))
}

// unavailable turns a statement that the database refused into a 503, as if the database were down.
// A browser or program that signs in can only try again. Other errors stay as they are.
func unavailable(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	request.From(ctx).Log().LogAttrs(ctx, slog.LevelError, "the database failed", slog.Any("error", err))
	return problem.New(http.StatusServiceUnavailable, "The database failed; try again in a moment").With("Retry-After", "2")
}

func (s *Service) writePage(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// note tells the log, the metric and, for a known user or key, the audit record. It runs before the
// answer, so it must not wait for anything that depends on who failed.
func (s *Service) note(ctx context.Context, failure *Failure) {
	info := request.From(ctx)
	s.failed(string(failure.Reason))
	info.Log().LogAttrs(ctx, slog.LevelWarn, "authentication failed",
		slog.String("reason", string(failure.Reason)), slog.String("error", oidc.Brief(failure.Err)),
		slog.String("ip", info.IP.String()), slog.String("object", failure.Object), slog.String("target", failure.Target))
	if failure.Target != "" {
		s.record.Note(ctx, audit.Event{
			Actor: failure.Actor, Object: failure.Object, Target: failure.Target, Org: failure.Org, Detail: string(failure.Reason),
		})
	}
}

// waitFloor waits until the request's age is the next multiple of the floor, or its time is up. It
// returns false if the client has gone.
func (s *Service) waitFloor(ctx context.Context) bool {
	arrived := request.From(ctx).Arrived
	age := time.Since(arrived)
	wait := untilFloor(age, s.config.Floor)
	timer := time.NewTimer(wait - lastStretch)
	defer timer.Stop()
	select {
	case <-timer.C:
		sleepUntil(arrived.Add(age + wait))
		return true
	case <-ctx.Done():
		// A client that has gone leaves no other cause; the server's timeout has one.
		return !errors.Is(context.Cause(ctx), context.Canceled)
	}
}

// untilFloor returns how long to wait, from age, for the next multiple of floor.
func untilFloor(age, floor time.Duration) time.Duration {
	if floor <= 0 {
		return 0
	}
	return floor - age%floor
}
