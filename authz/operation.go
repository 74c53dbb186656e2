package authz

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/google/uuid"

	"noted/internal/bodies"
	"noted/internal/problem"
	"noted/internal/request"
	"noted/internal/uid"
)

// API is where rooms register their operations. Each one declares what it needs; a
// declaration that is missing or makes no sense is kept as an error, and the server does
// not start with one.
type API struct {
	huma     huma.API
	bodies   *bodies.Budget
	declared map[string]string // "GET /v1/notes": "note:own read"
	errs     []error
}

// NewAPI wraps a huma API whose routes run behind identity's Authenticate. What bodies hold counts
// in the budget, by the caller's id.
func NewAPI(h huma.API, budget *bodies.Budget) *API {
	return &API{huma: h, bodies: budget, declared: map[string]string{}}
}

// Err is every declaration that cannot stand; nil when all can.
func (a *API) Err() error { return errors.Join(a.errs...) }

// Declared maps "METHOD /path" to what the operation needs, for the server's check that no
// route lacks a declaration, and for tests.
func (a *API) Declared() map[string]string { return a.declared }

// DeclarePage notes what a page or a form for people needs, which is no huma operation. Who
// mounts it checks that.
func (a *API) DeclarePage(method, path string, needed Permission) {
	if !vocabulary.has(needed) {
		a.errs = append(a.errs, fmt.Errorf("%s %s: the permission %q is not in the vocabulary", method, path, needed))
		return
	}
	a.declared[method+" "+path] = needed.String()
}

// Register declares an operation that has no target: it concerns the caller's own things as
// a whole (key:own write), or an area (audit:any read).
func Register[I, O any](a *API, op huma.Operation, needed Permission, handler func(context.Context, *I) (*O, error)) {
	if !vocabulary.has(needed) {
		a.fail(op, "the permission %q is not in the vocabulary", needed)
		return
	}
	register(a, op, needed.String(), needed.Object.relation(), func(p *Principal) error { return p.Check(needed) }, handler)
}

// RegisterKind declares an operation on whatever things of a kind the caller may reach, by any of
// the relations, all that take the act if none is given: a list across relations (deadzone read), or making one of
// several (note write). Which it is, the room decides.
func RegisterKind[I, O any](a *API, op huma.Operation, kind Kind, act Act, handler func(context.Context, *I) (*O, error), by ...Relation) {
	objects := vocabulary.of(kind).by[act].outside
	if len(by) > 0 {
		objects = nil
	}
	for _, relation := range by {
		objects = append(objects, ObjectOf(kind, relation))
	}
	if len(objects) == 0 || slices.ContainsFunc(objects, func(o Object) bool { return !vocabulary.has(Permission{o, act}) }) {
		a.fail(op, "%s %s is not in the vocabulary", kind, act)
		return
	}
	register(a, op, anyOf(objects, act), None, func(p *Principal) error { return p.checkEver(objects, act) }, handler)
}

// asStaff notes, for the record, that nothing but a permission on everybody's things let the caller in.
func asStaff(ctx context.Context, by Relation) {
	if by == Any {
		request.From(ctx).Staff = true
	}
}

func register[I, O any](a *API, op huma.Operation, needs string, relation Relation, check func(*Principal) error, handler func(context.Context, *I) (*O, error)) {
	if strings.Contains(op.Path, "{") {
		a.fail(op, "its path names a thing; declare it with RegisterOn")
		return
	}
	a.declare(&op, needs)
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		if answer(ctx, check(From(ctx.Context()))) {
			asStaff(ctx.Context(), relation)
			next(huma.WithValue(ctx, decisionKey{}, decision(check)))
		}
	}, strictInput)
	serve(a, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		return answered(ctx, out, err)
	})
}

// decision is how an operation decides on a caller by what it declares.
type decision func(*Principal) error

type decisionKey struct{}

// WithDecision puts what a page's handler declares into its context, for Again.
func WithDecision(ctx context.Context, decide func(*Principal) error) context.Context {
	return context.WithValue(ctx, decisionKey{}, decision(decide))
}

