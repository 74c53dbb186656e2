package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// plan configures a run.
type plan struct {
	floor   time.Duration // as set on the server
	n       int           // measurements of each kind
	workers int           // concurrent requests at each replica
	pause   time.Duration // a worker's longest, random wait between two requests
}

const (
	// batch is how many of each kind are made and shuffled at a time, since ID tokens must be fresh.
	batch = 100
	// warm is how many of each kind go first, unmeasured: connections, caches, prepared statements.
	warm = 10
	// answerLimit is far longer than any answer takes.
	answerLimit = 30 * time.Second
)

// job is one request to be measured.
type job struct {
	kind    int
	request []byte
}

// measure returns the times of each kind in milliseconds.
func measure(ctx context.Context, s *site, kinds []kind, p plan) ([][]float64, error) {
	var connections []*connection
	defer func() {
		for _, c := range connections {
			_ = c.Close()
		}
	}()
	for i := range p.workers * len(s.replicas) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.replicas[i%len(s.replicas)].address)
		if err != nil {
			return nil, err
		}
		connections = append(connections, &connection{Conn: c, reader: bufio.NewReader(c)})
	}
	// Our own garbage collection would distort the measured times.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	judge := newJudge(kinds, p.floor)
	times := make([][]float64, len(kinds))
	var before map[string]int
	for done := -warm; done < p.n; {
		number := min(batch, p.n-done)
		if done < 0 {
			number = warm
		}
		jobs, err := jobsOf(ctx, kinds, done+warm, number)
		if err != nil {
			return nil, err
		}
		runtime.GC()
		if done == 0 {
			if before, err = s.failures(ctx); err != nil {
				return nil, err
			}
		}
		took, err := run(ctx, connections, jobs, judge, p.pause)
		if err != nil {
			return nil, err
		}
		if done >= 0 {
			for i, j := range jobs {
				times[j.kind] = append(times[j.kind], took[i].Seconds()*1000)
			}
		}
		done += number
	}
	after, err := s.failures(ctx)
	if err != nil {
		return nil, err
	}
	return times, reasonsAreMeant(kinds, p.n, before, after)
}

// jobsOf makes number requests of each kind, counted from first, in random order.
func jobsOf(ctx context.Context, kinds []kind, first, number int) ([]job, error) {
	var jobs []job
	for i, k := range kinds {
		for j := range number {
			request, err := k.request(ctx, first+j)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
			jobs = append(jobs, job{i, request})
		}
	}
	rand.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] }) //nolint:gosec // no secret
	return jobs, nil
}

// run sends all jobs, each on the next free connection, and returns how long each took.
func run(ctx context.Context, connections []*connection, jobs []job, judge *judge, pause time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, len(jobs))
	answers := make([]answer, len(jobs))
	var next atomic.Int64
	var group sync.WaitGroup
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	for _, c := range connections {
		group.Go(func() {
			// Without a pause all would run in step, since all wait for the same floor.
			for sleep(ctx, rand.N(pause+1)) { //nolint:gosec // no secret
				i := int(next.Add(1)) - 1
				if i >= len(jobs) {
					return
				}
				var err error
				if answers[i], took[i], err = c.ask(jobs[i].request); err != nil {
					giveUp(err)
				}
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for i, j := range jobs {
		if err := judge.check(j.kind, answers[i], took[i]); err != nil {
			return nil, err
		}
	}
	return took, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connection is a kept connection. net/http's client would hand each request and answer to other goroutines; here
// the goroutine that takes the time does both.
type connection struct {
	net.Conn
	reader *bufio.Reader
}

// answer is an answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request. It returns the time from just before the write to the first byte of the answer.
func (c *connection) ask(request []byte) (answer, time.Duration, error) {
	if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return answer{}, 0, err
	}
	began := time.Now()
	if _, err := c.Write(request); err != nil {
		return answer{}, 0, err
	}
	_, err := c.reader.Peek(1)
	took := time.Since(began)
	if err != nil {
		return answer{}, 0, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return answer{}, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}, took, err
}

// judge checks every answer against the contract, and against the first of the same sort of request.
type judge struct {
	kinds  []kind
	floor  time.Duration
	header map[string]http.Header // by sort, the first answer's
}

func newJudge(kinds []kind, floor time.Duration) *judge {
	return &judge{kinds, floor, map[string]http.Header{}}
}

const (
	unauthorized = `{"title":"Unauthorized","status":401,"detail":"Authentication failed"}`
	badExchange  = `{"error":"invalid_request"}`
)

// check returns an error unless the answer is the one answer: its status, its exact body, the same headers as any
// other, and no sooner than the floor.
func (j *judge) check(index int, a answer, took time.Duration) error {
	k := j.kinds[index]
	status, body := http.StatusUnauthorized, unauthorized
	// Keys and sessions use the same address, so they must have the same headers too.
	request := "GET /v1/me"
	if k.sort == sortIDToken {
		status, body, request = http.StatusBadRequest, badExchange, "POST /auth/token"
	}
	if a.status != status || !bytes.Equal(a.body, []byte(body)) {
		return fmt.Errorf("%s: the answer is %d %q, not %d %q", k.name, a.status, a.body, status, body)
	}
	if took < j.floor {
		return fmt.Errorf("%s: the answer came after %v, sooner than the floor", k.name, took)
	}
	header := a.header.Clone()
	for _, name := range []string{"Date", "X-Request-Id"} { // these two are there, and differ
		if len(header[name]) != 1 {
			return fmt.Errorf("%s: %d headers %s", k.name, len(header[name]), name)
		}
		header.Del(name)
	}
	first, seen := j.header[request]
	if !seen {
		j.header[request] = header
		return nil
	}
	var differ []string
	for _, h := range []http.Header{first, header} {
		for name := range h {
			if !slices.Equal(first[name], header[name]) && !slices.Contains(differ, name) {
				differ = append(differ, name)
			}
		}
	}
	if differ != nil {
		return fmt.Errorf("%s: the headers %s are not those of other failures: %v, %v", k.name, strings.Join(differ, ", "), header, first)
	}
	return nil
}

// reasonsAreMeant returns an error unless noted has counted n more failures for each kind's reason. A key that
// fails for another reason would measure nothing.
func reasonsAreMeant(kinds []kind, n int, before, after map[string]int) error {
	want := map[string]int{}
	for _, k := range kinds {
		want[k.reason] += n
	}
	for reason, count := range after {
		if count == before[reason] {
			continue
		}
		want[reason] -= count - before[reason]
	}
	var errs []error
	for reason, left := range want {
		if left != 0 {
			errs = append(errs, fmt.Errorf("failures for the reason %s are %d fewer than meant", reason, left))
		}
	}
	return errors.Join(errs...)
}
