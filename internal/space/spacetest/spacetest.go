//go:build race

package spacetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// column holds a row's space in every table whose rows are in one.
const column = "space_id"

// Schema is what the rule needs to know of a database.
type Schema struct {
	Spaced   []string // tables and views that have the column
	Hiding   []string // views of such tables that do not have it
	Volatile []string // volatile functions, whatever their arguments
}

// Querier is a pool or a connection.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Load reads a database's schema.
func Load(ctx context.Context, db Querier) (*Schema, error) {
	s := &Schema{}
	err := db.QueryRow(ctx, `
		with spaced as (
			select table_name::text as name from information_schema.columns where table_schema = 'public' and column_name = $1)
		select
			(select array_agg(name) from spaced),
			(select coalesce(array_agg(distinct view_name::text), '{}') from information_schema.view_table_usage
				where table_name in (select name from spaced) and view_name not in (select name from spaced)),
			(select array_agg(proname) from (select proname::text from pg_proc group by proname having bool_and(provolatile = 'v')) v)`,
		column).Scan(&s.Spaced, &s.Hiding, &s.Volatile)
	if err == nil && len(s.Spaced) == 0 {
		err = fmt.Errorf("no table has the column %s", column)
	}
	return s, err
}

// Exception is a statement that may look through all spaces. It is identified by a table that it reads and a text
// found in no other statement.
type Exception struct {
	Table, In string
	Why       string
}

// Check returns what is wrong with the statement:
//
//   - it reads or writes a table of a space, and no necessary condition equates that space to a parameter, or to
//     the space of something that is equated to one;
//   - it inserts a row without its space, or changes a row's space;
//   - it calls a volatile function in an update or delete. (What a with clause read before is fine: it is read
//     once, and then sent along.)
//
// shown is the statement as written in the program, by which exceptions are found. Check calls used for each exception
// that it needed.
func (s *Schema) Check(sql, shown string, exceptions []Exception, used func(Exception)) ([]string, error) {
	tree, err := pgquery.Parse(sql)
	if err != nil {
		return nil, err
	}
	c := &check{Schema: s, shown: shown, exceptions: exceptions, used: used}
	for _, raw := range tree.GetStmts() {
		c.statement(raw.GetStmt(), nil)
	}
	return c.faults, nil
}

type check struct {
	*Schema
	shown      string
	exceptions []Exception
	used       func(Exception)
	faults     []string
}

func (c *check) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// scope is what a query's column names mean.
type scope struct {
	outer *scope
	ctes  []string // names of with clauses, not tables
	// tables by their names in the query.
	tables map[string]*table
}

type table struct {
	name   string
	spaced bool
	pinned bool // its space is a parameter
}

func (sc *scope) isCTE(name string) bool {
	for ; sc != nil; sc = sc.outer {
		if slices.Contains(sc.ctes, name) {
			return true
		}
	}
	return false
}

// find returns the table whose space a column reference is; nil if it is something else.
func (sc *scope) find(ref *pgquery.ColumnRef) *table {
	var names []string
	for _, f := range ref.GetFields() {
		names = append(names, f.GetString_().GetSval())
	}
	if len(names) == 0 || names[len(names)-1] != column {
		return nil
	}
	for ; sc != nil; sc = sc.outer {
		for alias, t := range sc.tables {
			if t.spaced && (len(names) == 1 || names[len(names)-2] == alias) {
				return t
			}
		}
		if len(names) > 1 && sc.tables[names[len(names)-2]] != nil {
			return nil
		}
	}
	return nil
}

// equality says that two things are equal in all rows of the tables in pins; nil means all tables.
type equality struct {
	left, right *pgquery.Node
	pins        map[*table]bool
}

// query analyzes one level of a statement: its tables, its necessary conditions, and then what is nested.
type query struct {
	*check
	scope *scope
	equal []equality
}

