package bodies_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"noted/internal/bodies"
	"noted/internal/problem"
)

// counted returns a budget, and its count of refusals by reason.
func counted(limits bodies.Limits) (*bodies.Budget, func(reason string) int) {
	var mu sync.Mutex
	refused := map[string]int{}
	budget := bodies.New(limits, func(reason string) {
		mu.Lock()
		defer mu.Unlock()
		refused[reason]++
	})
	return budget, func(reason string) int {
		mu.Lock()
		defer mu.Unlock()
		return refused[reason]
	}
}

// take makes a request with a body of size bytes, announced or not.
func take(budget *bodies.Budget, caller any, size int, announced bool, limit int64) (*bodies.Body, error) {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(make([]byte, size)))
	if !announced {
		r.ContentLength = -1
	}
	return budget.Take(httptest.NewRecorder(), r, caller, limit)
}

func wantStatus(t *testing.T, what string, err error, status int) {
	t.Helper()
	var e *problem.Error
	switch {
	case status == 0 && err != nil, status != 0 && (!errors.As(err, &e) || e.Status != status):
		t.Errorf("%s: %v, want %d", what, err, status)
	case (status == 429 || status == 503) && e.GetHeaders().Get("Retry-After") == "":
		t.Errorf("%s: no Retry-After", what)
	}
}

const kib, mib = 1 << 10, 1 << 20

func TestOneCallersBodiesAreBoundedAndTheOthersAreNotTouched(t *testing.T) {
	budget, refused := counted(bodies.Limits{Caller: 4 * mib, Together: 100 * mib})
	var held []*bodies.Body
	for range 4 {
		body, err := take(budget, "alice", mib, true, 7*mib)
		wantStatus(t, "within the share", err, 0)
		held = append(held, body)
	}
	_, err := take(budget, "alice", 1, true, 7*mib)
	wantStatus(t, "a byte beyond it", err, http.StatusTooManyRequests)
	other, err := take(budget, "bob", mib, true, 7*mib)
	wantStatus(t, "another caller", err, 0)
	if refused("caller") != 1 || budget.Held() != 5*mib {
		t.Errorf("%d refused, %d held", refused("caller"), budget.Held())
	}
	held[0].Release()
	held[0].Release() // only once counts
	again, err := take(budget, "alice", mib, true, 7*mib)
	wantStatus(t, "when one is done", err, 0)
	for _, body := range append(held, other, again) {
		body.Release()
	}
	if budget.Held() != 0 {
		t.Errorf("%d bytes are held by nobody", budget.Held())
	}
}

func TestAllTogetherAreBoundedAndSmallOnesFindRoomBesideLargeOnes(t *testing.T) {
	budget, refused := counted(bodies.Limits{Caller: 100 * mib, Together: 16 * mib})
	for i := range 12 {
		_, err := take(budget, i, mib, true, 7*mib)
		wantStatus(t, "within three quarters", err, 0)
	}
	_, err := take(budget, "late", mib, true, 7*mib)
	wantStatus(t, "a large one beyond them", err, http.StatusServiceUnavailable)
	for i := range 64 {
		_, err := take(budget, -i, 64*kib, true, 7*mib)
		wantStatus(t, "a small one in the last quarter", err, 0)
	}
	_, err = take(budget, "small", 1, true, 7*mib)
	wantStatus(t, "a small one beyond all", err, http.StatusServiceUnavailable)
	if refused("together") != 2 || budget.Held() != 16*mib {
		t.Errorf("%d refused, %d held", refused("together"), budget.Held())
	}
}

func TestACallerWhoHoldsNothingMaySendWhatTheOperationTakes(t *testing.T) {
	budget, _ := counted(bodies.Limits{Caller: mib, Together: 2 * mib})
	body, err := take(budget, "alice", 7*mib, true, 7*mib)
	wantStatus(t, "one larger than the share", err, 0)
	_, err = take(budget, "alice", 1, true, 7*mib)
	wantStatus(t, "a second", err, http.StatusTooManyRequests)
	body.Release()
	chunked, err := take(budget, "alice", 7*mib, false, 7*mib)
	wantStatus(t, "one of unknown length", err, 0)
	if n, err := io.Copy(io.Discard, onlyReader{chunked}); n != 7*mib || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	chunked.Release()
}

