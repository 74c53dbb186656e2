package server_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"noted/identity"
	"noted/server"
	"noted/server/servertest"
)

var (
	modelOperations = flag.Int("model.operations", 3000, "how many operations TestTheServerDecidesAsTheModel sends")
	modelSeed       = flag.Uint64("model.seed", 0, "the seed of the first run; 0 takes a random one")
)

// machine is one run: the server as it is, and as the reference requires.
type machine struct {
	*servertest.Env
	t      *rapid.T
	counts *modelCounts

	people      []*refPerson
	sessions    []*refSession
	keys        []*refKey
	orgs        []*refOrg
	notebooks   []*refNotebook
	notes       []*refNote
	invitations []*refInvitation
}

// modelCounts counts what all runs did.
type modelCounts struct {
	outcomes
	by         map[string]*outcomes // operation
	statuses   map[int]int
	heldInside int // moves out of a restricted notebook that a grant on the note did not allow
}

// outcomes count how often something was sent, and the results.
type outcomes struct{ sent, allowed, refused, other int }

func (o *outcomes) count(status int) {
	o.sent++
	switch {
	case status < 400:
		o.allowed++
	case status == 401 || status == 403 || status == 404:
		o.refused++
	default:
		o.other++
	}
}

// manyOperations is the length of a run that must see every operation allowed and refused.
const manyOperations = 100_000

// table shows each operation's outcomes.
func (c *modelCounts) table() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-55s %8s %8s %8s\n", "", "allowed", "refused", "other")
	for _, route := range slices.Sorted(maps.Keys(c.by)) {
		fmt.Fprintf(&text, "%-55s %8d %8d %8d\n", route, c.by[route].allowed, c.by[route].refused, c.by[route].other)
	}
	return text.String()
}

// TestTheServerDecidesAsTheModel sends random sequences of all operations, as people, keys and services in
// organizations, and compares each answer with the reference.
func TestTheServerDecidesAsTheModel(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) { o.Settings.AuthFailureFloor = time.Millisecond })
	people := modelPeople(t, env)
	counts := &modelCounts{by: map[string]*outcomes{}, statuses: map[int]int{}}
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	setFlag(t, "rapid.checks", "1")
	setFlag(t, "rapid.steps", "400")
	setFlag(t, "rapid.nofailfile", "true")
	for round := uint64(0); counts.sent < *modelOperations; round++ {
		setFlag(t, "rapid.seed", strconv.FormatUint(seed+round, 10))
		before := counts.sent
		rapid.Check(t, func(rt *rapid.T) { newMachine(t, rt, env, people, counts).run() })
		if t.Failed() {
			t.Fatalf("to see it again: go test -run %s ./server -model.seed=%d -model.operations=%d", t.Name(), seed+round, counts.sent-before)
		}
	}
	t.Logf("seed %d: %d operations, %d allowed, %d refused, %d otherwise (conflicts and invalid values); by status: %v",
		seed, counts.sent, counts.allowed, counts.refused, counts.other, counts.statuses)
	t.Logf("\n%s", counts.table())
	if counts.allowed*3 < counts.sent || counts.refused*3 < counts.sent {
		t.Error("less than a third was allowed, or less than a third refused: this proves little")
	}
	// No operation is left out.
	for _, route := range routesOf(t, env) {
		if slices.Contains(publicRoutes, route) {
			continue
		}
		switch seen := counts.by[route]; {
		case seen == nil:
			t.Errorf("%s was never sent", route)
		case counts.sent >= manyOperations && (seen.allowed == 0 || seen.refused == 0):
			t.Errorf("%s was allowed %d times and refused %d times: one of the two was never tried", route, seen.allowed, seen.refused)
		}
	}
	t.Logf("%d times a note stayed in its restricted notebook although its writer had a grant on it", counts.heldInside)
	if counts.sent >= manyOperations && counts.heldInside == 0 {
		t.Error("nobody tried to move a note out of a restricted notebook by a grant on it")
	}
	for route := range modelOf {
		if !slices.Contains(routesOf(t, env), route) {
			t.Errorf("the model has %s, the server does not", route)
		}
	}
}

