package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// runtimeText is the package that tells the changed program which fault is chosen. It exists only in the copy.
const runtimeText = `// Package mutant is what a changed program asks.
package mutant

import (
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

var (
	chosen   = os.Getenv("NOTED_MUTANT") // an id, or an id and a route
	id, _, _ = strings.Cut(chosen, " ")
	number, _ = strconv.Atoi(id)
	clause   = [2]string{os.Getenv("NOTED_MUTANT_BEFORE"), os.Getenv("NOTED_MUTANT_AFTER")}
	records  = chosen == "record"
)

func reached(id int, route string) {
	if records {
		_, _ = os.Stdout.WriteString("\n@" + strings.TrimSpace(strconv.Itoa(id)+" "+route) + "\n")
	}
}

func on(id int, route string) bool {
	reached(id, route)
	return number == id && (route == "" || chosen == strconv.Itoa(id)+" "+route)
}

func One(id int, route string, instead, err error) error {
	if on(id, route) && refuses(err) {
		return instead
	}
	return err
}

func Two[T any](id int, route string, instead error) func(T, error) (T, error) {
	return func(v T, err error) (T, error) { return v, One(id, route, instead, err) }
}

// refuses holds for a decision, not for a failure.
func refuses(err error) bool {
	var e interface{ GetStatus() int }
	return errors.As(err, &e) && (e.GetStatus() == http.StatusForbidden || e.GetStatus() == http.StatusNotFound)
}

type mark string

func Ctx(confirm, locks int, ctx context.Context) context.Context {
	if records {
		return context.WithValue(context.WithValue(ctx, mark("confirm"), confirm), mark("locks"), locks)
	}
	if on(confirm, "") {
		return context.WithValue(ctx, mark("confirm"), confirm)
	}
	if on(locks, "") {
		return context.WithValue(ctx, mark("locks"), locks)
	}
	return ctx
}

func Out(id int, kind string, ctx context.Context) bool {
	by, marked := ctx.Value(mark(kind)).(int)
	if marked {
		reached(by, "")
	}
	return on(id, "") || marked && !records
}

func Pick[T any](id int, change, write T) T {
	if on(id, "") {
		return write
	}
	return change
}

func Bool(yes, no int, condition func() bool) bool {
	switch {
	case on(yes, ""):
		return true
	case on(no, ""):
		return false
	}
	return condition()
}

var (
	markers = regexp.MustCompile("/\\*m(\\d+)[<>]\\*/")
	known   sync.Map
)

type text struct {
	sql string
	ids []int
}

func SQL(marked string) string {
	found, ok := known.Load(marked)
	if !ok {
		t := text{sql: marked}
		if number > 0 {
			t.sql = strings.ReplaceAll(t.sql, "/*m"+id+"<*/", clause[0])
			t.sql = strings.ReplaceAll(t.sql, "/*m"+id+">*/", clause[1])
		}
		seen := map[int]bool{}
		for _, m := range markers.FindAllStringSubmatch(marked, -1) {
			n, _ := strconv.Atoi(m[1])
			if !seen[n] {
				seen[n] = true
				t.ids = append(t.ids, n)
			}
		}
		t.sql = markers.ReplaceAllString(t.sql, "")
		found, _ = known.LoadOrStore(marked, t)
	}
	t := found.(text)
	if records && !ok {
		_, _ = os.Stdout.WriteString("\n@sql " + strconv.Quote(marked) + "\n")
	}
	for _, n := range t.ids {
		reached(n, "")
	}
	return t.sql
}
`

// tested are the packages whose tests run.
var tested = []string{"authz", "identity", "keys", "orgs", "notes", "admin", "internal/audit", "server"}

// build writes the changed copies below folder and builds each package's tests with them. It returns the programs
// by package.
func (f *finder) build(ctx context.Context, root, folder string) (map[string]string, error) {
	replaced := map[string]string{}
	write := func(path, name string, text []byte) error {
		to := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		replaced[path] = to
		return os.WriteFile(to, text, 0o600)
	}
	if err := write(filepath.Join(root, "internal", "mutant", "mutant.go"), "mutant.go", []byte(runtimeText)); err != nil {
		return nil, err
	}
	for _, r := range f.rooms {
		for _, file := range r.files {
			if len(file.edits) == 0 {
				continue
			}
			if err := write(file.path, file.name, file.changed()); err != nil {
				return nil, err
			}
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return nil, err
	}
	programs := map[string]string{}
	arguments := []string{"test", "-c", "-vet=off", "-overlay", overlay, "-o", folder + string(filepath.Separator)}
	for _, name := range tested {
		programs[name] = filepath.Join(folder, filepath.Base(name)+".test")
		arguments = append(arguments, "./"+name)
	}
	command := exec.CommandContext(ctx, "go", arguments...) //nolint:gosec // go itself
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the tests: %w\n%s", err, out)
	}
	return programs, nil
}

// fillIn returns a statement with one of its faults, and no trace of the others.
func fillIn(marked string, id int, clause [2]string) string {
	marked = strings.ReplaceAll(marked, fmt.Sprintf("/*m%d<*/", id), clause[0])
	marked = strings.ReplaceAll(marked, fmt.Sprintf("/*m%d>*/", id), clause[1])
	return markers.ReplaceAllString(marked, "")
}

var markers = regexp.MustCompile(`/\*m(\d+)[<>]\*/`)
