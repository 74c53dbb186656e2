package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// unit is a test that can run alone: a subtest, or a whole test.
type unit struct {
	program string // its package
	name    string
	cost    time.Duration
	kills   int            // faults found
	killsIn map[string]int // by the function with the fault
}

// fault is a place, for one operation if it decides for all.
type fault struct {
	*place
	route string
	units []*unit // that reach it
}

func (f *fault) String() string {
	if f.route == "" {
		return f.name
	}
	return f.name + " for " + f.route
}

// chosen is the fault's id for the changed program.
func (f *fault) chosen() string { return strings.TrimSpace(strconv.Itoa(f.id) + " " + f.route) }

// record is the result of running all tests with no fault chosen.
type record struct {
	mu    sync.Mutex
	took  map[string]time.Duration   // by package and test
	reach map[string]map[string]bool // what each reached: an id, maybe with a route
	sql   map[string]bool            // the statements, with their faults' marks
	fails map[string]bool            // that fail without a fault
}

var (
	begins = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(\S.*)$`)
	passes = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (.*) \((\d+\.\d+)s\)$`)
	hits   = regexp.MustCompile(`^@(\d+.*)$`)
)

// upToSubtest cuts a name to its first subtest.
func upToSubtest(name string) string {
	test, sub, _ := strings.Cut(name, "/")
	if sub == "" {
		return test
	}
	return name
}

// watch runs all tests of a package, one at a time, and notes what each reaches.
func (r *record) watch(ctx context.Context, root, pkg, program string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, "-test.v", "-test.parallel=1", "-test.timeout=9m")
	command.Dir = filepath.Join(root, filepath.FromSlash(pkg))
	command.Env = append(os.Environ(), "NOTED_MUTANT=record")
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	command.Stderr = io.Discard
	if err := command.Start(); err != nil {
		return err
	}
	var tail []string
	failed := false
	current := ""
	reader := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			break
		}
		line = strings.TrimSuffix(line, "\n")
		if match := hits.FindStringSubmatch(line); match != nil {
			r.note(pkg+" "+current, match[1])
			continue
		}
		if quoted, ok := strings.CutPrefix(line, "@sql "); ok {
			if text, err := strconv.Unquote(quoted); err == nil {
				r.mu.Lock()
				r.sql[text] = true
				r.mu.Unlock()
			}
			continue
		}
		if match := begins.FindStringSubmatch(line); match != nil {
			current = upToSubtest(match[1])
		} else if match := passes.FindStringSubmatch(line); match != nil {
			seconds, _ := strconv.ParseFloat(match[3], 64)
			r.mu.Lock()
			r.took[pkg+" "+match[2]] = time.Duration(seconds * float64(time.Second))
			if match[1] == "FAIL" {
				failed, r.fails[pkg+" "+match[2]] = true, true
			}
			r.mu.Unlock()
		} else if line != "" {
			tail = append(tail[max(0, len(tail)-60):], line)
		}
	}
	if err := command.Wait(); err != nil && !failed {
		return fmt.Errorf("with nothing changed the tests of %s end: %w\n%s", pkg, err, strings.Join(tail, "\n"))
	}
	return nil
}

func (r *record) note(unit, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reach[unit] == nil {
		r.reach[unit] = map[string]bool{}
	}
	r.reach[unit][what] = true
}

// faults returns the faults to find, with the tests that might.
func (r *record) faults(places []*place) (all []*fault, unreached []*place) {
	by := map[string][]*unit{}
	subtests := map[string]time.Duration{}
	for name, took := range r.took {
		if test, sub, _ := strings.Cut(name, "/"); sub != "" && !strings.Contains(sub, "\x00") && r.reach[name] != nil {
			subtests[test] += took
		}
	}
	wholes := map[string]*unit{}
	for name, reached := range r.reach {
		pkg, test, _ := strings.Cut(name, " ")
		if test == "" || r.fails[name] {
			continue
		}
		top, sub, _ := strings.Cut(name, "/")
		if sub != "" {
			u := &unit{program: pkg, name: test, cost: r.took[name] + max(0, r.took[top]-subtests[top]), killsIn: map[string]int{}}
			for what := range reached {
				by[what] = append(by[what], u)
			}
		}
		if r.fails[top] {
			continue
		}
		if wholes[top] == nil {
			_, whole, _ := strings.Cut(top, " ")
			wholes[top] = &unit{program: pkg, name: whole, cost: r.took[top], killsIn: map[string]int{}}
		}
		if sub != "" {
			continue
		}
		for what := range reached {
			by[what] = append(by[what], wholes[top])
		}
	}
	for _, p := range places {
		var found bool
		for what, units := range by {
			id, route, _ := strings.Cut(what, " ")
			if id == strconv.Itoa(p.id) && (route != "") == p.routes && !strings.Contains(route, "00000000") {
				found = true
				// A whole test adds nothing to its subtests.
				units = slices.DeleteFunc(slices.Clone(units), func(w *unit) bool {
					return slices.ContainsFunc(units, func(u *unit) bool { return u.program == w.program && strings.HasPrefix(u.name, w.name+"/") })
				})
				all = append(all, &fault{p, route, units})
			}
		}
		if !found {
			unreached = append(unreached, p)
		}
	}
	slices.SortFunc(all, func(a, b *fault) int {
		if a.id != b.id {
			return a.id - b.id
		}
		return strings.Compare(a.route, b.route)
	})
	return all, unreached
}

// hunter runs tests against faults.
type hunter struct {
	root     string
	programs map[string]string
	sql      map[int][2]string
	only     string            // only faults with this in their names
	hints    map[string]string // what readHints says
	say      func(string, ...any)
	mu       sync.Mutex
	found    map[string]string // the hints for the next run
}

