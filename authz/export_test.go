package authz

import (
	"slices"
	"testing"
)

// Grow adds acts to an object of the vocabulary until the test ends. Anything loaded or registered before does not
// know them. The test must not run in parallel.
func Grow(t testing.TB, object Object, acts ...Act) {
	t.Helper()
	before := vocabulary
	t.Cleanup(func() { vocabulary = before })
	grown := slices.Clone(kinds)
	for i, k := range grown {
		grown[i].objects = slices.Clone(k.objects)
		for j, o := range k.objects {
			if o.object == object {
				grown[i].objects[j].acts = slices.Concat(o.acts, acts)
			}
		}
	}
	vocabulary = newLexicon(grown)
}
