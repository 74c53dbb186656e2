package strictjson_test

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"noted/internal/problem"
	"noted/internal/strictjson"
	"noted/internal/uid"
)

// everything is a body with all that a body may have.
type everything struct {
	Title   string                         `json:"title" minLength:"1" maxLength:"5"`
	Body    string                         `json:"body,omitempty"`
	Role    string                         `json:"role,omitempty" enum:"admin,reader"`
	At      strictjson.Optional[time.Time] `json:"at,omitempty"`
	Place   strictjson.Nullable[uid.ID]    `json:"place,omitempty"`
	On      strictjson.Optional[bool]      `json:"on,omitempty"`
	Count   strictjson.Optional[int]       `json:"count,omitempty" minimum:"0" maximum:"9"`
	Share   strictjson.Optional[float64]   `json:"share,omitempty"`
	Inner   *inner                         `json:"inner,omitempty"`
	Several []inner                        `json:"several,omitempty" minItems:"1" maxItems:"2" nullable:"false"`
	Short   strictjson.Optional[string]    `json:"short,omitempty" maxLength:"3"`
	Maybe   strictjson.Nullable[float64]   `json:"maybe,omitempty"`
	Code    strictjson.Optional[string]    `json:"code,omitempty" pattern:"^[a-z]*$"`
}

type inner struct {
	Name string `json:"name"`
}

func shapeOf[T any](t testing.TB) (*strictjson.Shape, huma.Registry, *huma.Schema) {
	t.Helper()
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schema := huma.SchemaFromType(registry, reflect.TypeFor[T]())
	shape, err := strictjson.NewShape(registry, schema)
	if err != nil {
		t.Fatal(err)
	}
	return shape, registry, schema
}

// faults returns Check's status (0 for none) and places for a text.
func faults(t testing.TB, shape *strictjson.Shape, text string) (int, []string, *problem.Error) {
	t.Helper()
	err := shape.Check([]byte(text))
	if err == nil {
		return 0, nil, nil
	}
	var e *problem.Error
	if !errors.As(err, &e) {
		t.Fatalf("%.100s: %v is no problem", text, err)
	}
	var places []string
	for _, field := range e.Errors {
		places = append(places, field.Location)
	}
	return e.Status, places, e
}

func TestWhatDoesNotFitIsNamedWhereItStands(t *testing.T) {
	shape, _, _ := shapeOf[everything](t)
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for text, want := range map[string][]string{
		`{"title":"a"}`: nil,
		`{"title":"\u0061\n☂\ud83d\ude00x","body":"","role":"reader","at":"2030-01-01T00:00:00Z","place":null,"on":false,"count":9,"share":1.5e3,"inner":{"name":""},"several":[{"name":"x"}],"maybe":null,"code":"\u0061"}`: nil,

		`{}`:                                    {"body"},
		`[]`:                                    {"body"},
		`null`:                                  {"body"},
		`"x"`:                                   {"body"},
		`7`:                                     {"body"},
		`{"title":"a","x":1}`:                   {"body.x"},
		`{"title":"a","x":[{},{}],"y":{"z":1}}`: {"body.x", "body.y"},
		`{"title":"a","x":{"x":1,"x":2}}`:       {"body.x"},
		`{"title":"a","x":` + deep + `}`:        {"body.x"},
		`{"title":"a","Title":"b"}`:             {"body.Title"},
		`{"title":["a"],"body":{}}`:             {"body.title", "body.body"},
		`{"title":7}`:                           {"body.title"},
		`{"title":null}`:                        {"body.title"},
		`{"title":""}`:                          {"body.title"},
		`{"title":"123456"}`:                    {"body.title"},
		`{"title":"☂☂☂☂☂☂"}`:                    {"body.title"},
		`{"title":"\ud83d\ude00\ud83d\ude00\ud83d\ude00\ud83d\ude00\ud83d\ude00\n"}`: {"body.title"},
		`{"title":"\u0000"}`:                                                 {"body.title"},
		`{"title":"a","body":"x\u0000"}`:                                     {"body.body"},
		`{"title":"a","body":"\\u0000"}`:                                     nil,
		`{"title":"a","role":"owner"}`:                                       {"body.role"},
		`{"title":"a","role":"adm\u0069n"}`:                                  nil,
		`{"title":"a","at":"tomorrow"}`:                                      {"body.at"},
		`{"title":"a","at":null}`:                                            {"body.at"},
		`{"title":"a","place":"x"}`:                                          {"body.place", "body.place"},
		`{"title":"a","on":"true"}`:                                          {"body.on"},
		`{"title":"a","on":0}`:                                               {"body.on"},
		`{"title":"a","count":1.5}`:                                          {"body.count"},
		`{"title":"a","count":10}`:                                           {"body.count"},
		`{"title":"a","count":-1}`:                                           {"body.count"},
		`{"title":"a","count":99999999999999999999}`:                         {"body.count"},
		`{"title":"a","share":1e999}`:                                        {"body.share"},
		`{"title":"a","share":` + strings.Repeat("9", 1000) + `}`:            {"body.share"},
		`{"title":"a","inner":{}}`:                                           {"body.inner"},
		`{"title":"a","inner":{"name":"x","y":0}}`:                           {"body.inner.y"},
		`{"title":"a","inner":[]}`:                                           {"body.inner"},
		`{"title":"a","inner":null}`:                                         {"body.inner"},
		`{"title":"a","several":[]}`:                                         {"body.several"},
		`{"title":"a","several":{}}`:                                         {"body.several"},
		`{"title":"a","several":[{"name":1},7]}`:                             {"body.several[0].name", "body.several[1]"},
		`{"title":"a","several":[{"name":"x"},{"name":"x"},{"name":"x"},7]}`: {"body.several"},
		`{"title":"a","code":"A"}`:                                           {"body.code"},
	} {
		status, places, e := faults(t, shape, text)
		if diff := cmp.Diff(want, places); diff != "" || (want == nil) != (status == 0) || status != 0 && status != 422 {
			t.Errorf("%.100s: %d %v\n%s", text, status, e, diff)
		}
	}
}

