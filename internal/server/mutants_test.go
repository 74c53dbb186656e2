package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clause is a part of a statement that decides who sees what, and what stands there when it is taken
// out or turned round.
type clause struct{ is, without string }

const (
	roleSQL         = `coalesce(m.role, case when n.org_id = @service_org then @service_role end)`
	notebookRoleSQL = `coalesce(m.role, case when b.org_id = @service_org then @service_role end)`
)

// clauses are all of them. A new one belongs here; one that no statement has any more fails the test.
var clauses = []clause{
	// The way from a note to the caller's standing to it.
	{"m.org_id = n.org_id and m.user_id = @user", "m.user_id = @user"},
	{"m.org_id = n.org_id and m.user_id = @user", "m.org_id = n.org_id"},
	{"m.org_id = n.org_id and m.user_id = @user", "false"},
	{"b on b.id = n.notebook_id", "b on false"},
	{"user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)", "(note_id = n.id or notebook_id = n.notebook_id)"},
	{"user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)", "user_id = @user and (note_id = n.id)"},
	{"user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)", "user_id = @user and (notebook_id = n.notebook_id)"},
	{"user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)", "user_id = @user"},
	{"select max(access)", "select min(access)"},
	{"case when n.org_id = @service_org then @service_role end", "null"},
	{"case when n.org_id = @service_org then @service_role end", "case when @service_org::uuid is not null then @service_role end"},
	{"(n.owner_id = @user) is true", "true"},
	{"(n.owner_id = @user) is true", "false"},
	{"coalesce(" + roleSQL + ", '')", "''"},
	{"coalesce(g.access, ''), coalesce(b.restricted, false)", "'', coalesce(b.restricted, false)"},
	{"coalesce(g.access, ''), coalesce(b.restricted, false)", "coalesce(g.access, ''), false"},
	// Which notes of an organization a list shows.
	{"(\n\t@any\n", "(\n\tfalse\n"},
	{"(not coalesce(b.restricted, false) and " + roleSQL + " = any(@org_roles))", "(" + roleSQL + " = any(@org_roles))"},
	{"(not coalesce(b.restricted, false) and " + roleSQL + " = any(@org_roles))", "(not coalesce(b.restricted, false) and " + roleSQL + " is not null)"},
	{"(not coalesce(b.restricted, false) and " + roleSQL + " = any(@org_roles))", "false"},
	{"(b.restricted and " + roleSQL + " = any(@restricted_roles))", "(" + roleSQL + " = any(@restricted_roles))"},
	{"(b.restricted and " + roleSQL + " = any(@restricted_roles))", "(b.restricted and " + roleSQL + " is not null)"},
	{"(b.restricted and " + roleSQL + " = any(@restricted_roles))", "false"},
	{"or g.access = any(@accesses)", "or g.access is not null"},
	{"or g.access = any(@accesses)", ""},
	// Which deleted notes.
	{"(n.org_id is null and n.owner_id = @user and @own)", "(n.owner_id = @user and @own)"},
	{"(n.org_id is null and n.owner_id = @user and @own)", "(n.org_id is null and @own)"},
	{"(n.org_id is null and n.owner_id = @user and @own)", "(n.org_id is null and n.owner_id = @user)"},
	{"(n.org_id is null and n.owner_id = @user and @own)", "false"},
	{"@own)\n\tor @any\n", "@own)\n"},
	{"or (" + roleSQL + " = any(@org_roles) and (not", "or (" + roleSQL + " is not null and (not"},
	{"and (not coalesce(b.restricted, false) or " + roleSQL + " = any(@restricted_roles))", ""},
	{"and (not coalesce(b.restricted, false) or " + roleSQL + " = any(@restricted_roles))", "and not coalesce(b.restricted, false)"},
	{"and (not coalesce(b.restricted, false) or " + roleSQL + " = any(@restricted_roles))", "and " + roleSQL + " = any(@restricted_roles)"},
	// Which notes a statement looks at.
	{"where n.id = @id and n.deleted_at is null", "where n.id = @id"},
	{"where n.id = @id and n.deleted_at is not null", "where n.id = @id"},
	{"@id and n.deleted_at is null and n.org_id is null and n.owner_id = @user", "@id and n.org_id is null and n.owner_id = @user"},
	{"@id and n.deleted_at is null and n.org_id is null and n.owner_id = @user", "@id and n.deleted_at is null and n.owner_id = @user"},
	{"@id and n.deleted_at is null and n.org_id is null and n.owner_id = @user", "@id and n.deleted_at is null and n.org_id is null"},
	{"where n.deleted_at is null and (\n", "where (\n"},
	{"where n.deleted_at is null and n.org_id is null", "where n.org_id is null"},
	{"where n.deleted_at is null and true", "where true"},
	{"where n.deleted_at is not null and (\n", "where (\n"},
	{"and n.notebook_id = @notebook", ""},
	{"\n) and n.notebook_id = @notebook", " or true) and n.notebook_id = @notebook"},
	{"and n.org_id = @org", ""},
	{"\n) and n.org_id = @org", " or true) and n.org_id = @org"},
	{"and n.org_id is null and n.owner_id = @user\n", "and n.owner_id = @user\n"},
	{"and n.org_id is null and n.owner_id = @user\n", "and n.org_id is null\n"},
	// Notebooks.
	{"m.org_id = b.org_id and m.user_id = @user", "m.user_id = @user"},
	{"m.org_id = b.org_id and m.user_id = @user", "m.org_id = b.org_id"},
	{"g.notebook_id = b.id and g.user_id = @user", "g.user_id = @user"},
	{"g.notebook_id = b.id and g.user_id = @user", "g.notebook_id = b.id"},
	{"case when b.org_id = @service_org then @service_role end", "null"},
	{"case when b.org_id = @service_org then @service_role end", "case when @service_org::uuid is not null then @service_role end"},
	{"(not b.restricted and " + notebookRoleSQL + " = any(@plain_roles))", "(" + notebookRoleSQL + " = any(@plain_roles))"},
	{"(not b.restricted and " + notebookRoleSQL + " = any(@plain_roles))", "(not b.restricted)"},
	{"(b.restricted and " + notebookRoleSQL + " = any(@restricted_roles))", "(" + notebookRoleSQL + " = any(@restricted_roles))"},
	{"(b.restricted and " + notebookRoleSQL + " = any(@restricted_roles))", "b.restricted"},
	{"or g.access = any(@accesses)\n\t)", "or g.access is not null)"},
	{"or g.access = any(@accesses)\n\t)", ")"},
	{"where b.org_id = @org and (\n", "where (\n"},
	{"where b.id = @id and (@org::uuid is null or b.org_id = @org)", "where b.id = @id and coalesce(@org::uuid, b.id) is not null"},
	{"where g.org_id = @org and g.notebook_id = @thing", "where g.org_id = @org and coalesce(@thing::uuid, g.org_id) is not null"},
	{"where g.org_id = @org and g.note_id = @thing", "where g.org_id = @org and coalesce(@thing::uuid, g.org_id) is not null"},
	// Members.
	{"select role from members where org_id = $1 and user_id = $2", "select role from members where $1::uuid is not null and user_id = $2"},
	{"select role from members where org_id = $1 and user_id = $2", "select role from members where org_id = $1 and $2::uuid is not null"},
	{"and o.id = @org", "and @org::uuid is not null"},
	{"(m.role is not null or o.id = @service_org)", "true"},
	{"where m.org_id = @org and m.user_id = @user", "where m.user_id = @user and @org::uuid is not null"},
	{"and revoked_at is null and expires_at > now() and id = @id", "and revoked_at is null and expires_at > now() and @id::uuid is not null"},
	{"where org_id = @org and accepted_at is null", "where @org::uuid is not null and accepted_at is null"},
	{"(k.user_id = @user or k.org_id = @org)", "(@user::uuid is null or @org::uuid is null)"},
}

