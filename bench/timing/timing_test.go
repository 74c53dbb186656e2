package main

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The expected values come from Python's statistics module, by the definition.
func TestWelchOfKnownSamples(t *testing.T) {
	a := []float64{27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4}
	b := []float64{27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0, 23.9}
	for name, c := range map[string]struct {
		a, b []float64
		want float64
	}{
		"equal variances":          {a, b, -2.835263800664},
		"the other way round":      {b, a, 2.835263800664},
		"unequal sizes and spread": {[]float64{3, 4, 1, 2.1}, []float64{490.2, 340, 433.9}, -9.559497721933},
		"a small shift of many":    {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, []float64{1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5}, -0.722315118515},
		"a sample and itself":      {a, a, 0},
		"constants that are equal": {[]float64{2, 2}, []float64{2, 2, 2}, 0},
		"too few to tell":          {[]float64{1}, b, 0},
	} {
		if got := welch(c.a, c.b); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %.12f, want %.12f", name, got, c.want)
		}
	}
	if got := welch([]float64{1, 1}, []float64{2, 2}); !math.IsInf(got, -1) {
		t.Errorf("two constants that differ: %v", got)
	}
}

func TestMomentsAndQuantiles(t *testing.T) {
	m := momentsOf([]float64{2, 4, 4, 4, 5, 5, 7, 9})
	if m.n != 8 || m.mean != 5 || math.Abs(m.variance-32.0/7) > 1e-12 {
		t.Errorf("%+v", m)
	}
	sorted := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]float64{0: 1, 0.1: 1, 0.11: 2, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// made returns a kind's times: around 300 ms, with a rare slow one.
func made(seed uint64, n int, shift, deviation float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	times := make([]float64, n)
	for i := range times {
		times[i] = 300.5 + shift + deviation*r.NormFloat64()
		if r.IntN(50) == 0 {
			times[i] += 20 * r.Float64()
		}
	}
	return times
}

func TestADifferenceIsFoundAndNoneIsNot(t *testing.T) {
	kinds := []kind{{name: "a", sort: sortKey}, {name: "b", sort: sortKey}, {name: "c", sort: sortKey}, {name: "d", sort: sortSession}}
	for name, c := range map[string]struct {
		a    []float64
		seen bool
	}{
		"the same":                          {made(1, 500, 0, 0.1), false},
		"slower, behind slow ones":          {made(1, 500, 0.05, 0.1), true},
		"quicker, behind slow ones":         {made(1, 500, -0.05, 0.1), true},
		"the same mean, but more spread":    {made(1, 500, 0, 0.2), true},
		"the same mean, but less spread":    {made(1, 500, 0, 0.05), true},
		"slower by more than all the noise": {made(1, 500, 20, 0.1), true},
	} {
		// A session's times do not matter here.
		found := table{rows: rowsOf(kinds, [][]float64{c.a, made(2, 500, 0, 0.1), made(3, 500, 0, 0.1), made(4, 500, 50, 0.1)})}
		if worst := found.worst(); (worst >= limit) != c.seen {
			t.Errorf("%s: the largest |t| is %.2f", name, worst)
		}
		if all := found.rows[3].allT; all < limit {
			t.Errorf("%s: against all sorts t is %.2f", name, all)
		}
	}
}

func TestCredentialsHaveTheFormOfRealOnes(t *testing.T) {
	key := regexp.MustCompile(`^noted_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}$`)
	good := unknownKey()
	for _, token := range []string{good, wrongSecret(good), badChecksum(good)} {
		if !key.MatchString(token) {
			t.Errorf("%s is no key", token)
		}
	}
	if wrong := wrongSecret(good); wrong[:idEnd+1] != good[:idEnd+1] || wrong == good || withChecksum(wrong[:secretEnd]) != wrong {
		t.Errorf("%s has no other secret than %s", wrong, good)
	}
	if bad := badChecksum(good); bad[:secretEnd] != good[:secretEnd] || withChecksum(bad[:secretEnd]) == bad {
		t.Errorf("%s has the checksum of %s", bad, good)
	}
	if token := unknownSession(); !regexp.MustCompile(`^nsess_[0-9A-Za-z]{43}$`).MatchString(token) {
		t.Errorf("%s is no session", token)
	}
	for _, token := range []string{"h.p.Abc", "h.p.zbc"} {
		if got := forged(token); got == token || len(got) != len(token) || !strings.HasPrefix(got, "h.p.") {
			t.Errorf("%s is forged as %s", token, got)
		}
	}
}

func TestJobsAreAsManyOfEachKind(t *testing.T) {
	var asked [2][]int
	kinds := make([]kind, 2)
	for i := range kinds {
		kinds[i].request = func(_ context.Context, j int) ([]byte, error) {
			asked[i] = append(asked[i], j)
			return []byte{byte(i)}, nil
		}
	}
	jobs, err := jobsOf(t.Context(), kinds, 5, 50)
	if err != nil || len(jobs) != 100 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	changes := 0
	for i, j := range jobs {
		if int(j.request[0]) != j.kind {
			t.Error("a request of another kind")
		}
		if i > 0 && jobs[i-1].kind != j.kind {
			changes++
		}
	}
	for i := range asked {
		if len(asked[i]) != 50 || asked[i][0] != 5 || asked[i][49] != 54 {
			t.Errorf("asked for %v", asked[i])
		}
	}
	if changes < 20 {
		t.Errorf("the kind changes %d times: the order is not random", changes)
	}
	failed := errors.New("failed")
	kinds[1].request = func(context.Context, int) ([]byte, error) { return nil, failed }
	if _, err := jobsOf(t.Context(), kinds, 0, 1); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestAnyOtherAnswerIsRefused(t *testing.T) {
	const floor = 300 * time.Millisecond
	kinds := []kind{{name: "key", sort: sortKey}, {name: "session", sort: sortSession}, {name: "token", sort: sortIDToken}}
	header := func(change ...string) http.Header {
		h := http.Header{"Date": {"now"}, "X-Request-Id": {"1"}, "Www-Authenticate": {"Bearer"}}
		for i := 0; i+1 < len(change); i += 2 {
			h.Set(change[i], change[i+1])
		}
		return h
	}
	without := header()
	without.Del("Www-Authenticate")
	noDate := header()
	noDate.Del("Date")
	good := answer{401, header(), []byte(unauthorized)}
	for name, c := range map[string]struct {
		kind int
		a    answer
		took time.Duration
		ok   bool
	}{
		"the same":                {0, good, floor, true},
		"of a session":            {1, answer{401, header("Date", "then", "X-Request-Id", "2"), []byte(unauthorized)}, 2 * floor, true},
		"of an exchange":          {2, answer{400, http.Header{"Date": {"now"}, "X-Request-Id": {"3"}}, []byte(badExchange)}, floor, true},
		"too soon":                {0, good, floor - 1, false},
		"another status":          {0, answer{403, header(), []byte(unauthorized)}, floor, false},
		"another body":            {0, answer{401, header(), []byte(unauthorized + "\n")}, floor, false},
		"a key's for an exchange": {2, good, floor, false},
		"one header more":         {1, answer{401, header("Retry-After", "1"), []byte(unauthorized)}, floor, false},
		"one header less":         {1, answer{401, without, []byte(unauthorized)}, floor, false},
		"another value":           {0, answer{401, header("Www-Authenticate", "Basic"), []byte(unauthorized)}, floor, false},
		"no date":                 {0, answer{401, noDate, []byte(unauthorized)}, floor, false},
	} {
		j := newJudge(kinds, floor)
		if err := j.check(0, good, floor); err != nil {
			t.Fatal(err)
		}
		if err := j.check(c.kind, c.a, c.took); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFailureForAnotherReasonThanMeantIsNoticed(t *testing.T) {
	kinds := []kind{{reason: "a"}, {reason: "b"}, {reason: "a"}}
	before := map[string]int{"a": 5, "c": 3}
	for name, c := range map[string]struct {
		after map[string]int
		ok    bool
	}{
		"as meant":       {map[string]int{"a": 25, "b": 10, "c": 3}, true},
		"one too few":    {map[string]int{"a": 24, "b": 10, "c": 3}, false},
		"none":           {map[string]int{"a": 25, "c": 3}, false},
		"another reason": {map[string]int{"a": 25, "b": 9, "c": 4}, false},
		"one too many":   {map[string]int{"a": 25, "b": 10, "c": 3, "d": 1}, false},
	} {
		if err := reasonsAreMeant(kinds, 10, before, c.after); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
