package server_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"noted/server"
	"noted/server/servertest"
)

// describedSchema is the part of a schema that these tests read.
type describedSchema struct {
	Ref        string `json:"$ref"`
	Type       any
	Format     string
	Enum       []any
	Required   []string
	Properties map[string]*describedSchema
	Items      *describedSchema
}

// openAPI is what these tests read of the document.
type openAPI struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		RequestBody struct {
			Content map[string]struct{ Schema *describedSchema }
		} `json:"requestBody"`
	}
	Components struct{ Schemas map[string]*describedSchema }
}

func (d *openAPI) follow(s *describedSchema) *describedSchema {
	if s != nil && s.Ref != "" {
		return d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// valueOf returns a valid value of a schema.
func (d *openAPI) valueOf(s *describedSchema) any {
	s = d.follow(s)
	switch {
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.Properties) > 0:
		object := map[string]any{}
		for _, name := range s.Required {
			object[name] = d.valueOf(s.Properties[name])
		}
		return object
	case s.Type == "array":
		return []any{d.valueOf(s.Items)}
	case s.Type == "boolean":
		return false
	case s.Type == "integer", s.Type == "number":
		return 1
	case s.Format == "date-time":
		return "2100-01-01T00:00:00Z"
	}
	return "some text"
}

// namesNothing are the operations whose name is not for a new thing: they compare it.
var namesNothing = []string{"delete-me"}

// This fails for a new operation that takes a name, and shows what a name is.
func TestNoNameBreaksALineTurnsTextOrIsBlank(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.OrgsPerDay = 0 })
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	under := "/v1/orgs/" + org
	notebook := env.Make(t, alice, under+"/notebooks", map[string]any{"name": "minutes"})
	note := env.NewNote(t, alice, "first")
	key, _ := env.NewKey(t, alice, "key-reader")
	service := env.Make(t, alice, under+"/keys", map[string]any{"name": "backup", "org_role": "reader", "role": "key-reader"})
	path := strings.NewReplacer(
		"/v1/orgs/{org}/notebooks/{id}", under+"/notebooks/"+notebook, "/v1/orgs/{org}/keys/{id}", under+"/keys/"+service,
		"/v1/orgs/{org}", under, "/v1/keys/{id}", "/v1/keys/"+key, "/v1/notes/{id}", "/v1/notes/"+note)

	var d openAPI
	env.Do(t, http.MethodGet, "/openapi.json", "", nil).JSON(t, &d)
	characters := []rune{0, 1, '\t', '\n', '\r', 0x1b, 0x7f, 0x85, 0x9f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069}
	blanks := []string{"", " ", "\u3000", "\u200b", "\ufeff", "\u00ad", "\u3164", "\u2800"}
	tried := map[string]bool{}
	for route, methods := range d.Paths {
		for method, operation := range methods {
			body := d.follow(operation.RequestBody.Content["application/json"].Schema)
			if body == nil || slices.Contains(namesNothing, operation.OperationID) {
				continue
			}
			for _, member := range []string{"name", "title"} {
				if body.Properties[member] == nil {
					continue
				}
				address := path.Replace(route)
				if strings.Contains(address, "{") {
					t.Errorf("%s %s takes a %s; say above where such a thing is", method, route, member)
					continue
				}
				tried[operation.OperationID+" "+member] = true
				send := func(value string) servertest.Answer {
					sent := d.valueOf(body).(map[string]any)
					sent[member] = value
					return env.Do(t, strings.ToUpper(method), address, alice, sent)
				}
				if a := send("Ärger & שלום\u200f 👩‍👧 " + string(rune('a'+len(tried)))); a.Status != http.StatusOK && a.Status != http.StatusCreated {
					t.Errorf("%s %s: a good %s: %d %s", method, route, member, a.Status, a.Body)
				}
				refused := slices.Clone(blanks)
				for _, r := range characters {
					refused = append(refused, "a"+string(r)+"b", string(r)+"a", "a"+string(r))
				}
				for _, value := range refused {
					a := send(value)
					var problem struct {
						Errors []struct{ Location, Message string }
					}
					if a.Status == http.StatusUnprocessableEntity {
						a.JSON(t, &problem)
					}
					if a.Status != http.StatusUnprocessableEntity || len(problem.Errors) != 1 || problem.Errors[0].Location != "body."+member {
						t.Errorf("%s %s with the %s %q: %d %s, want 422 that names body.%s once", method, route, member, value, a.Status, a.Body, member)
					}
				}
			}
		}
	}
	want := []string{
		"change-note title", "change-notebook name", "create-key name", "create-note title", "create-notebook name", "create-org name",
		"create-org-key name", "rename-key name", "rename-org name", "rename-org-key name",
	}
	for _, one := range want {
		if !tried[one] {
			t.Errorf("%s was not tried: %q", one, slices.Sorted(maps.Keys(tried)))
		}
	}
}
