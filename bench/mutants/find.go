package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// rooms are the packages that decide. A file's name limits a package to what it decides.
var rooms = []string{"authz", "identity", "keys", "orgs", "notes", "admin", "internal/audit"}

// place is one fault: what is left out or inverted, and where.
type place struct {
	id     int
	name   string // file:function:what#n, for people and accepted; renames elsewhere do not change it
	at     token.Position
	routes bool // it decides for every operation; one fault for each
	mark   bool // it removes what a transaction does below; if it does none of that, there is no fault
}

// edit puts text before and after part of a file.
type edit struct {
	from, to      int // offsets
	before, after string
}

// file is one source file and its edits.
type file struct {
	name  string // from the root, with slashes
	path  string
	text  []byte
	tree  *ast.File
	edits []edit
	of    *room
}

// room is one package.
type room struct {
	files []*file
	types *types.Package
	info  *types.Info
}

// finder collects the places of the whole program.
type finder struct {
	fset   *token.FileSet
	rooms  []*room
	places []*place
	named  map[string]int
	sql    map[int][2]string // text before and after a clause when its fault is chosen
	seen   map[ast.Expr]bool // SQL already read
}

func (f *finder) add(file *file, pos token.Pos, what string) *place {
	name := file.name + ":" + enclosing(file.tree, pos) + ":" + what
	f.named[name]++
	if n := f.named[name]; n > 1 {
		name = fmt.Sprintf("%s#%d", name, n)
	}
	p := &place{id: len(f.places) + 1, name: name, at: f.fset.Position(pos)}
	f.places = append(f.places, p)
	return p
}

// enclosing names the function or declaration around a position.
func enclosing(tree *ast.File, pos token.Pos) string {
	for _, d := range tree.Decls {
		if pos < d.Pos() || pos >= d.End() {
			continue
		}
		switch d := d.(type) {
		case *ast.FuncDecl:
			return d.Name.Name
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && pos >= s.Pos() && pos < s.End() {
					return v.Names[0].Name
				}
			}
		}
	}
	return "-"
}

// find reads the rooms below root.
func find(ctx context.Context, root string) (*finder, error) {
	f := &finder{fset: token.NewFileSet(), named: map[string]int{}, sql: map[int][2]string{}, seen: map[ast.Expr]bool{}}
	exports, err := exportsOf(ctx, root)
	if err != nil {
		return nil, err
	}
	imports := importer.ForCompiler(f.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, name := range rooms {
		r, err := f.load(root, name, imports)
		if err != nil {
			return nil, err
		}
		f.rooms = append(f.rooms, r)
	}
	transacts := f.transactions()
	for _, r := range f.rooms {
		for _, file := range r.files {
			f.inGo(file, transacts)
			f.conditions(file)
		}
		f.inSQL(r)
	}
	return f, nil
}

// exportsOf returns the files with the types of every package that the rooms import.
func exportsOf(ctx context.Context, root string) (map[string]string, error) {
	arguments := []string{"list", "-export", "-deps", "-json=ImportPath,Export"}
	for _, name := range rooms {
		arguments = append(arguments, "./"+name)
	}
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir, command.Stderr = root, os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	exports := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return exports, nil
		} else if err != nil {
			return nil, fmt.Errorf("listing packages: %w", err)
		}
		exports[p.ImportPath] = p.Export
	}
}

func (f *finder) load(root, name string, imports types.Importer) (*room, error) {
	r := &room{info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}, Scopes: map[ast.Node]*types.Scope{},
	}}
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(name), "*.go"))
	if err != nil {
		return nil, err
	}
	var trees []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_other.go") {
			continue
		}
		text, err := os.ReadFile(path) //nolint:gosec // a file of this module
		if err != nil {
			return nil, err
		}
		tree, err := parser.ParseFile(f.fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, &file{name: name + "/" + filepath.Base(path), path: path, text: text, tree: tree, of: r})
		trees = append(trees, tree)
	}
	checker := types.Config{Importer: imports}
	if r.types, err = checker.Check("noted/"+name, f.fset, trees, r.info); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return r, nil
}

func (f *file) offset(fset *token.FileSet, pos token.Pos) int { return fset.Position(pos).Offset }

func (f *file) wrap(fset *token.FileSet, n ast.Node, before, after string) {
	f.edits = append(f.edits, edit{f.offset(fset, n.Pos()), f.offset(fset, n.End()), before, after})
}