func setFlag(t *testing.T, name, value string) {
	t.Helper()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

// modelPeople signs everybody in once; sessions are made by hand later.
func modelPeople(t *testing.T, env *servertest.Env) []*refPerson {
	t.Helper()
	var people []*refPerson
	for _, name := range servertest.People {
		env.SignIn(t, name)
		p := &refPerson{name: name, role: map[string]string{"ada": "admin", "mona": "moderator"}[name]}
		if err := env.Pool.QueryRow(t.Context(), `select user_id, id from identities where subject = $1`, name).Scan(&p.id, &p.identity); err != nil {
			t.Fatal(err)
		}
		people = append(people, p)
	}
	return people
}

// newMachine starts from an empty place: the people, two organizations with members and things.
func newMachine(t *testing.T, rt *rapid.T, env *servertest.Env, people []*refPerson, counts *modelCounts) *machine {
	for _, statement := range []string{
		`delete from notes`, `delete from invitations`, `delete from key_secrets`, `delete from keys`, `delete from members`,
		`delete from notebooks`, `delete from orgs`, `delete from counts`, `delete from device_guesses`, `delete from device_logins`, `delete from links`, `delete from sessions`,
		`delete from identities where subject like 'linked %'`, `update users set locked_at = null`,
	} {
		env.Exec(t, statement)
	}
	m := &machine{Env: env, t: rt, counts: counts}
	for _, p := range people {
		p.locked, p.linked = false, nil
		m.people = append(m.people, p)
		m.begin(t, p)
	}
	for i, first := range []*refPerson{m.people[0], m.people[1]} {
		org := m.makeOrg(first)
		for j, p := range m.people[2+i*4 : 8+i*4] {
			role := []string{"admin", "writer", "reader"}[j%3]
			env.Exec(t, `insert into members (org_id, user_id, role) values ($1, $2, $3)`, org.id, p.id, role)
			org.members[p] = role
		}
		as := refCaller{session: m.sessionOf(first)}
		for _, restricted := range []bool{false, true} {
			b := m.makeNotebook(as, org, restricted)
			for range 2 {
				m.makeNote(as, org, b)
			}
			// Writers with a grant: one on a note of a notebook, one on the notebook.
			n := m.notes[len(m.notes)-1]
			m.grant(as, "/notes/"+n.id, n.grants, org, m.people[3+i*4])
			m.grant(as, "/notebooks/"+b.id, b.grants, org, m.people[6+i*4])
		}
		m.makeNote(as, org, nil)
		for _, role := range []string{"admin", "writer", "reader"} {
			m.makeOrgKey(as, org, role, "key-"+role)
		}
	}
	for _, p := range m.people {
		m.makeNote(refCaller{session: m.sessionOf(p)}, nil, nil)
		m.makeKey(m.sessionOf(p), []string{"key-reader", "key-writer", "key-admin"}[len(m.keys)%3])
	}
	return m
}

func (m *machine) run() {
	actions := map[string]func(*rapid.T){}
	for route, act := range modelOf {
		actions[route] = func(rt *rapid.T) {
			m.t = rt
			act(m, m.caller(route))
		}
	}
	m.t.Repeat(actions)
}

// begin makes a session like a sign-in.
func (m *machine) begin(t testing.TB, p *refPerson) {
	made := identity.NewToken()
	hash, _ := made.Hash()
	s := &refSession{id: uuid.NewString(), token: string(made), person: p}
	m.Exec(t, `insert into sessions (id, user_id, identity_id, token_hash, expires_at, origin) values ($1, $2, $3, $4, now() + interval '1 hour', 'browser')`, s.id, p.id, p.identity, hash)
	m.sessions = append(m.sessions, s)
}

func (m *machine) sessionOf(p *refPerson) *refSession {
	return m.sessions[slices.IndexFunc(m.sessions, func(s *refSession) bool { return s.person == p && !s.ended })]
}

// pick draws one from the list; the second result is false if it draws none.
func pick[T any](m *machine, label string, from []T) (T, bool) {
	if len(from) == 0 {
		var none T
		return none, false
	}
	return rapid.SampledFrom(from).Draw(m.t, label), true
}

// caller draws the caller; one whose credential has ended is nearly always redrawn.
func (m *machine) caller(route string) refCaller {
	c := m.credential(route)
	for range 10 {
		if c.holds() || rapid.IntRange(0, 9).Draw(m.t, "again") == 0 {
			break
		}
		c = m.credential(route)
	}
	return c
}

// credential draws a session or a key. Most are sessions, since only they may do everything.
func (m *machine) credential(route string) refCaller {
	// Few may do everything in an organization, or on the platform.
	if strings.Contains(route, "{org}") && rapid.IntRange(0, 3).Draw(m.t, "an admin") > 0 {
		admins := slices.DeleteFunc(slices.Clone(m.sessions), func(s *refSession) bool {
			return s.ended || s.person.locked || !slices.ContainsFunc(m.orgs, func(o *refOrg) bool { return !o.deleted && o.members[s.person] == "admin" })
		})
		if s, ok := pick(m, "session", admins); ok {
			return refCaller{session: s}
		}
	}
	if (strings.Contains(route, "/v1/admin") || strings.Contains(route, "/v1/deadzone")) && rapid.IntRange(0, 4).Draw(m.t, "staff") > 0 {
		for _, s := range m.sessions {
			if s.person.role == "admin" && !s.ended {
				return refCaller{session: s}
			}
		}
	}
	if rapid.IntRange(0, 9).Draw(m.t, "by") >= 7 {
		if key, ok := pick(m, "key", m.keys); ok {
			return refCaller{key: key}
		}
	}
	s, _ := pick(m, "session", m.sessions)
	return refCaller{session: s}
}

// send sends one request and compares the answer with the verdict. It reports whether the server did it; into may
// be nil.
func (m *machine) send(c refCaller, route, path string, body any, want verdict, success int, into any) bool {
	if !c.holds() {
		want = verdict{status: 401}
	}
	if want.status == 0 {
		want.status = success
	}
	a := m.raw(c, route, path, body)
	var problem struct{ Permission string }
	if a.Status >= 400 {
		_ = json.Unmarshal(a.Body, &problem)
	}
	m.counts.count(a.Status)
	m.counts.statuses[a.Status]++
	if m.counts.by[route] == nil {
		m.counts.by[route] = &outcomes{}
	}
	m.counts.by[route].count(a.Status)
	if a.Status != want.status || problem.Permission != want.permission {
		m.t.Fatalf("%s as %s: %s %v: got %d %q, want %d %q; %s", route, m.describe(c), path, body, a.Status, problem.Permission, want.status, want.permission, a.Body)
	}
	if a.Status >= 400 {
		return false
	}
	if into != nil {
		if err := json.Unmarshal(a.Body, into); err != nil {
			m.t.Fatalf("%s: %v in %s", route, err, a.Body)
		}
	}
	return true
}

func (c refCaller) token() string {
	if c.session != nil {
		return c.session.token
	}
	return c.key.token
}

func (m *machine) raw(c refCaller, route, path string, body any) servertest.Answer {
	method, _, _ := strings.Cut(route, " ")
	if form, ok := body.(form); ok {
		return m.Do(m.tb(), method, path, c.token(), string(form), "Content-Type", "application/x-www-form-urlencoded")
	}
	return m.Do(m.tb(), method, path, c.token(), body)
}

type form string

// tb makes a test server's helpers fail the run.
func (m *machine) tb() testing.TB { return rapidTB{nil, m.t} }

func (m *machine) describe(c refCaller) string {
	switch {
	case c.session != nil:
		return fmt.Sprintf("%s %s (locked %t, ended %t)", c.session.person.name, c.session.person.role, c.session.person.locked, c.session.ended)
	case c.service():
		return fmt.Sprintf("a service, %s, %s (revoked %t)", c.key.orgRole, c.key.role, c.key.revoked)
	}
	return fmt.Sprintf("%s's %s (revoked %t)", c.key.person.name, c.key.role, c.key.revoked)
}

// list reads a whole list, page by page, and compares its ids.
func (m *machine) list(c refCaller, route, path string, want verdict, member string, ids []string) {
	var got []string
	cursor := ""
	for {
		var page struct {
			Items      []map[string]any `json:"items"`
			NextCursor *string          `json:"next_cursor"`
		}
		address := path
		join := "?"
		if strings.Contains(path, "?") {
			join = "&"
		}
		address += join + "limit=" + strconv.Itoa(rapid.SampledFrom([]int{1, 3, 200}).Draw(m.t, "limit"))
		if cursor != "" {
			address += "&cursor=" + cursor
		}
		if !m.send(c, route, address, nil, want, http.StatusOK, &page) {
			return
		}
		for _, item := range page.Items {
			got = append(got, item[member].(string))
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	if ids == nil {
		return
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		m.t.Fatalf("%s as %s: %s lists\n%v, want\n%v", route, m.describe(c), path, got, ids)
	}
}

// Existing things, drawn at random. One in ten is none.
func (m *machine) stray() bool { return rapid.IntRange(0, 9).Draw(m.t, "stray") == 0 }

var nowhere = &refOrg{id: uuid.NewString(), deleted: true}

// org draws an organization, mostly one of the caller's.
func (m *machine) org(c refCaller) *refOrg {
	mine := slices.DeleteFunc(slices.Clone(m.orgs), func(o *refOrg) bool { return c.roleIn(o) == "" })
	if best := slices.DeleteFunc(slices.Clone(mine), func(o *refOrg) bool { return c.roleIn(o) != "admin" }); len(best) > 0 && rapid.Bool().Draw(m.t, "as an admin") {
		mine = best
	}
	if len(mine) > 0 && rapid.IntRange(0, 6).Draw(m.t, "mine") > 0 {
		o, _ := pick(m, "org", mine)
		return o
	}
	if o, ok := pick(m, "org", m.orgs); ok && !m.stray() {
		return o
	}
	return nowhere
}

// in draws a thing, mostly from the organization.
func in[T any](m *machine, org *refOrg, from []T, orgOf func(T) *refOrg) (T, bool) {
	here := slices.DeleteFunc(slices.Clone(from), func(x T) bool { return orgOf(x) != org })
	if len(here) > 0 && rapid.IntRange(0, 6).Draw(m.t, "here") > 0 {
		return pick(m, "thing", here)
	}
	if m.stray() {
		var none T
		return none, false
	}
	return pick(m, "thing", from)
}

func (m *machine) notebook(org *refOrg) (b *refNotebook, id string) {
	b, ok := in(m, org, m.notebooks, func(b *refNotebook) *refOrg { return b.org })
	if !ok {
		return nil, uuid.NewString()
	}
	return b, b.id
}

func (m *machine) note(org *refOrg) (n *refNote, id string) {
	n, ok := in(m, org, m.notes, func(n *refNote) *refOrg { return n.org })
	if !ok {
		return nil, uuid.NewString()
	}
	return n, n.id
}

// anyNote draws a note, mostly one close to the caller.
func (m *machine) anyNote(c refCaller) (n *refNote, id string) {
	if own := slices.DeleteFunc(slices.Clone(m.notes), func(n *refNote) bool { return n.person == nil || n.person != c.person() }); len(own) > 0 && rapid.IntRange(0, 3).Draw(m.t, "own") == 0 {
		n, _ = pick(m, "note", own)
		return n, n.id
	}
	return m.note(m.org(c))
}

// writesByGrant draws a note in a restricted notebook, and a non-admin who may write it only by a grant; false if
// there is none now.
func (m *machine) writesByGrant() (c refCaller, n *refNote, ok bool) {
	type pair struct {
		refCaller
		*refNote
	}
	var pairs []pair
	for _, n := range m.notes {
		for _, s := range m.sessions {
			c := refCaller{session: s}
			if n.org != nil && n.restricted() && !n.dead && !n.gone && c.holds() && c.roleIn(n.org) != "admin" && c.granted(n, "note:org write") {
				pairs = append(pairs, pair{c, n})
			}
		}
	}
	p, ok := pick(m, "who writes by a grant", pairs)
	return p.refCaller, p.refNote, ok
}

func (m *machine) member(org *refOrg) *refPerson {
	members := slices.DeleteFunc(slices.Clone(m.people), func(p *refPerson) bool { return org.members[p] == "" })
	if p, ok := pick(m, "member", members); ok && rapid.IntRange(0, 4).Draw(m.t, "a member") > 0 {
		return p
	}
	p, _ := pick(m, "person", m.people)
	return p
}

// Making things, also at the start.

func (m *machine) made(c refCaller, path string, body map[string]any, into any) {
	a := m.Do(m.tb(), http.MethodPost, path, c.token(), body)
	if a.Status != http.StatusCreated {
		m.t.Fatalf("making the start: %s %v: %d %s", path, body, a.Status, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		m.t.Fatal(err)
	}
}

type madeThing struct{ ID, Secret, Token string }

func (m *machine) makeOrg(p *refPerson) *refOrg {
	var got madeThing
	m.made(refCaller{session: m.sessionOf(p)}, "/v1/orgs", map[string]any{"name": "of " + p.name}, &got)
	return m.addOrg(got, p)
}

func (m *machine) addOrg(got madeThing, p *refPerson) *refOrg {
	o := &refOrg{id: got.ID, members: map[*refPerson]string{p: "admin"}}
	m.orgs = append(m.orgs, o)
	return o
}

func (m *machine) makeNotebook(c refCaller, org *refOrg, restricted bool) *refNotebook {
	var got madeThing
	m.made(c, "/v1/orgs/"+org.id+"/notebooks", map[string]any{"name": "n", "restricted": restricted}, &got)
	return m.addNotebook(got, org, restricted)
}

func (m *machine) addNotebook(got madeThing, org *refOrg, restricted bool) *refNotebook {
	b := &refNotebook{id: got.ID, org: org, restricted: restricted, grants: map[*refPerson]string{}}
	m.notebooks = append(m.notebooks, b)
	return b
}

func noteBody(org *refOrg, notebook *refNotebook) map[string]any {
	body := map[string]any{"title": "t", "body": "b"}
	if org != nil {
		body["org_id"] = org.id
	}
	if notebook != nil {
		body["notebook_id"] = notebook.id
	}
	return body
}

func (m *machine) makeNote(c refCaller, org *refOrg, notebook *refNotebook) {
	var got madeThing
	m.made(c, "/v1/notes", noteBody(org, notebook), &got)
	m.addNote(got, c, org, notebook)
}

func (m *machine) addNote(got madeThing, c refCaller, org *refOrg, notebook *refNotebook) {
	m.notes = append(m.notes, &refNote{id: got.ID, person: c.person(), org: org, notebook: notebook, grants: map[*refPerson]string{}})
}

// grant lets somebody write a thing.
func (m *machine) grant(c refCaller, thing string, grants map[*refPerson]string, org *refOrg, p *refPerson) {
	path := orgPath(org) + thing + "/grants/" + p.id
	if a := m.Do(m.tb(), http.MethodPut, path, c.token(), map[string]any{"access": "write"}); a.Status != http.StatusOK {
		m.t.Fatalf("making the start: %s: %d %s", path, a.Status, a.Body)
	}
	grants[p] = "write"
}

func (m *machine) makeKey(s *refSession, role string) {
	var got madeThing
	m.made(refCaller{session: s}, "/v1/keys", map[string]any{"name": "k", "role": role}, &got)
	m.keys = append(m.keys, &refKey{id: got.ID, token: got.Secret, role: role, person: s.person})
}

func (m *machine) makeOrgKey(c refCaller, org *refOrg, orgRole, role string) {
	var got madeThing
	m.made(c, "/v1/orgs/"+org.id+"/keys", map[string]any{"name": "k", "role": role, "org_role": orgRole}, &got)
	m.keys = append(m.keys, &refKey{id: got.ID, token: got.Secret, role: role, org: org, orgRole: orgRole, shown: c.person()})
}

func ids[T any](from []T, id func(T) string, which func(T) bool) []string {
	list := []string{}
	for _, x := range from {
		if which(x) {
			list = append(list, id(x))
		}
	}
	return list
}

func noteID(n *refNote) string { return n.id }

// revoked ends the invitations that somebody made.
func (m *machine) revoked(org *refOrg, p *refPerson, k *refKey) {
	for _, i := range m.invitations {
		if i.org == org && (p != nil && i.byPerson == p || k != nil && i.byKey == k) {
			i.over = true
		}
	}
}

func (m *machine) forget(org *refOrg, p *refPerson) {
	delete(org.members, p)
	m.revoked(org, p, nil)
	for _, b := range m.notebooks {
		if b.org == org {
			delete(b.grants, p)
		}
	}
	for _, n := range m.notes {
		if n.org == org {
			delete(n.grants, p)
		}
	}
}

func orgPath(o *refOrg) string { return "/v1/orgs/" + o.id }

// set reads "object act act, object act".
func set(text string) map[string]bool {
	permissions := map[string]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		words := strings.Fields(entry)
		for _, act := range words[1:] {
			permissions[words[0]+" "+act] = true
		}
	}
	return permissions
}
