//go:build race

package spacetest_test

import (
	"slices"
	"strings"
	"testing"

	"noted/internal/localpg/pgtest"
	"noted/internal/space/spacetest"
)

var schema = &spacetest.Schema{
	Spaced: []string{"notes", "notebooks", "grants"}, Hiding: []string{"titles"}, Volatile: []string{"clock_timestamp", "random"},
}

func TestOnlyWhatNamesItsSpaceIsRight(t *testing.T) {
	for sql, want := range map[string]string{
		// By a parameter, in any order and spelling.
		`select from notes where space_id = $1 and id = $2`:                                                                 "",
		`select from notes n where id = $2 and ($1 = n.space_id and true)`:                                                  "",
		`select from notes where space_id = $1::uuid for update`:                                                            "",
		`update notes set title = $1 where space_id = $2`:                                                                   "",
		`delete from notes where space_id = $1 and id in (select id from notes where space_id = $1 for update skip locked)`: "",
		`insert into notes (space_id, id) values ($1, $2)`:                                                                  "",
		`select from users`: "",
		// By a joined table.
		`select from notes n join notebooks b on b.space_id = n.space_id where n.space_id = $1`:                                              "",
		`select from notes n left join notebooks b on b.space_id = n.space_id and b.id = n.notebook_id where n.space_id = $1`:                "",
		`select from notes n left join notebooks b on b.space_id = $1 where n.space_id = $1`:                                                 "",
		`select from notes n left join lateral (select max(access) from grants where space_id = n.space_id) g on true where n.space_id = $1`: "",
		`select exists (select from grants g where g.space_id = n.space_id) from notes n where n.space_id = $1`:                              "",
		`with n as (select * from notes where space_id = $1) select from n`:                                                                  "",
		`update notes set title = 't' from notebooks b where b.space_id = notes.space_id and notes.space_id = $1`:                            "",

		// Not at all, or not really.
		`select from notes`:                                                                            "notes (notes) is touched",
		`select from notes n where n.id = $1`:                                                          "notes (n) is touched",
		`select from notes where space_id = $1 or id = $2`:                                             "notes (notes) is touched",
		`select from notes where not space_id = $1`:                                                    "notes (notes) is touched",
		`select from notes where space_id <> $1`:                                                       "notes (notes) is touched",
		`select from notes where space_id = owner_id`:                                                  "notes (notes) is touched",
		`select from notes where coalesce(space_id, $1) = $1`:                                          "notes (notes) is touched",
		`select from notes where org_id = $1`:                                                          "notes (notes) is touched",
		`select from orgs o join notes n on n.space_id = o.id`:                                         "notes (n) is touched",
		`select from public.notes`:                                                                     "notes (notes) is touched",
		`update notes set title = $1 where id = $2`:                                                    "notes (notes) is touched",
		`delete from notes where id = $1`:                                                              "notes (notes) is touched",
		`delete from users using notes where notes.owner_id = users.id`:                                "notes (notes) is touched",
		`lock table notes`:                                                                             "can name no space",
		`insert into notes (id) values ($1)`:                                                           "inserted without its space",
		`insert into users (id) select owner_id from notes`:                                            "notes (notes) is touched",
		`update notes set space_id = $2 where space_id = $1`:                                           "is changed",
		`insert into grants (space_id) values ($1) on conflict (space_id) do update set space_id = $2`: "is changed",
		`select from titles`:                                                                           "hides the space",
		// One table does, another does not.
		`select from notes n join notebooks b on b.id = n.notebook_id where n.space_id = $1`:                                 "notebooks (b) is touched",
		`select from notes n left join notebooks b on n.space_id = $1 and b.space_id = n.space_id`:                           "notes (n) is touched",
		`select from notes n full join notebooks b on n.space_id = $1 and b.space_id = $1`:                                   "is touched",
		`select from notes n where n.space_id = $1 and n.id in (select note_id from grants)`:                                 "grants (grants) is touched",
		`select (select count(*) from notes)`:                                                                                "notes (notes) is touched",
		`select from notes where space_id = $1 union all select from notes`:                                                  "notes (notes) is touched",
		`with n as (select * from notes) select from n`:                                                                      "notes (notes) is touched",
		`select from notes n where n.space_id = $1 and exists (select from grants where note_id = n.id and n.space_id = $1)`: "grants (grants) is touched",
		`delete from notes where space_id = $1 and id in (select id from notes for update skip locked)`:                      "notes (notes) is touched",

		// The volatile value is read first.
		`update users set locked_at = clock_timestamp() where id = $1`:                                             "clock_timestamp() is volatile",
		`update users set seen = greatest(seen, pg_catalog.clock_timestamp()) where id = $1`:                       "clock_timestamp() is volatile",
		`update users set seen = c.at from (select clock_timestamp() as at) c where id = $1`:                       "clock_timestamp() is volatile",
		`update users set seen = (select random())`:                                                                "random() is volatile",
		`delete from users where seen < clock_timestamp()`:                                                         "clock_timestamp() is volatile",
		`insert into users (id) values ($1) on conflict (id) do update set seen = clock_timestamp()`:               "clock_timestamp() is volatile",
		`with clock as (select clock_timestamp() as at) update users set seen = clock.at from clock where id = $1`: "",
		`update users set seen = now() where id = $1`:                                                              "",
		`insert into users (seen) values (clock_timestamp())`:                                                      "",
	} {
		faults, err := schema.Check(sql, sql, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if got := strings.Join(faults, "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}

func TestAnExceptionCountsForItsTableAlone(t *testing.T) {
	exception := spacetest.Exception{Table: "notes", In: "where n.id = @id"}
	used := 0
	for sql, want := range map[string]int{
		`select from notes n where n.id = @id`:                                                  0,
		`select from notes n left join notebooks b on b.space_id = n.space_id where n.id = @id`: 0,
		`select from notes n left join notebooks b on b.id = n.notebook_id where n.id = @id`:    1,
		`select from notes n where n.title = @id`:                                               1,
	} {
		faults, err := schema.Check(strings.ReplaceAll(sql, "@id", "$1"), sql, []spacetest.Exception{exception}, func(spacetest.Exception) { used++ })
		if err != nil || len(faults) != want {
			t.Errorf("%s: %q (%v), want %d", sql, faults, err, want)
		}
	}
	if used != 3 {
		t.Errorf("the exception was used %d times, want 3", used)
	}
}

func TestTheSchemaSaysWhatStandsInASpace(t *testing.T) {
	pool := pgtest.Pool(t)
	if _, err := pool.Exec(t.Context(), `
		create view open_notes as select space_id, id from notes;
		create view titles as select title from notes`); err != nil {
		t.Fatal(err)
	}
	found, err := spacetest.Load(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"notes", "notebooks", "grants", "open_notes"} {
		if !slices.Contains(found.Spaced, name) {
			t.Errorf("%s stands in no space", name)
		}
	}
	if !slices.Equal(found.Hiding, []string{"titles"}) {
		t.Errorf("these hide it: %q", found.Hiding)
	}
	if !slices.Contains(found.Volatile, "clock_timestamp") || slices.Contains(found.Volatile, "now") {
		t.Errorf("of %d volatile functions clock_timestamp is none, or now is one", len(found.Volatile))
	}
}
