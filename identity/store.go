package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/authz"
	"noted/internal/audit"
	"noted/internal/page"
	"noted/internal/request"
)

// credential is what a session token was found to be.
type credential struct {
	session  uuid.UUID
	origin   string
	person   Person
	refused  Reason // empty for a live session
	lasting  bool   // it holds for as long as it would be remembered, if nobody ends it
	unmarked bool   // its last use was written over a minute ago
}

// findSession looks a session up by its token's hash. Both ends are compared here, by the
// database's clock: a session lives while now() is before its absolute end and before the
// idle end. An ended or expired one is found too, with the reason, which goes to the log
// alone. pgx.ErrNoRows when there never was one.
func (s *Service) findSession(ctx context.Context, hash []byte) (credential, error) {
	var c credential
	err := s.pool.QueryRow(ctx, `
		select s.id, s.origin,
			case
				when s.ended_at is not null then @ended
				when s.expires_at <= now() then @expired
				when s.last_used_at <= now() - @idle::interval then @expired
				when p.locked then @locked
				else ''
			end,
			s.last_used_at <= now() - interval '1 minute',
			least(s.expires_at, s.last_used_at + @idle::interval) > now() + @remembered::interval,
			p.user_id, p.name, p.email, p.locked, p.identities
		from sessions s
		join people p using (user_id)
		where s.token_hash = @hash`,
		pgx.NamedArgs{
			"hash": hash, "idle": s.config.SessionIdle, "remembered": rememberedFor,
			"ended": ReasonEndedSession, "expired": ReasonExpiredSession, "locked": ReasonLocked,
		}).
		Scan(&c.session, &c.origin, &c.refused, &c.unmarked, &c.lasting,
			&c.person.ID, &c.person.Name, &c.person.Email, &c.person.Locked, &c.person.Identities)
	return c, err
}

// markUsed notes the use of a session, once a minute at most, so that a read is no write. It waits for nobody
// who holds the row: the use is noted by the next request then.
func (s *Service) markUsed(ctx context.Context, session uuid.UUID) error {
	_, err := s.pool.Exec(ctx, `
		update sessions set last_used_at = now()
		where id = (select id from sessions where id = $1 for no key update skip locked)
			and ended_at is null and last_used_at <= now() - interval '1 minute'`, session)
	return err
}

// signIn is a verified ID token's yield.
type signIn struct {
	Identity
	Name      string
	IDToken   string // kept for the provider's end_session_endpoint; empty when it is not noted's own
	IssuedAt  time.Time
	SessionID string // the provider's: sid
	Claims    SeenClaims
	spent     []byte // the token's hash: it counts once
}

// spentIDToken names an ID token by what was signed, so that another spelling of the signature
// is the same token.
func spentIDToken(raw string) []byte {
	return spentHash("id_token", raw[:strings.LastIndexByte(raw, '.')])
}