func (f *file) source(fset *token.FileSet, n ast.Node) string {
	return string(f.text[f.offset(fset, n.Pos()):f.offset(fset, n.End())])
}

// callee returns what a call calls; nil for a conversion.
func (r *room) callee(call *ast.CallExpr) types.Object {
	fun := ast.Unparen(call.Fun)
	if index, ok := fun.(*ast.IndexExpr); ok {
		fun = index.X
	}
	switch fun := fun.(type) {
	case *ast.Ident:
		return r.info.Uses[fun]
	case *ast.SelectorExpr:
		return r.info.Uses[fun.Sel]
	}
	return nil
}

func signature(o types.Object) *types.Signature {
	if o == nil {
		return nil
	}
	s, _ := o.Type().Underlying().(*types.Signature)
	return s
}

// is reports whether a type, or what it points to, is the package's type of that name.
func is(t types.Type, path, name string) bool {
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Name() == name && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == path
}

func isError(t types.Type) bool { return types.Identical(t, types.Universe.Lookup("error").Type()) }

func isPrincipal(t types.Type) bool { return is(t, "noted/authz", "Principal") }

func isStanding(t types.Type) bool { return is(t, "noted/authz", "Standing") }

func isTarget(t types.Type) bool { return is(t, "noted/authz", "Target") }

func isContext(t types.Type) bool { return is(t, "context", "Context") }

func hasParam(s *types.Signature, ok func(types.Type) bool) bool {
	for v := range s.Params().Variables() {
		if ok(v.Type()) {
			return true
		}
	}
	return false
}

func isFunc(t types.Type) bool {
	_, ok := t.Underlying().(*types.Signature)
	return ok
}

func isTx(t types.Type) bool { return is(t, "github.com/jackc/pgx/v5", "Tx") }

// failing reports whether the last result is an error.
func failing(s *types.Signature) bool {
	n := s.Results().Len()
	return n > 0 && isError(s.Results().At(n-1).Type())
}

// decides reports whether a call decides on a principal: a principal's method, anything that takes one and no
// context, authz.Again, or a method of what RegisterOn found, which decides again.
func decides(o types.Object) bool {
	s := signature(o)
	if _, conversion := o.(*types.TypeName); conversion || s == nil || !failing(s) {
		return false
	}
	switch {
	case hasParam(s, isPrincipal) && !hasParam(s, isContext):
		return true
	case s.Recv() != nil:
		return isPrincipal(s.Recv().Type()) || isTarget(s.Recv().Type())
	}
	return o.Name() == "Again" && o.Pkg().Path() == "noted/authz"
}

func confirms(o types.Object) bool {
	s := signature(o)
	return o != nil && s != nil && o.Name() == "Confirm" && s.Recv() != nil && is(s.Recv().Type(), "noted/identity", "Service")
}

var lockNames = regexp.MustCompile(`(?i)^(hold|lock.*)$`)

// locks reports whether a call locks rows for the rest of a given transaction.
func locks(o types.Object) bool {
	s := signature(o)
	if s == nil || !failing(s) || !lockNames.MatchString(o.Name()) {
		return false
	}
	_, isFunction := o.(*types.Func)
	return isFunction && hasParam(s, isTx) && hasParam(s, isContext) && !hasParam(s, isFunc)
}

// transactions returns the functions that run work in a transaction in which they first confirm or lock.
func (f *finder) transactions() map[string]bool {
	found := map[string]bool{}
	for range 5 { // the depth of their calls
		for _, r := range f.rooms {
			for _, file := range r.files {
				for _, d := range file.tree.Decls {
					fn, ok := d.(*ast.FuncDecl)
					if !ok || fn.Body == nil {
						continue
					}
					o := r.info.Defs[fn.Name]
					if s := signature(o); !failing(s) || !hasParam(s, isContext) || !hasParam(s, isFunc) {
						continue
					}
					ast.Inspect(fn.Body, func(n ast.Node) bool {
						if call, ok := n.(*ast.CallExpr); ok {
							if c := r.callee(call); c != nil && (confirms(c) || locks(c) || found[full(c)]) {
								found[full(o)] = true
							}
						}
						return true
					})
				}
			}
		}
	}
	return found
}

// full returns an object's name in the whole program, since an imported object differs from the one read. An
// interface's method has its implementation's name.
func full(o types.Object) string {
	if fn, ok := o.(*types.Func); ok {
		return strings.Replace(fn.Origin().FullName(), "noted/keys.Organizations)", "*noted/orgs.Service)", 1)
	}
	return ""
}

