package server_test

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"noted/identity"
)

// modelOf has every operation of the server: its request, what the reference says to it, and what it changes.
var modelOf = map[string]func(*machine, refCaller){}

// ownThing is a decision on one session, identity or key of the caller's own.
func ownThing(c refCaller, permission string, mine bool) verdict {
	switch {
	case !c.platform(permission):
		return lacking(permission)
	case !mine:
		return unseen
	}
	return allowed
}

var meOperations = map[string]func(*machine, refCaller, string){
	"GET /v1/me": func(m *machine, c refCaller, route string) {
		var me struct {
			ID, Kind string
			Orgs     []struct{ ID, Role string }
		}
		if !m.send(c, route, "/v1/me", nil, c.area("self read"), 200, &me) {
			return
		}
		want, got := map[string]string{}, map[string]string{}
		for _, o := range m.orgs {
			if role := c.roleIn(o); role != "" {
				want[o.id] = role
			}
		}
		for _, o := range me.Orgs {
			got[o.ID] = o.Role
		}
		if len(want) != len(got) {
			m.t.Fatalf("me: organizations %v, want %v", got, want)
		}
		for id, role := range want {
			if got[id] != role {
				m.t.Fatalf("me: organizations %v, want %v", got, want)
			}
		}
	},
	"GET /v1/me/sessions": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/me/sessions", c.area("session:own read"), "id",
			ids(m.sessions, func(s *refSession) string { return s.id }, func(s *refSession) bool { return s.person == c.person() && !s.ended }))
	},
	"DELETE /v1/me/sessions": func(m *machine, c refCaller, route string) {
		if m.send(c, route, "/v1/me/sessions", nil, c.area("session:own delete"), 204, nil) {
			for _, s := range m.sessions {
				s.ended = s.ended || s.person == c.person() && s != c.session
			}
		}
	},
	"DELETE /v1/me/sessions/{id}": func(m *machine, c refCaller, route string) {
		s, _ := pick(m, "which", m.sessions)
		if rapid.Bool().Draw(m.t, "a new one") {
			m.begin(m.tb(), s.person)
			s = m.sessions[len(m.sessions)-1]
		}
		if m.send(c, route, "/v1/me/sessions/"+s.id, nil, ownThing(c, "session:own delete", s.person == c.person() && !s.ended), 204, nil) {
			s.ended = true
			m.begin(m.tb(), s.person)
		}
	},
	"GET /v1/me/identities": func(m *machine, c refCaller, route string) {
		var want []string
		if c.person() != nil {
			want = append([]string{c.person().identity}, c.person().linked...)
		}
		m.list(c, route, "/v1/me/identities", c.area("identity:own write"), "id", want)
	},
	"POST /v1/me/identities": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/v1/me/identities", map[string]any{"provider": "dev"}, c.derives(), 200, nil)
	},
	"DELETE /v1/me/identities/{id}": func(m *machine, c refCaller, route string) {
		p, _ := pick(m, "whose", m.people)
		if rapid.IntRange(0, 2).Draw(m.t, "own") > 0 && c.person() != nil {
			p = c.person()
		}
		if linked, ok := pick(m, "linked", p.linked); ok {
			if m.send(c, route, "/v1/me/identities/"+linked, nil, ownThing(c, "identity:own write", p == c.person()), 204, nil) {
				p.linked = slices.DeleteFunc(p.linked, func(id string) bool { return id == linked })
			}
			return
		}
		// It is the only one, so it cannot be unlinked.
		m.send(c, route, "/v1/me/identities/"+p.identity, nil, ownThing(c, "identity:own write", p == c.person()), 409, nil)
	},
	"GET /auth/device": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/auth/device", nil, c.derives(), 200, nil)
	},
	"POST /auth/device/confirm": func(m *machine, c refCaller, route string) {
		m.Exec(m.tb(), `delete from device_guesses`)
		m.Exec(m.tb(), `delete from device_logins`)
		m.Exec(m.tb(), `insert into device_logins (device_hash, user_code, expires_at) values (sha256('device'), 'BCDFGHJK', now() + interval '1 hour')`)
		code, success, approves := "bcdf-ghjk", 200, rapid.Bool().Draw(m.t, "approves")
		if m.stray() {
			code, success = "bbbb-bbbb", 404
		}
		decision := map[bool]string{false: "deny", true: "approve"}[approves]
		if !m.send(c, route, "/auth/device/confirm", form("user_code="+code+"&decision="+decision), c.derives(), success, nil) || !approves {
			return
		}
		// The device fetches its session.
		made := identity.NewToken()
		hash, _ := made.Hash()
		s := &refSession{token: string(made), person: c.person(), device: true}
		if err := m.Pool.QueryRow(context.Background(), `
			update sessions set token_hash = $1 where id = (select session_id from device_logins where user_code = 'BCDFGHJK') returning id`, hash).Scan(&s.id); err != nil {
			m.t.Fatalf("the approved device has no session: %v", err)
		}
		m.sessions = append(m.sessions, s)
	},
	"POST /auth/link/confirm": func(m *machine, c refCaller, route string) {
		if c.session == nil || m.stray() {
			m.send(c, route, "/auth/link/confirm", form("code=nothing"), c.derives(), 409, nil)
			return
		}
		// The session began to link and is back from the provider.
		m.Exec(m.tb(), `delete from links`)
		m.Exec(m.tb(), `
			insert into links (session_id, state_hash, provider, nonce, verifier, expires_at, sign_in, confirm_hash)
			values ($1, sha256($2::bytea), 'dev', 'n', 'v', now() + interval '1 hour', jsonb_build_object('issuer', $3::text, 'subject', 'linked ' || gen_random_uuid()), sha256($2::bytea))`,
			c.session.id, []byte("code"), m.Issuer)
		if !m.send(c, route, "/auth/link/confirm", form("code=code"), c.derives(), 303, nil) {
			return
		}
		var id string
		if err := m.Pool.QueryRow(context.Background(), `select id from identities where user_id = $1 order by created_at desc, id desc limit 1`, c.person().id).Scan(&id); err != nil {
			m.t.Fatal(err)
		}
		c.person().linked = append(c.person().linked, id)
	},
	"POST /invitation": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/invitation", form("token=nothing"), c.area("invitation:own accept"), 404, nil)
	},
}

