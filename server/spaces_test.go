package server_test

import (
	"net/http"
	"testing"

	"github.com/google/uuid"

	"noted/internal/space"
	"noted/server/servertest"
)

// spaced has something of every kind in a space: alice's, an organization's of hers, and a service's there.
type spaced struct {
	*servertest.Env
	alice, ada, service         string // tokens
	org, notebook               string
	own, inOrg, dead, byService string // notes
}

func newSpaced(t *testing.T) *spaced {
	t.Helper()
	s := &spaced{Env: servertest.New(t)}
	s.alice, s.ada = s.SignIn(t, "alice"), s.SignIn(t, "ada")
	s.org = s.NewOrg(t, s.alice, "o")
	path := "/v1/orgs/" + s.org
	s.notebook = s.Make(t, s.alice, path+"/notebooks", map[string]any{"name": "n"})
	var key struct {
		Secret string `json:"secret"`
	}
	s.Do(t, http.MethodPost, path+"/keys", s.alice, map[string]any{"name": "k", "role": "key-writer", "org_role": "writer"}).JSON(t, &key)
	s.service = key.Secret
	inOrg := map[string]any{"title": "t", "body": "", "org_id": s.org, "notebook_id": s.notebook}
	s.own, s.inOrg, s.byService = s.NewNote(t, s.alice, "own"), s.Make(t, s.alice, "/v1/notes", inOrg), s.Make(t, s.service, "/v1/notes", inOrg)
	s.dead = s.NewDeadNote(t, s.alice, "dead")
	bob := s.Join(t, s.alice, s.org, "bob", "reader")
	var me struct {
		ID string `json:"id"`
	}
	s.Do(t, http.MethodGet, "/v1/me", bob, nil).JSON(t, &me)
	for _, thing := range []string{"/notes/" + s.inOrg, "/notebooks/" + s.notebook} {
		s.must(t, http.MethodPut, path+thing+"/grants/"+me.ID, s.alice, `{"access":"write"}`, http.StatusOK)
	}
	return s
}

func (s *spaced) must(t *testing.T, method, path, token string, body any, status int) {
	t.Helper()
	if a := s.Do(t, method, path, token, body); a.Status != status {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
}

// The column marks each table with a space, so that this test includes a new one at once.
func TestWhatStandsInASpaceHasItFirstInItsKeysAndItsBucketInItsID(t *testing.T) {
	t.Parallel()
	s := newSpaced(t)
	rows, err := s.Pool.Query(t.Context(), `
		select c.table_name::text, exists (
			select from information_schema.columns i where i.table_schema = 'public' and i.table_name = c.table_name and i.column_name = 'id')
		from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
		where c.table_schema = 'public' and c.column_name = 'space_id' and t.table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]bool{} // whether they have ids
	for rows.Next() {
		var name string
		var hasID bool
		if err := rows.Scan(&name, &hasID); err != nil {
			t.Fatal(err)
		}
		tables[name] = hasID
	}
	if len(tables) < 3 {
		t.Errorf("only %v stand in a space", tables)
	}
	for name, hasID := range tables {
		if !hasID {
			continue
		}
		rows, err := s.Pool.Query(t.Context(), `select id, space_id from `+name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; rows.Next(); n++ {
			var id, in uuid.UUID
			if err := rows.Scan(&id, &in); err != nil {
				t.Fatal(err)
			}
			if space.Bucket(id) != space.Bucket(in) {
				t.Errorf("%s of %s in %s is in another bucket", id, name, in)
			}
		}
		if n == 0 {
			t.Errorf("this test makes nothing of %s", name)
		}
	}

	// A key or unique index that does not begin with the space could not stay on one machine, and a foreign key to
	// a space's rows would reach into another.
	keys, err := s.Pool.Query(t.Context(), `
		with spaced as (
			select attrelid, attnum from pg_attribute join pg_class c on c.oid = attrelid
			where attname = 'space_id' and relkind = 'r' and relnamespace = 'public'::regnamespace)
		select relname || ' is unique without its space first' from pg_index i
			join spaced s on s.attrelid = i.indrelid join pg_class c on c.oid = i.indexrelid
			where indisunique and indkey[0] <> s.attnum
		union all
		select conname || ' does not lead with the space' from pg_constraint f
			join spaced here on here.attrelid = conrelid left join spaced there on there.attrelid = confrelid
			where contype = 'f' and there.attrelid is not null and (conkey[1] <> here.attnum or confkey[1] <> there.attnum)
		union all
		select attrelid::regclass || ' may be without a space' from spaced join pg_attribute a using (attrelid, attnum) where not a.attnotnull
		union all
		select attrelid::regclass || ' has no primary key or unique constraint' from spaced
			where not exists (select from pg_constraint where conrelid = attrelid and contype in ('p', 'u'))
		union all
		select attrelid::regclass || ' is held to its space by nothing' from spaced
			where not exists (select from pg_constraint where conrelid = attrelid and contype in ('c', 'f') and attnum = any(conkey))`)
	if err != nil {
		t.Fatal(err)
	}
	for keys.Next() {
		var wrong string
		if err := keys.Scan(&wrong); err != nil {
			t.Fatal(err)
		}
		t.Error(wrong)
	}
}

func TestNothingStandsInASpaceThatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	s := newSpaced(t)
	for _, sql := range []string{
		`update notes set space_id = gen_random_uuid()`, `update notes set space_id = owner_id where org_id is not null and owner_id is not null`,
		`update notes set space_id = owner_key where owner_key is not null`, `update notes set space_id = null`,
		`update notebooks set space_id = gen_random_uuid()`, `update grants set space_id = gen_random_uuid()`,
		`update notes set notebook_id = (select id from notebooks) where org_id is null`,
	} {
		if _, err := s.Pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is let through", sql)
		}
	}
}

// An older id, with random bits, works on every path as before, and a correct bucket lets nobody in.
func TestTheBucketOfAnIDIsAHintAndNoPermission(t *testing.T) {
	t.Parallel()
	s := newSpaced(t)
	carol := s.SignIn(t, "carol")
	older := map[string]string{}
	for _, id := range []string{s.own, s.inOrg, s.byService, s.dead} {
		next := uuid.NewString()
		s.Exec(t, `insert into notes select (jsonb_populate_record(n, jsonb_build_object('id', $2::text))).* from notes n where id = $1::uuid`, id, next)
		older[id] = next
	}
	for id, next := range older {
		for _, id := range []string{id, next} {
			path, owner := "/v1/notes/"+id, s.alice
			if next == older[s.dead] {
				path, owner = "/v1/deadzone/"+id, s.ada
			}
			s.must(t, http.MethodGet, path, owner, nil, http.StatusOK)
			if next != older[s.dead] {
				s.must(t, http.MethodPatch, path, owner, `{"title":"new"}`, http.StatusOK)
				s.must(t, http.MethodGet, path, carol, nil, http.StatusNotFound)
				s.must(t, http.MethodDelete, path, owner, nil, http.StatusNoContent)
				path = "/v1/deadzone/" + id
			}
			s.must(t, http.MethodPost, path+"/restore", s.ada, nil, http.StatusOK)
		}
	}
	// carol's own bucket, in an unused id.
	var me struct {
		ID uuid.UUID `json:"id"`
	}
	s.Do(t, http.MethodGet, "/v1/me", carol, nil).JSON(t, &me)
	s.must(t, http.MethodGet, "/v1/notes/"+space.NewID(me.ID).String(), carol, nil, http.StatusNotFound)
}
