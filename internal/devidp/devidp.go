package devidp

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	codeLifetime    = time.Minute
	maxCodes        = 10_000
	idTokenLifetime = 10 * time.Minute
	maxForm         = 64 << 10 // bytes of a POST body
)

// scopes are the known ones, as discovery lists them. Others are ignored (RFC 6749, 3.3).
var scopes = []string{"openid", "profile", "email"}

//go:embed page.html
var pageHTML string

// Person is somebody who can sign in.
type Person struct {
	Subject, Name, Email string
	EmailVerified        bool
	Groups               []string
}

// Config describes the provider and the one client that it serves.
type Config struct {
	Issuer                 string // an http or https URL with no trailing slash; a path is allowed
	ClientID, ClientSecret string
	RedirectURIs           []string // compared exactly
	PostLogoutRedirectURIs []string // compared exactly
	People                 []Person
	Now                    func() time.Time // nil: time.Now
	Key                    *rsa.PrivateKey  // of 2048 bits, the first signing key; nil: a new one
}

// Lie makes the provider misbehave, for hostile tests. The zero Lie is honest. Requests may call the functions
// concurrently.
type Lie struct {
	// Claims changes the ID token's claims before they are signed. Times are int64, in seconds; aud is a string;
	// groups is a []string.
	Claims func(claims map[string]any)
	// IDToken replaces the signed token.
	IDToken func(signed string) string
	// Discovery changes the discovery document.
	Discovery func(doc map[string]any)
	// Response changes the parameters of the redirect back to the client, of errors too: code, error, state, iss.
	Response func(v url.Values)
	// Handler takes over an endpoint and reports whether it did. The endpoint is discovery, jwks, authorize, token
	// or end_session. It may return false only if it has neither written nor read the body.
	Handler func(endpoint string, w http.ResponseWriter, r *http.Request) (handled bool)
}

// Provider is an http.Handler that serves everything below the issuer.
type Provider struct {
	config   Config
	basePath string // of the issuer
	page     *template.Template

	mu     sync.Mutex // guards all below
	key    jose.JSONWebKey
	lie    Lie
	grants map[string]grant // by code, not yet redeemed
	codes  []string         // oldest first; a redeemed one stays until it is the first
}

// grant is what a code stands for. It names no client, since there is only one.
type grant struct {
	person      Person
	redirectURI string
	challenge   string
	nonce       string
	scope       []string // those requested that the provider knows
	sid         string
	signedIn    time.Time
}

// New returns an honest provider with a fresh signing key. It returns an error for a configuration that could not
// work, or that would let anybody in as the client.
func New(c Config) (*Provider, error) {
	issuer, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("devidp: issuer: %w", err)
	}
	// OpenID Connect Discovery 1.0, section 3: no query, no fragment.
	if issuer.Scheme != "http" && issuer.Scheme != "https" || issuer.Host == "" || issuer.User != nil ||
		strings.ContainsAny(c.Issuer, "?#") || strings.HasSuffix(c.Issuer, "/") {
		return nil, fmt.Errorf("devidp: issuer %q is not an http or https URL without query, fragment and trailing slash", c.Issuer)
	}
	if c.ClientID == "" || c.ClientSecret == "" {
		return nil, errors.New("devidp: the client needs an id and a secret")
	}
	for _, uri := range slices.Concat(c.RedirectURIs, c.PostLogoutRedirectURIs) {
		if u, err := url.Parse(uri); err != nil || !u.IsAbs() || strings.Contains(uri, "#") {
			return nil, fmt.Errorf("devidp: redirect URI %q is not an absolute URL without fragment", uri)
		}
	}
	seen := map[string]bool{}
	for _, person := range c.People {
		if person.Subject == "" || seen[person.Subject] {
			return nil, fmt.Errorf("devidp: subject %q is empty or another person's", person.Subject)
		}
		seen[person.Subject] = true
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.RedirectURIs = slices.Clone(c.RedirectURIs)
	c.PostLogoutRedirectURIs = slices.Clone(c.PostLogoutRedirectURIs)
	c.People = slices.Clone(c.People)

	page, err := template.New("").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("devidp: page: %w", err)
	}
	return &Provider{
		config:   c,
		basePath: issuer.Path,
		page:     page,
		key:      asJWK(c.Key),
		grants:   map[string]grant{},
	}, nil
}

