package contract

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const small = `{"openapi":"3.1.0","info":{"title":"t","version":"1"},
	"components":{"schemas":{
		"Error":{"type":"object","required":["title"],"properties":{"title":{"type":"string"}},"additionalProperties":false},
		"Note":{"type":"object","required":["id","org_id","notebook_id"],"additionalProperties":false,
			"properties":{"id":{"type":"string","format":"uuid"},"org_id":{"type":["string","null"]},"notebook_id":{"type":"string"}}}}},
	"paths":{"/v1/notes/{id}":{"get":{"operationId":"get-note",
		"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],
		"responses":{
			"200":{"description":"","headers":{"ETag":{"required":true,"schema":{"type":"string"}}},"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Note"}}}},
			"204":{"description":""},
			"404":{"description":"","content":{"application/problem+json":{"schema":{"$ref":"#/components/schemas/Error"}}}}}}}}}`

func TestAnAnswerThatDiffersFromTheDocumentIsFound(t *testing.T) {
	const id, other, note = "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "application/problem+json", `{"id":"0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","org_id":null,"notebook_id":"b"}`
	for name, c := range map[string]struct {
		method, path, media string
		status              int
		body                string
		differs             string // empty for no difference
	}{
		"as documented":                       {"GET", "/v1/notes/" + id, "application/json", 200, note, ""},
		"with a parameter of the media type":  {"GET", "/v1/notes/" + id, "application/json; charset=utf-8", 200, note, ""},
		"to HEAD":                             {"HEAD", "/v1/notes/" + id, "application/json", 200, "", ""},
		"a problem":                           {"GET", "/v1/notes/" + id, other, 404, `{"title":"t"}`, ""},
		"nothing":                             {"GET", "/v1/notes/" + id, "", 204, "", ""},
		"a status that is not listed":         {"GET", "/v1/notes/" + id, other, 409, `{"title":"t"}`, "status"},
		"and to HEAD":                         {"HEAD", "/v1/notes/" + id, other, 409, "", "status"},
		"a body where none is":                {"GET", "/v1/notes/" + id, "", 204, note, "no body"},
		"another media type":                  {"GET", "/v1/notes/" + id, "text/plain", 200, note, "text/plain"},
		"no media type":                       {"GET", "/v1/notes/" + id, "", 200, note, "not listed"},
		"no JSON":                             {"GET", "/v1/notes/" + id, "application/json", 200, `{`, "JSON"},
		"null where it may not be":            {"GET", "/v1/notes/" + id, "application/json", 200, strings.ReplaceAll(note, `"b"`, "null"), "notebook_id"},
		"a member left out":                   {"GET", "/v1/notes/" + id, "application/json", 200, strings.ReplaceAll(note, `,"notebook_id":"b"`, ""), "notebook_id"},
		"a member that nobody knows":          {"GET", "/v1/notes/" + id, "application/json", 200, strings.ReplaceAll(note, `"org_id"`, `"more":1,"org_id"`), "more"},
		"an id that is none":                  {"GET", "/v1/notes/" + id, "application/json", 200, strings.ReplaceAll(note, id, "7"), "uuid"},
		"another problem":                     {"GET", "/v1/notes/" + id, other, 404, `{"detail":"t"}`, "title"},
		"no such route":                       {"GET", "/v2", other, 404, `{"title":"t"}`, ""},
		"no such route, and no problem":       {"GET", "/v2", other, 404, `{}`, "title"},
		"a route that is served all the same": {"GET", "/v2", "application/json", 200, note, "no such operation"},
		"another method":                      {"PUT", "/v1/notes/" + id, "application/json", 200, note, "no such operation"},
		"an escaped slash":                    {"GET", "/v1%2Fnotes/" + id, other, 404, `{"title":"t"}`, ""},
		"a page":                              {"GET", "/docs/", "text/html", 200, "<p>", ""},
	} {
		document, err := Parse([]byte(small))
		if err != nil {
			t.Fatal(err)
		}
		held := Hold(document)
		answers := held.Around(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.media != "" {
				w.Header().Set("Content-Type", c.media)
			}
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		answers.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c.method, c.path, nil))
		switch found := strings.Join(held.Differences(), "\n"); {
		case c.differs == "" && found != "":
			t.Errorf("%s: found %s", name, found)
		case c.differs != "" && !strings.Contains(found, c.differs):
			t.Errorf("%s: found %q, want one that says %q", name, found, c.differs)
		}
	}
}

func TestAHeaderThatIsPromisedIsMissed(t *testing.T) {
	document, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/notes/x", nil)
	if err := document.Check(r, 200, http.Header{"Content-Type": {"application/json"}}, nil); err == nil || !strings.Contains(err.Error(), "ETag") {
		t.Errorf("got %v", err)
	}
}

func TestADocumentWhoseExampleDoesNotFitIsNone(t *testing.T) {
	for example, valid := range map[string]bool{`"7"`: true, `7`: false} {
		document, err := Parse([]byte(strings.Replace(small, `"schema":{"type":"string"}}],`, `"example":`+example+`,"schema":{"type":"string"}}],`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := document.Valid(t.Context()); (err == nil) != valid {
			t.Errorf("the example %s of a string: %v", example, err)
		}
	}
}