// inGo finds calls.
func (f *finder) inGo(file *file, transacts map[string]bool) {
	if file.of.types.Name() == "authz" && !strings.HasSuffix(file.name, "/operation.go") {
		return // it makes decisions, asks for none
	}
	r := file.of
	within, asksFor := "", false // the function around, and whether one around is itself a decision on somebody
	var visit func(n ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			within, asksFor = full(r.info.Defs[n.Name]), hasParam(signature(r.info.Defs[n.Name]), isPrincipal)
		case *ast.FuncLit:
			before := asksFor
			asksFor = hasParam(r.info.TypeOf(n).(*types.Signature), isPrincipal) //nolint:forcetypeassert // of a function
			ast.Inspect(n.Body, visit)
			asksFor = before
			return false
		case *ast.CallExpr:
			o := r.callee(n)
			if o == nil {
				break
			}
			if decides(o) {
				f.decision(file, n, o, !asksFor)
			}
			if confirms(o) || locks(o) {
				f.leftOut(file, n, o)
			}
			if transacts[full(o)] && !transacts[within] {
				p, q := f.add(file, n.Pos(), o.Name()+" without Confirm"), f.add(file, n.Pos(), o.Name()+" without locks")
				p.mark, q.mark = true, true
				file.wrap(f.fset, n.Args[0], fmt.Sprintf("mutant.Ctx(%d, %d, ", p.id, q.id), ")")
			}
			if s := signature(o); o.Name() == "Change" && s.Recv() != nil {
				other, _, _ := types.LookupFieldOrMethod(s.Recv().Type(), true, o.Pkg(), "Write")
				selector, ok := n.Fun.(*ast.SelectorExpr)
				if ok && other != nil && types.Identical(other.Type().(*types.Signature).Params(), s.Params()) { //nolint:forcetypeassert // a method
					p := f.add(file, n.Pos(), "Change is Write")
					file.wrap(f.fset, n.Fun, fmt.Sprintf("mutant.Pick(%d, ", p.id), ", "+file.source(f.fset, selector.X)+".Write)")
				}
			}
		}
		return true
	}
	ast.Inspect(file.tree, visit)
}

// decision makes a decision's error count for nothing. In the one place that decides for every operation, it does
// so for one operation at a time.
func (f *finder) decision(file *file, call *ast.CallExpr, o types.Object, each bool) {
	p := f.add(file, call.Pos(), o.Name())
	s := signature(o)
	lookup := "nil"
	for _, a := range call.Args {
		if t := file.of.info.TypeOf(a); t != nil && isError(t) {
			if _, plain := a.(*ast.Ident); plain {
				lookup = file.source(f.fset, a)
			}
		}
	}
	route := `""`
	if each {
		if route = file.of.route(call); route != `""` {
			p.routes = true
		}
	}
	switch s.Results().Len() {
	case 1:
		file.wrap(f.fset, call, fmt.Sprintf("mutant.One(%d, %s, %s, ", p.id, route, lookup), ")")
	case 2:
		file.wrap(f.fset, call, fmt.Sprintf("mutant.Two[%s](%d, %s, %s)(", file.typeName(s.Results().At(0).Type()), p.id, route, lookup), ")")
	}
}

// route returns an expression for the operation being decided on, if known; else "".
func (r *room) route(call *ast.CallExpr) string {
	inner := r.types.Scope().Innermost(call.Pos())
	for scope := inner; scope != nil && scope != r.types.Scope(); scope = scope.Parent() {
		for _, name := range scope.Names() {
			o := scope.Lookup(name)
			switch {
			case o.Pos() > call.Pos():
			case is(o.Type(), "github.com/danielgtaylor/huma/v2", "Context"):
				return fmt.Sprintf("%[1]s.Operation().Method+%[2]q+%[1]s.Operation().Path", name, " ")
			case is(o.Type(), "net/http", "Request"):
				return fmt.Sprintf("%[1]s.Method+%[2]q+%[1]s.URL.Path", name, " ")
			}
		}
	}
	return `""`
}

func (f *file) typeName(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p == f.of.types {
			return ""
		}
		return p.Name()
	})
}

