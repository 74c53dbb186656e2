package pg_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"noted/internal/localpg/pgtest"
	"noted/internal/pg"
)

// This test program runs far from UTC.
func init() { time.Local = time.FixedZone("far", 5*3600) }

// Wherever the server runs, times are shown in UTC.
func TestTimesAreReadInUTC(t *testing.T) {
	var one time.Time
	var maybe *time.Time
	var list []time.Time
	err := pgtest.Pool(t).QueryRow(t.Context(), `select now(), clock_timestamp(), array[now()]`).Scan(&one, &maybe, &list)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{one, *maybe, list[0]} {
		if at.Location() != time.UTC {
			t.Errorf("%v is not in UTC", at)
		}
	}
}

func TestTheZeroValueIsNull(t *testing.T) {
	if pg.OrNull(uuid.Nil) != nil || pg.OrNull("") != nil || pg.OrNull(netip.Addr{}) != nil || pg.OrNull(time.Time{}) != nil {
		t.Error("a zero value is not null")
	}
	if id := uuid.New(); *pg.OrNull(id) != id {
		t.Error("a value is lost")
	}
}
