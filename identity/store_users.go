package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/audit"
	"noted/internal/page"
)

// lockUsers locks users' rows for the rest of tx, in one order. It must come before Confirm, which
// takes a shared lock on the caller's.
func lockUsers(ctx context.Context, tx pgx.Tx, users ...uuid.UUID) error {
	if _, err := tx.Exec(ctx, `select from users where id = any($1) order by id for update`, users); err != nil {
		return fmt.Errorf("locking users: %w", err)
	}
	return nil
}

// userLives reports whether a user is not locked. It keeps that so until tx ends. Their identities cannot change either:
// whatever changes them locks the user's row.
func userLives(ctx context.Context, tx pgx.Tx, user uuid.UUID) (lives bool, err error) {
	err = tx.QueryRow(ctx, `select locked_at is null from users where id = $1 for share`, user).Scan(&lives)
	return lives, err
}

// personIn returns a user as the view `people` shows them now.
func personIn(ctx context.Context, tx pgx.Tx, user uuid.UUID) (Person, error) {
	person := Person{ID: user}
	err := tx.QueryRow(ctx, `select name, coalesce(email, ''), identities from people where user_id = $1`, user).
		Scan(&person.Name, &person.Email, &person.Identities)
	return person, err
}

// identitiesOf returns the identities by which the policy may name a user, or errNoUser.
func (s *Service) identitiesOf(ctx context.Context, user uuid.UUID) (identities []Identity, err error) {
	err = s.pool.QueryRow(ctx, `select identities from people where user_id = $1`, user).Scan(&identities)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoUser
	}
	if err != nil {
		return nil, fmt.Errorf("finding a user's names: %w", err)
	}
	return identities, nil
}

// lockIdentity serializes, for the rest of tx, finding, making, linking and unlinking a pair.
func lockIdentity(ctx context.Context, tx pgx.Tx, issuer, subject string) error {
	_, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 1))`, issuer, subject)
	if err != nil {
		return fmt.Errorf("locking an identity: %w", err)
	}
	return nil
}

// SaveIdentity finds the user of (issuer, subject), or makes one, and records what was signed.
// A user is found by nothing else. Two concurrent first sign-ins make one user: the second
// waits for the first on a lock named after the pair. For a locked user it returns a *Failure
// and the user's id. made reports whether the user is new. `noted dev` makes its people with
// it.
func SaveIdentity(ctx context.Context, tx pgx.Tx, in oidc.Identity, name string) (user, identity uuid.UUID, made bool, err error) {
	if err = lockIdentity(ctx, tx, in.Issuer, in.Subject); err != nil {
		return user, identity, made, err
	}
	var locked bool
	err = tx.QueryRow(ctx, `
		select i.id, u.id, u.locked_at is not null
		from identities i join users u on u.id = i.user_id
		where i.issuer = $1 and i.subject = $2
		for update of u`, in.Issuer, in.Subject).Scan(&identity, &user, &locked)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		user, identity, made = uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7()), true
		if _, err = tx.Exec(ctx, `insert into users (id, name) values ($1, $2)`, user, name); err != nil {
			return user, identity, made, fmt.Errorf("making a user: %w", err)
		}
		if _, err = tx.Exec(ctx, `insert into identities (id, user_id, issuer, subject) values ($1, $2, $3, $4)`,
			identity, user, in.Issuer, in.Subject); err != nil {
			return user, identity, made, fmt.Errorf("making an identity: %w", err)
		}
	case err != nil:
		return user, identity, made, fmt.Errorf("finding an identity: %w", err)
	case locked:
		return user, identity, made, &Failure{Reason: ReasonLocked, Object: "user", Target: user.String(),
			Actor: &audit.Actor{ID: user, Kind: "user", Name: name}}
	}
	if in.Groups == nil {
		in.Groups = []string{}
	}
	if _, err = tx.Exec(ctx, `
		update identities set email = nullif($2, ''), email_verified = $3, groups = $4, signed_in_at = now()
		where id = $1`, identity, in.Email, in.EmailVerified, in.Groups); err != nil {
		return user, identity, made, fmt.Errorf("noting a sign-in: %w", err)
	}
	if _, err = tx.Exec(ctx, `update users set name = $2, last_sign_in_at = now() where id = $1`, user, name); err != nil {
		return user, identity, made, fmt.Errorf("noting a sign-in: %w", err)
	}
	return user, identity, made, noteEmail(ctx, tx, user)
}

// noteEmail updates the e-mail that others see from the user's identities. It is the verified one of
// the last sign-in that had one. A stranger could set an unverified one.
func noteEmail(ctx context.Context, tx pgx.Tx, user uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update users set email = (
			select email from identities where user_id = $1 and email_verified and email is not null
			order by signed_in_at desc, id desc limit 1)
		where id = $1`, user)
	if err != nil {
		return fmt.Errorf("noting an e-mail: %w", err)
	}
	return nil
}