type confirmedKey struct{}

// Again decides what the operation declares once more: for the caller made anew in the transaction that
// writes, under the policy in force then. The context that it returns is the transaction's: it carries that
// caller, and there alone Target.Again decides. Where nothing was declared, nothing is allowed.
func Again(ctx context.Context, fresh *Principal) (context.Context, error) {
	decide, ok := ctx.Value(decisionKey{}).(decision)
	if !ok {
		return ctx, errors.New("authz: nothing was declared for what is written here")
	}
	return context.WithValue(WithPrincipal(ctx, fresh), confirmedKey{}, fresh), decide(fresh)
}

// answered makes any error of a handler a problem, so that huma sends its status and headers.
func answered[O any](ctx context.Context, out *O, err error) (*O, error) {
	if err != nil {
		return nil, problem.From(ctx, err)
	}
	return out, nil
}

func anyOf(objects []Object, act Act) string {
	var names []string
	for _, object := range objects {
		names = append(names, string(object))
	}
	return strings.Join(names, "|") + " " + string(act)
}

// Found is an operation's target and its thing.
type Found[T any] struct {
	Thing T
	Target
}

// Target is what an operation is about: where it stands, how the caller stands to it, and what the
// operation declares on it. By is Any for somebody else's thing, which nothing but a platform-wide
// permission reaches.
type Target struct {
	At       Place
	Standing Standing
	By       Relation

	declared declaration
	again    *bool // it was decided again, and allowed
}

// Again decides what the operation declares once more, on what its transaction has locked: s is how the
// caller stands to that now. It decides on the caller whom the transaction has confirmed, and so takes the
// transaction's context. It returns what DecideOn does.
func (t Target) Again(ctx context.Context, s Standing) (Relation, error) {
	caller, err := confirmed(ctx)
	if err != nil {
		return None, err
	}
	by, err := t.declared.decide(caller, s)
	if err == nil {
		*t.again = true
	}
	return by, err
}

// Gone is Again for a thing that is not there any more, with s as the standing to its organization. It
// returns missing, the error of looking for it, or the 403 or 404 of a caller who is not told of that.
func (t Target) Gone(ctx context.Context, s Standing, missing error) error {
	caller, err := confirmed(ctx)
	if err != nil {
		return err
	}
	return t.declared.gone(caller, s, missing)
}

// confirmed is the caller whom a transaction has confirmed.
func confirmed(ctx context.Context) (*Principal, error) {
	caller, ok := ctx.Value(confirmedKey{}).(*Principal)
	if !ok {
		return nil, errors.New("authz: nobody was confirmed in the transaction that decides again")
	}
	return caller, nil
}

// declaration is what an operation declares on its target. The zero one allows nothing.
type declaration struct {
	kind Kind
	act  Act
	form form
}

// form is where a target stands.
type form int

const (
	byID    form = iota + 1 // anywhere, by its id alone
	inside                  // in an organization, or it is the organization
	ofAKind                 // it is all things of the kind in an organization
)

// formOf is the form of a path with these names.
func formOf(kind Kind, names []string) form {
	switch {
	case names[0] != "org":
		return byID
	case len(names) == 1 && kind != organization:
		return ofAKind
	}
	return inside
}

func (d declaration) decide(p *Principal, s Standing) (Relation, error) {
	switch d.form {
	case byID:
		return p.DecideOn(d.kind, d.act, s)
	case inside:
		return p.decideIn(d.kind, d.act, s)
	case ofAKind:
		return Org, p.DecideAll(d.kind, d.act, s)
	}
	return None, errors.New("authz: nothing was declared on what is decided here")
}

// gone decides when the thing is not there.
func (d declaration) gone(p *Principal, s Standing, missing error) error {
	if d.form == inside {
		return p.goneIn(d.kind, d.act, s, missing)
	}
	return missing
}

// Place are the ids in an operation's path; those that it does not have are zero.
type Place struct{ Org, ID, User uuid.UUID }

