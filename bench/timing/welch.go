package main

import (
	"math"
	"slices"
)

// limit is the |t| that counts as a difference (see doc.go).
const limit = 4.5

// moments are the number, mean and unbiased variance of a sample.
type moments struct {
	n              int
	mean, variance float64
}

func momentsOf(sample []float64) moments {
	m := moments{n: len(sample)}
	var squares float64 // of the distances from the mean (Welford)
	for i, x := range sample {
		d := x - m.mean
		m.mean += d / float64(i+1)
		squares += d * (x - m.mean)
	}
	if m.n > 1 {
		m.variance = squares / float64(m.n-1)
	}
	return m
}

// standardError returns that of the difference of two means.
func standardError(a, b moments) float64 {
	return math.Sqrt(a.variance/float64(a.n) + b.variance/float64(b.n))
}

// welch returns Welch's t of two samples, whose variances may differ: how many standard errors the mean of a is
// above that of b. It returns 0 if a sample has fewer than two values, which show nothing.
func welch(a, b []float64) float64 {
	if len(a) < 2 || len(b) < 2 {
		return 0
	}
	x, y := momentsOf(a), momentsOf(b)
	difference := x.mean - y.mean
	if difference == 0 {
		return 0
	}
	return difference / standardError(x, y)
}

// spread returns a sample's squared distances from a mean. Welch's t of two of these compares variances, as TVLA's
// second-order tests do.
func spread(sample []float64, mean float64) []float64 {
	squares := make([]float64, len(sample))
	for i, x := range sample {
		squares[i] = (x - mean) * (x - mean)
	}
	return squares
}

// quantile returns the smallest value of a sorted sample that a share q of it does not exceed.
func quantile(sorted []float64, q float64) float64 {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// below returns the values that are at most x.
func below(sample []float64, x float64) []float64 {
	return slices.DeleteFunc(slices.Clone(sample), func(y float64) bool { return y > x })
}