func (h *hunter) fell(f *fault, pkg, test string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.found[f.String()] = pkg + " " + test
}

// budgets are how long each round's tests may take, by the recorded run; the last allows all.
var budgets = []time.Duration{2 * time.Second, 8 * time.Second, 30 * time.Second, time.Hour}

// likely are tests about these very faults. They come first until it is known which tests find what. A name
// without a test costs a little time and nothing else.
var likely = regexp.MustCompile(`^(TestWhoLoses|TestRoleThatChanges|TestEachChange|TestWhatEndsCredentials|TestCredentialThatEnds|TestAList|TestIDsThat|TestOrganizationsAnswer|TestEveryOperation|TestDecisionsAreCasbinsOwn)`)

// functionOf returns the file and function in a fault's name.
func functionOf(name string) string {
	file, rest, _ := strings.Cut(name, ":")
	function, _, _ := strings.Cut(rest, ":")
	return file + ":" + function
}

// credit counts, for the tests that reach the faults, what they found according to the hints.
func (h *hunter) credit(faults []*fault) {
	kills, killsIn := map[string]int{}, map[string]map[string]int{}
	for fault, test := range h.hints {
		kills[test]++
		if killsIn[test] == nil {
			killsIn[test] = map[string]int{}
		}
		killsIn[test][functionOf(fault)]++
	}
	seen := map[*unit]bool{}
	for _, f := range faults {
		for _, u := range f.units {
			if test := u.program + " " + u.name; !seen[u] && kills[test] > 0 {
				u.kills, u.killsIn = kills[test], killsIn[test]
			}
			seen[u] = true
		}
	}
}

// falls reports whether a test fails with the fault. Tests that found others in the same function come first, then
// the cheapest for what they have found.
func (h *hunter) falls(ctx context.Context, f *fault) (fell bool, err error) {
	left := slices.Clone(f.units)
	where := functionOf(f.name)
	for round := range budgets {
		h.mu.Lock()
		score := func(u *unit) float64 {
			found := 0.05 + float64(u.kills)*0.1 + float64(u.killsIn[where])*3
			if likely.MatchString(u.name) {
				found += 0.5
			}
			return found / (u.cost.Seconds() + 0.5)
		}
		scores := map[*unit]float64{}
		for _, u := range left {
			scores[u] = score(u)
		}
		h.mu.Unlock()
		slices.SortStableFunc(left, func(a, b *unit) int {
			switch {
			case scores[a] > scores[b]:
				return -1
			case scores[a] < scores[b]:
				return 1
			}
			return strings.Compare(a.name, b.name)
		})
		var now []*unit
		var cost time.Duration
		setups := map[string]bool{}
		for len(left) > 0 && (len(now) == 0 || cost+left[0].cost <= budgets[round]) {
			u := left[0]
			left = left[1:]
			test, _, _ := strings.Cut(u.name, "/")
			if !setups[test] {
				cost += u.cost
			} else {
				cost += 100 * time.Millisecond
			}
			setups[test] = true
			now = append(now, u)
		}
		if len(now) == 0 {
			return false, nil
		}
		for _, pkg := range tested {
			var names []string
			for _, u := range now {
				if u.program == pkg {
					names = append(names, u.name)
				}
			}
			if len(names) == 0 {
				continue
			}
			failed, err := h.try(ctx, f, pkg, names)
			if err != nil {
				return false, err
			}
			if failed != "" {
				h.fell(f, pkg, failed)
				h.mu.Lock()
				for _, u := range f.units {
					if u.program == pkg && u.name == failed {
						u.kills++
						u.killsIn[where]++
					}
				}
				h.mu.Unlock()
				return true, nil
			}
		}
	}
	return false, nil
}

// try runs tests of one package and returns the first that fails. Most of them wait, so several run at once.
func (h *hunter) try(ctx context.Context, f *fault, pkg string, names []string) (failed string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, h.programs[pkg], "-test.failfast", "-test.parallel=6", "-test.timeout=4m", "-access.stop", "-test.run="+pattern(names)) //nolint:gosec // built here
	if pkg != "server" {
		command.Args = slices.DeleteFunc(command.Args, func(a string) bool { return a == "-access.stop" })
	}
	command.Dir = filepath.Join(h.root, filepath.FromSlash(pkg))
	clause := h.sql[f.id]
	command.Env = append(os.Environ(), "NOTED_MUTANT="+f.chosen(), "NOTED_MUTANT_BEFORE="+clause[0], "NOTED_MUTANT_AFTER="+clause[1])
	out, err := command.CombinedOutput()
	if err == nil {
		return "", nil
	}
	for line := range bytes.Lines(out) {
		if match := passes.FindStringSubmatch(strings.TrimRight(string(line), "\n")); len(match) > 2 && match[1] == "FAIL" {
			failed = upToSubtest(match[2]) // the innermost comes last
		}
	}
	switch {
	case failed != "":
		return failed, nil
	case bytes.Contains(out, []byte("panic: ")):
		return "a panic", nil
	}
	return "", fmt.Errorf("%s: the tests of %s end by something else than a test: %w\n%s", f, pkg, err, out)
}

// pattern returns the -test.run of tests and subtests.
func pattern(names []string) string {
	var alternatives []string
	for _, name := range names {
		var parts []string
		for part := range strings.SplitSeq(name, "/") {
			parts = append(parts, "^"+regexp.QuoteMeta(part)+"$")
		}
		alternatives = append(alternatives, strings.Join(parts, "/"))
	}
	return strings.Join(alternatives, "|")
}
