package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// storeRooms are the rooms whose SQL is only in store.go and store_*.go.
var storeRooms = []string{"identity"}

// sqlIn returns where a file runs or contains a statement.
func sqlIn(t *testing.T, fset *token.FileSet, name string, text any) (places []token.Position) {
	t.Helper()
	begins := regexp.MustCompile("^[`\"]\\s*(select|insert into|update|delete from|with|listen|notify) ")
	tree, err := parser.ParseFile(fset, name, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			selector, ok := n.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Query", "QueryRow", "Exec", "SendBatch", "CopyFrom"}, selector.Sel.Name) && len(n.Args) > 1 {
				places = append(places, fset.Position(n.Pos()))
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && begins.MatchString(n.Value) {
				places = append(places, fset.Position(n.Pos()))
			}
		}
		return true
	})
	return places
}

// A newcomer finds a room's SQL by its file names.
func TestSQLStandsInTheStore(t *testing.T) {
	for _, room := range storeRooms {
		files, err := filepath.Glob("../" + room + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		stored := 0
		for _, file := range files {
			base := filepath.Base(file)
			if strings.HasSuffix(base, "_test.go") {
				continue
			}
			places := sqlIn(t, token.NewFileSet(), file, nil)
			if base == "store.go" || strings.HasPrefix(base, "store_") {
				stored += len(places)
				continue
			}
			for _, at := range places {
				t.Errorf("%s: SQL of %s stands in its store.go, or in a store_*.go", at, room)
			}
		}
		if stored == 0 {
			t.Errorf("no SQL is found in the store of %s; the test proves nothing", room)
		}
	}
	for _, statement := range []string{"db.QueryRow(ctx, x)", "db.Exec(ctx, x, 1)", "put(`\n\tselect 1`)", "put(\"delete from users\")"} {
		if len(sqlIn(t, token.NewFileSet(), "x.go", "package x\nfunc _() { "+statement+" }")) == 0 {
			t.Errorf("%s is not found", statement)
		}
	}
}

// If three statements each define a live session, they come to mean three things.
func TestWhatALiveSessionIsIsSaidOnce(t *testing.T) {
	files, err := filepath.Glob("../identity/*.go")
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") {
			said += strings.Count(string(text), "ended_at is null")
		}
	}
	if said != 1 {
		t.Errorf("%d places say whether a session has been ended, besides notEnded, notOver and liveAt", said-1)
	}
}
