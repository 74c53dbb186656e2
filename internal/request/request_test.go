package request_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"noted/internal/request"
)

func TestAPageIsForWhoNamesHTML(t *testing.T) {
	for _, c := range []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false},
		{[]string{"text/*"}, false},
		{[]string{"application/json"}, false},
		{[]string{"text/html"}, true},
		{[]string{"TEXT/HTML"}, true},
		{[]string{" text/html ; charset=utf-8"}, true},
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, true},
		{[]string{"application/json, text/html"}, true},
		{[]string{"application/json", "text/html"}, true},
		{[]string{"text/html;q=0"}, false},
		{[]string{"text/html;q=0.0"}, false},
		{[]string{"text/html;q=0, */*"}, false},
		{[]string{"text/html; q=0.5"}, true},
		{[]string{"text/html;q=0.001"}, true},
		{[]string{"text/htmlx"}, false},
		{[]string{"x-text/html"}, false},
		{[]string{"application/xhtml+xml"}, false},
		{[]string{"text/html;;;=,,,"}, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Accept"] = c.accept
		if got := request.AcceptsHTML(r); got != c.want {
			t.Errorf("Accept %q: %v", c.accept, got)
		}
	}
}

func TestTextIsFitForADatabase(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"curl/8.5", 10, "curl/8.5"},
		{"a\x00b\nc\x7fd\x1be", 10, "abcde"},
		{"é☂", 10, "é☂"},
		{"ab☂", 4, "ab"},  // three bytes of it would be half a character
		{"ab☂", 5, "ab☂"}, //
		{"a\xffb", 10, "a\uFFFDb"},
		{"a\xff\xfe\xfdb", 10, "a\uFFFDb"},
		{"abcdef", 3, "abc"},
		{"abc", 0, ""},
	} {
		if got := request.Text(c.in, c.limit); got != c.want {
			t.Errorf("%q by %d: %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "plain", "\x00", "☂\xff", strings.Repeat("☂", 100), "\u0085\u2028"} {
		f.Add(seed, 7)
	}
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit = int(uint16(limit))
		out := request.Text(in, limit)
		if len(out) > limit || !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q by %d: %q", in, limit, out)
		}
	})
}

func TestARequestIsKnownByAnIDThatItsLogNames(t *testing.T) {
	var out bytes.Buffer
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", "a\x01"+strings.Repeat("b", 1000))
	info := request.New(r, netip.MustParseAddr("192.0.2.1"), slog.New(slog.NewTextHandler(&out, nil)))
	if info.ID == "" || info.UserAgent != "a"+strings.Repeat("b", 255) || info.Arrived.IsZero() {
		t.Errorf("got %+v", info)
	}
	ctx := request.With(t.Context(), info)
	request.From(ctx).Log().Info("hello")
	if request.From(ctx) != info || !strings.Contains(out.String(), "request_id="+info.ID) {
		t.Errorf("logged %s", out.String())
	}
	if outside := request.From(context.Background()); outside == nil || outside.Log() == nil || outside.IP.IsValid() || outside.ID != "" {
		t.Errorf("outside a request: %+v", outside)
	}
}
