package server_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"noted"
	"noted/authz"
	"noted/server"
	"noted/server/servertest"
)

// insidePermissions are those of roles in organizations, in the vocabulary's order.
var insidePermissions = []string{
	"note:org read", "note:org write", "note:org delete", "note:restricted read", "note:restricted write", "note:restricted delete",
	"deadzone:org read", "notebook read", "notebook write", "notebook delete", "notebook:restricted read", "notebook:restricted write",
	"org read", "org write", "org delete", "member read", "member write", "member delete", "invitation read", "invitation write",
	"grant read", "grant write", "grant delete", "key:org read", "key:org write", "key:org delete", "audit:org read",
}

// givers is an organization in which somebody tries to give what they may not have, under one random policy after
// another.
type givers struct {
	*servertest.Env
	random *rand.Rand
	text   string
	sets   map[string]map[string]bool // of org-, grant- and key- roles

	org, note, secret, open, restricted, key string

	have   map[string]bool // what the giver's role allows
	narrow map[string]bool // what their credential allows; nil for all
	grant  string          // theirs, on everything
}

// policy draws a random one, with the shipped roles for the platform.
func (g *givers) policy(t *testing.T) {
	t.Helper()
	g.sets = map[string]map[string]bool{}
	var text strings.Builder
	for line := range strings.Lines(string(noted.Policy)) {
		if strings.HasPrefix(line, "p, user,") || strings.HasPrefix(line, "p, admin,") || strings.HasPrefix(line, "p, moderator,") {
			text.WriteString(line)
		}
	}
	usually := map[string]float64{"grant write": .8, "invitation write": .8, "member write": .8, "key:org write": .8, "note:org read": .9, "notebook read": .9}
	likely := map[string]float64{"org-reader": .15, "org-writer": .7, "org-admin": .8, "grant-reader": .5, "grant-writer": .7, "key-test": .9}
	for _, role := range []string{"org-reader", "org-writer", "org-admin", "grant-reader", "grant-writer", "key-test"} {
		g.sets[role] = map[string]bool{}
		for _, permission := range insidePermissions {
			chance := likely[role]
			if role == "org-writer" && usually[permission] > 0 {
				chance = usually[permission]
			}
			if g.random.Float64() > chance || strings.HasPrefix(role, "key-") && strings.HasPrefix(permission, "key:") {
				continue
			}
			g.sets[role][permission] = true
			object, act, _ := strings.Cut(permission, " ")
			fmt.Fprintf(&text, "p, %s, %s, %s\n", role, object, act)
		}
	}
	g.text = text.String() + "p, key-test, self, read\n"
}

func (g *givers) has(permission string) bool {
	return g.have[permission] && (g.narrow == nil || g.narrow[permission])
}

// lacks returns the first permission of a role that the giver lacks; empty if none.
func (g *givers) lacks(role string) string {
	for _, permission := range insidePermissions {
		if g.sets["org-"+role][permission] && !g.has(permission) {
			return permission
		}
	}
	return ""
}

// may reports whether the giver may do this to a note or notebook, by role or by their grant.
func (g *givers) may(kind, act string, restricted bool) bool {
	byRole, byGrant := kind, kind
	if kind == "note" {
		byRole, byGrant = "note:org", "note:org"
	}
	if restricted {
		byRole = kind + ":restricted"
	}
	granted := g.sets["grant-"+map[string]string{"read": "reader", "write": "writer"}[g.grant]][byGrant+" "+act]
	return g.has(byRole+" "+act) || granted && (g.narrow == nil || g.narrow[byGrant+" "+act])
}

// wantGrant returns the answer expected for a grant.
func (g *givers) wantGrant(kind string, restricted bool, access string) (status int, permission string) {
	if !g.may(kind, "read", restricted) {
		return http.StatusNotFound, ""
	}
	if !g.has("grant write") {
		return http.StatusForbidden, "grant write"
	}
	role := "grant-" + map[string]string{"read": "reader", "write": "writer"}[access]
	for _, permission := range insidePermissions {
		object, act, _ := strings.Cut(permission, " ")
		if !g.sets[role][permission] || object != "note:org" && (object != "notebook" || kind != "notebook") {
			continue
		}
		of, _, _ := strings.Cut(object, ":")
		if !g.may(of, act, restricted) {
			if restricted && g.grant == "" {
				return http.StatusForbidden, of + ":restricted " + act
			}
			return http.StatusForbidden, permission
		}
	}
	return http.StatusOK, ""
}

