package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/page"
	"noted/internal/problem"
	"noted/internal/uid"
)

// Query is the input of a list of events.
type Query struct {
	page.Query
	Actor  string    `query:"actor" format:"uuid" doc:"Only what this user or key did"`
	Action Action    `query:"action" example:"note.purge" doc:"Only this"`
	Since  time.Time `query:"since" example:"2026-01-01T00:00:00Z" doc:"Only from this time on"`
	Via    string    `query:"via" format:"uuid" doc:"Only what was done by this session or key"`
}

// List returns the page asked for, of one organization, or of all if org is zero.
func (q Query) List(ctx context.Context, pool *pgxpool.Pool, org uuid.UUID) (page.Of[Item], error) {
	filter := Filter{Org: org, Action: q.Action, Since: q.Since}
	var err error
	if filter.Actor, err = idOf("query.actor", q.Actor); err != nil {
		return page.Of[Item]{}, err
	}
	if filter.Via, err = idOf("query.via", q.Via); err != nil {
		return page.Of[Item]{}, err
	}
	name := fmt.Sprintf("audit %s %s %s %d %s", filter.Org, filter.Actor, filter.Action, filter.Since.UnixNano(), filter.Via)
	return page.List(q.Query, name, func(w page.Window) ([]Item, error) {
		return List(ctx, pool, filter, w)
	}, func(item Item) page.Position { return page.Position{At: item.At, ID: item.ID} })
}

// idOf reads an id of a query; empty is the zero id.
func idOf(location, text string) (uuid.UUID, error) {
	if text == "" {
		return uuid.Nil, nil
	}
	id, err := uid.Parse(text)
	if err != nil {
		return uuid.Nil, problem.Invalid(location, "%v", err)
	}
	return id, nil
}
