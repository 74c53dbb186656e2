package authz_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"noted"
	"noted/authz"
)

// badFile is a part of testdata/bad.txt: a file and its faults.
type badFile struct {
	name  string
	model bool     // a model.conf; else lines that are added to good
	text  string   // with \u200b and the like as escapes
	want  []string // [rule] FILE:LINE:COLUMN: MESSAGE
}

func readBad(t *testing.T) []badFile {
	t.Helper()
	text, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	var files []badFile
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		name, isName := strings.CutPrefix(line, "## ")
		want, isWant := strings.CutPrefix(line, "=> ")
		switch {
		case isName:
			files = append(files, badFile{name: name, model: strings.HasPrefix(name, "model: ")})
		case len(files) == 0: // the text above the first
		case isWant:
			files[len(files)-1].want = append(files[len(files)-1].want, want)
		default:
			plain, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			files[len(files)-1].text += plain + "\n"
		}
	}
	return files
}

func (b badFile) load() error {
	model, policy := authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: []byte(good + b.text)}
	if b.model {
		model.Text, policy.Text = []byte(b.text), []byte(good)
	}
	if b.text == "" {
		policy.Text = nil
	}
	_, err := authz.Load(model, policy)
	return err
}

func TestEveryBadFileIsToldInTheseWords(t *testing.T) {
	files := readBad(t)
	if len(files) < 60 {
		t.Fatalf("%d files", len(files))
	}
	rules := map[string]bool{}
	for _, b := range files {
		t.Run(b.name, func(t *testing.T) {
			var faults authz.Faults
			if err := b.load(); !errors.As(err, &faults) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, one := range faults {
				got = append(got, fmt.Sprintf("[%s] %s", one.Rule, one))
				rules[one.Rule] = true
			}
			if diff := cmp.Diff(b.want, got); diff != "" {
				t.Errorf("%s\n=> %s", diff, strings.Join(got, "\n=> "))
			}
		})
	}
	// Every rule has a file.
	for _, name := range []string{"policy.go", "read.go", "rules.go", "model.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?:fault\([^"\n]*|Rule: )"([a-z0-9-]+)"`).FindAllStringSubmatch(string(source), -1)
		if len(found) < 2 {
			t.Errorf("%s has the rules %v", name, found)
		}
		for _, one := range found {
			if !rules[one[1]] && one[1] != "no-admin" && one[1] != "model-length" { // these have tests of their own
				t.Errorf("the rule %s of %s has no bad file", one[1], name)
			}
		}
	}
}
