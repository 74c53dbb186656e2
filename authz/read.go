package authz

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Source is one file: its bytes, and its name for errors.
type Source struct {
	Name string
	Text []byte
}

// lines returns the file's lines without their line feeds and without a byte order mark.
func (s Source) lines() []string {
	return strings.Split(string(bytes.TrimPrefix(s.Text, []byte("\xef\xbb\xbf"))), "\n")
}

// field is one column of a line.
type field struct {
	text   string
	column int
	quoted bool
}

// line is one rule of a policy file, or one expectation of a test file.
type line struct {
	number int
	text   string  // as in the file
	kind   field   // p or g; allow or deny
	fields []field // the rest
}

// at returns the text of the i-th column after the kind.
func (l line) at(i int) string { return l.fields[i].text }

// key is equal for two lines that say the same, however they are written.
func (l line) key() string {
	var b strings.Builder
	b.WriteString(l.kind.text)
	for _, f := range l.fields {
		fmt.Fprintf(&b, ",%d:%s", len(f.text), f.text)
	}
	return b.String()
}

// rewritten returns the line with a comma and a blank between columns.
func (l line) rewritten() string {
	words := []string{l.kind.text}
	for _, f := range l.fields {
		words = append(words, f.text)
	}
	return strings.Join(words, ", ")
}

// read splits a file into lines of columns, each line on its own, as Casbin does. It skips blank
// lines and comments. A line that cannot be read is a fault and is left out.
func read(file Source) ([]line, Faults) {
	var list []line
	var faults Faults
	for i, raw := range file.lines() {
		trimmed := strings.TrimSpace(raw)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		l := line{number: i + 1, text: trimmed}
		if fault := l.split(raw); fault != nil {
			fault.File, fault.Line = file.Name, l.number
			faults = append(faults, *fault)
			continue
		}
		list = append(list, l)
	}
	return list, faults
}

// split fills the line's columns from raw, the line with its outer blanks.
func (l *line) split(raw string) *Fault {
	raw = strings.TrimRightFunc(raw, unicode.IsSpace)
	if fault := unseen(raw); fault != nil {
		return fault
	}
	var fields []field
	if strings.Contains(raw, `"`) {
		reader := csv.NewReader(strings.NewReader(raw))
		reader.TrimLeadingSpace = true
		texts, err := reader.Read()
		if err != nil {
			at := strings.IndexByte(raw, '"')
			var where *csv.ParseError
			if errors.As(err, &where) && where.Column-1 <= len(raw) {
				at = where.Column - 1
			}
			return &Fault{
				Column: column(raw, at), Rule: "quote",
				Message: `a quote that does not stand around a whole column; write "…" around it, or leave the quotes out`,
			}
		}
		for i, text := range texts {
			_, at := reader.FieldPos(i)
			fields = append(fields, field{text: text, column: column(raw, at-1), quoted: at <= len(raw) && raw[at-1] == '"'})
		}
	} else {
		fields = make([]field, 0, 4)
		for at := 0; ; {
			text, _, more := strings.Cut(raw[at:], ",")
			start := at + len(text) - len(strings.TrimLeft(text, " \t"))
			fields = append(fields, field{text: text, column: column(raw, start)})
			if !more {
				break
			}
			at += len(text) + 1
		}
	}
	for i := range fields {
		if !fields[i].quoted {
			fields[i].text = strings.TrimSpace(fields[i].text)
		}
	}
	l.kind, l.fields = fields[0], fields[1:]
	return nil
}

// unseen finds the first character that does not print. With one, a line would not mean what it
// seems to. A tab is ordinary white space.
func unseen(raw string) *Fault {
	for i, r := range raw {
		switch lost := r == utf8.RuneError && !strings.HasPrefix(raw[i:], string(utf8.RuneError)); {
		case lost:
			return &Fault{Column: column(raw, i), Rule: "not-utf8", Message: fmt.Sprintf("the byte 0x%02X is no UTF-8; save the file as UTF-8", raw[i])}
		case r != '\t' && !unicode.IsPrint(r):
			return &Fault{Column: column(raw, i), Rule: "unseen-character", Message: fmt.Sprintf("the character U+%04X cannot be seen; take it out", r)}
		}
	}
	return nil
}

// column returns the column, from 1, of the byte at.
func column(raw string, at int) int { return utf8.RuneCountInString(raw[:min(at, len(raw))]) + 1 }
