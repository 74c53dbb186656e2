package name_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"noted/internal/localpg/pgtest"
	"noted/internal/name"
)

func TestANameBreaksNoLineTurnsNoTextAndIsThere(t *testing.T) {
	for _, good := range []string{
		"acme", " acme ", "Ärger & Söhne", "日本語", "שלום\u200f!", "نام\u200cه", "👩\u200d👩\u200d👧", "a\u00a0b", "🏴\U000e0067\U000e0062\U000e007f", "\u00adx", ".",
	} {
		if wrong := name.Wrong(good); wrong != "" {
			t.Errorf("%q: %s", good, wrong)
		}
	}
	for _, character := range []rune{
		0, 1, '\t', '\n', '\r', 0x1b, 0x1f, 0x7f, 0x80, 0x85, 0x9f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069,
	} {
		if wrong := name.Wrong("a" + string(character) + "b"); !strings.Contains(wrong, "U+") {
			t.Errorf("%U: %q", character, wrong)
		}
	}
	for _, blank := range []string{
		"", " ", "   ", "\u00a0", "\u3000", "\u200b", "\u200d\u200c", "\ufeff", "\u00ad", "\u2060", "\u200f", "\u3164", "\u115f\u1160", "\uffa0", "\u2800", "\ufe0f", "\u034f", "\U000e0041", " \u200b ",
	} {
		if wrong := name.Wrong(blank); wrong != "must not be blank" {
			t.Errorf("%q: %q", blank, wrong)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("alice", 3)
	f.Add(" \u202e\x00a\xff\u2028 ", 255)
	f.Add("\u3164", 1)
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit = 1 + (limit&0x7fffffff)%300
		out := name.Clean(in, limit)
		if out != "" && name.Wrong(out) != "" || utf8.RuneCountInString(out) > limit || !utf8.ValidString(out) {
			t.Errorf("Clean(%q, %d) is %q", in, limit, out)
		}
		if in != "" && name.Wrong(in) == "" && utf8.ValidString(in) && utf8.RuneCountInString(in) <= limit && out != strings.TrimSpace(in) {
			t.Errorf("Clean(%q, %d) is %q, though nothing is wrong with it", in, limit, out)
		}
	})
}

// The database refuses the same in the columns with names.
func TestTheDatabaseRefusesTheSameCharacters(t *testing.T) {
	rows, err := pgtest.Pool(t).Query(t.Context(), `
		select i from generate_series(1, 131071) i where i not between 55296 and 57343 and chr(i) ~ refused_in_names() order by i`)
	if err != nil {
		t.Fatal(err)
	}
	refused, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		t.Fatal(err)
	}
	var want []int32
	for r := rune(1); r <= 131071; r++ {
		if utf8.ValidRune(r) && strings.Contains(name.Wrong("a"+string(r)), "U+") {
			want = append(want, r)
		}
	}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Errorf("the characters refused (-here +by the database):\n%s", diff)
	}
}
