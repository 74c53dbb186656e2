package audit

import (
	"time"

	"github.com/google/uuid"
)

// Action is what happened.
type Action string

// The actions.
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
	OrgDelete      Action = "org.delete"
	MemberJoin     Action = "member.join"
	MemberChange   Action = "member.change"
	MemberRemove   Action = "member.remove"
	InvitationMake Action = "invitation.create"
	InvitationEnd  Action = "invitation.revoke"
	GrantSet       Action = "grant.set"
	GrantRemove    Action = "grant.remove"
)

// Actor is who did it.
type Actor struct {
	ID   uuid.UUID `json:"id"`
	Kind string    `json:"kind" enum:"user,service"`
	Name string    `json:"name"`
}

// Event is one row. ID, time, address and request id are filled in when it is recorded.
type Event struct {
	Actor   *Actor // nil: the server itself, or nobody known
	Action  Action
	Object  string    // what kind of thing: note, key, session, user
	Target  string    // which one: its id; for a list, what was listed
	Org     uuid.UUID // the organization whose thing it is; zero for none
	Failure bool
	Detail  string // for people; never a secret
}

// Item is a recorded event, as GET /v1/admin/audit shows it.
type Item struct {
	ID        uuid.UUID  `json:"id"`
	At        time.Time  `json:"at"`
	Actor     *Actor     `json:"actor"`
	Action    string     `json:"action"`
	Object    string     `json:"object"`
	Target    string     `json:"target"`
	OrgID     *uuid.UUID `json:"org_id"`
	Outcome   string     `json:"outcome" enum:"success,failure"`
	IP        *string    `json:"ip"`
	RequestID string     `json:"request_id"`
	Detail    string     `json:"detail"`
}

// Filter selects events; zero members select all.
type Filter struct {
	Org    uuid.UUID
	Actor  uuid.UUID
	Action string
	Since  time.Time
}