// keyTarget draws a key, mostly one of the caller's own, or none.
func (m *machine) keyTarget(c refCaller) (*refKey, string) {
	own := slices.DeleteFunc(slices.Clone(m.keys), func(k *refKey) bool { return k.person == nil || k.person != c.person() || k.revoked })
	if k, ok := pick(m, "own key", own); ok && rapid.IntRange(0, 3).Draw(m.t, "own") > 0 {
		return k, k.id
	}
	if k, ok := pick(m, "key", m.keys); ok && !m.stray() {
		return k, k.id
	}
	return &refKey{revoked: true}, uuid.NewString()
}

var keyOperations = map[string]func(*machine, refCaller, string){
	"GET /v1/keys": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/keys", c.area("key:own read"), "id",
			ids(m.keys, func(k *refKey) string { return k.id }, func(k *refKey) bool { return k.person != nil && k.person == c.person() && !k.revoked }))
	},
	"POST /v1/keys": func(m *machine, c refCaller, route string) {
		var got madeThing
		role := rapid.SampledFrom([]string{"key-reader", "key-writer", "key-admin"}).Draw(m.t, "role")
		if m.send(c, route, "/v1/keys", map[string]any{"name": "k", "role": role}, c.area("key:own write"), 201, &got) {
			m.keys = append(m.keys, &refKey{id: got.ID, token: got.Secret, role: role, person: c.person()})
		}
	},
	"GET /v1/keys/{id}": func(m *machine, c refCaller, route string) {
		k, id := m.keyTarget(c)
		m.send(c, route, "/v1/keys/"+id, nil, ownThing(c, "key:own read", k.person != nil && k.person == c.person() && !k.revoked), 200, nil)
	},
	"PATCH /v1/keys/{id}": func(m *machine, c refCaller, route string) {
		k, id := m.keyTarget(c)
		m.send(c, route, "/v1/keys/"+id, map[string]any{"name": "other"}, ownThing(c, "key:own write", k.person != nil && k.person == c.person() && !k.revoked), 200, nil)
	},
	"POST /v1/keys/{id}/rotate": func(m *machine, c refCaller, route string) {
		k, id := m.keyTarget(c)
		m.rotate(c, route, "/v1/keys/"+id+"/rotate", k, ownThing(c, "key:own write", k.person != nil && k.person == c.person()))
	},
	"DELETE /v1/keys/{id}": func(m *machine, c refCaller, route string) {
		k, id := m.keyTarget(c)
		if m.send(c, route, "/v1/keys/"+id, nil, ownThing(c, "key:own delete", k.person != nil && k.person == c.person() && !k.revoked), 204, nil) {
			k.revoked = true
		}
	},
	"GET /v1/orgs/{org}/keys": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.list(c, route, orgPath(o)+"/keys", c.inOrg(o, "key:org", "read", true), "id",
			ids(m.keys, func(k *refKey) string { return k.id }, func(k *refKey) bool { return k.org == o && !k.revoked }))
	},
	"POST /v1/orgs/{org}/keys": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		var got madeThing
		role := rapid.SampledFrom([]string{"key-reader", "key-writer", "key-admin"}).Draw(m.t, "role")
		orgRole := rapid.SampledFrom([]string{"reader", "writer", "admin"}).Draw(m.t, "org role")
		want := c.inOrg(o, "key:org", "write", true)
		if want == allowed {
			want = c.gives(o, orgRole)
		}
		if m.send(c, route, orgPath(o)+"/keys", map[string]any{"name": "k", "role": role, "org_role": orgRole}, want, 201, &got) {
			m.keys = append(m.keys, &refKey{id: got.ID, token: got.Secret, role: role, org: o, orgRole: orgRole, shown: c.person()})
		}
	},
	"GET /v1/orgs/{org}/keys/{id}": func(m *machine, c refCaller, route string) {
		o, k, path := m.orgKey(c)
		m.send(c, route, path, nil, c.inOrg(o, "key:org", "read", k.org == o && !k.revoked), 200, nil)
	},
	"PATCH /v1/orgs/{org}/keys/{id}": func(m *machine, c refCaller, route string) {
		o, k, path := m.orgKey(c)
		m.send(c, route, path, map[string]any{"name": "other"}, c.inOrg(o, "key:org", "write", k.org == o && !k.revoked), 200, nil)
	},
	"POST /v1/orgs/{org}/keys/{id}/rotate": func(m *machine, c refCaller, route string) {
		o, k, path := m.orgKey(c)
		m.rotate(c, route, path+"/rotate", k, c.inOrg(o, "key:org", "write", k.org == o))
	},
	"DELETE /v1/orgs/{org}/keys/{id}": func(m *machine, c refCaller, route string) {
		o, k, path := m.orgKey(c)
		if m.send(c, route, path, nil, c.inOrg(o, "key:org", "delete", k.org == o && !k.revoked), 204, nil) {
			k.revoked = true
			m.revoked(o, nil, k)
		}
	},
}

