package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"noted/server/servertest"
)

// held sends a request with an incomplete body, and returns how to finish it.
func held(t *testing.T, env *servertest.Env, method, path, token, body string) (finish func() servertest.Answer) {
	t.Helper()
	reader, writer := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), method, env.URL+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(path, "/auth/") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.ContentLength = int64(len(body))
	done := make(chan servertest.Answer, 1)
	go func() { done <- servertest.Send(t, &http.Transport{DisableKeepAlives: true}, r) }()
	if _, err := io.WriteString(writer, body[:1]); err != nil {
		t.Fatal(err)
	}
	// The server has decided when it asks for the body: the credential was used.
	time.Sleep(200 * time.Millisecond)
	return func() servertest.Answer {
		_, _ = io.WriteString(writer, body[1:])
		_ = writer.Close()
		return <-done
	}
}

// A stolen session must not outlive its end through an earlier request.
func TestCredentialThatEndsWhileItsRequestWaitsWritesNothing(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	env.Exec(t, `insert into device_logins (device_hash, user_code, expires_at) values (sha256('device'), 'BCDFGHJK', now() + interval '10 minutes')`)
	const note, key, change = `{"title":"late","body":"late"}`, `{"name":"late","role":"key-writer"}`, `{"title":"late"}`
	for name, one := range map[string]struct {
		method, path, body string
		byKey              bool
		end                string
	}{
		"session ended, key made":    {"POST", "/v1/keys", key, false, "session"},
		"session ended, note made":   {"POST", "/v1/notes", note, false, "session"},
		"session ended, changed":     {"PATCH", "/v1/notes/%s", change, false, "session"},
		"session ended, key named":   {"PATCH", "/v1/keys/%k", `{"name":"late"}`, false, "session"},
		"session ended, key rotated": {"POST", "/v1/keys/%k/rotate", `{"overlap":"0s"}`, false, "session"},
		"key revoked, note made":     {"POST", "/v1/notes", note, true, "key"},
		"key revoked, note changed":  {"PATCH", "/v1/notes/%s", change, true, "key"},
		"user locked, note made":     {"POST", "/v1/notes", note, false, "lock"},
		"user locked, by key":        {"POST", "/v1/notes", note, true, "lock"},
		"session ended, device":      {"POST", "/auth/device/confirm", "decision=approve&user_code=BCDFGHJK", false, "session"},
		"key expired, note made":     {"POST", "/v1/notes", note, true, "expiry"},
		"key expired, note changed":  {"PATCH", "/v1/notes/%s", change, true, "expiry"},
	} {
		t.Run(name, func(t *testing.T) {
			session, other := env.SignIn(t, "bob"), env.SignIn(t, "bob")
			keyID, keyToken := env.NewKey(t, session, "key-writer")
			id := env.NewNote(t, session, "as it was")
			token := session
			if one.byKey {
				token = keyToken
			}
			path := strings.NewReplacer("%s", id, "%k", keyID).Replace(one.path)
			var me struct{ ID string }
			env.Do(t, "GET", "/v1/me", other, nil).JSON(t, &me)
			finish := held(t, env, one.method, path, token, one.body)
			ended := servertest.Answer{Status: http.StatusNoContent}
			switch one.end {
			case "session":
				ended = env.Do(t, "DELETE", "/v1/me/sessions", other, nil)
			case "key":
				ended = env.Do(t, "DELETE", "/v1/keys/"+keyID, other, nil)
			case "lock":
				ended = env.Do(t, "POST", "/v1/admin/users/"+me.ID+"/lock", ada, nil)
				defer env.Do(t, "POST", "/v1/admin/users/"+me.ID+"/unlock", ada, nil)
			case "expiry":
				env.Exec(t, `update key_secrets set expires_at = created_at + interval '1 microsecond' where key_id = $1`, keyID)
			}
			if ended.Status != http.StatusNoContent {
				t.Fatalf("ending it: %d %s", ended.Status, ended.Body)
			}
			a := finish()
			// It looks like any other failed authentication, header by header.
			ordinary := env.Do(t, one.method, path, "nsess_nonsense", one.body)
			for _, answer := range []servertest.Answer{a, ordinary} {
				for _, own := range []string{"Date", "X-Request-Id"} {
					if len(answer.Header.Values(own)) != 1 {
						t.Errorf("%s: %q", own, answer.Header.Values(own))
					}
					answer.Header.Del(own)
				}
			}
			a.Header.Del("Connection") // the test's transport keeps no connection
			if diff := cmp.Diff(ordinary, a); diff != "" || a.Status != http.StatusUnauthorized || string(a.Body) != unauthorizedBody {
				t.Errorf("the late answer is %d %s; it differs from the ordinary one (-ordinary +late):\n%s", a.Status, a.Body, diff)
			}
			var late int
			err := env.Pool.QueryRow(t.Context(), `select (select count(*) from notes where title = 'late') + (select count(*) from keys where name = 'late')
				+ (select count(*) from device_logins where decided_at is not null)`).Scan(&late)
			if err != nil || late != 0 {
				t.Errorf("%d rows were written, %v", late, err)
			}
		})
	}
}

