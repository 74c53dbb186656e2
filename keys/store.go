package keys

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/pg"
	"noted/internal/request"
)

// stored is a key's secret, as VerifyKey reads it.
type stored struct {
	id               uuid.UUID
	hash             []byte
	expired, lasting bool
}

// VerifyKey returns the live key of token, for identity.KeyVerifier, or an *identity.Failure. Every
// well-formed token costs the same work: parse, one look-up, and a constant-time comparison with each
// stored hash, or with an empty one if the id is unknown. The same statement compares expiry,
// revocation, and the owner's absence and lock by the database's clock.
func (s *Service) VerifyKey(ctx context.Context, token string) (identity.KeyCredential, error) {
	var c identity.KeyCredential
	id, hash, err := Token(token).parse()
	switch {
	case errors.Is(err, errChecksum):
		return c, &identity.Failure{Reason: identity.ReasonChecksum}
	case err != nil:
		return c, &identity.Failure{Reason: identity.ReasonMalformed}
	}
	rows, err := s.pool.Query(ctx, `
		select k.id, k.role, k.name, k.revoked_at is not null, coalesce(p.seen_at <= now() - $2::interval, false),
			k.last_used_at is null or k.last_used_at <= now() - interval '1 minute',
			p.user_id, coalesce(p.name, ''), coalesce(p.email, ''), coalesce(p.locked, false), p.identities,
			k.org_id, coalesce(k.org_role, ''), x.id, x.hash, x.expires_at <= now(), least(x.expires_at, p.seen_at + $2::interval) > now() + $3::interval
		from keys k
		left join people p using (user_id)
		join key_secrets x on x.key_id = k.id
		where k.id = $1`, id, s.config.OwnerMaxAbsence, identity.RememberedFor)
	if err != nil {
		return c, fmt.Errorf("finding a key: %w", err)
	}
	var secrets []stored
	var service identity.Keyed
	var user, org *uuid.UUID
	var revoked, absent, unmarked bool
	for rows.Next() {
		var one stored
		if err := rows.Scan(&c.ID, &c.Role, &service.Name, &revoked, &absent, &unmarked,
			&user, &c.Person.Name, &c.Person.Email, &c.Person.Locked, &c.Person.Identities,
			&org, &service.Role, &one.id, &one.hash, &one.expired, &one.lasting); err != nil {
			return c, fmt.Errorf("finding a key: %w", err)
		}
		secrets = append(secrets, one)
	}
	if err := rows.Err(); err != nil {
		return c, fmt.Errorf("finding a key: %w", err)
	}
	if len(secrets) == 0 {
		subtle.ConstantTimeCompare(hash[:], make([]byte, len(hash)))
		return c, &identity.Failure{Reason: identity.ReasonUnknownKey}
	}
	actor := &audit.Actor{ID: id, Kind: authz.KindService, Name: service.Name}
	if org != nil {
		service.Org, c.Service = *org, &service
	} else {
		c.Person.ID = *user
		actor = &audit.Actor{ID: *user, Kind: authz.KindUser, Name: c.Person.Name}
	}
	matches, expired := false, false
	for _, one := range secrets {
		if subtle.ConstantTimeCompare(hash[:], one.hash) == 1 {
			matches, expired, c.Secret, c.Lasting = true, one.expired, one.id, one.lasting
		}
	}
	refuse := func(reason identity.Reason) (identity.KeyCredential, error) {
		return identity.KeyCredential{}, &identity.Failure{
			Reason: reason, Object: "key", Target: id.String(), Actor: actor, Org: service.Org,
		}
	}
	switch {
	case !matches:
		return refuse(identity.ReasonWrongSecret)
	case revoked:
		return refuse(identity.ReasonRevokedKey)
	case expired:
		return refuse(identity.ReasonExpiredKey)
	case c.Person.Locked:
		return refuse(identity.ReasonLocked)
	case absent:
		return refuse(identity.ReasonAbsentOwner)
	}
	if unmarked {
		s.markUsed(ctx, id)
	}
	return c, nil
}

// markUsed records a key's use, at most once a minute, so that few reads write. It does not wait for a
// locked row: the next request records the use.
func (s *Service) markUsed(ctx context.Context, id uuid.UUID) {
	info := request.From(ctx)
	_, err := s.pool.Exec(ctx, `
		update keys set last_used_at = now(), last_used_ip = $2
		where id = (select id from keys where id = $1 for no key update skip locked)
			and (last_used_at is null or last_used_at <= now() - interval '1 minute')`, id, pg.OrNull(info.IP))
	if err != nil {
		info.Log().LogAttrs(ctx, slog.LevelWarn, "noting a key's use", slog.Any("error", err))
	}
}

