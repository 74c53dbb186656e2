package authz

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// definition is one of the model's definitions.
type definition struct{ section, key, value, why string }

// definitions are the only model that compile can rely on: a decision by role must equal the
// decision by person, and nothing may deny.
var definitions = []definition{
	{"request_definition", "r", "sub, obj, act", "a request is who, to what, and what"},
	{"policy_definition", "p", "sub, obj, act", "a permission is a role, an object and an act"},
	{"role_definition", "g", "_, _", "a g line says who holds which role, and nothing besides"},
	{"policy_effect", "e", "some(where (p.eft == allow))", "lines allow, and what no line allows is denied"},
	{"matchers", "m", "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", "deciding by role must equal deciding by person"},
}

// modelLimit is the most bytes in a line, or in a definition over several lines. Casbin splits a
// longer line: the end of a long comment would become a definition.
const modelLimit = 4095

// place is the position of a byte in the model's file.
type place struct{ line, column int }

// statement is what Casbin's config reader reads as one text: a section, or a definition. All
// lines of a definition but the last end with a backslash.
type statement struct {
	text    string
	section bool
	places  []place // of each byte, and of the end
	fault   *Fault  // in its lines, without the file
}

// start is the place of the first character that is not blank.
func (s statement) start() place { return s.places[len(s.text)-len(strings.TrimLeft(s.text, " \t"))] }

// add appends text, which begins at byte from of the line raw.
func (s *statement) add(text string, number int, raw string, from int) {
	at := place{number, column(raw, from)}
	s.places = append(s.places[:len(s.text)], at)
	for _, r := range text {
		at.column++
		for range utf8.RuneLen(r) {
			s.places = append(s.places, at)
		}
	}
	s.text += text
}

