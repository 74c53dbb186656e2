package problem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5/pgconn"

	"noted/internal/request"
)

// MediaType is the Content-Type of every problem (RFC 9457, 6.1).
const MediaType = "application/problem+json"

// Error is a problem (RFC 9457, 3). Type is always about:blank and omitted.
type Error struct {
	Title      string  `json:"title" doc:"The status in words"`
	Status     int     `json:"status" doc:"The HTTP status"`
	Detail     string  `json:"detail,omitzero" doc:"What is wrong and what to change, for people"`
	Permission string  `json:"permission,omitzero" doc:"With 403: the missing permission, OBJECT ACT"`
	LimitedBy  string  `json:"limited_by,omitzero" doc:"With 403: the API key's role, where that alone lacks the permission"`
	Errors     []Field `json:"errors,omitzero" doc:"With 422: every invalid value"`
	// ServiceKeys is a list, or a number for those who may not read it.
	ServiceKeys any `json:"service_keys,omitzero" doc:"With 409 for taking the role admin away: the service keys whose secrets the member knows, each with id and name; how many, for who may not read them"`

	headers http.Header
}

// Field is one invalid value of a request.
type Field struct {
	Location string `json:"location" doc:"Where it stands: body.title, query.limit"`
	Message  string `json:"message" doc:"What is wrong with it"`
}

// Error makes a problem an error: title and detail.
func (e *Error) Error() string { return e.Title + ": " + e.Detail }

// GetStatus makes huma answer with the problem's own status.
func (e *Error) GetStatus() int { return e.Status }

// ContentType makes huma answer with MediaType.
func (e *Error) ContentType(string) string { return MediaType }

// GetHeaders makes huma send the problem's headers.
func (e *Error) GetHeaders() http.Header { return e.headers }

// With returns e with one more header.
func (e *Error) With(name, value string) *Error {
	if e.headers == nil {
		e.headers = http.Header{}
	}
	e.headers.Set(name, value)
	return e
}

// New is a problem of any status; detail says what to change.
func New(status int, detail string, args ...any) *Error {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Error{Title: http.StatusText(status), Status: status, Detail: detail}
}

// NotFound is 404: the thing is not there, or the caller may not read it.
func NotFound(thing string) *Error {
	return New(http.StatusNotFound, "There is no such %s, or you may not read it", thing)
}

// Forbidden is 403, naming the missing permission ("note:own write").
func Forbidden(permission string) *Error {
	e := New(http.StatusForbidden, "This needs the permission %q", permission)
	e.Permission = permission
	return e
}

// Invalid is 422 for one value.
func Invalid(location, message string, args ...any) *Error {
	if len(args) > 0 {
		message = fmt.Sprintf(message, args...)
	}
	e := New(http.StatusUnprocessableEntity, "The request has an invalid value")
	e.Errors = []Field{{Location: location, Message: message}}
	return e
}

// MaxFields is how many invalid values a 422 names.
const MaxFields = 50

// Invalids is 422 for the values, at most MaxFields, and for more others, which it only counts. A negative number
// means that nobody looked for more.
func Invalids(fields []Field, more int) *Error {
	e := New(http.StatusUnprocessableEntity, "The request has invalid values")
	e.Errors = fields
	if more < 0 {
		e.Errors = append(e.Errors, Field{Location: "…", Message: "and more behind them, which was not looked at"})
	}
	if more > 0 {
		e.Errors = append(e.Errors, Field{Location: "…", Message: fmt.Sprintf("and %d more", more)})
	}
	return e
}

// Unauthorized is 401. Its bytes and headers are the same for every cause (RFC 6750, 3, without an error code,
// which would reveal it).
func Unauthorized() *Error {
	return New(http.StatusUnauthorized, "Authentication failed").With("WWW-Authenticate", "Bearer")
}

// Page makes a browser's page for a problem; requestID is its id in the log.
type Page func(e *Error, requestID string) []byte

type pageKey struct{}

