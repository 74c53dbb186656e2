package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "timing:", err)
		os.Exit(1) //nolint:forbidigo // the end of main
	}
}

// errDifference is the unwanted result.
var errDifference = errors.New("the time tells why authentication failed")

// tiny is the lowest floor that the settings allow.
const tiny = time.Nanosecond

func command(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("timing", flag.ContinueOnError)
	p := plan{floor: 300 * time.Millisecond, pause: 50 * time.Millisecond}
	flags.IntVar(&p.n, "n", 500, "measurements of each kind of failure")
	replicas := flags.Int("replicas", 20, "processes of noted")
	flags.IntVar(&p.workers, "workers", 1, "requests under way at once at each replica")
	only := flags.String("only", "", "a regular expression: measure the kinds whose sort or name it matches")
	selfTest := flags.Bool("self-test", false, "show only that a difference is found where there is no floor")
	if err := flags.Parse(args); err != nil {
		return err
	}
	selected, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if p.n < 2 || *replicas < 1 || p.workers < 1 || flags.NArg() > 0 {
		return errors.New("n is at least 2, replicas and workers at least 1, and there are no arguments")
	}
	// This ends whatever hangs; with the floor, each request of a worker takes a few hundred milliseconds.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute+time.Duration(30*p.n/(*replicas*p.workers))*time.Second)
	defer cancel()

	site, err := open(ctx, *replicas, p.workers+2)
	defer func() { err = errors.Join(err, site.close()) }()
	if err != nil {
		return err
	}
	var kinds []kind
	var found table
	err = site.serve(ctx, tiny, func(ctx context.Context) error {
		all, err := kindsOf(ctx, site)
		if err != nil {
			return err
		}
		kinds = slices.DeleteFunc(all, func(k kind) bool { return !selected.MatchString(k.sort + ": " + k.name) })
		found, err = tableOf(ctx, site, kinds, plan{floor: tiny, n: min(p.n, 200), workers: 1, pause: 10 * time.Millisecond * time.Duration(*replicas)})
		return err
	})
	if err != nil {
		return err
	}
	if err := found.print(out, "With next to no floor"); err != nil {
		return err
	}
	if found.worst() < limit {
		return errors.New("no difference is seen where there is no floor: this measurement proves nothing")
	}
	if *selfTest {
		return nil
	}
	err = site.serve(ctx, p.floor, func(ctx context.Context) error {
		found, err = tableOf(ctx, site, kinds, p)
		return err
	})
	if err != nil {
		return err
	}
	if err := found.print(out, fmt.Sprintf("With a floor of %v", p.floor)); err != nil {
		return err
	}
	if found.worst() >= limit {
		return errDifference
	}
	return nil
}

// table is a run's result.
type table struct {
	plan plan
	took time.Duration
	rows []row
}

// row is one kind of failure; times are in milliseconds.
type row struct {
	kind               kind
	n                  int
	least, median, p99 float64
	mean, deviation    float64
	t                  float64 // against the other kinds of the same sort
	quickT             float64 // the same for the quicker nine tenths
	spreadT            float64 // the same for their distances from the mean
	allT               float64 // against the other kinds of all sorts
	visible            float64 // the difference in means whose t would be the limit
	quickVisible       float64 // the same for the quicker nine tenths
}

func tableOf(ctx context.Context, s *site, kinds []kind, p plan) (table, error) {
	began := time.Now()
	times, err := measure(ctx, s, kinds, p)
	if err != nil {
		return table{}, err
	}
	return table{p, time.Since(began), rowsOf(kinds, times)}, nil
}

func rowsOf(kinds []kind, times [][]float64) []row {
	var rows []row
	for i, k := range kinds {
		var alike, all []float64
		for j, other := range kinds {
			if i == j {
				continue
			}
			all = append(all, times[j]...)
			if other.sort == k.sort {
				alike = append(alike, times[j]...)
			}
		}
		sorted, m := slices.Sorted(slices.Values(times[i])), momentsOf(times[i])
		r := row{
			kind: k, n: m.n, least: sorted[0], median: quantile(sorted, 0.5), p99: quantile(sorted, 0.99),
			mean: m.mean, deviation: math.Sqrt(m.variance), t: welch(times[i], alike), allT: welch(times[i], all),
		}
		if len(alike) > 0 {
			both := slices.Sorted(slices.Values(slices.Concat(times[i], alike)))
			slow := quantile(both, 0.9)
			quick, alikeQuick := below(times[i], slow), below(alike, slow)
			middle := momentsOf(below(both, slow)).mean
			r.quickT, r.spreadT = welch(quick, alikeQuick), welch(spread(quick, middle), spread(alikeQuick, middle))
			r.visible = limit * standardError(m, momentsOf(alike))
			r.quickVisible = limit * standardError(momentsOf(quick), momentsOf(alikeQuick))
		}
		rows = append(rows, r)
	}
	return rows
}

// worst is the largest |t| within a sort.
func (t table) worst() float64 {
	var worst float64
	for _, r := range t.rows {
		worst = max(worst, math.Abs(r.t), math.Abs(r.quickT), math.Abs(r.spreadT))
	}
	return worst
}

func (t table) print(out io.Writer, title string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "%s, measured in %.0f s; milliseconds from the request to the first byte of the answer:\n\n", title, t.took.Seconds())
	_, _ = fmt.Fprintln(w, "failure\tn\tmin\tmedian\tp99\tmean\tsd\tWelch's t\tof 90 %\tof spread\t(of all sorts)\t")
	var visible, quickVisible float64
	for _, r := range t.rows {
		_, _ = fmt.Fprintf(w, "%s: %s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%+.2f\t%+.2f\t%+.2f\t%+.2f\t\n", r.kind.sort, r.kind.name, r.n,
			r.least, r.median, r.p99, r.mean, r.deviation, r.t, r.quickT, r.spreadT, r.allT)
		visible, quickVisible = max(visible, r.visible), max(quickVisible, r.quickVisible)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nThe largest |t| is %.2f, the limit %.1f: a difference of %.3f ms in the mean, and of %.3f ms in that of the quicker nine\n"+
		"tenths, would have been seen.\n\n", t.worst(), limit, visible, quickVisible)
	return err
}