// Find finds how the caller stands to an operation's target, and how to load the target, which
// happens only when they may at least read it or act on it: what is refused costs the same, whatever
// is behind it. A nil load loads nothing; its problem (404) is the answer. Below /v1/orgs/{org} it
// returns the standing to the organization also with the problem (404) that the thing is not there.
type Find[T any] func(ctx context.Context, caller *Principal, at Place) (s Standing, load func(context.Context) (T, error), err error)

// FindStanding finds how the caller stands to what is at a place.
type FindStanding func(ctx context.Context, caller *Principal, at Place) (Standing, error)

// Only is a Find for operations that need the standing alone.
func Only(stand FindStanding) Find[struct{}] {
	return func(ctx context.Context, caller *Principal, at Place) (Standing, func(context.Context) (struct{}, error), error) {
		standing, err := stand(ctx, caller, at)
		return standing, nil, err
	}
}

// Then is a Find for a thing to which everybody stands as they do to all of its kind there: a member,
// a key.
func Then[T any](stand FindStanding, load func(ctx context.Context, at Place) (T, error)) Find[T] {
	return func(ctx context.Context, caller *Principal, at Place) (Standing, func(context.Context) (T, error), error) {
		standing, err := stand(ctx, caller, at)
		return standing, func(ctx context.Context) (T, error) { return load(ctx, at) }, err
	}
}

// RegisterOn declares an operation on one thing of the given kind: the path's {id}, or an
// organization, {org}, or a thing or all things of a kind below it. A problem that find
// returns (404) is the answer. The decision falls before the body is read. An id that is no UUID is
// 404. A handler that writes to what is an organization's decides once more, by Found's Again, on what it has
// locked: one that succeeds without it is 500.
func RegisterOn[T, I, O any](a *API, op huma.Operation, kind Kind, act Act, find Find[T], handler func(context.Context, *I, Found[T]) (*O, error)) {
	names := namesIn(op.Path)
	inOrg := slices.Contains(names, "org")
	k := vocabulary.of(kind)
	objects := k.by[act].outside
	if inOrg {
		objects = k.by[act].inside
	}
	needs := anyOf(objects, act)
	if itself := (Permission{k.itself, act}); slices.Contains(names, "user") && vocabulary.has(itself) {
		needs += "|" + itself.String()
	}
	switch {
	case len(objects) == 0:
		a.fail(op, "%s %s is not in the vocabulary", kind, act)
		return
	case find == nil || len(names) == 0 || !slices.Equal(names, []string{"id"}) && (!inOrg || !strings.HasPrefix(op.Path, "/v1/orgs/{org}")) ||
		slices.ContainsFunc(names, func(name string) bool { return name != "org" && name != "id" && name != "user" }):
		a.fail(op, "it needs a target: a path with {id} alone, or with {org} and what is below it, and how to find it")
		return
	}
	a.declare(&op, needs)
	for _, name := range names {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"}})
	}
	declared := declaration{kind, act, formOf(kind, names)}
	type foundKey struct{}
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		found, err := locate(ctx, declared, names, find)
		if answer(ctx, err) {
			asStaff(ctx.Context(), found.By)
			decide := decision(func(p *Principal) error {
				_, err := declared.decide(p, found.Standing)
				return err
			})
			next(huma.WithValue(huma.WithValue(ctx, foundKey{}, found), decisionKey{}, decide))
		}
	}, strictInput)
	serve(a, op, func(ctx context.Context, in *I) (*O, error) {
		found, ok := ctx.Value(foundKey{}).(Found[T])
		if !ok {
			return nil, fmt.Errorf("%s: nothing was decided", op.OperationID)
		}
		out, err := handler(ctx, in, found)
		if err == nil && op.Method != http.MethodGet && found.Standing.Org != uuid.Nil && !*found.again {
			err = fmt.Errorf("%s: it did not decide again on what it wrote", op.OperationID)
		}
		return answered(ctx, out, err)
	})
}

