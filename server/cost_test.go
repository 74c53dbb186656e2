package server_test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"noted/server"
	"noted/server/servertest"
)

// wire counts the traffic between a server and its database.
type wire struct{ asked, answered atomic.Int64 }

// through reroutes databaseURL over the wire.
func (w *wire) through(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	port := query.Get("port")
	if port == "" {
		port = "5432"
	}
	socket := "/.s.PGSQL." + port
	there, here := query.Get("host")+socket, t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(here, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", there)
			if err != nil {
				_ = from.Close()
				return
			}
			pass := func(into, out net.Conn, counts *atomic.Int64) {
				_, _ = io.Copy(into, io.TeeReader(out, counter{counts}))
				_ = into.Close()
			}
			go pass(to, from, &w.asked)
			go pass(from, to, &w.answered)
		}
	}()
	query.Set("host", here)
	u.RawQuery = query.Encode()
	return u.String()
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// cost returns the least traffic of several tries of a request: some include a credential lookup or others'
// notifications.
func (w *wire) cost(t *testing.T, env *servertest.Env, method, path, token string) (status int, asked, answered int64) {
	t.Helper()
	for range 4 {
		before, back := w.asked.Load(), w.answered.Load()
		a := env.Do(t, method, path, token, nil)
		if n := w.asked.Load() - before; asked == 0 || n < asked {
			asked = n
		}
		if n := w.answered.Load() - back; answered == 0 || n < answered {
			answered = n
		}
		status = a.Status
	}
	return status, asked, answered
}

// A refused caller cannot tell by the time whether something exists, or how large it is: the database gets the
// same question, and its answer has about the same size, for nothing, something small and something large.
func TestWhatIsRefusedCostsTheSameWhateverIsBehindIt(t *testing.T) {
	t.Parallel()
	var w wire
	env := servertest.New(t, withPolicy(t, "p, user, deadzone:own, read"), func(o *server.Options) {
		o.Settings.DatabaseURL = w.through(t, o.Settings.DatabaseURL)
	})
	alice, carol := env.SignIn(t, "alice"), env.SignIn(t, "carol")
	org := env.NewOrg(t, alice, "o")
	path := "/v1/orgs/" + org
	bob := env.Join(t, alice, org, "bob", "reader") // reads nothing restricted, and manages nothing
	restricted := env.Make(t, alice, path+"/notebooks", map[string]any{"name": "r", "restricted": true})
	note := func(size int, more map[string]any) string {
		in := map[string]any{"title": strings.Repeat("t", min(max(size, 1), 200)), "body": strings.Repeat("0123456789abcdef", size/16)}
		for name, value := range more {
			in[name] = value
		}
		return env.Make(t, alice, "/v1/notes", in)
	}
	dead := func(size int) string {
		id := note(size, nil)
		if a := env.Do(t, http.MethodDelete, "/v1/notes/"+id, alice, nil); a.Status != http.StatusNoContent {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		return id
	}
	inRestricted := map[string]any{"org_id": org, "notebook_id": restricted}
	name := func(size int) string { return strings.Repeat("n", min(max(size, 1), 100)) }
	// What an id may name, small or large, by the part of the path before it.
	things := map[string]func(size int) string{
		"/v1/notes":    func(size int) string { return note(size, nil) },
		"/v1/deadzone": dead,
		"/v1/keys": func(size int) string {
			return env.Make(t, alice, "/v1/keys", map[string]any{"name": name(size)})
		},
		"/v1/orgs/{org}/notes": func(size int) string { return note(size, inRestricted) },
		"/v1/orgs/{org}/notebooks": func(size int) string {
			return env.Make(t, alice, path+"/notebooks", map[string]any{"name": name(size), "restricted": true})
		},
		"/v1/orgs/{org}/keys": func(size int) string {
			return env.Make(t, alice, path+"/keys", map[string]any{"name": name(size), "org_role": "reader"})
		},
		"/v1/orgs/{org}/invitations": func(size int) string {
			return env.Make(t, alice, path+"/invitations", map[string]any{"email": name(size) + "@dev.example", "role": "reader"})
		},
		"/v1/orgs/{org}/members": nil, // the path names them
		"/v1/me/sessions":        nil, // no statement finds others': each asks for the caller's own
		"/v1/me/identities":      nil,
		"/v1/admin/users":        nil, // an area: refused before any lookup
	}
	const small, large = 16, 1 << 20
	for _, route := range routesOf(t, env) {
		method, template := splitRoute(route)
		before, _, found := strings.Cut(template, "/{id}")
		if !found {
			continue
		}
		thing, known := things[before]
		if !known {
			t.Errorf("%s: what its id stands for belongs into this test", route)
			continue
		}
		if thing == nil {
			continue
		}
		ids := []string{uuid.NewString(), thing(small), thing(large)}
		for who, token := range map[string]string{"a stranger": carol, "a reader": bob} {
			var first, back int64
			for i, id := range ids {
				address := strings.NewReplacer("{id}", id, "{org}", org, "{user}", uuid.NewString()).Replace(template)
				status, asked, answered := w.cost(t, env, method, address, token)
				if status != http.StatusNotFound && status != http.StatusForbidden {
					t.Fatalf("%s by %s is not refused: %d", route, who, status)
				}
				if i == 0 {
					first, back = asked, answered
					continue
				}
				// A row without its body may come back: a title of 200 characters and its details.
				if d := asked - first; d < -40 || d > 40 {
					t.Errorf("%s by %s: the database is asked %d bytes for nothing, %d for something (%d)", route, who, first, asked, i)
				}
				if d := answered - back; d < -1500 || d > 1500 {
					t.Errorf("%s by %s: the database answers %d bytes for nothing, %d for something (%d)", route, who, back, answered, i)
				}
			}
		}
	}
}
