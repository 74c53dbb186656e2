package uid

import (
	"errors"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
)

// pattern is what Parse accepts.
const pattern = `^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`

var errSpelling = errors.New("is not a UUID")

// Parse reads an id. Its error, "is not a UUID", is for people.
func Parse(text string) (uuid.UUID, error) {
	if len(text) != 36 {
		return uuid.Nil, errSpelling
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, errSpelling
	}
	return id, nil
}

// ID is an id in a query or a body. The zero ID was not sent.
type ID struct {
	uuid.UUID
	sent bool
}

// UnmarshalText reads an id. A malformed id becomes one that names nothing; the schema reports it, in words that
// clients know.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		parsed = uuid.Nil
	}
	*id = ID{parsed, true}
	return nil
}

// NamesNothing reports whether a request names the zero id, which nothing has.
func (id ID) NamesNothing() bool { return id.sent && id.UUID == uuid.Nil }

// Schema implements huma.SchemaProvider.
func (ID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid", Pattern: pattern}
}