// selectKeys selects keyRow: k is the key, p the owner (null for a service key), b its maker.
const selectKeys = `
	select k.id, k.name, k.role, k.org_id, coalesce(k.org_role, '') as org_role, b.user_id as maker_id, b.name as maker_name,
		k.created_at, x.expires_at, x.stops_at, k.last_used_at, host(k.last_used_ip) as last_used_ip, x.live,
		x.stops_at <= now() as stopped, x.stops_at <= now() + @warn_before::interval as soon, x.stops_at < x.expires_at as absent
	from keys k
	left join people p on p.user_id = k.user_id
	join people b on b.user_id = k.created_by
	join lateral (
		select max(expires_at) as expires_at, least(max(expires_at), p.seen_at + @absence::interval) as stops_at,
			coalesce(array_agg(expires_at order by expires_at) filter (where expires_at > now()), '{}') as live
		from key_secrets where key_id = k.id
	) x on true
	where (k.user_id = @user or k.org_id = @org) and (k.revoked_at is null or @revoked)`

// keyRow is a row of selectKeys.
type keyRow struct {
	Key
	MakerID               uuid.UUID
	MakerName             string
	Live                  []time.Time // when its secrets end
	Stopped, Soon, Absent bool
}

func scan(from pgx.CollectableRow) (Key, error) {
	r, err := pgx.RowToStructByName[keyRow](from)
	key := r.Key
	key.CreatedBy, key.Secrets = audit.Actor{ID: r.MakerID, Kind: authz.KindUser, Name: r.MakerName}, []Secret{}
	for _, at := range r.Live {
		key.Secrets = append(key.Secrets, Secret{at})
	}
	key.warn(r.Stopped, r.Soon, r.Absent)
	return key, err
}

// list returns the owner's keys, expired ones too, newest first.
func (s *Service) list(ctx context.Context, owner Owner, w page.Window) ([]Key, error) {
	rows, err := s.pool.Query(ctx, selectKeys+`
		and (@at::timestamptz is null or (k.created_at, k.id) < (@at, @id))
		order by k.created_at desc, k.id desc limit @limit`, w.Args(pgx.NamedArgs{
		"user": pg.OrNull(owner.User), "org": pg.OrNull(owner.Org), "revoked": false, "absence": s.config.OwnerMaxAbsence, "warn_before": warnBefore,
	}))
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	return pgx.CollectRows(rows, scan)
}

// find loads one of the owner's keys. It returns errNotFound if there is none, or if it is revoked
// and revoked is false.
func (s *Service) find(ctx context.Context, owner Owner, id uuid.UUID, revoked bool) (Key, error) {
	rows, err := s.pool.Query(ctx, selectKeys+` and k.id = @id`, pgx.NamedArgs{
		"user": pg.OrNull(owner.User), "org": pg.OrNull(owner.Org), "revoked": revoked,
		"absence": s.config.OwnerMaxAbsence, "warn_before": warnBefore, "id": id,
	})
	if err != nil {
		return Key{}, fmt.Errorf("finding a key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNotFound
	}
	return key, err
}

// OwnerOf returns a key's owner and role, expired or not; errNotFound if it is revoked or unknown.
func (s *Service) OwnerOf(ctx context.Context, id uuid.UUID) (owner Owner, role string, err error) {
	var user, org *uuid.UUID
	err = s.pool.QueryRow(ctx, `
		select user_id, org_id, coalesce(org_role, ''), role from keys where id = $1 and revoked_at is null`, id).
		Scan(&user, &org, &owner.OrgRole, &role)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Owner{}, "", errNotFound
	case err != nil:
		return Owner{}, "", fmt.Errorf("finding a key's owner: %w", err)
	case user != nil:
		owner.User = *user
	case org != nil:
		owner.Org = *org
	}
	return owner, role, nil
}