// inCode are decisions that stand in Go.
var inCode = []string{"a service elsewhere", "a note elsewhere", "restricted in the Dead Zone", "more than one has"}

// edits make a copy of the program in which the environment chooses one clause to be taken out, or the
// declared permission of one operation to be taken out.
var edits = []struct{ file, is, by string }{
	{"orgs/store.go", "if caller.Org == org {", `if caller.Org == org || os.Getenv("NOTED_MUTANT") == "a service elsewhere" {`},
	{"notes/grants.go", "if err == nil && r.standing.Org != org {", `if err == nil && r.standing.Org != org && os.Getenv("NOTED_MUTANT") != "a note elsewhere" {`},
	{"authz/standing.go", `if kind != "deadzone" || !s.Restricted ||`, `if kind != "deadzone" || !s.Restricted || os.Getenv("NOTED_MUTANT") == "restricted in the Dead Zone" ||`},
	{"authz/gives.go", "if lacking == 0 {", `if lacking == 0 || os.Getenv("NOTED_MUTANT") == "more than one has" {`},
	{"authz/operation.go", "answer(ctx, check(From(ctx.Context())))", "answer(ctx, mutant(op, check(From(ctx.Context()))))"},
	{"authz/operation.go", "found, err := locate(ctx, kind, act, names, find)\n", "found, err := locate(ctx, kind, act, names, find)\n\t\terr = mutant(op, err)\n"},
	{"authz/operation.go", "if err := caller.CheckKind(kind, act); err != nil {", "if err := caller.CheckKind(kind, act); err != nil && !takenOut(ctx) {"},
	{"authz/operation.go", "found.By, err = caller.DecideIn(kind, act, found.Standing, whole, err)", "lookup := err\n\t\tif found.By, err = caller.DecideIn(kind, act, found.Standing, whole, err); takenOut(ctx) {\n\t\t\terr = lookup\n\t\t}"},
	{"authz/operation.go", "found.By, err = caller.DecideOn(kind, act, found.Standing)", "if found.By, err = caller.DecideOn(kind, act, found.Standing); takenOut(ctx) {\n\t\t\terr = nil\n\t\t}"},
	{"identity/authenticate.go", "err := caller.Check(needed)\n", "err := authz.Mutant(r.Method+\" \"+r.URL.Path, caller.Check(needed))\n"},
	{"identity/authenticate.go", "if err == nil && caller.Via != authz.ViaSession {", "if err == nil && caller.Via != authz.ViaSession && os.Getenv(\"NOTED_MUTANT\") != \"out \"+r.Method+\" \"+r.URL.Path {"},
	{"identity/authenticate.go", "if !authz.From(r.Context()).ByBrowser {", "if !authz.From(r.Context()).ByBrowser && os.Getenv(\"NOTED_MUTANT\") != \"out \"+r.Method+\" \"+r.URL.Path {"},
}

