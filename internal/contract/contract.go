package contract

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

// Document is a server's OpenAPI document, ready to check answers against.
type Document struct {
	*openapi3.T
	routes *http.ServeMux // its handlers are operations, which are never called
}

type operation struct{ *openapi3.Operation }

func (operation) ServeHTTP(http.ResponseWriter, *http.Request) {}

var (
	parsed = map[string]*Document{} // by text
	lock   sync.Mutex
)

// Parse reads a document. It caches documents by their text.
func Parse(text []byte) (*Document, error) {
	lock.Lock()
	defer lock.Unlock()
	if d := parsed[string(text)]; d != nil {
		return d, nil
	}
	whole, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	d := &Document{whole, http.NewServeMux()}
	for path, item := range whole.Paths.Map() {
		for method, op := range item.Operations() {
			d.routes.Handle(method+" "+path, operation{op})
		}
	}
	parsed[string(text)] = d
	return d, nil
}

// Valid returns what is wrong with the document itself, its examples included; nil if it is valid OpenAPI.
func (d *Document) Valid(ctx context.Context) error {
	return d.Validate(ctx, openapi3.EnableExamplesValidation())
}

// undocumented are the routes for people that the document does not list; a final * stands for all below.
var undocumented = []string{"/", "/invitation", "/favicon.ico", "/static/*", "/docs", "/docs/*", "/openapi.json", "/metrics"}

func isUndocumented(path string) bool {
	return slices.ContainsFunc(undocumented, func(route string) bool {
		below, open := strings.CutSuffix(route, "*")
		return path == route || open && strings.HasPrefix(path, below)
	})
}

// Check returns how an answer differs from the document; nil if it does not. It does if its operation does not
// list the status, a required header is missing, or the body has another media type or does not fit its schema.
// For a route that is not in the document, a problem must be well formed, and only undocumented may answer
// otherwise.
func (d *Document) Check(r *http.Request, status int, header http.Header, body []byte) error {
	// Use the path as sent, as the server's router does: an escaped slash is no slash.
	asked := &http.Request{Method: r.Method, URL: &url.URL{Path: cmp.Or(r.URL.RawPath, r.URL.Path)}}
	handler, _ := d.routes.Handler(asked)
	op, documented := handler.(operation)
	if !documented {
		return d.checkOther(r, status, header, body)
	}
	response := op.Responses.Status(status)
	if response == nil {
		return fmt.Errorf("%s does not list the status", op.OperationID)
	}
	for name, h := range response.Value.Headers {
		if h.Value.Required && header.Get(name) == "" {
			return fmt.Errorf("%s lists the header %s, which is not there", op.OperationID, name)
		}
	}
	switch {
	case r.Method == http.MethodHead:
		return nil
	case len(response.Value.Content) == 0 && len(body) > 0:
		return fmt.Errorf("%s lists no body", op.OperationID)
	case len(response.Value.Content) == 0:
		return nil
	}
	return checkBody(response.Value.Content, header.Get("Content-Type"), body)
}

func (d *Document) checkOther(r *http.Request, status int, header http.Header, body []byte) error {
	media, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	switch {
	case media == problemType && r.Method != http.MethodHead:
		return checkBody(openapi3.NewContentWithSchemaRef(d.Components.Schemas["Error"], []string{problemType}), media, body)
	case !isUndocumented(r.URL.Path) && status < 400:
		return errors.New("the document lists no such operation")
	}
	return nil
}

const problemType = "application/problem+json"

// options check a body against its schema. They omit the JSON Schema 2020-12 validator: it is built anew for each
// value, and checks nothing more in our schemas.
var options = []openapi3.SchemaValidationOption{
	openapi3.MultiErrors(), openapi3.VisitAsResponse(), openapi3.EnableFormatValidation(),
	openapi3.WithStringFormatValidator("uuid", openapi3.NewRegexpFormatValidator(openapi3.FormatOfStringForUUIDOfRFC9562)),
}

func checkBody(content openapi3.Content, media string, body []byte) error {
	found := content.Get(media)
	if media == "" || found == nil {
		return fmt.Errorf("a body of the type %q is not listed", media)
	}
	if base, _, _ := mime.ParseMediaType(media); base != "application/json" && base != problemType {
		return nil
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return fmt.Errorf("the body is no JSON: %w", err)
	}
	return found.Schema.Value.VisitJSON(value, options...)
}

// Held collects the differences of one server's answers, each once.
type Held struct {
	document *Document
	mu       sync.Mutex
	found    []string
}

// Hold checks a server's answers against the document.
func Hold(document *Document) *Held { return &Held{document: document} }

// Differences returns what was found so far.
func (h *Held) Differences() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.found)
}

// Around checks every answer of next.
func (h *Held) Around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &recorder{ResponseWriter: w}
		next.ServeHTTP(seen, r)
		if seen.status == 0 && r.Context().Err() != nil {
			return // the client has gone: nobody gets an answer
		}
		seen.start(http.StatusOK)
		if err := h.document.Check(r, seen.status, seen.header, seen.body.Bytes()); err != nil {
			h.note(fmt.Sprintf("%s %s answers %d: %v", r.Method, r.URL.Path, seen.status, err))
		}
	})
}

func (h *Held) note(difference string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.found, difference) {
		h.found = append(h.found, difference)
	}
}

// recorder keeps what is written.
type recorder struct {
	http.ResponseWriter
	status int
	header http.Header
	body   bytes.Buffer
}

// start keeps the status and the headers as they are sent.
func (w *recorder) start(status int) {
	if w.status == 0 && status >= 200 {
		w.status, w.header = status, w.Header().Clone()
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	w.start(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *recorder) Write(p []byte) (int, error) {
	w.start(http.StatusOK)
	w.body.Write(p)
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
