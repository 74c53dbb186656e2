package notes

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/problem"
	"noted/internal/strictjson"
)

// Register declares the operations on notes.
func (s *Service) Register(api *authz.API, users *identity.Service) {
	s.confirm = users.Confirm
	tags := []string{"Notes"}
	authz.Register(api, huma.Operation{
		OperationID: "create-note", Method: http.MethodPost, Path: "/v1/notes", Summary: "Write a new note", Tags: tags,
		DefaultStatus: http.StatusCreated, MaxBodyBytes: MaxRequest + 1, BodyReadTimeout: time.Minute, Errors: []int{http.StatusNotFound},
	}, authz.Permission{Object: "note:own", Act: "write"}, s.create)
	authz.Register(api, huma.Operation{
		OperationID: "list-notes", Method: http.MethodGet, Path: "/v1/notes", Summary: "Your notes, the newest change first", Tags: tags,
		Description: "With scope=all everybody's, which needs `note:any read`.", Errors: []int{http.StatusNotFound},
	}, authz.Permission{Object: "note:own", Act: "read"}, s.listNotes)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-note", Method: http.MethodGet, Path: "/v1/notes/{id}", Summary: "Read a note", Tags: tags,
	}, "note", "read", s.findNote, s.get)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "change-note", Method: http.MethodPatch, Path: "/v1/notes/{id}", Summary: "Change a note", Tags: tags,
		MaxBodyBytes: MaxRequest + 1, BodyReadTimeout: time.Minute, Errors: []int{http.StatusPreconditionFailed},
	}, "note", "write", s.findNote, s.change)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "delete-note", Method: http.MethodDelete, Path: "/v1/notes/{id}", Summary: "Move a note into the Dead Zone", Tags: tags,
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusPreconditionFailed},
	}, "note", "delete", s.findNote, s.delete)

	tags = []string{"Dead Zone"}
	authz.RegisterKind(api, huma.Operation{
		OperationID: "list-dead-zone", Method: http.MethodGet, Path: "/v1/deadzone", Summary: "Deleted notes, the newest deletion first", Tags: tags,
	}, "deadzone", "read", s.listDeadZone)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-dead-note", Method: http.MethodGet, Path: "/v1/deadzone/{id}", Summary: "Read a deleted note", Tags: tags,
	}, "deadzone", "read", s.findDeadNote, s.getDead)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "restore-note", Method: http.MethodPost, Path: "/v1/deadzone/{id}/restore", Summary: "Restore a deleted note", Tags: tags,
	}, "deadzone", "restore", s.findDeadNote, s.restore)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "purge-note", Method: http.MethodDelete, Path: "/v1/deadzone/{id}", Summary: "Delete a note for good", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "deadzone", "purge", s.findDeadNote, s.purgeNote)
}

// noteOutput is a note with its ETag: its version in quotes.
type noteOutput struct {
	ETag string `header:"ETag"`
	Body Note
}

func output(note Note) *noteOutput {
	return &noteOutput{ETag: etag(note.Version), Body: note}
}

func etag(version int64) string { return fmt.Sprintf(`"%d"`, version) }

func (s *Service) findNote(ctx context.Context, caller *authz.Principal, id uuid.UUID) (Note, authz.Relation, error) {
	r, err := find(ctx, s.pool, caller.ID, id, "")
	return r.note.Note, r.relation, err
}

func (s *Service) findDeadNote(ctx context.Context, caller *authz.Principal, id uuid.UUID) (DeadNote, authz.Relation, error) {
	r, err := s.findDead(ctx, s.pool, caller.ID, id, "")
	return r.note, r.relation, err
}

type createInput struct{ Body NewNote }

// NewNote is what a note is made from.
type NewNote struct {
	Title      string                         `json:"title" minLength:"1" maxLength:"200"`
	Body       string                         `json:"body" doc:"At most 1,048,576 bytes of UTF-8"`
	OrgID      strictjson.Nullable[uuid.UUID] `json:"org_id,omitempty" doc:"Left out or null for a personal note"`
	NotebookID strictjson.Nullable[uuid.UUID] `json:"notebook_id,omitempty"`
}

type createOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     Note
}

