package notes

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/name"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/problem"
	"noted/internal/strictjson"
	"noted/internal/uid"
)

// Register declares the operations on notes.
func (s *Service) Register(api *authz.API) {
	tags := []string{"Notes"}
	authz.RegisterKind(api, huma.Operation{
		OperationID: "create-note", Method: http.MethodPost, Path: "/v1/notes", Summary: "Write a new note", Tags: tags,
		DefaultStatus: http.StatusCreated, MaxBodyBytes: MaxRequest, Errors: []int{http.StatusNotFound},
	}, "note", "write", s.create, authz.Own, authz.Org, authz.Restricted)
	authz.RegisterKind(api, huma.Operation{
		OperationID: "list-notes", Method: http.MethodGet, Path: "/v1/notes", Summary: "Notes, the newest change first", Tags: tags,
		Description: "Your personal ones; with org_id or notebook_id those that you may read there; with scope=all everybody's, which needs `note:any read`. A service sees those of its organization.",
		Errors:      []int{http.StatusNotFound},
	}, "note", "read", s.listNotes)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-note", Method: http.MethodGet, Path: "/v1/notes/{id}", Summary: "Read a note", Tags: tags,
	}, "note", "read", s.findNote(withBody), s.get)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "change-note", Method: http.MethodPatch, Path: "/v1/notes/{id}", Summary: "Change a note", Tags: tags,
		MaxBodyBytes: MaxRequest, Errors: []int{http.StatusPreconditionFailed},
	}, "note", "write", s.findNote(withoutBody), s.change)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "delete-note", Method: http.MethodDelete, Path: "/v1/notes/{id}", Summary: "Move a note into the Dead Zone", Tags: tags,
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusPreconditionFailed},
	}, "note", "delete", s.findNote(withoutBody), s.delete)

	tags = []string{"Dead Zone"}
	authz.RegisterKind(api, huma.Operation{
		OperationID: "list-dead-zone", Method: http.MethodGet, Path: "/v1/deadzone", Summary: "Deleted notes, the newest deletion first", Tags: tags,
	}, "deadzone", "read", s.listDeadZone)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "get-dead-note", Method: http.MethodGet, Path: "/v1/deadzone/{id}", Summary: "Read a deleted note", Tags: tags,
	}, "deadzone", "read", s.findDeadNote(withBody), s.getDead)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "restore-note", Method: http.MethodPost, Path: "/v1/deadzone/{id}/restore", Summary: "Restore a deleted note", Tags: tags,
		Description: "409 for a note of a deleted organization.", Errors: []int{http.StatusConflict},
	}, "deadzone", "restore", s.findDeadNote(withoutBody), s.restore)
	authz.RegisterOn(api, huma.Operation{
		OperationID: "purge-note", Method: http.MethodDelete, Path: "/v1/deadzone/{id}", Summary: "Delete a note for good", Tags: tags,
		DefaultStatus: http.StatusNoContent,
	}, "deadzone", "purge", s.findDeadNote(withoutBody), s.purgeOne)
	s.registerNotebooks(api)
	s.registerGrants(api, onNotebook)
	s.registerGrants(api, onNote)
	s.registerAccess(api, onNotebook)
	s.registerAccess(api, onNote)
}

// noteOutput is a note with its ETag: its version in quotes.
type noteOutput struct {
	ETag string `header:"ETag"`
	Body Note
}

// readOutput is a noteOutput, or a 304 with no note.
type readOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   Note
}

func output(note DeadNote) *noteOutput {
	return &noteOutput{ETag: etag(note.Version), Body: note.Note}
}

func etag(version int64) string { return fmt.Sprintf(`"%d"`, version) }

// findNote finds a live note, or part of it, with the caller's standing.
func (s *Service) findNote(what part) authz.Find[row] {
	return func(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (row, error), error) {
		r, err := find(ctx, s.pool, caller, spaceOf(caller), at.ID, what)
		return r.standing(), func(context.Context) (row, error) { return r, nil }, err
	}
}

