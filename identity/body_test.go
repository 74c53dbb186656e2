package identity_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"noted/server/servertest"
)

type invalid struct {
	Title  string
	Status int
	Errors []struct{ Location, Message string }
}

// Bad bodies, sent to both ways to write a note: they go through the strict decoder, huma's
// validation and the members that distinguish null from absent.
func TestABadBodyIsTheClientsFaultAndSaysWhere(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "before")
	deep := strings.Repeat("[", 100_000)
	for _, c := range []struct {
		name, body string
		status     int
		location   string // of a 422
		says       string
	}{
		{"a duplicate name", `{"title":"a","title":"b","body":""}`, 400, "", "duplicate"},
		{"a duplicate name, escaped", `{"title":"a","body":"","\u0074itle":"b"}`, 400, "", "duplicate"},
		{"a duplicate unknown name", `{"title":"a","body":"","x":1,"x":2}`, 400, "", ""},
		{"another case beside it", `{"title":"a","TITLE":"b","body":""}`, 422, "body.TITLE", ""},
		{"another case with a bad value", `{"title":"a","Title":"` + strings.Repeat("x", 300) + `","body":""}`, 422, "body.Title", ""},
		{"NUL in the title", `{"title":"a\u0000b","body":""}`, 422, "body.title", "NUL"},
		{"NUL in the body", `{"title":"a","body":"\u0000"}`, 422, "body.body", "NUL"},
		{"NUL in a name", `{"title":"a","body":"","\u0000":1}`, 422, "", ""},
		{"a raw NUL", "{\"title\":\"a\x00b\",\"body\":\"\"}", 400, "", ""},
		{"invalid UTF-8", "{\"title\":\"\xff\",\"body\":\"\"}", 400, "", "UTF-8"},
		{"invalid UTF-8 in a name", "{\"\xff\":1,\"title\":\"a\",\"body\":\"\"}", 400, "", ""},
		{"a lone high surrogate", `{"title":"\ud800","body":""}`, 400, "", ""},
		{"a lone low surrogate", `{"title":"\udc00x","body":""}`, 400, "", ""},
		{"an unknown member", `{"title":"a","body":"","colour":"red"}`, 422, "body.colour", ""},
		{"a member of the answer", `{"title":"a","body":"","id":"0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"}`, 422, "body.id", ""},
		{"the owner", `{"title":"a","body":"","owner":{"id":"x"}}`, 422, "body.owner", ""},
		{"the version", `{"title":"a","body":"","version":7}`, 422, "body.version", ""},
		{"$schema", `{"title":"a","body":"","$schema":"x"}`, 422, "body.$schema", ""},
		{"an unknown name of 1,000 characters", `{"title":"a","body":"","` + strings.Repeat("x", 1000) + `":1}`, 422, "", ""},
		{"null for the title", `{"title":null,"body":""}`, 422, "body.title", ""},
		{"null for the body", `{"title":"a","body":null}`, 422, "body.body", ""},
		{"null", `null`, 422, "", ""},
		{"a number for the title", `{"title":7,"body":""}`, 422, "body.title", ""},
		{"a list for the title", `{"title":["a"],"body":""}`, 422, "body.title", ""},
		{"an object for the body", `{"title":"a","body":{"a":1}}`, 422, "body.body", ""},
		{"true for the body", `{"title":"a","body":true}`, 422, "body.body", ""},
		{"an empty title", `{"title":"","body":""}`, 422, "body.title", ""},
		{"a title of 201", `{"title":"` + strings.Repeat("☂", 201) + `","body":""}`, 422, "body.title", ""},
		{"a body of a byte too many", `{"title":"a","body":"` + strings.Repeat("x", 1<<20+1) + `"}`, 422, "body.body", ""},
		{"a notebook of a number", `{"title":"a","body":"","notebook_id":7}`, 422, "body.notebook_id", ""},
		{"a notebook that is no id", `{"title":"a","body":"","notebook_id":"x"}`, 422, "body.notebook_id", ""},
		{"trailing data", `{"title":"a","body":""} x`, 400, "", ""},
		{"two values", `{"title":"a","body":""}{"title":"a","body":""}`, 400, "", ""},
		{"a trailing comma", `{"title":"a","body":"",}`, 400, "", ""},
		{"half of it", `{"title":"a","body":"`, 400, "", ""},
		{"no JSON", `title=a&body=b`, 400, "", ""},
		{"a BOM", "\xef\xbb\xbf{\"title\":\"a\",\"body\":\"\"}", 400, "", ""},
		{"100,000 open brackets", deep, 400, "", ""},
		{"deep within a member", `{"title":"a","body":` + deep + strings.Repeat("]", 100_000) + `}`, 400, "", ""},
		{"deep within an unknown member", `{"title":"a","body":"","x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, 422, "body.x", ""},
		{"deep objects", strings.Repeat(`{"a":`, 100_000), 400, "", ""},
		{"empty", ``, 400, "", ""},
		{"blanks", "  \n", 400, "", ""},
		{"a list", `[]`, 422, "", ""},
		{"a list of one", `[{"title":"a","body":""}]`, 422, "", ""},
		{"a string", `"a"`, 422, "", ""},
		{"a number", `7`, 422, "", ""},
		{"an enormous number", `{"title":"a","body":"","x":1e999999}`, 0, "", ""},
		{"over 7 MiB", `{"title":"a","body":"` + strings.Repeat("x", 7<<20) + `"}`, 413, "", ""},
	} {
		for _, way := range [][2]string{{"POST", "/v1/notes"}, {"PATCH", "/v1/notes/" + note}} {
			t.Run(c.name+" "+way[0], func(t *testing.T) {
				a := env.Do(t, way[0], way[1], alice, c.body)
				p := checkFault(t, env, a)
				if c.status != 0 && a.Status != c.status && !(c.status == 422 && a.Status == 400 && c.location == "") {
					t.Errorf("got %d %.300s", a.Status, a.Body)
				}
				if c.says != "" && !strings.Contains(string(a.Body), c.says) {
					t.Errorf("it does not say %q: %.300s", c.says, a.Body)
				}
				if a.Status == 422 && len(p.Errors) == 0 {
					t.Errorf("no errors in %.300s", a.Body)
				}
				found := c.location == ""
				for _, e := range p.Errors {
					if e.Location == c.location {
						found = true
					}
				}
				if !found {
					t.Errorf("%s is not named: %.300s", c.location, a.Body)
				}
				if len(a.Body) > 4096 {
					t.Errorf("the answer is %d bytes long", len(a.Body))
				}
			})
		}
	}
	// None of that was written.
	if n := number(t, env, `select count(*) from notes`); n != 1 {
		t.Errorf("%d notes were made", n-1)
	}
	if n := number(t, env, `select count(*) from notes where title = 'before' and version = 1`); n != 1 {
		t.Error("the note was changed")
	}
}

// checkFault requires a 4xx problem that shows nothing internal.
func checkFault(t testing.TB, env *servertest.Env, a servertest.Answer) (p invalid) {
	t.Helper()
	if a.Status < 400 || a.Status > 499 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %v %.300s\n%.1000s", a.Status, a.Header, a.Body, logOf(env, a))
	}
	a.JSON(t, &p)
	if p.Status != a.Status || p.Title == "" {
		t.Errorf("the problem is %.300s", a.Body)
	}
	for _, leak := range []string{"huma", "jsontext", "Go ", "goroutine", "strictjson", "SQLSTATE"} {
		if strings.Contains(string(a.Body), leak) {
			t.Errorf("it shows %q: %.300s", leak, a.Body)
		}
	}
	return p
}

func TestOnlyJSONIsTakenForABody(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	const good = `{"title":"a","body":""}`
	note := env.NewNote(t, alice, "before")
	for _, way := range [][3]string{{"POST", "/v1/notes", "201"}, {"PATCH", "/v1/notes/" + note, "200"}} {
		for _, c := range []struct {
			media  string
			status string
		}{
			{"application/json", way[2]},
			{"application/json; charset=utf-8", way[2]},
			{"Application/JSON", "4xx or good"},
			{"text/plain", "415"},
			{"text/html", "415"},
			{"application/xml", "415"},
			{"application/cbor", "415"},
			{"application/x-www-form-urlencoded", "415"},
			{"multipart/form-data; boundary=x", "415"},
			{"application/jsonx", "415"},
			{"text/json", "4xx or good"},
			{"garbage", "415"},
			{";", "4xx or good"}, // no media type in it
			{"", "4xx or good"},  // none at all
		} {
			r, err := http.NewRequestWithContext(t.Context(), way[0], env.URL+way[1], strings.NewReader(good))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+alice)
			if c.media != "" {
				r.Header.Set("Content-Type", c.media)
			}
			a := servertest.Send(t, http.DefaultTransport, r)
			if c.status == "4xx or good" {
				if fmt.Sprint(a.Status) != way[2] {
					checkFault(t, env, a)
				}
				continue
			}
			if fmt.Sprint(a.Status) != c.status {
				t.Errorf("%s of %q: %d %s", way[0], c.media, a.Status, a.Body)
			} else if a.Status > 299 {
				checkFault(t, env, a)
			}
		}
	}
	// A body that claims to be compressed is not read as plain.
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(good))
	_ = z.Close()
	checkFault(t, env, env.Do(t, "POST", "/v1/notes", alice, packed.Bytes(), "Content-Encoding", "gzip"))
	checkFault(t, env, env.Do(t, "POST", "/v1/notes", alice, packed.Bytes()))
}

// raw sends bytes as they are and reads one answer.
func raw(t testing.TB, env *servertest.Env, text string) servertest.Answer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(env.URL, "http://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	// The client stops, in the middle or not.
	_ = conn.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	return servertest.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
}

func TestABrokenUploadIsTheClientsFault(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	note := env.NewNote(t, alice, "before")
	for _, way := range []string{"POST /v1/notes", "PATCH /v1/notes/" + note} {
		head := way + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + alice + "\r\nContent-Type: application/json\r\n"
		for name, rest := range map[string]string{
			"truncated chunks":        "Transfer-Encoding: chunked\r\n\r\n10\r\n{\"title\":\"a\",",
			"chunks with no end":      "Transfer-Encoding: chunked\r\n\r\n17\r\n{\"title\":\"a\",\"body\":\"\"}\r\n",
			"a chunk size of letters": "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
			"an enormous chunk":       "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
			"shorter than it says":    "Content-Length: 100\r\n\r\n{\"title\":\"a\",\"body\":\"\"}",
		} {
			a := raw(t, env, head+rest)
			if a.Status < 400 || a.Status > 499 {
				t.Errorf("%s, %s: %d %s\n%s", way, name, a.Status, a.Body, logOf(env, a))
			} else if a.Header.Get("X-Request-Id") != "" {
				checkFault(t, env, a)
			}
		}
	}
	if n := number(t, env, `select count(*) from notes where version > 1 or title <> 'before'`); n != 0 {
		t.Error("half a body was written")
	}
}
