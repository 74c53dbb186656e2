package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is a package of this module, as in go list's output.
type listed struct {
	ImportPath, Name, Dir, Doc         string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json", "./...")
	command.Dir = ".."
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// storeys are the packages that know what noted is, from the roof down: each imports only those below it, and none
// on its own line. internal/ is below them all.
var storeys = [][]string{
	{"noted/bench/...", "noted/cmd/noted", "noted/e2e"}, {"noted/server"}, {"noted/web"}, {"noted/admin"}, {"noted/notes"}, {"noted/orgs"},
	{"noted/keys"}, {"noted/identity"}, {"noted/identity/oidc"}, {"noted/authz"}, {"noted/internal/..."},
}

// storeyOf returns a package's storey, 0 for the roof; -1 if it has none.
func storeyOf(path string) int {
	return slices.IndexFunc(storeys, func(storey []string) bool {
		return slices.ContainsFunc(storey, func(pattern string) bool {
			folder, below := strings.CutSuffix(pattern, "...")
			return path == pattern || below && strings.HasPrefix(path, folder)
		})
	})
}

// edge is one import by files that go into a binary, or by test files.
type edge struct {
	from, to string
	test     bool
}

func edgesOf(packages []listed) []edge {
	var edges []edge
	for _, p := range packages {
		for _, to := range p.Imports {
			edges = append(edges, edge{p.ImportPath, to, false})
		}
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			edges = append(edges, edge{p.ImportPath, to, true})
		}
	}
	return edges
}

// testOnly are packages only for tests: nothing in the binary may import them.
var testOnly = []string{
	"noted/internal/contract", "noted/internal/localpg/pgtest", "noted/internal/mailtest", "noted/internal/space/spacetest",
	"noted/server/clienttest", "noted/server/servertest",
}

// forDevAlone are the parts with which `noted dev` and tests run without setup. serve must not reach them.
var forDevAlone = []string{"noted/internal/devidp", "noted/internal/localpg"}

// isTestSupport reports whether only tests and measurements run the package. It may import everything but the roof.
func isTestSupport(path string) bool {
	return slices.Contains(testOnly, path) || path == "noted/internal/localpg/withpg" || strings.HasPrefix(path, "noted/bench/")
}

// noDatabase are the packages that must not use a database.
var noDatabase = []string{"noted/authz", "noted/identity/oidc"}

// violations returns what is wrong with the edges; nil if all point the right way.
func violations(edges []edge) []string {
	var wrong []string
	for _, e := range edges {
		if !strings.HasPrefix(e.to, "noted") || e.from == e.to {
			if slices.Contains(noDatabase, e.from) && !e.test && strings.HasPrefix(e.to, "github.com/jackc/pgx") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: it knows no database", e.from, e.to))
			}
			continue
		}
		from, to := storeyOf(e.from), storeyOf(e.to)
		switch {
		case to == 0:
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which nobody may", e.from, e.to))
		case e.test || isTestSupport(e.from):
			// A test may be anywhere and start everything.
		case slices.Contains(testOnly, e.to):
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which is for tests", e.from, e.to))
		case slices.Contains(forDevAlone, e.to) && e.from != "noted/cmd/noted":
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which only cmd/noted and tests may", e.from, e.to))
		case e.from == "noted":
			wrong = append(wrong, fmt.Sprintf("the embedded files import %s", e.to))
		case e.to == "noted" && e.from != "noted/cmd/noted":
			wrong = append(wrong, fmt.Sprintf("%s imports the embedded files, which are the command's to hand on", e.from))
		case from == len(storeys)-1 && to == from:
			// Packages in internal/ may import each other.
		case e.to != "noted" && to <= from:
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which does not stand below it", e.from, e.to))
		}
	}
	return wrong
}

func TestImportsPointOneWay(t *testing.T) {
	packages := listPackages(t)
	for _, wrong := range violations(edgesOf(packages)) {
		t.Error(wrong)
	}
	// A room without a storey would pass.
	for _, p := range packages {
		if storeyOf(p.ImportPath) < 0 && p.ImportPath != "noted" && !slices.Contains(testOnly, p.ImportPath) && len(p.GoFiles) > 0 {
			t.Errorf("%s is a room with no place in the order of the storeys", p.ImportPath)
		}
	}
	for i, storey := range storeys {
		for range storey {
			if !slices.ContainsFunc(packages, func(p listed) bool { return storeyOf(p.ImportPath) == i }) {
				t.Errorf("%q stand in the order of the storeys, but there is no such package", storey)
			}
		}
	}
}

