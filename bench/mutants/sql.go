package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

// inSQL finds the clauses in a package's statements: whatever goes to Query, QueryRow or Exec, with the constants,
// variables, parameters and functions that build it, and each literal that begins like a statement.
func (f *finder) inSQL(r *room) {
	s := &statements{finder: f, room: r, files: map[ast.Expr]*file{}, values: map[types.Object][]ast.Expr{}, calls: map[types.Object][]*ast.CallExpr{}}
	var asked []ast.Expr
	for _, file := range r.files {
		ast.Inspect(file.tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if len(n.Values) == len(n.Names) {
						s.gives(r.info.Defs[name], n.Values[i], file)
					}
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if name, ok := left.(*ast.Ident); ok && len(n.Rhs) == len(n.Lhs) {
						s.gives(r.info.ObjectOf(name), n.Rhs[i], file)
					}
				}
			case *ast.FuncDecl:
				if n.Body == nil {
					break
				}
				ast.Inspect(n.Body, func(inner ast.Node) bool {
					if _, literal := inner.(*ast.FuncLit); literal {
						return false
					}
					if ret, ok := inner.(*ast.ReturnStmt); ok && len(ret.Results) == 1 {
						s.gives(r.info.Defs[n.Name], ret.Results[0], file)
					}
					return true
				})
			case *ast.CallExpr:
				o := r.callee(n)
				if o == nil {
					break
				}
				s.calls[o] = append(s.calls[o], n)
				for _, a := range n.Args {
					s.files[a] = file
				}
				if sig := signature(o); slices.Contains([]string{"Query", "QueryRow", "Exec"}, o.Name()) && sig != nil && sig.Params().Len() > 1 && len(n.Args) > 1 {
					file.wrap(f.fset, n.Args[1], "mutant.SQL(", ")")
					asked = append(asked, n.Args[1])
				}
			}
			return true
		})
	}
	for _, e := range asked {
		s.read(e, s.files[e])
	}
	begins := regexp.MustCompile("^[`\"]\\s*(select|insert into|update|delete from|with) ")
	for _, file := range r.files {
		ast.Inspect(file.tree, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if literal := first(e); literal != nil && begins.MatchString(literal.Value) {
					s.read(e, file)
					return false
				}
			}
			return true
		})
	}
}

// first returns the literal at the start of an expression.
func first(e ast.Expr) *ast.BasicLit {
	for {
		switch x := e.(type) {
		case *ast.BinaryExpr:
			e = x.X
		case *ast.BasicLit:
			return x
		default:
			return nil
		}
	}
}

type statements struct {
	*finder
	room   *room
	files  map[ast.Expr]*file
	values map[types.Object][]ast.Expr // what is assigned or returned
	calls  map[types.Object][]*ast.CallExpr
}

func (s *statements) gives(o types.Object, e ast.Expr, in *file) {
	if o != nil {
		s.values[o] = append(s.values[o], e)
		s.files[e] = in
	}
}

// piece is part of a text: a literal's content, or something unknown.
type piece struct {
	text   string
	offset int  // of the content in the file
	hole   bool // one unknown thing, for which text has one letter
}

// unknown stands for an unknown part of a statement's text.
const unknown = '\x01'

