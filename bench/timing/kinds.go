package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strings"
	"time"

	"noted/internal/base62"
)

// kind is one way for authentication to fail.
type kind struct {
	name   string
	sort   string // of credential: a caller knows it
	reason string // as counted by the server
	// request makes a whole HTTP request before the time runs. i counts the kind's requests.
	request func(ctx context.Context, i int) ([]byte, error)
}

const (
	sortKey     = "key"
	sortSession = "session"
	sortIDToken = "ID token"
)

// copies is how many known credentials a kind has. A failure locks the row that remembers when that key or user
// was last in the audit record, and two should rarely wait for each other.
const copies = 8

// kindsOf makes and ends the credentials as people do. SQL only moves time.
func kindsOf(ctx context.Context, s *site) ([]kind, error) {
	k := maker{ctx: ctx, site: s}
	alice, ada, bob := k.signIn("alice"), k.signIn("ada"), k.signIn("bob")

	var good, expired, revoked, lockedKeys, ended, old, lockedSessions []string
	for range copies {
		_, token := k.newKey(alice)
		good = append(good, token)
		id, token := k.newKey(alice)
		expired = append(expired, token)
		k.exec(`update key_secrets set created_at = now() - interval '2 days', expires_at = now() - interval '1 day' where key_id = $1`, id)
		id, token = k.newKey(alice)
		revoked = append(revoked, token)
		k.do(http.MethodDelete, "/v1/keys/"+id, alice, nil, http.StatusNoContent, nil)
		_, token = k.newKey(bob)
		lockedKeys = append(lockedKeys, token)

		token = k.signIn("alice")
		ended = append(ended, token)
		k.do(http.MethodPost, "/auth/logout", token, nil, http.StatusNoContent, nil)
		token = k.signIn("alice")
		old = append(old, token)
		k.exec(`update sessions set expires_at = now() where id = $1`, k.current(token))
		lockedSessions = append(lockedSessions, k.signIn("bob"))
	}
	k.do(http.MethodPost, "/v1/admin/users/"+k.me(bob)+"/lock", ada, nil, http.StatusNoContent, nil)
	if k.err != nil {
		return nil, fmt.Errorf("making credentials: %w", k.err)
	}

	bearer := func(token string) []byte {
		return []byte("GET /v1/me HTTP/1.1\r\nHost: " + s.public() + "\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	}
	fresh := func(token func(i int) string) func(context.Context, int) ([]byte, error) {
		return func(_ context.Context, i int) ([]byte, error) { return bearer(token(i)), nil }
	}
	known := func(tokens []string) func(context.Context, int) ([]byte, error) {
		return fresh(func(i int) string { return tokens[i%len(tokens)] })
	}
	exchange := func(token string) []byte {
		form := exchangeForm(token).Encode()
		return fmt.Appendf(nil, "POST /auth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
			s.public(), len(form), form)
	}
	// signed returns a fresh ID token of alice's with the change.
	signed := func(change func(claims map[string]any)) (string, error) {
		now := time.Now().Unix()
		claims := map[string]any{
			"iss": s.issuer, "aud": clientID, "sub": "alice", "name": "alice", "email": "alice@corp.example",
			"iat": now, "exp": now + 600, "jti": rand.Text(),
		}
		change(claims)
		return s.provider.SignIDToken(claims)
	}
	bad := func(change func(claims map[string]any)) func(context.Context, int) ([]byte, error) {
		return func(context.Context, int) ([]byte, error) {
			token, err := signed(change)
			return exchange(token), err
		}
	}
	// used is an exchanged token; it is renewed before its age sets it apart.
	var used string
	var usedAt time.Time
	replayed := func(ctx context.Context, _ int) ([]byte, error) {
		var err error
		if time.Since(usedAt) > time.Minute {
			if used, err = signed(func(map[string]any) {}); err == nil {
				usedAt = time.Now()
				err = s.exchange(ctx, exchangeForm(used))
			}
		}
		return exchange(used), err
	}

	return []kind{
		{"bad checksum", sortKey, "key_checksum", fresh(func(i int) string { return badChecksum(good[i%copies]) })},
		{"no such key id", sortKey, "unknown_key", fresh(func(int) string { return unknownKey() })},
		{"right id, wrong secret", sortKey, "wrong_secret", fresh(func(i int) string { return wrongSecret(good[i%copies]) })},
		{"expired key", sortKey, "expired_key", known(expired)},
		{"revoked key", sortKey, "revoked_key", known(revoked)},
		{"locked owner's key", sortKey, "locked_user", known(lockedKeys)},
		{"unknown session", sortSession, "unknown_session", fresh(func(int) string { return unknownSession() })},
		{"ended session", sortSession, "ended_session", known(ended)},
		{"expired session", sortSession, "expired_session", known(old)},
		{"locked user's session", sortSession, "locked_user", known(lockedSessions)},
		{"garbage", sortIDToken, "id_token", func(context.Context, int) ([]byte, error) { return exchange(rand.Text()), nil }},
		{"forged signature", sortIDToken, "id_token", func(context.Context, int) ([]byte, error) {
			token, err := signed(func(map[string]any) {})
			return exchange(forged(token)), err
		}},
		{"another audience", sortIDToken, "id_token", bad(func(claims map[string]any) { claims["aud"] = "another client" })},
		{"too old", sortIDToken, "id_token", bad(func(claims map[string]any) { claims["iat"] = time.Now().Unix() - 400 })},
		{"used before", sortIDToken, "token_replayed", replayed},
		{"locked user's", sortIDToken, "locked_user", bad(func(claims map[string]any) {
			claims["sub"], claims["name"], claims["email"] = "bob", "bob", "bob@corp.example"
		})},
	}, nil
}

// exchangeForm exchanges an ID token for a session (RFC 8693, 2.1).
func exchangeForm(token string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {token},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
	}
}

// A key is noted_<id>_<secret><checksum>: 6 + 22 + 1 + 43 + 6 characters.
const idEnd, secretEnd = 28, 72

func withChecksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return body + base62.Encode([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, 6)
}

func random(bytes, width int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails: crypto/rand
	return base62.Encode(b, width)
}

func unknownKey() string            { return withChecksum("noted_" + random(16, 22) + "_" + random(32, 43)) }
func wrongSecret(key string) string { return withChecksum(key[:idEnd+1] + random(32, 43)) }
func unknownSession() string        { return "nsess_" + random(32, 43) }

// badChecksum returns key with a wrong checksum.
func badChecksum(key string) string {
	for {
		if sum := random(4, 6); sum != key[secretEnd:] {
			return key[:secretEnd] + sum
		}
	}
}

// forged returns token with another signature of the same length.
func forged(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	first := byte('A')
	if token[at] == first {
		first = 'B'
	}
	return token[:at] + string(first) + token[at+1:]
}
