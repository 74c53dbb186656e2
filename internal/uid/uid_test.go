package uid_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"noted/internal/uid"
)

const some = "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"

func TestAnIdHasOneSpellingButForItsCase(t *testing.T) {
	for _, text := range []string{some, strings.ToUpper(some)} {
		if id, err := uid.Parse(text); err != nil || id != uuid.MustParse(some) {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "abc", "urn:uuid:" + some, "{" + some + "}", strings.ReplaceAll(some, "-", ""), some + " ", some[:35] + "g", strings.Replace(some, "-", "0", 1)} {
		if id, err := uid.Parse(text); err == nil || id != uuid.Nil {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
}

// An id that was not sent differs from one that names nothing, and from a misspelt one.
func TestAnIdThatWasNotSentNamesNothingElse(t *testing.T) {
	if (uid.ID{}).NamesNothing() {
		t.Error("an id that was not sent names something that is not there")
	}
	for text, nothing := range map[string]bool{some: false, uuid.Nil.String(): true, "{" + some + "}": true} {
		var id uid.ID
		if err := id.UnmarshalText([]byte(text)); err != nil || id.NamesNothing() != nothing || (id.UUID == uuid.Nil) != nothing {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
}

// Parse reads exactly what the schema accepts.
func FuzzParse(f *testing.F) {
	for _, text := range []string{some, "urn:uuid:" + some, "{" + some + "}", some + "\n", strings.Replace(some, "-", "_", 1)} {
		f.Add(text)
	}
	pattern := regexp.MustCompile(uid.ID{}.Schema(nil).Pattern)
	f.Fuzz(func(t *testing.T, text string) {
		id, err := uid.Parse(text)
		if (err == nil) != pattern.MatchString(text) {
			t.Fatalf("%q: %v, and the schema says %t", text, err, pattern.MatchString(text))
		}
		if err == nil && !strings.EqualFold(id.String(), text) {
			t.Fatalf("%q is read as %s", text, id)
		}
	})
}
