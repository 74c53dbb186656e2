package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"noted/internal/localpg/pgtest"
)

const (
	keycloakVersion  = "26.7.3"
	keycloakArtifact = "org.keycloak:keycloak-quarkus-dist:" + keycloakVersion + ":zip"
	keycloakPassword = "the password of everybody at Keycloak"

	// Downloading 170 MB, and the first start, which compiles Keycloak's configuration.
	keycloakFetchLimit = 5 * time.Minute
	keycloakStartLimit = 3 * time.Minute
)

// keycloak is a running Keycloak with the realm staff of keycloak-realm.json.
type keycloak struct {
	issuer string
	base   string
}

// keycloakFolder is where the unpacked distribution stays between runs; Maven fetches it once.
func keycloakFolder(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		missing(t, "keycloak", "there is no java; Debian has it in default-jre-headless")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		missing(t, "keycloak", err.Error())
	}
	cache = filepath.Join(cache, "noted")
	folder := filepath.Join(cache, "keycloak-"+keycloakVersion)
	if _, err := os.Stat(filepath.Join(folder, "bin", "kc.sh")); err == nil {
		return folder
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		missing(t, "keycloak", "there is no mvn to fetch it; Debian has it in maven")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // nothing in it is secret
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(cache, "keycloak-fetch-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	ctx, cancel := context.WithTimeout(t.Context(), keycloakFetchLimit)
	defer cancel()
	t.Logf("fetching %s", keycloakArtifact)
	out, err := exec.CommandContext(ctx, "mvn", "--batch-mode", "--quiet", "dependency:copy", //nolint:gosec // constants
		"-Dartifact="+keycloakArtifact, "-DoutputDirectory="+work).CombinedOutput()
	if err != nil {
		missing(t, "keycloak", fmt.Sprintf("mvn does not fetch %s: %v\n%s", keycloakArtifact, err, out))
	}
	if err := unzip(filepath.Join(work, "keycloak-quarkus-dist-"+keycloakVersion+".zip"), work); err != nil {
		t.Fatal(err)
	}
	// All or nothing, even with others doing the same.
	if err := os.Rename(filepath.Join(work, "keycloak-"+keycloakVersion), folder); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return folder
}

// unzip keeps the permissions; Maven has checked the archive.
func unzip(archive, into string) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for _, f := range r.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s has %q", archive, f.Name)
		}
		path := filepath.Join(into, f.Name)
		if f.FileInfo().IsDir() {
			if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // as everything of the archive
				return err
			}
			continue
		}
		if err := unzipFile(f, path); err != nil {
			return err
		}
	}
	return nil
}

func unzipFile(f *zip.File, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as everything of the archive
		return err
	}
	from, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, f.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from) //nolint:gosec // its size is known
	return errors.Join(err, to.Close())
}

// startKeycloak runs Keycloak in its dev mode, with its data in memory, for a noted that people open at public and
// Keycloak reaches at direct.
func startKeycloak(t *testing.T, public, direct string) *keycloak {
	t.Helper()
	folder := keycloakFolder(t)
	// Only one at a time runs from the folder.
	lock, err := os.OpenFile(folder+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(folder, "data")
	if err := errors.Join(os.RemoveAll(data), os.MkdirAll(filepath.Join(data, "import"), 0o755)); err != nil { //nolint:gosec // as everything in it
		t.Fatal(err)
	}
	realm, err := os.ReadFile("keycloak-realm.json")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(data, "import"), "staff-realm.json", string(realm))

	base := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	k := &keycloak{issuer: base + "/realms/staff", base: base}
	// This process holds the pipe to its standard input: however it ends, Keycloak ends too.
	cmd := exec.Command("sh", "-c", `exec 3<&0; (cat <&3 >/dev/null; kill $$) & exec "$@" 3<&- </dev/null`, "sh", //nolint:gosec // the folder is ours
		filepath.Join(folder, "bin", "kc.sh"), "start-dev", "--db=dev-mem", "--cache=local", "--import-realm",
		"--http-host=127.0.0.1", "--http-port="+strings.TrimPrefix(base, "http://127.0.0.1:"), "--hostname="+base)
	// Java's second compiler costs more time than it saves in one minute.
	cmd.Env = append(os.Environ(), "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1", "KC_BOOTSTRAP_ADMIN_USERNAME=root", "KC_BOOTSTRAP_ADMIN_PASSWORD="+keycloakPassword,
		"NOTED_TEST_PASSWORD="+keycloakPassword, "NOTED_TEST_SECRET="+clientSecret, "NOTED_TEST_PUBLIC_URL="+public, "NOTED_TEST_BACKCHANNEL_URL="+direct)
	var log output
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &log, &log, 5*time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = stdin.Close()
		select {
		case <-done:
		case <-time.After(exitLimit):
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			text := log.String()
			t.Logf("Keycloak printed, at the end:\n%s", text[max(0, len(text)-6000):])
		}
	})
	outside := foreignClient(base, "")
	eventually(t, keycloakStartLimit, "Keycloak serves the realm", func() bool {
		select {
		case <-done:
			t.Fatal("Keycloak has ended")
		default:
		}
		a, err := outside.try(t.Context(), http.MethodGet, "/realms/staff/.well-known/openid-configuration", nil)
		return err == nil && a.status == http.StatusOK
	})
	return k
}

