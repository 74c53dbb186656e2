package strictjson_test

import (
	stdjson "encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"noted/internal/strictjson"
)

func TestOnlyOneWellFormedValueIsRead(t *testing.T) {
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"an object", `{"a":1}`, true},
		{"blanks around it", " \t\r\n{\"a\":1} \n", true},
		{"an escape", `{"a":"\u2602\n"}`, true},
		{"a surrogate pair", `{"a":"\ud83d\ude00"}`, true},
		{"names that differ in case", `{"a":1,"A":2}`, true}, // the validation refuses the unknown one
		{"null", `null`, true},
		{"nothing", ``, false},
		{"blanks alone", "  \n", false},
		{"a duplicate name", `{"a":1,"a":1}`, false},
		{"a duplicate name, escaped", `{"a":1,"\u0061":2}`, false},
		{"a duplicate name within", `{"x":[{"a":1,"a":2}]}`, false},
		{"a lone high surrogate", `{"a":"\ud83d"}`, false},
		{"a lone low surrogate", `{"a":"\ude00"}`, false},
		{"surrogates the wrong way round", `{"a":"\ude00\ud83d"}`, false},
		{"a lone surrogate in a name", `{"\ud83d":1}`, false},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", false},
		{"an encoded surrogate", "{\"a\":\"\xed\xa0\x80\"}", false},
		{"an overlong encoding", "{\"a\":\"\xc0\x80\"}", false},
		{"invalid UTF-8 in a name", "{\"\xff\":1}", false},
		{"a raw NUL", "{\"a\":\"\x00\"}", false},
		{"a raw line end in a string", "{\"a\":\"\n\"}", false},
		{"a second value", `{"a":1}{"a":2}`, false},
		{"a word after it", `{"a":1} x`, false},
		{"a comma after it", `{"a":1},`, false},
		{"a trailing comma", `{"a":1,}`, false},
		{"half of it", `{"a":1`, false},
		{"a BOM", "\xef\xbb\xbf{}", false},
		{"a comment", "{} // x", false},
		{"single quotes", `{'a':1}`, false},
		{"a bare name", `{a:1}`, false},
		{"NaN", `{"a":NaN}`, false},
		{"a leading zero", `{"a":01}`, false},
		{"a leading plus", `{"a":+1}`, false},
		{"True", `{"a":True}`, false},
		{"an unknown escape", `{"a":"\x41"}`, false},
		{"100,000 open brackets", strings.Repeat("[", 100_000), false},
		{"100,000 brackets", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), false},
		{"100,000 objects", strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v any
			err := strictjson.Unmarshal([]byte(c.text), &v)
			if (err == nil) != c.ok {
				t.Fatalf("got %v, %v", v, err)
			}
			if err == nil {
				return
			}
			// Clients see the text: it must not name a library or a Go type.
			for _, leak := range []string{"json:", "jsontext", "Go ", "interface", "struct", "map["} {
				if strings.Contains(err.Error(), leak) {
					t.Errorf("the message says %q: %v", leak, err)
				}
			}
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 500 {
				t.Errorf("the message is %d bytes long: %q", len(err.Error()), err)
			}
		})
	}
}

func TestNullAbsentAndSentAreTold(t *testing.T) {
	type body struct {
		Title strictjson.Optional[string]  `json:"title"`
		Place strictjson.Nullable[string]  `json:"place"`
		Count strictjson.Optional[float64] `json:"count"`
	}
	for _, c := range []struct {
		text                         string
		titleSent, placeSent, isNull bool
		title, place                 string
	}{
		{`{}`, false, false, false, "", ""},
		{`{"title":""}`, true, false, false, "", ""},
		{`{"title":"x","place":"y"}`, true, true, false, "x", "y"},
		{`{"title":"x","place":null}`, true, true, true, "x", ""},
	} {
		var b body
		if err := strictjson.Unmarshal([]byte(c.text), &b); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if b.Title.Sent != c.titleSent || b.Title.Value != c.title || b.Place.Sent != c.placeSent || b.Place.Null != c.isNull || b.Place.Value != c.place {
			t.Errorf("%s: %+v", c.text, b)
		}
	}
	// Reading into a used value clears it; null is an error.
	b := body{Title: strictjson.Optional[string]{Sent: true, Value: "old"}}
	if err := strictjson.Unmarshal([]byte(`{"title":null}`), &b); err == nil || b.Title.Value != "" {
		t.Errorf("null over a value: %+v, %v", b, err)
	}
}

func TestTheCaseOfANameCounts(t *testing.T) {
	var b struct {
		Title string `json:"title"`
	}
	if err := strictjson.Unmarshal([]byte(`{"TITLE":"shouted"}`), &b); err == nil && b.Title != "" {
		t.Errorf("TITLE was taken for title: %q", b.Title)
	}
}

func TestWhatIsWrittenIsCompactJSON(t *testing.T) {
	var out strings.Builder
	if err := strictjson.Format().Marshal(&out, map[string]any{"items": []string{}, "text": "<b>☂"}); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := stdjson.Unmarshal([]byte(out.String()), &back); err != nil || back["text"] != "<b>☂" || strings.ContainsAny(out.String(), " \n") {
		t.Errorf("wrote %q, %v", out.String(), err)
	}
}

// duplicate reads text with encoding/json's tokens and returns a name used twice in one object.
func duplicate(text string) (string, error) {
	d := stdjson.NewDecoder(strings.NewReader(text))
	var walk func() (string, error)
	walk = func() (string, error) {
		token, err := d.Token()
		if err != nil {
			return "", err
		}
		switch token {
		case stdjson.Delim('{'):
			seen := map[string]bool{}
			for d.More() {
				name, err := d.Token()
				if err != nil {
					return "", err
				}
				if seen[name.(string)] {
					return name.(string), nil
				}
				seen[name.(string)] = true
				if twice, err := walk(); twice != "" || err != nil {
					return twice, err
				}
			}
			_, err = d.Token()
		case stdjson.Delim('['):
			for d.More() {
				if twice, err := walk(); twice != "" || err != nil {
					return twice, err
				}
			}
			_, err = d.Token()
		}
		return "", err
	}
	twice, err := walk()
	if twice != "" || err != nil {
		return twice, err
	}
	if _, err := d.Token(); err != io.EOF {
		return "", fmt.Errorf("something follows: %w", err)
	}
	return "", nil
}

func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":[1,"\u0000",true,null]}}`, `"\ud800"`, `"\ud83d\ude00"`,
		"\"\xff\"", `{"title":"x","TITLE":"y"}`, `1e999`, `-0`, `[1,2`, `{} {}`, "\xef\xbb\xbf{}", strings.Repeat("[", 200), `{"":{"":0}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if err := strictjson.Unmarshal(data, &v); err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("the message is not UTF-8: %q", err)
			}
			return
		}
		if !utf8.Valid(data) {
			t.Errorf("took invalid UTF-8: %q", data)
		}
		if !stdjson.Valid(data) {
			t.Errorf("took what encoding/json does not: %q", data)
		}
		if twice, err := duplicate(string(data)); twice != "" || err != nil {
			t.Errorf("took %q with %q twice, %v", data, twice, err)
		}
		// It never panics with a struct either.
		var body struct {
			Title strictjson.Optional[string]  `json:"title"`
			Place strictjson.Nullable[string]  `json:"place"`
			Many  strictjson.Optional[[]int64] `json:"many"`
		}
		_ = strictjson.Unmarshal(data, &body)
	})
}