// findDeadNote is findNote for the Dead Zone.
func (s *Service) findDeadNote(what part) authz.Find[row] {
	return func(ctx context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (row, error), error) {
		if err := s.checkDeadZone(ctx, caller, "read"); err != nil {
			return authz.Standing{}, nil, err
		}
		r, err := s.findDead(ctx, s.pool, caller, spaceOf(caller), at.ID, what)
		return r.standing(), func(context.Context) (row, error) { return r, nil }, err
	}
}

// checkDeadZone refuses the whole area to a user who reaches nothing in it: not their own notes, not
// everybody's, and no organization's by a role there.
func (s *Service) checkDeadZone(ctx context.Context, caller *authz.Principal, act authz.Act) error {
	own, all := authz.Permission{Object: "deadzone:own", Act: act}, authz.Permission{Object: "deadzone:any", Act: act}
	if caller.Kind == authz.KindService || caller.Holds(own) || caller.Holds(all) {
		return nil
	}
	var somewhere bool
	err := s.pool.QueryRow(ctx, `select exists (select from memberships where user_id = $1 and role = any($2))`,
		caller.ID, caller.RolesFor(authz.Permission{Object: "deadzone:org", Act: act})).Scan(&somewhere)
	if err != nil || somewhere {
		return err
	}
	return caller.Check(own)
}

type createInput struct{ Body NewNote }

// NewNote is a request for a note.
type NewNote struct {
	Title      name.Name                   `json:"title" maxLength:"200" example:"Shopping"`
	Body       string                      `json:"body" maxLength:"1048576" example:"Milk and bread" doc:"At most 1,048,576 bytes of UTF-8"`
	OrgID      strictjson.Nullable[uid.ID] `json:"org_id,omitempty" doc:"Left out or null for a personal note"`
	NotebookID strictjson.Nullable[uid.ID] `json:"notebook_id,omitempty"`
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
	org, notebook := in.Body.OrgID.Value.UUID, in.Body.NotebookID.Value.UUID
	var note Note
	var err error
	switch {
	case in.Body.OrgID.Value.NamesNothing():
		return nil, authz.NotFound("org")
	case in.Body.NotebookID.Value.NamesNothing():
		return nil, authz.NotFound("notebook")
	case org == uuid.Nil && notebook != uuid.Nil:
		return nil, problem.Invalid("body.notebook_id", "needs org_id beside it")
	case org == uuid.Nil:
		err = s.createOwn(ctx, in.Body, &note)
	default:
		err = s.orgs.Write(ctx, org, func(ctx context.Context, tx pgx.Tx, standing authz.Standing) error {
			caller := authz.From(ctx)
			if err := s.checkPlace(ctx, tx, caller, standing, notebook); err != nil {
				return err
			}
			var err error
			note, err = insert(ctx, tx, caller, string(in.Body.Title), in.Body.Body, org, notebook)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return &createOutput{Location: "/v1/notes/" + note.ID.String(), ETag: etag(note.Version), Body: note}, nil
}

func (s *Service) createOwn(ctx context.Context, in NewNote, note *Note) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		ctx, err := s.users.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		caller := authz.From(ctx)
		if err := caller.Require("note", "write", authz.Mine); err != nil {
			return err
		}
		*note, err = insert(ctx, tx, caller, string(in.Title), in.Body, uuid.Nil, uuid.Nil)
		return err
	})
}

// checkPlace decides whether the caller may put a note into an organization: into a notebook, or outside
// all of them if notebook is zero. It returns a 404 for what they may not read.
func (s *Service) checkPlace(ctx context.Context, db pg.Querier, caller *authz.Principal, standing authz.Standing, notebook uuid.UUID) error {
	if _, err := caller.DecideOn("org", "read", standing); err != nil {
		return err
	}
	if notebook == uuid.Nil {
		return caller.Require("note", "write", standing)
	}
	_, in, err := findNotebook(ctx, db, caller, standing.Org, notebook)
	if err != nil {
		return err
	}
	if _, err := caller.DecideOn("notebook", "read", in); err != nil {
		return err
	}
	return caller.Require("note", "write", in)
}

func checkBody(body string) error {
	if len(body) > MaxBody {
		return problem.Invalid("body.body", "is %d bytes long; at most %d", len(body), MaxBody)
	}
	return nil
}

