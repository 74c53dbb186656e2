//go:build !race

// As in casbin_test.go: one goroutine, and Casbin is asked over and over.

package authz_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"pgregory.net/rapid"

	"noted"
	"noted/authz"
)

// shippedMatcher is the expression that the texts below must mean.
const shippedMatcher = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"

// withMatcher is the shipped model with other lines as its matcher.
func withMatcher(lines string) string {
	return strings.Replace(string(noted.Model), "m = "+shippedMatcher, lines, 1)
}

func loadModel(text string) error {
	_, err := authz.Load(authz.Source{Name: "model.conf", Text: []byte(text)}, authz.Source{Name: "policy.csv", Text: []byte(good)})
	return err
}

// decides asks Casbin by a model. The requests' answers show every term of the matcher: somebody who
// holds nothing, another object, another act, and each word in place of another.
func decides(t testing.TB, modelText string) string {
	t.Helper()
	m, err := model.NewModelFromString(modelText)
	if err != nil {
		t.Fatalf("Casbin refuses %q: %v", modelText, err)
	}
	const lines = "p, user, note:own, read\np, admin, note:any, read\np, admin, note:own, write\np, read, user, note:own\ng, boss, admin\ng, dev:ada, boss\ng, admin, helper\np, helper, self, read"
	enforcer, err := casbin.NewEnforcer(m, stringadapter.NewAdapter(lines))
	if err != nil {
		t.Fatalf("Casbin refuses %q: %v", modelText, err)
	}
	var answers strings.Builder
	words := []string{"user", "admin", "boss", "helper", "dev:ada", "root", "note:own", "note:any", "self", "read", "write", ""}
	for _, sub := range words {
		for _, obj := range words {
			for _, act := range words {
				allowed, err := enforcer.Enforce(sub, obj, act)
				if err != nil {
					t.Fatalf("%q, %s, %s, %s: %v", modelText, sub, obj, act, err)
				}
				if allowed {
					answers.WriteString(sub + " " + obj + " " + act + "\n")
				}
			}
		}
	}
	return answers.String()
}

// The three terms in any order, sides swapped, blanks, parentheses, comments, several lines.
func TestAModelThatMeansTheSameIsTakenHoweverItIsWritten(t *testing.T) {
	want := decides(t, string(noted.Model))
	if strings.Count(want, "\n") < 8 {
		t.Fatalf("too few are allowed to tell models apart:\n%s", want)
	}
	same := func(t testing.TB, text string) {
		t.Helper()
		if err := loadModel(text); err != nil {
			t.Errorf("%v, of\n%s", err, text)
		} else if got := decides(t, text); got != want {
			t.Errorf("Casbin allows\n%sby\n%s", got, text)
		}
	}
	for _, lines := range []string{
		"m = r.act == p.act && r.obj == p.obj && g(r.sub, p.sub)",
		"m=p.act==r.act&&g(r.sub,p.sub)&&p.obj==r.obj",
		"m\t=  g ( r.sub ,\tp.sub )  &&\tr.obj  ==  p.obj && r.act == p.act ",
		"m = (r.act == p.act && (r.obj == p.obj)) && ((g(r.sub, p.sub)))",
		"m = (((g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act)))",
		"m = g(r.sub, p.sub) && (r.obj) == ((p.obj)) && r.act == p.act",
		"m = g(r.sub, p.sub) && \\\n    r.obj == p.obj && \\\n    r.act == p.act",
		"m = g(r.sub, p.sub) \\\n&& r.obj == p.obj && r.act == p.act \\\n",
		"m \\\n= \\\ng( \\\nr.sub, p.sub) && r.obj == p.obj && r.act == p.act",
		"m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act # who, what, how",
		"m = g(r.sub, p.sub) && ; who \\\n r.obj == p.obj && # what \\\n r.act == p.act ; how",
		"# m = true\n; m = true\nm = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act",
		"m = g(r.sub, p.sub) && r.o# a comment is cut before lines are joined \\\nbj == p.obj && r.act == p.act",
	} {
		same(t, withMatcher(lines))
	}
	same(t, strings.ReplaceAll(withMatcher("m = r.act == p.act && \\\nr.obj == p.obj && g(r.sub, p.sub)"), "\n", "\r\n"))
	same(t, strings.NewReplacer("sub, obj, act", "sub ,obj\\\n,act # three", "_, _", "_,_ ; two", "some(where", "some(where \\\n").Replace(string(noted.Model)))
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		draw := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "piece") }
		blank := func() string { return draw("", "", " ", "\t", "  ", " \\\n ", " # c \\\n") }
		around := func(text string) string {
			for range rapid.IntRange(0, 2).Draw(t, "parentheses") {
				text = "(" + blank() + text + blank() + ")"
			}
			return text
		}
		side := func(a, b string) string { return a + blank() + "==" + blank() + b }
		terms := rapid.Permutation([]string{
			around("g" + blank() + "(" + blank() + "r.sub" + blank() + "," + blank() + "p.sub" + blank() + ")"),
			around(draw(side("r.obj", "p.obj"), side("p.obj", "r.obj"))),
			around(draw(side("r.act", "p.act"), side("p.act", "r.act"))),
		}).Draw(t, "order")
		and := blank() + "&&" + blank()
		text := draw(around(terms[0]+and+terms[1])+and+terms[2], terms[0]+and+around(terms[1]+and+terms[2]))
		text = withMatcher("m =" + blank() + around(text) + draw("", " ", " # c"))
		if err := loadModel(text); err != nil {
			t.Fatalf("%v, of\n%s", err, text)
		}
		if got := decides(outer, text); got != want {
			t.Fatalf("Casbin allows\n%sby\n%s", got, text)
		}
	})
}

