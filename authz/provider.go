package authz

import (
	"regexp"
	"slices"
)

var providerID = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// nobody are words that stand before the colon of no name.
var nobody = []string{"email", "key", "service"}

// IsProviderID reports whether a provider may be called so in a configuration, and so in the names of a policy:
// lower-case letters, digits and hyphens, a letter first.
func IsProviderID(id string) bool { return providerID.MatchString(id) }

// IsReserved reports whether the id, before the colon of a name, means something else than a provider, or nothing.
func IsReserved(id string) bool { return id == "group" || slices.Contains(nobody, id) }