// mint makes a key for owner. Its secret lives for life from now; if until is set, it ends then instead. mint
// returns the id and the token, which nobody can read again.
func (s *Service) mint(ctx context.Context, tx pgx.Tx, actor *audit.Actor, owner Owner, name, role string, life time.Duration, until *time.Time) (uuid.UUID, Token, error) {
	id := uuid.Must(uuid.NewV7())
	token, hash := newToken(id)
	if _, err := tx.Exec(ctx, `
		insert into keys (id, user_id, org_id, org_role, name, role, created_by) values ($1, $2, $3, nullif($4, ''), $5, $6, $7)`,
		id, pg.OrNull(owner.User), pg.OrNull(owner.Org), owner.OrgRole, name, role, actor.ID); err != nil {
		return id, "", fmt.Errorf("making a key: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		insert into key_secrets (id, key_id, hash, minted_by, expires_at)
		values ($1, $2, $3, $6, coalesce($5, now() + $4::interval))`, uuid.Must(uuid.NewV7()), id, hash, life, until, actor.ID); err != nil {
		return id, "", fmt.Errorf("making a key's secret: %w", err)
	}
	detail := role + ": " + name
	if owner.OrgRole != "" {
		detail = owner.OrgRole + ", " + detail
	}
	err := audit.Record(ctx, tx, audit.Event{
		Actor: actor, Action: audit.KeyCreate, Object: "key", Target: id.String(), Org: owner.Org, Detail: detail,
	})
	return id, token, err
}

// KeyLives implements identity.KeyVerifier. A rotation locks the key's row, so KeyLives locks it, then
// reads the secret. One statement for both would see the secrets as they were before the wait.
func (s *Service) KeyLives(ctx context.Context, tx pgx.Tx, id, secret uuid.UUID) (lives bool, err error) {
	err = tx.QueryRow(ctx, `select revoked_at is null from keys where id = $1 for share`, id).Scan(&lives)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil || !lives {
		return false, err
	}
	err = tx.QueryRow(ctx, `
		select exists (
			select from key_secrets x
			join keys k on k.id = x.key_id
			left join people p using (user_id)
			where x.id = $2 and x.key_id = $1 and least(x.expires_at, p.seen_at + $3::interval) > clock_timestamp())`,
		id, secret, s.config.OwnerMaxAbsence).Scan(&lives)
	return lives, err
}

// Known is a service key with a live secret that somebody knows.
type Known struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// knownTo holds if the secret x is live and was shown to @user.
const knownTo = `x.minted_by = @user and x.expires_at > clock_timestamp()`

// KnownTo returns an organization's service keys of which the user was shown a live secret. The
// transaction must hold the organization, so that no key is made or rotated meanwhile.
func (s *Service) KnownTo(ctx context.Context, tx pgx.Tx, org, user uuid.UUID) ([]Known, error) {
	rows, err := tx.Query(ctx, `
		select id, name from keys k
		where org_id = @org and revoked_at is null and exists (select from key_secrets x where x.key_id = k.id and `+knownTo+`)
		order by created_at, id`, pgx.NamedArgs{"org": org, "user": user})
	if err != nil {
		return nil, fmt.Errorf("finding the keys that somebody knows: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Known])
}

// CountKnownTo counts the service keys, in all organizations, of which the user was shown a live secret.
func (s *Service) CountKnownTo(ctx context.Context, tx pgx.Tx, user uuid.UUID) (n int, err error) {
	err = tx.QueryRow(ctx, `
		select count(distinct k.id) from keys k join key_secrets x on x.key_id = k.id
		where k.org_id is not null and k.revoked_at is null and `+knownTo, pgx.NamedArgs{"user": user}).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting the keys that somebody knows: %w", err)
	}
	return n, nil
}

// EndKnownTo ends the live secrets of an organization's keys that the user was shown, and records each
// key. It revokes keys left without a live secret and returns them. The transaction must hold the
// organization exclusively.
func (s *Service) EndKnownTo(ctx context.Context, tx pgx.Tx, actor *audit.Actor, org, user uuid.UUID) (revoked []uuid.UUID, err error) {
	known, err := s.KnownTo(ctx, tx, org, user)
	if err != nil {
		return nil, err
	}
	for _, key := range known {
		// Lock the key as a rotation does: KeyLives shares its row first.
		var lives bool
		err := tx.QueryRow(ctx, `select revoked_at is null from keys where id = $1 for update`, key.ID).Scan(&lives)
		if err == nil {
			_, err = tx.Exec(ctx, `
				with clock as (select clock_timestamp() as at)
				update key_secrets x set expires_at = greatest(clock.at, x.created_at + interval '1 microsecond')
				from clock
				where x.key_id = @key and x.minted_by = @user and x.expires_at > clock.at`, pgx.NamedArgs{"key": key.ID, "user": user})
		}
		if err == nil {
			err = tx.QueryRow(ctx, `
				select exists (select from key_secrets where key_id = $1 and expires_at > clock_timestamp())`, key.ID).Scan(&lives)
		}
		if err != nil {
			return nil, fmt.Errorf("ending the secrets that somebody knows: %w", err)
		}
		if !lives {
			if err := s.revoke(ctx, tx, actor, Owner{Org: org}, key.ID); err != nil {
				return nil, err
			}
			revoked = append(revoked, key.ID)
			continue
		}
		if err := audit.Record(ctx, tx, audit.Event{
			Actor: actor, Action: audit.KeyRotate, Object: "key", Target: key.ID.String(), Org: org,
			Detail: key.Name + ": the secrets ended that were shown to " + user.String(),
		}); err != nil {
			return nil, err
		}
	}
	return revoked, nil
}

// Behind returns the person behind a caller. For a service, that is whoever was shown the secret it
// presented.
func (s *Service) Behind(ctx context.Context, tx pgx.Tx, caller *authz.Principal) (person uuid.UUID, err error) {
	if caller.Kind != authz.KindService {
		return caller.ID, nil
	}
	if err := tx.QueryRow(ctx, `select minted_by from key_secrets where id = $1`, caller.Secret).Scan(&person); err != nil {
		return person, fmt.Errorf("finding who minted a secret: %w", err)
	}
	return person, nil
}

// rename renames an owner's key.
func (s *Service) rename(ctx context.Context, tx pgx.Tx, owner Owner, id uuid.UUID, name string) error {
	tag, err := tx.Exec(ctx, `update keys set name = $4 where id = $1 and (user_id = $2 or org_id = $3) and revoked_at is null`,
		id, pg.OrNull(owner.User), pg.OrNull(owner.Org), name)
	if err == nil && tag.RowsAffected() == 0 {
		return errNotFound
	}
	return err
}

// keptSecrets is how many secrets of a key are kept, so that the log can tell an expired one from a
// guess.
const keptSecrets = 5

// rotate gives an owner's key a new secret with the lifetime that the one before was made for, and
// records it. The newest old secret works on for overlap, or until its own end if that is earlier. The
// others end now, so at most two are live. The key's row is locked, so rotations run one at a time. The
// clock is read after the lock: a transaction that waited began before the secret that it finds.
func (s *Service) rotate(ctx context.Context, tx pgx.Tx, actor *audit.Actor, owner Owner, id uuid.UUID, overlap time.Duration) (Token, error) {
	var name string
	var revoked bool
	err := tx.QueryRow(ctx, `
		select name, revoked_at is not null from keys where id = $1 and (user_id = $2 or org_id = $3) for update`,
		id, pg.OrNull(owner.User), pg.OrNull(owner.Org)).Scan(&name, &revoked)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", errNotFound
	case err != nil:
		return "", fmt.Errorf("finding a key to rotate: %w", err)
	case revoked:
		return "", errEnded
	}
	var moment time.Time
	var last uuid.UUID
	var life time.Duration
	err = tx.QueryRow(ctx, `
		select at, id, expires_at - created_at
		from key_secrets, clock_timestamp() at
		where key_id = $1 and expires_at > at
		order by created_at desc, id desc limit 1`, id).Scan(&moment, &last, &life)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errEnded
	}
	if err != nil {
		return "", fmt.Errorf("finding the secret to follow: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		update key_secrets set expires_at = greatest(
			case when id = $2 then least(expires_at, $3::timestamptz + $4::interval) else $3 end, created_at + interval '1 microsecond')
		where key_id = $1 and expires_at > $3::timestamptz`, id, last, moment, min(overlap, s.config.MaxAge)); err != nil {
		return "", fmt.Errorf("ending the secrets before: %w", err)
	}
	token, hash := newToken(id)
	if _, err := tx.Exec(ctx, `
		insert into key_secrets (id, key_id, hash, minted_by, created_at, expires_at) values ($1, $2, $3, $6, $4, $4::timestamptz + $5::interval)`,
		uuid.Must(uuid.NewV7()), id, hash, moment, min(life, s.config.MaxAge), actor.ID); err != nil {
		return "", fmt.Errorf("making a key's next secret: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		delete from key_secrets where key_id = $1 and id not in (
			select id from key_secrets where key_id = $1 order by created_at desc, id desc limit $2)`, id, keptSecrets); err != nil {
		return "", fmt.Errorf("forgetting old secrets: %w", err)
	}
	return token, audit.Record(ctx, tx, audit.Event{
		Actor: actor, Action: audit.KeyRotate, Object: "key", Target: id.String(), Org: owner.Org, Detail: name + ": overlap " + overlap.String(),
	})
}

// revoke ends an owner's key at once and records it.
func (s *Service) revoke(ctx context.Context, tx pgx.Tx, actor *audit.Actor, owner Owner, id uuid.UUID) error {
	var name string
	err := tx.QueryRow(ctx, `
		update keys set revoked_at = now() where id = $1 and (user_id = $2 or org_id = $3) and revoked_at is null
		returning name`, id, pg.OrNull(owner.User), pg.OrNull(owner.Org)).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotFound
	}
	if err != nil {
		return fmt.Errorf("revoking a key: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{
		Actor: actor, Action: audit.KeyRevoke, Object: "key", Target: id.String(), Org: owner.Org, Detail: name,
	})
}

// RevokeOf revokes all keys of an organization, and records each.
func (s *Service) RevokeOf(ctx context.Context, tx pgx.Tx, actor *audit.Actor, org uuid.UUID) error {
	rows, err := tx.Query(ctx, `select id from keys where org_id = $1 and revoked_at is null order by id`, org)
	if err != nil {
		return fmt.Errorf("finding an organization's keys: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return fmt.Errorf("finding an organization's keys: %w", err)
	}
	for _, id := range ids {
		if err := s.revoke(ctx, tx, actor, Owner{Org: org}, id); err != nil {
			return err
		}
	}
	return nil
}

// Erase deletes the keys of an organization that is being erased.
func (s *Service) Erase(ctx context.Context, tx pgx.Tx, org uuid.UUID) error {
	_, err := tx.Exec(ctx, `delete from keys where org_id = $1`, org)
	return err
}

// WarnOfEnds logs each live key that stops within a week, once a day over all replicas. Its owner sees
// the same in the list, but scripts do not read lists.
func (s *Service) WarnOfEnds(ctx context.Context, log *slog.Logger) error {
	rows, err := s.pool.Query(ctx, `
		update keys set warned_at = now()
		from (
			select k.id, coalesce(p.name, 'organization ' || k.org_id) as owner, least(max(x.expires_at), p.seen_at + $1::interval) as stops_at, max(x.expires_at) as expires_at
			from keys k
			left join people p using (user_id)
			join key_secrets x on x.key_id = k.id
			where k.revoked_at is null and p.locked is not true
			group by k.id, p.name, p.seen_at
		) ending
		where keys.id = ending.id and keys.revoked_at is null
			and ending.stops_at > now() and ending.stops_at <= now() + $2::interval
			and (keys.warned_at is null or keys.warned_at <= now() - interval '1 day')
		returning keys.id, keys.name, ending.owner, ending.stops_at, ending.stops_at < ending.expires_at`,
		s.config.OwnerMaxAbsence, warnBefore)
	if err != nil {
		return fmt.Errorf("finding keys that stop soon: %w", err)
	}
	var key Key
	var owner string
	var absent bool
	_, err = pgx.ForEachRow(rows, []any{&key.ID, &key.Name, &owner, &key.StopsAt, &absent}, func() error {
		key.warn(false, true, absent)
		log.LogAttrs(ctx, slog.LevelWarn, "an API key stops soon", slog.String("key", key.ID.String()), slog.String("name", key.Name),
			slog.String("owner", owner), slog.Time("stops_at", key.StopsAt), slog.String("warning", key.Warning))
		return nil
	})
	if err != nil {
		return fmt.Errorf("finding keys that stop soon: %w", err)
	}
	return nil
}

// RevokeNamed revokes all personal keys with this name, whoever's they are. `noted dev` ends the keys
// of earlier starts with it.
func (s *Service) RevokeNamed(ctx context.Context, name string) error {
	_, err := s.pool.Exec(ctx, `update keys set revoked_at = now() where user_id is not null and name = $1 and revoked_at is null`, name)
	if err != nil {
		return fmt.Errorf("revoking the last start's keys: %w", err)
	}
	return nil
}

// Mint makes a personal key that lives for DefaultAge, at most MaxAge. `noted dev` prints one at each
// start.
func (s *Service) Mint(ctx context.Context, owner audit.Actor, name, role string) (token Token, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, token, err = s.mint(ctx, tx, &owner, Owner{User: owner.ID}, name, role, min(DefaultAge, s.config.MaxAge), nil)
		return err
	})
	return token, err
}