func (m *machine) orgKey(c refCaller) (*refOrg, *refKey, string) {
	o := m.org(c)
	k, ok := in(m, o, m.keys, func(k *refKey) *refOrg { return k.org })
	if !ok {
		k = &refKey{id: uuid.NewString(), revoked: true}
	}
	return o, k, orgPath(o) + "/keys/" + k.id
}

func (m *machine) rotate(c refCaller, route, path string, k *refKey, want verdict) {
	success := 201
	if k.revoked {
		success = 409
	}
	var got madeThing
	if m.send(c, route, path, map[string]any{"overlap": "0s"}, want, success, &got) {
		k.token, k.shown = got.Secret, c.person()
	}
}

// choice draws the choice about service keys: a role is taken without one, or with one.
func (m *machine) choice() (choice, query string) {
	choice = rapid.SampledFrom([]string{"", "end", "keep"}).Draw(m.t, "service keys")
	if choice != "" {
		query = "?service_keys=" + choice
	}
	return choice, query
}

// knows reports whether somebody is an admin who was shown the secret of a working service key there.
func (m *machine) knows(o *refOrg, p *refPerson) bool {
	return o.members[p] == "admin" && slices.ContainsFunc(m.keys, func(k *refKey) bool { return k.org == o && !k.revoked && k.shown == p })
}

// endKeys ends the keys that an admin was shown there, and what they began.
func (m *machine) endKeys(o *refOrg, p *refPerson, choice string) {
	if choice != "end" || !m.knows(o, p) {
		return
	}
	for _, k := range m.keys {
		if k.org == o && !k.revoked && k.shown == p {
			k.revoked = true
			m.revoked(o, nil, k)
		}
	}
	for _, i := range m.invitations {
		i.over = i.over || i.org == o && i.behind == p
	}
}

