package authz

import (
	"fmt"
	"regexp"
	"strings"
)

// definitions are the one model that compile relies on: a decision by role must equal the
// decision by person, and nothing may deny.
var definitions = []struct{ section, key, value, why string }{
	{"request_definition", "r", "sub, obj, act", "a request is who, to what, and what"},
	{"policy_definition", "p", "sub, obj, act", "a permission is a role, an object and an act"},
	{"role_definition", "g", "_, _", "a g line says who holds which role, and nothing besides"},
	{"policy_effect", "e", "some(where (p.eft == allow))", "lines allow, and what no line allows is denied"},
	{"matchers", "m", "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", "deciding by role must equal deciding by person"},
}

// aroundSigns is the white space that Casbin does not look at.
var aroundSigns = regexp.MustCompile(`\s*(&&|==|[(),])\s*`)

func plain(value string) string { return aroundSigns.ReplaceAllString(strings.TrimSpace(value), "$1") }

// checkModel refuses any model but that of definitions.
func checkModel(file Source) Faults {
	var faults Faults
	fault := func(number, column int, rule, format string, args ...any) {
		faults = append(faults, Fault{File: file.Name, Line: number, Column: column, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	var sections []string
	for _, d := range definitions {
		sections = append(sections, "["+d.section+"]")
	}
	found := map[string]int{} // key: its line
	section, known := "", false
	lines := file.lines()
	for i, raw := range lines {
		number, text := i+1, strings.TrimSpace(raw)
		start := column(raw, strings.Index(raw, text))
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		if unseen := unseen(strings.TrimRight(raw, "\r")); unseen != nil {
			fault(number, unseen.Column, unseen.Rule, "%s", unseen.Message)
			key, _, _ := strings.Cut(text, "=")
			found[strings.TrimSpace(key)] = number // faulty, not missing
			continue
		}
		if text[0] == '[' {
			section, known = strings.Trim(text, "[]"), false
			for _, one := range sections {
				known = known || text == one
			}
			if !known {
				fault(number, start, "model-section", "unknown section %q; %s", text, instead(text, sections))
			}
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok:
			fault(number, start, "model-syntax", "%q is neither a section nor a definition; write NAME = VALUE", text)
		case section == "":
			fault(number, start, "model-syntax", "%q stands before any section; write one of %s above it", text, strings.Join(sections, ", "))
		case known:
			for _, d := range definitions {
				if d.section != section {
					continue
				}
				switch first, met := found[key]; {
				case key != d.key:
					fault(number, start, "model-definition", "%q is not supported in [%s], where noted knows %s alone; take the line out", key, section, d.key)
				case met:
					fault(number, start, "model-definition", "%q is defined in line %d already; take one of them out", key, first)
				case plain(value) != plain(d.value), key == "e" && strings.TrimSpace(value) != d.value: // Casbin compares effects as text
					fault(number, start, "model-definition", "%s = %s is not supported, because %s; write %s = %s", key, strings.TrimSpace(value), d.why, d.key, d.value)
				}
				if key == d.key {
					found[key] = number
				}
			}
		}
	}
	for _, d := range definitions {
		if found[d.key] == 0 {
			fault(len(lines), 1, "model-missing", "the definition of %s is missing; write [%s] and, in a line below, %s = %s", d.key, d.section, d.key, d.value)
		}
	}
	return faults
}
