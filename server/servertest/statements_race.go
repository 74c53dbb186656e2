//go:build race

package servertest

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"noted/internal/localpg/pgtest"
	"noted/internal/space/spacetest"
)

// AcrossSpaces are the only statements of a server that may touch notes, notebooks and what belongs to them
// without naming a space. One machine, the one with the space, must be able to answer all others.
var AcrossSpaces = []spacetest.Exception{
	{Table: "notes", In: "where n.id = @id and n.deleted_at is null", Why: "GET /v1/notes/{id} and the like of a note that is not in the caller's own space: the path has its id alone"},
	{Table: "notes", In: "where n.id = @id and n.deleted_at is not null", Why: "/v1/deadzone/{id}: the path has the note's id alone"},
	{Table: "notebooks", In: "where b.id = @id", Why: "GET /v1/notes?notebook_id= without org_id has the notebook's id alone"},
	{Table: "notes", In: "where n.deleted_at is null and true", Why: "GET /v1/notes?scope=all: staff list everybody's notes"},
	{Table: "notes", In: "order by n.deleted_at desc, n.id desc", Why: "GET /v1/deadzone: the deleted notes of all spaces that the caller may see"},
	{Table: "notes", In: "order by deleted_at, id", Why: "the purge looks for what is due everywhere, and then deletes in one space at a time"},
}

// statements is a tracer that keeps each statement that a server runs. It ignores statements that tests run on the
// same pool.
type statements struct {
	mu  sync.Mutex
	ran map[string]string // as sent, and as written in the program
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *statements) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if byTest() {
		return ctx
	}
	sent := data.SQL
	if len(data.Args) > 0 {
		if named, ok := data.Args[0].(pgx.QueryRewriter); ok {
			if rewritten, _, err := named.RewriteQuery(ctx, conn, data.SQL, data.Args[1:]); err == nil {
				sent = rewritten
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran == nil {
		s.ran = map[string]string{}
	}
	s.ran[sent] = data.SQL
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// byTest reports whether the nearest caller outside of pgx is a test's.
func byTest() bool {
	var callers [32]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers[:])])
	for {
		frame, more := frames.Next()
		if !strings.Contains(frame.Function, "github.com/jackc/") {
			return strings.HasSuffix(frame.File, "_test.go") || strings.Contains(frame.Function, "noted/server/servertest.")
		}
		if !more {
			return false
		}
	}
}

// schema is the newest migration's, loaded once per process.
var schema struct {
	once  sync.Once
	found *spacetest.Schema
	err   error
}

// checked holds the statements found right in this process, with the exceptions that each needed.
var checked sync.Map

// check fails the test for each statement that does not name the space it touches.
func (s *statements) check(t testing.TB) {
	t.Helper()
	for _, fault := range s.faults(t) {
		t.Errorf("a statement that a database spread over machines cannot send to one of them: %s", fault)
	}
}

func (s *statements) faults(t testing.TB) (faults []string) {
	t.Helper()
	schema.once.Do(func() { schema.found, schema.err = spacetest.Load(context.Background(), pgtest.Pool(t)) })
	if schema.err != nil {
		t.Fatal(schema.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for sent, stands := range s.ran {
		if _, right := checked.Load(sent); right {
			continue
		}
		var needed []spacetest.Exception
		wrong, err := schema.found.Check(sent, stands, AcrossSpaces, func(x spacetest.Exception) { needed = append(needed, x) })
		if err != nil {
			faults = append(faults, err.Error()+" in "+sent)
		}
		for _, fault := range wrong {
			faults = append(faults, fault+" in "+stands)
		}
		if err == nil && len(wrong) == 0 {
			checked.Store(sent, needed)
		}
	}
	return faults
}

// Excepted returns the exceptions that this server has needed so far.
func (e *Env) Excepted(t testing.TB) map[spacetest.Exception]bool {
	t.Helper()
	e.statements.check(t)
	e.statements.mu.Lock()
	defer e.statements.mu.Unlock()
	needed := map[spacetest.Exception]bool{}
	for sent := range e.statements.ran {
		if by, ok := checked.Load(sent); ok {
			for _, x := range by.([]spacetest.Exception) {
				needed[x] = true
			}
		}
	}
	return needed
}
