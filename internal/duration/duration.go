package duration

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// errForm says what to write instead.
var errForm = errors.New("is no length of time; write it as 90s, 15m, 24h, 7d or 1d12h")

// days matches the days at the start of a duration: a whole number, before anything smaller.
var days = regexp.MustCompile(`^([-+]?)([0-9]+)d`)

const day = 24 * time.Hour

// Parse reads what time.ParseDuration does, optionally after whole days: 7d, 1d12h. A day is 24 hours. Errors say
// what to write, and do not quote text.
func Parse(text string) (time.Duration, error) {
	match := days.FindStringSubmatch(text)
	if match == nil {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errForm
		}
		return d, nil
	}
	number, err := strconv.ParseInt(match[2], 10, 64)
	if err != nil || number > math.MaxInt64/int64(day) {
		return 0, errForm
	}
	d, rest := time.Duration(number)*day, text[len(match[0]):]
	if rest != "" {
		if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return 0, errForm // one sign, for the whole
		}
		more, err := time.ParseDuration(rest)
		if err != nil || more > math.MaxInt64-d {
			return 0, errForm
		}
		d += more
	}
	if match[1] == "-" {
		d = -d
	}
	return d, nil
}
