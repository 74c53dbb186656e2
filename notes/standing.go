package notes

import (
	"maps"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
)

// from leads every statement from a note to its owner, its notebook and the caller's standing to
// it. Why it is right:
//
//   - m is the caller's membership in the note's organization: one row at most, by its primary key,
//     and none for a personal note, whose org_id is null and equals nothing.
//   - g is the caller's widest grant on the note, or on the notebook it is in now: 'write' sorts
//     behind 'read', so max is the wider. Grants belong to members (a foreign key), so an outsider
//     has none; a note that leaves its notebook leaves that notebook's grants behind.
//   - b is the notebook it is in now, of the note's own organization (a foreign key says so).
//   - Of notebooks and grants each looks into the note's space alone.
//   - A service's role stands in its key and counts in the key's organization alone. A service is no
//     user: @user is null then and equals nothing, so it has no membership, no grant, nothing of
//     its own. A user has no service organization: @service_org is null then.
//
// None of the joins can leave a note out (all are left joins) or show it twice (each finds one row
// at most), so a note is there exactly when the condition says so.
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

// role is the caller's role in the note's organization; null outside.
const role = `coalesce(m.role, case when n.org_id = @service_org then @service_role end)`

// standing are the columns of authz.Standing, for which what is an organization's is nobody's own.
const standing = `(n.owner_id = @user) is true as own,
	coalesce(` + role + `, '') as role, coalesce(g.access, '') as access, coalesce(b.restricted, false) as restricted`

// visible is authz.Principal.DecideOn for reading an organization's notes, inside a statement, so
// that a page is never filtered after it was fetched. Each line is one way to a note:
//
//   - any note, by note:any;
//   - by one's role there: outside restricted notebooks by note:org, in them by note:restricted,
//     never by the other;
//   - by a grant, restricted or not, by what the grant's role holds on note:org.
//
// What the policy gives stands in the arguments alone, as the roles and accesses that suffice. A
// role or access that is null is in no array: a null makes its line null, which is not true.
const visible = `(
	@any
	or (not coalesce(b.restricted, false) and ` + role + ` = any(@org_roles))
	or (b.restricted and ` + role + ` = any(@restricted_roles))
	or g.access = any(@accesses)
)`

// visibleDead is the same for the Dead Zone, and for personal notes too: grants reach nothing there, and what was in a
// restricted notebook is there only for whose role also reads such notes alive.
const visibleDead = `(
	(n.space_id = @user and @own)
	or @any
	or (` + role + ` = any(@org_roles) and (not coalesce(b.restricted, false) or ` + role + ` = any(@restricted_roles)))
)`

// arguments are those of from, visible and visibleDead for reading things of the kind: who the
// caller is, and what suffices.
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

// who is the caller to the database: a user, or a service with its organization and role there.
func who(caller *authz.Principal) (user, serviceOrg *uuid.UUID, serviceRole *string) {
	if caller.Kind == authz.KindService {
		return nil, &caller.Org, &caller.OrgRole
	}
	return &caller.ID, nil, nil
}