var noteOperations = map[string]func(*machine, refCaller, string){
	"POST /v1/notes": func(m *machine, c refCaller, route string) {
		var org *refOrg
		var notebook *refNotebook
		if rapid.IntRange(0, 2).Draw(m.t, "in an organization") > 0 {
			org = m.org(c)
			if rapid.Bool().Draw(m.t, "in a notebook") {
				notebook, _ = m.notebook(org)
			}
		}
		var want verdict
		writes := !c.service() && (userRole["note:own write"] && c.narrow("note:own write")) || c.narrow("note:org write") && (!c.service() || orgRoles[c.key.orgRole]["note:org write"])
		switch {
		case !writes && c.service():
			want = lacking("note:org write")
		case !writes:
			want = lacking("note:own write")
		case org == nil:
			want = c.area("note:own write")
		case !c.byRole(org, "org read"):
			want = unseen
		default:
			want = c.place(org, notebook)
		}
		var got madeThing
		if m.send(c, route, "/v1/notes", noteBody(org, notebook), want, 201, &got) {
			m.addNote(got, c, org, notebook)
		}
	},
	"GET /v1/notes": func(m *machine, c refCaller, route string) {
		live := func(n *refNote) bool { return !n.dead && !n.gone }
		readable := func(n *refNote) bool { return live(n) && c.mayNote(n, "read") }
		org, path := (*refOrg)(nil), "/v1/notes"
		if c.service() {
			org = c.key.org
		}
		readsNotes := c.narrow("note:org read")
		switch rapid.IntRange(0, 3).Draw(m.t, "which") {
		case 0: // one's own
			if c.service() {
				m.list(c, route, path, m.orgNotes(c, org), "id", ids(m.notes, noteID, func(n *refNote) bool { return n.org == org && readable(n) }))
				return
			}
			m.list(c, route, path, c.area("note:own read"), "id", ids(m.notes, noteID, func(n *refNote) bool { return n.person == c.person() && n.org == nil && live(n) }))
		case 1: // all
			want := c.area("note:any read")
			if c.service() && !readsNotes {
				want = lacking("note:org read")
			}
			m.list(c, route, path+"?scope=all", want, "id", ids(m.notes, noteID, readable))
		case 2:
			org = m.org(c)
			m.list(c, route, path+"?org_id="+org.id, m.orgNotes(c, org), "id", ids(m.notes, noteID, func(n *refNote) bool { return n.org == org && readable(n) }))
		case 3:
			org = m.org(c)
			b, id := m.notebook(org)
			path += "?notebook_id=" + id
			if rapid.Bool().Draw(m.t, "both") {
				path += "&org_id=" + org.id
			} else if b != nil {
				org = b.org
			}
			want := c.notebook(b, "read")
			if b != nil && b.org != org || strings.Contains(path, "org_id") && c.roleIn(org) == "" {
				want = unseen
			}
			m.list(c, route, path, want, "id", ids(m.notes, noteID, func(n *refNote) bool { return n.notebook == b && b != nil && readable(n) }))
		}
	},
	"GET /v1/notes/{id}": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		m.send(c, route, "/v1/notes/"+id, nil, c.note(n, "read"), 200, nil)
	},
	"PATCH /v1/notes/{id}": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		moves := rapid.Bool().Draw(m.t, "moves")
		if rapid.IntRange(0, 2).Draw(m.t, "by a grant") == 0 {
			if by, held, ok := m.writesByGrant(); ok {
				c, n, id, moves = by, held, held.id, true
			}
		}
		want := c.note(n, "write")
		body := map[string]any{"title": "t2"}
		var to *refNotebook
		if moves {
			body["notebook_id"] = nil
			var org *refOrg
			if n != nil {
				org = n.org
			}
			missing := false
			if rapid.IntRange(0, 2).Draw(m.t, "to a notebook") > 0 {
				var id string
				to, id = m.notebook(org)
				body["notebook_id"], missing = id, to == nil
			}
			if want == allowed && (missing || to != n.notebook) {
				want = c.move(n, to, missing)
			}
			if want == lacking("notebook:restricted write") && c.hasGrant(n) {
				m.counts.heldInside++
			}
		}
		if m.send(c, route, "/v1/notes/"+id, body, want, 200, nil) && moves {
			n.notebook = to
		}
	},
	"DELETE /v1/notes/{id}": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		if m.send(c, route, "/v1/notes/"+id, nil, c.note(n, "delete"), 204, nil) {
			n.dead = true
		}
	},
	"GET /v1/deadzone": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/deadzone", c.dead(&refNote{dead: true}, "read"), "id", ids(m.notes, noteID, func(n *refNote) bool { return n.dead && !n.gone }))
	},
	"GET /v1/deadzone/{id}": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		m.send(c, route, "/v1/deadzone/"+id, nil, c.dead(n, "read"), 200, nil)
	},
	"POST /v1/deadzone/{id}/restore": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		if dead := ids(m.notes, noteID, func(n *refNote) bool { return n.dead && !n.gone }); len(dead) > 0 {
			id, _ = pick(m, "dead", dead)
			n = m.notes[slices.IndexFunc(m.notes, func(n *refNote) bool { return n.id == id })]
		}
		success := 200
		if n != nil && n.org != nil && n.org.deleted {
			success = 409
		}
		if m.send(c, route, "/v1/deadzone/"+id+"/restore", nil, c.dead(n, "restore"), success, nil) {
			n.dead = false
		}
	},
	"DELETE /v1/deadzone/{id}": func(m *machine, c refCaller, route string) {
		n, id := m.anyNote(c)
		if m.send(c, route, "/v1/deadzone/"+id, nil, c.dead(n, "purge"), 204, nil) {
			n.gone = true
		}
	},
}

