package orgs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/internal/problem"
)

// limit bounds how often somebody does something in a period. Acts are counted apart from their
// results, so deleting those gives nothing back. A key's acts count for the person behind it.
type limit struct {
	what string // in the table counts
	most int
	in   time.Duration
}

// mailsPerHour limits mailed invitations per person and per organization: noted must not be a way to
// send mail to strangers.
var mailsPerHour = limit{"mail", 30, time.Hour}

// orgsPerDay limits the organizations one person makes.
func (s *Service) orgsPerDay() limit { return limit{"org", s.config.PerDay, 24 * time.Hour} }

// spent is the error for a reached limit, and how long to wait.
type spent struct{ wait time.Duration }

func (e spent) Error() string { return "a limit is reached for " + e.wait.String() }

// count counts one more, or returns spent. The row stays locked until the transaction ends, so
// concurrent counts run one at a time.
func (l limit) count(ctx context.Context, tx pgx.Tx, who uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		insert into counts as c (what, who, times) values ($1, $2, array[now()])
		on conflict (what, who) do update
		set times = array(select t from unnest(c.times) t where t > now() - $3::interval order by t) || now()
		where (select count(*) from unnest(c.times) t where t > now() - $3::interval) < $4`, l.what, who, l.in, l.most)
	if err != nil {
		return fmt.Errorf("counting against a limit: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	var wait time.Duration
	err = tx.QueryRow(ctx, `
		select min(t) + $3::interval - now() from counts, unnest(times) t where what = $1 and who = $2 and t > now() - $3::interval`,
		l.what, who, l.in).Scan(&wait)
	if err != nil {
		return fmt.Errorf("asking how long a limit lasts: %w", err)
	}
	return spent{wait}
}

// countAll counts one more for each, or for none if one's limit is reached: within reports which.
func (l limit) countAll(ctx context.Context, tx pgx.Tx, who ...uuid.UUID) (within bool, err error) {
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
		for _, one := range who {
			if err := l.count(ctx, tx, one); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.As(err, new(spent)) {
		return false, nil
	}
	return err == nil, err
}

// mayMake counts an organization that somebody makes. It returns a 429 after too many.
func (s *Service) mayMake(ctx context.Context, tx pgx.Tx, who uuid.UUID) error {
	l := s.orgsPerDay()
	if l.most == 0 {
		return nil
	}
	err := l.count(ctx, tx, who)
	var over spent
	if errors.As(err, &over) {
		return problem.New(http.StatusTooManyRequests, "You have made %d organizations in a day, which is as many as one person may", l.most).
			With("Retry-After", strconv.Itoa(int(over.wait/time.Second)+1))
	}
	return err
}

// Tidy deletes counts that are too old to matter, at most batch of them.
func (s *Service) Tidy(ctx context.Context, batch int) error {
	_, err := s.pool.Exec(ctx, `
		delete from counts where (what, who) in (
			select what, who from counts where times[cardinality(times)] <= now() - interval '1 day' limit $1 for update skip locked)`, batch)
	if err != nil {
		return fmt.Errorf("tidying counts: %w", err)
	}
	return nil
}