// token gets tokens from a realm's token endpoint with a person's password.
func (k *keycloak) token(t *testing.T, realm, clientID, who string) (accessToken, idToken string) {
	t.Helper()
	response, err := http.PostForm(k.base+"/realms/"+realm+"/protocol/openid-connect/token", url.Values{ //nolint:noctx // loopback
		"grant_type": {"password"}, "client_id": {clientID}, "username": {who}, "password": {keycloakPassword}, "scope": {"openid"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var got struct {
		AccessToken string `json:"access_token"`
		IDToken     string `json:"id_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("Keycloak gives %s no token: %s, %v", who, response.Status, err)
	}
	return got.AccessToken, got.IDToken
}

// do calls the admin API, below the realm.
func (k *keycloak) do(t *testing.T, method, path string, body any, into any) {
	t.Helper()
	token, _ := k.token(t, "master", "admin-cli", "root")
	a := foreignClient(k.base+"/admin/realms/staff", token).do(t, method, path, body)
	if a.status >= http.StatusMultipleChoices {
		t.Fatalf("Keycloak answers %s %s with %d %s", method, path, a.status, a.body)
	}
	if into != nil {
		a.into(t, into)
	}
}

// thing is what the tests use of the admin API's lists.
type thing struct {
	ID         string            `json:"id"`
	ProviderID string            `json:"providerId"`
	Clients    map[string]string `json:"clients"`
}

// person returns somebody's id at Keycloak.
func (k *keycloak) person(t *testing.T, name string) string {
	t.Helper()
	var found []thing
	k.do(t, http.MethodGet, "/users?exact=true&username="+name, nil, &found)
	if len(found) != 1 {
		t.Fatalf("Keycloak has %d of %s", len(found), name)
	}
	return found[0].ID
}

// sessions returns somebody's sessions at Keycloak.
func (k *keycloak) sessions(t *testing.T, name string) (ids []string) {
	t.Helper()
	var found []thing
	k.do(t, http.MethodGet, "/users/"+k.person(t, name)+"/sessions", nil, &found)
	for _, one := range found {
		ids = append(ids, one.ID)
	}
	return ids
}

// logIn fills in Keycloak's form.
func logIn(who string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		shows("#username"),
		chromedp.SetValue(chromedp.CSS("#username"), who),
		chromedp.SetValue(chromedp.CSS("#password"), keycloakPassword),
		click("#kc-login"),
	)
}

// signInAtKeycloak goes from noted's first page through Keycloak's form and back.
func (s *site) signInAtKeycloak(t *testing.T, w window, who string) client {
	t.Helper()
	w.browse(t, chromedp.Navigate(s.public+"/"), click(`a[href*="provider=keycloak"]`),
		logIn(who), shows(`form[action="/auth/logout"]`))
	token := s.sessionOf(t, w)
	if token == "" {
		t.Fatalf("%s has no session", who)
	}
	return plainClient(s.direct, token)
}

func wantRoles(t *testing.T, c client, roles ...string) {
	t.Helper()
	if got := c.me(t); !slices.Equal(got.Roles, roles) {
		t.Errorf("%s has the roles %q, want %q", got.Name, got.Roles, roles)
	}
}

func TestKeycloak(t *testing.T) {
	t.Parallel()
	open := chromium(t)
	s := newSite(t, pgtest.URL(t), "")
	k := startKeycloak(t, s.public, s.direct)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.dir, "noted.yaml", string(text)+fmt.Sprintf(`  - id: keycloak
    name: Keycloak
    issuer: %s
    client_id: noted
    client_secret_file: %s
    groups_claims: [groups, realm_access.roles]
    allowed_groups: [/noted/users, /noted/moderators, /noted/admins]
    allowed_audiences: [laptop]
    email_domains: [staff.example]
`, k.issuer, filepath.Join(s.dir, "secret")))
	policy := filepath.Join(s.dir, "with-ada.csv")
	shippedPolicy, err := os.ReadFile(policy) //nolint:gosec // of the test's own
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.dir, "with-ada.csv", string(shippedPolicy)+"g, group:keycloak:/noted/admins, admin\ng, group:keycloak:notes-moderator, moderator\n")
	noted := s.serve(t, nil)

	t.Run("groups and realm roles become platform roles", func(t *testing.T) {
		ada, mo, uma := s.signInAtKeycloak(t, open(t), "ada"), s.signInAtKeycloak(t, open(t), "mo"), s.signInAtKeycloak(t, open(t), "uma")
		wantRoles(t, ada, "admin", "user")
		wantRoles(t, mo, "moderator", "user")
		wantRoles(t, uma, "user")
		if m := uma.me(t); m.Name != "Uma User" {
			t.Errorf("her name is %q", m.Name)
		}
		// Admins see the last sign-in's data.
		a := ada.get(t, "/v1/admin/users/"+mo.me(t).ID).want(t, http.StatusOK)
		for _, want := range []string{`"/noted/moderators"`, `"notes-moderator"`, `"mo@staff.example"`, k.issuer} {
			if !strings.Contains(a.body, want) {
				t.Errorf("an admin does not see %s in %s", want, a.body)
			}
		}
	})
	t.Run("who is in none of the groups is refused", func(t *testing.T) {
		oscar := open(t)
		oscar.browse(t, chromedp.Navigate(s.public+"/auth/login?provider=keycloak"), logIn("oscar"), shows(`a[href^="/auth/login"]`))
		if address, text := oscar.page(); !strings.Contains(text, "Authentication failed") || !strings.HasPrefix(address, s.public+"/auth/callback/keycloak?") || s.sessionOf(t, oscar) != "" {
			t.Errorf("at %s he sees %q", address, text)
		}
		if !strings.Contains(noted.stderr.String(), `"reason":"gate"`) {
			t.Error("the log does not say why")
		}
	})
	t.Run("a rotation of the realm's keys is survived", func(t *testing.T) {
		before := s.signInAtKeycloak(t, open(t), "uma")
		var old []thing
		k.do(t, http.MethodGet, "/components?type=org.keycloak.keys.KeyProvider", nil, &old)
		k.do(t, http.MethodPost, "/components", map[string]any{
			"name": "rotated", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
			"config": map[string][]string{"priority": {"1000"}, "algorithm": {"RS256"}, "keySize": {"2048"}},
		}, nil)
		wantRoles(t, s.signInAtKeycloak(t, open(t), "uma"), "user")
		removed := 0
		for _, key := range old {
			if key.ProviderID == "rsa-generated" {
				k.do(t, http.MethodDelete, "/components/"+key.ID, nil, nil)
				removed++
			}
		}
		if removed != 1 {
			t.Fatalf("of the realm's keys %d were removed", removed)
		}
		wantRoles(t, s.signInAtKeycloak(t, open(t), "uma"), "user")
		wantRoles(t, before, "user")
	})
	t.Run("signing out of noted ends Keycloak's session without a question", func(t *testing.T) {
		una := open(t)
		session := s.signInAtKeycloak(t, una, "una")
		if n := len(k.sessions(t, "una")); n != 1 {
			t.Fatalf("she has %d sessions at Keycloak", n)
		}
		una.browse(t, click(`form[action="/auth/logout"] button`), shows(`a[href*="provider=keycloak"]`))
		if address, text := una.page(); address != s.public+"/" || !strings.Contains(text, "You are not signed in") || s.sessionOf(t, una) != "" {
			t.Errorf("she is at %s and sees %q", address, text)
		}
		session.get(t, "/v1/me").wantUnauthorized(t)
		if n := len(k.sessions(t, "una")); n != 0 {
			t.Errorf("she still has %d sessions at Keycloak", n)
		}
		// The next sign-in asks for the password.
		una.browse(t, chromedp.Navigate(s.public+"/auth/login?provider=keycloak"), shows("#username"))
	})
	t.Run("an end of the session by Keycloak's admins reaches noted within a second", func(t *testing.T) {
		una := s.signInAtKeycloak(t, open(t), "una")
		other := s.signInAtKeycloak(t, open(t), "mo")
		ids := k.sessions(t, "una")
		if len(ids) != 1 {
			t.Fatalf("she has %d sessions at Keycloak", len(ids))
		}
		k.do(t, http.MethodDelete, "/sessions/"+ids[0], nil, nil)
		eventually(t, time.Second, "noted refuses the session", func() bool { return una.get(t, "/v1/me").status == http.StatusUnauthorized })
		wantRoles(t, other, "moderator", "user")
	})
	t.Run("who is disabled at Keycloak cannot come back", func(t *testing.T) {
		her := open(t)
		una := s.signInAtKeycloak(t, her, "una")
		id := k.person(t, "una")
		k.do(t, http.MethodPut, "/users/"+id, map[string]any{"enabled": false}, nil)
		k.do(t, http.MethodPost, "/users/"+id+"/logout", nil, nil)
		eventually(t, time.Second, "noted refuses the session", func() bool { return una.get(t, "/v1/me").status == http.StatusUnauthorized })
		her.browse(t, chromedp.Navigate(s.public+"/auth/login?provider=keycloak"), logIn("una"))
		eventually(t, settleLimit, "Keycloak says that she is disabled", func() bool {
			address, text := her.page()
			return strings.HasPrefix(address, k.issuer) && strings.Contains(text, "disabled")
		})
		her.browse(t, chromedp.Navigate(s.public+"/"), shows(`a[href*="provider=keycloak"]`))
		una.get(t, "/v1/me").wantUnauthorized(t)
	})
	t.Run("who leaves a group loses its role with the next sign-in", func(t *testing.T) {
		mo := s.signInAtKeycloak(t, open(t), "mo")
		id := k.person(t, "mo")
		var groups []thing
		k.do(t, http.MethodGet, "/users/"+id+"/groups", nil, &groups)
		var all []struct {
			thing
			SubGroups []struct {
				ID   string `json:"id"`
				Name string `json:"name"`
			} `json:"subGroups"`
		}
		k.do(t, http.MethodGet, "/groups?search=users&exact=false", nil, &all)
		if len(groups) != 1 || len(all) != 1 || len(all[0].SubGroups) != 1 {
			t.Fatalf("his groups are %+v, those found %+v", groups, all)
		}
		k.do(t, http.MethodPut, "/users/"+id+"/groups/"+all[0].SubGroups[0].ID, nil, nil)
		k.do(t, http.MethodDelete, "/users/"+id+"/groups/"+groups[0].ID, nil, nil)
		wantRoles(t, s.signInAtKeycloak(t, open(t), "mo"), "user")
		// The older session gets the last sign-in's groups too.
		wantRoles(t, mo, "user")
	})
	t.Run("a program's ID token is exchanged and nothing else of Keycloak's", func(t *testing.T) {
		outside := plainClient(s.direct, "")
		send := func(token string) answer {
			form := url.Values{
				"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token},
				"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, outside.base+"/auth/token", bytes.NewBufferString(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			response, err := outside.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return answer{status: response.StatusCode, header: response.Header, body: string(body)}
		}
		access, id := k.token(t, "staff", "laptop", "ada")
		_, foreign := k.token(t, "staff", "wiki", "ada")
		for what, token := range map[string]string{"an access token": access, "an ID token of a client that is not trusted": foreign} {
			if a := send(token); a.status != http.StatusBadRequest || a.body != `{"error":"invalid_request"}` {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
		var got struct {
			AccessToken string `json:"access_token"`
		}
		send(id).want(t, http.StatusOK).into(t, &got)
		wantRoles(t, plainClient(s.direct, got.AccessToken), "admin", "user")
		send(id).want(t, http.StatusBadRequest)
	})
	t.Run("check-provider shows a trial sign-in", func(t *testing.T) {
		noted.stop(t)
		p := start(t, command{args: []string{"check-provider", "keycloak", "--config", s.config, "--sign-in"}, dir: s.dir})
		address := ""
		p.await(t, startLimit, "it prints an address", func() bool {
			for line := range strings.Lines(p.stderr.String()) {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, k.issuer+"/") {
					address = line
				}
			}
			return address != ""
		})
		open(t).browse(t, chromedp.Navigate(address), logIn("ada"), shows("pre"))
		if code := p.exit(t); code != 0 {
			t.Fatalf("exit %d", code)
		}
		wantLines(t, p.stdout.String(), `discovery         ok: `+k.issuer, `keys              ok: \d`, `clock difference  -?[01]s`,
			`trial sign-in     ok: Ada Lovelace, subject [0-9a-f-]{36}`, `  groups          \[/noted/admins\]`, `  email           ada@staff\.example`,
			`  realm_access\.roles \[.*default-roles-staff.*\]`, `roles             admin user`, `gates             passed`)
	})
}
