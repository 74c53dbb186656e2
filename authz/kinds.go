package authz

import (
	"math/bits"
	"slices"
)

// kinds lists all kinds of things, with all that is known of each here. Their objects and acts are the
// vocabulary. A policy line or a declared operation outside it is refused.
var kinds = []kindEntry{
	{
		kind: "note", everywhere: true, grants: []Kind{"note"},
		objects: []objectEntry{
			{"note:own", onPlatform, []Act{"read", "write", "delete"}},
			{"note:org", inOrg, []Act{"read", "write", "delete"}},
			{"note:restricted", inOrg, []Act{"read", "write", "delete"}},
			{"note:any", onPlatform, []Act{"read", "write", "delete"}},
		},
	},
	{
		// A deleted note of a restricted notebook is visible only to those who could read it before.
		kind: "deadzone", word: "note in the Dead Zone", everywhere: true, ofRestricted: Permission{"note:restricted", "read"},
		objects: []objectEntry{
			{"deadzone:own", onPlatform, []Act{"read", "restore", "purge"}},
			{"deadzone:org", inOrg, []Act{"read", "restore", "purge"}},
			{"deadzone:any", onPlatform, []Act{"read", "restore", "purge"}},
		},
	},
	{
		kind: "notebook", grants: []Kind{"notebook", "note"},
		objects: []objectEntry{
			{"notebook", inOrg, []Act{"read", "write", "delete"}},
			{"notebook:restricted", inOrg, []Act{"read", "write", "delete"}},
		},
	},
	{
		kind: organization, word: "organization",
		objects: []objectEntry{
			{"org", onPlatform, []Act{"create"}},
			{"org", inOrg, []Act{"read", "write", "delete"}},
		},
	},
	{kind: "member", itself: "membership:own", objects: []objectEntry{{"member", inOrg, []Act{"read", "write", "delete"}}}},
	{kind: "invitation", objects: []objectEntry{{"invitation", inOrg, []Act{"read", "write", "delete"}}}},
	{kind: "grant", word: "grant, note or notebook", hangs: true, objects: []objectEntry{{"grant", inOrg, []Act{"read", "write", "delete"}}}},
	{
		kind: "key", word: "API key", noKey: true,
		objects: []objectEntry{
			{"key:own", onPlatform, []Act{"read", "write", "delete"}},
			{"key:org", inOrg, []Act{"read", "write", "delete"}},
		},
	},
	{kind: "self", objects: []objectEntry{{"self", onPlatform, []Act{"read"}}}},
	{kind: "session", noKey: true, objects: []objectEntry{{"session:own", onPlatform, []Act{"read", "delete"}}}},
	{kind: "identity", noKey: true, objects: []objectEntry{{"identity:own", onPlatform, []Act{"write"}}}},
	{
		// People join and leave organizations.
		kind: "membership",
		objects: []objectEntry{
			{"invitation:own", onPlatform, []Act{"accept"}},
			{"membership:own", onPlatform, []Act{"delete"}},
		},
	},
	{kind: "user", objects: []objectEntry{{"user:any", onPlatform, []Act{"read", "lock"}}}},
	{
		kind: "audit",
		objects: []objectEntry{
			{"audit:any", onPlatform, []Act{"read"}},
			{"audit:org", inOrg, []Act{"read"}},
		},
	},
	{kind: "policy", objects: []objectEntry{{"policy", onPlatform, []Act{"read", "explain"}}}},
}

// organization is the kind of an organization itself.
const organization Kind = "org"

// kindEntry is one kind of thing.
type kindEntry struct {
	kind    Kind
	word    string        // what people call such a thing; the kind itself if empty
	objects []objectEntry // the nearest relation first
	// everywhere: one address reaches such things whoever owns them, even an organization. So does a
	// permission on all of them (any).
	everywhere bool
	// grants are the kinds that a grant on such a thing reaches, by their plain object; empty without grants.
	grants []Kind
	// ofRestricted is what a role must also hold if the thing is of a restricted notebook.
	ofRestricted Permission
	// itself is the object whose acts people may do to themselves, whatever their role.
	itself Object
	// hangs: it hangs on another thing. If that is missing, nothing else is told.
	hangs bool
	// noKey: no API key may touch it.
	noKey bool

	by         map[Act]reach // what reaches such a thing, for each act
	restricted bool          // some of its things are restricted
}

