package notes

import (
	"maps"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
)

// from joins a note to its owner, its notebook and the caller's standing to it. Why it is right:
//
//   - m is the caller's membership in the note's organization: at most one row, by its primary key.
//     A personal note has none: its org_id is null and equals nothing.
//   - g is the caller's widest grant on the note or its current notebook: 'write' sorts after 'read',
//     so max is the wider. Grants belong to members (a foreign key), so an outsider has none. A note
//     that leaves its notebook loses that notebook's grants.
//   - b is the note's current notebook, in its own organization (by a foreign key).
//   - Notebooks and grants are looked up in the note's space only.
//   - A service's role comes from its key and counts only in the key's organization. A service is not
//     a user: @user is null then and equals nothing, so it has no membership, no grant, nothing of
//     its own. A user has no service organization: @service_org is null then.
//
// No join can drop a note (all are left joins) or repeat it (each finds at most one row), so the
// condition alone decides whether a note is found.
const from = `
	from notes n
	left join people o on o.user_id = n.owner_id
	left join services k on k.key_id = n.owner_key
	left join notebooks b on b.space_id = n.space_id and b.id = n.notebook_id
	left join memberships m on m.org_id = n.org_id and m.user_id = @user
	left join lateral (
		select max(access) as access from grants
		where space_id = n.space_id and user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)
	) g on true`

// role is the caller's role in the note's organization, or null.
const role = `coalesce(m.role, case when n.org_id = @service_org then @service_role end)`

// standing selects the columns of authz.Standing. An organization's note is nobody's own.
const standing = `(n.owner_id = @user) is true as own,
	coalesce(` + role + `, '') as role, coalesce(g.access, '') as access, coalesce(b.restricted, false) as restricted`

// visible is authz.Principal.DecideOn in SQL, for reading an organization's notes, so that a page is
// never filtered after it was fetched. Each line is one way to a note:
//
//   - any note, by note:any;
//   - by role: note:org outside restricted notebooks, note:restricted in them, never the other way
//     round;
//   - by a grant, restricted or not, with what the grant's role holds on note:org.
//
// The policy enters only through the arguments: the roles and accesses that suffice. A null role or
// access is in no array: it makes its line null, which is not true.
const visible = `(
	@any
	or (not coalesce(b.restricted, false) and ` + role + ` = any(@org_roles))
	or (b.restricted and ` + role + ` = any(@restricted_roles))
	or g.access = any(@accesses)
)`

// visibleDead is visible for the Dead Zone, personal notes included. Grants do not count there. A note
// of a restricted notebook also needs a role that reads such notes alive.
const visibleDead = `(
	(n.space_id = @user and @own)
	or @any
	or (` + role + ` = any(@org_roles) and (not coalesce(b.restricted, false) or ` + role + ` = any(@restricted_roles)))
)`

// arguments are those of from, visible and visibleDead for reading the kind: who the caller is, and
// what suffices.
func arguments(caller *authz.Principal, kind authz.Kind, more pgx.NamedArgs) pgx.NamedArgs {
	reads := func(kind authz.Kind, relation authz.Relation) authz.Permission {
		return authz.Permission{Object: authz.ObjectOf(kind, relation), Act: "read"}
	}
	args := pgx.NamedArgs{
		"own":              caller.Holds(reads(kind, authz.Own)),
		"any":              caller.Holds(reads(kind, authz.Any)),
		"org_roles":        caller.RolesFor(reads(kind, authz.Org)),
		"restricted_roles": caller.RolesFor(reads("note", authz.Restricted)),
		"accesses":         caller.AccessesFor(reads("note", authz.Org)),
	}
	args["user"], args["service_org"], args["service_role"] = who(caller)
	maps.Copy(args, more)
	return args
}

// who returns the caller for SQL: a user, or a service's organization and role there.
func who(caller *authz.Principal) (user, serviceOrg *uuid.UUID, serviceRole *string) {
	if caller.Kind == authz.KindService {
		return nil, &caller.Org, &caller.OrgRole
	}
	return &caller.ID, nil, nil
}
