package problem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/problem"
	"noted/internal/request"
)

// logged returns a context whose request logs into the buffer.
func logged(t *testing.T) (context.Context, *request.Info, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	info := &request.Info{ID: "the-request", Logger: slog.New(slog.NewTextHandler(&out, nil))}
	return request.With(t.Context(), info), info, &out
}

func TestADatabaseThatIsAwayIsToldFromAStatementThatFailed(t *testing.T) {
	_, refused := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none")
	if refused == nil {
		_, refused = pgx.Connect(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=2")
	}
	pg := func(code string) error {
		return fmt.Errorf("finding a note: %w", &pgconn.PgError{Code: code, Message: "secret words"})
	}
	for _, c := range []struct {
		name   string
		err    error
		status int
	}{
		{"nobody listens", fmt.Errorf("secret words: %w", refused), 503},
		{"admin_shutdown", pg("57P01"), 503},
		{"crash_shutdown", pg("57P02"), 503},
		{"cannot_connect_now", pg("57P03"), 503},
		{"too_many_connections", pg("53300"), 503},
		{"connection_failure", pg("08006"), 503},
		{"protocol_violation", pg("08P01"), 503},
		{"a timeout of ours", fmt.Errorf("secret words: %w", context.DeadlineExceeded), 503},
		{"the connection broke", &net.OpError{Op: "read", Err: errors.New("secret words")}, 503},
		{"the connection ended", fmt.Errorf("secret words: %w", io.ErrUnexpectedEOF), 503},
		{"unique_violation", pg("23505"), 500},
		{"check_violation", pg("23514"), 500},
		{"syntax_error", pg("42601"), 500},
		{"undefined_table", pg("42P01"), 500},
		{"untranslatable_character", pg("22P05"), 500},
		{"no rows", pgx.ErrNoRows, 500},
		{"anything", errors.New("secret words"), 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, info, log := logged(t)
			e := problem.From(ctx, c.err)
			if e.Status != c.status {
				t.Errorf("%v is %d", c.err, e.Status)
			}
			w := httptest.NewRecorder()
			problem.Write(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx), c.err)
			for _, leak := range []string{"secret", "finding", "SQLSTATE", "127.0.0.1", c.err.Error()} {
				if strings.Contains(w.Body.String(), leak) {
					t.Errorf("the answer says %q: %s", leak, w.Body)
				}
			}
			if w.Code != c.status || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("answered %d %v", w.Code, w.Header())
			}
			if c.status == 500 && !strings.Contains(w.Body.String(), info.ID) {
				t.Errorf("the answer does not name the request: %s", w.Body)
			}
			if c.status == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "error=") {
				t.Errorf("the log does not have it: %s", log)
			}
		})
	}
}

func TestAClientThatWentAwayIsNoErrorOfOurs(t *testing.T) {
	ctx, _, log := logged(t)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if e := problem.From(ctx, fmt.Errorf("reading: %w", context.Canceled)); e.Status != 503 || strings.Contains(log.String(), "ERROR") {
		t.Errorf("got %d, logged %s", e.Status, log)
	}
}

func TestAProblemStaysWhatItIsHoweverWrapped(t *testing.T) {
	ctx, _, log := logged(t)
	err := fmt.Errorf("writing: %w", problem.Invalid("body.title", "is %d long", 300))
	e := problem.From(ctx, err)
	if e.Status != 422 || len(e.Errors) != 1 || e.Errors[0] != (problem.Field{Location: "body.title", Message: "is 300 long"}) || log.Len() > 0 {
		t.Errorf("got %+v, logged %s", e, log)
	}
}

func TestProblemsAreWrittenAsTheContractHasThem(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		header map[string]string
		body   string
	}{
		{problem.Unauthorized(), 401, map[string]string{"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"},
			`{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`},
		{problem.Forbidden("note:any read"), 403, nil,
			`{"title":"Forbidden","status":403,"detail":"This needs the permission \"note:any read\"","permission":"note:any read"}`},
		{problem.NotFound("note"), 404, nil,
			`{"title":"Not Found","status":404,"detail":"There is no such note, or you may not read it"}`},
		{problem.Invalid("query.limit", "is 100% wrong"), 422, nil,
			`{"title":"Unprocessable Entity","status":422,"detail":"The request has an invalid value","errors":[{"location":"query.limit","message":"is 100% wrong"}]}`},
		{problem.New(429, "50% too often").With("Retry-After", "7"), 429, map[string]string{"Retry-After": "7"},
			`{"title":"Too Many Requests","status":429,"detail":"50% too often"}`},
	} {
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest("GET", "/", nil), c.err)
		if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Content-Type") != problem.MediaType {
			t.Errorf("got %d %v %s\nwant %s", w.Code, w.Header(), w.Body, c.body)
		}
		for name, value := range c.header {
			if w.Header().Get(name) != value {
				t.Errorf("%d: %s is %q", c.status, name, w.Header().Get(name))
			}
		}
	}
}

func TestBytesThatAreNoTextDoNotBreakTheAnswer(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Write(w, httptest.NewRequest("GET", "/", nil), problem.New(422, "%s", "a\xffb"))
	if !strings.HasPrefix(w.Body.String(), "{") || !strings.HasSuffix(w.Body.String(), "}") {
		t.Errorf("got %q", w.Body)
	}
}
