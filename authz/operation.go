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

// API is where rooms register their operations. Each operation declares what it needs. A
// missing or senseless declaration is kept as an error, and the server does not start
// with one.
type API struct {
	huma     huma.API
	bodies   *bodies.Budget
	declared map[string]string // "GET /v1/notes": "note:own read"
	errs     []error
}

// NewAPI wraps a huma API whose routes run behind identity's Authenticate. Bodies count against
// the budget, by the caller's id.
func NewAPI(h huma.API, budget *bodies.Budget) *API {
	return &API{huma: h, bodies: budget, declared: map[string]string{}}
}

// Err returns all faulty declarations; nil if there are none.
func (a *API) Err() error { return errors.Join(a.errs...) }

// Declared maps "METHOD /path" to what the operation needs. Tests use it, and so does the
// server to check that every route has a declaration.
func (a *API) Declared() map[string]string { return a.declared }

// DeclarePage records what a page or a form needs that is not a huma operation. The code that
// mounts it does the check.
func (a *API) DeclarePage(method, path string, needed Permission) {
	if !vocabulary.has(needed) {
		a.errs = append(a.errs, fmt.Errorf("%s %s: the permission %q is not in the vocabulary", method, path, needed))
		return
	}
	a.declared[method+" "+path] = needed.String()
}

// Register declares an operation without a target: on all the caller's own things (key:own
// write), or on an area (audit:any read).
func Register[I, O any](a *API, op huma.Operation, needed Permission, handler func(context.Context, *I) (*O, error)) {
	if !vocabulary.has(needed) {
		a.fail(op, "the permission %q is not in the vocabulary", needed)
		return
	}
	register(a, op, needed.String(), needed.Object.relation(), func(p *Principal) error { return p.Check(needed) }, handler)
}

// RegisterKind declares an operation on all things of a kind that the caller may reach, by any of
// the relations. Without relations, all that take the act count. It is for a list across relations
// (deadzone read), or for making one of several (note write). The room decides which.
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

// asStaff records that only a permission on everybody's things let the caller in.
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

// decision decides on a caller by what the operation declares.
type decision func(*Principal) error

type decisionKey struct{}

// WithDecision puts a page's decision into its context, for Again.
func WithDecision(ctx context.Context, decide func(*Principal) error) context.Context {
	return context.WithValue(ctx, decisionKey{}, decision(decide))
}

type confirmedKey struct{}

// Again repeats the operation's decision in the transaction that writes, for the caller made anew there,
// under the policy in force then. The returned context is for that transaction and carries that caller.
// Target.Again works only with it. It returns an error if nothing was declared.
func Again(ctx context.Context, fresh *Principal) (context.Context, error) {
	decide, ok := ctx.Value(decisionKey{}).(decision)
	if !ok {
		return ctx, errors.New("authz: nothing was declared for what is written here")
	}
	return context.WithValue(WithPrincipal(ctx, fresh), confirmedKey{}, fresh), decide(fresh)
}

// answered turns a handler's error into a problem, so that huma sends its status and headers.
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

// Target is what an operation acts on: its place, the caller's standing to it, and what the
// operation declares. By is Any for somebody else's thing, which only a platform-wide permission
// reaches.
type Target struct {
	At       Place
	Standing Standing
	By       Relation

	declared declaration
	again    *bool // it was decided again and allowed
}

// Again repeats the operation's decision on what its transaction has locked. s is the caller's standing
// to that now. The caller is the one the transaction confirmed, so ctx must be the transaction's. It
// returns what DecideOn does.
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

// Gone is Again for a thing that no longer exists. s is the standing to its organization. missing is the
// error from looking for it. Gone returns missing, or a 403 or 404 if the caller may not know of that.
func (t Target) Gone(ctx context.Context, s Standing, missing error) error {
	caller, err := confirmed(ctx)
	if err != nil {
		return err
	}
	return t.declared.gone(caller, s, missing)
}