// orgNotes decides on listing an organization's notes.
func (m *machine) orgNotes(c refCaller, org *refOrg) verdict {
	if !c.byRole(org, "org read") {
		return unseen
	}
	if !c.byRole(org, "note:org read") && !c.narrow("note:org read") {
		return lacking("note:org read")
	}
	return allowed
}

// move decides on moving a note that the caller may write.
func (c refCaller) move(n *refNote, to *refNotebook, missing bool) verdict {
	if missing || n.org == nil {
		return unseen
	}
	if want := c.place(n.org, to); want != allowed {
		return want
	}
	if n.restricted() && !c.byRole(n.org, "notebook:restricted write") {
		return lacking("notebook:restricted write")
	}
	return allowed
}

var orgOperations = map[string]func(*machine, refCaller, string){
	"POST /v1/orgs": func(m *machine, c refCaller, route string) {
		var got madeThing
		if m.send(c, route, "/v1/orgs", map[string]any{"name": "o"}, c.area("org create"), 201, &got) {
			m.addOrg(got, c.person())
		}
	},
	"GET /v1/orgs": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/orgs", c.area("self read"), "id", ids(m.orgs, func(o *refOrg) string { return o.id }, func(o *refOrg) bool { return c.roleIn(o) != "" }))
	},
	"GET /v1/orgs/{org}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.send(c, route, orgPath(o), nil, c.inOrg(o, "org", "read", true), 200, nil)
	},
	"PATCH /v1/orgs/{org}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.send(c, route, orgPath(o), map[string]any{"name": "p"}, c.inOrg(o, "org", "write", true), 200, nil)
	},
	"DELETE /v1/orgs/{org}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		if c.inOrg(o, "org", "delete", true) == allowed && rapid.IntRange(0, 9).Draw(m.t, "really") > 0 {
			o = nowhere
		}
		if m.send(c, route, orgPath(o), nil, c.inOrg(o, "org", "delete", true), 204, nil) {
			o.deleted = true
			for _, k := range m.keys {
				k.revoked = k.revoked || k.org == o
			}
			for _, n := range m.notes {
				n.dead = n.dead || n.org == o
			}
			for _, i := range m.invitations {
				i.over = i.over || i.org == o
			}
		}
	},
	"GET /v1/orgs/{org}/members": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.list(c, route, orgPath(o)+"/members", c.inOrg(o, "member", "read", true), "user_id",
			ids(m.people, func(p *refPerson) string { return p.id }, func(p *refPerson) bool { return o.members[p] != "" }))
	},
	"PATCH /v1/orgs/{org}/members/{user}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		p := m.member(o)
		role := rapid.SampledFrom([]string{"reader", "writer", "admin"}).Draw(m.t, "role")
		want := c.inOrg(o, "member", "write", o.members[p] != "")
		if want == allowed && o.members[p] != role {
			want = c.gives(o, role)
		}
		choice, query := m.choice()
		success := 200
		if !o.keepsAdmin(p, role) || role != "admin" && m.knows(o, p) && c.asked(o, p, choice) {
			success = 409
		}
		if m.send(c, route, orgPath(o)+"/members/"+p.id+query, map[string]any{"role": role}, want, success, nil) && o.members[p] != role {
			m.endKeys(o, p, choice)
			o.members[p] = role
			m.revoked(o, p, nil)
		}
	},
	"DELETE /v1/orgs/{org}/members/{user}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		p := m.member(o)
		want := c.inOrg(o, "member", "delete", o.members[p] != "")
		leaves := p == c.person() && o.members[p] != "" && !o.deleted
		if leaves {
			want = c.area("membership:own delete")
			if want != allowed && !c.byRole(o, "member read") {
				want = unseen
			}
		}
		choice, query := m.choice()
		success := 204
		switch {
		case leaves && choice == "keep":
			success = 422
		case !o.keepsAdmin(p, "") || m.knows(o, p) && c.asked(o, p, choice):
			success = 409
		}
		if m.send(c, route, orgPath(o)+"/members/"+p.id+query, nil, want, success, nil) {
			m.endKeys(o, p, choice)
			m.forget(o, p)
		}
	},
	"GET /v1/orgs/{org}/invitations": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.list(c, route, orgPath(o)+"/invitations", c.inOrg(o, "invitation", "read", true), "id",
			ids(m.invitations, func(i *refInvitation) string { return i.id }, func(i *refInvitation) bool { return i.org == o && !i.over }))
	},
	"POST /v1/orgs/{org}/invitations": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		p, _ := pick(m, "whom", m.people)
		role := rapid.SampledFrom([]string{"reader", "writer", "admin"}).Draw(m.t, "role")
		var got madeThing
		want := c.inOrg(o, "invitation", "write", true)
		if want == allowed {
			want = c.gives(o, role)
		}
		if m.send(c, route, orgPath(o)+"/invitations", map[string]any{"email": strings.ToUpper(p.name) + "@dev.example", "role": role}, want, 201, &got) {
			m.invitations = append(m.invitations, &refInvitation{
				id: got.ID, token: got.Token, role: role, org: o, email: p, byPerson: c.person(), byKey: c.key, behind: c.behind(),
			})
		}
	},
	"DELETE /v1/orgs/{org}/invitations/{id}": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		i, ok := in(m, o, m.invitations, func(i *refInvitation) *refOrg { return i.org })
		if !ok {
			i = &refInvitation{id: uuid.NewString(), over: true}
		}
		if m.send(c, route, orgPath(o)+"/invitations/"+i.id, nil, c.inOrg(o, "invitation", "delete", i.org == o && !i.over), 204, nil) {
			i.over = true
		}
	},
	"POST /v1/invitations/accept": func(m *machine, c refCaller, route string) {
		waiting := slices.DeleteFunc(slices.Clone(m.invitations), func(i *refInvitation) bool { return i.over })
		if len(waiting) == 0 || rapid.IntRange(0, 4).Draw(m.t, "an old one") == 0 {
			waiting = m.invitations
		}
		i, ok := pick(m, "invitation", waiting)
		if !ok || m.stray() {
			i = &refInvitation{token: strings.Repeat("0", 43), over: true}
		} else if c.session != nil && rapid.IntRange(0, 3).Draw(m.t, "by the invited") > 0 {
			c = refCaller{session: m.sessionOf(i.email)}
		}
		want, success := c.area("invitation:own accept"), 200
		if want == allowed && (i.over || i.email != c.person() || i.byPerson != nil && i.byPerson.locked || i.byKey != nil && i.byKey.revoked) {
			want = unseen
		}
		if want == allowed && i.org.members[c.person()] != "" {
			success = 409
		}
		if m.send(c, route, "/v1/invitations/accept", map[string]any{"token": i.token}, want, success, nil) {
			i.over = true
			i.org.members[c.person()] = i.role
		}
	},
	"GET /v1/orgs/{org}/audit": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.send(c, route, orgPath(o)+"/audit", nil, c.inOrg(o, "audit:org", "read", true), 200, nil)
	},
}