type listInput struct {
	page.Query
	Scope      string `query:"scope" enum:"all" example:"all" doc:"all: everybody's notes"`
	OrgID      uid.ID `query:"org_id"`
	NotebookID uid.ID `query:"notebook_id"`
}

type listOutput struct{ Body page.Of[Summary] }

func (s *Service) listNotes(ctx context.Context, in *listInput) (*listOutput, error) {
	caller := authz.From(ctx)
	w, err := s.which(ctx, caller, in)
	if err != nil {
		return nil, err
	}
	shown, err := page.List(in.Query, fmt.Sprintf("notes %t %s %s", w.everybody, w.org, w.notebook), func(part page.Window) ([]row, error) {
		return s.list(ctx, caller, w, part)
	}, func(r row) page.Position { return page.Position{At: r.UpdatedAt, ID: r.ID} })
	if err != nil {
		return nil, err
	}
	if err := s.recordList(ctx, caller, "note", shown.Items); err != nil {
		return nil, err
	}
	return &listOutput{page.Map(shown, func(r row) Summary { return r.Summary })}, nil
}

// which reads a list's query and decides on what it asks.
func (s *Service) which(ctx context.Context, caller *authz.Principal, in *listInput) (w which, err error) {
	w.everybody = in.Scope == "all"
	if w.everybody {
		if err := caller.Check(authz.Permission{Object: "note:any", Act: "read"}); err != nil {
			return w, err
		}
	}
	switch {
	case in.OrgID.NamesNothing():
		return w, authz.NotFound("org")
	case in.NotebookID.NamesNothing():
		return w, authz.NotFound("notebook")
	}
	w.org, w.notebook = in.OrgID.UUID, in.NotebookID.UUID
	if caller.Kind == authz.KindService && w.org == uuid.Nil && !w.everybody {
		w.org = caller.Org
	}
	if w.org != uuid.Nil {
		standing, err := s.orgs.Standing(ctx, caller, authz.Place{Org: w.org})
		if err != nil {
			return w, err
		}
		if _, err := caller.DecideOn("org", "read", standing); err != nil {
			return w, err
		}
		if err := caller.DecideAll("note", "read", standing); err != nil {
			return w, err
		}
	}
	if w.notebook != uuid.Nil {
		notebook, standing, err := findNotebook(ctx, s.pool, caller, w.org, w.notebook)
		if err != nil {
			return w, err
		}
		w.org = notebook.OrgID
		_, err = caller.DecideOn("notebook", "read", standing)
		return w, err
	}
	if w.org == uuid.Nil && !w.everybody {
		return w, caller.Check(authz.Permission{Object: "note:own", Act: "read"})
	}
	return w, nil
}

// recordList records what a list showed by a platform-wide permission alone: one audit row for each
// organization and one for personal notes, with their counts.
func (s *Service) recordList(ctx context.Context, caller *authz.Principal, object authz.Kind, shown []row) error {
	counts := map[uuid.UUID]int{}
	for _, r := range shown {
		if by, err := caller.DecideOn(object, "read", r.standing()); err == nil && by == authz.Any {
			counts[r.standing().Org]++
		}
	}
	var events []audit.Event
	for org, count := range counts {
		target := "personal notes"
		if org != uuid.Nil {
			target = "notes of the organization"
		}
		events = append(events, audit.Event{
			Actor: identity.ActorOf(caller), Action: audit.NoteReadAny, Object: string(object), Target: target, Org: org,
			Detail: fmt.Sprintf("a list showed %d", count),
		})
	}
	return audit.Record(ctx, s.pool, events...)
}

// reveal is the only way for an existing note into an answer. If only a platform-wide permission allowed
// the act (by) or the reading, it leaves an audit row: did for the act, else a read. Callers who may
// change a note but not read it do not see its text. r was found with its body, in the transaction that
// changed it, if any.
func reveal(ctx context.Context, db audit.Execer, kind authz.Kind, r row, did audit.Action, by authz.Relation) (DeadNote, error) {
	read, refused := authz.From(ctx).DecideOn(kind, "read", r.standing())
	switch {
	case refused != nil:
		r.Title, r.Note.Body = "", ""
	case r.Body == nil:
		return DeadNote{}, fmt.Errorf("the database does not show note %s, which may be read: %v", r.ID, r.standing())
	}
	if by != authz.Any {
		did, by = audit.NoteReadAny, read
	}
	return r.DeadNote, recordAny(ctx, db, by, did, kind, r.Summary)
}

