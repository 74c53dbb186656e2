package authz

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"noted/internal/problem"
)

// Kind is what an object is, without the caller's relation to it: note, deadzone, key.
type Kind string

// Act is what is done.
type Act string

// Relation is the caller's relation to a thing, found in the database.
type Relation string

// Relations. None is for objects that have no relation (self, policy).
const (
	None       Relation = ""
	Own        Relation = "own"
	Org        Relation = "org"        // of an organization in which the caller has a role or a grant
	Restricted Relation = "restricted" // the same, in a restricted notebook, by the role
	Any        Relation = "any"        // somebody else's: only a platform-wide permission reaches it
)

// Object is a kind with a relation, as policy.csv writes it: note:own, self.
type Object string

// ObjectOf joins kind and relation.
func ObjectOf(kind Kind, relation Relation) Object {
	if relation == None {
		return Object(kind)
	}
	return Object(string(kind) + ":" + string(relation))
}

// Kind is the part before the colon.
func (o Object) Kind() Kind {
	kind, _, _ := strings.Cut(string(o), ":")
	return Kind(kind)
}

// relation is the part after the colon.
func (o Object) relation() Relation {
	_, relation, _ := strings.Cut(string(o), ":")
	return Relation(relation)
}

// Permission is an object and an act. Its String is what a 403 carries: "note:own read".
type Permission struct {
	Object Object
	Act    Act
}

// String is OBJECT ACT.
func (p Permission) String() string { return string(p.Object) + " " + string(p.Act) }

// Via is how a principal proved who they are.
type Via string

// A browser's or a script's session, or an API key.
const (
	ViaSession Via = "session"
	ViaKey     Via = "key"
)

// Kinds of principals.
const (
	KindUser    = "user"
	KindService = "service"
)

// Principal is the caller, with what they may do under the policy that was in force
// when the request came. identity makes it. Only the checked credential comes from the
// request.
type Principal struct {
	ID    uuid.UUID // the user's; the key's for a service
	Kind  string    // KindUser, or KindService for an organization's key
	Name  string
	Email string // may be empty
	Via   Via
	// Session is the session's id (zero for a key).
	Session uuid.UUID
	// ByBrowser is true for a session that began with a sign-in in a browser. A derived session (a
	// device's, or one for a program's ID token) cannot derive another.
	ByBrowser bool
	// Key and KeyRole are the key's id and role (zero for a session).
	Key     uuid.UUID
	KeyRole string
	// Secret is the key's secret that was presented (zero for a session).
	Secret uuid.UUID
	// Org and OrgRole are a service's organization and its role there (zero for a user).
	Org     uuid.UUID
	OrgRole string
	// Roles are the platform roles in force, with included roles, sorted. Read only.
	Roles []string

	allowed Set     // on the platform
	wide    Set     // the same before the key's role narrowed it
	narrow  Set     // what the key's role leaves; everything for a session
	policy  *Policy // the policy that decided all of this
}

// NewPrincipal adds to p the roles that the policy gives to names (provider:subject,
// an e-mail, group:provider:value), and narrows them by KeyRole when the caller uses a key.
// A key role that the policy does not define allows nothing. A service holds no platform role.
// On the platform it may only ask who it is, if its key role allows that.
func NewPrincipal(p Principal, policy *Policy, names []string) *Principal {
	p.policy, p.narrow = policy, everything
	if p.Via != ViaSession {
		p.narrow = policy.sets[p.KeyRole]
	}
	if p.Kind == KindService {
		p.Roles, p.wide = []string{}, setOf(vocabulary.known[serviceSelf].bit)
	} else {
		held := policy.held(names)
		p.Roles, p.wide = held.roles, held.set
	}
	p.allowed = p.wide.and(p.narrow)
	return &p
}

// refuse returns a 403 for the permission. If the caller would be allowed without the key's
// role, the 403 says so.
func (p *Principal) refuse(needed Permission, allowed func(*Principal) bool) error {
	e := problem.Forbidden(needed.String())
	if p.Via == ViaKey {
		bare := *p
		bare.allowed, bare.narrow = p.wide, everything
		if allowed(&bare) {
			e.LimitedBy = p.KeyRole
		}
	}
	return e
}

// Holds reports whether the principal has the permission for all things.
func (p *Principal) Holds(permission Permission) bool {
	return p.allowed.Has(permission)
}

// ever reports whether the principal could hold the permission on some thing. Only the database
// knows which role a user has in which organization.
func (p *Principal) ever(needed Permission) bool {
	if vocabulary.known[needed].judged == onPlatform {
		return p.Holds(needed)
	}
	roles := p.RolesFor(needed)
	if p.Kind == KindService {
		return slices.Contains(roles, p.OrgRole)
	}
	return len(roles) > 0 || vocabulary.granted(needed) && len(p.AccessesFor(needed)) > 0
}

// CheckKind decides before the thing is looked up, by principal and operation alone. It returns
// a 403 if the caller can neither read nor act on anything of this kind, whether the thing
// exists or not. The 403 names the permission nearest to them.
func (p *Principal) CheckKind(kind Kind, act Act) error {
	by := vocabulary.of(kind).by
	if p.everBy(by[act].outside, act) || p.everBy(by["read"].outside, "read") {
		return nil
	}
	return p.lacks(by[act].outside, act)
}

// checkEver is CheckKind by the given objects, for an operation without a target. Permission
// to read is not enough to act.
func (p *Principal) checkEver(objects []Object, act Act) error {
	if p.everBy(objects, act) {
		return nil
	}
	return p.lacks(objects, act)
}

// everBy is ever for any of the objects.
func (p *Principal) everBy(objects []Object, act Act) bool {
	return slices.ContainsFunc(objects, func(o Object) bool { return p.ever(Permission{o, act}) })
}

// lacks returns a 403 that names the nearest of the objects. A service owns nothing.
func (p *Principal) lacks(objects []Object, act Act) error {
	if len(objects) == 0 {
		return fmt.Errorf("authz: nothing takes the act %q here", act)
	}
	nearest := objects[0]
	if i := slices.IndexFunc(objects, func(o Object) bool { return o.relation() == Org }); p.Kind == KindService && i >= 0 {
		nearest = objects[i]
	}
	return p.refuse(Permission{nearest, act}, func(p *Principal) bool { return p.everBy(objects, act) })
}

// Check decides without a target: on making something of one's own (note:own write), or on
// an area (audit:any read). It returns a 403 or nil.
func (p *Principal) Check(permission Permission) error {
	if p.Holds(permission) {
		return nil
	}
	return p.refuse(permission, func(p *Principal) bool { return p.Holds(permission) })
}

// NotFound returns a 404 for a thing of this kind that is missing or that the caller may not read.
func NotFound(kind Kind) error {
	return problem.NotFound(cmp.Or(vocabulary.of(kind).word, string(kind)))
}

type contextKey struct{}

// WithPrincipal puts the caller into the context.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the caller; nil on public routes.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(contextKey{}).(*Principal)
	return p
}
