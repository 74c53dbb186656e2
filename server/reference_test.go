package server_test

import "slices"

// This is the authorization again: who may see and do what. It is written only from docs/policy.md and
// docs/organizations.md, not from the server. The model test compares the two.

// permissions of each role, with included roles written out.
var (
	userRole      = set("note:own read write delete, key:own read write delete, self read, session:own read delete, identity:own write, org create, invitation:own accept, membership:own delete")
	platformRoles = map[string]map[string]bool{
		"moderator": set("note:any read write"),
		"admin":     set("note:any read write delete, deadzone:any read restore purge, user:any read lock, audit:any read, policy read explain"),
	}
	reader   = "org read, member read, notebook read, note:org read"
	writer   = reader + ", notebook write, note:org write delete"
	orgRoles = map[string]map[string]bool{
		"reader": set(reader),
		"writer": set(writer),
		"admin": set(writer + ", org write delete, member write delete, invitation read write delete, notebook delete, notebook:restricted read write delete," +
			"note:restricted read write delete, grant read write delete, key:org read write delete, audit:org read"),
	}
	grantRoles = map[string]map[string]bool{
		"read":  set("notebook read, note:org read"),
		"write": set("notebook read, note:org read write"),
	}
	keyReader = "self read, note:own read, note:org read, note:restricted read, org read, member read, notebook read, notebook:restricted read"
	keyWriter = keyReader + ", note:own write delete, note:org write delete, note:restricted write delete, notebook write, notebook:restricted write"
	keyRoles  = map[string]map[string]bool{
		"key-reader": set(keyReader),
		"key-writer": set(keyWriter),
		"key-admin": set(keyWriter + ", note:any read write delete, deadzone:own read restore purge, deadzone:org read restore purge, deadzone:any read restore purge," +
			"notebook delete, notebook:restricted delete, org create write delete, member write delete, invitation read write delete, grant read write delete," +
			"user:any read lock, audit:any read, audit:org read, policy read explain"),
	}
)

type refPerson struct {
	name, id, identity string
	role               string // moderator, admin or nothing
	locked             bool
	linked             []string // identities after the first
}

type refOrg struct {
	id      string
	members map[*refPerson]string
	deleted bool
}

type refNotebook struct {
	id                  string
	org                 *refOrg
	restricted, deleted bool
	grants              map[*refPerson]string
}

type refNote struct {
	id         string
	person     *refPerson // the owner; nil for a service's
	org        *refOrg    // nil for a personal note
	notebook   *refNotebook
	dead, gone bool
	grants     map[*refPerson]string
}

type refKey struct {
	id, token, role string
	person          *refPerson // nil for a service key
	org             *refOrg
	orgRole         string
	shown           *refPerson // for a service key: who was shown the working secret
	revoked         bool
}

type refSession struct {
	id, token string
	person    *refPerson
	ended     bool
	device    bool // approved from another session
}

type refInvitation struct {
	id, token, role string
	org             *refOrg
	email           *refPerson
	byPerson        *refPerson // nil for a service's
	byKey           *refKey    // nil if made by a session
	behind          *refPerson // its maker, or who was shown the service's secret
	over            bool
}

// refCaller is a credential: a session or a key.
type refCaller struct {
	session *refSession
	key     *refKey
}

// person returns the person; nil for a service.
func (c refCaller) person() *refPerson {
	if c.session != nil {
		return c.session.person
	}
	return c.key.person
}
func (c refCaller) service() bool { return c.person() == nil }

// holds reports whether the credential is valid.
func (c refCaller) holds() bool {
	switch {
	case c.session != nil:
		return !c.session.ended && !c.session.person.locked
	case c.service():
		return !c.key.revoked
	}
	return !c.key.revoked && !c.key.person.locked
}

// narrow reports what a key leaves.
func (c refCaller) narrow(permission string) bool {
	return c.session != nil || keyRoles[c.key.role][permission]
}

// platform reports whether the caller may do this to any thing.
func (c refCaller) platform(permission string) bool {
	if c.service() {
		return permission == "self read" && c.narrow(permission)
	}
	return (userRole[permission] || platformRoles[c.person().role][permission]) && c.narrow(permission)
}

// roleIn returns the caller's role in an organization; empty outside.
func (c refCaller) roleIn(org *refOrg) string {
	switch {
	case org == nil || org.deleted:
		return ""
	case !c.service():
		return org.members[c.person()]
	case c.key.org == org:
		return c.key.orgRole
	}
	return ""
}

func (c refCaller) byRole(org *refOrg, permission string) bool {
	return orgRoles[c.roleIn(org)][permission] && c.narrow(permission)
}

func (c refCaller) byGrant(grants map[*refPerson]string, permission string) bool {
	return !c.service() && grantRoles[grants[c.person()]][permission] && c.narrow(permission)
}

// verdict is an answer's status, and for 403 the permission; 0 means allowed.
type verdict struct {
	status     int
	permission string
}

var allowed, unseen = verdict{}, verdict{status: 404}

func lacking(permission string) verdict { return verdict{403, permission} }

// area decides without a particular thing.
func (c refCaller) area(permission string) verdict {
	if c.platform(permission) {
		return allowed
	}
	return lacking(permission)
}

// derives decides on approving or linking something by the caller's own sign-in: only a session from a browser
// may.
func (c refCaller) derives() verdict {
	if c.session != nil && c.session.device {
		return lacking("identity:own write")
	}
	return c.area("identity:own write")
}

func (n *refNote) restricted() bool { return n.notebook != nil && n.notebook.restricted }

