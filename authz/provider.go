package authz

import (
	"regexp"
	"slices"
)

var providerID = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// nobody lists words that no name has before its colon.
var nobody = []string{"email", "key", "service"}

// IsProviderID reports whether id may name a provider in a configuration and in a policy's names. It must be
// lower-case letters, digits and hyphens, a letter first.
func IsProviderID(id string) bool { return providerID.MatchString(id) }

// IsReserved reports whether id, before the colon of a name, means something other than a provider, or nothing.
func IsReserved(id string) bool { return id == "group" || slices.Contains(nobody, id) }