// recordAny records the act if a platform-wide permission alone allowed it.
func recordAny(ctx context.Context, db audit.Execer, by authz.Relation, action audit.Action, kind authz.Kind, note Summary) error {
	if by != authz.Any {
		return nil
	}
	return audit.Record(ctx, db, audit.Event{
		Actor: identity.ActorOf(authz.From(ctx)), Action: action, Object: string(kind), Target: note.ID.String(), Org: orNil(note.OrgID),
	})
}

func (s *Service) get(ctx context.Context, in *noneMatch, found authz.Found[row]) (*readOutput, error) {
	note, err := reveal(ctx, s.pool, "note", found.Thing, audit.NoteReadAny, found.By)
	out := &readOutput{http.StatusOK, etag(note.Version), note.Note}
	if in.has(note.Version) {
		out.Status = http.StatusNotModified
	}
	return out, err
}

// match is If-Match (RFC 9110, 13.1.1).
type match struct {
	IfMatch string `header:"If-Match" example:"\"1\"" doc:"The ETag that the act is based on"`
	sent    bool   // if sent, an empty header matches no version
}

// Resolve reads the whole header: it may come in several lines, or empty.
func (m *match) Resolve(ctx huma.Context) []error {
	m.IfMatch, m.sent = headerOf(ctx, "If-Match")
	return nil
}

// headerOf joins the lines of a list header.
func headerOf(ctx huma.Context, name string) (line string, sent bool) {
	var lines []string
	ctx.EachHeader(func(called, value string) {
		if called == name {
			lines = append(lines, value)
		}
	})
	return strings.Join(lines, ","), lines != nil
}

type changeInput struct {
	match
	Body NoteChange
}

// NoteChange is a change to a note. Omitted members stay.
type NoteChange struct {
	Title      strictjson.Optional[name.Name] `json:"title,omitempty" maxLength:"200" example:"Shopping"`
	Body       strictjson.Optional[string]    `json:"body,omitempty" maxLength:"1048576" example:"Milk, bread and butter" doc:"At most 1,048,576 bytes of UTF-8"`
	NotebookID strictjson.Nullable[uid.ID]    `json:"notebook_id,omitempty" doc:"null takes it out of its notebook"`
}

