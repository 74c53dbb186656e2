package notes

import (
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
)

// from is every statement's way from a note to its owner, its notebook and the caller's standing:
//
//   - m is the caller's membership in the note's organization: at most one row, by its primary key,
//     and none for a personal note, whose org_id equals nothing.
//   - g is the caller's widest grant on the note or on the notebook it is in. 'write' sorts behind
//     'read', so max is the wider. Grants belong to members (a foreign key), so an outsider has none,
//     and a note that leaves its notebook leaves the notebook's grants.
//   - a service's role stands in its key: it counts in the key's organization alone. A service is no
//     user, so @user is null and equals nothing: no membership, no grant, nothing of its own.
const from = `
	from notes n
	left join people o on o.user_id = n.owner_id
	left join keys k on k.id = n.owner_key
	left join notebooks b on b.org_id = n.org_id and b.id = n.notebook_id
	left join members m on m.org_id = n.org_id and m.user_id = @user
	left join lateral (
		select max(access) as access from grants
		where user_id = @user and (note_id = n.id or notebook_id = n.notebook_id)
	) g on true`

// role is the caller's role in the note's organization; null outside.
const role = `coalesce(m.role, case when n.org_id = @service_org then @service_role end)`

// standing are the columns of authz.Standing.
const standing = `coalesce(n.org_id is null and n.owner_id = @user, false), n.org_id,
	coalesce(` + role + `, ''), coalesce(g.access, ''), coalesce(b.restricted, false)`

// visible is authz.Principal.DecideOn for reading, inside a statement, so that a page is never
// filtered after it was fetched. Each line is one way to a note:
//
//   - one's own personal note, by note:own;
//   - any note of the platform, by note:any;
//   - a note of an organization by one's role there: outside restricted notebooks by note:org, in
//     them by note:restricted, never by the other;
//   - by a grant, restricted or not, by what the grant's role holds on note:org.
//
// What the policy gives stands in the arguments alone, as the roles and accesses that suffice; a
// role that is null or empty is in no array. A null makes its line false, never true.
const visible = `(
	(n.org_id is null and n.owner_id = @user and @own)
	or @any
	or (n.org_id is not null and not coalesce(b.restricted, false) and ` + role + ` = any(@org_roles))
	or (n.org_id is not null and coalesce(b.restricted, false) and ` + role + ` = any(@restricted_roles))
	or (n.org_id is not null and g.access = any(@accesses))
)`

// arguments are those of from and visible: who the caller is, and what suffices for act.
func arguments(caller *authz.Principal, act authz.Act, more pgx.NamedArgs) pgx.NamedArgs {
	args := pgx.NamedArgs{
		"own":              caller.Holds(authz.Permission{Object: "note:own", Act: act}),
		"any":              caller.Holds(authz.Permission{Object: "note:any", Act: act}),
		"org_roles":        caller.RolesFor(authz.Permission{Object: "note:org", Act: act}),
		"restricted_roles": caller.RolesFor(authz.Permission{Object: "note:restricted", Act: act}),
		"accesses":         caller.AccessesFor(authz.Permission{Object: "note:org", Act: act}),
	}
	args["user"], args["service_org"], args["service_role"] = who(caller)
	for name, value := range more {
		args[name] = value
	}
	return args
}

// who is the caller to the database: a user, or a service with its organization and role there.
func who(caller *authz.Principal) (user, serviceOrg *uuid.UUID, serviceRole *string) {
	if caller.Kind == "service" {
		return nil, &caller.Org, &caller.OrgRole
	}
	return &caller.ID, nil, nil
}
