package identity

import (
	"context"
	"crypto/sha256"
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
	"noted/internal/pg"
	"noted/internal/request"
)

// credential is what a session token was found to be.
type credential struct {
	session  uuid.UUID
	origin   string
	person   Person
	refused  Reason // empty for a live session
	lasting  bool   // it stays valid while it would be remembered, unless somebody ends it
	unmarked bool   // its last use was written over a minute ago
}

// Conditions for a session s that still exists, the widest first. Time is the database's.
const (
	// notEnded: nobody has ended it. All such sessions can be ended, also expired ones: a longer session_idle
	// would revive them.
	notEnded = `s.ended_at is null`
	// notOver: its absolute end has not come either. Its user can end it, and its device fetch its token, even if idle.
	notOver = notEnded + ` and s.expires_at > now()`
)

// liveAt: it will be valid at the moment unless somebody ends it before. It has been used within @idle, and its absolute
// end has not come.
func liveAt(moment string) string {
	return notEnded + ` and s.expires_at > ` + moment + ` and s.last_used_at > ` + moment + ` - @idle::interval`
}

// findSession finds a session by its token's hash. It also finds an ended or expired one, with the reason, which goes
// only to the log. It returns pgx.ErrNoRows if there never was one.
func (s *Service) findSession(ctx context.Context, hash []byte) (credential, error) {
	var c credential
	err := s.pool.QueryRow(ctx, `
		select s.id, s.origin,
			case
				when not (`+notEnded+`) then @ended
				when not (`+liveAt("now()")+`) then @expired
				when p.locked then @locked
				else ''
			end,
			s.last_used_at <= now() - interval '1 minute',
			`+liveAt("now() + @remembered::interval")+`,
			p.user_id, p.name, p.email, p.locked, p.identities
		from sessions s
		join people p using (user_id)
		where s.token_hash = @hash`,
		pgx.NamedArgs{
			"hash": hash, "idle": s.config.SessionIdle, "remembered": RememberedFor,
			"ended": ReasonEndedSession, "expired": ReasonExpiredSession, "locked": ReasonLocked,
		}).
		Scan(&c.session, &c.origin, &c.refused, &c.unmarked, &c.lasting,
			&c.person.ID, &c.person.Name, &c.person.Email, &c.person.Locked, &c.person.Identities)
	return c, err
}

// markUsed records a session's use, at most once a minute, so that most reads write nothing. It does not wait
// for a locked row; the next request records the use then.
func (s *Service) markUsed(ctx context.Context, session uuid.UUID) error {
	_, err := s.pool.Exec(ctx, `
		update sessions s set last_used_at = now()
		where s.id = (select id from sessions where id = $1 for no key update skip locked)
			and `+notEnded+` and s.last_used_at <= now() - interval '1 minute'`, session)
	return err
}

// sessionLives reports whether a session is live. It keeps it so until tx ends.
func (s *Service) sessionLives(ctx context.Context, tx pgx.Tx, session uuid.UUID) (lives bool, err error) {
	err = tx.QueryRow(ctx, `select `+liveAt("now()")+` from sessions s where s.id = @id for share`,
		pgx.NamedArgs{"id": session, "idle": s.config.SessionIdle}).Scan(&lives)
	return lives, err
}

// signIn is what a session begins with.
type signIn struct {
	oidc.SignIn
	IDToken string // kept for the provider's end_session_endpoint; empty if it is not noted's own
	spent   []byte // the token's hash; the token counts once
}

// spentIDToken hashes the signed part of an ID token, so that another spelling of the signature
// is the same token.
func spentIDToken(raw string) []byte {
	return spentHash("id_token", raw[:strings.LastIndexByte(raw, '.')])
}

