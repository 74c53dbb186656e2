package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // RS1
	"crypto/sha256"
	_ "crypto/sha512" // RS512
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

// attack is what a hostile provider, browser or page tries against sign-in, and its result.
type attack struct {
	name    string
	section string // of the standard with the rule
	check   string // what stops it: the file, the function and, if there are several, which one
	run     func(*testing.T, *stage) answers
	// status is that of the first answer there is. If both doors answer, the exchange's is
	// 200 for 303, and 400 otherwise.
	status int
	reason string                  // of the failed authentication, only in the log; empty for none
	says   string                  // what else the log says, to show that it was this check
	stage  func(*testing.T) *stage // nil for the one that rows share
}

// answers are those of the two doors, if they were tried.
type answers struct{ browser, exchange *servertest.Answer }

// stage is a server and its provider. The provider publishes keys that a test signs with, claims to
// sign with none and HS256 too, and promises userinfo at the attacker's.
type stage struct {
	*servertest.Env
	provider *oidc.Provider
	other    func(claims map[string]any) string // signs tokens of another configured provider
	trap     *httptest.Server                   // the attacker's
	trapped  atomic.Int32                       // requests to it
	fetched  atomic.Int32                       // fetches of the keys
	later    atomic.Int64                       // how far ahead noted sees the provider's time, a time.Duration
	google   *google                            // instead of the dev provider
	jwks     []byte

	sessions, users, identities, wasTrapped int // before the attack
}

func newStage(t *testing.T, change ...func(*server.Options)) *stage {
	t.Helper()
	s := &stage{}
	s.setTrap(t)
	second, signOther := withSecondIssuer(t)
	s.other = signOther
	s.Env = servertest.New(t, append([]func(*server.Options){second, func(o *server.Options) {
		s.provider = o.Providers[0]
		s.provider.AllowedAudiences = []string{"mobile"}
		s.provider.Now = func() time.Time { return time.Now().Add(time.Duration(s.later.Load())) }
	}}, change...)...)
	s.publish(t)
	s.lie(devidp.Lie{})
	return s
}

// on is a stage for only one row.
func on(change ...func(*server.Options)) func(*testing.T) *stage {
	return func(t *testing.T) *stage {
		t.Helper()
		return newStage(t, change...)
	}
}

// with is on, with the provider configured so.
func with(change func(*oidc.Provider)) func(*testing.T) *stage {
	return on(func(o *server.Options) { change(o.Providers[0]) })
}

func (s *stage) setTrap(t *testing.T) {
	t.Helper()
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &ring.stranger.PublicKey, KeyID: "evil", Algorithm: "RS256"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.trap = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.trapped.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(keys)
	}))
	t.Cleanup(s.trap.Close)
}

// publish returns the keys to publish: the dev provider's and the ring's.
func (s *stage) publish(t *testing.T) {
	t.Helper()
	var set jose.JSONWebKeySet
	response, err := http.Get(s.Issuer + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	set.Keys = append(set.Keys,
		jose.JSONWebKey{Key: &ring.rsa.PublicKey, KeyID: "rsa", Algorithm: "RS256", Use: "sig"},
		jose.JSONWebKey{Key: &ring.ec.PublicKey, KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		jose.JSONWebKey{Key: &ring.enc.PublicKey, KeyID: "enc", Algorithm: "RSA-OAEP", Use: "enc"},
		jose.JSONWebKey{Key: &ring.enc.PublicKey, KeyID: "enc without alg", Use: "enc"},
		jose.JSONWebKey{Key: &ring.short.PublicKey, KeyID: "short", Algorithm: "RS256", Use: "sig"},
		jose.JSONWebKey{Key: ring.secret, KeyID: "secret", Algorithm: "HS256", Use: "sig"},
		jose.JSONWebKey{Key: ring.secret, KeyID: "secret without alg"})
	if s.jwks, err = json.Marshal(set); err != nil {
		t.Fatal(err)
	}
}

// lie makes the provider lie, besides what it always does.
func (s *stage) lie(l devidp.Lie) {
	handler, discovery := l.Handler, l.Discovery
	l.Handler = func(endpoint string, w http.ResponseWriter, r *http.Request) bool {
		if endpoint == "jwks" {
			s.fetched.Add(1)
		}
		if handler != nil && handler(endpoint, w, r) {
			return true
		}
		if endpoint == "jwks" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(s.jwks)
		}
		return endpoint == "jwks"
	}
	l.Discovery = func(doc map[string]any) {
		doc["id_token_signing_alg_values_supported"] = []string{"none", "HS256", "RS256", "RS512", "ES256"}
		doc["userinfo_endpoint"] = s.trap.URL + "/userinfo"
		if discovery != nil {
			discovery(doc)
		}
	}
	s.Provider.SetLie(l)
}

// before counts what there is before the attack.
func (s *stage) before(t *testing.T) {
	t.Helper()
	s.sessions, s.users, s.identities = number(t, s.Env, `select count(*) from sessions`), number(t, s.Env, `select count(*) from users`), identities(t, s.Env)
	s.wasTrapped = int(s.trapped.Load())
}

// keyring holds the keys of all rows. The provider publishes all but the stranger's.
type keyring struct {
	rsa, enc, short, stranger *rsa.PrivateKey
	ec, strangerEC            *ecdsa.PrivateKey
	secret                    []byte
}

var ring = newKeyring()

func newKeyring() *keyring {
	k := &keyring{secret: []byte(rand.Text() + rand.Text())}
	for _, key := range []**rsa.PrivateKey{&k.rsa, &k.enc, &k.stranger} {
		*key, _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	k.short, _ = rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // an attack
	for _, key := range []**ecdsa.PrivateKey{&k.ec, &k.strangerEC} {
		*key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return k
}

type signer = func(input string) []byte

func rs(key *rsa.PrivateKey, hash crypto.Hash) signer {
	return func(input string) []byte {
		h := hash.New()
		_, _ = h.Write([]byte(input))
		s, _ := rsa.SignPKCS1v15(rand.Reader, key, hash, h.Sum(nil))
		return s
	}
}

func rs256(key *rsa.PrivateKey) signer { return rs(key, crypto.SHA256) }

func ps256(key *rsa.PrivateKey) signer {
	return func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		s, _ := rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		return s
	}
}

func es256(key *ecdsa.PrivateKey) signer {
	return func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		der, _ := ecdsa.SignASN1(rand.Reader, key, sum[:])
		var s struct{ R, S *big.Int }
		_, _ = asn1.Unmarshal(der, &s)
		return append(s.R.FillBytes(make([]byte, 32)), s.S.FillBytes(make([]byte, 32))...)
	}
}

func hs256(secret []byte) signer {
	return func(input string) []byte {
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write([]byte(input))
		return mac.Sum(nil)
	}
}

func pkix() []byte {
	der, _ := x509.MarshalPKIXPublicKey(&ring.rsa.PublicKey)
	return der
}

// both brings a token to both doors: with a browser, and for exchange.
func both(lie devidp.Lie) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(lie)
		b := newBrowser(t, s.Env)
		byBrowser := b.get(t, b.callback(t, "alice").String())
		claims := idClaims(s.Issuer, "alice", nil)
		if lie.Claims != nil {
			lie.Claims(claims)
		}
		token := sign(t, s.Env, claims)
		if lie.IDToken != nil {
			token = lie.IDToken(token)
		}
		byExchange := exchange(t, s.Env, token)
		return answers{&byBrowser, &byExchange}
	}
}

// saying is both with one claim changed; nil removes it.
func saying(name string, value any) func(*testing.T, *stage) answers { return both(claim(name, value)) }

// token is both with another token instead of the provider's.
func token(change func(s *stage, honest string) string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		return both(devidp.Lie{IDToken: func(honest string) string { return change(s, honest) }})(t, s)
	}
}

// jws is both with another header and signature.
func jws(header string, by signer) func(*testing.T, *stage) answers {
	return token(func(_ *stage, honest string) string { return signed(honest, header, by) })
}

// payload is the text of a token's claims.
func payload(token string) string {
	text, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	return string(text)
}

// claiming is a token with these claims as written, signed by a published key.
func claiming(text string) string {
	return signed("."+base64.RawURLEncoding.EncodeToString([]byte(text)), `{"alg":"RS256","kid":"rsa"}`, rs256(ring.rsa))
}

// more is a token with one more claim at the end, as written.
func more(token, claim string) string {
	return claiming(strings.TrimSuffix(payload(token), "}") + "," + claim + "}")
}

// browsing is a browser's sign-in through a provider that lies this way. change alters the way back.
func browsing(lie devidp.Lie, change ...func(*url.URL)) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(lie)
		b := newBrowser(t, s.Env)
		back := b.callback(t, "alice")
		for _, c := range change {
			c(back)
		}
		a := b.get(t, back.String())
		return answers{browser: &a}
	}
}

// exchanging is an exchange of one token only.
func exchanging(tokenOf func(t *testing.T, s *stage) string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(devidp.Lie{})
		token := tokenOf(t, s)
		s.before(t)
		a := exchange(t, s.Env, token)
		return answers{exchange: &a}
	}
}

func answer(a servertest.Answer) answers { return answers{browser: &a} }

