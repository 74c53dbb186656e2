package name

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// Name is a member of a request that names a thing. Whatever type of request uses it, Wrong is
// asked before a handler sees it: 422, naming the member. Its length is bounded by a tag.
type Name string

// refused are the characters that no name holds: controls (U+0085 is one), the separators of lines
// and paragraphs, and what turns the direction of the text behind it, up to an end that need not be
// there: embeddings, overrides and isolates (UAX 9, 2.1 to 2.4). The marks U+200E, U+200F and
// U+061C stay, which Hebrew and Arabic names need; they turn no more than what is next to them.
var refused = []*unicode.RangeTable{unicode.Cc, unicode.Zl, unicode.Zp, {
	R16: []unicode.Range16{{Lo: 0x202A, Hi: 0x202E, Stride: 1}, {Lo: 0x2066, Hi: 0x2069, Stride: 1}},
}}

// unseen are the characters that show nothing, or a blank, alone: a name needs another one.
var unseen = []*unicode.RangeTable{
	unicode.White_Space, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point,
	{R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}}}, // Braille without a dot
}

// Wrong says what is wrong with a name; empty when nothing is. How long it may be is not asked.
func Wrong(name string) string {
	seen := false
	for _, r := range name {
		if unicode.In(r, refused...) {
			return fmt.Sprintf("must not contain the character %U: control, line-separator and bidirectional-override characters are not for names", r)
		}
		seen = seen || !unicode.In(r, unseen...)
	}
	if !seen {
		return "must not be blank"
	}
	return ""
}

// Clean makes a name of what others sent and nobody can be asked to change, such as a provider's:
// without the characters that are refused, cut to limit characters, empty when it is blank.
func Clean(name string, limit int) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.In(r, refused...) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "\uFFFD")))
	if utf8.RuneCountInString(name) > limit {
		name = strings.TrimSpace(string([]rune(name)[:limit]))
	}
	if Wrong(name) != "" {
		return ""
	}
	return name
}

// Schema says it in the OpenAPI document. JSON Schema's patterns could not say it in characters
// that may stand there.
func (Name) Schema(huma.Registry) *huma.Schema {
	one := 1
	return &huma.Schema{
		Type: huma.TypeString, MinLength: &one,
		Description: "Not blank, with no control, line-separator or bidirectional-override characters",
	}
}

// Resolve is huma's: it asks Wrong. An empty name is refused by the schema, and U+0000 by
// strictjson.
func (n *Name) Resolve(_ huma.Context, path *huma.PathBuffer) []error {
	wrong := Wrong(string(*n))
	if wrong == "" || *n == "" || strings.Contains(string(*n), "\x00") {
		return nil
	}
	// A member that may be left out stands in a strictjson.Optional, as its Value.
	return []error{&huma.ErrorDetail{Location: strings.TrimSuffix(path.String(), ".value"), Message: wrong}}
}
