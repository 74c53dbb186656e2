package duration_test

import (
	"testing"
	"time"

	"noted/internal/duration"
)

func TestALengthOfTimeMayHaveDaysBeforeTheRest(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "24h": 24 * time.Hour, "1h30m": 90 * time.Minute, "0": 0, "0s": 0, "1.5h": 90 * time.Minute,
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1d0h0m1.5s": 24*time.Hour + 1500*time.Millisecond, "0d": 0,
		"-1h": -time.Hour, "-1d12h": -36 * time.Hour, "+2d": 48 * time.Hour, "365d": 365 * 24 * time.Hour, "106751d": 106751 * 24 * time.Hour,
	} {
		if got, err := duration.Parse(text); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "24", "d", "7", "a day", "7 d", "7d ", "7D", "1.5d", "12h1d", "1d1d", "1d-1h", "1d+1h", "--1d", "1d12", "1w", "106752d", "106751d24h", "99999999999999999999d", "٧d",
	} {
		if got, err := duration.Parse(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"7d", "1d12h", "-1d", "106751d23h", "9223372036854775807ns", "1d-1h"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := duration.Parse(text)
		plain, plainErr := time.ParseDuration(text)
		if plainErr == nil && (err != nil || d != plain) {
			t.Errorf("%q is %s to Go, %s here (%v)", text, plain, d, err)
		}
		if err != nil {
			return
		}
		if again, err := duration.Parse(d.String()); err != nil || again != d {
			t.Errorf("%q: %s is read back as %s, %v", text, d, again, err)
		}
	})
}