// read takes an expression apart, follows its names, and finds the clauses.
func (s *statements) read(e ast.Expr, in *file) {
	if in == nil || s.seen[e] {
		return
	}
	s.seen[e] = true
	var pieces []piece
	var take func(e ast.Expr)
	take = func(e ast.Expr) {
		s.seen[e] = true
		switch x := e.(type) {
		case *ast.ParenExpr:
			take(x.X)
			return
		case *ast.BinaryExpr:
			if x.Op == token.ADD {
				take(x.X)
				take(x.Y)
				return
			}
		case *ast.BasicLit:
			if x.Kind == token.STRING && !(x.Value[0] == '"' && strings.Contains(x.Value, `\`)) {
				pieces = append(pieces, piece{x.Value[1 : len(x.Value)-1], in.offset(s.fset, x.Pos()) + 1, false})
				return
			}
		case *ast.CallExpr:
			for _, a := range x.Args {
				if t := s.room.info.TypeOf(a); t != nil && types.Identical(t.Underlying(), types.Typ[types.String]) || isUntypedString(t) {
					s.read(a, in)
				}
			}
			s.follow(s.room.callee(x))
		case *ast.Ident:
			s.follow(s.room.info.ObjectOf(x))
		}
		pieces = append(pieces, piece{string(unknown), 0, true})
	}
	take(e)
	s.clauses(in, pieces)
}

func isUntypedString(t types.Type) bool {
	basic, ok := t.(*types.Basic)
	return ok && basic.Info()&types.IsString != 0
}

// follow reads every possible value of an object.
func (s *statements) follow(o types.Object) {
	if o == nil {
		return
	}
	for _, e := range s.values[o] {
		if t := s.room.info.TypeOf(e); t != nil && isUntypedString(t.Underlying()) {
			s.read(e, s.files[e])
		}
	}
	// A parameter's values are what callers pass.
	for caller, calls := range s.calls {
		sig := signature(caller)
		if sig == nil {
			continue
		}
		for i := range sig.Params().Len() {
			if sig.Params().At(i) != o {
				continue
			}
			for _, call := range calls {
				if i < len(call.Args) {
					s.read(call.Args[i], s.files[call.Args[i]])
				}
			}
		}
	}
}

// word is a token of SQL.
type word struct {
	text     string
	from, to int // in the whole text
	depth    int // of parentheses around it
}

var words = regexp.MustCompile(`'(?:[^']|'')*'|::|<=|>=|<>|&&|\|\||->>|[@$]?\w+|\x01|[^\s]`)

func split(text string) []word {
	var list []word
	depth := 0
	for _, at := range words.FindAllStringIndex(text, -1) {
		w := word{text[at[0]:at[1]], at[0], at[1], depth}
		switch w.text {
		case "(":
			depth++
		case ")":
			depth--
			w.depth = depth
		}
		list = append(list, w)
	}
	return list
}

// clauses finds the faults of one text.
func (s *statements) clauses(in *file, pieces []piece) {
	var whole strings.Builder
	for _, p := range pieces {
		whole.WriteString(p.text)
	}
	c := &clauses{statements: s, in: in, pieces: pieces, text: whole.String(), known: map[string]bool{}}
	c.words = split(c.text)
	if len(c.words) == 0 || len(c.words) == 1 && c.words[0].text == string(unknown) {
		return
	}
	c.find()
}

type clauses struct {
	*statements
	in     *file
	pieces []piece
	text   string
	words  []word
	known  map[string]bool
}

// position is where a page of a list continues; it decides nothing.
var position = regexp.MustCompile(`^(\(?\S+::timestamptz is null( or .*\) < \(.*\))?|\(\w+\S*, \w+\S*\) < \(.*\))$`)

// shown are columns that a coalesce shows to people; they decide nothing either.
var shown = regexp.MustCompile(`^(\$\d|now|host|(\w+\.)?(name|email|title|body|id_token|owner_id|owner_key|deleted_by|deleted_by_key))$`)

// offset returns where in the file to write something before or behind a place of the text. ok is false if that is
// not in a literal.
func (c *clauses) offset(at int, before bool) (offset int, ok bool) {
	start := 0
	for i, p := range c.pieces {
		end := start + len(p.text)
		if !p.hole && at >= start && at <= end {
			switch {
			case at > start && at < end, before && at == end && i+1 < len(c.pieces), !before && at == start && i > 0:
				return p.offset + at - start, true
			case before && at < end, !before && at > start:
				return p.offset + at - start, true
			}
		}
		start = end
	}
	return 0, false
}

// fault notes that the words from i up to j (exclusive) may be replaced.
func (c *clauses) fault(i, j int, what, before, after string) {
	if i >= j {
		return
	}
	from, ok := c.offset(c.words[i].from, true)
	to, ok2 := c.offset(c.words[j-1].to, false)
	if !ok || !ok2 || from > to {
		return
	}
	key := fmt.Sprint(i, " ", j, " ", what)
	if c.known[key] {
		return
	}
	c.known[key] = true
	text := strings.ReplaceAll(strings.Join(strings.Fields(c.text[c.words[i].from:c.words[j-1].to]), " "), string(unknown), "…")
	if position.MatchString(text) {
		return
	}
	if len(text) > 100 {
		text = text[:60] + " … " + text[len(text)-35:]
	}
	p := c.add(c.in, c.in.tree.FileStart+token.Pos(from), text+" "+what)
	c.sql[p.id] = [2]string{before, after}
	c.in.edits = append(c.in.edits, edit{from, to, fmt.Sprintf("/*m%d<*/", p.id), fmt.Sprintf("/*m%d>*/", p.id)})
}

// Faults keep the words they disable, so that the statement stays valid and each argument keeps its type.
func (c *clauses) always(i, j int) { c.fault(i, j, "is true", "(true or (", "))") }
func (c *clauses) never(i, j int)  { c.fault(i, j, "is false", "(false and (", "))") }
func (c *clauses) null(i, j int)   { c.fault(i, j, "is null", "(case when false then (", ") end)") }

func (c *clauses) texts(i, j int) (list []string) {
	for ; i < j; i++ {
		list = append(list, c.at(i))
	}
	return list
}

func (c *clauses) at(i int) string {
	if i < 0 || i >= len(c.words) {
		return ""
	}
	return c.words[i].text
}

// until returns the first word from i, at its depth, that is a stop; or the end of the parentheses or the text.
func (c *clauses) until(i, depth int, stops ...string) int {
	for ; i < len(c.words); i++ {
		w := c.words[i]
		if w.depth < depth {
			return i
		}
		if w.depth == depth && (slices.Contains(stops, w.text) || slices.Contains(stops, w.text+" "+c.at(i+1))) {
			return i
		}
	}
	return i
}

var ends = []string{
	"group", "order", "limit", "returning", "union", "offset", "for update", "for share", "for no", "for key", "on conflict",
}

func (c *clauses) find() {
	switch c.at(0) {
	case "and", "or":
		end := c.until(1, 0, ends...)
		c.operands(1, end, true)
	case "select", "insert", "update", "delete", "with", "from", "where", "for", "left", "join", "order", "returning":
	default:
		c.items(0, c.until(0, 0, append([]string{"from", "where", "and", "or"}, ends...)...))
		if end := c.until(0, 0, ends...); c.isBoolean(0, end) && c.until(0, 0, ",", "from") >= end {
			c.operands(0, end, false)
		} else if i := c.until(0, 0, "and"); c.until(0, 0, ",", "from") > i && i < end {
			c.operands(0, end, false)
		}
	}
	for i, w := range c.words {
		switch w.text {
		case "where", "having":
			c.operands(i+1, c.until(i+1, w.depth, ends...), true)
		case "on":
			if c.at(i+1) == "conflict" || c.at(i+1) == "true" {
				continue
			}
			end := c.until(i+1, w.depth, append([]string{"left", "right", "join", "inner", "cross", "where", ","}, ends...)...)
			c.operands(i+1, end, true)
			c.never(i+1, end)
		case "when":
			end := c.until(i+1, w.depth, "then")
			c.always(i+1, end)
			c.never(i+1, end)
			c.operands(i+1, end, false)
		case "select":
			start := i + 1
			if c.at(start) == "distinct" {
				start++
			}
			c.items(start, c.until(start, w.depth, append([]string{"from", "where"}, ends...)...))
		case "coalesce":
			for from := i + 2; from < len(c.words); {
				to := c.until(from, w.depth+1, ",")
				if to > from && !strings.HasPrefix(c.at(from), "'") && c.at(from) != "false" && c.at(from) != "null" && !shown.MatchString(strings.Join(c.texts(from, min(to, from+3)), "")) {
					c.null(from, to)
				}
				if c.at(to) != "," {
					break
				}
				from = to + 1
			}
		case "max", "min", "least", "greatest":
			other := map[string]string{"max": "min", "min": "max", "least": "greatest", "greatest": "least"}[w.text]
			if c.at(i+1) == "(" {
				c.fault(i, i+1, "is "+other, other+"/*", "*/")
			}
		case "for":
			if next := c.at(i + 1); next == "update" || next == "share" || next == "no" || next == "key" {
				c.fault(i, c.until(i, w.depth, "limit"), "left out", "/*", "*/")
			}
		}
	}
}

// items handles a select list; each condition in it is made true and false.
func (c *clauses) items(i, end int) {
	for i < end {
		to := min(end, c.until(i, c.words[i].depth, ","))
		last := to
		if to-i > 2 && c.at(to-2) == "as" {
			last = to - 2
		}
		if c.isBoolean(i, last) {
			c.always(i, last)
			c.never(i, last)
			c.operands(i, last, false)
		}
		i = to + 1
	}
}

// isBoolean reports whether an expression is a condition.
func (c *clauses) isBoolean(i, j int) bool {
	if i >= j || c.at(i) == "case" {
		return false
	}
	if c.at(i) == "exists" || c.at(i) == "not" {
		return true
	}
	if c.at(i) == "(" && c.closes(i) == j-1 {
		return c.at(i+1) != "select" && c.isBoolean(i+1, j-1)
	}
	for k := i; k < j; k++ {
		if w := c.words[k]; w.depth == c.words[i].depth && slices.Contains([]string{"and", "or", "is", "=", "<", ">", "<=", ">=", "<>", "&&", "in"}, w.text) {
			return true
		}
	}
	return false
}

func (c *clauses) closes(i int) int {
	for k := i + 1; k < len(c.words); k++ {
		if c.words[k].text == ")" && c.words[k].depth == c.words[i].depth {
			return k
		}
	}
	return -1
}

// operands makes each part of a condition irrelevant: what and joins true, what or joins false. alone means that a
// condition with a single part counts too.
func (c *clauses) operands(i, j int, alone bool) {
	if i >= j || i >= len(c.words) {
		return
	}
	if c.at(i) == "(" && c.closes(i) == j-1 && c.at(i+1) != "select" {
		if alone {
			c.always(i, j)
		}
		c.operands(i+1, j-1, false)
		return
	}
	if c.at(i) == "not" && c.at(i+1) == "(" && c.closes(i+1) == j-1 {
		if alone {
			c.always(i, j)
		}
		c.operands(i+2, j-1, false)
		return
	}
	for _, joined := range []string{"or", "and"} {
		parts := c.parts(i, j, joined)
		if len(parts) < 2 {
			continue
		}
		for _, p := range parts {
			if joined == "or" {
				c.never(p[0], p[1])
			} else {
				c.always(p[0], p[1])
			}
			c.operands(p[0], p[1], false)
		}
		return
	}
	if alone && c.at(i) != "true" {
		c.always(i, j)
	}
}

// parts returns what joined (and, or) joins, at the first word's depth.
func (c *clauses) parts(i, j int, joined string) (parts [][2]int) {
	depth, from, between, cases := c.words[i].depth, i, false, 0
	for k := i; k < j; k++ {
		w := c.words[k]
		if w.depth != depth {
			continue
		}
		switch w.text {
		case "case":
			cases++
		case "end":
			cases--
		case "between":
			between = true
		case joined:
			if between && joined == "and" {
				between = false
				continue
			}
			if cases == 0 {
				parts = append(parts, [2]int{from, k})
				from = k + 1
			}
		}
	}
	return append(parts, [2]int{from, j})
}
