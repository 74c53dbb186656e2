package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/problem"
)

// User is an account, as those who run the place see it.
type User struct {
	ID           uuid.UUID  `json:"id"`
	Name         string     `json:"name"`
	Email        *string    `json:"email"`
	Locked       bool       `json:"locked"`
	Roles        []string   `json:"roles" nullable:"false" doc:"The platform roles in force"`
	CreatedAt    time.Time  `json:"created_at"`
	LastSignInAt *time.Time `json:"last_sign_in_at"`
}

// UserDetail is an account with its identities, and what each showed at its last sign-in.
type UserDetail struct {
	User
	Identities []UserIdentity `json:"identities" nullable:"false"`
}

// UserIdentity is one of an account's identities.
type UserIdentity struct {
	ID           uuid.UUID       `json:"id"`
	Issuer       string          `json:"issuer"`
	Subject      string          `json:"subject"`
	LastSignInAt time.Time       `json:"last_sign_in_at"`
	Claims       oidc.SeenClaims `json:"claims" doc:"Of the ID token of the last sign-in"`
}

// IdentitiesOf are those of an account, the oldest first.
func (s *Service) IdentitiesOf(ctx context.Context, user uuid.UUID) ([]UserIdentity, error) {
	rows, err := s.pool.Query(ctx, `
		select id, issuer, subject, signed_in_at, claims from identities where user_id = $1 order by created_at, id`, user)
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (UserIdentity, error) {
		one := UserIdentity{Claims: oidc.SeenClaims{Names: []string{}, Values: map[string]any{}}}
		err := row.Scan(&one.ID, &one.Issuer, &one.Subject, &one.LastSignInAt, &one.Claims)
		one.LastSignInAt = one.LastSignInAt.UTC()
		return one, err
	})
}

// errNoUser is 404.
var errNoUser = problem.NotFound("user")

const selectUsers = `select user_id, name, nullif(email, ''), locked, created_at, last_sign_in_at, identities from people`

func (s *Service) scanUser(row pgx.CollectableRow) (User, error) {
	var u User
	var identities []Identity
	err := row.Scan(&u.ID, &u.Name, &u.Email, &u.Locked, &u.CreatedAt, &u.LastSignInAt, &identities)
	u.Roles = s.RolesOf(identities)
	u.CreatedAt = u.CreatedAt.UTC()
	if u.LastSignInAt != nil {
		*u.LastSignInAt = u.LastSignInAt.UTC()
	}
	return u, err
}

// Users returns up to limit accounts, the newest first, after the position.
func (s *Service) Users(ctx context.Context, after page.Position, limit int) ([]User, error) {
	rows, err := s.pool.Query(ctx, selectUsers+`
		where ($1::timestamptz is null or (created_at, user_id) < ($1, $2))
		order by created_at desc, user_id desc limit $3`, after.TimeOrNull(), after.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	return pgx.CollectRows(rows, s.scanUser)
}

// FindUser loads an account; any caller stands to it as to somebody else's. 404 when there is none.
func (s *Service) FindUser(_ context.Context, _ *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (User, error), error) {
	return authz.Standing{}, func(ctx context.Context) (User, error) {
		rows, err := s.pool.Query(ctx, selectUsers+` where user_id = $1`, at.ID)
		if err != nil {
			return User{}, fmt.Errorf("finding a user: %w", err)
		}
		u, err := pgx.CollectExactlyOneRow(rows, s.scanUser)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errNoUser
		}
		return u, err
	}, nil
}

// VerifiedEmails are the e-mails, in lower case, that a provider has verified for a user. Unlike a
// name in the policy they count whichever provider it was, and do not age.
func (s *Service) VerifiedEmails(ctx context.Context, tx pgx.Tx, user uuid.UUID) ([]string, error) {
	rows, err := tx.Query(ctx, `select email from identities where user_id = $1 and email_verified and email is not null for share`, user)
	if err != nil {
		return nil, fmt.Errorf("finding a user's e-mails: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	emails := []string{}
	for _, email := range found {
		if oidc.IsPlainEmail(email) {
			emails = append(emails, strings.ToLower(email))
		}
	}
	return emails, err
}

// CalledBy are the users who may be called by one of these names in the policy: all who are, and
// perhaps some whose name has aged or whose provider may not give it. It spares a caller to look
// at every account.
func (s *Service) CalledBy(ctx context.Context, names []string) ([]uuid.UUID, error) {
	var issuers, subjects, emails, groups []string
	for _, name := range names {
		provider, rest, _ := strings.Cut(name, ":")
		switch {
		case strings.Contains(name, "@") && oidc.IsPlainEmail(name):
			emails = append(emails, name)
		case provider == "group":
			_, group, _ := strings.Cut(rest, ":")
			groups = append(groups, group)
		default:
			issuers, subjects = append(issuers, s.Issuer(provider)), append(subjects, rest)
		}
	}
	rows, err := s.pool.Query(ctx, `
		select distinct user_id from identities
		where (issuer, subject) in (select * from unnest($1::text[], $2::text[])) or lower(email) = any($3) or groups && $4`,
		issuers, subjects, emails, groups)
	if err != nil {
		return nil, fmt.Errorf("finding whom the policy names: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// SetLocked shuts an account out, or lets it in again, and records it. From the moment this
// returns every session, key and sign-in of theirs fails; unlocking gives back the keys, and
// the sessions not expired meanwhile. Service keys are nobody's and work on: the record says of how
// many the user knows a secret. Doing it twice is no error and one record.
func (s *Service) SetLocked(ctx context.Context, actor *audit.Actor, user uuid.UUID, locked bool) error {
	action := audit.UserUnlock
	if locked {
		action = audit.UserLock
	}
	return s.actAlone(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			update users set locked_at = case when $2 then now() end
			where id = $1 and (locked_at is not null) <> $2`, user, locked)
		if err != nil {
			return fmt.Errorf("locking a user: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		detail := ""
		if locked {
			n, err := s.keys.CountKnownTo(ctx, tx, user)
			if err != nil {
				return err
			}
			if n > 0 {
				detail = fmt.Sprintf("service keys that work on, of which they were shown a secret: %d", n)
			}
		}
		return audit.Record(ctx, tx, audit.Event{Actor: actor, Action: action, Object: "user", Target: user.String(), Detail: detail})
	}, user)
}
