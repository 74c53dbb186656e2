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
	// Caller is what one caller may hold at a time; more is 429. A caller who holds nothing may send one body of
	// any size that the operation allows.
	Caller int64
	// Together is what all may hold; more is 503. The last quarter is kept for bodies of up to 64 KiB, so that a
	// few large ones do not shut everybody out.
	Together int64
}

// small is the largest body for the last quarter, and the first reservation if the length is unknown.
const small = 64 << 10

// Reasons for refusing a body, for the metric.
const (
	reasonCaller   = "caller"   // this caller holds too much
	reasonTogether = "together" // all hold too much
	reasonSize     = "size"     // larger than its operation allows
	reasonPace     = "pace"     // it stood still
)

// Reasons are all reasons for which a Budget refuses a body.
var Reasons = []string{reasonCaller, reasonTogether, reasonSize, reasonPace}

// Budget bounds the bodies that are being read or whose requests are under way: what was made of a body lives as
// long.
type Budget struct {
	limits  Limits
	refused func(reason string)

	mu      sync.Mutex
	held    int64
	callers map[any]int64
}

// New makes a Budget; refused hears the reason of each refusal.
func New(limits Limits, refused func(reason string)) *Budget {
	return &Budget{limits: limits, refused: refused, callers: map[any]int64{}}
}

// Held returns how many bytes are reserved now.
func (b *Budget) Held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// reserve takes n more bytes for a body that already has own bytes.
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

// A body must keep a pace: each 32 KiB of it, and the rest, within five seconds (a phone at the edge of its
// network does 7 KiB/s), and all of it within Whole.
const (
	stride = 32 << 10
	stall  = 5 * time.Second
	Whole  = time.Minute
)

// Body is a request's body, read within its limit, its budget and its time. Errors of Read are problems (408, 413,
// 429, 503), or mean that the client broke off.
type Body struct {
	from    io.ReadCloser
	control *http.ResponseController
	budget  *Budget
	caller  any
	limit   int64
	length  int64 // announced; -1 if not

	ctx     context.Context //nolint:containedctx // of the request, whose end ends the reading
	unwatch func() bool

	read     int64
	reserved int64
	begun    time.Time
	next     int64 // how much is read when the deadline moves on
	err      error
}

// Take replaces r's body with a Body. caller is its holder, a comparable value; limit is what the operation
// allows. An announced length is reserved at once, so that a body is refused before it is sent; otherwise the
// reservation grows with what arrives. Call Release when the request is done with the body.
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

// Length returns the announced length of the body; -1 if there is none.
func (b *Body) Length() int64 { return b.length }

// ended returns why the request ended, unless its client left: net/http believes that when a read deadline passes.
func (b *Body) ended() error {
	if err := context.Cause(b.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// interrupt ends a waiting Read.
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

// Close leaves the unread rest to the server, which discards it.
func (b *Body) Close() error { return b.from.Close() }

// Read reads some of the body.
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
	// One byte beyond the limit shows that it is too large.
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
		// From here on the deadline would end the request, not the body.
		_ = b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.err = err
		return n, b.fail()
	}
	return n, err
}

// room reserves more for a body of unknown length once all reserved bytes are read.
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

// fail gives the client a second to finish sending. The server reads some of the body before it answers, so a
// silent client would delay the answer.
func (b *Body) fail() error {
	_ = b.control.SetReadDeadline(time.Now().Add(time.Second))
	return b.err
}

func (b *Body) tooLarge() error {
	b.budget.refused(reasonSize)
	return problem.New(http.StatusRequestEntityTooLarge, "The body is too large for this operation; it takes %d bytes", b.limit)
}
