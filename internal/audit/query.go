package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/internal/page"
	"noted/internal/problem"
)

// Query is the input of a list of events.
type Query struct {
	page.Query
	Actor  string    `query:"actor" format:"uuid" doc:"Only what this user or key did"`
	Action string    `query:"action" enum:"session.create,session.end,auth.fail,identity.link,identity.unlink,key.create,key.rotate,key.revoke,user.lock,user.unlock,note.purge,note.read_any,note.write_any,note.delete_any,note.restore_any,policy.reload,org.create,org.delete,member.join,member.change,member.remove,invitation.create,invitation.revoke,grant.set,grant.remove" doc:"Only this"`
	Since  time.Time `query:"since" doc:"Only from this time on"`
}

// List returns the page asked for, of one organization or, with none, of all.
func (q Query) List(ctx context.Context, pool *pgxpool.Pool, org uuid.UUID) (page.Of[Item], error) {
	filter := Filter{Org: org, Action: q.Action, Since: q.Since}
	if q.Actor != "" {
		actor, err := uuid.Parse(q.Actor)
		if err != nil || len(q.Actor) != 36 { // the parser takes other spellings too
			return page.Of[Item]{}, problem.Invalid("query.actor", "is not a UUID")
		}
		filter.Actor = actor
	}
	list := fmt.Sprintf("audit %s %s %s %d", filter.Org, filter.Actor, filter.Action, filter.Since.UnixNano())
	after, err := q.After(list)
	if err != nil {
		return page.Of[Item]{}, err
	}
	items, err := List(ctx, pool, filter, after, q.Limit+1)
	if err != nil {
		return page.Of[Item]{}, err
	}
	return page.Make(items, q.Limit, list, func(item Item) page.Position {
		return page.Position{At: item.At, ID: item.ID}
	}), nil
}