// spentHash keeps kinds of spent tokens, and the parts of their names, distinct.
func spentHash(kind string, parts ...string) []byte {
	hash := sha256.New()
	for _, part := range append([]string{kind}, parts...) {
		_, _ = fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hash.Sum(nil)
}

// spentFor is how long a spent token is remembered. That is longer than any is accepted.
const spentFor = time.Hour

// lockToken serializes, for the rest of tx, beginning and ending the sessions of one sign-in or
// one identity.
func lockToken(ctx context.Context, tx pgx.Tx, hash []byte) error {
	_, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 2))`, hash)
	if err != nil {
		return fmt.Errorf("locking a sign-in: %w", err)
	}
	return nil
}

// spend uses up an ID token. It returns a *Failure if the token was used before, or if a
// back-channel logout ended what it belongs to.
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

// signedOut reports whether a back-channel logout ended what a token belongs to: the provider's
// session with its sid, or, for tokens older than the logout, all of its subject, or all of it
// without a sid.
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

// beginSession finds or makes the user of (issuer, subject), records what the token said, uses
// it up, and begins a session for them, all in one transaction. It returns a *Failure for a
// locked user and for a token that no longer counts.
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
			session, user, identity, hash, s.config.SessionAbsolute, pg.OrNull(info.IP), info.UserAgent, in.IDToken, in.SessionID, origin).Scan(&expires)
		if err != nil {
			return fmt.Errorf("beginning a session: %w", err)
		}
		return audit.Record(ctx, tx, audit.Event{
			Actor:  &audit.Actor{ID: user, Kind: "user", Name: in.Name},
			Action: audit.SessionCreate, Object: "session", Target: session.String(), Detail: "by " + in.Issuer,
		})
	})
	return token, expires, err
}

// listSessions returns a user's live sessions, newest first.
func (s *Service) listSessions(ctx context.Context, caller *authz.Principal, w page.Window) ([]Session, error) {
	rows, err := s.pool.Query(ctx, `
		select s.id, s.created_at, s.last_used_at, s.expires_at, host(s.ip) as ip, s.user_agent, s.id = @current as current, i.issuer
		from sessions s join identities i on i.id = s.identity_id
		where s.user_id = @user and `+liveAt("now()")+`
			and (@at::timestamptz is null or (s.created_at, s.id) < (@at, @id))
		order by s.created_at desc, s.id desc
		limit @limit`, w.Args(pgx.NamedArgs{"user": caller.ID, "current": caller.Session, "idle": s.config.SessionIdle}))
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Session])
}

// findOwnSession finds a live session of the caller, or errNoSession.
func (s *Service) findOwnSession(_ context.Context, caller *authz.Principal, at authz.Place) (authz.Standing, func(context.Context) (uuid.UUID, error), error) {
	return authz.Mine, func(ctx context.Context) (uuid.UUID, error) {
		var id uuid.UUID
		err := s.pool.QueryRow(ctx, `
			select s.id from sessions s where s.id = @id and s.user_id = @user and `+liveAt("now()"),
			pgx.NamedArgs{"id": at.ID, "user": caller.ID, "idle": s.config.SessionIdle}).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errNoSession
		}
		return id, err
	}, nil
}

// endSessions ends the sessions that the condition selects and that nobody has ended. It records each end as its user's
// act and returns their number. The condition uses sessions s, identities i and users u. The stored ID token is deleted
// too.
//
// It locks the sessions first, in a statement of its own. Approving a device locks the approving session's
// row until the device's session exists, and only a statement that begins later sees that one.
func endSessions(ctx context.Context, tx pgx.Tx, why, condition string, args ...any) (ended int, err error) {
	from := ` from sessions s join identities i on i.id = s.identity_id join users u on u.id = s.user_id
		where ` + notEnded + ` and (` + condition + `)`
	if _, err := tx.Exec(ctx, `select`+from+` order by s.id for update of s`, args...); err != nil {
		return 0, fmt.Errorf("taking sessions: %w", err)
	}
	rows, err := tx.Query(ctx, `
		update sessions s set ended_at = now(), id_token = null
		from (select s.id as session, u.id as owner, u.name`+from+`) found
		where s.id = session and `+notEnded+`
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

// endOwnSession ends one of the caller's sessions and returns how many it ended: 0 or 1.
func endOwnSession(ctx context.Context, tx pgx.Tx, caller *authz.Principal, session uuid.UUID) (ended int, err error) {
	return endSessions(ctx, tx, "", `s.user_id = $1 and s.id = $2 and `+notOver, caller.ID, session)
}

// endOtherSessions ends all the caller's sessions except the current one.
func endOtherSessions(ctx context.Context, tx pgx.Tx, caller *authz.Principal) error {
	_, err := endSessions(ctx, tx, "", `s.user_id = $1 and s.id <> $2 and `+notOver, caller.ID, caller.Session)
	return err
}