// objectEntry is an object, where it is decided, and its acts.
type objectEntry struct {
	object Object
	judged judge
	acts   []Act
}

// judge is what a decision goes by.
type judge bool

const (
	onPlatform judge = false // what the caller holds on the platform
	inOrg      judge = true  // their role in the organization, or a grant
)

// reach holds the objects of a kind that take one act. The others are empty.
type reach struct {
	outside, inside []Object // for addresses outside and inside an organization's own paths
	own, any        Object
	plain           Object // for an organization's things
	restricted      Object
}

// lexicon indexes kinds.
type lexicon struct {
	permissions []Permission // in the order of kinds; a permission's index is its bit in a Set
	known       map[Permission]knownPermission
	objects     []Object
	acts        map[Object][]Act
	kinds       map[Kind]*kindEntry
}

type knownPermission struct {
	bit    int
	judged judge
	of     *kindEntry
}

// vocabulary is the lexicon of kinds.
var vocabulary = newLexicon(kinds)

// newLexicon panics if there are more permissions than a Set holds.
func newLexicon(kinds []kindEntry) *lexicon {
	v := &lexicon{known: map[Permission]knownPermission{}, acts: map[Object][]Act{}, kinds: map[Kind]*kindEntry{}}
	for _, k := range kinds {
		k.by = map[Act]reach{}
		for _, o := range k.objects {
			k.restricted = k.restricted || o.object.relation() == Restricted
			if !slices.Contains(v.objects, o.object) {
				v.objects = append(v.objects, o.object)
			}
			v.acts[o.object] = slices.Concat(v.acts[o.object], o.acts)
			for _, act := range o.acts {
				needed := Permission{o.object, act}
				v.known[needed] = knownPermission{len(v.permissions), o.judged, &k}
				v.permissions = append(v.permissions, needed)
				_ = setOf(len(v.permissions) - 1)
				k.by[act] = k.by[act].with(o, k.everywhere)
			}
		}
		v.kinds[k.kind] = &k
	}
	return v
}

func (r reach) with(o objectEntry, everywhere bool) reach {
	if o.judged == inOrg {
		r.inside = append(r.inside, o.object)
	}
	if o.judged == onPlatform || everywhere {
		r.outside = append(r.outside, o.object)
	}
	switch relation := o.object.relation(); {
	case relation == Restricted:
		r.restricted = o.object
	case o.judged == inOrg:
		r.plain = o.object
	case relation == Own:
		r.own = o.object
	case relation == Any:
		r.any = o.object
	}
	return r
}

// has reports whether the permission is in the vocabulary.
func (v *lexicon) has(p Permission) bool {
	_, ok := v.known[p]
	return ok
}

// of returns the kind's entry, or an empty one for a kind outside the vocabulary.
func (v *lexicon) of(kind Kind) *kindEntry {
	if k := v.kinds[kind]; k != nil {
		return k
	}
	return &noKind
}

var noKind kindEntry

// granted reports whether grants can give the permission.
func (v *lexicon) granted(p Permission) bool {
	known := v.known[p]
	return known.judged == inOrg && len(known.of.grants) > 0 && p.Object.relation() != Restricted
}

// Set is a set of permissions of the vocabulary.
type Set [2]uint64

// everything holds all permissions.
var everything = Set{^uint64(0), ^uint64(0)}

// setOf returns the set with only the permission at this index of the vocabulary.
func setOf(bit int) (s Set) {
	s[bit/64] = 1 << (bit % 64)
	return s
}

// Has reports whether p is in the set. A permission outside the vocabulary is in none.
func (s Set) Has(p Permission) bool {
	known, ok := vocabulary.known[p]
	return ok && s[known.bit/64]>>(known.bit%64)&1 != 0
}

// Len counts the permissions in the set.
func (s Set) Len() int { return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1]) }

func (s Set) and(t Set) Set { return Set{s[0] & t[0], s[1] & t[1]} }

func (s Set) or(t Set) Set { return Set{s[0] | t[0], s[1] | t[1]} }

func (s Set) without(t Set) Set { return Set{s[0] &^ t[0], s[1] &^ t[1]} }

// first returns the set's first permission in the order of the vocabulary. The set must not be empty.
func (s Set) first() Permission {
	if s[0] != 0 {
		return vocabulary.permissions[bits.TrailingZeros64(s[0])]
	}
	return vocabulary.permissions[64+bits.TrailingZeros64(s[1])]
}
