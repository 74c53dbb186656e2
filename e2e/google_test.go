package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/devidp"
	"noted/internal/localpg/pgtest"
)

const (
	googleIssuer = "https://accounts.google.com"
	googleClient = "1234567890-abc.apps.googleusercontent.com"
)

// google plays accounts.google.com and its sister hosts, behind a proxy that tunnels only to these.
type google struct {
	*devidp.Provider
	ca       []byte // PEM
	proxyURL string
	mu       sync.Mutex
	asked    []string // of the proxy
}

// newGoogle starts both. The people are alice and bob, in the hosted domain corp.example.
func newGoogle(t *testing.T, redirectURI string) *google {
	t.Helper()
	g := &google{}
	var err error
	g.Provider, err = devidp.New(devidp.Config{
		Issuer: googleIssuer, ClientID: googleClient, ClientSecret: clientSecret, RedirectURIs: []string{redirectURI},
		People: []devidp.Person{{Subject: "110169484474386276334", Name: "Alice", Email: "alice@corp.example", EmailVerified: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	g.say(map[string]any{"hd": "corp.example"})
	certificate := g.certificate(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var handler http.Handler = g.Provider
		if r.Host == "www.googleapis.com" {
			handler = http.StripPrefix("/oauth2/v3", handler)
		}
		handler.ServeHTTP(w, r)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	g.proxyURL = g.startTunnels(t, srv.Listener.Addr().String())
	return g
}

// say adds these claims to its ID tokens.
func (g *google) say(claims map[string]any) {
	g.SetLie(devidp.Lie{
		Discovery: func(doc map[string]any) {
			delete(doc, "end_session_endpoint")
			doc["jwks_uri"] = "https://www.googleapis.com/oauth2/v3/jwks"
			doc["token_endpoint"] = "https://oauth2.googleapis.com/token"
		},
		Claims: func(all map[string]any) {
			for name, value := range claims {
				all[name] = value
			}
		},
	})
}

// certificate makes one for Google's hosts, from an authority in g.ca.
func (g *google) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	ca, caKey := issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the test's authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leaf, key := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"accounts.google.com", "oauth2.googleapis.com", "www.googleapis.com"},
	}, ca, caKey)
	g.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
}

// startTunnels starts a proxy that knows only CONNECT and Google's hosts, all at one address.
func (g *google) startTunnels(t *testing.T, target string) (address string) {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.asked = append(g.asked, r.Host)
		g.mu.Unlock()
		known := []string{"accounts.google.com:443", "oauth2.googleapis.com:443", "www.googleapis.com:443"}
		if r.Method != http.MethodConnect || !slices.Contains(known, r.Host) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", target) //nolint:noctx // loopback
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = there.Close()
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		join(here, buffered.Reader, there)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// join copies both ways until one side ends.
func join(here net.Conn, fromHere *bufio.Reader, there net.Conn) {
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(there, fromHere); done <- struct{}{} }()
	go func() { _, _ = io.Copy(here, there); done <- struct{}{} }()
	<-done
	_, _ = here.Close(), there.Close()
	<-done
}

// hosts returns the hosts asked for since the last call, each once.
func (g *google) hosts() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := slices.Compact(slices.Sorted(slices.Values(g.asked)))
	g.asked = nil
	return asked
}

// browser reaches noted as usual, and Google through the proxy.
func (g *google) browser(t *testing.T, s *site) browser {
	t.Helper()
	proxy, err := url.Parse(g.proxyURL)
	if err != nil {
		t.Fatal(err)
	}
	b := s.browser(t)
	transport := b.seen.next.(*http.Transport) //nolint:forcetypeassert // newBrowser makes it
	transport.TLSClientConfig = transport.TLSClientConfig.Clone()
	transport.TLSClientConfig.RootCAs = transport.TLSClientConfig.RootCAs.Clone()
	transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(g.ca)
	transport.DialContext = nil // the proxy is on this machine
	transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if strings.HasPrefix(r.URL.Host, "127.0.0.1:") {
			return nil, nil //nolint:nilnil // as Transport wants it
		}
		return proxy, nil
	}
	return b
}

// newGoogleSite is a site whose only provider is Google, with the hosted domain corp.example. more is added to the
// provider.
func newGoogleSite(t *testing.T, databaseURL, more string) (*site, *google) {
	t.Helper()
	s := newSite(t, databaseURL, "")
	g := newGoogle(t, s.public+"/auth/callback/google")
	writeFile(t, s.dir, "google-ca.pem", string(g.ca))
	writeFile(t, s.dir, "with-ada.csv", shipped(t, "policy.csv")+"g, google:113862495011223344556, admin\n") // whom the site's other provider named is nobody here
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "providers:\n")
	writeFile(t, s.dir, "noted.yaml", before+fmt.Sprintf(`providers:
  - id: google
    name: Google
    issuer: %s
    client_id: %s
    client_secret_file: %s
    hosted_domains: [corp.example]
    email_domains: [corp.example]
%s`, googleIssuer, googleClient, filepath.Join(s.dir, "secret"), more))
	return s, g
}

