package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// A decision in a transaction uses the principal from Confirm, and locked rows. Code in a transaction may not use
// an outside principal, except its id, which stays and serves to lock its row before the confirmation. It may not
// ask an outside context who is calling. It may not use an outside standing, except whether the thing is the
// caller's own, and its organization, which stay.
func TestWhatIsDecidedInATransactionIsDecidedOnTheFreshPrincipal(t *testing.T) {
	f, err := find(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, r := range f.rooms {
		for _, file := range r.files {
			ast.Inspect(file.tree, func(n ast.Node) bool {
				if work, ok := n.(*ast.FuncLit); ok && takesTx(r, work.Type) {
					looked++
					for _, wrong := range f.stale(r, work) {
						t.Error(wrong)
					}
				}
				return true
			})
		}
	}
	if looked < 20 {
		t.Errorf("%d functions run in a transaction: that is too few to be all", looked)
	}
}

func takesTx(r *room, f *ast.FuncType) bool {
	for _, field := range f.Params.List {
		if t := r.info.TypeOf(field.Type); t != nil && isTx(t) {
			return true
		}
	}
	return false
}

// stale returns what a function that runs in a transaction takes from outside about its caller.
func (f *finder) stale(r *room, work *ast.FuncLit) (wrong []string) {
	outside := func(o types.Object) bool {
		_, variable := o.(*types.Var)
		return variable && o.Pkg() == r.types && o.Parent() != r.types.Scope() && (o.Pos() < work.Pos() || o.Pos() >= work.End())
	}
	say := func(at token.Pos, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("%s: %s", f.fset.Position(at), fmt.Sprintf(format, args...)))
	}
	own := false // it has its own context: passed in, or made by Confirm
	for _, field := range work.Type.Params.List {
		own = own || isContext(r.info.TypeOf(field.Type))
	}
	var ids, stays []ast.Node // principals used only for their id; standings used only for what stays
	ast.Inspect(work.Body, func(n ast.Node) bool {
		if slices.Contains(ids, n) || slices.Contains(stays, n) {
			return true
		}
		switch n := n.(type) {
		case *ast.Ident:
			o, ok := r.info.Uses[n].(*types.Var)
			if !ok || !outside(o) {
				break
			}
			if isPrincipal(o.Type()) && !o.IsField() {
				say(n.Pos(), "%s is a principal from outside the transaction", n.Name)
			}
			if isStanding(o.Type()) && !o.IsField() {
				say(n.Pos(), "%s is a standing from outside the transaction", n.Name)
			}
			if isContext(o.Type()) && own {
				say(n.Pos(), "%s is a context from outside the transaction, which has one of its own", n.Name)
			}
		case *ast.SelectorExpr:
			if _, variable := n.X.(*ast.Ident); n.Sel.Name == "ID" && !variable {
				ids = append(ids, n.X)
			}
			if n.Sel.Name == "Own" || n.Sel.Name == "Org" {
				stays = append(stays, n.X)
			}
			if t := r.info.TypeOf(n); t != nil && (isPrincipal(t) || isStanding(t)) {
				if root, ok := n.X.(*ast.Ident); ok && outside(r.info.Uses[root]) {
					say(n.Pos(), "%s.%s is from outside the transaction", root.Name, n.Sel.Name)
				}
			}
		case *ast.CallExpr:
			if o := r.callee(n); o != nil && o.Name() == "From" && strings.HasSuffix(o.Pkg().Path(), "/authz") {
				if ctx, ok := n.Args[0].(*ast.Ident); !ok || outside(r.info.Uses[ctx]) {
					say(n.Pos(), "it asks a context from outside the transaction who is calling")
				}
			}
		}
		return true
	})
	return wrong
}