// Nobody gets a role, a key or a grant that holds more than its giver has there, whatever the policy says about
// writing members, invitations, keys and grants. Somebody who has all permissions can give them.
func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &givers{random: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a test's, that can be repeated
	g.policy(t)
	policy, err := authz.NewInForce(func() (*authz.Policy, error) { return servertest.LoadPolicy([]byte(g.text)) })
	if err != nil {
		t.Fatal(err)
	}
	g.Env = servertest.New(t, func(o *server.Options) { o.Policy = policy })
	alice := g.SignIn(t, "alice") // who gives: a writer
	_, aliceKey := g.NewKey(t, alice, "key-test")
	people := map[string]string{}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		var me struct{ ID string }
		g.Do(t, http.MethodGet, "/v1/me", g.SignIn(t, name), nil).JSON(t, &me)
		people[name] = me.ID
	}
	g.org = g.NewOrg(t, alice, "acme")
	g.Exec(t, `update members set role = 'writer' where org_id = $1`, g.org)
	g.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, 'reader'), ($1, $3, 'admin')`, g.org, people["bob"], people["carol"])
	g.open, g.restricted, g.note, g.secret, g.key = uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	g.Exec(t, `insert into notebooks (space_id, id, org_id, name, restricted) values ($3, $1, $3, 'n', false), ($3, $2, $3, 'n', true)`, g.open, g.restricted, g.org)
	g.Exec(t, `insert into notes (space_id, id, owner_id, org_id, notebook_id, title, body) values ($6, $1, $5, $6, $3, 't', ''), ($6, $2, $5, $6, $4, 't', '')`,
		g.note, g.secret, g.open, g.restricted, people["carol"], g.org)
	g.Exec(t, `insert into keys (id, org_id, org_role, name, role, created_by) values ($1, $2, 'reader', 'k', 'key-test', $3)`, g.key, g.org, people["carol"])

	statuses := map[string]map[int]int{}
	check := func(what string, a servertest.Answer, status int, permission string) {
		t.Helper()
		var problem struct{ Permission string }
		if a.Status == http.StatusForbidden {
			a.JSON(t, &problem)
		}
		if statuses[what] == nil {
			statuses[what] = map[int]int{}
		}
		statuses[what][a.Status]++
		if a.Status != status || problem.Permission != permission {
			t.Fatalf("%s: got %d %q, want %d %q; %s\nby a writer with the grant %q, narrowed: %t, under\n%s",
				what, a.Status, problem.Permission, status, permission, a.Body, g.grant, g.narrow != nil, g.text)
		}
	}
	roles := []string{"reader", "writer", "admin"}
	for range 40 {
		g.policy(t)
		if _, _, err := policy.Reload(); err != nil {
			t.Fatal(err)
		}
		g.have = g.sets["org-writer"]
		g.grant = []string{"", "read", "write"}[g.random.IntN(3)]
		g.Exec(t, `delete from grants`)
		if g.grant != "" {
			for _, on := range []string{"notebook_id", "note_id"} {
				things := map[string][]string{"notebook_id": {g.open, g.restricted}, "note_id": {g.note, g.secret}}[on]
				for _, thing := range things {
					g.Exec(t, `insert into grants (space_id, user_id, `+on+`, access) values ($1, $2, $3, $4)`, g.org, people["alice"], thing, g.grant)
				}
			}
		}
		for _, as := range []string{alice, aliceKey} {
			g.narrow = nil
			if as == aliceKey {
				g.narrow = g.sets["key-test"]
			}
			want := func(needed, role string, success int) (int, string) {
				switch lacking := g.lacks(role); {
				case !g.has(needed):
					return http.StatusForbidden, needed
				case lacking != "":
					return http.StatusForbidden, lacking
				}
				return success, ""
			}
			for i, role := range roles {
				status, permission := want("invitation write", role, http.StatusCreated)
				a := g.Do(t, http.MethodPost, "/v1/orgs/"+g.org+"/invitations", as, map[string]string{"email": "dave@dev.example", "role": role})
				check("inviting", a, status, permission)

				g.Exec(t, `update members set role = $2 where user_id = $1`, people["bob"], roles[(i+1)%3])
				status, permission = want("member write", role, http.StatusOK)
				a = g.Do(t, http.MethodPatch, "/v1/orgs/"+g.org+"/members/"+people["bob"], as, map[string]string{"role": role})
				check("changing a role", a, status, permission)

				status, permission = want("key:org write", role, http.StatusCreated)
				a = g.Do(t, http.MethodPost, "/v1/orgs/"+g.org+"/keys", as, map[string]string{"name": "k", "org_role": role, "role": "key-test"})
				check("making a service key", a, status, permission)

				g.Exec(t, `update keys set org_role = $2 where id = $1`, g.key, role)
				g.Exec(t, `delete from key_secrets where key_id = $1`, g.key)
				g.Exec(t, `insert into key_secrets (id, key_id, hash, minted_by, expires_at) values (gen_random_uuid(), $1, sha256('x'), $2, now() + interval '1 day')`, g.key, people["carol"])
				a = g.Do(t, http.MethodPost, "/v1/orgs/"+g.org+"/keys/"+g.key+"/rotate", as, nil)
				if !g.has("key:org write") && !g.has("key:org read") || status == http.StatusForbidden {
					check("rotating a service key", a, status, permission)
					// Before a body is read.
					a = g.Do(t, http.MethodPost, "/v1/orgs/"+g.org+"/keys/"+g.key+"/rotate", as, `{"overlap":`)
				}
				check("rotating a service key", a, status, permission)
			}
			for _, access := range []string{"read", "write"} {
				for _, on := range []struct {
					kind, id   string
					restricted bool
				}{{"note", g.note, false}, {"note", g.secret, true}, {"notebook", g.open, false}, {"notebook", g.restricted, true}} {
					g.Exec(t, `delete from grants where user_id = $1`, people["bob"])
					status, permission := g.wantGrant(on.kind, on.restricted, access)
					a := g.Do(t, http.MethodPut, "/v1/orgs/"+g.org+"/"+on.kind+"s/"+on.id+"/grants/"+people["bob"], as, map[string]string{"access": access})
					check("granting on a "+on.kind, a, status, permission)
				}
			}
		}
	}
	t.Logf("%v", statuses)
	for what, by := range statuses {
		if by[http.StatusForbidden] < 5 || by[http.StatusOK]+by[http.StatusCreated] < 5 {
			t.Errorf("%s: %v proves little", what, by)
		}
	}
}