// Casbin's reader takes 4,096 bytes at a time. The rest would be a line of its own, and the last
// definition of a matcher counts.
func TestAModelLineThatCasbinWouldReadAsSeveralIsRefused(t *testing.T) {
	comment := "# " + strings.Repeat("x", 4094)
	hidden := withMatcher("m = " + shippedMatcher + "\n" + comment + "m = r.obj == p.obj")
	if decides(t, hidden) == decides(t, string(noted.Model)) {
		t.Fatal("Casbin reads long lines whole by now")
	}
	for name, c := range map[string]struct{ lines, says string }{
		"a comment":     {"m = " + shippedMatcher + "\n" + comment + "m = true", "model.conf:15:1: the line has 4104 bytes"},
		"blanks":        {"m = " + shippedMatcher + strings.Repeat(" ", 4096) + "m = true", "model.conf:14:1: the line has"},
		"a definition":  {"m = " + shippedMatcher + " # " + strings.Repeat("x", 4050) + "m = true", "model.conf:14:1: the line has"},
		"a long nest":   {"m = " + strings.Repeat("( \\\n", 4096) + shippedMatcher, "model.conf:14:5: the matcher has"},
		"a long nest 2": {"m = " + strings.Repeat("(", 4000), `model.conf:14:4005: read the end, where a term should stand`},
	} {
		var faults authz.Faults
		if err := loadModel(withMatcher(c.lines)); !errors.As(err, &faults) || !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := loadModel(withMatcher("m = " + shippedMatcher + "\n" + comment[:4095])); err != nil {
		t.Errorf("a comment of 4,095 bytes: %v", err)
	}
	deep := strings.Repeat("(", 2000) + shippedMatcher + strings.Repeat(")", 2000)
	if err := loadModel(withMatcher("m = " + deep)); err != nil {
		t.Errorf("a deep nest: %v", err)
	}
}

// Whatever is accepted, Casbin decides by it as by the shipped one.
func FuzzModel(f *testing.F) {
	f.Add(noted.Model)
	for _, lines := range []string{
		"m = (r.act == p.act && (p.obj == r.obj)) && \\\n ((g(r.sub, p.sub)))", "m = g(p.sub, r.sub) && r.obj == p.obj # x\n; y\n[matchers] # z",
		"m = g(r.sub, p.sub) && r.obj == p.obj || r.act != p.act", "m = g(r.sub, p.sub) && r.obj in (p.obj) && r.act =~ p.act", "\\\n\\\nm=",
	} {
		f.Add([]byte(withMatcher(lines)))
	}
	want := decides(f, string(noted.Model))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := loadModel(string(text)); err != nil {
			checkFaults(t, err, text)
			return
		}
		if got := decides(t, strings.TrimPrefix(string(text), "\xef\xbb\xbf")); got != want {
			t.Fatalf("Casbin allows\n%sby\n%s", got, text)
		}
	})
}

func checkFaults(t *testing.T, err error, text []byte) {
	t.Helper()
	var faults authz.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("no faults: %v", err)
	}
	lines := strings.Split(string(text), "\n")
	for _, one := range faults {
		if one.Line < 1 || one.Line > len(lines) || one.Column < 1 || one.Column > len(lines[one.Line-1])+1 || one.Message == "" || one.Rule == "" {
			t.Fatalf("%+v of %d lines", one, len(lines))
		}
	}
}