var notebookOperations = map[string]func(*machine, refCaller, string){
	"GET /v1/orgs/{org}/notebooks": func(m *machine, c refCaller, route string) {
		o := m.org(c)
		m.list(c, route, orgPath(o)+"/notebooks", c.inOrg(o, "notebook", "read", true), "id",
			ids(m.notebooks, func(b *refNotebook) string { return b.id }, func(b *refNotebook) bool { return b.org == o && c.notebook(b, "read") == allowed }))
	},
	"POST /v1/orgs/{org}/notebooks": func(m *machine, c refCaller, route string) {
		o, restricted := m.org(c), rapid.Bool().Draw(m.t, "restricted")
		want := c.inOrg(o, "notebook", "write", true)
		if want == allowed && restricted && !c.byRole(o, "notebook:restricted write") {
			want = lacking("notebook:restricted write")
		}
		var got madeThing
		if m.send(c, route, orgPath(o)+"/notebooks", map[string]any{"name": "b", "restricted": restricted}, want, 201, &got) {
			m.addNotebook(got, o, restricted)
		}
	},
	"GET /v1/orgs/{org}/notebooks/{id}": func(m *machine, c refCaller, route string) {
		o, b, path := m.aNotebook(c)
		m.send(c, route, path, nil, c.notebookIn(o, b, "read"), 200, nil)
	},
	"PATCH /v1/orgs/{org}/notebooks/{id}": func(m *machine, c refCaller, route string) {
		o, b, path := m.aNotebook(c)
		want := c.notebookIn(o, b, "write")
		body := map[string]any{"name": "b2"}
		restricted := rapid.Bool().Draw(m.t, "restricted")
		sent := rapid.IntRange(0, 2).Draw(m.t, "restrict") == 0
		if sent {
			body["restricted"] = restricted
			if want == allowed && restricted != b.restricted && !c.byRole(o, "notebook:restricted write") {
				want = lacking("notebook:restricted write")
			}
		}
		if m.send(c, route, path, body, want, 200, nil) && sent {
			b.restricted = restricted
		}
	},
	"DELETE /v1/orgs/{org}/notebooks/{id}": func(m *machine, c refCaller, route string) {
		o, b, path := m.aNotebook(c)
		success := 204
		if slices.ContainsFunc(m.notes, func(n *refNote) bool { return n.notebook == b && b != nil && !n.gone }) {
			success = 409
		}
		if m.send(c, route, path, nil, c.notebookIn(o, b, "delete"), success, nil) {
			b.deleted = true
			for _, n := range m.notes {
				if n.notebook == b {
					n.notebook = nil
				}
			}
		}
	},
}