func (c *check) statement(n *pgquery.Node, outer *scope) {
	q := &query{check: c, scope: &scope{outer: outer, tables: map[string]*table{}}}
	switch {
	case n.GetSelectStmt() != nil:
		q.selects(n.GetSelectStmt())
	case n.GetInsertStmt() != nil:
		q.inserts(n.GetInsertStmt())
	case n.GetUpdateStmt() != nil:
		u := n.GetUpdateStmt()
		q.with(u.GetWithClause())
		q.relation(u.GetRelation())
		q.writes(u.GetTargetList(), q.scope.tables[nameOf(u.GetRelation())])
		q.from(u.GetFromClause())
		q.holds(u.GetWhereClause(), nil)
		q.settle()
		q.calm(u.GetFromClause()...)
		q.calm(u.GetTargetList()...)
		q.calm(u.GetWhereClause())
		q.nested(u)
	case n.GetDeleteStmt() != nil:
		d := n.GetDeleteStmt()
		q.with(d.GetWithClause())
		q.relation(d.GetRelation())
		q.from(d.GetUsingClause())
		q.holds(d.GetWhereClause(), nil)
		q.settle()
		q.calm(d.GetUsingClause()...)
		q.calm(d.GetWhereClause())
		q.nested(d)
	default: // lock table, merge, copy and the like, which no statement uses on spaces
		walk(n.ProtoReflect(), func(m proto.Message) bool {
			if r, ok := m.(*pgquery.RangeVar); ok && slices.Contains(c.Spaced, r.GetRelname()) {
				c.fault("%s is touched by a statement that can name no space", r.GetRelname())
			}
			return true
		})
	}
}

func (q *query) selects(s *pgquery.SelectStmt) {
	q.with(s.GetWithClause())
	if s.GetLarg() != nil { // union and the like
		for _, side := range []*pgquery.SelectStmt{s.GetLarg(), s.GetRarg()} {
			q.statement(&pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: side}}, q.scope)
		}
		return
	}
	q.from(s.GetFromClause())
	q.holds(s.GetWhereClause(), nil)
	q.settle()
	q.nested(s)
}

func (q *query) inserts(i *pgquery.InsertStmt) {
	q.with(i.GetWithClause())
	q.relation(i.GetRelation())
	into := q.scope.tables[nameOf(i.GetRelation())]
	if into.spaced {
		names := slices.ContainsFunc(i.GetCols(), func(n *pgquery.Node) bool { return n.GetResTarget().GetName() == column })
		if !names {
			q.fault("a row of %s is inserted without its space", into.name)
		}
		into.pinned = true // by the row
	}
	q.settle()
	if on := i.GetOnConflictClause(); on != nil {
		q.writes(on.GetTargetList(), into)
		q.calm(on.GetTargetList()...)
		q.calm(on.GetWhereClause())
	}
	q.nested(i)
}

// writes refuses to change a row's space.
func (q *query) writes(set []*pgquery.Node, t *table) {
	for _, n := range set {
		if t.spaced && n.GetResTarget().GetName() == column {
			q.fault("the space of a row of %s is changed", t.name)
		}
	}
}

func (q *query) with(w *pgquery.WithClause) {
	for _, n := range w.GetCtes() {
		cte := n.GetCommonTableExpr()
		q.statement(cte.GetCtequery(), q.scope)
		q.scope.ctes = append(q.scope.ctes, cte.GetCtename())
	}
}

func nameOf(r *pgquery.RangeVar) string {
	if alias := r.GetAlias().GetAliasname(); alias != "" {
		return alias
	}
	return r.GetRelname()
}

func (q *query) relation(r *pgquery.RangeVar) *table {
	name := r.GetRelname()
	t := &table{name: name, spaced: slices.Contains(q.Spaced, name) && !q.scope.isCTE(name)}
	q.scope.tables[nameOf(r)] = t
	if slices.Contains(q.Hiding, name) {
		q.fault("the view %s hides the space of what it shows", name)
	}
	return t
}

func (q *query) from(items []*pgquery.Node) {
	for _, n := range items {
		q.item(n)
	}
}