// appended is what the edits call.
var appended = map[string]string{
	"authz/operation.go": `
func takenOut(ctx huma.Context) bool {
	return os.Getenv("NOTED_MUTANT") == "out "+ctx.Operation().Method+" "+ctx.Operation().Path
}

func mutant(op huma.Operation, err error) error { return Mutant(op.Method+" "+op.Path, err) }

func Mutant(operation string, err error) error {
	var e *problem.Error
	if os.Getenv("NOTED_MUTANT") == "out "+operation && errors.As(err, &e) && e.Status == http.StatusForbidden {
		return nil
	}
	return err
}
`,
	// Statements pass through this.
	"SQL": `
type asked interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

type mut struct{ db asked }

func changed(db asked) mut { return mut{db} }

func (m mut) sql(text string) string {
	is := os.Getenv("NOTED_CLAUSE")
	if is == "" || !strings.Contains(text, is) {
		return text
	}
	_, _ = os.Stderr.WriteString("CLAUSE FOUND\n")
	return strings.Replace(text, is, os.Getenv("NOTED_WITHOUT"), 1)
}

func (m mut) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return m.db.Query(ctx, m.sql(sql), args...)
}

func (m mut) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return m.db.QueryRow(ctx, m.sql(sql), args...)
}

func (m mut) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return m.db.Exec(ctx, m.sql(sql), args...)
}
`,
}

var asks = regexp.MustCompile(`\b(s\.pool|db|tx)\.(Query|QueryRow|Exec)\(`)

