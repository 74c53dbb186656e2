package authz

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/google/uuid"

	"noted/internal/problem"
)

// API is where rooms register their operations. Each one declares what it needs; a
// declaration that is missing or makes no sense is kept as an error, and the server does
// not start with one.
type API struct {
	huma     huma.API
	declared map[string]string // "GET /v1/notes": "note:own read"
	errs     []error
}

// NewAPI wraps a huma API whose routes run behind identity's Authenticate.
func NewAPI(h huma.API) *API {
	return &API{huma: h, declared: map[string]string{}}
}

// Err is every declaration that cannot stand; nil when all can.
func (a *API) Err() error { return errors.Join(a.errs...) }

// Declared maps "METHOD /path" to what the operation needs, for the server's check that no
// route lacks a declaration, and for tests.
func (a *API) Declared() map[string]string { return a.declared }

// DeclarePage notes what a page or a form for people needs, which is no huma operation. Who
// mounts it checks that.
func (a *API) DeclarePage(method, path string, needed Permission) {
	if bitOf[needed] == 0 {
		a.errs = append(a.errs, fmt.Errorf("%s %s: the permission %q is not in the vocabulary", method, path, needed))
		return
	}
	a.declared[method+" "+path] = needed.String()
}

// Register declares an operation that has no target: it concerns the caller's own things as
// a whole (key:own write), or an area (audit:any read).
func Register[I, O any](a *API, op huma.Operation, needed Permission, handler func(context.Context, *I) (*O, error)) {
	if bitOf[needed] == 0 {
		a.fail(op, "the permission %q is not in the vocabulary", needed)
		return
	}
	register(a, op, needed.String(), func(p *Principal) error { return p.Check(needed) }, handler)
}

// RegisterKind declares an operation on whatever things of a kind the caller may reach, by any
// relation: a list across relations (deadzone read). Which ones they are, the room decides.
func RegisterKind[I, O any](a *API, op huma.Operation, kind Kind, act Act, handler func(context.Context, *I) (*O, error)) {
	if !takes(kind, act) {
		a.fail(op, "%s %s is not in the vocabulary", kind, act)
		return
	}
	register(a, op, anyOf(kind, act), func(p *Principal) error { return p.CheckKind(kind, act) }, handler)
}

func register[I, O any](a *API, op huma.Operation, needs string, check func(*Principal) error, handler func(context.Context, *I) (*O, error)) {
	if strings.Contains(op.Path, "{") {
		a.fail(op, "its path names a thing; declare it with RegisterOn")
		return
	}
	a.declare(&op, needs)
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		if answer(ctx, check(From(ctx.Context()))) {
			next(ctx)
		}
	}, strictInput)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		return answered(ctx, out, err)
	})
}

// answered makes any error of a handler a problem, so that huma sends its status and headers.
func answered[O any](ctx context.Context, out *O, err error) (*O, error) {
	if err != nil {
		return nil, problem.From(ctx, err)
	}
	return out, nil
}

func takes(kind Kind, act Act) bool {
	return slices.ContainsFunc(relationsOf(kind), func(r Relation) bool { return bitOf[Permission{ObjectOf(kind, r), act}] != 0 })
}

func anyOf(kind Kind, act Act) string {
	var names []string
	for _, r := range relationsOf(kind) {
		names = append(names, string(ObjectOf(kind, r)))
	}
	return strings.Join(names, "|") + " " + string(act)
}

// Found is an operation's target: the thing, and the caller's relation to it. By is Any for
// somebody else's thing, which nothing but a platform-wide permission reaches.
type Found[T any] struct {
	Thing T
	By    Relation
}

// PathID is the {id} of a path, for the input of operations with a target. It was parsed
// before the handler runs.
type PathID struct {
	ID string `path:"id" format:"uuid"`
}

// RegisterOn declares an operation on one thing of the given kind: the path's {id}. find
// loads it together with the caller's relation to it; a problem it returns (404) is the
// answer. The decision falls before the body is read. An id that is no UUID is 404.
// A handler that writes decides once more, on what it has locked.
func RegisterOn[T, I, O any](a *API, op huma.Operation, kind Kind, act Act,
	find func(ctx context.Context, caller *Principal, id uuid.UUID) (T, Relation, error),
	handler func(context.Context, *I, Found[T]) (*O, error),
) {
	switch {
	case !takes(kind, act):
		a.fail(op, "%s %s is not in the vocabulary", kind, act)
		return
	case find == nil || strings.Count(op.Path, "{") != 1 || !strings.Contains(op.Path, "{id}"):
		a.fail(op, "it needs a target: a path with {id} alone, and how to find it")
		return
	}
	a.declare(&op, anyOf(kind, act))
	type foundKey struct{}
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		found, err := locate(ctx, kind, act, find)
		if answer(ctx, err) {
			next(huma.WithValue(ctx, foundKey{}, found))
		}
	}, strictInput)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		found, ok := ctx.Value(foundKey{}).(Found[T])
		if !ok {
			return nil, fmt.Errorf("%s: nothing was decided", op.OperationID)
		}
		out, err := handler(ctx, in, found)
		return answered(ctx, out, err)
	})
}

func locate[T any](ctx huma.Context, kind Kind, act Act,
	find func(context.Context, *Principal, uuid.UUID) (T, Relation, error),
) (Found[T], error) {
	caller := From(ctx.Context())
	if err := caller.CheckKind(kind, act); err != nil {
		return Found[T]{}, err
	}
	id, err := uuid.Parse(ctx.Param("id"))
	if err != nil || len(ctx.Param("id")) != 36 {
		return Found[T]{}, problem.NotFound(thing(kind))
	}
	got, relation, err := find(ctx.Context(), caller, id)
	if err != nil {
		return Found[T]{}, err
	}
	by, err := caller.Decide(kind, act, relation)
	return Found[T]{Thing: got, By: by}, err
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
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	if strings.Contains(op.Path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	slices.Sort(op.Errors)
}