func TestWhatIsNoJSONIs400WhereverItStands(t *testing.T) {
	shape, _, _ := shapeOf[everything](t)
	for _, text := range []string{
		``, `  `, `{`, `{"title":"a"`, `{"title":"a",}`, `{"title":"a"} x`, `{"title":"a"}{}`, `{"title":"a"}]`, `{"title"}`, `{"title":}`,
		`{"title":"a","title":"b"}`, `{"title":"a","\u0074itle":"b"}`, `{"title":"a","x":1,"x":2}`, `{"title":"a","":1,"":2}`,
		`{"title":"a","x":[1,]}`, `{"title":"a","x":{"y"}}`, `{"title":"a","x":[`, `{"title":"a","x":"\ud800"}`, "{\"title\":\"a\",\"x\":\"\xff\"}",
		"{\"title\":\"\xff\"}", `{"title":"\ud83d"}`, `{title:"a"}`, `{1:2}`, `{"title":"a","several":[{"name":"x"}`, `{"title":"a","several":[}`,
		`[}`, strings.Repeat("[", 100_000), `{"title":"a","x":` + strings.Repeat(`{"a":`, 100_000), `{"title":"a","count":01}`, `{"title":tru}`, "\xef\xbb\xbf{}",
	} {
		status, _, e := faults(t, shape, text)
		if status != 400 {
			t.Errorf("%.100q: %d %v", text, status, e)
			continue
		}
		for _, leak := range []string{"json:", "jsontext", "Go ", "interface", "struct", "map["} {
			if strings.Contains(e.Detail, leak) {
				t.Errorf("%.100q: the message says %q: %s", text, leak, e.Detail)
			}
		}
		if !utf8.ValidString(e.Detail) || len(e.Detail) > 600 {
			t.Errorf("%.100q: the message is %d bytes: %.200q", text, len(e.Detail), e.Detail)
		}
	}
}