// statements splits a model as Casbin does. # and ; begin a comment anywhere. A backslash at the
// end of a line joins it to the next, unless that is blank, a comment or a section.
func statements(lines []string) []statement {
	var list []statement
	var now statement
	flush := func() {
		if now.text != "" || now.fault != nil {
			list = append(list, now)
		}
		now = statement{}
	}
	for i, raw := range lines {
		text := strings.TrimSpace(raw)
		from := strings.Index(raw, text)
		if text == "" || text[0] == '#' || text[0] == ';' {
			flush()
			if len(raw) > modelLimit {
				list = append(list, statement{fault: longLine(i+1, raw)})
			}
			continue
		}
		if text[0] == '[' && text[len(text)-1] == ']' {
			flush()
			now.section = true
		}
		fault := unseen(strings.TrimRight(raw, "\r"))
		if len(raw) > modelLimit {
			fault = longLine(i+1, raw)
		}
		if fault != nil && now.fault == nil {
			fault.Line = i + 1
			now.fault = fault
		}
		text, more := strings.CutSuffix(text, `\`)
		if more {
			text = strings.TrimSpace(text) + " "
		}
		if !now.section {
			text, _, _ = strings.Cut(text, "#")
			text, _, _ = strings.Cut(text, ";")
		}
		if now.fault == nil {
			now.add(text, i+1, raw, from)
		} else {
			now.text += text
		}
		if !more {
			flush()
		}
	}
	flush()
	return list
}

func longLine(number int, raw string) *Fault {
	return &Fault{Line: number, Column: 1, Rule: "model-length", Message: fmt.Sprintf("the line has %d bytes, and Casbin reads one of over %d as several; write several", len(raw), modelLimit)}
}

// modelReader reads a model.
type modelReader struct {
	file   string
	faults Faults
	found  map[string]int // the line of each key
}

func (m *modelReader) fault(at place, rule, format string, args ...any) {
	m.faults = append(m.faults, Fault{File: m.file, Line: at.line, Column: at.column, Rule: rule, Message: fmt.Sprintf(format, args...)})
}

// checkModel refuses any model that does not mean definitions.
func checkModel(file Source) Faults {
	m := modelReader{file: file.Name, found: map[string]int{}}
	var sections []string
	for _, d := range definitions {
		sections = append(sections, "["+d.section+"]")
	}
	section, known := "", -1
	lines := file.lines()
	for _, s := range statements(lines) {
		text := strings.TrimSpace(s.text)
		key, _, _ := strings.Cut(text, "=")
		key = strings.TrimSpace(key)
		switch {
		case s.fault != nil:
			m.fault(place{s.fault.Line, s.fault.Column}, s.fault.Rule, "%s", s.fault.Message)
			m.found[key] = s.fault.Line // faulty, not missing
		case s.section:
			section, known = text, slices.Index(sections, text)
			if known < 0 {
				m.fault(s.places[0], "model-section", "unknown section %q; %s", text, instead(text, sections))
			}
		case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
			m.fault(s.places[0], "model-syntax", "a comment cannot stand behind a section; write %s on a line of its own", text)
		case !strings.Contains(text, "="):
			m.fault(s.places[0], "model-syntax", "%q is neither a section nor a definition; write NAME = VALUE", text)
		case section == "":
			m.fault(s.places[0], "model-syntax", "%q stands before any section; write one of %s above it", text, strings.Join(sections, ", "))
		case known >= 0:
			m.definition(definitions[known], key, s)
		}
	}
	for _, d := range definitions {
		if m.found[d.key] == 0 {
			m.fault(place{len(lines), 1}, "model-missing", "the definition of %s is missing; write [%s] and, in a line below, %s = %s", d.key, d.section, d.key, d.value)
		}
	}
	return m.faults
}

// aroundCommas matches the white space that Casbin ignores.
var aroundCommas = regexp.MustCompile(`\s*,\s*`)

// definition checks a statement of d's section against d.
func (m *modelReader) definition(d definition, key string, s statement) {
	sign := strings.IndexByte(s.text, '=') + 1
	value := strings.TrimSpace(s.text[sign:])
	from := s.places[sign+strings.Index(s.text[sign:], value)]
	switch first := m.found[d.key]; {
	case key != d.key:
		m.fault(s.start(), "model-definition", "%q is not supported in [%s], where noted knows %s alone; take the line out", key, d.section, d.key)
		return
	case first > 0:
		m.fault(s.start(), "model-definition", "%q is defined in line %d already; take one of them out", key, first)
	case d.key == "m" && len(value) > modelLimit:
		m.fault(from, "model-length", "the matcher has %d bytes; write m = %s", len(value), d.value)
	case d.key == "m":
		m.matcher(d, s, sign)
	case d.key == "e" && value != d.value, // Casbin compares effects as text
		aroundCommas.ReplaceAllString(value, ",") != aroundCommas.ReplaceAllString(d.value, ","):
		m.fault(from, "model-definition", "%s = %s is not supported, because %s; write %s = %s", key, value, d.why, d.key, d.value)
	}
	m.found[d.key] = s.start().line
}

// token is part of a matcher. The last one is empty.
type token struct {
	text string
	at   int // in the statement's text
}

// tokenForm is a sign, a word, or anything else between them.
var tokenForm = regexp.MustCompile(`&&|==|[(),]|[\w.]+|[^\s\w.(),]+`)

// matcher reads a statement's expression by recursive descent, up to the first fault:
//
//	all  = one { "&&" one }
//	one  = side [ "==" side ]
//	side = "(" all ")" | "g" "(" "r.sub" "," "p.sub" ")" | WORD
//
// Each term appears once.
type matcher struct {
	tokens []token
	met    []string // the terms read so far
	fault  func(at token, format string, args ...any)
	failed bool
}

// word is one side of a comparison; empty for one or more terms.
type word string

// matcher refuses an expression that does not mean d's three terms. The expression begins at sign.
func (m *modelReader) matcher(d definition, s statement, sign int) {
	r := matcher{}
	for _, found := range tokenForm.FindAllStringIndex(s.text[sign:], -1) {
		r.tokens = append(r.tokens, token{s.text[sign+found[0] : sign+found[1]], sign + found[0]})
	}
	r.tokens = append(r.tokens, token{"", len(strings.TrimRight(s.text, " \t"))})
	r.fault = func(at token, format string, args ...any) {
		if !r.failed {
			r.failed = true
			m.fault(s.places[at.at], "model-matcher", "%s, because %s; write m = %s (its three terms may stand in any order)", fmt.Sprintf(format, args...), d.why, d.value)
		}
	}
	if alone := r.all(); alone != "" {
		r.want("==")
	}
	if end := r.next(); end.text != "" {
		r.fault(end, "read %q, where the matcher should go on with && or be over", end.text)
	}
	for term := range strings.SplitSeq(d.value, " && ") {
		if !slices.Contains(r.met, term) {
			r.fault(r.tokens[0], "%s is missing", term)
		}
	}
}

// next takes a token. It never takes the last.
func (r *matcher) next() token {
	first := r.tokens[0]
	if first.text != "" {
		r.tokens = r.tokens[1:]
	}
	return first
}

func (r *matcher) want(text string) {
	if got := r.next(); got.text != text {
		r.fault(got, "read %s, where %s should stand", cmp.Or(quoted(got.text), "the end"), text)
	}
}

func quoted(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%q", text)
}

func (r *matcher) all() word {
	first := r.one()
	for !r.failed && r.tokens[0].text == "&&" {
		if first != "" {
			r.want("==")
		}
		r.next()
		if last := r.one(); last != "" {
			r.want("==")
		}
	}
	return first
}

func (r *matcher) one() word {
	start := r.tokens[0]
	left := r.side()
	if r.failed || r.tokens[0].text != "==" {
		return left
	}
	sign := r.next()
	right := r.side()
	switch pair := min(left, right) + " " + max(left, right); {
	case r.failed:
	case left == "" || right == "":
		r.fault(sign, "== compares a term, where it should compare two words")
	case pair == "p.obj r.obj":
		r.term(start, "r.obj == p.obj")
	case pair == "p.act r.act":
		r.term(start, "r.act == p.act")
	default:
		r.fault(start, "%s == %s is no term", left, right)
	}
	return ""
}

func (r *matcher) side() word {
	switch start := r.next(); start.text {
	case "(":
		inner := r.all()
		if !r.failed {
			r.want(")")
		}
		return inner
	case "g":
		for _, text := range []string{"(", "r.sub", ",", "p.sub", ")"} {
			r.want(text)
		}
		r.term(start, "g(r.sub, p.sub)")
		return ""
	case "r.sub", "p.sub", "r.obj", "p.obj", "r.act", "p.act":
		return word(start.text)
	default:
		r.fault(start, "read %s, where a term should stand", cmp.Or(quoted(start.text), "the end"))
		return ""
	}
}

func (r *matcher) term(start token, text string) {
	if slices.Contains(r.met, text) {
		r.fault(start, "%s stands in it twice", text)
	}
	r.met = append(r.met, text)
}
