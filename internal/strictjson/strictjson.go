package strictjson

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format is JSON for huma: strict when reading, compact when writing.
func Format() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error {
			return json.MarshalWrite(w, v)
		},
		Unmarshal: Unmarshal,
	}
}

// Unmarshal decodes data, exactly one JSON value, into v. It returns an error for invalid UTF-8, lone surrogates,
// duplicate names and trailing data. The decoder bounds nesting (10,000 levels). Members that v does not have are
// ignored: a Shape refuses them, by name.
func Unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return readable(err)
	}
	return nil
}

// readable removes the library's name and Go's types from its errors.
func readable(err error) error {
	text := err.Error()
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		text = fmt.Sprintf("%v at byte %d", syntactic.Err, syntactic.ByteOffset)
		if pointer := string(syntactic.JSONPointer); pointer != "" && len(pointer) < 100 {
			text += " within " + pointer
		}
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) { // its text names Go types
		text = fmt.Sprintf("the value at %q cannot be read", string(semantic.JSONPointer))
	}
	text = strings.TrimPrefix(text, "json: ")
	return errors.New(strings.ToValidUTF8(strings.ReplaceAll(text, "jsontext: ", ""), "\uFFFD"))
}

// Optional is a member that may be left out, but not null. The zero value is a member left out.
type Optional[T any] struct {
	Sent  bool // the member is there
	Value T
}

// UnmarshalJSONFrom reads a member that is there. Null is an error, which a Shape reports first.
func (o *Optional[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*o = Optional[T]{Sent: true}
	if d.PeekKind() == 'n' {
		return errNull
	}
	return json.UnmarshalDecode(d, &o.Value)
}

var errNull = errors.New("must not be null; leave it out instead")

// Schema is T's.
func (o Optional[T]) Schema(r huma.Registry) *huma.Schema { return schemaOf[T](r) }

// Nullable is a member that may be left out or null, which differ. The zero value is a member left out.
type Nullable[T any] struct {
	Sent  bool // the member is there
	Null  bool // as null
	Value T    // zero if Null or not Sent
}

// UnmarshalJSONFrom reads a member that is there.
func (n *Nullable[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*n = Nullable[T]{Sent: true}
	if d.PeekKind() == 'n' {
		n.Null = true
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, &n.Value)
}

// Schema is T's, or null.
func (n Nullable[T]) Schema(r huma.Registry) *huma.Schema {
	schema := schemaOf[T](r)
	schema.Nullable = true
	return schema
}

func schemaOf[T any](r huma.Registry) *huma.Schema {
	return huma.SchemaFromType(r, reflect.TypeFor[T]())
}