// mayNote reports whether the caller may do this to a live note.
func (c refCaller) mayNote(n *refNote, act string) bool {
	if n.org == nil {
		return n.person == c.person() && n.person != nil && c.platform("note:own "+act) || c.platform("note:any "+act)
	}
	object := "note:org "
	if n.restricted() {
		object = "note:restricted "
	}
	return c.byRole(n.org, object+act) || c.granted(n, "note:org "+act) || c.platform("note:any "+act)
}

func (c refCaller) granted(n *refNote, permission string) bool {
	return c.byGrant(n.grants, permission) || n.notebook != nil && c.byGrant(n.notebook.grants, permission)
}

func (c refCaller) hasGrant(n *refNote) bool {
	p := c.person()
	return p != nil && (n.grants[p] != "" || n.notebook != nil && n.notebook.grants[p] != "")
}

// nearest names the missing permission's object.
func (c refCaller) nearest(n *refNote, act string) string {
	switch {
	case n.org == nil && n.person == c.person(): // a service is never near a personal note
		return "note:own " + act
	case n.org == nil:
		return "note:any " + act
	case n.restricted() && !c.hasGrant(n):
		return "note:restricted " + act
	}
	return "note:org " + act
}

// note decides on a note of /v1/notes; nil if it does not exist.
func (c refCaller) note(n *refNote, act string) verdict {
	switch {
	case n == nil || n.dead || n.gone:
		return unseen
	case c.mayNote(n, act):
		return allowed
	case c.mayNote(n, "read"):
		return lacking(c.nearest(n, act))
	}
	return unseen
}

// place decides on putting a note into an organization's notebook, or outside its notebooks.
func (c refCaller) place(org *refOrg, notebook *refNotebook) verdict {
	in := &refNote{org: org, notebook: notebook}
	switch {
	case notebook != nil && (notebook.deleted || notebook.org != org || c.notebook(notebook, "read") != allowed):
		return unseen
	case in.restricted() && c.byRole(org, "note:restricted write"), !in.restricted() && c.byRole(org, "note:org write"), c.granted(in, "note:org write"):
		return allowed
	}
	return lacking(c.nearest(in, "write"))
}

func (c refCaller) mayNotebook(b *refNotebook, act string) bool {
	object := "notebook "
	if b.restricted {
		object = "notebook:restricted "
	}
	return c.byRole(b.org, object+act) || c.byGrant(b.grants, "notebook "+act)
}

// notebook decides on a notebook.
func (c refCaller) notebook(b *refNotebook, act string) verdict {
	switch {
	case b == nil || b.deleted || c.roleIn(b.org) == "":
		return unseen
	case c.mayNotebook(b, act):
		return allowed
	case c.mayNotebook(b, "read") && b.restricted && b.grants[c.person()] == "":
		return lacking("notebook:restricted " + act)
	case c.mayNotebook(b, "read"):
		return lacking("notebook " + act)
	case !slices.ContainsFunc([]string{"notebook read", "notebook " + act, "notebook:restricted read", "notebook:restricted " + act},
		func(p string) bool { return c.byRole(b.org, p) || grantRoles["write"][p] && c.narrow(p) }):
		return lacking("notebook " + act)
	}
	return unseen
}

// inOrg decides on things of a kind in an organization; there is false if the thing does not exist.
func (c refCaller) inOrg(org *refOrg, object, act string, there bool) verdict {
	may, sees := c.byRole(org, object+" "+act), c.byRole(org, object+" read")
	switch {
	case c.roleIn(org) == "":
		return unseen
	case !may && !sees:
		return lacking(object + " " + act)
	case !there:
		return unseen
	case !may:
		return lacking(object + " " + act)
	}
	return allowed
}

// gives decides on giving somebody a role in an organization, if the caller may give any.
func (c refCaller) gives(org *refOrg, role string) verdict {
	for _, permission := range insidePermissions {
		if orgRoles[role][permission] && !c.byRole(org, permission) {
			return lacking(permission)
		}
	}
	return allowed
}

// behind returns the person behind a credential.
func (c refCaller) behind() *refPerson {
	if c.service() {
		return c.key.shown
	}
	return c.person()
}

// asked reports whether taking the role admin from somebody, or giving it up, needs a choice about the service
// keys whose secrets they know, according to who may end them.
func (c refCaller) asked(org *refOrg, p *refPerson, choice string) bool {
	givesUp := p == c.person() && choice == "end"
	return choice == "" || !givesUp && !c.byRole(org, "key:org delete")
}

// onThing decides on the grants of a note or notebook. What the caller may not read does not exist for them,
// whatever they may do elsewhere.
func (c refCaller) onThing(org *refOrg, object, act string, visible, there bool) verdict {
	switch {
	case c.roleIn(org) == "" || !visible:
		return unseen
	case !c.byRole(org, object+" "+act):
		return lacking(object + " " + act)
	case !there:
		return unseen
	}
	return allowed
}

// dead reports whether the caller may do this in the Dead Zone; as shipped, only admins.
func (c refCaller) dead(n *refNote, act string) verdict {
	switch {
	case !c.platform("deadzone:any read") && c.service():
		return lacking("deadzone:org " + act)
	case !c.platform("deadzone:any read"):
		return lacking("deadzone:own " + act)
	case n == nil || !n.dead || n.gone:
		return unseen
	}
	return allowed
}

// keepsAdmin reports whether an organization still has an unlocked admin if one member gets another role, or none.
func (o *refOrg) keepsAdmin(but *refPerson, role string) bool {
	if o.members[but] != "admin" || role == "admin" {
		return true
	}
	for p, r := range o.members {
		if p != but && r == "admin" && !p.locked {
			return true
		}
	}
	return false
}