// Only dev's files in the command import what is only for dev.
func TestServeHasNothingOfDev(t *testing.T) {
	files, err := filepath.Glob("../cmd/noted/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range tree.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if slices.Contains(forDevAlone, path) && !strings.HasPrefix(filepath.Base(file), "dev") {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

func TestTheCheckOfImportsFindsEachKindOfViolation(t *testing.T) {
	for name, e := range map[string]edge{
		"a room imports its neighbour above":      {"noted/keys", "noted/notes", false},
		"the lowest room imports one":             {"noted/authz", "noted/identity", false},
		"a room imports the server":               {"noted/notes", "noted/server", false},
		"plumbing imports a room":                 {"noted/internal/page", "noted/authz", false},
		"new plumbing imports a room":             {"noted/internal/brandnew", "noted/keys", false},
		"plumbing imports the server":             {"noted/internal/audit", "noted/server", false},
		"the server imports the dev provider":     {"noted/server", "noted/internal/devidp", false},
		"the server imports the private database": {"noted/server", "noted/internal/localpg", false},
		"a room imports the private database":     {"noted/identity", "noted/internal/localpg", false},
		"the binary imports what tests need":      {"noted/cmd/noted", "noted/server/servertest", false},
		"a room imports the command":              {"noted/web", "noted/cmd/noted", false},
		"authz imports pgx":                       {"noted/authz", "github.com/jackc/pgx/v5", false},
		"authz imports a pool":                    {"noted/authz", "github.com/jackc/pgx/v5/pgxpool", false},
		"oidc imports identity":                   {"noted/identity/oidc", "noted/identity", false},
		"oidc imports pgx":                        {"noted/identity/oidc", "github.com/jackc/pgx/v5", false},
		"a room imports the embedded policy":      {"noted/authz", "noted", false},
		"a measurement is imported":               {"noted/server", "noted/bench/load", true},
		"the embedded policy imports a room":      {"noted", "noted/authz", false},
	} {
		if len(violations([]edge{e})) != 1 {
			t.Errorf("%s: %v is not found", name, e)
		}
	}
	for name, e := range map[string]edge{
		"a room imports the one below":     {"noted/notes", "noted/identity", false},
		"a room imports plumbing":          {"noted/keys", "noted/internal/audit", false},
		"plumbing imports plumbing":        {"noted/internal/audit", "noted/internal/page", false},
		"the command imports the provider": {"noted/cmd/noted", "noted/internal/devidp", false},
		"a test of a room starts it all":   {"noted/authz", "noted/server/servertest", true},
		"what tests need starts it all":    {"noted/server/servertest", "noted/internal/devidp", false},
		"a library":                        {"noted/identity", "github.com/jackc/pgx/v5", false},
	} {
		if wrong := violations([]edge{e}); len(wrong) != 0 {
			t.Errorf("%s: %v is refused: %q", name, e, wrong)
		}
	}
}

// serve has no provider that lets anybody in: neither in the server nor in its dependencies.
func TestTheServerDoesNotReachTheDevProvider(t *testing.T) {
	below := map[string][]string{}
	for _, e := range edgesOf(listPackages(t)) {
		if !e.test {
			below[e.from] = append(below[e.from], e.to)
		}
	}
	seen := map[string]bool{}
	var walk func(path, by string)
	walk = func(path, by string) {
		if seen[path] {
			return
		}
		seen[path] = true
		if slices.Contains(forDevAlone, path) {
			t.Errorf("the server reaches %s by %s", path, by)
		}
		for _, next := range below[path] {
			walk(next, path)
		}
	}
	walk("noted/server", "")
	if len(seen) < 10 {
		t.Errorf("the walk saw %d packages only; it proves nothing", len(seen))
	}
}

func TestEveryPackageSaysWhatItIsForInDocGo(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 { // only tests
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("the comment of %s begins with %.40q, want %q", p.ImportPath, p.Doc, want)
		}
		// A command's comment is above its main function; the root only holds the embedded files.
		if p.Name != "main" && p.ImportPath != "noted" && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", p.ImportPath)
		}
	}
}
