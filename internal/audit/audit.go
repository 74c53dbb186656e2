package audit

import (
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/google/uuid"
)

// Action is what happened: one of Actions.
type Action string

// Actions are all actions, in the order of the list below. The document and the record's filter use them.
var Actions []Action

// The actions.
var (
	SessionCreate  = action("session.create")
	SessionEnd     = action("session.end")
	AuthFail       = action("auth.fail")
	IdentityLink   = action("identity.link")
	IdentityUnlink = action("identity.unlink")
	KeyCreate      = action("key.create")
	KeyRotate      = action("key.rotate")
	KeyRevoke      = action("key.revoke")
	UserLock       = action("user.lock")
	UserUnlock     = action("user.unlock")
	NotePurge      = action("note.purge")
	NoteReadAny    = action("note.read_any")
	NoteWriteAny   = action("note.write_any")
	NoteDeleteAny  = action("note.delete_any")
	NoteRestoreAny = action("note.restore_any")
	PolicyReload   = action("policy.reload")
	OrgCreate      = action("org.create")
	OrgChange      = action("org.change")
	OrgDelete      = action("org.delete")
	NotebookCreate = action("notebook.create")
	NotebookChange = action("notebook.change")
	NotebookDelete = action("notebook.delete")
	MemberJoin     = action("member.join")
	MemberChange   = action("member.change")
	MemberRemove   = action("member.remove")
	InvitationMake = action("invitation.create")
	InvitationEnd  = action("invitation.revoke")
	GrantSet       = action("grant.set")
	GrantRemove    = action("grant.remove")
)

// action adds one to Actions.
func action(name string) Action {
	Actions = append(Actions, Action(name))
	return Action(name)
}

// Schema implements huma.SchemaProvider.
func (Action) Schema(huma.Registry) *huma.Schema {
	schema := &huma.Schema{Type: huma.TypeString}
	for _, one := range Actions {
		schema.Enum = append(schema.Enum, string(one))
	}
	return schema
}

// Actor is who did it.
type Actor struct {
	ID   uuid.UUID `json:"id"`
	Kind string    `json:"kind" enum:"user,service"`
	Name string    `json:"name"`
}

// Via is the credential that somebody used.
type Via struct {
	Kind string    `json:"kind" enum:"session,key"`
	ID   uuid.UUID `json:"id"`
}

// Event is one row. Recording it fills in the id, time, address, request id and the actor's credential.
type Event struct {
	Actor   *Actor // nil: the server itself, or unknown
	Action  Action
	Object  string    // what kind of thing: note, key, session, user
	Target  string    // which one: its id; for a list, what it lists
	Org     uuid.UUID // the organization that owns it; zero for none
	Failure bool
	Detail  string // for people; never a secret
}

// Renamed is the detail of a renaming.
func Renamed(from, to string) string { return fmt.Sprintf("renamed from %q to %q", from, to) }

// Item is a recorded event, as GET /v1/admin/audit and an organization's record show it.
type Item struct {
	ID        uuid.UUID  `json:"id"`
	At        time.Time  `json:"at"`
	Actor     *Actor     `json:"actor" db:"-"`
	Action    Action     `json:"action"`
	Object    string     `json:"object"`
	Target    string     `json:"target"`
	OrgID     *uuid.UUID `json:"org_id"`
	Outcome   string     `json:"outcome" enum:"success,failure"`
	IP        *string    `json:"ip" doc:"null in an organization's record for what platform staff did"`
	RequestID string     `json:"request_id"`
	Detail    string     `json:"detail"`
	Via       *Via       `json:"via" db:"-" doc:"null for what the server did, for a sign-in itself, and for a failed authentication"`
}

// Filter selects events; zero members select all. With Org, events look as they do to its members.
type Filter struct {
	Org    uuid.UUID
	Actor  uuid.UUID
	Via    uuid.UUID
	Action Action
	Since  time.Time
}
