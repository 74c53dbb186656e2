package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"noted/internal/problem"
	"noted/internal/request"
)

// Shape is what an operation's body may look like, made from its schema. Checking a body reads its tokens in place
// and copies next to nothing; it skips any amount of data that has no place in the shape. huma's own way, into an
// any, takes up to forty times the body.
type Shape struct {
	schema   *huma.Schema
	registry huma.Registry
	kind     jsontext.Kind // of the first byte; '0' for numbers, 't' for both truth values
	name     string        // as a member
	members  map[string]*Shape
	items    *Shape
	least    int  // characters, or items
	most     int  // likewise; negative: no limit
	plain    bool // a string whose length alone matters
}

// NewShape makes a Shape. It returns an error for a schema that a Shape cannot hold: one of several schemas,
// members of any name, arrays without maxItems (each item costs more than its bytes).
func NewShape(registry huma.Registry, schema *huma.Schema) (*Shape, error) {
	return newShape(registry, schema, 0)
}

var kinds = map[string]jsontext.Kind{
	huma.TypeString: '"', huma.TypeObject: '{', huma.TypeArray: '[', huma.TypeNumber: '0', huma.TypeInteger: '0', huma.TypeBoolean: 't',
}

func newShape(registry huma.Registry, schema *huma.Schema, depth int) (*Shape, error) {
	for schema != nil && schema.Ref != "" {
		schema = registry.SchemaFromRef(schema.Ref)
	}
	if schema == nil || depth > 20 {
		return nil, errors.New("has no schema, or one within itself")
	}
	s := &Shape{schema: schema, registry: registry, kind: kinds[schema.Type], most: -1}
	additional, isBool := schema.AdditionalProperties.(bool)
	switch {
	case s.kind == 0, len(schema.OneOf)+len(schema.AnyOf)+len(schema.AllOf)+len(schema.DependentRequired) > 0, schema.Not != nil, schema.UniqueItems,
		schema.MinProperties != nil, schema.MaxProperties != nil,
		schema.Format == "binary", schema.ContentEncoding != "", s.kind == '"' && schema.Nullable && schema.Enum != nil:
		return nil, fmt.Errorf("a %q of this schema cannot be checked", schema.Type)
	case s.kind == '{':
		if additional || !isBool {
			return nil, errors.New("an object may have no members but those that its schema names")
		}
		s.members = map[string]*Shape{}
		for name, property := range schema.Properties {
			member, err := newShape(registry, property, depth+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			member.name = name
			s.members[name] = member
		}
	case s.kind == '[':
		if schema.MaxItems == nil {
			return nil, errors.New("an array needs maxItems")
		}
		s.least, s.most = orElse(schema.MinItems, 0), *schema.MaxItems
		items, err := newShape(registry, schema.Items, depth+1)
		if err != nil {
			return nil, fmt.Errorf("its items: %w", err)
		}
		s.items = items
	case s.kind == '"':
		s.least, s.most = orElse(schema.MinLength, 0), orElse(schema.MaxLength, -1)
		s.plain = schema.Pattern == "" && schema.Format == "" && schema.Enum == nil
	}
	return s, nil
}

func orElse(p *int, otherwise int) int {
	if p == nil {
		return otherwise
	}
	return *p
}

// Check checks data, exactly one JSON value, against the shape. It returns a problem: 400 if data is not JSON (as
// in Unmarshal), 422 if it does not fit, with at most problem.MaxFields places, and only up to a point if much was
// skipped. Unmarshal reads what passes into the Go type of the schema. Check does not look for duplicate names in
// skipped values, since they are refused anyway.
func (s *Shape) Check(data []byte) error {
	c, _ := checks.Get().(*check)
	defer c.putBack()
	c.decoder.Reset(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
	c.path.Push("body")
	if err := c.value(s); errors.Is(err, errEnough) {
		return problem.Invalids(c.fields, -1)
	} else if err != nil {
		return badJSON(err)
	}
	if _, err := c.decoder.ReadToken(); err == nil {
		return badJSON(fmt.Errorf("something follows the value at byte %d", c.decoder.InputOffset()))
	} else if !errors.Is(err, io.EOF) {
		return badJSON(err)
	}
	if len(c.fields) == 0 {
		return nil
	}
	return problem.Invalids(c.fields, c.more)
}

func badJSON(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return problem.New(400, "The body is not the JSON expected here: %s", readable(err))
}

// check is one reading.
type check struct {
	decoder *jsontext.Decoder
	path    *huma.PathBuffer
	result  huma.ValidateResult
	text    []byte // a string without its escapes
	fields  []problem.Field
	more    int // beyond what fields holds
	skipped int64
}

var checks = sync.Pool{New: func() any {
	return &check{decoder: jsontext.NewDecoder(new(bytes.Buffer)), path: huma.NewPathBuffer(nil, 0)}
}}

func (c *check) putBack() {
	c.decoder.Reset(new(bytes.Buffer)) // releases the body
	c.path.Reset()
	c.result.Reset()
	c.fields, c.more, c.skipped = nil, 0, 0
	if cap(c.text) <= 64<<10 {
		checks.Put(c)
	}
}

// wrong notes that the value at the path, or its named member, is wrong.
func (c *check) wrong(member, message string) {
	if len(c.fields) == problem.MaxFields {
		c.more++
		return
	}
	location := c.path.String()
	if member != "" {
		location += "." + member
	}
	c.fields = append(c.fields, problem.Field{Location: location, Message: message})
}

// enough is how many bytes without a place are read to their end: it takes a millisecond. Beyond it, the client
// learns only what is wrong so far.
const enough = 64 << 10

var errEnough = errors.New("enough is known")

// skip skips a value that was already reported.
func (c *check) skip() error {
	from, depth := c.decoder.InputOffset(), c.decoder.StackDepth()
	for {
		if _, err := c.decoder.ReadToken(); err != nil {
			return err
		}
		size := c.decoder.InputOffset() - from
		switch ended := c.decoder.StackDepth() <= depth; {
		case c.skipped+size > enough:
			return errEnough
		case ended:
			c.skipped += size
			return nil
		}
	}
}

// value reads one value. It returns an error if the body is not JSON.
func (c *check) value(s *Shape) error {
	switch kind := c.decoder.PeekKind(); {
	case kind == 0:
		_, err := c.decoder.ReadToken()
		return err
	case kind == 'n' && s.schema.Nullable:
		_, err := c.decoder.ReadToken()
		return err
	case kind != s.kind && (s.kind != 't' || kind != 'f'):
		c.wrong("", expected[s.schema.Type])
		return c.skip()
	}
	switch s.kind {
	case '{':
		return c.object(s)
	case '[':
		return c.array(s)
	}
	raw, err := c.decoder.ReadValue()
	if err != nil {
		return err
	}
	switch s.kind {
	case '"':
		c.string(s, raw)
	case '0':
		c.number(s, raw)
	default:
		c.leaf(s, raw[0] == 't')
	}
	return nil
}

var expected = map[string]string{
	huma.TypeString: validation.MsgExpectedString, huma.TypeObject: validation.MsgExpectedObject, huma.TypeArray: validation.MsgExpectedArray,
	huma.TypeNumber: validation.MsgExpectedNumber, huma.TypeInteger: validation.MsgExpectedInteger, huma.TypeBoolean: validation.MsgExpectedBoolean,
}

// leaf lets huma validate a value that is no object or array.
func (c *check) leaf(s *Shape, value any) {
	huma.Validate(s.registry, s.schema, c.path, huma.ModeWriteToServer, value, &c.result)
	for _, err := range c.result.Errors {
		var detail huma.ErrorDetailer
		if errors.As(err, &detail) {
			c.wrong("", detail.ErrorDetail().Message)
		}
	}
	c.result.Reset()
}

// maxName is the longest name that is unescaped and remembered, in bytes as sent.
const maxName = 1000

func (c *check) object(s *Shape) error {
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	var seen []string // few: our members, and unknown ones named in the answer
	for {
		kind := c.decoder.PeekKind()
		if kind == '}' {
			break
		}
		raw, err := c.decoder.ReadValue()
		if err != nil {
			return err
		}
		if kind != '"' { // the decoder refuses it too
			return errors.New("a name must be a string")
		}
		next, name := c.member(s, raw)
		if len(raw) <= maxName && slices.ContainsFunc(seen, func(before string) bool { return before == string(name) }) {
			return fmt.Errorf("duplicate name %q at byte %d", request.Text(string(name), 200), c.decoder.InputOffset())
		}
		if next != nil {
			seen = append(seen, next.name)
		} else if len(c.fields) < problem.MaxFields {
			seen = append(seen, string(name))
		}
		switch {
		case next == nil:
			c.unknown(name)
			err = c.skip()
		case c.decoder.PeekKind() == 'n' && !next.schema.Nullable && !slices.Contains(s.schema.Required, next.name):
			c.wrong(next.name, errNull.Error())
			err = c.skip()
		default:
			c.path.Push(next.name)
			err = c.value(next)
			c.path.Pop()
		}
		if err != nil {
			return err
		}
	}
	for _, name := range s.schema.Required {
		if !slices.Contains(seen, name) {
			c.wrong("", fmt.Sprintf(validation.MsgExpectedRequiredProperty, name))
		}
	}
	_, err := c.decoder.ReadToken()
	return err
}

// member returns the member that a name stands for, if it is ours, and the unescaped name. Of a name too long to
// be ours it returns the beginning as sent.
func (c *check) member(s *Shape, raw []byte) (*Shape, []byte) {
	name := raw[1 : len(raw)-1]
	if len(raw) > maxName {
		return nil, name[:200]
	}
	if bytes.IndexByte(name, '\\') >= 0 {
		c.text, _ = jsontext.AppendUnquote(c.text[:0], raw) // the decoder has accepted it
		name = c.text
	}
	return s.members[string(name)], name
}

// unknown notes a member that is not ours.
func (c *check) unknown(name []byte) {
	if len(c.fields) == problem.MaxFields {
		c.more++
		return
	}
	c.wrong(request.Text(string(name), 200), validation.MsgUnexpectedProperty)
}

func (c *check) array(s *Shape) error {
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	n := 0
	for ; c.decoder.PeekKind() != ']'; n++ {
		if n == s.most {
			c.wrong("", fmt.Sprintf(validation.MsgExpectedMaxItems, s.most))
		}
		if n >= s.most {
			if err := c.skip(); err != nil {
				return err
			}
			continue
		}
		c.path.PushIndex(n)
		err := c.value(s.items)
		c.path.Pop()
		if err != nil {
			return err
		}
	}
	if n < s.least {
		c.wrong("", fmt.Sprintf(validation.MsgExpectedMinItems, s.least))
	}
	_, err := c.decoder.ReadToken()
	return err
}

// string checks a string. It checks the length as sent, so that an overlong string is not copied.
func (c *check) string(s *Shape, raw []byte) {
	inner := raw[1 : len(raw)-1]
	// A character is at least one byte, and at most twelve: an escaped surrogate pair.
	if s.most >= 0 && len(inner) > s.most || len(inner) < 12*s.least {
		switch n := characters(inner); {
		case s.most >= 0 && n > s.most:
			c.wrong("", fmt.Sprintf(validation.MsgExpectedMaxLength, s.most))
			return
		case n < s.least:
			c.wrong("", fmt.Sprintf(validation.MsgExpectedMinLength, s.least))
			return
		}
	}
	if s.plain && !bytes.Contains(inner, escapedNUL) {
		return
	}
	if bytes.IndexByte(inner, '\\') >= 0 {
		c.text, _ = jsontext.AppendUnquote(c.text[:0], raw)
		inner = c.text
	}
	switch {
	case bytes.IndexByte(inner, 0) >= 0:
		c.wrong("", "must not contain the character NUL (U+0000)") // PostgreSQL stores no such text
	case s.plain:
	case s.schema.Format == "date-time" && json.Unmarshal(raw, new(time.Time)) != nil: // huma accepts a comma in it
		c.wrong("", validation.MsgExpectedRFC3339DateTime)
	default:
		c.leaf(s, string(inner))
	}
}

var escapedNUL = []byte(`\u0000`)

// characters counts the characters of a string as sent. An escape counts as one, and so do the two of a surrogate
// pair.
func characters(inner []byte) (n int) {
	for i := 0; i < len(inner); n++ {
		switch {
		case inner[i] != '\\':
			_, size := utf8.DecodeRune(inner[i:])
			i += size
		case inner[i+1] != 'u':
			i += 2
		case inner[i+2]|0x20 == 'd' && inner[i+3] >= '8': // d8 to df: one half of a pair; the decoder has checked both
			i += 12
		default:
			i += 6
		}
	}
	return n
}

// maxDigits is the longest number, in bytes as sent; a float64 needs up to 327 without an exponent.
const maxDigits = 400

func (c *check) number(s *Shape, raw []byte) {
	if len(raw) > maxDigits {
		c.wrong("", fmt.Sprintf("expected a number of at most %d digits", maxDigits))
		return
	}
	if s.schema.Type == huma.TypeInteger {
		bits := 64
		if s.schema.Format == "int32" {
			bits = 32
		}
		n, err := strconv.ParseInt(string(raw), 10, bits)
		if err != nil {
			c.wrong("", validation.MsgExpectedInteger)
			return
		}
		c.leaf(s, float64(n))
		return
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		c.wrong("", "expected a number that a 64-bit float can hold")
		return
	}
	c.leaf(s, n)
}