// Pages lets Write answer browsers (text/html in Accept) with pages, except under /v1: its operations are for
// programs and have one form of error for all.
func Pages(page Page) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1" && !strings.HasPrefix(r.URL.Path, "/v1/") && request.AcceptsHTML(r) {
				r = r.WithContext(context.WithValue(r.Context(), pageKey{}, page))
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Write answers with err's problem: as JSON, or as a page where Pages applies. No cache keeps it.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	e := From(r.Context(), err)
	if r.ContentLength != 0 {
		// net/http reads the rest of the body before it answers, so a client that holds its body back would delay
		// the answer.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
	}
	for name, values := range e.headers {
		w.Header()[name] = values
	}
	w.Header().Set("Cache-Control", "no-store")
	if page, ok := r.Context().Value(pageKey{}).(Page); ok {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(e.Status)
		_, _ = w.Write(page(e, request.From(r.Context()).ID))
		return
	}
	body, marshalErr := json.Marshal(e)
	if marshalErr != nil { // only bad UTF-8 can fail in a struct of strings and numbers
		body = []byte(`{"title":"Internal Server Error","status":500}`)
	}
	w.Header().Set("Content-Type", MediaType)
	w.WriteHeader(e.Status)
	_, _ = w.Write(body)
}

// From turns any error into a problem. If err is not a problem already, From logs it with the request's id and
// does not show its text.
func From(ctx context.Context, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var late interface{ Late(context.Context) *Error }
	if errors.As(err, &late) {
		return late.Late(ctx)
	}
	info := request.From(ctx)
	switch {
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &e): // the server said why
		return e
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		info.Log().LogAttrs(ctx, slog.LevelInfo, "client went away", slog.Any("error", err))
		return New(http.StatusServiceUnavailable, "The request was given up")
	}
	if detail := unavailable(err); detail != "" {
		info.Log().LogAttrs(ctx, slog.LevelError, "database away", slog.Any("error", err))
		return New(http.StatusServiceUnavailable, "%s", detail).With("Retry-After", "2")
	}
	info.Log().LogAttrs(ctx, slog.LevelError, "internal error", slog.Any("error", err))
	return New(http.StatusInternalServerError, "Something went wrong here; the log has it under request id %s", info.ID)
}

// What clients are told when the database cannot do what they ask now.
const (
	away     = "The database cannot be reached; try again in a moment"
	busy     = "The database takes too long; try again in a moment"
	noWrites = "The database takes no changes at the moment; try again later"
)

// states are the SQLSTATEs of a database that is temporarily unable to do something (PostgreSQL's manual, Appendix
// A).
var states = map[string]string{
	"57P01": away, "57P02": away, "57P03": away, "53300": away, // shut down, crashed, cannot connect now, too many connections
	"25P03": away,                // connection idle in its transaction for too long
	"57014": busy, "55P03": busy, // statement_timeout, lock_timeout
	"53200": busy,     // out of memory
	"53100": noWrites, // disk full
	"25006": noWrites, // read-only
}

// unavailable returns what to tell the client if the database does not answer or cannot do something at the
// moment; empty if a statement failed.
func unavailable(err error) string {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return away
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if strings.HasPrefix(pg.Code, "08") { // connection exceptions
			return away
		}
		return states[pg.Code]
	}
	if errors.Is(err, context.DeadlineExceeded) { // waiting for a connection, or the whole request
		return busy
	}
	var network net.Error
	if errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		(err != nil && strings.Contains(err.Error(), "conn closed")) {
		return away
	}
	return ""
}

// Huma turns huma's own errors (bad input, unknown content type) into our problems. Its hooks are global
// variables, so call it once, before any API is made.
func Huma() {
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(ctx.Context(), status, msg, errs)
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(context.Background(), status, msg, errs)
	}
	huma.ValidateStrictCasing = true
}

func fromHuma(ctx context.Context, status int, msg string, errs []error) *Error {
	for _, err := range errs {
		var e *Error
		if errors.As(err, &e) {
			return e
		}
	}
	switch status {
	case http.StatusInternalServerError:
		if msg == "cannot read request body" { // a broken or cut off upload: client's fault
			return New(http.StatusBadRequest, "The body could not be read to its end")
		}
		return From(ctx, errors.Join(append([]error{errors.New(msg)}, errs...)...))
	case http.StatusBadRequest:
		return New(status, "%s", msg)
	}
	var fields []Field
	for _, err := range errs[:min(len(errs), MaxFields)] {
		var field Field
		var detail huma.ErrorDetailer
		if errors.As(err, &detail) {
			// Not its Error(): that prints the value, which may be long.
			field = Field{Location: detail.ErrorDetail().Location, Message: detail.ErrorDetail().Message}
		} else {
			field.Message = err.Error()
		}
		// The location contains a name chosen by a stranger.
		field.Location = request.Text(field.Location, 200)
		fields = append(fields, field)
	}
	e := Invalids(fields, len(errs)-len(fields))
	e.Title, e.Status = http.StatusText(status), status
	return e
}