// RotateKey makes a new signing key. The old one leaves the JWKS at once, so that a client that refetches it no
// longer accepts its tokens.
func (p *Provider) RotateKey() {
	key := asJWK(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = key
}

// SetLie sets how the provider lies from the next request on. It is safe for concurrent use.
func (p *Provider) SetLie(lie Lie) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lie = lie
}

// SignIDToken signs the unchanged claims with the current key, RS256 with its kid. It returns an error only for
// claims that JSON cannot hold.
func (p *Provider) SignIDToken(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("devidp: claims: %w", err)
	}
	p.mu.Lock()
	key := p.key
	p.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("devidp: signer: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("devidp: sign: %w", err)
	}
	return signed.CompactSerialize()
}

// ServeHTTP serves the endpoints below the issuer's path; all else is 404.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, below := strings.CutPrefix(r.URL.Path, p.basePath)
	if !below {
		http.NotFound(w, r)
		return
	}
	var endpoint string
	var handler http.HandlerFunc
	methods := []string{http.MethodGet, http.MethodPost}
	switch path {
	case "/.well-known/openid-configuration":
		endpoint, handler, methods = "discovery", p.discovery, []string{http.MethodGet, http.MethodHead}
	case "/jwks":
		endpoint, handler, methods = "jwks", p.jwks, []string{http.MethodGet, http.MethodHead}
	case "/authorize":
		endpoint, handler = "authorize", p.authorize
	case "/token":
		endpoint, handler, methods = "token", p.token, []string{http.MethodPost}
	case "/end_session":
		endpoint, handler = "end_session", p.endSession
	default:
		http.NotFound(w, r)
		return
	}
	if take := p.currentLie().Handler; take != nil && take(endpoint, w, r) {
		return
	}
	if !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	// Answers contain codes and tokens, or depend on the current key and lie.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // the page's own URL has state and nonce
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	handler(w, r)
}

// discovery serves OpenID Connect Discovery 1.0, section 3.
func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	doc := map[string]any{
		"issuer":                                p.config.Issuer,
		"authorization_endpoint":                p.config.Issuer + "/authorize",
		"token_endpoint":                        p.config.Issuer + "/token",
		"jwks_uri":                              p.config.Issuer + "/jwks",
		"end_session_endpoint":                  p.config.Issuer + "/end_session",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{"authorization_code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{string(jose.RS256)},
		"code_challenge_methods_supported":      []string{"S256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"scopes_supported":                      slices.Clone(scopes),
		"claims_supported": []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid",
			"at_hash", "c_hash", "name", "email", "email_verified", "groups"},
		"request_uri_parameter_supported":                false, // the default would be true
		"authorization_response_iss_parameter_supported": true,
	}
	if lie := p.currentLie().Discovery; lie != nil {
		lie(doc)
	}
	writeJSON(w, http.StatusOK, doc)
}

func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	key := p.key.Public()
	p.mu.Unlock()
	writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
}

// authorize is the authorization endpoint (Core 3.1.2). It shows the page, or redirects back.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.writeMessage(w, http.StatusBadRequest, "Bad request", "The parameters cannot be read.")
		return
	}
	v := r.Form
	if r.Method == http.MethodPost {
		v = r.PostForm
	}

	// Never redirect to a URI that this client has not registered, not even with errors (RFC 6749, 4.1.2.1).
	if len(v["client_id"]) != 1 || v.Get("client_id") != p.config.ClientID {
		p.writeMessage(w, http.StatusBadRequest, "Unknown client", "No client of this client_id is registered here.")
		return
	}
	redirectURI := v.Get("redirect_uri")
	if len(v["redirect_uri"]) != 1 || !slices.Contains(p.config.RedirectURIs, redirectURI) {
		p.writeMessage(w, http.StatusBadRequest, "Unknown redirect URI", "The redirect_uri is not one that the client has registered.")
		return
	}
	person, refusal := p.whoSignsIn(r.Method, v)
	if refusal != nil {
		answer := url.Values{"error": {refusal.Code}, "error_description": {refusal.Description}}
		p.redirectBack(w, r, redirectURI, v, answer)
		return
	}
	if person == nil {
		p.writeChoice(w, v)
		return
	}
	code := p.issue(grant{
		person:      *person,
		redirectURI: redirectURI,
		challenge:   v.Get("code_challenge"),
		nonce:       v.Get("nonce"),
		scope:       knownScopes(v.Get("scope")),
		sid:         rand.Text(),
		signedIn:    p.config.Now(),
	})
	p.redirectBack(w, r, redirectURI, v, url.Values{"code": {code}})
}