// overlay writes the changed copies and returns the file that tells go of them. The tree itself is not
// touched.
func overlay(t *testing.T, root string) string {
	t.Helper()
	folder, texts := t.TempDir(), map[string]string{}
	load := func(name string) string {
		if texts[name] == "" {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = string(text)
		}
		return texts[name]
	}
	for _, e := range edits {
		if n := strings.Count(load(e.file), e.is); n != 1 {
			t.Fatalf("%s: %q is there %d times, want once", e.file, e.is, n)
		}
		texts[e.file] = strings.Replace(texts[e.file], e.is, e.by, 1)
	}
	for _, name := range []string{"notes/store.go", "notes/notebooks.go", "notes/grants.go", "orgs/store.go", "keys/store.go"} {
		texts[name] = asks.ReplaceAllString(load(name), "changed($1).$2(")
	}
	for _, name := range []string{"notes/store.go", "orgs/store.go", "keys/store.go"} {
		texts[name] += appended["SQL"]
	}
	texts["authz/operation.go"] += appended["authz/operation.go"]
	replaced := map[string]string{}
	for name, text := range texts {
		for _, path := range []string{"os", "strings", "github.com/jackc/pgx/v5/pgconn"} {
			used := strings.Contains(text, path[strings.LastIndexByte(path, '/')+1:]+".")
			if used && !strings.Contains(text, `"`+path+`"`) {
				text = strings.Replace(text, "import (", "import (\n\t\""+path+"\"", 1)
			}
		}
		changed := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		replaced[path] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mutation is one run of the access tests against a changed program.
type mutation struct {
	name      string
	env, args []string
	survives  bool // for the run in which nothing is changed
}

func mutations(routes []string) []mutation {
	const lists = "-test.run=^(TestAListIsWhatAsking|TestIDsThatDoNot|TestOrganizationsAnswer|TestEveryOperationAnswers)"
	all := []mutation{{name: "nothing", survives: true, args: []string{lists, "-access.only=/v1/notes/{id}"}}}
	for _, c := range clauses {
		all = append(all, mutation{name: fmt.Sprintf("%q is %q", c.is, c.without), env: []string{"NOTED_CLAUSE=" + c.is, "NOTED_WITHOUT=" + c.without}, args: []string{lists}})
	}
	for _, name := range inCode {
		all = append(all, mutation{name: name, env: []string{"NOTED_MUTANT=" + name}, args: []string{lists}})
	}
	for _, route := range routes {
		all = append(all, mutation{
			name: "out " + route, env: []string{"NOTED_MUTANT=out " + route},
			args: []string{"-test.run=^(TestAKeyWhoseRoleThePolicyDoesNotDefine|TestOrganizationsAnswer|TestEveryOperationAnswers)", "-access.only=" + route},
		})
	}
	return all
}

// TestEachClauseAndEachPermissionIsNeeded takes out every clause by which statements decide who sees
// what, and every operation's declared permission, one at a time, and requires that the access tests
// then fail. The program is built once; the tests of the access run in a process for each.
func TestEachClauseAndEachPermissionIsNeeded(t *testing.T) {
	if os.Getenv("NOTED_MUTANTS") != "" {
		t.Skip("NOTED_MUTANTS is set: this is a changed program, which the test itself runs")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "changed.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay(t, root), "-o", binary, "./internal/server")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the changed program: %v\n%s", err, out)
	}
	routes := slices.DeleteFunc(routesOf(t, newAccessWorld(t).Env), func(route string) bool { return slices.Contains(publicRoutes, route) })
	all := mutations(routes)
	var wait sync.WaitGroup
	next := make(chan mutation)
	for range 2 {
		wait.Go(func() {
			for m := range next {
				m.run(t, binary)
			}
		})
	}
	for _, m := range all {
		next <- m
	}
	close(next)
	wait.Wait()
	t.Logf("%d clauses, %d decisions in code and %d declared permissions: %d changed programs", len(clauses), len(inCode), len(routes), len(all)-1)
}

func (m mutation) run(t *testing.T, binary string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, binary, append([]string{"-test.failfast", "-access.stop"}, m.args...)...)
	command.Env = append(append(os.Environ(), "NOTED_MUTANTS=1"), m.env...)
	out, err := command.CombinedOutput()
	switch {
	case m.survives && err != nil:
		t.Errorf("with nothing changed the access tests fail:\n%s", out)
	case m.survives:
	case err == nil:
		t.Errorf("%s: no access test fails", m.name)
	case !bytes.Contains(out, []byte("--- FAIL: ")):
		t.Errorf("%s: it failed by something else than a test:\n%s", m.name, out)
	case bytes.Contains(out, []byte(invalidSQL)):
		t.Errorf("%s: that is no SQL", m.name)
	case len(m.env) == 2 && !bytes.Contains(out, []byte("CLAUSE FOUND")):
		t.Errorf("%s: no statement has this clause", m.name)
	}
}