// attacks is the catalogue.
func attacks() []attack {
	const (
		allowed   = "go-jose ParseSigned: the algorithms that discovery lists and go-oidc supports"
		signature = "identity/oidc/keyset.go VerifySignature: a key that the provider publishes"
		spelling  = "identity/oidc/token.go canonical"
		endpoint  = "identity/oidc/discovery.go checkEndpoint"
		origin    = "server/middleware.go sameOrigin"
		path      = "identity/signin.go LocalPath"
		verify    = "identity/oidc/token.go verify"
		expiry    = "go-oidc IDTokenVerifier.Verify: exp"
		types     = "go-oidc idToken: types of the claims"
	)
	refused := func(name, section, check string, run func(*testing.T, *stage) answers, reason, says string) attack {
		return attack{name: name, section: section, check: check, run: run, status: http.StatusUnauthorized, reason: reason, says: says}
	}
	badToken := func(name, section, check string, run func(*testing.T, *stage) answers, says string) attack {
		return refused(name, section, check, run, "id_token", says)
	}
	unexchanged := func(name, section, check string, tokenOf func(*testing.T, *stage) string, reason, says string) attack {
		return attack{name: name, section: section, check: check, run: exchanging(tokenOf), status: http.StatusBadRequest, reason: reason, says: says}
	}
	returning := func(name, to string) attack {
		return attack{name: "return to " + name, section: "RFC 9700 4.11.1", check: path, run: returnTo(to), status: http.StatusSeeOther}
	}
	gated := func(name, section, check string, gate func(*oidc.Provider), run func(*testing.T, *stage) answers, says string) attack {
		return attack{name: name, section: section, check: check, run: run, status: http.StatusUnauthorized, reason: "gate", says: says, stage: with(gate)}
	}
	// shownAs is a claim that is only shown and not a string: it counts as missing.
	shownAs := func(name, claimed string, value any) attack {
		return attack{name: name, section: "OIDC Core 5.1", check: "identity/oidc/claims.go text", status: http.StatusSeeOther, run: func(t *testing.T, s *stage) answers {
			a := changed(func(c map[string]any) { c["sub"], c[claimed] = "odd "+name, value })(t, s)
			got := number(t, s.Env, `select count(*) from users u join identities i on i.user_id = u.id
				where i.subject = $1 and u.name <> '' and u.name !~ '[{\[7]' and (($2 = 'email') = (u.email is null)) and (($2 = 'email') = (i.email is null))`, "odd "+name, claimed)
			if got != 1 {
				t.Errorf("%d people are as they should be", got)
			}
			return a
		}}
	}
	domain := func(p *oidc.Provider) { p.AllowedEmailDomains = []string{"dev.example", "kelvin.example"} }
	staff := func(p *oidc.Provider) { p.AllowedGroups = []string{"staff"} }
	rows := []attack{
		// Signatures.
		badToken("alg none", "RFC 8725 3.2", allowed, jws(`{"alg":"none"}`, nil), "unexpected signature algorithm"),
		badToken("alg nOnE", "RFC 8725 3.1", allowed, jws(`{"alg":"nOnE","typ":"JWT"}`, nil), "unexpected signature algorithm"),
		badToken("no alg", "RFC 7515 4.1.1", allowed, jws(`{"kid":"rsa"}`, rs256(ring.rsa)), "unexpected signature algorithm"),
		badToken("two algs", "RFC 7515 4", "go-jose ParseSigned: header parameters once", jws(`{"alg":"none","alg":"RS256","kid":"rsa"}`, rs256(ring.rsa)), "invalid protected header"),
		badToken("HS256 by the public key's PEM", "RFC 8725 2.1", allowed, jws(`{"alg":"HS256","kid":"rsa"}`, hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix()}))), "unexpected signature algorithm"),
		badToken("HS256 by the public key's DER", "RFC 8725 2.1", allowed, jws(`{"alg":"HS256","kid":"rsa"}`, hs256(pkix())), "unexpected signature algorithm"),
		badToken("HS256 by the public key's modulus", "RFC 8725 2.1", allowed, jws(`{"alg":"HS256","kid":"rsa"}`, hs256(ring.rsa.N.Bytes())), "unexpected signature algorithm"),
		badToken("HS256 by the client secret", "OIDC Core 3.1.3.7 (8)", allowed, jws(`{"alg":"HS256"}`, hs256([]byte("for this test"))), "unexpected signature algorithm"),
		badToken("HS256 by a symmetric key in the set", "RFC 8725 3.1", allowed, jws(`{"alg":"HS256","kid":"secret without alg"}`, hs256(ring.secret)), "unexpected signature algorithm"),
		badToken("RS256 by a symmetric key in the set", "RFC 8725 3.1", signature, jws(`{"alg":"RS256","kid":"secret without alg"}`, hs256(ring.secret)), "none of the provider's keys has signed it"),
		badToken("RS1", "RFC 8725 3.2", allowed, jws(`{"alg":"RS1","kid":"rsa"}`, rs(ring.rsa, crypto.SHA1)), "unexpected signature algorithm"),
		badToken("PS256, which discovery does not list", "OIDC Core 3.1.3.7 (7)", allowed, jws(`{"alg":"PS256","kid":"rsa"}`, ps256(ring.rsa)), "unexpected signature algorithm"),
		badToken("ES256 by the id of an RSA key", "RFC 8725 3.1", signature, jws(`{"alg":"ES256","kid":"rsa"}`, es256(ring.strangerEC)), "none of the provider's keys has signed it"),
		badToken("RS512 by a key for RS256", "RFC 8725 3.1", "identity/oidc/keyset.go verifyBy: alg of the key", jws(`{"alg":"RS512","kid":"rsa"}`, rs(ring.rsa, crypto.SHA512)), "none of the provider's keys has signed it"),
		badToken("a key for encryption", "RFC 7517 4.2", "identity/oidc/keyset.go readKeys: use of the key", jws(`{"alg":"RS256","kid":"enc without alg"}`, rs256(ring.enc)), "none of the provider's keys has signed it"),
		badToken("a key for encryption by RSA-OAEP", "RFC 7517 4.4", "identity/oidc/keyset.go readKeys: alg of the key", jws(`{"alg":"RS256","kid":"enc"}`, rs256(ring.enc)), "none of the provider's keys has signed it"),
		badToken("a key of 1024 bits", "RFC 7518 3.3", "identity/oidc/keyset.go readKeys: 2048 bits", jws(`{"alg":"RS256","kid":"short"}`, rs256(ring.short)), "none of the provider's keys has signed it"),
		badToken("a key id that is not published", "OIDC Core 10.1", signature, jws(`{"alg":"RS256","kid":"evil"}`, rs256(ring.stranger)), "none of the provider's keys has signed it"),
		badToken("no key id", "OIDC Core 10.1", signature, jws(`{"alg":"RS256"}`, rs256(ring.stranger)), "none of the provider's keys has signed it"),
		badToken("another key by a published id", "OIDC Core 3.1.3.7 (6)", signature, jws(`{"alg":"RS256","kid":"rsa"}`, rs256(ring.stranger)), "none of the provider's keys has signed it"),
		badToken("its own key, jwk", "RFC 8725 3.10", signature, token(func(_ *stage, honest string) string {
			jwk, _ := json.Marshal(jose.JSONWebKey{Key: &ring.stranger.PublicKey, KeyID: "evil"})
			return signed(honest, `{"alg":"RS256","kid":"evil","jwk":`+string(jwk)+`}`, rs256(ring.stranger))
		}), "none of the provider's keys has signed it"),
		badToken("the address of its own keys, jku", "RFC 8725 3.10", signature, token(func(s *stage, honest string) string {
			return signed(honest, `{"alg":"RS256","kid":"evil","jku":"`+s.trap.URL+`/jwks"}`, rs256(ring.stranger))
		}), "none of the provider's keys has signed it"),
		badToken("its own certificate, x5c and x5u", "RFC 8725 3.10", signature, token(func(s *stage, honest string) string {
			template := &x509.Certificate{SerialNumber: big.NewInt(1)}
			der, _ := x509.CreateCertificate(rand.Reader, template, template, &ring.stranger.PublicKey, ring.stranger)
			return signed(honest, `{"alg":"RS256","kid":"evil","x5u":"`+s.trap.URL+`/x5u","x5c":["`+base64.StdEncoding.EncodeToString(der)+`"]}`, rs256(ring.stranger))
		}), "none of the provider's keys has signed it"),
		badToken("a critical extension", "RFC 7515 4.1.11", "identity/oidc/token.go headerType: crit", jws(`{"alg":"RS256","kid":"rsa","crit":["evil"],"evil":1}`, rs256(ring.rsa)), "crit asks for an extension"),
		badToken("an unencoded payload", "RFC 7797 7", "identity/oidc/token.go headerType: crit", jws(`{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}`, rs256(ring.rsa)), "crit asks for an extension"),
		badToken("an access token by its typ", "RFC 9068 4", "identity/oidc/token.go verify: typ of the header", jws(`{"alg":"RS256","kid":"rsa","typ":"at+jwt"}`, rs256(ring.rsa)), "is no ID token's"),
		badToken("an access token by its typ, and TYP besides", "RFC 7515 4", "identity/oidc/token.go headerType: names in another case", jws(`{"alg":"RS256","kid":"rsa","typ":"at+jwt","TYP":"JWT"}`, rs256(ring.rsa)), "is no ID token's"),
		badToken("a logout token by its typ", "RFC 8725 3.11", "identity/oidc/token.go verify: typ of the header", jws(`{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}`, rs256(ring.rsa)), "is no ID token's"),
		badToken("another's claims under a good signature", "OIDC Core 3.1.3.7 (6)", signature, token(func(_ *stage, honest string) string {
			parts := strings.Split(honest, ".")
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(payload(honest), `"alice"`, `"ada"`, 1)))
			return strings.Join(parts, ".")
		}), "none of the provider's keys has signed it"),

		// Spellings of a token.
		badToken("four parts", "RFC 7515 7.1", spelling, token(func(_ *stage, honest string) string { return honest + ".e30" }), "not three parts"),
		badToken("JWE", "OIDC Core 3.1.3.7 (1)", spelling, token(func(_ *stage, honest string) string {
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)) + ".AAAA.AAAA." + strings.Split(honest, ".")[1] + ".AAAA"
		}), "not three parts"),
		badToken("JSON serialization", "RFC 7515 7.2", spelling, token(func(_ *stage, honest string) string {
			parts := strings.Split(honest, ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
		}), "not three parts"),
		badToken("padding", "RFC 7515 2", spelling, token(func(_ *stage, honest string) string { return honest + "==" }), "not three parts"),
		badToken("over 128 KiB", "RFC 8259 9", spelling, saying("name", strings.Repeat("n", 100<<10)), "too long"),
		badToken("an access token in the ID token's place", "OIDC Core 3.1.3.3", spelling, token(func(*stage, string) string { return rand.Text() }), "not three parts"),
		badToken("claims 40,000 deep", "RFC 8259 9", "encoding/json: depth", token(func(_ *stage, honest string) string {
			return more(honest, `"x":`+strings.Repeat("[", 40_000)+strings.Repeat("]", 40_000))
		}), "exceeded max depth"),
		badToken("claims that are a list", "RFC 7519 7.2", types, token(func(*stage, string) string { return claiming(`["alice"]`) }), "failed to unmarshal claims"),
		badToken("SUB besides sub", "RFC 7519 4", "identity/oidc/token.go checkClaims: names in another case", saying("SUB", "ada"), `claim \"SUB\" is not \"sub\"`),
		badToken("Aud besides aud", "RFC 7519 4", "identity/oidc/token.go checkClaims: names in another case", saying("Aud", "somebody"), `claim \"Aud\" is not \"aud\"`),
		badToken("the long s besides sub", "RFC 7519 4", "identity/oidc/token.go checkClaims: names in another case", saying("\u017fub", "ada"), `is not \"sub\"`),
		{
			name: "sub twice", section: "RFC 7519 4", check: "encoding/json: the last of two", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{IDToken: func(honest string) string { return more(honest, `"sub":"bob of two"`) }})
				a, session := s.signIn(t)
				if me := s.who(t, session); me.Subject != "bob of two" {
					t.Errorf("signed in as %+v", me)
				}
				return answer(a)
			},
		},
		unexchanged("sub twice, exchanged", "RFC 7519 4", "identity/oidc/token.go IssuerOf: a claim once", func(t *testing.T, s *stage) string {
			return more(newIDToken(t, s.Env, "alice", nil), `"sub":"bob"`)
		}, "id_token", "the payload is no JSON object"),

		// Whose token it is, and for whom.
		badToken("another issuer", "OIDC Core 3.1.3.7 (2)", "go-oidc IDTokenVerifier.Verify: iss", saying("iss", "https://evil.example"), "issued by a different provider"),
		badToken("no issuer", "OIDC Core 2", "go-oidc IDTokenVerifier.Verify: iss", saying("iss", nil), "issued by a different provider"),
		badToken("two issuers", "OIDC Core 2", types, saying("iss", []string{"https://evil.example"}), "failed to unmarshal claims"),
		badToken("another configured provider's name", "RFC 8725 3.8", "go-oidc IDTokenVerifier.Verify: iss", saying("iss", "https://other.example"), "issued by a different provider"),
		unexchanged("an issuer that is not configured", "RFC 8693 2.1", "identity/token.go exchange: issuer", func(t *testing.T, s *stage) string {
			return newIDToken(t, s.Env, "alice", map[string]any{"iss": s.Issuer + "/"})
		}, "id_token", "is not a configured one"),
		unexchanged("a provider's token in another's name", "RFC 8725 3.8", "identity/token.go exchange: the keys of the issuer", func(_ *testing.T, s *stage) string {
			return s.other(idClaims(s.Issuer, "alice", nil))
		}, "id_token", "none of the provider's keys has signed it"),
		badToken("another audience", "OIDC Core 3.1.3.7 (3)", verify+": every audience is ours", saying("aud", "somebody"), "not noted's alone"),
		badToken("no audience", "OIDC Core 2", verify+": an audience", saying("aud", nil), "not noted's alone"),
		badToken("an audience of another beside ours", "OIDC Core 3.1.3.7 (3)", verify+": every audience is ours", changed(func(c map[string]any) { c["aud"], c["azp"] = []string{"noted", "somebody"}, "noted" }), "not noted's alone"),
		badToken("several audiences and no azp", "OIDC Core 3.1.3.7 (4)", verify+": every audience is ours", saying("aud", []string{"somebody", "noted"}), "not noted's alone"),
		badToken("azp of another", "OIDC Core 3.1.3.7 (5)", verify+": azp", saying("azp", "somebody"), `azp \"somebody\" is not noted`),
		badToken("azp that is a list", "OIDC Core 2", "identity/oidc/token.go checkClaims: strings", saying("azp", []string{"noted"}), "claim azp is no string"),
		badToken("another client's token in a browser", "OIDC Core 3.1.3.7 (3)", "identity/oidc/token.go own", browsing(claim("aud", "mobile")), "not for noted"),
		badToken("another client's azp in a browser", "OIDC Core 3.1.3.7 (5)", "identity/oidc/token.go own", browsing(claim("azp", "mobile")), "not for noted"),
		badToken("Keycloak's access token", "RFC 8725 3.12", verify+": typ of the claims", saying("typ", "Bearer"), "the claim typ says"),
		badToken("a logout token", "Back-Channel Logout 1.0 2.4", verify+": events", saying("events", map[string]any{logoutEvent: map[string]any{}}), "a logout token is no ID token"),

		// Times.
		badToken("expired", "OIDC Core 3.1.3.7 (9)", expiry, changed(func(c map[string]any) { c["exp"] = time.Now().Unix() - 1 }), "token is expired"),
		badToken("no expiry", "OIDC Core 2", expiry, saying("exp", nil), "token is expired"),
		badToken("an expiry before the clock began", "RFC 7519 2", expiry, saying("exp", -1), "token is expired"),
		badToken("an expiry past all clocks", "RFC 7519 2", expiry, saying("exp", int64(math.MaxInt64)), "token is expired"),
		badToken("an expiry that is no number of Go's", "RFC 7519 2", types, saying("exp", json.Number("1e400")), "failed to unmarshal claims"),
		badToken("an expiry in a string", "RFC 7519 2", "identity/oidc/token.go checkClaims: numbers", saying("exp", "4102444800"), "claim exp is no number"),
		badToken("not valid yet", "RFC 7519 4.1.5", "go-oidc IDTokenVerifier.Verify: nbf", changed(func(c map[string]any) { c["nbf"] = later(6 * time.Minute) }), "before the nbf"),
		badToken("issued in the future", "OIDC Core 3.1.3.7 (10)", verify+": iat to come", changed(func(c map[string]any) { c["iat"] = later(62 * time.Second) }), "is in the future"),
		badToken("issued past all clocks", "RFC 7519 2", "identity/oidc/token.go checkClaims: a time is one", saying("iat", int64(math.MaxInt64)), "claim iat is no time"),
		badToken("issued never", "OIDC Core 2", verify+": iat", saying("iat", nil), "iat is missing"),
		unexchanged("good for ten years, and kept for five minutes", "OIDC Core 3.1.3.7 (10)", "identity/oidc/token.go VerifyIDToken: age", func(t *testing.T, s *stage) string {
			now := time.Now()
			return newIDToken(t, s.Env, "alice", map[string]any{"iat": now.Add(-301 * time.Second).Unix(), "exp": now.AddDate(10, 0, 0).Unix()})
		}, "id_token", "ago"),
		{
			name: "good for ten years", section: "RFC 8693 2.2.1", check: "identity/store.go beginSession: a session has an end of its own", status: http.StatusOK,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				a := exchange(t, s.Env, newIDToken(t, s.Env, "alice", map[string]any{"exp": time.Now().AddDate(10, 0, 0).Unix()}))
				var got struct {
					ExpiresIn int `json:"expires_in"`
				}
				if a.JSON(t, &got); got.ExpiresIn > 7*24*60*60 {
					t.Errorf("the session lives %d s", got.ExpiresIn)
				}
				return answers{exchange: &a}
			},
		},

		// Who it is about.
		badToken("no subject", "OIDC Core 2", verify+": sub", saying("sub", nil), "sub is not 1 to 255"),
		badToken("an empty subject", "OIDC Core 2", verify+": sub", saying("sub", ""), "sub is not 1 to 255"),
		badToken("a subject that is a number", "OIDC Core 2", types, saying("sub", 7), "failed to unmarshal claims"),
		badToken("a subject of 256 bytes", "OIDC Core 2", "identity/oidc/claims.go isSubject: length", saying("sub", strings.Repeat("a", 256)), "sub is not 1 to 255"),
		badToken("a subject with a line end", "OIDC Core 2", "identity/oidc/claims.go isSubject: printable ASCII", saying("sub", "alice\n"), "sub is not 1 to 255"),
		badToken("a subject that looks like another", "OIDC Core 2", "identity/oidc/claims.go isSubject: printable ASCII", saying("sub", "\u0430lice"), "sub is not 1 to 255"),
		badToken("an sid that is a number", "Front-Channel Logout 1.0 3", "identity/oidc/token.go checkClaims: strings", saying("sid", 7), "claim sid is no string"),
		badToken("a nonce that is a list", "OIDC Core 2", types, saying("nonce", []string{"x"}), "failed to unmarshal claims"),
		shownAs("an e-mail that is a list", "email", []string{"ada@dev.example"}),
		shownAs("an e-mail that is a number", "email", 7),
		shownAs("an e-mail that is an object", "email", map[string]any{"value": "ada@dev.example"}),
		shownAs("an e-mail that is true", "email", true),
		shownAs("an e-mail that is null", "email", json.RawMessage("null")),
		shownAs("a name that is an object", "name", map[string]any{"a": 1}),
		shownAs("a name that is a list", "name", []string{"ada"}),
		shownAs("a preferred_username that is a number", "preferred_username", 7),
		{
			name: "a name of 50 KiB and an e-mail of 400 bytes", section: "OIDC Core 5.1", check: "identity/oidc/claims.go text: length", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{Claims: func(c map[string]any) {
					c["sub"], c["name"], c["email"] = "gigantic", strings.Repeat("n", 50<<10), strings.Repeat("e", 388)+"@dev.example"
				}})
				a, session := s.signIn(t)
				if me := s.who(t, session); me.Name != "gigantic" || me.Email != "" {
					t.Errorf("signed in as %+v", me)
				}
				return answer(a)
			},
		},
		{
			name: "NUL in a name, an e-mail and a group", section: "RFC 8725 3.7", check: "identity/oidc/claims.go text: control characters", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{Claims: func(c map[string]any) {
					c["sub"], c["name"], c["email"], c["groups"] = "nul", "al\x00ice", "alice@dev.example\x00.evil.example", []string{"staff\x00"}
				}})
				a, session := s.signIn(t)
				if me := s.who(t, session); me.Name != "nul" || me.Email != "" {
					t.Errorf("signed in as %+v", me)
				}
				return answer(a)
			},
		},
		{
			name: "claims to be fetched elsewhere", section: "OIDC Core 5.6.2", check: "identity/oidc/token.go verify: the token's own claims alone",
			run: both(devidp.Lie{Claims: func(c map[string]any) {
				c["_claim_names"], c["_claim_sources"] = map[string]any{"groups": "evil"}, map[string]any{"evil": map[string]any{"endpoint": "http://127.0.0.1:1/groups"}}
			}}), status: http.StatusUnauthorized, reason: "gate", says: "allowed_groups", stage: with(staff),
		},
		{
			name: "userinfo of somebody else", section: "OIDC Core 5.3.2", check: "identity/oidc/flow.go exchangeCode: the ID token alone", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				a, session := s.signIn(t)
				if me := s.who(t, session); me.Subject != "alice" {
					t.Errorf("signed in as %+v", me)
				}
				return answer(a)
			},
		},

		// Gates.
		gated("an e-mail that is not verified", "OIDC Core 5.1", "identity/oidc/oidc.go Admit: email_verified", domain, saying("email_verified", false), "the e-mail is not verified"),
		gated("an e-mail verified by a word", "OIDC Core 5.1", "identity/oidc/claims.go signInOf: email_verified is true itself", domain, saying("email_verified", "true"), "the e-mail is not verified"),
		gated("an e-mail in a list", "OIDC Core 5.1", "identity/oidc/claims.go domainOf: no e-mail", domain, saying("email", []string{"alice@dev.example"}), "of another domain"),
		gated("an e-mail of another domain", "OIDC Core 5.7", "identity/oidc/oidc.go Admit: domain", domain, saying("email", "alice@evil-dev.example"), "of another domain"),
		gated("the Kelvin sign in an e-mail", "RFC 8725 3.7", "identity/oidc/claims.go IsPlainEmail", domain, saying("email", "mike@\u212aelvin.example"), "of another domain"),
		gated("two @, the domain first", "RFC 5322 3.4.1", "identity/oidc/claims.go domainOf: the last @", domain, saying("email", "alice@dev.example@evil.example"), "of another domain"),
		gated("two @, the domain last", "RFC 5322 3.4.1", "identity/oidc/claims.go domainOf: one @", domain, saying("email", "alice@evil.example@dev.example"), "of another domain"),
		gated("an e-mail that would be allowed when cut", "RFC 5321 4.5.3.1", "identity/oidc/claims.go text: dropped, not cut", domain, saying("email", strings.Repeat("e", 308)+"@dev.example.evil.example"), "of another domain"),
		gated("a domain of the token's e-mail in place of hd", "OIDC Core 5.1.2", "identity/oidc/oidc.go Admit: hosted domain", func(p *oidc.Provider) { p.HostedDomains = []string{"dev.example"} }, saying("hd", "evil.example"), "hd is another one or missing"),
		gated("groups that are an object", "OIDC Core 5.1.2", "identity/oidc/claims.go stringsAt", staff, saying("groups", map[string]any{"staff": true}), "allowed_groups"),
		gated("a group in a list of lists", "OIDC Core 5.1.2", "identity/oidc/claims.go stringsAt", staff, saying("groups", [][]string{{"staff"}}), "allowed_groups"),
		gated("a group that would be allowed when cut", "OIDC Core 5.1.2", "identity/oidc/claims.go text: dropped, not cut",
			func(p *oidc.Provider) { p.AllowedGroups = []string{strings.Repeat("g", 255)} }, saying("groups", []string{strings.Repeat("g", 256)}), "allowed_groups"),

		// The flow.
		badToken("at_hash of another access token", "OIDC Core 3.1.3.8", "identity/oidc/token.go checkHashes", browsing(claim("at_hash", leftHalf("another"))), "at_hash is of another"),
		badToken("at_hash cut short", "OIDC Core 3.1.3.8", "identity/oidc/token.go checkHashes", browsing(devidp.Lie{Claims: func(c map[string]any) { c["at_hash"] = c["at_hash"].(string)[:10] }}), "at_hash is of another"),
		badToken("an empty at_hash", "OIDC Core 3.1.3.8", "identity/oidc/token.go checkHashes", browsing(claim("at_hash", "")), "at_hash is of another"),
		badToken("at_hash that is a number", "OIDC Core 3.1.3.6", types, saying("at_hash", 7), "failed to unmarshal claims"),
		badToken("AT_HASH besides at_hash", "RFC 7519 4", "identity/oidc/token.go checkClaims: names in another case", saying("AT_HASH", "x"), `claim \"AT_HASH\" is not`),
		badToken("c_hash of another code", "OIDC Core 3.3.2.11", "identity/oidc/token.go checkHashes", browsing(claim("c_hash", leftHalf("another"))), "c_hash is of another"),
		badToken("c_hash of the access token", "OIDC Core 3.3.2.11", "identity/oidc/token.go checkHashes", browsing(devidp.Lie{Claims: func(c map[string]any) { c["c_hash"] = c["at_hash"] }}), "c_hash is of another"),
		badToken("an empty c_hash", "OIDC Core 3.3.2.11", "identity/oidc/token.go checkHashes", browsing(claim("c_hash", "")), "c_hash is of another"),
		badToken("c_hash that is a list", "OIDC Core 3.3.2.11", "identity/oidc/token.go checkClaims: strings", saying("c_hash", []string{"x"}), "claim c_hash is no string"),
		{
			name: "no hashes", section: "OIDC Core 3.1.3.6", check: "identity/oidc/token.go checkHashes: optional", status: http.StatusSeeOther,
			run: browsing(devidp.Lie{Claims: func(c map[string]any) { delete(c, "at_hash"); delete(c, "c_hash") }}),
		},
		{
			name: "right hashes", section: "OIDC Core 3.1.3.6", check: "identity/oidc/token.go checkHashes", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				there := 0
				a := browsing(devidp.Lie{Claims: func(c map[string]any) {
					for _, name := range []string{"at_hash", "c_hash"} {
						if hash, _ := c[name].(string); len(hash) == 22 {
							there++
						}
					}
				}})(t, s)
				if there != 2 {
					t.Errorf("the provider sends %d hashes", there)
				}
				return a
			},
		},
		{
			name: "hashes of tokens that are not there, exchanged", section: "RFC 8693 2.1", check: "identity/token.go exchange: a token alone", status: http.StatusOK,
			run: exchanging(func(t *testing.T, s *stage) string {
				return newIDToken(t, s.Env, "alice", map[string]any{"at_hash": leftHalf("another"), "c_hash": leftHalf("another")})
			}),
		},
		badToken("no nonce", "OIDC Core 3.1.3.7 (11)", "identity/oidc/flow.go exchangeCode: nonce", browsing(claim("nonce", nil)), "nonce does not match"),
		badToken("another nonce", "OIDC Core 3.1.3.7 (11)", "identity/oidc/flow.go exchangeCode: nonce", browsing(claim("nonce", "x")), "nonce does not match"),
		badToken("the nonce of another flow", "RFC 9700 4.5.3.2", "identity/oidc/flow.go exchangeCode: nonce", func(t *testing.T, s *stage) answers {
			return browsing(claim("nonce", newBrowser(t, s.Env).begin(t, "alice").Query().Get("nonce")))(t, s)
		}, "nonce does not match"),
		refused("no state", "RFC 6749 10.12", "identity/signin.go flowOf: a state", browsing(devidp.Lie{}, query("state", "")), "state", "no state"),
		refused("another state", "RFC 6749 10.12", "identity/signin.go flowOf: a cookie of that state", browsing(devidp.Lie{}, query("state", "x")), "state", "began no such sign-in"),
		refused("a second state behind", "RFC 6749 3.1", "identity/oidc/flow.go exchangeCode: each parameter once", browsing(devidp.Lie{}, func(u *url.URL) { u.RawQuery += "&state=x" }), "provider_error", "the response has state twice"),
		refused("a second code behind", "RFC 6749 3.1", "identity/oidc/flow.go exchangeCode: each parameter once", browsing(devidp.Lie{}, func(u *url.URL) { u.RawQuery += "&code=x" }), "provider_error", "the response has code twice"),
		refused("two states", "RFC 6749 3.1", "identity/signin.go flowOf: a cookie of that state", browsing(devidp.Lie{}, func(u *url.URL) { u.RawQuery = "state=x&" + u.RawQuery }), "state", "began no such sign-in"),
		refused("a callback stolen from another browser", "RFC 9700 4.5", "identity/signin.go flowOf: a cookie of that state", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			return answer(newBrowser(t, s.Env).get(t, newBrowser(t, s.Env).callback(t, "alice").String()))
		}, "state", "began no such sign-in"),
		refused("the attacker's callback in the victim's browser", "RFC 9700 4.7", "identity/signin.go flowOf: a cookie of that state", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			victim := newBrowser(t, s.Env)
			want(t, http.StatusSeeOther, victim.get(t, victim.callback(t, "alice").String()))
			victim.begin(t, "alice") // and has begun another sign-in
			session := victim.session()
			s.before(t)
			a := victim.get(t, newBrowser(t, s.Env).callback(t, "bob").String())
			if victim.session() != session || s.who(t, session).Subject != "alice" {
				t.Error("the victim is not signed in as before")
			}
			return answer(a)
		}, "state", "began no such sign-in"),
		refused("the callback again", "RFC 6749 4.1.2", "identity/signin.go Callback: the flow's cookie is deleted", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			b := newBrowser(t, s.Env)
			back := b.callback(t, "alice").String()
			want(t, http.StatusSeeOther, b.get(t, back))
			s.before(t)
			return answer(b.get(t, back))
		}, "state", "began no such sign-in"),
		refused("the callback again, with its cookie", "RFC 6749 10.5", "the provider: a code counts once", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			b, thief, at := newBrowser(t, s.Env), newBrowser(t, s.Env), s.at(t)
			back := b.callback(t, "alice").String()
			thief.client.Jar.SetCookies(at, b.client.Jar.Cookies(at))
			want(t, http.StatusSeeOther, b.get(t, back))
			s.before(t)
			return answer(thief.get(t, back))
		}, "code_exchange", "invalid_grant"),
		refused("the code of another flow", "RFC 7636 4.6", "identity/oidc/flow.go exchangeCode: code_verifier", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			victim, stolen := newBrowser(t, s.Env), newBrowser(t, s.Env).callback(t, "bob").Query().Get("code")
			back := victim.callback(t, "alice")
			query("code", stolen)(back)
			return answer(victim.get(t, back.String()))
		}, "code_exchange", "invalid_grant"),
		refused("a sign-in cookie with another state in it", "RFC 9700 4.7.1", "identity/signin.go flowOf: the state of the cookie", func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{})
			victim, attacker, at := newBrowser(t, s.Env), newBrowser(t, s.Env), s.at(t)
			back := victim.callback(t, "alice").String()
			attacker.begin(t, "bob")
			planted := *attacker.client.Jar.Cookies(at)[0]
			planted.Name = victim.client.Jar.Cookies(at)[0].Name
			victim.client.Jar.SetCookies(at, []*http.Cookie{&planted})
			return answer(victim.get(t, back))
		}, "state", "state does not match"),
		{
			name: "a sign-in cookie planted by another host", section: "RFC 6265bis 4.1.3.2", check: "identity/cookie.go cookieNamesFor", status: http.StatusUnauthorized, reason: "state", says: "began no such sign-in",
			stage: on(func(o *server.Options) { o.Settings.PublicURL = "https://notes.example" }),
			run: func(t *testing.T, s *stage) answers {
				a := s.Do(t, http.MethodGet, "/auth/login?provider=dev", "", nil)
				state := location(t, a, http.StatusFound).Query().Get("state")
				cookie := (&http.Response{Header: a.Header}).Cookies()[0]
				plain, host := strings.CutPrefix(cookie.Name, "__Host-")
				if !host {
					t.Errorf("the cookie is %s", cookie.Name)
				}
				return answer(s.Do(t, http.MethodGet, "/auth/callback/dev?code=x&iss="+url.QueryEscape(s.Issuer)+"&state="+state, "", nil, "Cookie", plain+"="+cookie.Value))
			},
		},
		refused("a code of one provider at another's callback", "RFC 9700 4.4", "identity/signin.go flowOf: the flow's provider", browsing(devidp.Lie{}, func(u *url.URL) { u.Path = "/auth/callback/other" }), "state", "began at provider"),
		refused("no iss though it is promised", "RFC 9207 2.4", "identity/oidc/flow.go exchangeCode: iss is promised", browsing(response("iss", "")), "provider_error", "iss"),
		refused("iss of the attacker", "RFC 9207 2.4", "identity/oidc/flow.go exchangeCode: iss", browsing(response("iss", "https://evil.example")), "provider_error", "is not the provider's"),
		refused("iss of another configured provider", "RFC 9700 4.4.2.1", "identity/oidc/flow.go exchangeCode: iss", browsing(response("iss", "https://other.example")), "provider_error", "is not the provider's"),
		{
			name: "iss of the attacker though none is promised", section: "RFC 9207 2.4", check: "identity/oidc/flow.go exchangeCode: iss", status: http.StatusUnauthorized, reason: "provider_error", says: "is not the provider's", stage: on(),
			run: browsing(devidp.Lie{
				Discovery: func(doc map[string]any) { delete(doc, "authorization_response_iss_parameter_supported") },
				Response:  response("iss", "https://evil.example").Response,
			}),
		},
		refused("an error and a code", "RFC 6749 4.1.2.1", "identity/oidc/flow.go exchangeCode: error", browsing(response("error", "server_error")), "provider_error", "the provider says"),
		refused("an error that is a script", "RFC 6749 4.1.2.1", "identity/signin.go Callback: one page", func(t *testing.T, s *stage) answers {
			const script = "<script>alert(1)</script>"
			s.lie(devidp.Lie{Response: func(v url.Values) {
				v.Set("error", script)
				v.Set("error_description", script)
				v.Set("error_uri", "javascript:alert(1)")
			}})
			b := newBrowser(t, s.Env)
			a := b.get(t, b.callback(t, "alice").String(), "Accept", "text/html")
			if text := string(a.Body); strings.Contains(text, "<script") || strings.Contains(text, "alert") {
				t.Errorf("the page is %s", text)
			}
			return answer(a)
		}, "provider_error", "the provider says"),
		refused("an error that forges a line of the log", "RFC 6749 4.1.2.1", "identity/oidc/oidc.go Brief", func(t *testing.T, s *stage) answers {
			const forged = "\ntime=2026-01-01T00:00:00Z level=INFO msg=forged"
			got := browsing(devidp.Lie{Response: func(v url.Values) { v.Set("error", "x"+forged) }})(t, s)
			if strings.Contains(s.Log.String(), forged) {
				t.Error("it is there")
			}
			return got
		}, "provider_error", "the provider says"),
		refused("an ID token in the address, and no code", "RFC 9700 2.1.2", "identity/oidc/flow.go exchangeCode: the code alone", func(t *testing.T, s *stage) answers {
			return browsing(response("code", ""), query("id_token", newIDToken(t, s.Env, "alice", nil)))(t, s)
		}, "code_exchange", "invalid_request"),
		{
			name: "the answer by a form", section: "Form Post Response Mode 2", check: origin, status: http.StatusForbidden,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				b := newBrowser(t, s.Env)
				back := b.callback(t, "alice")
				return answer(s.Do(t, http.MethodPost, back.Path, "", back.RawQuery, "Cookie", b.cookies(t), "Content-Type", "application/x-www-form-urlencoded", "Origin", s.Issuer))
			},
		},
		{
			name: "the answer by a form of no site", section: "Form Post Response Mode 2", check: "server/middleware.go methodNotAllowed", status: http.StatusMethodNotAllowed,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				b := newBrowser(t, s.Env)
				back := b.callback(t, "alice")
				return answer(s.Do(t, http.MethodPost, back.Path, "", back.RawQuery, "Cookie", b.cookies(t), "Content-Type", "application/x-www-form-urlencoded"))
			},
		},
		{
			name: "plain PKCE", section: "RFC 7636 7.2", check: "identity/oidc/flow.go authorizeURL: S256", status: http.StatusFound, stage: on(),
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{Discovery: func(doc map[string]any) { doc["code_challenge_methods_supported"] = []string{"plain"} }})
				a := newBrowser(t, s.Env).get(t, s.URL+"/auth/login?provider=dev")
				if got := location(t, a, http.StatusFound).Query()["code_challenge_method"]; !slices.Equal(got, []string{"S256"}) {
					t.Errorf("code_challenge_method is %q", got)
				}
				return answer(a)
			},
		},

		// The token endpoint's answer.
		badToken("no ID token", "OIDC Core 3.1.3.3", spelling, browsing(tokenJSON(`{"access_token":"x","token_type":"Bearer"}`)), "not three parts"),
		badToken("an ID token that is an object", "OIDC Core 3.1.3.3", "identity/oidc/flow.go exchangeCode: a string", browsing(tokenJSON(`{"access_token":"x","token_type":"Bearer","id_token":{"sub":"alice"}}`)), "not three parts"),
		refused("no access token", "RFC 6749 5.1", "oauth2 doTokenRoundTrip: access_token", answering(`{"token_type":"Bearer","id_token":%q}`), "code_exchange", "missing access_token"),
		refused("an error with the status of success", "RFC 6749 5.2", "oauth2 doTokenRoundTrip: error", answering(`{"access_token":"x","token_type":"Bearer","id_token":%q,"error":"invalid_grant"}`), "code_exchange", "invalid_grant"),
		{
			name: "a token_type that nobody knows", section: "RFC 6749 7.1", check: "identity/oidc/flow.go exchangeCode: the access token is not used",
			run: answering(`{"access_token":"x","token_type":"evil","id_token":%q}`), status: http.StatusSeeOther,
		},

		// Tokens that were good.
		unexchanged("an ID token again", "RFC 8725 2.8", "identity/store.go spend", func(t *testing.T, s *stage) string {
			token := newIDToken(t, s.Env, "alice", nil)
			want(t, http.StatusOK, exchange(t, s.Env, token))
			return token
		}, "token_replayed", ""),
		unexchanged("a callback's ID token", "RFC 9700 4.5", "identity/store.go spend", func(t *testing.T, s *stage) string {
			var kept string
			s.lie(devidp.Lie{IDToken: func(signed string) string { kept = signed; return signed }})
			s.signIn(t)
			return kept
		}, "token_replayed", ""),
		unexchanged("an ES256 signature's twin", "RFC 7515 10.1", "identity/store.go spentIDToken", func(t *testing.T, s *stage) string {
			token := signed(newIDToken(t, s.Env, "alice", nil), `{"alg":"ES256","kid":"ec"}`, es256(ring.ec))
			want(t, http.StatusOK, exchange(t, s.Env, token))
			end := strings.LastIndexByte(token, '.') + 1
			signature, _ := base64.RawURLEncoding.DecodeString(token[end:])
			twin := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(signature[32:]))
			return token[:end] + base64.RawURLEncoding.EncodeToString(append(signature[:32:32], twin.FillBytes(make([]byte, 32))...))
		}, "token_replayed", ""),
		unexchanged("another spelling of the last letter", "RFC 7515 2", spelling, func(t *testing.T, s *stage) string {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			token := newIDToken(t, s.Env, "alice", nil)
			want(t, http.StatusOK, exchange(t, s.Env, token))
			end := len(token) - 1
			return token[:end] + string(alphabet[strings.IndexByte(alphabet, token[end])^1])
		}, "id_token", "not three parts"),
		unexchanged("a token of a sign-in that is over", "Back-Channel Logout 1.0 2.7", "identity/store.go spend: signed out", func(t *testing.T, s *stage) string {
			want(t, http.StatusOK, sendLogout(t, s.Env, logoutToken(t, s.Env, map[string]any{"sid": "over"})))
			return newIDToken(t, s.Env, "alice", map[string]any{"sid": "over"})
		}, "signed_out_at_provider", ""),
		refused("somebody who is locked", "OIDC Core 3.1.2.6", "identity/store_users.go SaveIdentity: locked", func(t *testing.T, s *stage) answers {
			s.lie(claim("sub", "locked"))
			s.signIn(t)
			s.Exec(t, `update users set locked_at = now() where id = $1`, user(t, s.Env, "locked"))
			s.before(t)
			return both(claim("sub", "locked"))(t, s)
		}, "locked_user", ""),

		// The exchange's form.
		{name: "an access token to exchange", section: "RFC 8693 2.1", check: "identity/token.go exchange: subject_token_type", status: http.StatusBadRequest, run: form("subject_token_type", "urn:ietf:params:oauth:token-type:access_token")},
		{name: "a refresh token asked for", section: "RFC 8693 2.1", check: "identity/token.go exchange: requested_token_type", status: http.StatusBadRequest, run: form("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")},
		{name: "two tokens to exchange", section: "RFC 6749 3.2", check: "identity/token.go formOf: parameters once", status: http.StatusBadRequest, run: form("subject_token", "x", "y")},
		{name: "the password grant", section: "RFC 9700 2.4", check: "identity/token.go Token: grant_type", status: http.StatusBadRequest, run: form("grant_type", "password")},
		{
			name: "an exchange by another site's page", section: "RFC 6749 10.12", check: origin, status: http.StatusForbidden,
			run: func(t *testing.T, s *stage) answers {
				a := s.Do(t, http.MethodPost, "/auth/token", "", exchangeForm(newIDToken(t, s.Env, "alice", nil)).Encode(),
					"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example")
				return answers{exchange: &a}
			},
		},

		// Keys that change.
		{
			name: "the key changes in the middle of a flow", section: "OIDC Core 10.1.1", check: "identity/oidc/keyset.go VerifySignature: an unknown key id", status: http.StatusSeeOther, stage: on(),
			run: func(t *testing.T, s *stage) answers {
				s.Provider.SetLie(devidp.Lie{})
				s.SignIn(t, "bob")
				s.before(t)
				b := newBrowser(t, s.Env)
				back := b.callback(t, "alice")
				s.Provider.RotateKey()
				return answer(b.get(t, back.String()))
			},
		},
		{
			name: "a key that was withdrawn", section: "OIDC Core 10.1.1", check: "identity/oidc/keyset.go fetch: the keys of now alone", status: http.StatusBadRequest, reason: "id_token", says: "none of the provider's keys has signed it", stage: on(),
			run: func(t *testing.T, s *stage) answers {
				s.Provider.SetLie(devidp.Lie{})
				s.SignIn(t, "bob")
				old := newIDToken(t, s.Env, "alice", nil)
				s.Provider.RotateKey()
				s.SignIn(t, "bob")
				s.before(t)
				a := exchange(t, s.Env, old)
				return answers{exchange: &a}
			},
		},
		{
			name: "twenty unknown key ids", section: "RFC 8725 3.10", check: "identity/oidc/keyset.go fetch: once in ten seconds", status: http.StatusBadRequest, reason: "id_token", says: "none of the provider's keys has signed it", stage: on(),
			run: func(t *testing.T, s *stage) answers {
				want(t, http.StatusOK, exchange(t, s.Env, newIDToken(t, s.Env, "alice", nil)))
				s.before(t)
				s.fetched.Store(0)
				var last servertest.Answer
				for i := range 20 {
					last = want(t, http.StatusBadRequest, exchange(t, s.Env, signed(newIDToken(t, s.Env, "alice", nil), fmt.Sprintf(`{"alg":"RS256","kid":"%d"}`, i), rs256(ring.stranger))))
				}
				if n := s.fetched.Load(); n > 1 {
					t.Errorf("the keys were fetched %d times", n)
				}
				return answers{exchange: &last}
			},
		},

		// Browsers and pages.
		{
			name: "a session planted before the sign-in", section: "RFC 6265 8.4", check: "identity/store.go beginSession: a new token", status: http.StatusSeeOther,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				planted := s.SignIn(t, "bob")
				s.before(t)
				b := newBrowser(t, s.Env)
				b.client.Jar.SetCookies(s.at(t), []*http.Cookie{{Name: "noted_session", Value: planted, Path: "/"}})
				a := b.get(t, b.callback(t, "alice").String())
				if b.session() == planted || s.who(t, b.session()).Subject != "alice" || s.who(t, planted).Subject != "bob" {
					t.Error("the planted session is alice's, or the new one is not")
				}
				return answer(a)
			},
		},
		returning("another host", "//evil.example"),
		returning("another host, by a backslash", `/\evil.example`),
		returning("another host, by two backslashes", `\\evil.example`),
		returning("another address", "https://evil.example/"),
		returning("another host, by a tab", "/\t/evil.example"),
		returning("another host, by an encoded slash", "/%2fevil.example"),
		returning("a header of the attacker's", "/\r\nSet-Cookie: noted_session=x"),
		returning("a script", "javascript:alert(1)"),
		{
			name: "parameters in login_hint", section: "RFC 6749 10.14", check: "identity/oidc/flow.go authorizeURL: encoded", status: http.StatusFound,
			run: func(t *testing.T, s *stage) answers {
				a := newBrowser(t, s.Env).get(t, s.URL+"/auth/login?provider=dev&login_hint="+url.QueryEscape("alice\r\nX: y&redirect_uri=https://evil.example#"))
				s.checkAuthorize(t, a, "aliceX: y&redirect_uri=https://evil.example#")
				return answer(a)
			},
		},
		{
			name: "the provider's parameters at /auth/login", section: "RFC 6749 4.1.1", check: "identity/oidc/flow.go authorizeURL: nothing is passed on", status: http.StatusFound,
			run: func(t *testing.T, s *stage) answers {
				a := newBrowser(t, s.Env).get(t, s.URL+"/auth/login?provider=dev&login_hint=alice&redirect_uri=https://evil.example&client_id=evil&scope=admin&response_type=token&response_mode=fragment"+
					"&state=x&nonce=x&code_challenge=x&code_challenge_method=plain&prompt=none&request_uri=https://evil.example&request=x&hd=x&claims=x")
				s.checkAuthorize(t, a, "alice")
				return answer(a)
			},
		},
		{
			name: "two providers at /auth/login", section: "RFC 6749 3.1", check: "identity/signin.go Login: the flow has its provider", status: http.StatusUnauthorized, reason: "state", says: "began at provider",
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				b := newBrowser(t, s.Env)
				back := b.atProvider(t, location(t, b.get(t, s.URL+"/auth/login?provider=dev&provider=other&login_hint=alice"), http.StatusFound))
				back.Path = "/auth/callback/other"
				return answer(b.get(t, back.String()))
			},
		},
		{name: "a path for a provider", section: "RFC 3986 5.2.4", check: "identity/signin.go provider", status: http.StatusNotFound, run: request(http.MethodGet, "/auth/login?provider=../other")},
		{name: "a path for a provider, at the callback", section: "RFC 3986 5.2.4", check: "identity/signin.go provider", status: http.StatusNotFound, run: request(http.MethodGet, "/auth/callback/..%2fdev?code=x&state=x")},
		{name: "another site begins a sign-in by a form", section: "RFC 9700 4.7", check: origin, status: http.StatusForbidden, run: request(http.MethodPost, "/auth/login?provider=dev", "Sec-Fetch-Site", "cross-site")},
		{
			name: "another site signs out", section: "RP-Initiated Logout 1.0 2", check: origin, status: http.StatusForbidden,
			run: func(t *testing.T, s *stage) answers {
				s.lie(devidp.Lie{})
				session := s.SignIn(t, "alice")
				s.before(t)
				a := s.Do(t, http.MethodPost, "/auth/logout", "", nil, "Cookie", "noted_session="+session, "Sec-Fetch-Site", "cross-site")
				if !lives(t, s.Env, session) {
					t.Error("the session ended")
				}
				return answer(a)
			},
		},
		{name: "a picture signs out", section: "RFC 9110 9.2.1", check: "server/middleware.go methodNotAllowed", status: http.StatusMethodNotAllowed, run: request(http.MethodGet, "/auth/logout")},

		// Linking.
		{
			name: "the attacker's link ends in the victim's browser", section: "RFC 9700 4.7", check: "identity/link.go prepareLink: the session that began", status: http.StatusUnauthorized, reason: "state", says: "has not the session that began to link", stage: twoProviders,
			run: func(t *testing.T, s *stage) answers {
				attacker, victim := newBrowser(t, s.Env), newBrowser(t, s.Env)
				attacker.at(t, "dev", "alice")
				victim.at(t, "dev", "bob")
				s.before(t)
				return answer(victim.get(t, victim.comeBack(t, startLink(t, s.Env, attacker.session(), "corp"), "c-bob")))
			},
		},
		{
			name: "somebody else confirms a link", section: "RFC 6749 10.12", check: "identity/store_links.go makeLink: the session that began", status: http.StatusConflict, stage: twoProviders,
			run: linking(func(t *testing.T, s *stage, _, other, code string) servertest.Answer {
				return confirmLink(t, s.Env, other, code)
			}),
		},
		{
			name: "another site confirms a link", section: "RFC 6749 10.12", check: origin, status: http.StatusForbidden, stage: twoProviders,
			run: linking(func(t *testing.T, s *stage, mine, _, code string) servertest.Answer {
				return s.Do(t, http.MethodPost, "/auth/link/confirm", "", "code="+code, "Cookie", "noted_session="+mine, "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example")
			}),
		},
		{
			name: "a picture confirms a link", section: "RFC 9110 9.2.1", check: "server/middleware.go methodNotAllowed", status: http.StatusMethodNotAllowed, stage: twoProviders,
			run: linking(func(t *testing.T, s *stage, mine, _, code string) servertest.Answer {
				return s.Do(t, http.MethodGet, "/auth/link/confirm?code="+code, "", nil, "Cookie", "noted_session="+mine)
			}),
		},
		{
			name: "a wrong code confirms a link", section: "RFC 6749 10.12", check: "identity/store_links.go makeLink: the code of the page", status: http.StatusConflict, stage: twoProviders,
			run: linking(func(t *testing.T, s *stage, mine, _, code string) servertest.Answer {
				return confirmLink(t, s.Env, mine, another(code))
			}),
		},

		// What discovery says.
		discovering("another issuer", "OIDC Discovery 4.3", "go-oidc NewProvider: issuer", "issuer", "https://evil.example", "did not match the issuer"),
		discovering("an authorization_endpoint that is a script", "OIDC Discovery 3", endpoint, "authorization_endpoint", "javascript://idp.example/%0aalert(1)", "is no https address"),
		discovering("a token_endpoint with a user name", "RFC 3986 7.5", endpoint+": a user name", "token_endpoint", "http://a:b@127.0.0.1:1/token", "is no https address"),
		discovering("a token_endpoint nowhere", "OIDC Discovery 3", endpoint+": a host", "token_endpoint", "https:///token", "token_endpoint"),
		discovering("a jwks_uri that is a file", "OIDC Discovery 3", endpoint, "jwks_uri", "file://localhost/etc/passwd", "is no https address"),
		overHTTPS("token_endpoint", "http://idp.example/token"),
		overHTTPS("jwks_uri", "http://idp.example/jwks"),
		overHTTPS("authorization_endpoint", "http://idp.example/authorize"),
		overHTTPS("end_session_endpoint", "http://idp.example/end_session"),
		overHTTPS("end_session_endpoint", "javascript://idp.example/%0aalert(1)"),
		{
			name: "none is the only algorithm", section: "OIDC Discovery 3", check: "go-oidc NewProvider: supportedAlgorithms", status: http.StatusUnauthorized, reason: "id_token", says: "unexpected signature algorithm", stage: on(),
			run: both(devidp.Lie{
				Discovery: func(doc map[string]any) { doc["id_token_signing_alg_values_supported"] = []string{"none"} },
				IDToken:   func(honest string) string { return signed(honest, `{"alg":"none"}`, nil) },
			}),
		},
		{
			name: "another issuer an hour later", section: "OIDC Discovery 4.3", check: "identity/oidc/discovery.go discover: what was found before stands", status: http.StatusSeeOther, stage: on(),
			run: func(t *testing.T, s *stage) answers {
				s.signIn(t)
				s.before(t)
				asked := 0
				s.lie(devidp.Lie{Discovery: func(doc map[string]any) {
					asked++
					doc["issuer"], doc["token_endpoint"], doc["jwks_uri"] = "https://evil.example", s.trap.URL+"/token", s.trap.URL+"/jwks"
				}})
				// It is an hour later while somebody is sent there; a token of today would have expired then.
				s.later.Store(int64(time.Hour + time.Minute))
				want(t, http.StatusFound, s.Do(t, http.MethodGet, "/auth/login?provider=dev", "", nil))
				s.later.Store(0)
				a, session := s.signIn(t)
				if me := s.who(t, session); me.Subject != "alice" || asked == 0 || !strings.Contains(s.Log.String(), "what was found before stands") {
					t.Errorf("signed in as %+v, after discovery was asked %d times", me, asked)
				}
				return answer(a)
			},
		},
		{
			name: "a set of no keys", section: "RFC 7517 5", check: signature, status: http.StatusUnauthorized, reason: "id_token", says: "none of the provider's keys has signed it", stage: on(),
			run: both(takeOver("jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) })),
		},
	}
	return append(rows, brokenEndpoints()...)
}

