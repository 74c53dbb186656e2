package bodies

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"noted/internal/problem"
)

// Limits of a Budget, in bytes.
type Limits struct {
	// Caller is what one caller may hold at a time; more is 429. A caller who holds nothing may
	// send one body of any size that the operation takes.
	Caller int64
	// Together is what all may hold; more is 503. The last quarter is for bodies of up to 64 KiB, so
	// that a few who send large ones do not shut everybody out.
	Together int64
}

// small is a body for which the last quarter is kept, and what a body of unknown length reserves
// first.
const small = 64 << 10

// Why a body is refused, for the metric.
const (
	reasonCaller   = "caller"   // this caller holds too much
	reasonTogether = "together" // all hold too much
	reasonSize     = "size"     // more than its operation takes
	reasonPace     = "pace"     // it stood still
)

// Reasons are those for which a Budget refuses a body.
var Reasons = []string{reasonCaller, reasonTogether, reasonSize, reasonPace}

// Budget is what bodies may hold that are being read, or whose requests are under way: what was
// made of a body lives as long.
type Budget struct {
	limits  Limits
	refused func(reason string)

	mu      sync.Mutex
	held    int64
	callers map[any]int64
}

// New makes a Budget; refused counts what it refuses, by the reason.
func New(limits Limits, refused func(reason string)) *Budget {
	return &Budget{limits: limits, refused: refused, callers: map[any]int64{}}
}

// Held is how many bytes are reserved now.
func (b *Budget) Held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// reserve takes n bytes more for a body that has own bytes already.
func (b *Budget) reserve(caller any, own, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	together := b.limits.Together
	if own+n > small {
		together -= together / 4
	}
	mine := b.callers[caller]
	switch {
	case mine > own && mine+n > b.limits.Caller:
		b.refused(reasonCaller)
		return problem.New(http.StatusTooManyRequests, "You send too much at a time; send this again when another of your requests is done").With("Retry-After", "1")
	case b.held > own && b.held+n > together:
		b.refused(reasonTogether)
		return problem.New(http.StatusServiceUnavailable, "Too much is being sent at a time; try again in a moment").With("Retry-After", "2")
	}
	b.held += n
	b.callers[caller] = mine + n
	return nil
}

func (b *Budget) release(caller any, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	if b.callers[caller] -= n; b.callers[caller] == 0 {
		delete(b.callers, caller)
	}
}

// A body must arrive at a pace: each 32 KiB of it, and the rest, within five seconds (a telephone
// at the edge of its network does 7 KiB/s), and all of it within Whole.
const (
	stride = 32 << 10
	stall  = 5 * time.Second
	Whole  = time.Minute
)

// Body is a request's body, read within its limit, its budget and its time. Errors of Read are problems
// (408, 413, 429, 503), or say that the client broke off.
type Body struct {
	from    io.ReadCloser
	control *http.ResponseController
	budget  *Budget
	caller  any
	limit   int64
	length  int64 // as announced; -1 is not

	ctx     context.Context //nolint:containedctx // of the request, whose end ends the reading
	unwatch func() bool

	read     int64
	reserved int64
	begun    time.Time
	next     int64 // what was read when the deadline moves on
	err      error
}

// Take puts a Body in the place of r's body. caller is who holds it, a comparable value; limit is what
// the operation takes. A length that is announced is reserved at once, so that what is refused is
// refused before it is sent; else what arrives is reserved as it grows. Call Release when the
// request is done with what it read.
func (b *Budget) Take(w http.ResponseWriter, r *http.Request, caller any, limit int64) (*Body, error) {
	body := &Body{
		from: r.Body, control: http.NewResponseController(w), budget: b, caller: caller, limit: limit, length: r.ContentLength, begun: time.Now(), ctx: r.Context(),
	}
	switch {
	case body.length > limit:
		return nil, body.tooLarge()
	case body.length > 0:
		if err := b.reserve(caller, 0, body.length); err != nil {
			return nil, err
		}
		body.reserved = body.length
	}
	body.unwatch = context.AfterFunc(r.Context(), body.interrupt)
	r.Body = body
	return body, nil
}

// Length is how long the body is said to be; -1 when nothing is said.
func (b *Body) Length() int64 { return b.length }

// ended is why the request ended, but for its client, which net/http takes for gone when a deadline of reading passes.
func (b *Body) ended() error {
	if err := context.Cause(b.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// interrupt ends a Read that waits.
func (b *Body) interrupt() {
	if b.ended() != nil {
		_ = b.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// Release gives back what is reserved. It may be called twice.
func (b *Body) Release() {
	b.unwatch()
	if b.reserved > 0 {
		b.budget.release(b.caller, b.reserved)
		b.reserved = 0
	}
}

// Close leaves what is unread to the server, which throws it away.
func (b *Body) Close() error { return b.from.Close() }

// Read reads some of it.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.err = b.room(); b.err != nil {
		return 0, b.fail()
	}
	if b.read >= b.next {
		b.next = b.read + stride
		deadline := time.Now().Add(stall)
		if end := b.begun.Add(Whole); deadline.After(end) {
			deadline = end
		}
		_ = b.control.SetReadDeadline(deadline)
		b.interrupt() // if it ended before the deadline was set
	}
	// One byte beyond the limit tells whether it is too large.
	n, err := b.from.Read(p[:min(int64(len(p)), max(b.reserved-b.read, 1))])
	b.read += int64(n)
	var timeout net.Error
	switch {
	case b.read > b.limit:
		b.err = b.tooLarge()
		return 0, b.fail()
	case errors.As(err, &timeout) && timeout.Timeout() && b.ended() != nil:
		b.err = problem.From(b.ctx, b.ctx.Err())
		return 0, b.fail()
	case errors.As(err, &timeout) && timeout.Timeout():
		b.budget.refused(reasonPace)
		b.err = problem.New(http.StatusRequestTimeout, "The body took too long to arrive: it must not stand still for %d seconds", int(stall.Seconds()))
		return 0, b.fail()
	case errors.Is(err, io.EOF):
		b.err = err
		// From now on the deadline would end the request, not the body.
		_ = b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.err = err
		return n, b.fail()
	}
	return n, err
}

// room reserves more for a body of unknown length when all that is reserved is read.
func (b *Body) room() error {
	if b.length >= 0 || b.read < b.reserved || b.reserved >= b.limit {
		return nil
	}
	more := min(max(small, b.reserved), b.limit-b.reserved)
	if err := b.budget.reserve(b.caller, b.reserved, more); err != nil {
		return err
	}
	b.reserved += more
	return nil
}

// fail leaves the client a second for what it is sending: the server reads some of it before it
// answers, and who sends nothing would hold back the answer.
func (b *Body) fail() error {
	_ = b.control.SetReadDeadline(time.Now().Add(time.Second))
	return b.err
}

func (b *Body) tooLarge() error {
	b.budget.refused(reasonSize)
	return problem.New(http.StatusRequestEntityTooLarge, "The body is too large for this operation; it takes %d bytes", b.limit)
}
