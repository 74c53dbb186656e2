package nearest

import (
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// Of returns the known word nearest to word, the first of several. They differ only in case, or in at most a
// third of word's letters and at most three. Of returns an empty string if there is none.
func Of(word string, known []string) string {
	best, least := "", 1+min(3, (utf8.RuneCountInString(word)+1)/3)
	for _, candidate := range known {
		distance := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(candidate))
		if distance < least {
			best, least = candidate, distance
		}
	}
	return best
}