// leftOut skips a call. The call's results become the context it got, true, and no error.
func (f *finder) leftOut(file *file, call *ast.CallExpr, o types.Object) {
	p := f.add(file, call.Pos(), o.Name()+" left out")
	s := signature(o)
	var results, values []string
	kind := "locks"
	if confirms(o) {
		kind = "confirm"
	}
	arg := file.source(f.fset, call.Args[0])
	for v := range s.Results().Variables() {
		results = append(results, file.typeName(v.Type()))
		switch {
		case isContext(v.Type()):
			values = append(values, arg)
		case isError(v.Type()):
			values = append(values, "nil")
		default:
			values = append(values, "true")
		}
	}
	file.wrap(f.fset, call, fmt.Sprintf("func() (%s) { if mutant.Out(%d, %q, %s) { return %s }; return ",
		strings.Join(results, ", "), p.id, kind, arg, strings.Join(values, ", ")), " }()")
}

// conditions finds the operands of && and || that ask about a principal or a standing. It makes each true, and
// false. In authz these are all conditions that decide on a principal for a standing.
func (f *finder) conditions(file *file) {
	r := file.of
	for _, d := range file.tree.Decls {
		fn, all := d.(*ast.FuncDecl)
		if all {
			s := signature(r.info.Defs[fn.Name])
			all = r.types.Name() == "authz" && s.Recv() != nil && isPrincipal(s.Recv().Type()) && hasParam(s, isStanding) && !strings.HasPrefix(fn.Name.Name, "Reasons")
		}
		if r.types.Name() == "authz" && !all {
			continue
		}
		concerns := func(e ast.Expr) (yes bool) {
			ast.Inspect(e, func(n ast.Node) bool {
				if selector, ok := n.(*ast.SelectorExpr); ok {
					if t := r.info.TypeOf(selector.X); t != nil && (isPrincipal(t) || isStanding(t)) {
						yes = true
					}
				}
				return true
			})
			return all || yes
		}
		var operands func(e ast.Expr)
		operands = func(e ast.Expr) {
			e = ast.Unparen(e)
			if binary, ok := e.(*ast.BinaryExpr); ok && (binary.Op == token.LAND || binary.Op == token.LOR) {
				operands(binary.X)
				operands(binary.Y)
				return
			}
			if b, ok := r.info.TypeOf(e).Underlying().(*types.Basic); !ok || b.Info()&types.IsBoolean == 0 || !concerns(e) {
				return
			}
			text := strings.Join(strings.Fields(file.source(f.fset, e)), " ")
			p, q := f.add(file, e.Pos(), text+" is true"), f.add(file, e.Pos(), text+" is false")
			file.wrap(f.fset, e, fmt.Sprintf("mutant.Bool(%d, %d, func() bool { return ", p.id, q.id), " })")
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				operands(n.Cond)
			case *ast.SwitchStmt:
				if n.Tag != nil {
					break
				}
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List { //nolint:forcetypeassert // a switch has nothing else
						operands(e)
					}
				}
			case *ast.ReturnStmt:
				for _, e := range n.Results {
					if binary, ok := ast.Unparen(e).(*ast.BinaryExpr); ok && (binary.Op == token.LAND || binary.Op == token.LOR) {
						operands(e)
					}
				}
			}
			return true
		})
	}
}

// changed returns the file with its edits.
func (f *file) changed() []byte {
	type insertion struct {
		at    int
		open  bool
		width int
		nth   int
		text  string
	}
	at := int(f.tree.Name.End() - f.tree.FileStart)
	var all []insertion
	if slices.ContainsFunc(f.edits, func(e edit) bool { return strings.Contains(e.before, "mutant.") }) {
		all = append(all, insertion{at, true, len(f.text), 0, `; import "noted/internal/mutant"`})
	}
	for i, e := range f.edits {
		width := e.to - e.from
		all = append(all, insertion{e.from, true, width, i, e.before}, insertion{e.to, false, width, -i, e.after})
	}
	// Closing text comes before opening text. The wider edit opens first and closes last; of two alike, the first
	// does.
	slices.SortStableFunc(all, func(a, b insertion) int {
		switch {
		case a.at != b.at:
			return a.at - b.at
		case a.open != b.open:
			if a.open {
				return 1
			}
			return -1
		case a.width == b.width:
			return a.nth - b.nth
		case a.open:
			return b.width - a.width
		}
		return a.width - b.width
	})
	var out bytes.Buffer
	last := 0
	for _, i := range all {
		out.Write(f.text[last:i.at])
		out.WriteString(i.text)
		last = i.at
	}
	out.Write(f.text[last:])
	return out.Bytes()
}
