package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

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

// Position is the last row of a page: its time in microseconds, PostgreSQL's precision, and its id to break ties.
// The zero Position is before the first row.
type Position struct {
	At time.Time
	ID uuid.UUID
}

const size = 8 + 16 + 8 // time, id, checksum

// Cursor encodes the position for the list named list. The name must include all that selects rows (scope,
// filters).
func (p Position) Cursor(list string) string {
	raw := make([]byte, 0, size)
	raw = binary.BigEndian.AppendUint64(raw, uint64(p.At.UnixMicro()))
	raw = append(raw, p.ID[:]...)
	raw = append(raw, checksum(list, raw)...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// After reads the query's cursor for the list named list. A cursor from another list is a 422 at query.cursor.
func (q Query) After(list string) (Position, error) {
	if q.Cursor == "" {
		return Position{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	// The decoder skips line ends and stray bits; the encoder writes neither.
	if err != nil || len(raw) != size || base64.RawURLEncoding.EncodeToString(raw) != q.Cursor || subtle.ConstantTimeCompare(raw[24:], checksum(list, raw[:24])) != 1 {
		return Position{}, problem.Invalid("query.cursor", "is not a cursor of this list; start again without it")
	}
	p := Position{At: time.UnixMicro(int64(binary.BigEndian.Uint64(raw))).UTC(), ID: uuid.UUID(raw[8:24])}
	if p.At.Year() < 1970 || p.At.Year() > 9999 { // forged; PostgreSQL has no such time
		return Position{}, problem.Invalid("query.cursor", "is not a cursor of this list; start again without it")
	}
	return p, nil
}

func checksum(list string, raw []byte) []byte {
	sum := sha256.Sum256(append([]byte("noted cursor 1 "+list+"\x00"), raw...))
	return sum[:8]
}

// Window is the part of a list that a page needs: the rows after a position, and one more than the page shows, to
// tell whether another page follows.
type Window struct {
	After Position
	Limit int
}

// Args adds the window to the arguments of a statement with
//
//	… and (@at::timestamptz is null or (MADE, ID) < (@at, @id)) order by MADE desc, ID desc limit @limit
func (w Window) Args(args pgx.NamedArgs) pgx.NamedArgs {
	args["at"], args["id"], args["limit"] = (*time.Time)(nil), w.After.ID, w.Limit
	if !w.After.At.IsZero() {
		args["at"] = &w.After.At
	}
	return args
}

// List returns the page that the query asks for of the list named name. load returns a window's rows, the newest
// first; position returns a row's position. A cursor from another list is a 422 at query.cursor.
func List[T any](q Query, name string, load func(Window) ([]T, error), position func(T) Position) (Of[T], error) {
	after, err := q.After(name)
	if err != nil {
		return Of[T]{}, err
	}
	rows, err := load(Window{after, q.Limit + 1})
	if err != nil {
		return Of[T]{}, err
	}
	if rows == nil {
		rows = []T{}
	}
	if len(rows) <= q.Limit {
		return Of[T]{Items: rows}, nil
	}
	rows = rows[:q.Limit]
	cursor := position(rows[q.Limit-1]).Cursor(name)
	return Of[T]{Items: rows, NextCursor: &cursor}, nil
}

// Map turns each item of a page into what is shown of it.
func Map[T, U any](from Of[T], show func(T) U) Of[U] {
	items := make([]U, len(from.Items))
	for i, item := range from.Items {
		items[i] = show(item)
	}
	return Of[U]{Items: items, NextCursor: from.NextCursor}
}
