package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"noted/internal/problem"
)

// Query is embedded in the input of every list.
type Query struct {
	Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"200" doc:"How many items at most"`
	Cursor string `query:"cursor" maxLength:"100" doc:"next_cursor of the page before"`
}

// Of is a page: {"items":[…],"next_cursor":…}.
type Of[T any] struct {
	Items      []T     `json:"items" nullable:"false"`
	NextCursor *string `json:"next_cursor" doc:"null on the last page"`
}

// Position is the last row of a page: a time in microseconds, as PostgreSQL keeps it,
// and the row's id for rows of the same time. The zero Position is before the first row.
type Position struct {
	At time.Time
	ID uuid.UUID
}

const size = 8 + 16 + 8 // time, id, checksum

// Cursor writes the position for the list named list; everything that selects rows (scope,
// filters) belongs into that name.
func (p Position) Cursor(list string) string {
	raw := make([]byte, 0, size)
	raw = binary.BigEndian.AppendUint64(raw, uint64(p.At.UnixMicro()))
	raw = append(raw, p.ID[:]...)
	raw = append(raw, checksum(list, raw)...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// After reads the query's cursor for the list named list. A cursor that this list did
// not give is a 422 at query.cursor.
func (q Query) After(list string) (Position, error) {
	if q.Cursor == "" {
		return Position{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	// The decoder passes over line ends and stray bits; the encoder writes neither.
	if err != nil || len(raw) != size || base64.RawURLEncoding.EncodeToString(raw) != q.Cursor || subtle.ConstantTimeCompare(raw[24:], checksum(list, raw[:24])) != 1 {
		return Position{}, problem.Invalid("query.cursor", "is not a cursor of this list; start again without it")
	}
	p := Position{At: time.UnixMicro(int64(binary.BigEndian.Uint64(raw))).UTC(), ID: uuid.UUID(raw[8:24])}
	if p.At.Year() < 1970 || p.At.Year() > 9999 { // a forged one; PostgreSQL has no such time
		return Position{}, problem.Invalid("query.cursor", "is not a cursor of this list; start again without it")
	}
	return p, nil
}

func checksum(list string, raw []byte) []byte {
	sum := sha256.Sum256(append([]byte("noted cursor 1 "+list+"\x00"), raw...))
	return sum[:8]
}

// Make cuts rows, of which one more than limit was asked for, to a page; position tells
// where a row stands.
func Make[T any](rows []T, limit int, list string, position func(T) Position) Of[T] {
	if rows == nil {
		rows = []T{}
	}
	if len(rows) <= limit {
		return Of[T]{Items: rows}
	}
	rows = rows[:limit]
	cursor := position(rows[limit-1]).Cursor(list)
	return Of[T]{Items: rows, NextCursor: &cursor}
}

// TimeOrNull is p's time for a query's `$n::timestamptz is null or (at, id) < ($n, $m)`:
// nil, so null, for the zero Position.
func (p Position) TimeOrNull() *time.Time {
	if p.At.IsZero() {
		return nil
	}
	return &p.At
}

// Map turns each item of a page into what is shown of it.
func Map[T, U any](from Of[T], show func(T) U) Of[U] {
	items := make([]U, len(from.Items))
	for i, item := range from.Items {
		items[i] = show(item)
	}
	return Of[U]{Items: items, NextCursor: from.NextCursor}
}