// confirmed returns the caller whom the transaction confirmed.
func confirmed(ctx context.Context) (*Principal, error) {
	caller, ok := ctx.Value(confirmedKey{}).(*Principal)
	if !ok {
		return nil, errors.New("authz: nobody was confirmed in the transaction that decides again")
	}
	return caller, nil
}

// declaration is what an operation declares on its target. The zero value allows nothing.
type declaration struct {
	kind Kind
	act  Act
	form form
}

// form is where a target is.
type form int

const (
	byID    form = iota + 1 // anywhere, by its id alone
	inside                  // in an organization, or the organization itself
	ofAKind                 // all things of the kind in an organization
)

// formOf returns the form of a path with these names.
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

// gone decides when the thing is missing.
func (d declaration) gone(p *Principal, s Standing, missing error) error {
	if d.form == inside {
		return p.goneIn(d.kind, d.act, s, missing)
	}
	return missing
}

// Place holds the ids in an operation's path. Ids that it lacks are zero.
type Place struct{ Org, ID, User uuid.UUID }

// Find returns the caller's standing to an operation's target, and how to load the target. load runs
// only if they may read the target or act on it, so that a refusal always costs the same. A nil load
// loads nothing. A problem from load (404) is the answer. Below /v1/orgs/{org}, Find returns the
// standing to the organization even with the problem (404) that the thing is missing.
type Find[T any] func(ctx context.Context, caller *Principal, at Place) (s Standing, load func(context.Context) (T, error), err error)

// FindStanding returns the caller's standing to what is at a place.
type FindStanding func(ctx context.Context, caller *Principal, at Place) (Standing, error)

// Only is a Find for operations that need only the standing.
func Only(stand FindStanding) Find[struct{}] {
	return func(ctx context.Context, caller *Principal, at Place) (Standing, func(context.Context) (struct{}, error), error) {
		standing, err := stand(ctx, caller, at)
		return standing, nil, err
	}
}

// Then is a Find for a thing to which the standing is the same as to all of its kind there: a member,
// a key.
func Then[T any](stand FindStanding, load func(ctx context.Context, at Place) (T, error)) Find[T] {
	return func(ctx context.Context, caller *Principal, at Place) (Standing, func(context.Context) (T, error), error) {
		standing, err := stand(ctx, caller, at)
		return standing, func(ctx context.Context) (T, error) { return load(ctx, at) }, err
	}
}

// RegisterOn declares an operation on one thing of the given kind: the path's {id}, or an
// organization, {org}, or a thing or all things of a kind below it. A problem from find
// (404) is the answer. The decision comes before the body is read. An id that is not a UUID gives
// 404. A handler that writes an organization's things must decide again, with Found's Again, on what
// it has locked. If it succeeds without that, the answer is 500.
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

// namesIn returns the names of a path's parameters.
func namesIn(path string) []string {
	var names []string
	for _, match := range inBraces.FindAllStringSubmatch(path, -1) {
		names = append(names, match[1])
	}
	return names
}

// locate reads the path's ids and decides.
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
	// The decision's refusal comes before a refusal from load. A missing thing comes before both.
	if missed != nil && (err == nil || !errors.As(missed, &missing) || missing.Status != http.StatusForbidden) {
		return found, missed
	}
	found.Thing = thing
	return found, err
}

// answer writes err's problem. If err is nil, it writes nothing and returns true.
func answer(ctx huma.Context, err error) bool {
	if err == nil {
		return true
	}
	r, w := humachi.Unwrap(ctx)
	problem.Write(w, r.WithContext(ctx.Context()), err)
	return false
}

// strictInput refuses what huma lets pass: a repeated parameter, an empty one, a malformed
// query, and a media type that only looks like JSON. (huma checks unknown names.)
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

// isJSON reports whether the request declares its body as JSON, or declares nothing. It rewrites
// the type as huma looks it up.
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

// declare records the need, and adds it to the OpenAPI document.
func (a *API) declare(op *huma.Operation, needs string) {
	a.declared[op.Method+" "+op.Path] = needs
	op.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	op.Extensions = map[string]any{"x-permission": needs}
	if op.Description != "" {
		op.Description += "\n\n"
	}
	op.Description += "Needs `" + needs + "`."
}
