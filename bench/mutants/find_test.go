package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// clausesOf returns the faults of a statement, and the statement with one of them.
func clausesOf(t *testing.T, sql string) (names []string, with func(name string) string) {
	t.Helper()
	f := &finder{fset: token.NewFileSet(), named: map[string]int{}, sql: map[int][2]string{}, seen: map[ast.Expr]bool{}}
	text := "package x\n\nconst c = `" + sql + "`\n"
	tree, err := parser.ParseFile(f.fset, "x.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	in := &file{name: "x.go", text: []byte(text), tree: tree, of: &room{info: &types.Info{}}}
	s := &statements{finder: f, room: in.of}
	s.clauses(in, []piece{{sql, strings.IndexByte(text, '`') + 1, false}})
	for _, p := range f.places {
		names = append(names, strings.TrimPrefix(p.name, "x.go:c:"))
	}
	return names, func(name string) string {
		i := slices.Index(names, name)
		if i < 0 {
			t.Fatalf("there is no %q among %q", name, names)
		}
		changed := string(in.changed())
		id := f.places[i].id
		return strings.Join(strings.Fields(fillIn(changed[strings.IndexByte(changed, '`')+1:strings.LastIndexByte(changed, '`')], id, f.sql[id])), " ")
	}
}

func TestEachPartOfAConditionIsAFault(t *testing.T) {
	for sql, want := range map[string][]string{
		"select id from notes where id = $1": {"id = $1 is true"},
		"select id from a where b = @c and (d is null or (e and f = any(@g))) order by h": {
			"b = @c is true", "(d is null or (e and f = any(@g))) is true", "d is null is false", "(e and f = any(@g)) is false", "e is true", "f = any(@g) is true",
		},
		"select revoked_at is null and x > now(), name from keys for share": {
			"revoked_at is null and x > now() is true", "revoked_at is null and x > now() is false", "revoked_at is null is true", "x > now() is true", "for share left out",
		},
		"from a left join b on b.id = a.id and b.u = @u left join lateral (select max(x) from g where u = @u) g on true": {
			"b.id = a.id is true", "b.u = @u is true", "b.id = a.id and b.u = @u is false", "max is min", "u = @u is true",
		},
		"coalesce(m.role, case when n.org = @o then @r end)":                            {"m.role is null", "case when n.org = @o then @r end is null", "n.org = @o is true", "n.org = @o is false"},
		"update a set b = 1 where id = $1 and not exists (select from c where d = $1)":  {"id = $1 is true", "not exists (select from c where d = $1) is true", "d = $1 is true"},
		"insert into a values ($1) on conflict (b) do nothing":                          nil,
		"and x between 1 and 2 and y":                                                   {"x between 1 and 2 is true", "y is true"},
		"select a from b where (@at::timestamptz is null or (c, d) < (@at, @id)) and e": {"e is true"},
	} {
		got, _ := clausesOf(t, sql)
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sql, diff)
		}
	}
}

func TestAFaultLeavesTheStatementAStatement(t *testing.T) {
	const sql = "select max(a) from b where c = $1 and d = $2 for update"
	_, with := clausesOf(t, sql)
	for name, want := range map[string]string{
		"c = $1 is true":      "select max(a) from b where (true or (c = $1)) and d = $2 for update",
		"max is min":          "select min/*max*/(a) from b where c = $1 and d = $2 for update",
		"for update left out": "select max(a) from b where c = $1 and d = $2 /*for update*/",
	} {
		if got := with(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// The program contains all faults that were once put in by hand, and all kinds of faults.
func TestWhatDecidesInTheProgramIsFound(t *testing.T) {
	f, err := find(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range f.places {
		names = append(names, p.name)
	}
	for _, want := range []string{
		"notes/http.go:checkMove:Require#2", "notes/http.go:writeDead:Again", "orgs/http.go:revokeInvitation:Again", "identity/store_devices.go:decide:Confirm left out",
		"orgs/http.go:createInvitation:Change is Write", "orgs/store.go:transact:hold left out", "notes/store.go:lock:for update left out", "orgs/store.go:Change:for no key update left out",
		"authz/operation.go:locate:decide", "authz/operation.go:Again:decide#2", "orgs/http.go:changeOne:Gone", "authz/operation.go:register:check", "identity/authenticate.go:BySession:check",
		"orgs/store.go:standing:caller.Org == org is true", "authz/standing.go:inOrganization:!s.Restricted is true",
		"notes/standing.go:from:m.org_id = n.org_id is true", "notes/standing.go:from:max is min", "notes/standing.go:visible:g.access = any(@accesses) is false",
		"notes/http.go:delete:write without Confirm", "notes/http.go:delete:write without locks",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not found", want)
		}
	}
	if len(names) < 700 {
		t.Errorf("%d places are found; there were more", len(names))
	}
}