func (m *machine) aNotebook(c refCaller) (*refOrg, *refNotebook, string) {
	o := m.org(c)
	b, id := m.notebook(o)
	return o, b, orgPath(o) + "/notebooks/" + id
}

func (c refCaller) notebookIn(o *refOrg, b *refNotebook, act string) verdict {
	if b != nil && b.org != o {
		return unseen
	}
	return c.notebook(b, act)
}

// granted is a note or a notebook of an organization, as operations on grants name it.
type granted struct {
	org     *refOrg
	grants  map[*refPerson]string
	path    string
	visible bool
}

func (m *machine) granted(c refCaller, kind string) granted {
	o := m.org(c)
	if kind == "notebooks" {
		b, id := m.notebook(o)
		g := granted{org: o, path: orgPath(o) + "/notebooks/" + id}
		if b != nil {
			g.grants, g.visible = b.grants, b.org == o && c.notebook(b, "read") == allowed
		}
		return g
	}
	n, id := m.note(o)
	g := granted{org: o, path: orgPath(o) + "/notes/" + id}
	if n != nil {
		g.grants, g.visible = n.grants, n.org == o && c.note(n, "read") == allowed
	}
	return g
}

func init() { //nolint:gochecknoinits // the same operations twice
	for _, kind := range []string{"notebooks", "notes"} {
		path := " /v1/orgs/{org}/" + kind + "/{id}"
		notebookOperations["GET"+path+"/grants"] = func(m *machine, c refCaller, route string) {
			g := m.granted(c, kind)
			m.list(c, route, g.path+"/grants", c.onThing(g.org, "grant", "read", g.visible, true), "user_id",
				ids(m.people, func(p *refPerson) string { return p.id }, func(p *refPerson) bool { return g.grants[p] != "" }))
		}
		notebookOperations["PUT"+path+"/grants/{user}"] = func(m *machine, c refCaller, route string) {
			g, access := m.granted(c, kind), rapid.SampledFrom([]string{"read", "write"}).Draw(m.t, "access")
			p := m.member(g.org)
			success := http.StatusOK
			if g.org.members[p] == "" {
				success = http.StatusUnprocessableEntity
			}
			if m.send(c, route, g.path+"/grants/"+p.id, map[string]any{"access": access}, c.onThing(g.org, "grant", "write", g.visible, true), success, nil) {
				g.grants[p] = access
			}
		}
		notebookOperations["DELETE"+path+"/grants/{user}"] = func(m *machine, c refCaller, route string) {
			g := m.granted(c, kind)
			p := m.member(g.org)
			if m.send(c, route, g.path+"/grants/"+p.id, nil, c.onThing(g.org, "grant", "delete", g.visible, g.grants[p] != ""), 204, nil) {
				delete(g.grants, p)
			}
		}
		notebookOperations["GET"+path+"/access"] = func(m *machine, c refCaller, route string) {
			g := m.granted(c, kind)
			m.list(c, route, g.path+"/access", c.onThing(g.org, "grant", "read", g.visible, true), "id", m.haveAccess(g))
		}
	}
	for _, table := range []map[string]func(*machine, refCaller, string){meOperations, keyOperations, noteOperations, orgOperations, notebookOperations, adminOperations} {
		for route, act := range table {
			modelOf[route] = func(m *machine, c refCaller) { act(m, c, route) }
		}
	}
}

