package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "only the faults whose name contains this")
	list := flag.Bool("list", false, "list the places and do nothing")
	flag.Parse()
	// On a signal, end the tests and leave no folder behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *only, *list)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // the end of the command
	}
}

// run is the whole command, from the root of the module.
func run(ctx context.Context, out io.Writer, only string, list bool) error {
	began := time.Now()
	var one sync.Mutex
	say := func(format string, args ...any) {
		one.Lock()
		defer one.Unlock()
		_, _ = fmt.Fprintf(out, "%5.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	found, err := find(ctx, root)
	if err != nil {
		return err
	}
	if list {
		for _, p := range found.places {
			_, _ = fmt.Fprintf(out, "%s:%d\t%s\n", p.at.Filename, p.at.Line, p.name)
		}
		return nil
	}
	folder, err := os.MkdirTemp("", "noted-mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	say("%d places in %d packages; building the tests", len(found.places), len(rooms))
	programs, err := found.build(ctx, root, folder)
	if err != nil {
		return err
	}
	hints, err := readHints(root)
	if err != nil {
		return err
	}
	h := &hunter{root: root, programs: programs, sql: found.sql, only: only, hints: hints, found: map[string]string{}, say: say}
	r := &record{took: map[string]time.Duration{}, reach: map[string]map[string]bool{}, sql: map[string]bool{}, fails: map[string]bool{}}
	say("running all tests with nothing changed, to see which of them reaches what, and meanwhile those that found each fault last")
	recorded := make(chan error, 1)
	go func() {
		recorded <- atOnce(len(tested), tested, func(pkg string) error { return r.watch(ctx, root, pkg, programs[pkg]) })
	}()
	if err := h.askHinted(ctx, found.places); err != nil {
		return err
	}
	if err := <-recorded; err != nil {
		return err
	}
	survivors, err := h.hunt(ctx, found, r)
	if only != "" || err != nil {
		for name, test := range hints {
			if h.found[name] == "" {
				h.found[name] = test
			}
		}
	}
	err = errors.Join(err, writeHints(root, h.found))
	if err != nil {
		return err
	}
	wrong := survivors
	if err := found.checkSQL(ctx, r.sql); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(accepted)) {
		if !slices.ContainsFunc(found.places, func(p *place) bool { return p.name == name || p.routes && strings.HasPrefix(name, p.name+" for ") }) {
			wrong = append(wrong, "no place has the accepted name "+name)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d faults survive:\n%s", len(survivors), strings.Join(wrong, "\n"))
	}
	return nil
}

// askHinted runs, for each fault with a hint, the test that the hint names.
func (h *hunter) askHinted(ctx context.Context, places []*place) error {
	var hinted []*fault
	for _, p := range places {
		if !p.routes {
			if h.hints[p.name] != "" {
				hinted = append(hinted, &fault{place: p})
			}
			continue
		}
		for name := range h.hints {
			if route, ok := strings.CutPrefix(name, p.name+" for "); ok {
				hinted = append(hinted, &fault{place: p, route: route})
			}
		}
	}
	hinted = slices.DeleteFunc(hinted, func(f *fault) bool { return !strings.Contains(f.String(), h.only) })
	err := atOnce(runtime.GOMAXPROCS(0)+1, hinted, func(f *fault) error {
		pkg, test, _ := strings.Cut(h.hints[f.String()], " ")
		if h.programs[pkg] == "" {
			return nil
		}
		failed, err := h.try(ctx, f, pkg, []string{test})
		if err == nil && failed != "" {
			h.fell(f, pkg, failed)
		}
		return err
	})
	h.say("%d of %d faults are found by the tests that found them last", len(h.found), len(hinted))
	return err
}

// hunt runs the tests against every fault that no hint has found, and returns those that survive.
func (h *hunter) hunt(ctx context.Context, found *finder, r *record) (survivors []string, err error) {
	all, unreached := r.faults(found.places)
	all = slices.DeleteFunc(all, func(f *fault) bool { return f.accepted() || !strings.Contains(f.String(), h.only) })
	inSQL, routes := 0, 0
	for _, f := range all {
		switch _, clause := found.sql[f.id]; {
		case clause:
			inSQL++
		case f.route != "":
			routes++
		}
	}
	h.say("%d faults: %d of clauses, %d of decisions, locks and confirmations in Go, %d of declared permissions; %d more are accepted",
		len(all), inSQL, len(all)-inSQL-routes, routes, len(accepted))
	// A test that fails without a fault, as some may under this load, has found nothing.
	maps.DeleteFunc(h.found, func(_, test string) bool { return r.fails[test] })
	for name := range h.found {
		if !slices.ContainsFunc(all, func(f *fault) bool { return f.String() == name }) {
			delete(h.found, name)
		}
	}
	left := slices.DeleteFunc(slices.Clone(all), func(f *fault) bool { return h.found[f.String()] != "" })
	h.credit(left)
	var mu sync.Mutex
	done := 0
	err = atOnce(runtime.GOMAXPROCS(0)+1, left, func(f *fault) error {
		fell, err := h.falls(ctx, f)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && !fell {
			survivors = append(survivors, fmt.Sprintf("%s:%d: %s", f.at.Filename, f.at.Line, f))
			h.say("it survives: %s", survivors[len(survivors)-1])
		}
		if done++; done%50 == 0 || done == len(left) {
			h.say("%d of %d, %d survive", done, len(left), len(survivors))
		}
		return err
	})
	for _, p := range unreached {
		if !p.mark && strings.Contains(p.name, h.only) && accepted[p.name] == "" {
			survivors = append(survivors, fmt.Sprintf("%s:%d: %s: no test comes there", p.at.Filename, p.at.Line, p.name))
		}
	}
	slices.Sort(survivors)
	if err == nil && len(survivors) == 0 {
		h.say("%d places, %d faults: a test fails for each", len(found.places), len(all))
	}
	return survivors, err
}

// atOnce does the work for each item of a list, many at a time, and stops at the first error.
func atOnce[T any](many int, all []T, work func(T) error) (first error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	next := make(chan T)
	for range many {
		wait.Go(func() {
			for one := range next {
				if err := work(one); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, one := range all {
		mu.Lock()
		failed := first != nil
		mu.Unlock()
		if failed {
			break
		}
		next <- one
	}
	close(next)
	wait.Wait()
	return first
}