func (s *Service) change(ctx context.Context, in *changeInput, found authz.Found[row]) (*noteOutput, error) {
	if err := checkBody(in.Body.Body.Value); err != nil {
		return nil, err
	}
	var changed DeadNote
	err := s.write(ctx, found, in.match, func(ctx context.Context, tx pgx.Tx, r row, by authz.Relation) error {
		caller, notebook := authz.From(ctx), r.NotebookID
		if in.Body.NotebookID.Value.NamesNothing() {
			return authz.NotFound("notebook")
		}
		did := audit.NoteWriteAny
		if to := in.Body.NotebookID.Value.UUID; in.Body.NotebookID.Sent && to != orNil(notebook) {
			if err := s.checkMove(ctx, tx, caller, r, to); err != nil {
				return err
			}
			notebook = pg.OrNull(to)
		} else if !in.Body.Title.Sent && !in.Body.Body.Sent {
			did = audit.NoteReadAny
		}
		if did == audit.NoteWriteAny {
			if err := update(ctx, tx, r.SpaceID, r.ID, in.Body, notebook); err != nil {
				return err
			}
		}
		again, err := find(ctx, tx, caller, r.SpaceID, r.ID, withBody)
		if err != nil {
			return err
		}
		changed, err = reveal(ctx, tx, "note", again, did, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Their own words, even if they may not read the note.
	if in.Body.Title.Sent {
		changed.Title = string(in.Body.Title.Value)
	}
	if in.Body.Body.Sent {
		changed.Body = in.Body.Body.Value
	}
	return output(changed), nil
}

// checkMove decides on moving a note to another notebook of its organization, or out of its notebook if
// to is zero. The caller must be allowed to write a note there and, if the old notebook is restricted,
// to write that.
func (s *Service) checkMove(ctx context.Context, tx pgx.Tx, caller *authz.Principal, r row, to uuid.UUID) error {
	at := r.standing()
	if at.Org == uuid.Nil { // a personal note cannot be in a notebook
		return authz.NotFound("notebook")
	}
	in := authz.Standing{Org: at.Org, Role: at.Role}
	if to != uuid.Nil {
		var err error
		if _, in, err = findNotebook(ctx, tx, caller, at.Org, to); err != nil {
			return err
		}
		if _, err := caller.DecideOn("notebook", "read", in); err != nil {
			return err
		}
	}
	if err := caller.Require("note", "write", in); err != nil || !at.Restricted {
		return err
	}
	return caller.Require("notebook", "write", authz.Standing{Org: at.Org, Role: at.Role, Restricted: true})
}

func sent[T any](o strictjson.Optional[T]) *T {
	if !o.Sent {
		return nil
	}
	return &o.Value
}

type deleteInput struct{ match }

func (s *Service) delete(ctx context.Context, in *deleteInput, found authz.Found[row]) (*struct{}, error) {
	return nil, s.write(ctx, found, in.match, func(ctx context.Context, tx pgx.Tx, r row, by authz.Relation) error {
		if err := deleteNote(ctx, tx, r.SpaceID, r.ID, authz.From(ctx)); err != nil {
			return err
		}
		return recordAny(ctx, tx, by, audit.NoteDeleteAny, "note", r.Summary)
	})
}

// write locks a live note, decides again on the locked row, checks If-Match, and runs do, in one
// transaction.
func (s *Service) write(ctx context.Context, found authz.Found[row], ifMatch match, do func(context.Context, pgx.Tx, row, authz.Relation) error) error {
	return s.hold(ctx, found, func(ctx context.Context, tx pgx.Tx, _ bool) error {
		r, err := find(ctx, tx, authz.From(ctx), found.Thing.SpaceID, found.At.ID, withoutBody)
		if err != nil {
			return err
		}
		by, err := found.Again(ctx, r.standing())
		if err != nil {
			return err
		}
		if err := ifMatch.check(r.Version); err != nil {
			return err
		}
		return do(ctx, tx, r, by)
	})
}

// EndOf moves an ending organization's notes into the Dead Zone, in the transaction that ends it.
func (s *Service) EndOf(ctx context.Context, tx pgx.Tx, org uuid.UUID) error {
	if err := mayTakeLong(ctx, tx); err != nil {
		return err
	}
	return deleteNotesOf(ctx, tx, org, authz.From(ctx))
}

// hold confirms the caller, locks the note, and runs work in one transaction. Nobody's rights in its
// organization change meanwhile. lives reports whether the organization still exists. No note ever
// changes its organization.
func (s *Service) hold(ctx context.Context, found authz.Found[row], work func(ctx context.Context, tx pgx.Tx, lives bool) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		lives := true
		if org := found.Standing.Org; org != uuid.Nil {
			var err error
			if lives, err = s.orgs.Hold(ctx, tx, org); err != nil {
				return err
			}
		}
		ctx, err := s.users.Confirm(ctx, tx)
		if err != nil {
			return err
		}
		if err := lock(ctx, tx, found.Thing.SpaceID, found.At.ID); err != nil {
			return err
		}
		return work(ctx, tx, lives)
	})
}

// check returns errStale if If-Match does not match. A missing header and * always match, a weak tag or
// an empty list never.
func (m match) check(version int64) error {
	if !m.sent || strings.TrimSpace(m.IfMatch) == "*" {
		return nil
	}
	for _, tag := range tagsOf(m.IfMatch) {
		if tag == etag(version) {
			return nil
		}
		if _, err := strconv.Unquote(strings.TrimPrefix(tag, "W/")); err != nil || !strings.HasSuffix(tag, `"`) {
			return problem.Invalid("header.If-Match", `must be an ETag in its quotes, such as "1"`)
		}
	}
	return errStale
}

// tagsOf splits a list of tags (RFC 9110, 5.6.1). None of ours contains a comma.
func tagsOf(list string) (tags []string) {
	for tag := range strings.SplitSeq(list, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags
}

// noneMatch is If-None-Match (RFC 9110, 13.1.2).
type noneMatch struct {
	IfNoneMatch string `header:"If-None-Match" example:"\"41\"" doc:"An ETag that the caller has: 304 if the note is still that"`
}

// Resolve reads the whole header.
func (m *noneMatch) Resolve(ctx huma.Context) []error {
	m.IfNoneMatch, _ = headerOf(ctx, "If-None-Match")
	return nil
}

// has reports whether the caller has this version. The comparison is weak, because caches and compressing
// proxies weaken tags.
func (m noneMatch) has(version int64) bool {
	if strings.TrimSpace(m.IfNoneMatch) == "*" {
		return true
	}
	return slices.ContainsFunc(tagsOf(m.IfNoneMatch), func(tag string) bool { return strings.TrimPrefix(tag, "W/") == etag(version) })
}

type deadListOutput struct{ Body page.Of[DeadSummary] }

func (s *Service) listDeadZone(ctx context.Context, in *struct{ page.Query }) (*deadListOutput, error) {
	caller := authz.From(ctx)
	if err := s.checkDeadZone(ctx, caller, "read"); err != nil {
		return nil, err
	}
	shown, err := page.List(in.Query, "deadzone", func(w page.Window) ([]row, error) {
		return s.listDead(ctx, caller, w)
	}, func(r row) page.Position { return page.Position{At: r.DeletedAt, ID: r.ID} })
	if err != nil {
		return nil, err
	}
	if err := s.recordList(ctx, caller, "deadzone", shown.Items); err != nil {
		return nil, err
	}
	return &deadListOutput{page.Map(shown, func(r row) DeadSummary { return DeadSummary{r.Summary, r.Death} })}, nil
}

type deadOutput struct{ Body DeadNote }

func (s *Service) getDead(ctx context.Context, _ *struct{}, found authz.Found[row]) (*deadOutput, error) {
	note, err := reveal(ctx, s.pool, "deadzone", found.Thing, audit.NoteReadAny, found.By)
	return &deadOutput{note}, err
}

func (s *Service) restore(ctx context.Context, _ *struct{}, found authz.Found[row]) (*noteOutput, error) {
	var restored DeadNote
	err := s.writeDead(ctx, found, withBody, func(ctx context.Context, tx pgx.Tx, r row, by authz.Relation, lives bool) error {
		if !lives {
			return errOrgGone
		}
		if err := restoreNote(ctx, tx, r.SpaceID, r.ID); err != nil {
			return err
		}
		var err error
		restored, err = reveal(ctx, tx, "deadzone", r, audit.NoteRestoreAny, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	return output(restored), nil
}

func (s *Service) purgeOne(ctx context.Context, _ *struct{}, found authz.Found[row]) (*struct{}, error) {
	return nil, s.writeDead(ctx, found, withoutBody, func(ctx context.Context, tx pgx.Tx, r row, _ authz.Relation, _ bool) error {
		if err := purgeNote(ctx, tx, r.SpaceID, r.ID); err != nil {
			return err
		}
		// Every purge is recorded, whoever's note it was.
		return audit.Record(ctx, tx, audit.Event{
			Actor: identity.ActorOf(authz.From(ctx)), Action: audit.NotePurge, Object: "deadzone", Target: r.ID.String(), Org: r.standing().Org,
		})
	})
}

// writeDead is write for the Dead Zone.
func (s *Service) writeDead(ctx context.Context, found authz.Found[row], what part, do func(ctx context.Context, tx pgx.Tx, r row, by authz.Relation, lives bool) error) error {
	return s.hold(ctx, found, func(ctx context.Context, tx pgx.Tx, lives bool) error {
		r, err := s.findDead(ctx, tx, authz.From(ctx), found.Thing.SpaceID, found.At.ID, what)
		if err != nil {
			return err
		}
		by, err := found.Again(ctx, r.standing())
		if err != nil {
			return err
		}
		return do(ctx, tx, r, by, lives)
	})
}