// refusal is an OAuth error (RFC 6749, 4.1.2.1 and 5.2).
type refusal struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// whoSignsIn checks the request of a known client, and finds the person it names. It returns nil and nil if
// somebody has to choose.
func (p *Provider) whoSignsIn(method string, v url.Values) (*Person, *refusal) {
	prompts := strings.Fields(v.Get("prompt"))
	silent := slices.Contains(prompts, "none")
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(v.Get("code_challenge"))
	switch {
	case repeated(v): // RFC 6749, 3.1
		return nil, &refusal{"invalid_request", "a parameter is there more than once"}
	case v.Get("request") != "":
		return nil, &refusal{"request_not_supported", "request objects are not supported"}
	case v.Get("request_uri") != "":
		return nil, &refusal{"request_uri_not_supported", "request objects are not supported"}
	case v.Get("response_type") == "":
		return nil, &refusal{"invalid_request", "response_type is missing"}
	case v.Get("response_type") != "code":
		return nil, &refusal{"unsupported_response_type", "response_type must be code"}
	case v.Get("response_mode") != "" && v.Get("response_mode") != "query":
		return nil, &refusal{"invalid_request", "response_mode must be query"}
	case !slices.Contains(strings.Fields(v.Get("scope")), "openid"):
		return nil, &refusal{"invalid_scope", "scope must contain openid"}
	case v.Get("code_challenge") == "":
		return nil, &refusal{"invalid_request", "code_challenge is missing"}
	case v.Get("code_challenge_method") != "S256": // the default is plain (RFC 7636, 4.3)
		return nil, &refusal{"invalid_request", "code_challenge_method must be S256"}
	case err != nil || len(challenge) != sha256.Size:
		return nil, &refusal{"invalid_request", "code_challenge is not a SHA-256 in base64url"}
	case silent && len(prompts) > 1: // Core 3.1.2.1
		return nil, &refusal{"invalid_request", "prompt=none stands alone"}
	}

	if chosen := v.Get("person"); method == http.MethodPost && chosen != "" {
		for i := range p.config.People {
			if p.config.People[i].Subject == chosen {
				return &p.config.People[i], nil
			}
		}
		return nil, &refusal{"access_denied", "there is no such person"}
	}
	if person := p.hinted(v.Get("login_hint")); person != nil {
		return person, nil
	}
	if silent {
		return nil, &refusal{"login_required", "somebody has to choose who signs in"}
	}
	return nil, nil
}

// hinted finds the person with that subject, else the first with that e-mail address, else nil.
func (p *Provider) hinted(hint string) *Person {
	if hint == "" {
		return nil // not a person without e-mail
	}
	for i := range p.config.People {
		if p.config.People[i].Subject == hint {
			return &p.config.People[i]
		}
	}
	for i := range p.config.People {
		if strings.EqualFold(p.config.People[i].Email, hint) {
			return &p.config.People[i]
		}
	}
	return nil
}

// redirectBack answers the client's request with a redirect to its own redirectURI.
func (p *Provider) redirectBack(w http.ResponseWriter, r *http.Request, redirectURI string, request, answer url.Values) {
	if state := request.Get("state"); state != "" {
		answer.Set("state", state)
	}
	answer.Set("iss", p.config.Issuer) // RFC 9207, 2: in errors too
	if lie := p.currentLie().Response; lie != nil {
		lie(answer)
	}
	// 303, not 307: the browser must not repost the form to the client (RFC 9700, 4.12).
	http.Redirect(w, r, withQuery(redirectURI, answer), http.StatusSeeOther) //nolint:gosec,forbidigo // redirectURI is one of the client's own
}

// issue stores a grant under a new code.
func (p *Provider) issue(g grant) string {
	code := randomCode()
	p.mu.Lock()
	defer p.mu.Unlock()
	// All codes live equally long, so the oldest go first, both for age and for number.
	for len(p.codes) > 0 {
		oldest, there := p.grants[p.codes[0]]
		if there && len(p.codes) < maxCodes && g.signedIn.Before(oldest.signedIn.Add(codeLifetime)) {
			break
		}
		delete(p.grants, p.codes[0])
		p.codes = p.codes[1:]
	}
	p.grants[code] = g
	p.codes = append(p.codes, code)
	return code
}

// redeem returns the grant of a code, and false if there is none or it has expired. The code is used up, whatever
// becomes of the request (RFC 6749, 4.1.2).
func (p *Provider) redeem(code string) (grant, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.grants[code]
	delete(p.grants, code)
	return g, ok && p.config.Now().Before(g.signedIn.Add(codeLifetime))
}