// spentHash keeps the kinds of spent tokens, and the parts of their names, apart.
func spentHash(kind string, parts ...string) []byte {
	hash := sha256.New()
	for _, part := range append([]string{kind}, parts...) {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hash.Sum(nil)
}

// spentFor is how long a spent token is remembered: longer than any of its kind is accepted.
const spentFor = time.Hour

// lockToken serializes, for the rest of tx, what begins and what ends the sessions of one sign-in
// or of one identity.
func lockToken(ctx context.Context, tx pgx.Tx, hash []byte) error {
	_, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 2))`, hash)
	if err != nil {
		return fmt.Errorf("locking a sign-in: %w", err)
	}
	return nil
}

// spend uses an ID token up. A *Failure when it was used before, or when a back-channel logout
// ended what it belongs to.
func spend(ctx context.Context, tx pgx.Tx, in signIn) error {
	tag, err := tx.Exec(ctx, `
		insert into spent_tokens (hash, forget_at) values ($1, now() + $2::interval)
		on conflict (hash) do nothing`, in.spent, spentFor)
	if err != nil {
		return fmt.Errorf("spending a token: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return &Failure{Reason: ReasonReplay}
	}
	sid, subject := spentHash("sid", in.Issuer, in.SessionID), spentHash("sub", in.Issuer, in.Subject)
	for _, hash := range [][]byte{sid, subject} {
		if err := lockToken(ctx, tx, hash); err != nil {
			return err
		}
	}
	over, err := signedOut(ctx, tx, in)
	if err == nil && over {
		return &Failure{Reason: ReasonLoggedOut}
	}
	return err
}

// signedOut tells whether a back-channel logout ended what a token belongs to: the provider's
// session of its sid, or, for tokens older than the logout, all of its subject, or all of it that
// has no sid.
func signedOut(ctx context.Context, tx pgx.Tx, in signIn) (over bool, err error) {
	older := [][]byte{spentHash("sub", in.Issuer, in.Subject)}
	if in.SessionID == "" {
		older = append(older, spentHash("sub without sid", in.Issuer, in.Subject))
	}
	err = tx.QueryRow(ctx, `
		select exists (select from spent_tokens where hash = $1 and $2)
			or exists (select from spent_tokens where hash = any($3) and issued_at > $4)`,
		spentHash("sid", in.Issuer, in.SessionID), in.SessionID != "", older, in.IssuedAt).Scan(&over)
	if err != nil {
		return false, fmt.Errorf("looking for a logout: %w", err)
	}
	return over, nil
}

// beginSession finds or makes the user of (issuer, subject), notes what the token said, uses it
// up, and begins a session of theirs, all in one transaction. It returns a *Failure for a
// locked user and for a token that counts no more.
func (s *Service) beginSession(ctx context.Context, in signIn, origin string) (Token, time.Time, error) {
	token := NewToken()
	hash, _ := token.Hash()
	var expires time.Time
	err := s.Write(ctx, func(tx pgx.Tx) error {
		if err := spend(ctx, tx, in); err != nil {
			return err
		}
		user, identity, _, err := SaveIdentity(ctx, tx, in.Identity, in.Name)
		if err != nil {
			return err
		}
		if err := saveClaims(ctx, tx, identity, in.Claims); err != nil {
			return err
		}
		session := uuid.Must(uuid.NewV7())
		info := request.From(ctx)
		err = tx.QueryRow(ctx, `
			insert into sessions (id, user_id, identity_id, token_hash, expires_at, ip, user_agent, id_token, provider_sid, origin)
			values ($1, $2, $3, $4, now() + $5::interval, $6, $7, nullif($8, ''), nullif($9, ''), $10)
			returning expires_at`,
			session, user, identity, hash, s.config.SessionAbsolute, addressOrNull(info.IP), info.UserAgent, in.IDToken, in.SessionID, origin).Scan(&expires)
		if err != nil {
			return fmt.Errorf("beginning a session: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{
			Actor:  &audit.Actor{ID: user, Kind: "user", Name: in.Name},
			Action: audit.SessionCreate, Object: "session", Target: session.String(), Detail: "by " + in.Issuer,
		})
	})
	return token, expires.UTC(), err
}

func addressOrNull(ip netip.Addr) *netip.Addr {
	if !ip.IsValid() {
		return nil
	}
	return &ip
}

// saveClaims keeps, for those who run the place, what the last sign-in's token carried.
func saveClaims(ctx context.Context, tx pgx.Tx, identity uuid.UUID, seen SeenClaims) error {
	if _, err := tx.Exec(ctx, `update identities set claims = $2 where id = $1`, identity, seen); err != nil {
		return fmt.Errorf("noting claims: %w", err)
	}
	return nil
}

// lockIdentity serializes, for the rest of tx, whatever finds, makes, links or unlinks a pair.
func lockIdentity(ctx context.Context, tx pgx.Tx, issuer, subject string) error {
	_, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 1))`, issuer, subject)
	if err != nil {
		return fmt.Errorf("locking an identity: %w", err)
	}
	return nil
}

// SaveIdentity finds the user of (issuer, subject), or makes one, and notes what was signed.
// A user is found by nothing else. Two first sign-ins at once make one user: the second
// waits for the first on a lock named after the pair. It returns a *Failure for a locked
// user, whose id it returns all the same. made tells whether the user is new. `noted dev`
// makes its people by it.
func SaveIdentity(ctx context.Context, tx pgx.Tx, in Identity, name string) (user, identity uuid.UUID, made bool, err error) {
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

// noteEmail keeps what others see of a user's e-mail in step with their identities: a verified one,
// of the last sign-in that had one. A stranger may set any other.
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

// listSessions returns up to limit live sessions of a user, the newest first, after the position.
func (s *Service) listSessions(ctx context.Context, caller *authz.Principal, after page.Position, limit int) ([]Session, error) {
	rows, err := s.pool.Query(ctx, `
		select s.id, s.created_at, s.last_used_at, s.expires_at, host(s.ip), s.user_agent, s.id = $2, i.issuer
		from sessions s join identities i on i.id = s.identity_id
		where s.user_id = $1 and s.ended_at is null and s.expires_at > now() and s.last_used_at > now() - $3::interval
			and ($4::timestamptz is null or (s.created_at, s.id) < ($4, $5))
		order by s.created_at desc, s.id desc
		limit $6`, caller.ID, caller.Session, s.config.SessionIdle, after.TimeOrNull(), after.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Session, error) {
		var one Session
		err := row.Scan(&one.ID, &one.CreatedAt, &one.LastUsedAt, &one.ExpiresAt, &one.IP, &one.UserAgent, &one.Current, &one.issuer)
		one.CreatedAt, one.LastUsedAt, one.ExpiresAt = one.CreatedAt.UTC(), one.LastUsedAt.UTC(), one.ExpiresAt.UTC()
		return one, err
	})
}

