package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is a package of this module, as go list tells of it.
type listed struct {
	ImportPath, Name, Dir, Doc         string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json", "./...")
	command.Dir = "../.."
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

// storeys are the packages that know what noted is, from the roof down: each imports those
// below it alone. What is not among them is plumbing, which imports none of them.
var storeys = []string{
	"noted/cmd/noted", "noted/internal/server", "noted/web", "noted/admin", "noted/notes", "noted/orgs",
	"noted/keys", "noted/identity", "noted/authz",
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

// testOnly are packages that hold what tests need: nothing that goes into the binary may
// import them.
var testOnly = []string{"noted/internal/localpg/pgtest", "noted/internal/mailtest", "noted/internal/server/servertest"}

// forDevAlone are the parts that make `noted dev` and tests run with nothing set up. serve
// must not reach them.
var forDevAlone = []string{"noted/internal/devidp", "noted/internal/localpg"}

// isTestSupport holds for packages that only tests and measurements run.
func isTestSupport(path string) bool {
	return slices.Contains(testOnly, path) || path == "noted/internal/localpg/withpg" || strings.HasPrefix(path, "noted/bench/")
}

// violations says what is wrong with the edges; nil when they all point the right way.
func violations(edges []edge) []string {
	var wrong []string
	for _, e := range edges {
		if !strings.HasPrefix(e.to, "noted") || e.from == e.to {
			if e.from == "noted/authz" && !e.test && strings.HasPrefix(e.to, "github.com/jackc/pgx") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: authz knows no database", e.from, e.to))
			}
			continue
		}
		test := e.test || isTestSupport(e.from)
		from, to := slices.Index(storeys, e.from), slices.Index(storeys, e.to)
		switch {
		case test:
			// A test may stand anywhere and start everything.
		case e.to == "noted/cmd/noted" || strings.HasPrefix(e.to, "noted/cmd/"):
			wrong = append(wrong, fmt.Sprintf("%s imports the command %s", e.from, e.to))
		case slices.Contains(testOnly, e.to):
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which is for tests", e.from, e.to))
		case slices.Contains(forDevAlone, e.to) && e.from != "noted/cmd/noted":
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which only cmd/noted and tests may", e.from, e.to))
		case from < 0 && to >= 0:
			wrong = append(wrong, fmt.Sprintf("%s imports %s, but plumbing knows no room", e.from, e.to))
		case from >= 0 && to >= 0 && to <= from:
			wrong = append(wrong, fmt.Sprintf("%s imports %s, which stands above it", e.from, e.to))
		case e.from == "noted":
			wrong = append(wrong, fmt.Sprintf("the embedded files import %s", e.to))
		case e.to == "noted" && e.from != "noted/cmd/noted":
			wrong = append(wrong, fmt.Sprintf("%s imports the embedded files, which are the command's to hand on", e.from))
		}
	}
	return wrong
}

func TestImportsPointOneWay(t *testing.T) {
	packages := listPackages(t)
	for _, wrong := range violations(edgesOf(packages)) {
		t.Error(wrong)
	}
	// A room that nobody gave a storey would pass as plumbing; so would one whose name changed.
	for _, p := range packages {
		relative := strings.TrimPrefix(p.ImportPath, "noted")
		if relative == "" || strings.HasPrefix(relative, "/internal/") || strings.HasPrefix(relative, "/e2e") || strings.HasPrefix(relative, "/bench") {
			continue
		}
		if !slices.Contains(storeys, p.ImportPath) {
			t.Errorf("%s is a room with no place in the order of the storeys", p.ImportPath)
		}
	}
	for _, path := range storeys {
		if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == path }) {
			t.Errorf("%s stands in the order of the storeys, but there is no such package", path)
		}
	}
}

func TestTheCheckOfImportsFindsEachKindOfViolation(t *testing.T) {
	for name, e := range map[string]edge{
		"a room imports its neighbour above":      {"noted/keys", "noted/notes", false},
		"the lowest room imports one":             {"noted/authz", "noted/identity", false},
		"a room imports the server":               {"noted/notes", "noted/internal/server", false},
		"plumbing imports a room":                 {"noted/internal/page", "noted/authz", false},
		"new plumbing imports a room":             {"noted/internal/brandnew", "noted/keys", false},
		"plumbing imports the server":             {"noted/internal/audit", "noted/internal/server", false},
		"the server imports the dev provider":     {"noted/internal/server", "noted/internal/devidp", false},
		"the server imports the private database": {"noted/internal/server", "noted/internal/localpg", false},
		"a room imports the private database":     {"noted/identity", "noted/internal/localpg", false},
		"the binary imports what tests need":      {"noted/cmd/noted", "noted/internal/server/servertest", false},
		"a room imports the command":              {"noted/web", "noted/cmd/noted", false},
		"authz imports pgx":                       {"noted/authz", "github.com/jackc/pgx/v5", false},
		"authz imports a pool":                    {"noted/authz", "github.com/jackc/pgx/v5/pgxpool", false},
		"a room imports the embedded policy":      {"noted/authz", "noted", false},
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
		"a test of a room starts it all":   {"noted/authz", "noted/internal/server/servertest", true},
		"what tests need starts it all":    {"noted/internal/server/servertest", "noted/internal/devidp", false},
		"a library":                        {"noted/identity", "github.com/jackc/pgx/v5", false},
	} {
		if wrong := violations([]edge{e}); len(wrong) != 0 {
			t.Errorf("%s: %v is refused: %q", name, e, wrong)
		}
	}
}

// serve has no provider that lets anybody in: not in the server, nor in anything that it is
// made of.
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
	walk("noted/internal/server", "")
	if len(seen) < 10 {
		t.Errorf("the walk saw %d packages only; it proves nothing", len(seen))
	}
}

func TestEveryPackageSaysWhatItIsForInDocGo(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 { // tests alone
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
		// A command's comment stands over its main function; the root holds the embedded files alone.
		if p.Name != "main" && p.ImportPath != "noted" && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", p.ImportPath)
		}
	}
}
