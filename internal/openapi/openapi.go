package openapi

import (
	"cmp"
	"crypto/sha256"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"noted/internal/problem"
)

// Plain is a key of huma.Operation.Metadata. It marks an operation that huma does not serve, so that nothing
// checks its query.
const Plain = "noted.plain"

// Setup makes each operation complete itself as it is added, and defines how ids are written.
func Setup(document *huma.OpenAPI) {
	document.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[uuid.UUID](), reflect.TypeFor[id]())
	document.OnAddOperation = append(document.OnAddOperation, complete)
}

// id stands for uuid.UUID, which huma knows only as text.
type id struct{}

// Schema implements huma.SchemaProvider.
func (id) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid"}
}

// complete adds what follows from the declaration. It keeps what an operation sets itself.
func complete(document *huma.OpenAPI, op *huma.Operation) {
	delete(op.Responses, "default") // huma's, if no error is named
	for _, status := range problems(op) {
		code := strconv.Itoa(status)
		if op.Responses[code] == nil || slices.Contains(op.Errors, status) { // nothing, or huma's
			op.Responses[code] = problemResponse(document, op, status)
		}
	}
	if slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "If-None-Match" }) {
		op.Responses["304"] = &huma.Response{Description: "It is still the version that you have", Headers: map[string]*huma.Param{"ETag": {Required: true, Schema: &huma.Schema{Type: huma.TypeString}}}}
	}
	for code, response := range op.Responses {
		for name, header := range response.Headers {
			header.Description = cmp.Or(header.Description, headers[name])
			header.Required = header.Required || code[0] == '2'
		}
	}
	for _, parameter := range op.Parameters {
		exampleOfParameter(op, parameter)
	}
	if op.RequestBody != nil {
		for _, content := range op.RequestBody.Content {
			content.Example = exampleOf(document.Components.Schemas, content.Schema)
		}
	}
}

// problems returns the statuses of the operation's problems: those it lists in Errors, and those that follow from
// its kind. In tests, an answer with another status fails.
func problems(op *huma.Operation) []int {
	statuses := append(slices.Clone(op.Errors), http.StatusInternalServerError)
	if op.Method != http.MethodGet { // cross-site
		statuses = append(statuses, http.StatusForbidden)
	}
	if op.Security != nil { // looking up the credential; failures are counted
		statuses = append(statuses, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	}
	if op.Security != nil && op.Extensions["x-permission"] != "org read" { // an organization that they may not read is 404
		statuses = append(statuses, http.StatusForbidden)
	}
	if strings.Contains(op.Path, "{") {
		statuses = append(statuses, http.StatusNotFound)
	}
	if op.Metadata[Plain] == nil {
		statuses = append(statuses, http.StatusUnprocessableEntity) // an unknown query parameter
		if op.Security != nil {
			statuses = append(statuses, http.StatusBadRequest) // a malformed query
		}
	}
	if op.RequestBody != nil {
		statuses = append(statuses, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusServiceUnavailable)
		if op.Metadata[Plain] == nil || op.Security == nil { // not JSON, or any OAuth error
			statuses = append(statuses, http.StatusBadRequest)
		}
		if op.Security != nil { // another media type
			statuses = append(statuses, http.StatusUnsupportedMediaType)
		}
	}
	if slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "If-Match" }) {
		statuses = append(statuses, http.StatusPreconditionFailed)
	}
	slices.Sort(statuses)
	return slices.Compact(statuses)
}

// meanings are the meanings of a status, the same for all operations.
var meanings = map[int]string{
	http.StatusBadRequest:            "The query or the body is malformed",
	http.StatusUnauthorized:          "Authentication failed",
	http.StatusForbidden:             "You lack the permission, or a browser sent this from another site",
	http.StatusNotFound:              "It is not there, or you may not read it",
	http.StatusRequestTimeout:        "The body took too long to arrive",
	http.StatusConflict:              "Something stands in the way; the detail says what",
	http.StatusPreconditionFailed:    "The thing has changed since you read it",
	http.StatusRequestEntityTooLarge: "The body is too large",
	http.StatusUnsupportedMediaType:  "The body is of another media type",
	http.StatusMisdirectedRequest:    "This server does not answer for that host",
	http.StatusUnprocessableEntity:   "A value is invalid, or a name is unknown; errors says where",
	http.StatusTooManyRequests:       "Too often; try again after Retry-After",
	http.StatusInternalServerError:   "A fault of the server; the log has it under X-Request-Id",
	http.StatusServiceUnavailable:    "The server or its database cannot answer now; try again",
}