var inBraces = regexp.MustCompile(`\{([^}]*)\}`)

// namesIn are the names of a path's parameters.
func namesIn(path string) []string {
	var names []string
	for _, match := range inBraces.FindAllStringSubmatch(path, -1) {
		names = append(names, match[1])
	}
	return names
}

// locate reads the ids of the path, and decides.
func locate[T any](ctx huma.Context, declared declaration, names []string, find Find[T]) (found Found[T], err error) {
	caller := From(ctx.Context())
	kind := declared.kind
	found.declared, found.again = declared, new(bool)
	if declared.form == byID {
		if err := caller.CheckKind(kind, declared.act); err != nil {
			return found, err
		}
	}
	for _, name := range names {
		id, err := uid.Parse(ctx.Param(name))
		switch {
		case err != nil && len(names) == 1 && name == "org":
			return found, NotFound(organization)
		case err != nil:
			return found, NotFound(kind)
		case name == "org":
			found.At.Org = id
		case name == "user":
			found.At.User = id
		default:
			found.At.ID = id
		}
	}
	standing, load, lookup := find(ctx.Context(), caller, found.At)
	var missing *problem.Error
	if lookup != nil && (declared.form == byID || !errors.As(lookup, &missing)) {
		return found, lookup
	}
	if lookup != nil {
		return found, declared.gone(caller, standing, lookup)
	}
	found.Standing = standing
	if found.By, err = declared.decide(caller, standing); err != nil && !caller.mayRead(kind, standing) || load == nil {
		return found, err
	}
	thing, missed := load(ctx.Context())
	// What the caller is refused comes before what the loading refuses; what is not there, before both.
	if missed != nil && (err == nil || !errors.As(missed, &missing) || missing.Status != http.StatusForbidden) {
		return found, missed
	}
	found.Thing = thing
	return found, err
}

// answer writes err's problem; it reports true, and writes nothing, when there is none.
func answer(ctx huma.Context, err error) bool {
	if err == nil {
		return true
	}
	r, w := humachi.Unwrap(ctx)
	problem.Write(w, r.WithContext(ctx.Context()), err)
	return false
}

// strictInput refuses what huma passes over: a parameter sent twice, an empty one, a query that
// is none, and a media type that only looks like JSON. (Unknown names are huma's.)
func strictInput(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		answer(ctx, problem.New(http.StatusBadRequest, "The query is malformed: percent-encode what stands in it"))
		return
	}
	for name, values := range query {
		location := "query." + strings.ToValidUTF8(name[:min(len(name), 100)], "\uFFFD")
		switch {
		case len(values) > 1:
			answer(ctx, problem.Invalid(location, "is there %d times; send it once", len(values)))
			return
		case values[0] == "":
			answer(ctx, problem.Invalid(location, "is empty; leave it out or give it a value"))
			return
		}
	}
	if ctx.Operation().RequestBody != nil && !isJSON(ctx) {
		answer(ctx, problem.New(http.StatusUnsupportedMediaType, "The body must be plain JSON: Content-Type: application/json, with no Content-Encoding"))
		return
	}
	next(ctx)
}

// isJSON tells whether a request says that its body is JSON, or nothing. It spells the type as
// huma looks it up.
func isJSON(ctx huma.Context) bool {
	r, _ := humachi.Unwrap(ctx)
	if r.Header.Get("Content-Encoding") != "" {
		return false
	}
	if r.Header.Get("Content-Type") == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return false
	}
	r.Header.Set("Content-Type", media)
	return true
}

func (a *API) fail(op huma.Operation, format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf("%s %s: %s", op.Method, op.Path, fmt.Sprintf(format, args...)))
}

// declare notes the need, and writes it into the OpenAPI document.
func (a *API) declare(op *huma.Operation, needs string) {
	a.declared[op.Method+" "+op.Path] = needs
	op.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	op.Extensions = map[string]any{"x-permission": needs}
	if op.Description != "" {
		op.Description += "\n\n"
	}
	op.Description += "Needs `" + needs + "`."
}