func (s *Service) create(ctx context.Context, in *createInput) (*createOutput, error) {
	if err := checkBody(in.Body.Body); err != nil {
		return nil, err
	}
	if err := checkPlace(in.Body.OrgID, in.Body.NotebookID); err != nil {
		return nil, err
	}
	var note Note
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if err := s.confirm(ctx, tx); err != nil {
			return err
		}
		note, err = insert(ctx, tx, authz.From(ctx).ID, in.Body.Title, in.Body.Body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &createOutput{Location: "/v1/notes/" + note.ID.String(), ETag: etag(note.Version), Body: note}, nil
}

// checkPlace answers for an organization and a notebook that a request names. There are no
// organizations in this version, so whichever is named is one that the caller may not read.
func checkPlace(org, notebook strictjson.Nullable[uuid.UUID]) error {
	switch {
	case org.Sent && !org.Null:
		return problem.NotFound("organization")
	case notebook.Sent && !notebook.Null:
		return problem.Invalid("body.notebook_id", "needs org_id beside it")
	}
	return nil
}

func checkBody(body string) error {
	if len(body) > MaxBody {
		return problem.Invalid("body.body", "is %d bytes long; at most %d", len(body), MaxBody)
	}
	return nil
}

type listInput struct {
	page.Query
	Scope      string `query:"scope" enum:"all" doc:"all: everybody's notes"`
	OrgID      string `query:"org_id" format:"uuid" pattern:"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"`
	NotebookID string `query:"notebook_id" format:"uuid" pattern:"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"`
}

type listOutput struct{ Body page.Of[Summary] }

func (s *Service) listNotes(ctx context.Context, in *listInput) (*listOutput, error) {
	caller, everybody := authz.From(ctx), in.Scope == "all"
	if everybody {
		if err := caller.Check(authz.Permission{Object: "note:any", Act: "read"}); err != nil {
			return nil, err
		}
	}
	switch { // see checkPlace
	case in.OrgID != "":
		return nil, problem.NotFound("organization")
	case in.NotebookID != "":
		return nil, problem.NotFound("notebook")
	}
	name := "notes " + in.Scope
	after, err := in.After(name)
	if err != nil {
		return nil, err
	}
	rows, err := s.list(ctx, caller.ID, everybody, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	shown := page.Make(rows, in.Limit, name, func(r row) page.Position { return page.Position{At: r.note.UpdatedAt, ID: r.note.ID} })
	if err := s.recordList(ctx, caller, "note", shown.Items); err != nil {
		return nil, err
	}
	return &listOutput{page.Map(shown, func(r row) Summary { return r.note.Summary })}, nil
}

// recordList leaves one audit row when a list showed somebody else's notes, with their count.
func (s *Service) recordList(ctx context.Context, caller *authz.Principal, object string, shown []row) error {
	foreign := 0
	for _, r := range shown {
		if r.relation == authz.Any {
			foreign++
		}
	}
	if foreign == 0 {
		return nil
	}
	return audit.Record(ctx, s.pool, audit.Event{
		Actor: identity.ActorOf(caller), Action: audit.NoteReadAny, Object: object, Target: "personal notes",
		Detail: fmt.Sprintf("a list showed %d", foreign),
	})
}

// recordAny leaves an audit row when nothing but a platform-wide permission allowed the act.
func recordAny(ctx context.Context, db audit.Execer, by authz.Relation, action audit.Action, object string, id uuid.UUID) error {
	if by != authz.Any {
		return nil
	}
	return audit.Record(ctx, db, audit.Event{
		Actor: identity.ActorOf(authz.From(ctx)), Action: action, Object: object, Target: id.String(),
	})
}

func (s *Service) get(ctx context.Context, _ *authz.PathID, found authz.Found[Note]) (*noteOutput, error) {
	if err := recordAny(ctx, s.pool, found.By, audit.NoteReadAny, "note", found.Thing.ID); err != nil {
		return nil, err
	}
	return output(found.Thing), nil
}

type changeInput struct {
	authz.PathID
	IfMatch string `header:"If-Match" doc:"The ETag that the change is based on"`
	Body    NoteChange
}

// NoteChange is what may change of a note; what is left out stays.
type NoteChange struct {
	Title      strictjson.Optional[string]    `json:"title,omitempty" minLength:"1" maxLength:"200"`
	Body       strictjson.Optional[string]    `json:"body,omitempty" doc:"At most 1,048,576 bytes of UTF-8"`
	NotebookID strictjson.Nullable[uuid.UUID] `json:"notebook_id,omitempty" doc:"null takes it out of its notebook"`
}

func (s *Service) change(ctx context.Context, in *changeInput, found authz.Found[Note]) (*noteOutput, error) {
	if err := checkBody(in.Body.Body.Value); err != nil {
		return nil, err
	}
	if in.Body.NotebookID.Sent && !in.Body.NotebookID.Null { // see checkPlace
		return nil, problem.NotFound("notebook")
	}
	var changed Note
	err := s.write(ctx, found.Thing.ID, "write", in.IfMatch, func(tx pgx.Tx, r row, by authz.Relation) error {
		changed = r.note.Note
		if !in.Body.Title.Sent && !in.Body.Body.Sent {
			return nil
		}
		if err := update(ctx, tx, r.note.ID, sent(in.Body.Title), sent(in.Body.Body)); err != nil {
			return err
		}
		if err := recordAny(ctx, tx, by, audit.NoteWriteAny, "note", r.note.ID); err != nil {
			return err
		}
		again, err := find(ctx, tx, authz.From(ctx).ID, r.note.ID, "")
		changed = again.note.Note
		return err
	})
	if err != nil {
		return nil, err
	}
	return output(changed), nil
}

func sent(o strictjson.Optional[string]) *string {
	if !o.Sent {
		return nil
	}
	return &o.Value
}

type deleteInput struct {
	authz.PathID
	IfMatch string `header:"If-Match" doc:"The ETag of the note to delete"`
}

func (s *Service) delete(ctx context.Context, in *deleteInput, found authz.Found[Note]) (*struct{}, error) {
	return nil, s.write(ctx, found.Thing.ID, "delete", in.IfMatch, func(tx pgx.Tx, r row, by authz.Relation) error {
		if err := bury(ctx, tx, r.note.ID, authz.From(ctx).ID); err != nil {
			return err
		}
		return recordAny(ctx, tx, by, audit.NoteDeleteAny, "note", r.note.ID)
	})
}

// write locks a live note, decides once more on what it has locked, compares If-Match, and
// does the deed, in one transaction.
func (s *Service) write(ctx context.Context, id uuid.UUID, act authz.Act, ifMatch string, do func(pgx.Tx, row, authz.Relation) error) error {
	caller := authz.From(ctx)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.confirm(ctx, tx); err != nil {
			return err
		}
		r, err := find(ctx, tx, caller.ID, id, "for update of n")
		if err != nil {
			return err
		}
		by, err := caller.Decide("note", act, r.relation)
		if err != nil {
			return err
		}
		if err := checkMatch(ifMatch, r.note.Version); err != nil {
			return err
		}
		return do(tx, r, by)
	})
}

