package keys

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Other people's scanners are made from docs/keys.md.
func TestTheDocumentedVectorsAndPatternHold(t *testing.T) {
	text, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	published := regexp.MustCompile("Scanners find keys by the expression `([^`]+)`").FindSubmatch(text)
	if published == nil {
		t.Fatal("docs/keys.md publishes no expression")
	}
	pattern := regexp.MustCompile("^" + string(published[1]) + "$")
	vectors := regexp.MustCompile("(?m)^\\| `(noted_[^`]+)` \\| `([0-9a-f]{8})` \\| `([0-9a-f-]{36})` \\|$").FindAllStringSubmatch(string(text), -1)
	if len(vectors) < 3 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		id, _, err := Token(v[1]).parse()
		if err != nil || id.String() != v[3] || fmt.Sprintf("%08x", crc(v[1][:72])) != v[2] || !pattern.MatchString(v[1]) {
			t.Errorf("%v: %v, %v, %08x", v, id, err, crc(v[1][:72]))
		}
	}
	none := regexp.MustCompile("And what is none: `(noted_[^`]+)`").FindStringSubmatch(string(text))
	if none == nil {
		t.Fatal("docs/keys.md shows nothing that is no key")
	}
	if _, _, err := Token(none[1]).parse(); err == nil || !pattern.MatchString(none[1]) {
		t.Errorf("%s is one", none[1])
	}
	// The scanner finds noted's own keys, even within a line.
	unanchored := regexp.MustCompile(string(published[1]))
	for range 100 {
		token, _ := newToken(uuid.New())
		if found := unanchored.FindString("Authorization: Bearer " + string(token) + "\n"); found != string(token) {
			t.Fatalf("%s: found %q", token, found)
		}
	}
	if strings.Count(string(text), string(published[1])) != 1 {
		t.Error("the expression stands there more than once, or not as it is")
	}
}