// item adds a part of a from clause, and returns its tables. The condition of an outer join holds on only one
// side; that of a full join on neither.
func (q *query) item(n *pgquery.Node) map[*table]bool {
	tables := map[*table]bool{}
	switch {
	case n.GetRangeVar() != nil:
		tables[q.relation(n.GetRangeVar())] = true
	case n.GetRangeSubselect().GetAlias() != nil:
		q.scope.tables[n.GetRangeSubselect().GetAlias().GetAliasname()] = &table{}
	case n.GetJoinExpr() != nil:
		j := n.GetJoinExpr()
		left, right := q.item(j.GetLarg()), q.item(j.GetRarg())
		for _, side := range []map[*table]bool{left, right} {
			for t := range side {
				tables[t] = true
			}
		}
		pins := map[*table]bool{}
		switch j.GetJointype() {
		case pgquery.JoinType_JOIN_INNER:
			pins = nil
		case pgquery.JoinType_JOIN_LEFT:
			pins = right
		case pgquery.JoinType_JOIN_RIGHT:
			pins = left
		}
		q.holds(j.GetQuals(), pins)
	}
	return tables
}

// holds notes the equalities of a necessary condition.
func (q *query) holds(n *pgquery.Node, pins map[*table]bool) {
	if b := n.GetBoolExpr(); b != nil && b.GetBoolop() == pgquery.BoolExprType_AND_EXPR {
		for _, one := range b.GetArgs() {
			q.holds(one, pins)
		}
		return
	}
	e := n.GetAExpr()
	if e.GetKind() == pgquery.A_Expr_Kind_AEXPR_OP && len(e.GetName()) == 1 && e.GetName()[0].GetString_().GetSval() == "=" {
		q.equal = append(q.equal, equality{e.GetLexpr(), e.GetRexpr(), pins}, equality{e.GetRexpr(), e.GetLexpr(), pins})
	}
}

// settle follows the equalities from the parameters, and reports tables that they do not reach. An exception
// covers only the table that it names; tables joined to it must name their space.
func (q *query) settle() {
	for again := true; again; {
		again = false
		for _, e := range q.equal {
			t := q.scope.find(e.left.GetColumnRef())
			if t == nil || t.pinned || e.pins != nil && !e.pins[t] {
				continue
			}
			from := q.scope.find(e.right.GetColumnRef())
			if isParameter(e.right) || from != nil && from.pinned {
				t.pinned, again = true, true
			}
		}
		if again {
			continue
		}
		for _, t := range q.scope.tables {
			for _, x := range q.exceptions {
				if t.spaced && !t.pinned && x.Table == t.name && strings.Contains(q.shown, x.In) {
					q.used(x)
					t.pinned, again = true, true
				}
			}
		}
	}
	for alias, t := range q.scope.tables {
		if t.spaced && !t.pinned {
			q.fault("%s (%s) is touched, and its space is not named", t.name, alias)
			t.pinned = true // once only
		}
	}
}

func isParameter(n *pgquery.Node) bool {
	if cast := n.GetTypeCast(); cast != nil {
		return isParameter(cast.GetArg())
	}
	return n.GetParamRef() != nil
}

// calm refuses volatile functions.
func (q *query) calm(nodes ...*pgquery.Node) {
	for _, n := range nodes {
		walk(n.ProtoReflect(), func(m proto.Message) bool {
			if f, ok := m.(*pgquery.FuncCall); ok {
				if name := f.GetFuncname()[len(f.GetFuncname())-1].GetString_().GetSval(); slices.Contains(q.Volatile, name) {
					q.fault("%s() is volatile, and called by an update or delete", name)
				}
			}
			return true
		})
	}
}

// nested checks the queries inside a query, which see its tables. Those in its with clause are already checked.
func (q *query) nested(m proto.Message) {
	walk(m.ProtoReflect(), func(inner proto.Message) bool {
		switch inner := inner.(type) {
		case *pgquery.WithClause:
			return false
		case *pgquery.SelectStmt:
			if inner == m {
				return true
			}
			q.statement(&pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: inner}}, q.scope)
			return false
		}
		return true
	})
}

// walk calls see for the message and everything in it; if see returns false, it goes no deeper.
func walk(m protoreflect.Message, see func(proto.Message) bool) {
	if !m.IsValid() || !see(m.Interface()) {
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				walk(value.List().Get(i).Message(), see)
			}
		case field.Message() != nil && !field.IsMap():
			walk(value.Message(), see)
		}
		return true
	})
}
