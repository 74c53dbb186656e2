package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"noted/server/servertest"
)

// upload is a request with an incomplete body.
type upload struct {
	net.Conn
	t *testing.T
}

// startUpload sends a request's head and the start of its body. length is announced, unless it is negative: then
// the body is chunked.
func startUpload(t *testing.T, env *servertest.Env, route, token string, length int, body string, headers ...string) upload {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(env.URL, "http://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	media := "application/json"
	if strings.HasPrefix(route, "POST /auth/") {
		media = "application/x-www-form-urlencoded"
	}
	head := route + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(env.URL, "http://") + "\r\nContent-Type: " + media + "\r\n"
	if token != "" {
		head += "Authorization: Bearer " + token + "\r\n"
	}
	for _, header := range headers {
		head += header + "\r\n"
	}
	if length < 0 {
		body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		head += "Transfer-Encoding: chunked\r\n\r\n"
	} else {
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", length)
	}
	if _, err := io.WriteString(conn, head+body); err != nil {
		t.Fatal(err)
	}
	return upload{conn, t}
}

// answer waits for the server's answer.
func (u upload) answer() servertest.Answer {
	u.t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(u), nil)
	if err != nil {
		u.t.Fatalf("no answer: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return servertest.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
}

// metric returns the value of a metric, with its labels.
func metric(t *testing.T, env *servertest.Env, name string) float64 {
	t.Helper()
	text := string(env.Do(t, http.MethodGet, "/metrics", "", nil).Body)
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("there is no metric %s", name)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// awaitHeld waits until bodies hold that many bytes.
func awaitHeld(t *testing.T, env *servertest.Env, want float64) {
	t.Helper()
	var held float64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if held = metric(t, env, "noted_http_body_bytes"); held == want {
			return
		}
	}
	t.Fatalf("%.0f bytes are held, want %.0f", held, want)
}

const largest = 7 << 20

func TestBodiesOfOneCallerAreBoundedAndNobodyElseWaits(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	note := env.NewNote(t, alice, "before")
	_, key := env.NewKey(t, alice, "key-writer")
	begun := `{"title":"a","body":"` + strings.Repeat("x", 100_000)
	var uploads []upload
	for i := range 4 {
		token := []string{alice, key}[i%2] // a key is its owner
		uploads = append(uploads, startUpload(t, env, "POST /v1/notes", token, largest, begun))
	}
	awaitHeld(t, env, 4*largest)
	for route, length := range map[string]int{"POST /v1/notes": largest, "PATCH /v1/notes/" + note: 5 << 20} {
		a := startUpload(t, env, route, alice, length, begun).answer()
		checkProblem(t, "the fifth, "+route, a, http.StatusTooManyRequests)
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if refused := metric(t, env, `noted_http_bodies_refused_total{reason="caller"}`); refused != 2 {
		t.Errorf("%.0f are counted as refused", refused)
	}
	if a := env.Do(t, http.MethodPost, "/v1/notes", bob, map[string]string{"title": "meanwhile", "body": ""}); a.Status != http.StatusCreated {
		t.Errorf("bob: %d %s", a.Status, a.Body)
	}
	if a := env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]string{"title": "small", "body": ""}); a.Status != http.StatusCreated {
		t.Errorf("alice, within her share: %d %s", a.Status, a.Body)
	}
	// Clients that break off or stall give their share back.
	for _, u := range uploads[:2] {
		_ = u.Close()
	}
	awaitHeld(t, env, 2*largest)
	for _, u := range uploads[2:] {
		checkProblem(t, "one that stands still", u.answer(), http.StatusRequestTimeout)
	}
	awaitHeld(t, env, 0)
}

func TestABodyThatStandsStillOrDripsIsCutOff(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	for name, start := range map[string]func(t *testing.T) upload{
		"a note": func(t *testing.T) upload { return startUpload(t, env, "POST /v1/notes", alice, 1000, `{"title":"a",`) },
		"a large note": func(t *testing.T) upload {
			return startUpload(t, env, "POST /v1/notes", alice, largest, `{"title":"a","body":"`+strings.Repeat("x", 1<<20))
		},
		"chunks":         func(t *testing.T) upload { return startUpload(t, env, "POST /v1/notes", alice, -1, `{"title":"a",`) },
		"nothing at all": func(t *testing.T) upload { return startUpload(t, env, "POST /v1/keys", alice, 100, ``) },
		"a form":         func(t *testing.T) upload { return startUpload(t, env, "POST /auth/token", "", 1000, `grant_type=`) },
		"a person's form": func(t *testing.T) upload {
			return startUpload(t, env, "POST /auth/device/confirm", alice, 1000, `decision=`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, u := time.Now(), start(t) // not before it is this one's turn
			stop := make(chan struct{})
			defer close(stop)
			go func() { // a byte now and then is too slow
				for name == "a large note" {
					select {
					case <-stop:
						return
					case <-time.After(500 * time.Millisecond):
						_, _ = io.WriteString(u, "x")
					}
				}
			}()
			checkProblem(t, name, u.answer(), http.StatusRequestTimeout)
			if took := time.Since(began); took > 9*time.Second {
				t.Errorf("after %v", took)
			}
		})
	}
}

func TestABodyMayTakeItsTimeAsLongAsItArrives(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	const size, steps = 1 << 20, 14
	begun := `{"title":"slow","body":"`
	u := startUpload(t, env, "POST /v1/notes", alice, len(begun)+size+len(`"}`), begun)
	for range steps {
		time.Sleep(500 * time.Millisecond)
		_, _ = io.WriteString(u, strings.Repeat("x", size/steps))
	}
	_, _ = io.WriteString(u, strings.Repeat("x", size-size/steps*steps)+`"}`)
	if a := u.answer(); a.Status != http.StatusCreated {
		t.Errorf("after seven seconds: %d %.300s", a.Status, a.Body)
	}
}

// The deadline of a body must not end the work that follows it.
func TestARequestMayWorkLongerThanItsBodyMayTake(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "before")
	tx, err := env.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select from notes where id = $1 for update`, note); err != nil {
		t.Fatal(err)
	}
	const change = `{"title":"after"}`
	u := startUpload(t, env, "PATCH /v1/notes/"+note, alice, len(change), change)
	time.Sleep(6500 * time.Millisecond)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := u.answer(); a.Status != http.StatusOK {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

func TestNobodyHoldsABodyBeforeTheDecision(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	note := env.NewNote(t, alice, "before")
	_, reader := env.NewKey(t, alice, "key-reader")
	for name, c := range map[string]struct {
		route, token string
		status       int
	}{
		"a stranger":             {"POST /v1/notes", "", 401},
		"a key that only reads":  {"POST /v1/notes", reader, 403},
		"another's note":         {"PATCH /v1/notes/" + note, bob, 404},
		"a person's form":        {"POST /auth/device/confirm", "", 401},
		"a body that is too big": {"POST /v1/notes", alice, 413},
	} {
		length := largest
		if c.status == 413 {
			length++
		}
		began := time.Now()
		u := startUpload(t, env, c.route, c.token, length, `{"title":"a"`)
		if a := u.answer(); a.Status != c.status || time.Since(began) > 3*time.Second {
			t.Errorf("%s: %d after %v", name, a.Status, time.Since(began))
		}
		if held := metric(t, env, "noted_http_body_bytes"); held != 0 {
			t.Errorf("%s: %.0f bytes are held", name, held)
		}
	}
}

func TestFormsOfStrangersAreBoundedByTheirNetworkAndApartFromCallers(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	const form = 140 << 10
	for range 7 {
		startUpload(t, env, "POST /auth/token", "", form, "subject_token=x")
	}
	awaitHeld(t, env, 7*form)
	for _, route := range []string{"POST /auth/token", "POST /auth/device", "POST /auth/backchannel-logout/dev"} {
		a := startUpload(t, env, route, "", form, "x=").answer()
		checkProblem(t, route, a, http.StatusTooManyRequests)
	}
	if a := env.Do(t, http.MethodPost, "/v1/notes", alice, map[string]string{"title": "meanwhile", "body": ""}); a.Status != http.StatusCreated {
		t.Errorf("alice: %d %s", a.Status, a.Body)
	}
	awaitHeld(t, env, 0)
}

// largestOf returns the longest valid body of a schema, every character escaped, or why there is none.
func largestOf(schema map[string]any, schemas map[string]any) (string, error) {
	if ref, ok := schema["$ref"].(string); ok {
		return largestOf(schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any), schemas)
	}
	kind, _ := schema["type"].(string)
	if several, ok := schema["type"].([]any); ok {
		kind, _ = several[0].(string)
	}
	switch kind {
	case "object":
		var members []string
		for name, member := range schema["properties"].(map[string]any) {
			value, err := largestOf(member.(map[string]any), schemas)
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			members = append(members, strconv.Quote(name)+": "+value)
		}
		return "{" + strings.Join(members, ", ") + "}", nil
	case "boolean":
		return "false", nil
	case "string":
		if enum, ok := schema["enum"].([]any); ok {
			longest := ""
			for _, value := range enum {
				longest = max(longest, value.(string))
			}
			return strconv.Quote(longest), nil
		}
		switch schema["format"] {
		case "uuid":
			return `"` + strings.Repeat(`\u0030`, 8) + "-0000-0000-0000-" + strings.Repeat(`\u0030`, 12) + `"`, nil
		case "date-time":
			return `"2099-12-31T23:59:59.999999999+14:00"`, nil
		}
		if length, ok := schema["maxLength"].(float64); ok && length < 10_000 {
			return `"` + strings.Repeat(`\ud83d\ude00`, int(length)) + `"`, nil
		} else if ok { // of a note's body, a MiB of bytes
			return `"` + strings.Repeat(`\u0001`, int(length)) + `"`, nil
		}
	}
	return "", fmt.Errorf("how long may %v be? give it maxLength", schema)
}

func TestEveryOperationTakesTheLargestBodyThatItsSchemaAllowsAndNoMuchLargerOne(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	org, note := env.NewOrg(t, ada, "largest"), env.NewNote(t, ada, "largest")
	key, _ := env.NewKey(t, ada, "key-reader")
	notebook := env.Make(t, ada, "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "largest"})
	// Use existing targets, so that bodies are read.
	targets := strings.NewReplacer("/notes/{id}", "/notes/"+note, "/keys/{id}", "/keys/"+key, "/notebooks/{id}", "/notebooks/"+notebook, "{org}", org, "{user}", me(t, env, ada).ID)
	var document struct {
		Paths      map[string]map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	env.Do(t, http.MethodGet, "/openapi.json", "", nil).JSON(t, &document)
	bodies := 0
	for path, operations := range document.Paths {
		for method, operation := range operations {
			body, _ := operation["requestBody"].(map[string]any)
			media, _ := body["content"].(map[string]any)
			content, _ := media["application/json"].(map[string]any)
			if content == nil { // none, or a form
				continue
			}
			bodies++
			route := strings.ToUpper(method) + " " + path
			for _, status := range []string{"400", "408", "413", "415", "422", "429", "503"} {
				if _, said := operation["responses"].(map[string]any)[status]; !said {
					t.Errorf("%s does not say that it answers %s", route, status)
				}
			}
			text, err := largestOf(content["schema"].(map[string]any), document.Components.Schemas)
			if err != nil {
				t.Errorf("%s: %v", route, err)
				continue
			}
			if !json.Valid([]byte(text)) {
				t.Fatalf("%s: %.300s", route, text)
			}
			address := targets.Replace(path)
			for _, more := range []int{0, 16 << 10} {
				padded := text[:1] + strings.Repeat(" ", more) + text[1:]
				if len(text) > 1<<20 {
					padded = text[:1] + strings.Repeat(" ", more*64) + text[1:]
				}
				a := env.Do(t, strings.ToUpper(method), address, ada, padded)
				if a.Status == http.StatusNotFound && (strings.Contains(path, "{id}") || strings.Contains(path, "{user}")) {
					continue // a member, a service's key: the target comes first
				}
				if tooLarge := a.Status == http.StatusRequestEntityTooLarge; tooLarge != (more > 0) {
					t.Errorf("%s: %d for %d bytes: %.300s", route, a.Status, len(padded), a.Body)
				}
			}
		}
	}
	if bodies < 10 {
		t.Errorf("%d operations with a body were found", bodies)
	}
}