type onlyReader struct{ io.Reader }

func TestABodyOfUnknownLengthIsCountedAsItGrows(t *testing.T) {
	budget, _ := counted(bodies.Limits{Caller: 2 * mib, Together: 100 * mib})
	first, err := take(budget, "alice", mib, true, 7*mib)
	wantStatus(t, "the first", err, 0)
	defer first.Release()
	body, err := take(budget, "alice", 3*mib, false, 7*mib)
	wantStatus(t, "the second, before it is read", err, 0)
	if budget.Held() != mib {
		t.Errorf("%d held before the second is read", budget.Held())
	}
	one := make([]byte, 1)
	if _, err := body.Read(one); err != nil || budget.Held() != mib+64*kib {
		t.Errorf("%d held for its first byte, %v", budget.Held(), err)
	}
	n, err := io.Copy(io.Discard, onlyReader{body})
	wantStatus(t, "beyond the share", err, http.StatusTooManyRequests)
	if n < mib/2 || n > mib {
		t.Errorf("%d bytes were read before that", n)
	}
	if _, again := body.Read(one); !errors.Is(again, err) {
		t.Errorf("read on after it was refused: %v", again)
	}
	body.Release()
	if budget.Held() != mib {
		t.Errorf("%d held", budget.Held())
	}
}

func TestABodyHasItsLimitAndNotAByteMore(t *testing.T) {
	budget, refused := counted(bodies.Limits{Caller: 100 * mib, Together: 100 * mib})
	for _, announced := range []bool{true, false} {
		for _, limit := range []int64{100, 64 * kib, 100 * kib, mib} {
			for more, status := range map[int]int{-1: 0, 0: 0, 1: 413, 100: 413} {
				body, err := take(budget, "alice", int(limit)+more, announced, limit)
				if err == nil {
					_, err = io.Copy(io.Discard, onlyReader{body})
					body.Release()
				}
				wantStatus(t, "by its length", err, status)
			}
		}
	}
	if refused("size") != 16 || budget.Held() != 0 {
		t.Errorf("%d refused, %d held", refused("size"), budget.Held())
	}
}

func TestWhoBreaksOffOrFailsHoldsNothing(t *testing.T) {
	budget, _ := counted(bodies.Limits{Caller: 100 * mib, Together: 100 * mib})
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	body, err := budget.Take(httptest.NewRecorder(), r, "alice", mib)
	wantStatus(t, "the start", err, 0)
	if _, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	body.Release()
	func() {
		defer func() { _ = recover() }()
		body, err := take(budget, "alice", mib, true, mib)
		wantStatus(t, "the second", err, 0)
		defer body.Release()
		panic("in the handler")
	}()
	if budget.Held() != 0 {
		t.Errorf("%d held", budget.Held())
	}
}

func TestManyAtOnceNeverHoldMoreThanTheLimits(t *testing.T) {
	limits := bodies.Limits{Caller: 4 * mib, Together: 8 * mib}
	budget, _ := counted(limits)
	var most atomic.Int64
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 25 {
				body, err := take(budget, i%5, (j%12+1)*100*kib, j%2 == 0, 7*mib)
				if err != nil {
					continue
				}
				_, _ = io.CopyN(io.Discard, onlyReader{body}, 300*kib)
				most.Store(max(most.Load(), budget.Held()))
				body.Release()
			}
		})
	}
	all.Wait()
	if budget.Held() != 0 || most.Load() > limits.Together || most.Load() == 0 {
		t.Errorf("%d held at the end, %d at most", budget.Held(), most.Load())
	}
}