// The record names the holder of the credential that ended late.
func TestLateFailureIsRecordedForWhoeverTheCredentialWas(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	var service struct{ ID, Secret string }
	env.Do(t, "POST", "/v1/orgs/"+org+"/keys", alice, `{"name":"robot","org_role":"writer","role":"key-writer"}`).JSON(t, &service)
	bob := env.SignIn(t, "bob")
	for object, one := range map[string]struct{ token, body, end, kind, name string }{
		"key":  {service.Secret, `{"title":"late","body":"b","org_id":"` + org + `"}`, `update keys set revoked_at = now() where name = 'robot'`, "service", "robot"},
		"user": {bob, `{"title":"late","body":"b"}`, `update sessions set ended_at = now(), id_token = null where user_id = (select id from users where name = 'bob')`, "user", "bob"},
	} {
		finish := held(t, env, "POST", "/v1/notes", one.token, one.body)
		env.Exec(t, one.end)
		if a := finish(); a.Status != http.StatusUnauthorized {
			t.Fatalf("%s: %d %s", object, a.Status, a.Body)
		}
		var kind, name string
		var inOrg bool
		err := env.Pool.QueryRow(t.Context(), `select actor_kind, actor_name, org_id is not null from audit_events where action = 'auth.fail' and object = $1`, object).Scan(&kind, &name, &inOrg)
		if err != nil || kind != one.kind || name != one.name || inOrg != (object == "key") {
			t.Errorf("the %s is recorded as %s %s, in an organization: %t (%v)", object, kind, name, inOrg, err)
		}
	}
}

// The work to refuse a body must not grow with its square.
func TestBodyOfManyUnknownMembersIsRefusedAtOnceAndBriefly(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	var body strings.Builder
	body.WriteString(`{"title":"a","body":""`)
	for i := range 50_000 {
		fmt.Fprintf(&body, `,"%x":0`, i)
	}
	body.WriteString(`}`)
	a := env.Do(t, "POST", "/v1/notes", alice, body.String())
	var told struct{ Errors []struct{ Location string } }
	a.JSON(t, &told)
	if n := len(told.Errors); a.Status != http.StatusUnprocessableEntity || len(a.Body) > 16<<10 || n < 2 || n > 51 || told.Errors[n-1].Location != "…" {
		t.Errorf("%d, %d bytes, %d errors: %s", a.Status, len(a.Body), n, a.Body)
	}
}

