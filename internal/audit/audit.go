package audit

import (
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/google/uuid"
)

// Action is what happened: one of Actions.
type Action string

// The actions. Each stands in Actions too.
const (
	SessionCreate  Action = "session.create"
	SessionEnd     Action = "session.end"
	AuthFail       Action = "auth.fail"
	IdentityLink   Action = "identity.link"
	IdentityUnlink Action = "identity.unlink"
	KeyCreate      Action = "key.create"
	KeyRotate      Action = "key.rotate"
	KeyRevoke      Action = "key.revoke"
	UserLock       Action = "user.lock"
	UserUnlock     Action = "user.unlock"
	NotePurge      Action = "note.purge"
	NoteReadAny    Action = "note.read_any"
	NoteWriteAny   Action = "note.write_any"
	NoteDeleteAny  Action = "note.delete_any"
	NoteRestoreAny Action = "note.restore_any"
	PolicyReload   Action = "policy.reload"
	OrgCreate      Action = "org.create"
	OrgChange      Action = "org.change"
	OrgDelete      Action = "org.delete"
	NotebookCreate Action = "notebook.create"
	NotebookChange Action = "notebook.change"
	NotebookDelete Action = "notebook.delete"
	MemberJoin     Action = "member.join"
	MemberChange   Action = "member.change"
	MemberRemove   Action = "member.remove"
	InvitationMake Action = "invitation.create"
	InvitationEnd  Action = "invitation.revoke"
	GrantSet       Action = "grant.set"
	GrantRemove    Action = "grant.remove"
)

// Actions are all there are, as the document and the record's filter know them.
var Actions = []Action{
	SessionCreate, SessionEnd, AuthFail, IdentityLink, IdentityUnlink, KeyCreate, KeyRotate, KeyRevoke, UserLock, UserUnlock,
	NotePurge, NoteReadAny, NoteWriteAny, NoteDeleteAny, NoteRestoreAny, PolicyReload, OrgCreate, OrgChange, OrgDelete,
	NotebookCreate, NotebookChange, NotebookDelete, MemberJoin, MemberChange, MemberRemove, InvitationMake, InvitationEnd,
	GrantSet, GrantRemove,
}

// Schema is huma.SchemaProvider's.
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

// Via is the credential by which somebody acted.
type Via struct {
	Kind string    `json:"kind" enum:"session,key"`
	ID   uuid.UUID `json:"id"`
}

// Event is one row. ID, time, address, request id and the actor's credential are filled in when it
// is recorded.
type Event struct {
	Actor   *Actor // nil: the server itself, or nobody known
	Action  Action
	Object  string    // what kind of thing: note, key, session, user
	Target  string    // which one: its id; for a list, what was listed
	Org     uuid.UUID // the organization whose thing it is; zero for none
	Failure bool
	Detail  string // for people; never a secret
}

// Renamed is the detail of giving something another name.
func Renamed(from, to string) string { return fmt.Sprintf("renamed from %q to %q", from, to) }

// Item is a recorded event, as GET /v1/admin/audit shows it, and an organization's record.
type Item struct {
	ID        uuid.UUID  `json:"id"`
	At        time.Time  `json:"at"`
	Actor     *Actor     `json:"actor"`
	Action    Action     `json:"action"`
	Object    string     `json:"object"`
	Target    string     `json:"target"`
	OrgID     *uuid.UUID `json:"org_id"`
	Outcome   string     `json:"outcome" enum:"success,failure"`
	IP        *string    `json:"ip" doc:"null in an organization's record for what platform staff did"`
	RequestID string     `json:"request_id"`
	Detail    string     `json:"detail"`
	Via       *Via       `json:"via" doc:"null for what the server did, for a sign-in itself, and for a failed authentication"`
}

// Filter selects events; zero members select all. With Org they are shown as to its members.
type Filter struct {
	Org    uuid.UUID
	Actor  uuid.UUID
	Via    uuid.UUID
	Action Action
	Since  time.Time
}