// brokenEndpoints are bad answers, at each endpoint that noted asks.
func brokenEndpoints() (rows []attack) {
	const noRedirect, noBody, headers = "identity/oidc/discovery.go httpClient: redirects", "identity/oidc/discovery.go Read", "identity/oidc/discovery.go httpClient: headers"
	type stop struct{ section, check, says string } // as attack has it
	for _, c := range []struct {
		name                   string
		answer                 func(*stage, http.ResponseWriter, *http.Request)
		discovery, jwks, token stop
	}{
		{"a redirect", func(s *stage, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.trap.URL, http.StatusTemporaryRedirect)
		}, stop{"OIDC Discovery 4.2", noRedirect, "307 Temporary Redirect"}, stop{"RFC 7517 5", noRedirect, "307 Temporary Redirect"}, stop{"RFC 9700 4.12", noRedirect, "307 Temporary Redirect"}},
		{"a redirect to a GET", func(s *stage, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.trap.URL, http.StatusSeeOther)
		}, stop{"OIDC Discovery 4.2", noRedirect, "303 See Other"}, stop{"RFC 7517 5", noRedirect, "303 See Other"}, stop{"RFC 9700 4.12", noRedirect, "303 See Other"}},
		{"over 1 MiB", func(_ *stage, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"issuer":"` + strings.Repeat("x", 1<<20) + `"}`))
		}, stop{"RFC 8259 9", noBody, "larger than 1 MiB"}, stop{"RFC 8259 9", noBody, "larger than 1 MiB"}, stop{"RFC 8259 9", "oauth2 doTokenRoundTrip: length", "cannot parse json"}},
		{"endless headers", func(_ *stage, w http.ResponseWriter, _ *http.Request) {
			connection, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer connection.Close()
			_, err = connection.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for err == nil {
				_, err = connection.Write([]byte("X: " + strings.Repeat("x", 4000) + "\r\n"))
			}
		}, stop{"RFC 9110 5.4", headers, "headers exceeded 65536 bytes"}, stop{"RFC 9110 5.4", headers, "headers exceeded 65536 bytes"}, stop{"RFC 9110 5.4", headers, "headers exceeded 65536 bytes"}},
		{"half an answer", func(s *stage, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(s.jwks[:500])
		}, stop{"RFC 9112 8", "go-oidc NewProvider: the whole body", "unexpected EOF"}, stop{"RFC 9112 8", "identity/oidc/keyset.go fetchKeys: the whole body", "unexpected EOF"}, stop{"RFC 9112 8", "oauth2 doTokenRoundTrip: the whole body", "unexpected EOF"}},
		{"broken JSON", func(_ *stage, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"keys":[{"kty":"RSA"`))
		}, stop{"OIDC Discovery 4.2", "go-oidc NewProvider: JSON", "failed to decode provider discovery object"}, stop{"RFC 7517 5", "identity/oidc/keyset.go readKeys: JSON", "reading the keys"}, stop{"RFC 6749 5.1", "oauth2 doTokenRoundTrip: JSON", "cannot parse json"}},
		{"a page", func(_ *stage, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<script>alert(1)</script>`))
		}, stop{"OIDC Discovery 4.2", "go-oidc NewProvider: JSON", "failed to decode provider discovery object"}, stop{"RFC 7517 5", "identity/oidc/keyset.go readKeys: JSON", "reading the keys"}, stop{"RFC 6749 5.1", "oauth2 doTokenRoundTrip: JSON", "cannot parse json"}},
		{"500", func(s *stage, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(s.jwks)
		}, stop{"OIDC Discovery 4.2", "go-oidc NewProvider: status", "500 Internal Server Error"}, stop{"RFC 9110 15.6", "identity/oidc/keyset.go fetchKeys: status", "500 Internal Server Error"}, stop{"RFC 6749 5.2", "oauth2 doTokenRoundTrip: status", "500 Internal Server Error"}},
		{"nothing for too long", func(_ *stage, _ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, stop{}, stop{}, stop{"RFC 9112 9.5", "identity/oidc/discovery.go httpClient: time", "exceeded"}},
	} {
		at := func(s *stage) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { c.answer(s, w, r) }
		}
		if c.discovery.check != "" {
			rows = append(rows, attack{
				name: "discovery is " + c.name, section: c.discovery.section, check: c.discovery.check, says: c.discovery.says, status: http.StatusServiceUnavailable, reason: "provider_error", stage: on(),
				run: func(t *testing.T, s *stage) answers {
					s.lie(takeOver("discovery", at(s)))
					return s.undiscovered(t, newIDToken(t, s.Env, "alice", nil))
				},
			})
		}
		if c.jwks.check != "" {
			rows = append(rows, attack{
				name: "the keys are " + c.name, section: c.jwks.section, check: c.jwks.check, says: c.jwks.says, status: http.StatusUnauthorized, reason: "id_token", stage: on(),
				run: func(t *testing.T, s *stage) answers { return browsing(takeOver("jwks", at(s)))(t, s) },
			})
		}
		rows = append(rows, attack{
			name: "the token endpoint's answer is " + c.name, section: c.token.section, check: c.token.check, says: c.token.says, status: http.StatusUnauthorized, reason: "code_exchange", stage: on(),
			run: func(t *testing.T, s *stage) answers { return browsing(atToken(at(s)))(t, s) },
		})
	}
	return rows
}

// leftHalf is how an RS256 ID token names another token (OIDC Core 3.1.3.6).
func leftHalf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// changed is both with claims changed by the function.
func changed(change func(claims map[string]any)) func(*testing.T, *stage) answers {
	return both(devidp.Lie{Claims: change})
}

// takeOver answers at one endpoint instead of the provider.
func takeOver(at string, answer http.HandlerFunc) devidp.Lie {
	return devidp.Lie{Handler: func(endpoint string, w http.ResponseWriter, r *http.Request) bool {
		if endpoint == at {
			answer(w, r)
		}
		return endpoint == at
	}}
}

// query sets one parameter of the way back; empty removes it.
func query(name, value string) func(*url.URL) {
	return func(u *url.URL) {
		v := u.Query()
		v.Del(name)
		if value != "" {
			v.Set(name, value)
		}
		u.RawQuery = v.Encode()
	}
}

// answering is a sign-in whose token endpoint answers with this text around a good ID token.
func answering(format string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(devidp.Lie{})
		b := newBrowser(t, s.Env)
		authorize := b.begin(t, "alice")
		back := b.atProvider(t, authorize)
		s.lie(tokenJSON(fmt.Sprintf(format, newIDToken(t, s.Env, "alice", map[string]any{"nonce": authorize.Query().Get("nonce")}))))
		return answer(b.get(t, back.String()))
	}
}

// returnTo is a good sign-in that must end at the front page.
func returnTo(raw string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(devidp.Lie{})
		b := newBrowser(t, s.Env)
		authorize := location(t, b.get(t, s.URL+"/auth/login?provider=dev&login_hint=alice&return_to="+url.QueryEscape(raw)), http.StatusFound)
		a := b.get(t, b.atProvider(t, authorize).String())
		if to := a.Header.Values("Location"); !slices.Equal(to, []string{"/"}) || slices.Contains(a.Header.Values("Set-Cookie"), "noted_session=x") {
			t.Errorf("sent to %q", to)
		}
		return answer(a)
	}
}

// form is an exchange of a good token with one parameter changed.
func form(name string, values ...string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		s.lie(devidp.Lie{})
		all := exchangeForm(newIDToken(t, s.Env, "alice", nil))
		all[name] = values
		a := postForm(t, s.Env, "/auth/token", all)
		return answers{exchange: &a}
	}
}

// request is one without a credential.
func request(method, path string, headers ...string) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		return answer(s.Do(t, method, path, "", nil, headers...))
	}
}

// discovering is a discovery document with one member changed.
func discovering(name, section, check, member, value, says string) attack {
	return attack{
		name: "discovery has " + name, section: section, check: check, status: http.StatusServiceUnavailable, reason: "provider_error", says: says, stage: on(),
		run: func(t *testing.T, s *stage) answers {
			s.lie(devidp.Lie{Discovery: func(doc map[string]any) { doc[member] = value }})
			return s.undiscovered(t, newIDToken(t, s.Env, "alice", nil))
		},
	}
}

// overHTTPS is discovering with an issuer that has https.
func overHTTPS(member, value string) attack {
	row := discovering(member+" "+value+", of an https issuer", "OIDC Discovery 3", "identity/oidc/discovery.go checkEndpoint: https", member, value, member)
	row.stage = func(t *testing.T) *stage {
		t.Helper()
		s := &stage{google: newGoogle(t, nil)}
		s.setTrap(t)
		s.Env = s.google.Env
		return s
	}
	row.run = func(t *testing.T, s *stage) answers {
		s.google.idp.SetLie(devidp.Lie{Discovery: func(doc map[string]any) { doc[member] = value }})
		login, exchanged := s.Do(t, http.MethodGet, "/auth/login", "", nil), s.google.exchange(t, nil)
		return answers{&login, &exchanged}
	}
	return row
}

// twoProviders is a stage of newTwoProviders.
func twoProviders(t *testing.T) *stage {
	t.Helper()
	s := &stage{Env: newTwoProviders(t)}
	s.setTrap(t)
	return s
}

// linking takes a link of alice's up to the page that asks, and then somebody does something with
// the page's code. Bob's session is there too.
func linking(confirm func(t *testing.T, s *stage, mine, other, code string) servertest.Answer) func(*testing.T, *stage) answers {
	return func(t *testing.T, s *stage) answers {
		t.Helper()
		b, other := newBrowser(t, s.Env), s.SignIn(t, "bob")
		b.at(t, "dev", "alice")
		_, code := b.asked(t, b.comeBack(t, startLink(t, s.Env, b.session(), "corp"), "c-alice"))
		s.before(t)
		return answer(confirm(t, s, b.session(), other, code))
	}
}

func (s *stage) undiscovered(t *testing.T, token string) answers {
	t.Helper()
	login, exchanged := s.Do(t, http.MethodGet, "/auth/login?provider=dev", "", nil), exchange(t, s.Env, token)
	return answers{&login, &exchanged}
}

// signIn signs alice in, in a browser of her own.
func (s *stage) signIn(t *testing.T) (a servertest.Answer, session string) {
	t.Helper()
	b := newBrowser(t, s.Env)
	a = want(t, http.StatusSeeOther, b.get(t, b.callback(t, "alice").String()))
	return a, b.session()
}

// person is a session's user, and the subject of its sign-in.
type person struct{ Name, Email, Subject string }

func (s *stage) who(t *testing.T, session string) (p person) {
	t.Helper()
	want(t, http.StatusOK, s.Do(t, http.MethodGet, "/v1/me", session, nil)).JSON(t, &p)
	hash, _ := identity.Token(session).Hash()
	if err := s.Pool.QueryRow(t.Context(), `select i.subject from sessions s join identities i on i.id = s.identity_id where s.token_hash = $1`, hash).Scan(&p.Subject); err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *stage) at(t *testing.T) *url.URL {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// cookies are the browser's cookies, as a header.
func (b *browser) cookies(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(b.env.URL)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, cookie := range b.client.Jar.Cookies(u) {
		all = append(all, cookie.Name+"="+cookie.Value)
	}
	return strings.Join(all, "; ")
}

// checkAuthorize compares the address at the provider with what noted itself asks for.
func (s *stage) checkAuthorize(t *testing.T, a servertest.Answer, loginHint string) {
	t.Helper()
	to := location(t, a, http.StatusFound)
	got := to.Query()
	for name, value := range map[string]string{
		"response_type": "code", "client_id": "noted", "redirect_uri": s.URL + "/auth/callback/dev", "scope": "openid email profile",
		"code_challenge_method": "S256", "login_hint": loginHint,
	} {
		if !slices.Equal(got[name], []string{value}) {
			t.Errorf("%s is %q", name, got[name])
		}
		got.Del(name)
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(got[name]) != 1 || len(got.Get(name)) != 43 {
			t.Errorf("%s is %q", name, got[name])
		}
		got.Del(name)
	}
	if len(got) != 0 || to.Fragment != "" || !strings.HasPrefix(to.String(), s.Issuer+"/authorize?") {
		t.Errorf("sent to %s", to)
	}
}

func TestHostile(t *testing.T) {
	rows := attacks()
	checkCatalogue(t, rows)
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		for _, row := range rows {
			if row.stage == nil {
				t.Run(row.name, func(t *testing.T) { row.try(t, s) })
			}
		}
		for _, secret := range []string{"eyJ", "nsess_", "for this test"} {
			if strings.Contains(s.Log.String(), secret) {
				t.Errorf("the log has %q in it", secret)
			}
		}
	})
	for _, row := range rows {
		if row.stage != nil {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				row.try(t, row.stage(t))
			})
		}
	}
}

func (row attack) try(t *testing.T, s *stage) {
	s.before(t)
	got := row.run(t, s)
	begun := 0
	if a := got.browser; a != nil {
		row.checkBrowser(t, s, *a)
		begun++
	}
	if a := got.exchange; a != nil {
		row.checkExchange(t, s, *a, got.browser == nil)
		begun++
	}
	if !row.signsIn() {
		begun = 0
		if n := number(t, s.Env, `select count(*) from users`); n != s.users {
			t.Errorf("%d users, there were %d", n, s.users)
		}
		if n := identities(t, s.Env); n != s.identities {
			t.Errorf("%d identities, there were %d", n, s.identities)
		}
	}
	if n := number(t, s.Env, `select count(*) from sessions`); n != s.sessions+begun {
		t.Errorf("%d sessions, there were %d, and %d should have begun", n, s.sessions, begun)
	}
	if n := int(s.trapped.Load()) - s.wasTrapped; n != 0 {
		t.Errorf("%d requests came to the attacker", n)
	}
}

func (row attack) signsIn() bool {
	return row.status == http.StatusSeeOther || row.status == http.StatusOK
}

func (row attack) checkBrowser(t *testing.T, s *stage, a servertest.Answer) {
	t.Helper()
	log := logOf(s.Env, a)
	if a.Status != row.status {
		t.Fatalf("want %d, got %d %s\n%s", row.status, a.Status, a.Body, log)
	}
	reason := row.reason
	switch row.status {
	case http.StatusUnauthorized:
		if strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
			if text := string(a.Body); !strings.Contains(text, "Authentication failed") || strings.Contains(text, reason) {
				t.Errorf("the page is %s", text)
			}
		} else {
			checkRefused(t, row.name, a)
		}
	case http.StatusServiceUnavailable: // sent to no provider, so nothing has failed yet
		reason = ""
		if !strings.Contains(log, `msg="provider unreachable"`) {
			t.Errorf("logged %s", log)
		}
	}
	checkLog(t, log, reason, row.says)
	for _, cookie := range (&http.Response{Header: a.Header}).Cookies() {
		if cookie.MaxAge >= 0 && !row.signsIn() && (cookie.Name == "noted_session" || row.status != http.StatusFound) {
			t.Errorf("sets %v", cookie)
		}
	}
}

func (row attack) checkExchange(t *testing.T, s *stage, a servertest.Answer, alone bool) {
	t.Helper()
	status, says := row.status, row.says
	if !alone {
		says = ""
		if status = http.StatusBadRequest; row.signsIn() {
			status = http.StatusOK
		}
	}
	log := logOf(s.Env, a)
	if a.Status != status {
		t.Fatalf("exchanged: want %d, got %d %s\n%s", status, a.Status, a.Body, log)
	}
	if row.reason != "" {
		checkNotExchanged(t, s.Env, row.name, row.reason, a)
	}
	checkLog(t, log, row.reason, says)
	if cookies := a.Header.Values("Set-Cookie"); len(cookies) > 0 {
		t.Errorf("exchanged: sets %q", cookies)
	}
}

func checkLog(t *testing.T, log, reason, says string) {
	t.Helper()
	failures := strings.Count(log, `msg="authentication failed"`)
	if reason == "" && failures != 0 || reason != "" && (failures != 1 || !strings.Contains(log, "reason="+reason+" ")) || !strings.Contains(log, says) {
		t.Errorf("want the reason %q and %q, logged %s", reason, says, log)
	}
}

// checkCatalogue checks the table's form: what it names must exist.
func checkCatalogue(t *testing.T, rows []attack) {
	t.Helper()
	if len(rows) < 60 {
		t.Errorf("%d rows", len(rows))
	}
	names := map[string]bool{}
	for _, row := range rows {
		if row.section == "" || row.check == "" || row.name == "" || names[row.name] {
			t.Errorf("%q: of section %q, stopped by %q; or there twice", row.name, row.section, row.check)
		}
		names[row.name] = true
		where, _, _ := strings.Cut(row.check, ":")
		file, function, _ := strings.Cut(where, " ")
		if !strings.HasSuffix(file, ".go") {
			continue // a library's
		}
		text, err := os.ReadFile("../" + file)
		if err != nil || !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+regexp.QuoteMeta(function)+`\(`).Match(text) {
			t.Errorf("%s: there is no %s in %s (%v)", row.name, function, file, err)
		}
	}
}

// Discovery is repeated after an hour, by one caller. A provider that hangs then holds up nobody
// else.
func TestAProviderThatHangsAtRediscoveryHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	want(t, http.StatusFound, s.Do(t, http.MethodGet, "/auth/login?provider=dev", "", nil))
	asked, release := make(chan struct{}), make(chan struct{})
	s.lie(devidp.Lie{Handler: func(endpoint string, _ http.ResponseWriter, r *http.Request) bool {
		if endpoint == "discovery" {
			close(asked) // a second time would panic
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	}})
	s.later.Store(int64(2 * time.Hour))
	first := make(chan int)
	go func() {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		response, err := client.Get(s.URL + "/auth/login?provider=dev")
		if err != nil {
			first <- 0
			return
		}
		_ = response.Body.Close()
		first <- response.StatusCode
	}()
	<-asked
	for range 3 {
		want(t, http.StatusFound, s.Do(t, http.MethodGet, "/auth/login?provider=dev", "", nil))
	}
	close(release)
	if status := <-first; status != http.StatusFound {
		t.Errorf("who asked anew got %d", status)
	}
}