// findOwnSession finds a live session of the caller's.
func (s *Service) findOwnSession(_ context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (uuid.UUID, error), error) {
	return authz.Mine, func(ctx context.Context) (uuid.UUID, error) {
		var id uuid.UUID
		err := s.pool.QueryRow(ctx, `
			select id from sessions
			where id = $1 and user_id = $2 and ended_at is null and expires_at > now()
				and last_used_at > now() - $3::interval`, at.ID, caller.ID, s.config.SessionIdle).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errNoSession
		}
		return id, err
	}, nil
}

// endSessions ends the live sessions that the condition selects, records each end as their user's,
// and returns how many there were. The condition names sessions s, identities i and users u. The
// stored ID token goes with the session.
//
// It takes the sessions before it looks for them: who approves a device holds the approving session's
// row until the device's session stands, and only a statement that begins later sees that one.
func endSessions(ctx context.Context, tx pgx.Tx, why, condition string, args ...any) (ended int, err error) {
	from := ` from sessions s join identities i on i.id = s.identity_id join users u on u.id = s.user_id
		where s.ended_at is null and (` + condition + `)`
	if _, err := tx.Exec(ctx, `select`+from+` order by s.id for update of s`, args...); err != nil {
		return 0, fmt.Errorf("taking sessions: %w", err)
	}
	rows, err := tx.Query(ctx, `
		update sessions set ended_at = now(), id_token = null
		from (select s.id as session, u.id as owner, u.name`+from+`) found
		where id = session and ended_at is null
		returning session, owner, name`, args...)
	if err != nil {
		return 0, fmt.Errorf("ending sessions: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Event, error) {
		var session uuid.UUID
		actor := audit.Actor{Kind: "user"}
		err := row.Scan(&session, &actor.ID, &actor.Name)
		return audit.Event{Actor: &actor, Action: audit.SessionEnd, Object: "session", Target: session.String(), Detail: why}, err
	})
	if err != nil {
		return 0, fmt.Errorf("ending sessions: %w", err)
	}
	return len(events), audit.Record(ctx, tx, events...)
}

// logOut ends the live session that hash belongs to, if there is one, and returns what the
// provider needs to end its own: the configured issuer and the ID token.
func (s *Service) logOut(ctx context.Context, hash []byte) (issuer, idToken string, err error) {
	var session, user uuid.UUID
	err = s.pool.QueryRow(ctx, `
		select s.id, s.user_id, i.issuer, coalesce(s.id_token, '')
		from sessions s join identities i on i.id = s.identity_id
		where s.token_hash = $1 and s.ended_at is null and s.expires_at > now()`, hash).
		Scan(&session, &user, &issuer, &idToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("finding the session to end: %w", err)
	}
	request.From(ctx).Credential = request.Credential{Kind: string(authz.ViaSession), ID: session, Holder: user}
	err = s.Write(ctx, func(tx pgx.Tx) error {
		_, err := endSessions(ctx, tx, "", `s.id = $1 and s.expires_at > now()`, session)
		return err
	})
	return issuer, idToken, err
}

// Tidy deletes sessions a day after their absolute end, forgets when failures older than a day
// were last recorded, and what is over of sign-ins under way: all that there is of it, since strangers
// fill some of these tables faster than any number would empty them. A transaction deletes at most
// batch; between two, ctx may end it. It is safe to run anywhere at any time.
func (s *Service) Tidy(ctx context.Context, batch int64) error {
	for _, old := range []struct{ table, key, condition string }{
		{"sessions", "id", "expires_at < now() - interval '1 day'"},
		{"audit_failures", "subject", "last_at < now() - interval '1 day'"},
		{"spent_tokens", "hash", "forget_at < now()"},
		{"device_logins", "device_hash", "expires_at < now() - interval '1 hour'"},
		{"device_guesses", "ctid", "at < now() - interval '1 hour'"},
		{"links", "session_id", "expires_at < now()"},
	} {
		for deleted := batch; deleted == batch; {
			tag, err := s.pool.Exec(ctx, fmt.Sprintf(`
				delete from %[1]s where %[2]s in (
					select %[2]s from %[1]s where %[3]s limit $1 for update skip locked)`, old.table, old.key, old.condition), batch)
			if err != nil {
				return fmt.Errorf("tidying %s: %w", old.table, err)
			}
			deleted = tag.RowsAffected()
		}
	}
	return nil
}

// MoveIssuer makes the identities of one issuer those of another: the dev provider when its
// port was taken. Real providers never move.
func (s *Service) MoveIssuer(ctx context.Context, from, to string) error {
	defer s.Forget()
	_, err := s.pool.Exec(ctx, `update identities set issuer = $2 where issuer = $1`, from, to)
	if err != nil {
		return fmt.Errorf("moving identities from %s to %s: %w", from, to, err)
	}
	return nil
}

// Issuer is that of a configured provider; empty when there is none of that id.
func (s *Service) Issuer(provider string) string {
	for _, p := range s.config.Providers {
		if p.ID == provider {
			return p.Issuer
		}
	}
	return ""
}