// token is the token endpoint (RFC 6749, 4.1.3; Core 3.1.3).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Pragma", "no-cache") // RFC 6749, 5.1
	if err := r.ParseForm(); err != nil || repeated(r.PostForm) {
		writeJSON(w, http.StatusBadRequest, refusal{"invalid_request", "the form cannot be read, or has a parameter more than once"})
		return
	}
	v := r.PostForm
	if refused := p.authenticate(r); refused != nil {
		status := http.StatusBadRequest
		if refused.Code == "invalid_client" {
			status = http.StatusUnauthorized
			w.Header().Set("WWW-Authenticate", `Basic realm="devidp"`)
		}
		writeJSON(w, status, refused)
		return
	}
	switch v.Get("grant_type") {
	case "authorization_code":
	case "":
		writeJSON(w, http.StatusBadRequest, refusal{"invalid_request", "grant_type is missing"})
		return
	default:
		writeJSON(w, http.StatusBadRequest, refusal{"unsupported_grant_type", "grant_type must be authorization_code"})
		return
	}
	for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
		if v.Get(name) == "" {
			writeJSON(w, http.StatusBadRequest, refusal{"invalid_request", name + " is missing"})
			return
		}
	}
	g, ok := p.redeem(v.Get("code"))
	switch {
	case !ok:
		writeJSON(w, http.StatusBadRequest, refusal{"invalid_grant", "the code is unknown, used or expired"})
		return
	case v.Get("redirect_uri") != g.redirectURI:
		writeJSON(w, http.StatusBadRequest, refusal{"invalid_grant", "redirect_uri is not that of the authorization request"})
		return
	case !verifies(v.Get("code_verifier"), g.challenge):
		writeJSON(w, http.StatusBadRequest, refusal{"invalid_grant", "code_verifier does not fit the code_challenge"})
		return
	}
	accessToken := rand.Text() // opens nothing: there is no userinfo and no API here
	idToken, err := p.idToken(g, accessToken, v.Get("code"))
	if err != nil { // only by a lie
		writeJSON(w, http.StatusInternalServerError, refusal{"server_error", err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": accessToken,
		"token_type":   "Bearer",
		"expires_in":   int(idTokenLifetime.Seconds()),
		"scope":        strings.Join(g.scope, " "),
		"id_token":     idToken,
	})
}

// authenticate checks the client's secret: client_secret_basic or client_secret_post, but not both (RFC 6749,
// 2.3).
func (p *Provider) authenticate(r *http.Request) *refusal {
	unknown := &refusal{"invalid_client", "unknown client or wrong secret"}
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if r.Header.Get("Authorization") != "" {
		user, password, ok := r.BasicAuth()
		// Each half is form-urlencoded before joining (RFC 6749, 2.3.1).
		basicID, errID := url.QueryUnescape(user)
		basicSecret, errSecret := url.QueryUnescape(password)
		switch {
		case !ok || errID != nil || errSecret != nil:
			return unknown
		case secret != "" || id != "" && id != basicID:
			return &refusal{"invalid_request", "the client authenticates in two ways"}
		}
		id, secret = basicID, basicSecret
	}
	if id != p.config.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(p.config.ClientSecret)) != 1 {
		return unknown
	}
	return nil
}