// checkMatch compares If-Match with a version (RFC 9110, 13.1.1): empty and * always match,
// a weak tag never does.
func checkMatch(header string, version int64) error {
	if header == "" || strings.TrimSpace(header) == "*" {
		return nil
	}
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == etag(version) {
			return nil
		}
		if _, err := strconv.Unquote(strings.TrimPrefix(tag, "W/")); err != nil || !strings.HasSuffix(tag, `"`) {
			return problem.Invalid("header.If-Match", `must be an ETag in its quotes, such as "1"`)
		}
	}
	return errStale
}

type deadListOutput struct{ Body page.Of[DeadSummary] }

func (s *Service) listDeadZone(ctx context.Context, in *struct{ page.Query }) (*deadListOutput, error) {
	caller := authz.From(ctx)
	everybody := caller.Holds(authz.Permission{Object: "deadzone:any", Act: "read"})
	name := fmt.Sprintf("deadzone %t", everybody)
	after, err := in.After(name)
	if err != nil {
		return nil, err
	}
	rows, err := s.listDead(ctx, caller.ID, everybody, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	shown := page.Make(rows, in.Limit, name, func(r row) page.Position { return page.Position{At: r.note.DeletedAt, ID: r.note.ID} })
	if err := s.recordList(ctx, caller, "deadzone", shown.Items); err != nil {
		return nil, err
	}
	return &deadListOutput{page.Map(shown, func(r row) DeadSummary { return DeadSummary{r.note.Summary, r.note.Death} })}, nil
}

type deadOutput struct{ Body DeadNote }

func (s *Service) getDead(ctx context.Context, _ *authz.PathID, found authz.Found[DeadNote]) (*deadOutput, error) {
	if err := recordAny(ctx, s.pool, found.By, audit.NoteReadAny, "deadzone", found.Thing.ID); err != nil {
		return nil, err
	}
	return &deadOutput{found.Thing}, nil
}

func (s *Service) restore(ctx context.Context, _ *authz.PathID, found authz.Found[DeadNote]) (*noteOutput, error) {
	var restored Note
	err := s.writeDead(ctx, found.Thing.ID, "restore", func(tx pgx.Tx, r row, by authz.Relation) error {
		restored = r.note.Note
		if err := unbury(ctx, tx, r.note.ID); err != nil {
			return err
		}
		return recordAny(ctx, tx, by, audit.NoteRestoreAny, "deadzone", r.note.ID)
	})
	if err != nil {
		return nil, err
	}
	return output(restored), nil
}

func (s *Service) purgeNote(ctx context.Context, _ *authz.PathID, found authz.Found[DeadNote]) (*struct{}, error) {
	return nil, s.writeDead(ctx, found.Thing.ID, "purge", func(tx pgx.Tx, r row, _ authz.Relation) error {
		if err := destroy(ctx, tx, r.note.ID); err != nil {
			return err
		}
		// A permanent deletion is recorded whoever's note it was.
		return audit.Record(ctx, tx, audit.Event{
			Actor: identity.ActorOf(authz.From(ctx)), Action: audit.NotePurge, Object: "deadzone", Target: r.note.ID.String(),
		})
	})
}

// writeDead is write for the Dead Zone.
func (s *Service) writeDead(ctx context.Context, id uuid.UUID, act authz.Act, do func(pgx.Tx, row, authz.Relation) error) error {
	caller := authz.From(ctx)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.confirm(ctx, tx); err != nil {
			return err
		}
		r, err := s.findDead(ctx, tx, caller.ID, id, "for update of n")
		if err != nil {
			return err
		}
		by, err := caller.Decide("deadzone", act, r.relation)
		if err != nil {
			return err
		}
		return do(tx, r, by)
	})
}
