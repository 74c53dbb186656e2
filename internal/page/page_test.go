package page_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"noted/internal/page"
	"noted/internal/problem"
)

var somewhere = page.Position{At: time.UnixMicro(1_764_000_000_123_456).UTC(), ID: uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")}

// refused reports whether err is the one answer to a foreign cursor.
func refused(err error) bool {
	var e *problem.Error
	return errors.As(err, &e) && e.Status == 422 && len(e.Errors) == 1 && e.Errors[0].Location == "query.cursor" && e.Errors[0].Message != ""
}

func TestACursorIsReadBackAsThePositionItWasMadeFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := page.Position{
			At: time.UnixMicro(rapid.Int64Range(0, 253_402_300_799_999_999).Draw(t, "at")).UTC(),
			ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		}
		list := rapid.String().Draw(t, "list")
		got, err := page.Query{Cursor: p.Cursor(list)}.After(list)
		if err != nil || got != p {
			t.Fatalf("%v came back as %v, %v", p, got, err)
		}
	})
}

func TestNoCursorIsTheStartOfTheList(t *testing.T) {
	p, err := page.Query{}.After("notes")
	if err != nil || p != (page.Position{}) {
		t.Errorf("got %v, %v", p, err)
	}
	for w, want := range map[page.Window]*time.Time{{After: p, Limit: 3}: nil, {After: somewhere, Limit: 3}: &somewhere.At} {
		args := w.Args(map[string]any{"org": 1})
		at, typed := args["at"].(*time.Time) // null in the statement when nil
		if !typed || (at == nil) != (want == nil) || at != nil && !at.Equal(*want) || args["id"] != w.After.ID || args["limit"] != 3 || args["org"] != 1 {
			t.Errorf("%v: %v", w, args)
		}
	}
}

func TestACursorOfAnotherListIsRefused(t *testing.T) {
	cursor := somewhere.Cursor("notes ")
	for _, list := range []string{"notes all", "notes", "", "keys", "notes  ", "notes \x00"} {
		if _, err := (page.Query{Cursor: cursor}).After(list); !refused(err) {
			t.Errorf("the list %q took it: %v", list, err)
		}
	}
}

func TestAnyChangedCharacterOfACursorIsRefused(t *testing.T) {
	cursor := somewhere.Cursor("notes")
	const characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\r\x00"
	for i := range cursor {
		for _, c := range []byte(characters) {
			if cursor[i] == c {
				continue
			}
			changed := cursor[:i] + string(c) + cursor[i+1:]
			if _, err := (page.Query{Cursor: changed}).After("notes"); !refused(err) {
				t.Fatalf("%q was taken: %v", changed, err)
			}
		}
	}
}

func TestACursorWithSomethingMoreOrLessIsRefused(t *testing.T) {
	cursor := somewhere.Cursor("notes")
	cases := []string{cursor + "=", cursor + "A", cursor + cursor, cursor[1:], cursor[:len(cursor)-1], " ", "=", "%", strings.ToLower(cursor)}
	// encoding/base64 skips line ends anywhere.
	for i := range len(cursor) + 1 {
		cases = append(cases, cursor[:i]+"\n"+cursor[i:], cursor[:i]+"\r\n"+cursor[i:])
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	cases = append(cases, base64.RawURLEncoding.EncodeToString(append(raw, 0)), base64.RawURLEncoding.EncodeToString(raw[:24]))
	for _, changed := range cases {
		if _, err := (page.Query{Cursor: changed}).After("notes"); !refused(err) {
			t.Errorf("%q was taken: %v", changed, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	cursor := somewhere.Cursor("notes")
	for _, seed := range []string{cursor, cursor + "\n", "\n" + cursor, cursor[:10] + "\r\n" + cursor[10:], cursor + "=", "", "A", strings.Repeat("A", 43), somewhere.Cursor("keys")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, changed string) {
		p, err := page.Query{Cursor: changed}.After("notes")
		switch {
		case changed == "":
			if err != nil || p != (page.Position{}) {
				t.Errorf("no cursor: %v, %v", p, err)
			}
		case err == nil:
			// Only a cursor that says exactly this is valid; nobody finds a 64-bit checksum by chance.
			if p.Cursor("notes") != changed || p.At.Nanosecond()%1000 != 0 {
				t.Errorf("%q was taken for %v", changed, p)
			}
		case !refused(err):
			t.Errorf("%q: %v", changed, err)
		}
	})
}

func TestAPageIsCutAndCarriesACursorOnlyWhenMoreFollows(t *testing.T) {
	position := func(n int) page.Position {
		return page.Position{At: time.UnixMicro(int64(n)).UTC(), ID: uuid.UUID{byte(n)}}
	}
	for _, c := range []struct {
		rows  []int
		limit int
		items []int
		more  bool
	}{
		{nil, 2, []int{}, false},
		{[]int{9}, 2, []int{9}, false},
		{[]int{9, 8}, 2, []int{9, 8}, false},
		{[]int{9, 8, 7}, 2, []int{9, 8}, true},
	} {
		got, err := page.List(page.Query{Limit: c.limit}, "numbers", func(w page.Window) ([]int, error) {
			if w.Limit != c.limit+1 || w.After != (page.Position{}) {
				t.Errorf("the first page of %d is %v", c.limit, w)
			}
			return c.rows, nil
		}, position)
		if err != nil || got.Items == nil || !slices.Equal(got.Items, c.items) || (got.NextCursor != nil) != c.more {
			t.Errorf("%v by %d: %v", c.rows, c.limit, got)
		}
		if c.more {
			next, err := page.Query{Cursor: *got.NextCursor}.After("numbers")
			if want := position(c.items[len(c.items)-1]); err != nil || next != want {
				t.Errorf("the next page starts after %v, %v; want %v", next, err, want)
			}
		}
	}
	mapped := page.Map(page.Of[int]{Items: []int{9, 8}, NextCursor: new("next")}, func(n int) string { return strings.Repeat("x", n) })
	if len(mapped.Items) != 2 || len(mapped.Items[1]) != 8 || mapped.NextCursor == nil {
		t.Errorf("mapped to %v", mapped)
	}
	if empty := page.Map(page.Of[int]{}, func(n int) int { return n }); empty.Items == nil {
		t.Error("an empty page has null for items")
	}
}