// idToken makes the ID token of a grant (Core 2, 3.1.3.6 and 3.3.2.11), lies included.
func (p *Provider) idToken(g grant, accessToken, code string) (string, error) {
	now := p.config.Now()
	claims := map[string]any{
		"iss":       p.config.Issuer,
		"sub":       g.person.Subject,
		"aud":       p.config.ClientID,
		"exp":       now.Add(idTokenLifetime).Unix(),
		"iat":       now.Unix(),
		"auth_time": g.signedIn.Unix(),
		"sid":       g.sid,
		"at_hash":   leftHalf(accessToken),
		"c_hash":    leftHalf(code),
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if slices.Contains(g.scope, "profile") && g.person.Name != "" {
		claims["name"] = g.person.Name
	}
	if slices.Contains(g.scope, "email") && g.person.Email != "" {
		claims["email"] = g.person.Email
		claims["email_verified"] = g.person.EmailVerified
	}
	if len(g.person.Groups) > 0 {
		claims["groups"] = slices.Clone(g.person.Groups)
	}
	lie := p.currentLie()
	if lie.Claims != nil {
		lie.Claims(claims)
	}
	signed, err := p.SignIDToken(claims)
	if err == nil && lie.IDToken != nil {
		signed = lie.IDToken(signed)
	}
	return signed, err
}

// leftHalf is how an RS256 ID token refers to another token (Core 3.1.3.6).
func leftHalf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// endSession is the end_session_endpoint (RP-Initiated Logout 1.0, 2). There is no session to end, so it only
// redirects back.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.writeMessage(w, http.StatusBadRequest, "Bad request", "The parameters cannot be read.")
		return
	}
	v := r.Form
	if r.Method == http.MethodPost {
		v = r.PostForm
	}
	to, hint, client := v.Get("post_logout_redirect_uri"), v.Get("id_token_hint"), v.Get("client_id")
	if repeated(v) || !slices.Contains(p.config.PostLogoutRedirectURIs, to) ||
		hint != "" && !p.oursForClient(hint) || client != "" && client != p.config.ClientID {
		p.writeMessage(w, http.StatusOK, "Signed out", "You are signed out. You may close this page.")
		return
	}
	answer := url.Values{}
	if state := v.Get("state"); state != "" {
		answer.Set("state", state)
	}
	http.Redirect(w, r, withQuery(to, answer), http.StatusSeeOther) //nolint:gosec,forbidigo // to is one of the client's own
}

// oursForClient reports whether an ID token names this provider and its client. It does not check the signature or
// expiry: a client's sessions outlive a restart while keys do not, and the token grants nothing.
func (p *Provider) oursForClient(idToken string) bool {
	signed, err := jose.ParseSignedCompact(idToken, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return false
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
	}
	err = json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims)
	return err == nil && claims.Issuer == p.config.Issuer && claims.Audience == p.config.ClientID
}

func (p *Provider) currentLie() Lie {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lie
}

// field is a parameter of the authorization request that the form repeats.
type field struct{ Name, Value string }

// writeChoice shows the page with a button for each person. Its form repeats the request, which the POST then
// checks again.
func (p *Provider) writeChoice(w http.ResponseWriter, v url.Values) {
	var fields []field
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "scope", "state", "nonce",
		"code_challenge", "code_challenge_method"} {
		if value := v.Get(name); value != "" {
			fields = append(fields, field{name, value})
		}
	}
	p.writePage(w, http.StatusOK, "choose", map[string]any{
		"Title":  "Sign in to " + p.config.ClientID,
		"Fields": fields,
		"People": p.config.People,
	})
}

func (p *Provider) writeMessage(w http.ResponseWriter, status int, title, text string) {
	p.writePage(w, status, "message", map[string]any{"Title": title, "Text": text})
}

func (p *Provider) writePage(w http.ResponseWriter, status int, name string, data map[string]any) {
	nonce := rand.Text()
	data["Nonce"] = nonce
	var body bytes.Buffer
	if err := p.page.ExecuteTemplate(&body, name, data); err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: Chromium applies it to the redirects after the POST too, and CSP cannot write the origin of
	// a client on [::1].
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // an error means that the browser is gone
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil { // a lie that JSON cannot hold
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client is gone
}

// asJWK gives a signing key a random kid; a nil key becomes a new one of 2048 bits.
func asJWK(key *rsa.PrivateKey) jose.JSONWebKey {
	if key == nil {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(fmt.Sprintf("devidp: %v", err)) // crypto/rand does not fail, and the size is a valid one
		}
	}
	return jose.JSONWebKey{Key: key, KeyID: rand.Text(), Algorithm: string(jose.RS256), Use: "sig"}
}

// randomCode makes an authorization code of 256 random bits.
func randomCode() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// verifies reports whether the verifier has the length that RFC 7636 (4.1) requires and matches the S256 challenge
// (4.6).
func verifies(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 &&
		base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

func knownScopes(scope string) []string {
	asked := strings.Fields(scope)
	var known []string
	for _, s := range scopes {
		if slices.Contains(asked, s) {
			known = append(known, s)
		}
	}
	return known
}

func repeated(v url.Values) bool {
	for _, values := range v {
		if len(values) > 1 {
			return true
		}
	}
	return false
}

// withQuery adds parameters to a URI without a fragment, and keeps the rest unchanged (RFC 6749, 3.1.2).
func withQuery(uri string, v url.Values) string {
	switch {
	case len(v) == 0:
		return uri
	case strings.Contains(uri, "?"):
		return uri + "&" + v.Encode()
	default:
		return uri + "?" + v.Encode()
	}
}