// headers are the purposes of an answer's headers.
var headers = map[string]string{
	"ETag":             "The version, in quotes; send it as If-Match",
	"Location":         "Where the new thing is",
	"Retry-After":      "Seconds to wait before the next attempt",
	"WWW-Authenticate": "Bearer",
}

// problemResponse is the answer with one status (RFC 9457). Outside /v1 browsers that accept text/html get a page.
func problemResponse(document *huma.OpenAPI, op *huma.Operation, status int) *huma.Response {
	response := &huma.Response{Description: cmp.Or(meanings[status], http.StatusText(status)), Headers: map[string]*huma.Param{}}
	schema := document.Components.Schemas.Schema(reflect.TypeFor[problem.Error](), true, "Error")
	response.Content = map[string]*huma.MediaType{problem.MediaType: {Schema: schema}}
	if !strings.HasPrefix(op.Path, "/v1/") {
		response.Content["text/html"] = Page()
	}
	number, text := &huma.Schema{Type: huma.TypeInteger}, &huma.Schema{Type: huma.TypeString}
	switch status {
	case http.StatusUnauthorized:
		response.Headers["WWW-Authenticate"] = &huma.Param{Schema: text}
	case http.StatusTooManyRequests:
		response.Headers["Retry-After"] = &huma.Param{Schema: number, Required: true}
	case http.StatusServiceUnavailable:
		response.Headers["Retry-After"] = &huma.Param{Schema: number}
	}
	return response
}

// Page describes an answer that is a page for people.
func Page() *huma.MediaType {
	return &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
}

// AddProblem adds one status to all operations of the document.
func AddProblem(document *huma.OpenAPI, status int) {
	for _, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				op.Responses[strconv.Itoa(status)] = problemResponse(document, op, status)
			}
		}
	}
}

// Finish marks each member of each schema that may be null: a pointer in Go that is not omitted instead. Call it
// after all operations are added.
func Finish(document *huma.OpenAPI) {
	registry := document.Components.Schemas
	for name, schema := range registry.Map() {
		of := registry.TypeFromRef("#/components/schemas/" + name)
		if of == nil || of.Kind() != reflect.Struct {
			continue
		}
		for _, field := range reflect.VisibleFields(of) {
			member, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			property := schema.Properties[member]
			if property == nil || reflect.PointerTo(field.Type).Implements(reflect.TypeFor[huma.SchemaProvider]()) {
				continue // not a member, or already set
			}
			null := field.Type.Kind() == reflect.Pointer && !strings.Contains(options, "omit")
			if property.Ref != "" && null { // a shared schema, which others refer to
				schema.Properties[member] = &huma.Schema{OneOf: []*huma.Schema{property, {Type: "null"}}}
			} else if property.Ref == "" {
				property.Nullable = null
			}
		}
	}
}

// ExampleID returns the example id for a kind of thing, such as the notes of /v1/notes/{id}. Each kind has its
// own.
func ExampleID(of string) string {
	sum := sha256.Sum256([]byte("example " + of))
	made := uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
	copy(made[10:], sum[:])
	return made.String()
}

// exampleOfParameter sets the example of a parameter that is an id or has a default. Pages that try operations
// fill in a path's example. They only show the others, since what those name rarely exists.
func exampleOfParameter(op *huma.Operation, p *huma.Param) {
	switch {
	case p.In == "path" && p.Example == nil:
		before, _, _ := strings.Cut(op.Path, "/{"+p.Name+"}")
		p.Example = ExampleID(kindOf(before))
	case p.Schema.Examples != nil:
	case p.Schema.Format == "uuid":
		p.Schema.Examples = []any{ExampleID(strings.TrimSuffix(p.Name, "_id") + "s")}
	case p.Schema.Default != nil:
		p.Schema.Examples = []any{p.Schema.Default}
	}
}

// kindOf returns the kind of things below a path. Members and grantees are users.
func kindOf(path string) string {
	kind := path[strings.LastIndex(path, "/")+1:]
	switch {
	case kind == "members" || kind == "grants":
		return "users"
	case kind == "keys" && strings.HasPrefix(path, "/v1/orgs/"):
		return "services"
	}
	return kind
}

// exampleOf is built from the members' own examples. It omits members without one.
func exampleOf(registry huma.Registry, schema *huma.Schema) any {
	for schema.Ref != "" {
		schema = registry.SchemaFromRef(schema.Ref)
	}
	example := map[string]any{}
	for name, member := range schema.Properties {
		switch {
		case len(member.Examples) > 0:
			example[name] = member.Examples[0]
		case len(member.Enum) > 0:
			example[name] = member.Enum[0]
		}
	}
	return example
}