// logOut ends the session that hash belongs to, if there is one. It returns what the
// provider needs to end its own: the configured issuer and the ID token.
func (s *Service) logOut(ctx context.Context, hash []byte) (issuer, idToken string, err error) {
	var session, user uuid.UUID
	err = s.pool.QueryRow(ctx, `
		select s.id, s.user_id, i.issuer, coalesce(s.id_token, '')
		from sessions s join identities i on i.id = s.identity_id
		where s.token_hash = $1 and `+notOver, hash).
		Scan(&session, &user, &issuer, &idToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("finding the session to end: %w", err)
	}
	request.From(ctx).Credential = request.Credential{Kind: string(authz.ViaSession), ID: session, Holder: user}
	err = s.Write(ctx, func(tx pgx.Tx) error {
		_, err := endSessions(ctx, tx, "", `s.id = $1 and `+notOver, session)
		return err
	})
	return issuer, idToken, err
}

// logOutAtProvider ends the sessions of one sign-in, by sid, or of an identity, by sub. With both, sid
// selects and sub must match. Sessions exchanged for that identity's tokens without a sid end too:
// nobody can tell from which sign-in they came. Devices approved from those sessions, and sessions
// exchanged with their tokens, have the same identity and sid, and end with them. ID tokens from an
// ended sign-in can begin no session any more.
func (s *Service) logOutAtProvider(ctx context.Context, l oidc.Logout) error {
	return s.Write(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			insert into spent_tokens (hash, forget_at) values ($1, now() + $2::interval)
			on conflict (hash) do nothing`, spentHash("logout", l.Issuer, l.TokenID), spentFor)
		if err != nil {
			return fmt.Errorf("spending a logout token: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return &Failure{Reason: ReasonReplay}
		}
		// In the order of spend.
		sid, subject := spentHash("sid", l.Issuer, l.SessionID), spentHash("sub", l.Issuer, l.Subject)
		var locked, ended [][]byte
		if l.SessionID != "" {
			locked, ended = append(locked, sid), append(ended, sid)
		}
		if l.Subject != "" {
			locked = append(locked, subject)
			if l.SessionID != "" {
				subject = spentHash("sub without sid", l.Issuer, l.Subject)
			}
			ended = append(ended, subject)
		}
		for _, hash := range locked {
			if err := lockToken(ctx, tx, hash); err != nil {
				return err
			}
		}
		var other bool
		err = tx.QueryRow(ctx, `
			select exists (
				select 1 from sessions s join identities i on i.id = s.identity_id
				where i.issuer = $1 and s.provider_sid = $2 and i.subject <> $3 and $3 <> '')`, l.Issuer, l.SessionID, l.Subject).Scan(&other)
		if err != nil {
			return fmt.Errorf("comparing sid and sub: %w", err)
		}
		if other {
			return &Failure{Reason: ReasonLogoutToken, Err: errors.New("sid is of another sub")}
		}
		_, err = tx.Exec(ctx, `
			insert into spent_tokens (hash, issued_at, forget_at) select unnest($1::bytea[]), $2::timestamptz, now() + $3::interval
			on conflict (hash) do update set issued_at = greatest(spent_tokens.issued_at, excluded.issued_at), forget_at = excluded.forget_at`,
			ended, l.IssuedAt, spentFor)
		if err != nil {
			return fmt.Errorf("noting a logout: %w", err)
		}
		_, err = endSessions(ctx, tx, "signed out at "+l.Issuer,
			`i.issuer = $1 and case when $2 = '' then i.subject = $3
				else s.provider_sid = $2 or s.provider_sid is null and s.origin = $4 and i.subject = $3 end`,
			l.Issuer, l.SessionID, l.Subject, originExchange)
		return err
	})
}

// Tidy deletes sessions a day after their absolute end, the times of failures last recorded over a
// day ago, and the remains of sign-ins. It deletes all of it: strangers can fill some of these tables
// faster than any fixed number would empty them. A transaction deletes at most batch rows. Between
// transactions ctx may stop it. It is safe to run anywhere at any time.
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

// listen is Listen on one connection, until that ends.
func (s *Service) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { // a database that hangs never answers
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, `listen noted_credentials`); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	for {
		s.Forget() // also for what was missed before
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return errors.Join(errors.New("waiting for a notification"), err)
		}
	}
}