// A forged cursor, with a correct checksum, has a time that PostgreSQL lacks.
func TestForgedCursorIsRefused(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	for _, micros := range []int64{-300_000_000_000_000_000, -210_866_803_200_000_001, -1 << 63, 1<<63 - 1, 300_000_000_000_000_000} {
		raw := binary.BigEndian.AppendUint64(nil, uint64(micros))
		raw = append(raw, make([]byte, 16)...)
		sum := sha256.Sum256(append([]byte("noted cursor 1 notes \x00"), raw...))
		cursor := base64.RawURLEncoding.EncodeToString(append(raw, sum[:8]...))
		if a := env.Do(t, "GET", "/v1/notes?cursor="+cursor, alice, nil); a.Status != http.StatusUnprocessableEntity {
			t.Errorf("%d: %d %s", micros, a.Status, a.Body)
		}
	}
}

// A key that ends while it is made is refused like any past end.
func TestKeyThatEndsWhileItIsMadeIsInvalid(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	for i := range 60 {
		until := time.Now().Add(time.Duration(i) * 100 * time.Microsecond).UTC().Format(time.RFC3339Nano)
		a := env.Do(t, "POST", "/v1/keys", alice, map[string]any{"name": "brief", "expires_at": until})
		if a.Status != http.StatusCreated && a.Status != http.StatusUnprocessableEntity {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
}

// A browser drops a cookie of over 4,096 bytes, which would lose the sign-in.
func TestLongReturnToLosesNoSignIn(t *testing.T) {
	env := servertest.New(t)
	for _, path := range []string{"/x?" + strings.Repeat("&a=1", 480), "/x?" + strings.Repeat("&", 2040), "/" + strings.Repeat("é", 1000)} {
		a := env.Do(t, "GET", "/auth/login?return_to="+url.QueryEscape(path), "", nil)
		if a.Status != http.StatusFound || len(a.Header.Get("Set-Cookie")) > 4096 {
			t.Errorf("%d, a cookie of %d bytes", a.Status, len(a.Header.Get("Set-Cookie")))
		}
	}
}

// A client that holds its body back delays neither the answer nor the connection's end.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	env := servertest.New(t)
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env.URL+"/v1/notes", reader)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 1000
	done := make(chan int, 1)
	go func() {
		response, err := (&http.Transport{}).RoundTrip(r)
		if err != nil {
			done <- 0
			return
		}
		_ = response.Body.Close()
		done <- response.StatusCode
	}()
	select {
	case status := <-done:
		if status != http.StatusUnauthorized {
			t.Errorf("got %d", status)
		}
	case <-time.After(30 * time.Second):
		t.Error("no answer while the body is held back")
	}
}

