package name

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// Name is a request member that names a thing. Wrong is checked before a handler sees it; a bad name gets 422,
// naming the member. A tag bounds its length.
type Name string

// refused are the characters that no name may have: controls (including U+0085), line and paragraph separators,
// and those that change the direction of all following text: embeddings, overrides and isolates (UAX 9, 2.1 to
// 2.4). The marks U+200E, U+200F and U+061C are allowed: Hebrew and Arabic names need them, and they affect only
// their neighbors.
var refused = []*unicode.RangeTable{unicode.Cc, unicode.Zl, unicode.Zp, {
	R16: []unicode.Range16{{Lo: 0x202A, Hi: 0x202E, Stride: 1}, {Lo: 0x2066, Hi: 0x2069, Stride: 1}},
}}

// unseen are the characters that show nothing or a blank; a name needs another one.
var unseen = []*unicode.RangeTable{
	unicode.White_Space, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point,
	{R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}}}, // Braille without a dot
}

// Wrong returns what is wrong with a name; empty if nothing is. It does not check the length.
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

// Clean makes a name from input that nobody can be asked to correct, such as a provider's. It drops refused
// characters and cuts to limit characters; a blank name becomes empty.
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

// Schema documents the rule in words: a JSON Schema pattern would need characters that may not stand in it.
func (Name) Schema(huma.Registry) *huma.Schema {
	one := 1
	return &huma.Schema{
		Type: huma.TypeString, MinLength: &one,
		Description: "Not blank, with no control, line-separator or bidirectional-override characters",
	}
}

// Resolve is called by huma and calls Wrong. The schema refuses an empty name, and strictjson U+0000.
func (n *Name) Resolve(_ huma.Context, path *huma.PathBuffer) []error {
	wrong := Wrong(string(*n))
	if wrong == "" || *n == "" || strings.Contains(string(*n), "\x00") {
		return nil
	}
	// An optional member is the Value of a strictjson.Optional.
	return []error{&huma.ErrorDetail{Location: strings.TrimSuffix(path.String(), ".value"), Message: wrong}}
}