// haveAccess returns who may do anything to it, by session or service key.
func (m *machine) haveAccess(g granted) []string {
	may := func(c refCaller) bool {
		for _, b := range m.notebooks {
			if strings.HasSuffix(g.path, b.id) {
				return c.mayNotebook(b, "read") || c.mayNotebook(b, "write") || c.mayNotebook(b, "delete")
			}
		}
		for _, n := range m.notes {
			if strings.HasSuffix(g.path, n.id) {
				return c.mayNote(n, "read") || c.mayNote(n, "write") || c.mayNote(n, "delete")
			}
		}
		return false
	}
	list := ids(m.people, func(p *refPerson) string { return p.id }, func(p *refPerson) bool { return may(refCaller{session: &refSession{person: p}}) })
	return append(list, ids(m.keys, func(k *refKey) string { return k.id }, func(k *refKey) bool {
		return k.org == g.org && !k.revoked && may(refCaller{key: k})
	})...)
}

var adminOperations = map[string]func(*machine, refCaller, string){
	"GET /v1/admin/users": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/admin/users", c.area("user:any read"), "id", ids(m.people, func(p *refPerson) string { return p.id }, func(*refPerson) bool { return true }))
	},
	"GET /v1/admin/users/{id}": func(m *machine, c refCaller, route string) {
		p, _ := pick(m, "whom", m.people)
		m.send(c, route, "/v1/admin/users/"+p.id, nil, c.area("user:any read"), 200, nil)
	},
	"POST /v1/admin/users/{id}/lock": func(m *machine, c refCaller, route string) {
		m.setLocked(c, route, "lock", true)
	},
	"POST /v1/admin/users/{id}/unlock": func(m *machine, c refCaller, route string) {
		m.setLocked(c, route, "unlock", false)
	},
	"GET /v1/admin/orgs/without-admin": func(m *machine, c refCaller, route string) {
		m.list(c, route, "/v1/admin/orgs/without-admin", c.area("user:any read"), "id", ids(m.orgs, func(o *refOrg) string { return o.id }, func(o *refOrg) bool {
			for p, role := range o.members {
				if role == "admin" && !p.locked {
					return false
				}
			}
			return !o.deleted
		}))
	},
	"GET /v1/admin/audit": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/v1/admin/audit", nil, c.area("audit:any read"), 200, nil)
	},
	"GET /v1/admin/policy": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/v1/admin/policy", nil, c.area("policy read"), 200, nil)
	},
	"POST /v1/admin/explain": func(m *machine, c refCaller, route string) {
		m.send(c, route, "/v1/admin/explain", map[string]any{"subject": "dev:mona", "object": "note:any", "act": "read"}, c.area("policy explain"), 200, nil)
	},
}

// setLocked locks or unlocks somebody: it mostly unlocks those who are locked.
func (m *machine) setLocked(c refCaller, route, word string, locked bool) {
	people := m.people
	if shut := slices.DeleteFunc(slices.Clone(m.people), func(p *refPerson) bool { return !p.locked }); !locked && len(shut) > 0 {
		people = shut
	}
	p, _ := pick(m, "whom", people)
	success := 204
	if p == c.person() {
		success = 409
	}
	if m.send(c, route, "/v1/admin/users/"+p.id+"/"+word, nil, c.area("user:any lock"), success, nil) {
		p.locked = locked
	}
}