// Decisions made when a request came are made again after its body: the role, the membership or the notebook may
// have changed.
func TestWhatChangesWhileARequestWaitsForItsBodyIsDecidedAgain(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	org := env.NewOrg(t, alice, "acme")
	path := "/v1/orgs/" + org
	bob := env.Join(t, alice, org, "bob", "admin")
	env.Join(t, alice, org, "carol", "reader")
	var me, carol struct{ ID string }
	env.Do(t, http.MethodGet, "/v1/me", bob, nil).JSON(t, &me)
	env.Do(t, http.MethodGet, "/v1/me", env.SignIn(t, "carol"), nil).JSON(t, &carol)
	notebook := env.Make(t, alice, path+"/notebooks", map[string]any{"name": "n"})
	note := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": notebook})
	key := env.Make(t, alice, path+"/keys", map[string]any{"name": "k", "org_role": "reader"})
	member := path + "/members/" + me.ID
	for name, one := range map[string]struct {
		method, path, body string
		meanwhile          string // what alice changes for bob
		status             int
		permission         string
	}{
		"writes a note, as a reader":           {"PATCH", "/v1/notes/" + note, `{"title":"late"}`, "reader", 403, "note:org write"},
		"writes a note, outside":               {"PATCH", "/v1/notes/" + note, `{"title":"late"}`, "", 404, ""},
		"writes a note, restricted":            {"PATCH", "/v1/notes/" + note, `{"title":"late"}`, "writer, restricted", 404, ""},
		"makes a note, as a reader":            {"POST", "/v1/notes", `{"title":"late","body":"b","org_id":"` + org + `"}`, "reader", 403, "note:org write"},
		"makes a note, outside":                {"POST", "/v1/notes", `{"title":"late","body":"b","org_id":"` + org + `"}`, "", 404, ""},
		"names the organization, as a writer":  {"PATCH", path, `{"name":"late"}`, "writer", 403, "org write"},
		"names the organization, outside":      {"PATCH", path, `{"name":"late"}`, "", 404, ""},
		"invites, as a writer":                 {"POST", path + "/invitations", `{"email":"late@dev.example","role":"admin"}`, "writer", 403, "invitation write"},
		"makes a key, as a writer":             {"POST", path + "/keys", `{"name":"late","org_role":"admin"}`, "writer", 403, "key:org write"},
		"names a key, as a writer":             {"PATCH", path + "/keys/" + key, `{"name":"late"}`, "writer", 403, "key:org write"},
		"rotates a key, outside":               {"POST", path + "/keys/" + key + "/rotate", `{"overlap":"0s"}`, "", 404, ""},
		"changes a role, as a writer":          {"PATCH", path + "/members/" + carol.ID, `{"role":"admin"}`, "writer", 403, "member write"},
		"makes a notebook, as a reader":        {"POST", path + "/notebooks", `{"name":"late"}`, "reader", 403, "notebook write"},
		"names a notebook, as a reader":        {"PATCH", path + "/notebooks/" + notebook, `{"name":"late"}`, "reader", 403, "notebook write"},
		"names a notebook, restricted":         {"PATCH", path + "/notebooks/" + notebook, `{"name":"late"}`, "writer, restricted", 404, ""},
		"restricts a notebook, as a writer":    {"PATCH", path + "/notebooks/" + notebook, `{"restricted":true}`, "writer", 403, "notebook:restricted write"},
		"grants on a notebook, as a writer":    {"PUT", path + "/notebooks/" + notebook + "/grants/" + carol.ID, `{"access":"write"}`, "writer", 403, "grant write"},
		"grants on a note, outside":            {"PUT", path + "/notes/" + note + "/grants/" + carol.ID, `{"access":"write"}`, "", 404, ""},
		"writes a note when nothing changed":   {"PATCH", "/v1/notes/" + note, `{"title":"t"}`, "admin", 200, ""},
		"writes a note when another role does": {"PATCH", "/v1/notes/" + note, `{"title":"t"}`, "writer", 200, ""},
	} {
		finish := held(t, env, one.method, one.path, bob, one.body)
		role, restricted, _ := strings.Cut(one.meanwhile, ", ")
		meanwhile := func(method, path string, body any) {
			t.Helper()
			if a := env.Do(t, method, path, alice, body); a.Status/100 != 2 {
				t.Fatalf("%s: %s %s: %d %s", name, method, path, a.Status, a.Body)
			}
		}
		if role == "" {
			meanwhile(http.MethodDelete, member, nil)
		} else {
			meanwhile(http.MethodPatch, member, map[string]string{"role": role})
		}
		if restricted != "" {
			meanwhile(http.MethodPatch, path+"/notebooks/"+notebook, map[string]bool{"restricted": true})
		}
		checkStatus(t, name, finish(), one.status, one.permission)
		if role == "" {
			env.Join(t, alice, org, "bob", "admin")
		} else {
			meanwhile(http.MethodPatch, member, map[string]string{"role": "admin"})
		}
		meanwhile(http.MethodPatch, path+"/notebooks/"+notebook, map[string]bool{"restricted": false})
	}
	var late int
	if err := env.Pool.QueryRow(t.Context(), `
		select (select count(*) from notes where title = 'late') + (select count(*) from notebooks where name = 'late') + (select count(*) from orgs where name = 'late')
			+ (select count(*) from keys where name = 'late') + (select count(*) from invitations where email = 'late@dev.example') + (select count(*) from grants)`).Scan(&late); err != nil || late != 0 {
		t.Errorf("%d things were written all the same (%v)", late, err)
	}
}