// allocated returns how many bytes a call of f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	f() // warm up
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestCheckingCostsNothingInProportionToWhatIsRefused(t *testing.T) {
	shape, _, _ := shapeOf[everything](t)
	const size = 7 << 20
	fill := func(before, item, after string) string {
		return before + strings.Repeat(item, (size-len(before)-len(after))/len(item)) + after
	}
	var members strings.Builder
	members.WriteString(`{"title":"a"`)
	for i := 0; members.Len() < size; i++ {
		fmt.Fprintf(&members, `,"%x":0`, i)
	}
	members.WriteByte('}')
	for name, text := range map[string]string{
		"objects in an unknown member":    fill(`{"title":"a","x":[`, `{},`, `{}]}`),
		"members in an unknown member":    `{"title":"a","x":` + members.String() + `}`,
		"unknown members":                 members.String(),
		"a name":                          fill(`{"`, `x`, `":1}`),
		"an escaped name":                 fill(`{"`, `\u0061`, `":1}`),
		"a list for a string":             fill(`{"title":[`, `"x",`, `1]}`),
		"an object for a string":          fill(`{"title":{"x":[`, `[],`, `1]}}`),
		"a string for a number":           fill(`{"title":"a","count":"`, `x`, `"}`),
		"digits for a number":             fill(`{"title":"a","count":`, `1`, `}`),
		"digits for a share":              fill(`{"title":"a","share":0.`, `1`, `}`),
		"a list too long":                 fill(`{"title":"a","several":[`, `{"name":"x"},`, `{"name":"x"}]}`),
		"a list":                          fill(`[`, `{},`, `{}]`),
		"a title too long":                fill(`{"title":"`, `x`, `"}`),
		"a title too long, escaped":       fill(`{"title":"`, `\u0000`, `"}`),
		"a long string where none belong": fill(`{"title":"a","on":"`, `\n`, `"}`),
		"a string of pairs, too long":     fill(`{"title":"a","short":"`, `\ud83d\ude00`, `"}`),
		"blanks":                          fill(`{"title":"a",`, ` `, `"x":1}`),
		"a body without limit":            fill(`{"title":"a","body":"`, `\n`, `"}`), // fine, and not copied
	} {
		data := []byte(text)
		if n := allocated(func() { _ = shape.Check(data) }); n > 128<<10 {
			t.Errorf("%s: %d bytes allocated for a body of %d", name, n, len(data))
		}
		if status, places, _ := faults(t, shape, text); len(places) > problem.MaxFields+1 || status != 422 && name != "a body without limit" {
			t.Errorf("%s: %d with %d places", name, status, len(places))
		} else if name == "unknown members" && places[problem.MaxFields] != "…" {
			t.Errorf("what is not named is not counted: %q", places[problem.MaxFields:])
		}
	}
}

func TestASchemaThatCannotBeCheckedMakesNoShape(t *testing.T) {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	for name, of := range map[string]reflect.Type{
		"a map":                        reflect.TypeFor[struct{ M map[string]string }](),
		"anything":                     reflect.TypeFor[struct{ A any }](),
		"a list without a limit":       reflect.TypeFor[struct{ L []string }](),
		"a list without a limit below": reflect.TypeFor[struct{ O struct{ L []inner } }](),
		"itself":                       reflect.TypeFor[endless](),
	} {
		if _, err := strictjson.NewShape(registry, huma.SchemaFromType(registry, of)); err == nil {
			t.Errorf("%s has a shape", name)
		}
	}
}

type endless struct {
	Next *endless `json:"next"`
}

// plainly reads a text as huma alone would: decoded whole, then validated. It reports acceptance.
func plainly(registry huma.Registry, schema *huma.Schema, data []byte) (any, bool) {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return nil, false
	}
	result := &huma.ValidateResult{}
	huma.Validate(registry, schema, huma.NewPathBuffer([]byte("body"), 4), huma.ModeWriteToServer, v, result)
	return v, len(result.Errors) == 0
}

// holdsNUL reports whether a string in v has one.
func holdsNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsRune(v, 0)
	case []any:
		return slices.ContainsFunc(v, holdsNUL)
	case map[string]any:
		for _, item := range v {
			if holdsNUL(item) {
				return true
			}
		}
	}
	return false
}

// nullAt reports whether an optional member of v is null, though it may not be.
func nullAt(v any) bool {
	object, _ := v.(map[string]any)
	for name, value := range object {
		if value == nil && name != "place" && name != "maybe" {
			return true
		}
	}
	return false
}