func TestGoogleThroughAProxy(t *testing.T) {
	t.Parallel()
	s, g := newGoogleSite(t, pgtest.URL(t), "    groups_claims: [groups]\n    ca_file: google-ca.pem\n")
	environment := []string{"HTTPS_PROXY=" + g.proxyURL}

	code, checked := run(t, command{args: []string{"check-provider", "google", "--config", s.config}, dir: s.dir, env: environment})
	if code != 0 {
		t.Fatalf("check-provider: exit %d", code)
	}
	wantLines(t, checked.stdout.String(), `discovery         ok: `+googleIssuer, `  sign-out at     -`, `keys              ok: 1`)

	noted := s.serve(t, environment)
	g.hosts()
	signIn := func(what string) client {
		t.Helper()
		return plainClient(s.direct, g.browser(t, s).signIn(t, "/auth/login?login_hint=alice@corp.example", sessionCookie))
	}
	with := signIn("with the scheme")
	if got, want := g.hosts(), []string{"accounts.google.com:443", "oauth2.googleapis.com:443", "www.googleapis.com:443"}; !slices.Equal(got, want) {
		t.Errorf("the proxy was asked for %q", got)
	}
	if !strings.Contains(noted.stderr.String(), `"msg":"the ID token has no such groups claim, so it gives no group roles"`) || !strings.Contains(noted.stderr.String(), `"claims":["groups"]`) {
		t.Error("the log does not say that there is no groups claim")
	}

	g.say(map[string]any{"iss": "accounts.google.com", "hd": "corp.example"})
	without := signIn("without the scheme")
	if a, b := with.me(t), without.me(t); a.ID != b.ID {
		t.Errorf("the two spellings of the issuer are two people, %s and %s", a.ID, b.ID)
	}

	t.Run("the hosted domain is that of the token", func(t *testing.T) {
		defer g.say(map[string]any{"hd": "corp.example"})
		for _, claims := range []map[string]any{{}, {"hd": "other.example"}} {
			g.say(claims)
			a := g.browser(t, s).get(t, "/auth/login?login_hint=alice@corp.example")
			a.wantUnauthorized(t)
		}
		if n := strings.Count(noted.stderr.String(), `"reason":"gate"`); n != 2 {
			t.Errorf("the log has the gate %d times", n)
		}
	})
	t.Run("an ID token is exchanged", func(t *testing.T) {
		now := time.Now()
		token, err := g.SignIDToken(map[string]any{
			"iss": "accounts.google.com", "aud": googleClient, "sub": "110169484474386276334", "hd": "corp.example",
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "name": "Alice",
		})
		if err != nil {
			t.Fatal(err)
		}
		a := s.browser(t).submit(t, "/auth/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		}).want(t, http.StatusOK)
		var got struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatal(err)
		}
		if id := plainClient(s.direct, got.AccessToken).me(t).ID; id != with.me(t).ID {
			t.Errorf("the exchanged session is that of %s", id)
		}
	})
	t.Run("signing out ends at the first page", func(t *testing.T) {
		b := g.browser(t, s)
		b.signIn(t, "/auth/login?login_hint=alice@corp.example", sessionCookie)
		g.hosts()
		a := b.do(t, http.MethodPost, "/auth/logout", nil, "Accept", "text/html", "Origin", s.public).want(t, http.StatusOK)
		if a.url != s.public+"/" || len(g.hosts()) != 0 {
			t.Errorf("it ends at %s", a.url)
		}
	})
}

func TestGoogleThatIsOutOfReachStopsNothingElse(t *testing.T) {
	t.Parallel()
	// Without ca_file, the test's authority is unknown.
	s, g := newGoogleSite(t, pgtest.URL(t), "")
	environment := []string{"HTTPS_PROXY=" + g.proxyURL}
	code, checked := run(t, command{args: []string{"check-provider", "google", "--config", s.config}, dir: s.dir, env: environment})
	if text := checked.stderr.String(); code != 1 || !strings.Contains(text, "certificate") {
		t.Errorf("check-provider: exit %d, %s", code, text)
	}
	noted := s.serve(t, environment)
	a := s.browser(t).get(t, "/auth/login")
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a sign-in: %d %s", a.status, a.body)
	}
	if !strings.Contains(noted.stderr.String(), `"msg":"provider unreachable"`) {
		t.Error("the log does not say so")
	}
	plainClient(s.direct, "").get(t, "/readyz").want(t, http.StatusOK)
}
