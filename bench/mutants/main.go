package main

import (
	"context"
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
	// What is stopped ends its tests and leaves no folder behind.
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
	say("running all tests with nothing changed, to see which of them reaches what")
	r := &record{took: map[string]time.Duration{}, reach: map[string]map[string]bool{}, sql: map[string]bool{}, fails: map[string]bool{}}
	err = atOnce(tested, func(pkg string) error { return r.watch(ctx, root, pkg, programs[pkg]) })
	if err != nil {
		return err
	}
	noSQL := found.checkSQL(ctx, r.sql)
	h := &hunter{root: root, programs: programs, sql: found.sql}
	survivors, err := h.hunt(ctx, found, r, only, say)
	if err != nil {
		return err
	}
	var wrong []string
	if noSQL != nil {
		wrong = append(wrong, noSQL.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(r.fails)) {
		wrong = append(wrong, "with nothing changed it fails: "+name)
	}
	for _, name := range slices.Sorted(maps.Keys(accepted)) {
		if !slices.ContainsFunc(found.places, func(p *place) bool { return p.name == name }) {
			wrong = append(wrong, "no place has the accepted name "+name)
		}
	}
	if wrong = append(wrong, survivors...); len(wrong) > 0 {
		return fmt.Errorf("%d faults survive:\n%s", len(survivors), strings.Join(wrong, "\n"))
	}
	return nil
}

// hunt runs the tests against every fault, and returns those that none finds.
func (h *hunter) hunt(ctx context.Context, found *finder, r *record, only string, say func(string, ...any)) (survivors []string, err error) {
	all, unreached := r.faults(found.places)
	all = slices.DeleteFunc(all, func(f *fault) bool { return accepted[f.name] != "" || !strings.Contains(f.String(), only) })
	inSQL, routes := 0, 0
	for _, f := range all {
		switch _, clause := found.sql[f.id]; {
		case clause:
			inSQL++
		case f.route != "":
			routes++
		}
	}
	say("%d faults: %d of clauses, %d of decisions, locks and confirmations in Go, %d of declared permissions; %d more are accepted",
		len(all), inSQL, len(all)-inSQL-routes, routes, len(accepted))
	var mu sync.Mutex
	done := 0
	err = atOnce(all, func(f *fault) error {
		fell, err := h.falls(ctx, f)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && !fell {
			survivors = append(survivors, fmt.Sprintf("%s:%d: %s", f.at.Filename, f.at.Line, f))
			say("it survives: %s", survivors[len(survivors)-1])
		}
		if done++; done%50 == 0 || done == len(all) {
			say("%d of %d, %d survive", done, len(all), len(survivors))
		}
		return err
	})
	for _, p := range unreached {
		if !p.mark && strings.Contains(p.name, only) && accepted[p.name] == "" {
			survivors = append(survivors, fmt.Sprintf("%s:%d: %s: no test comes there", p.at.Filename, p.at.Line, p.name))
		}
	}
	slices.Sort(survivors)
	if err == nil && len(survivors) == 0 {
		say("%d places, %d faults: a test fails for each", len(found.places), len(all))
	}
	return survivors, err
}

// atOnce does the work for each of a list, as many at a time as there are processors, and stops at the first error.
func atOnce[T any](all []T, work func(T) error) (first error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	next := make(chan T)
	for range runtime.GOMAXPROCS(0) {
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