// FuzzCheck compares the reader with what it replaces: the plain decoder and huma's validation.
func FuzzCheck(f *testing.F) {
	huma.ValidateStrictCasing = true
	shape, registry, schema := shapeOf[everything](f)
	for _, seed := range []string{
		``, `null`, `{}`, `{"title":"a"}`, `{"title":"a","title":"b"}`, `{"title":"\ud83d\ude00\u0000"}`, `{"title":"a","body":"\\u0000\n"}`,
		`{"title":"a","role":"reader","at":"2030-01-01T00:00:00,5Z","place":null,"on":false,"count":9,"share":1.5e3}`,
		`{"title":"a","inner":{"name":""},"several":[{"name":"x"},{"name":"y","z":[{}]}],"maybe":null,"code":"\u0061"}`,
		`{"title":"a","count":1e0}`, `{"title":"a","share":-0}`, `{"title":"a","x":{"y":1,"y":2}}`, `{"title":"☂☂☂☂☂","short":"\n\"\\"}`,
		`{"title":"a","on":null}`, `{"title":"a","place":"{0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b}"}`, `{"title":"a"} {}`, "{\"title\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		status, places, e := faults(t, shape, string(data))
		if e != nil && (!utf8.ValidString(e.Detail) || len(places) > problem.MaxFields+1 || status == 422 && len(places) == 0) {
			t.Errorf("%q: %v %q", data, e, places)
		}
		tree, fits := plainly(registry, schema, data)
		switch {
		case status == 0 && !fits:
			t.Fatalf("%q passes, and the plain decoder or huma's validation refuses it", data)
		case status == 0:
			var body everything
			if err := strictjson.Unmarshal(data, &body); err != nil {
				t.Fatalf("%q passes, and does not decode: %v", data, err)
			}
			sameValue(t, data, tree, body)
		case fits && !holdsNUL(tree) && !nullAt(tree) && !strictly(places):
			t.Fatalf("%q is refused (%v %q), and the plain decoder takes it", data, e, places)
		}
	})
}

// strictly reports whether all faults are in members for which the reader is stricter than huma's validation: they
// must decode.
func strictly(places []string) bool {
	return len(places) > 0 && !slices.ContainsFunc(places, func(place string) bool {
		return !slices.Contains([]string{"body.at", "body.count", "body.share", "body.maybe"}, place)
	})
}

// sameValue checks that the decoded value equals the text's.
func sameValue(t *testing.T, data []byte, tree any, body everything) {
	t.Helper()
	object := tree.(map[string]any)
	text := func(name string) string { value, _ := object[name].(string); return value }
	if body.Title != text("title") || body.Body != text("body") || body.Role != text("role") || body.Short.Value != text("short") || body.Code.Value != text("code") {
		t.Errorf("%q is decoded as %+v", data, body)
	}
	if number, _ := object["share"].(float64); body.Share.Value != number {
		t.Errorf("%q is decoded as %+v", data, body)
	}
	if number, _ := object["count"].(float64); float64(body.Count.Value) != number {
		t.Errorf("%q is decoded as %+v", data, body)
	}
	if several, _ := object["several"].([]any); len(several) != len(body.Several) {
		t.Errorf("%q is decoded as %+v", data, body)
	}
	if !stdjson.Valid(data) {
		t.Errorf("took what encoding/json does not: %q", data)
	}
}

// newNote is the body of a note.
type newNote struct {
	Title      string                      `json:"title" minLength:"1" maxLength:"200"`
	Body       string                      `json:"body" maxLength:"1048576"`
	OrgID      strictjson.Nullable[uid.ID] `json:"org_id,omitempty"`
	NotebookID strictjson.Nullable[uid.ID] `json:"notebook_id,omitempty"`
}

// BenchmarkRead reads a note's body, small and of 1 MiB: checked and decoded as now, and by huma alone.
func BenchmarkRead(b *testing.B) {
	shape, registry, schema := shapeOf[newNote](b)
	line := `Buy bread, milk and an umbrella ☂; call \"Ada\".\n`
	for name, text := range map[string]string{
		"small":       `{"title":"Shopping","body":"` + strings.Repeat(line, 20) + `"}`,
		"1MiB":        `{"title":"Shopping","body":"` + strings.Repeat(line, 1<<20/len(line)) + `"}`,
		"1MiBEscaped": `{"title":"Shopping","body":"` + strings.Repeat(`\u00e9`, 1<<20) + `"}`,
	} {
		data := []byte(text)
		b.Run(name+"/checked", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				var note newNote
				if err := errors.Join(shape.Check(data), strictjson.Unmarshal(data, &note)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/huma", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				var note newNote
				if _, fits := plainly(registry, schema, data); !fits {
					b.Fatal("refused")
				}
				if err := strictjson.Unmarshal(data, &note); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
