package nearest

import (
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// Of is the known word that differs from word in capitals, or in a third of its letters at
// most and never in more than three; empty when there is none. Of several, the first.
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