// saveClaims stores, for operators, what the last sign-in's token contained.
func saveClaims(ctx context.Context, tx pgx.Tx, identity uuid.UUID, seen oidc.SeenClaims) error {
	if _, err := tx.Exec(ctx, `update identities set claims = $2 where id = $1`, identity, seen); err != nil {
		return fmt.Errorf("noting claims: %w", err)
	}
	return nil
}

// IdentitiesOf returns an account's identities, oldest first.
func (s *Service) IdentitiesOf(ctx context.Context, user uuid.UUID) ([]UserIdentity, error) {
	rows, err := s.pool.Query(ctx, `
		select id, issuer, subject, signed_in_at, claims from identities where user_id = $1 order by created_at, id`, user)
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (UserIdentity, error) {
		one := UserIdentity{Claims: oidc.SeenClaims{Names: []string{}, Values: map[string]any{}}}
		err := row.Scan(&one.ID, &one.Issuer, &one.Subject, &one.LastSignInAt, &one.Claims)
		return one, err
	})
}

const selectUsers = `select user_id, name, nullif(email, ''), locked, created_at, last_sign_in_at, identities from people`

func (s *Service) scanUser(row pgx.CollectableRow) (User, error) {
	var u User
	var identities []Identity
	err := row.Scan(&u.ID, &u.Name, &u.Email, &u.Locked, &u.CreatedAt, &u.LastSignInAt, &identities)
	u.Roles = s.RolesOf(identities)
	return u, err
}

// Users returns accounts, newest first.
func (s *Service) Users(ctx context.Context, w page.Window) ([]User, error) {
	rows, err := s.pool.Query(ctx, selectUsers+`
		where (@at::timestamptz is null or (created_at, user_id) < (@at, @id))
		order by created_at desc, user_id desc limit @limit`, w.Args(pgx.NamedArgs{}))
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	return pgx.CollectRows(rows, s.scanUser)
}

// FindUser finds an account. To every caller it is somebody else's. It returns a 404 if there is none.
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

// VerifiedEmails returns the e-mails, in lower case, that a provider has verified for a user. Unlike
// names in the policy, they count from any provider and do not age.
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

// CalledBy returns the users whom the policy may call by one of these names: all who have it now,
// and perhaps some whose name has aged or whose provider may not give it. It saves the caller from
// looking at every account.
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

// SetLocked locks or unlocks an account, and records it. Once a lock returns, every session,
// key and sign-in of the user fails. Unlocking restores the keys, and the sessions that have
// not expired. Service keys belong to nobody and keep working; the record says for how many
// the user knows a secret. Doing it twice is no error and makes one record.
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

// MoveIssuer moves the identities of one issuer to another. The dev provider moves if its
// port was taken. Real providers never move.
func (s *Service) MoveIssuer(ctx context.Context, from, to string) error {
	defer s.Forget()
	_, err := s.pool.Exec(ctx, `update identities set issuer = $2 where issuer = $1`, from, to)
	if err != nil {
		return fmt.Errorf("moving identities from %s to %s: %w", from, to, err)
	}
	return nil
}
