package identity_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

// newTwoProviders is a server with a second provider, `corp`, whose people have the same names
// and e-mails as dev's. That must have no effect.
func newTwoProviders(t *testing.T, change ...func(*server.Options)) *servertest.Env {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	issuer := "http://" + srv.Listener.Addr().String()
	env := servertest.New(t, append(change, func(o *server.Options) {
		o.Providers = append(o.Providers, &oidc.Provider{
			ID: "corp", Name: "The company", Issuer: issuer, ClientID: "noted", ClientSecret: "s", Scopes: []string{"openid", "email", "profile"},
		})
		corp, err := devidp.New(devidp.Config{
			Issuer: issuer, ClientID: "noted", ClientSecret: "s", RedirectURIs: []string{o.Settings.PublicURL + "/auth/callback/corp"},
			People: []devidp.Person{
				{Subject: "c-alice", Name: "Alice at corp", Email: "alice@dev.example", EmailVerified: true},
				{Subject: "c-bob", Name: "Bob at corp", Email: "bob@dev.example", EmailVerified: true},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Config.Handler = corp
	})...)
	srv.Start()
	t.Cleanup(srv.Close)
	return env
}

// at signs the browser in at a provider.
func (b *browser) at(t testing.TB, provider, hint string) {
	t.Helper()
	authorize := location(t, b.get(t, b.env.URL+"/auth/login?return_to=/version&provider="+provider+"&login_hint="+hint), http.StatusFound)
	location(t, b.get(t, b.atProvider(t, authorize).String()), http.StatusSeeOther)
}

// startLink begins to link with a session and returns the address at the provider.
func startLink(t testing.TB, env *servertest.Env, session, provider string) servertest.Answer {
	t.Helper()
	return env.Do(t, http.MethodPost, "/v1/me/identities", session, map[string]string{"provider": provider})
}

// comeBack goes to the provider as somebody, and returns the callback's address.
func (b *browser) comeBack(t testing.TB, started servertest.Answer, hint string) string {
	t.Helper()
	var to struct{ URL string }
	want(t, http.StatusOK, started).JSON(t, &to)
	return location(t, b.get(t, to.URL+"&login_hint="+hint), http.StatusSeeOther).String()
}

var codeField = regexp.MustCompile(`name="code" value="([^"]+)"`)

// asked returns the page that names both, and its form's code.
func (b *browser) asked(t testing.TB, callback string) (page, code string) {
	t.Helper()
	a := want(t, http.StatusOK, b.get(t, callback, "Accept", "text/html"))
	found := codeField.FindStringSubmatch(string(a.Body))
	if found == nil {
		t.Fatalf("no code in %s", a.Body)
	}
	return string(a.Body), found[1]
}

func confirmLink(t testing.TB, env *servertest.Env, session, code string) servertest.Answer {
	t.Helper()
	return env.Do(t, http.MethodPost, "/auth/link/confirm", session, url.Values{"code": {code}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

func identities(t testing.TB, env *servertest.Env) int {
	t.Helper()
	return number(t, env, `select count(*) from identities`)
}

func meID(t testing.TB, env *servertest.Env, token string) string {
	t.Helper()
	var got struct{ ID string }
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me", token, nil)).JSON(t, &got)
	return got.ID
}

func TestTwoSignInsAreLinkedByWhoHoldsBothAndUnlinkedAgain(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t, withPolicy(t, "g, corp:c-alice, moderator"))
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	callback := b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-alice")
	page, code := b.asked(t, callback)
	for _, named := range []string{"<strong>alice</strong>", "subject <code>alice</code>", "Alice at corp", "The company", "c-alice"} {
		if !strings.Contains(page, named) {
			t.Errorf("the page does not name %s:\n%s", named, page)
		}
	}
	if n := identities(t, env); n != 1 {
		t.Fatalf("a GET linked: %d identities", n)
	}
	if a := confirmLink(t, env, b.session(), another(code)); a.Status != http.StatusConflict || identities(t, env) != 1 {
		t.Fatalf("a wrong code: %d", a.Status)
	}
	if a := location(t, confirmLink(t, env, b.session(), code), http.StatusSeeOther); a.String() != "/" {
		t.Errorf("linked, and on to %s", a)
	}
	if a := confirmLink(t, env, b.session(), code); a.Status != http.StatusConflict {
		t.Errorf("the code again: %d", a.Status)
	}
	other := newBrowser(t, env)
	other.at(t, "corp", "c-alice")
	if meID(t, env, other.session()) != meID(t, env, b.session()) {
		t.Error("the second sign-in is another user")
	}
	var me struct{ Roles []string }
	env.Do(t, http.MethodGet, "/v1/me", b.session(), nil).JSON(t, &me)
	if strings.Join(me.Roles, " ") != "moderator user" {
		t.Errorf("the roles are %v", me.Roles)
	}
	if a := b.get(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-alice"), "Accept", "text/html"); a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "linked to your account already") {
		t.Errorf("linking it again: %d %s", a.Status, a.Body)
	}

	// Once unlinked, its sessions and devices end, and its names no longer count.
	device := approveDevice(t, env, other.session())
	var list struct {
		Items []struct{ ID, Subject, Provider string }
	}
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me/identities", b.session(), nil)).JSON(t, &list)
	if len(list.Items) != 2 || list.Items[0].Subject != "c-alice" || list.Items[0].Provider != "corp" {
		t.Fatalf("the list is %+v", list)
	}
	want(t, http.StatusNoContent, env.Do(t, http.MethodDelete, "/v1/me/identities/"+list.Items[0].ID, b.session(), nil))
	if lives(t, env, other.session()) || lives(t, env, device) || !lives(t, env, b.session()) {
		t.Error("the sessions of the unlinked sign-in, and only those, should have ended")
	}
	env.Do(t, http.MethodGet, "/v1/me", b.session(), nil).JSON(t, &me)
	if strings.Join(me.Roles, " ") != "user" {
		t.Errorf("after unlinking the roles are %v", me.Roles)
	}
	if a := env.Do(t, http.MethodDelete, "/v1/me/identities/"+list.Items[1].ID, b.session(), nil); a.Status != http.StatusConflict {
		t.Errorf("unlinking the last: %d", a.Status)
	}
	for action, times := range map[string]int{"identity.link": 1, "identity.unlink": 1} {
		if n := number(t, env, `select count(*) from audit_events where action = $1`, action); n != times {
			t.Errorf("%d rows of %s", n, action)
		}
	}
}

func TestLinkIsForTheVerySessionThatBeganIt(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	started := startLink(t, env, b.session(), "corp")

	// Somebody else's browser, signed in or not.
	victim := newBrowser(t, env)
	victim.at(t, "dev", "bob")
	for what, other := range map[string]*browser{"another's browser": victim, "a stranger's browser": newBrowser(t, env)} {
		checkRefused(t, what, other.get(t, other.comeBack(t, started, "c-bob")))
	}
	// Another session of the same user cannot confirm.
	second := env.SignIn(t, "alice")
	_, code := b.asked(t, b.comeBack(t, started, "c-alice"))
	if a := confirmLink(t, env, second, code); a.Status != http.StatusConflict {
		t.Errorf("another session's confirmation: %d", a.Status)
	}
	// Nor can a key, nor the session after it ended.
	_, key := env.NewKey(t, second, "key-admin")
	if a := confirmLink(t, env, key, code); a.Status != http.StatusForbidden {
		t.Errorf("a key's confirmation: %d", a.Status)
	}
	want(t, http.StatusNoContent, env.Do(t, http.MethodDelete, "/v1/me/sessions", second, nil))
	checkRefused(t, "an ended session's confirmation", confirmLink(t, env, b.session(), code))
	if n := identities(t, env); n != 2 {
		t.Errorf("%d identities, want alice's and bob's", n)
	}
}

func TestLinkingNeedsAFreshSignInAndAnIdentityOfNobody(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	taken := newBrowser(t, env)
	taken.at(t, "corp", "c-bob")
	b := newBrowser(t, env)
	b.at(t, "dev", "bob")
	if meID(t, env, b.session()) == meID(t, env, taken.session()) {
		t.Fatal("two people were joined by their e-mail")
	}
	a := b.get(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-bob"), "Accept", "text/html")
	if a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "belongs to another account") {
		t.Errorf("another's identity: %d %s", a.Status, a.Body)
	}
	if a := startLink(t, env, b.session(), "nobody"); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("an unknown provider: %d", a.Status)
	}
	env.Exec(t, `update sessions set signed_in_at = now() - interval '4 minutes 55 seconds'`)
	want(t, http.StatusOK, startLink(t, env, b.session(), "corp"))
	env.Exec(t, `update sessions set signed_in_at = now() - interval '5 minutes 1 second'`)
	old := startLink(t, env, b.session(), "corp")
	if old.Status != http.StatusForbidden || !strings.Contains(string(old.Body), `"permission":"identity:own write"`) {
		t.Errorf("an old sign-in: %d %s", old.Status, old.Body)
	}
	// A device let in by an old session is no fresher.
	if a := startLink(t, env, approveDevice(t, env, b.session()), "corp"); a.Status != http.StatusForbidden {
		t.Errorf("a device of an old sign-in: %d", a.Status)
	}
}

func TestTwoUnlinkingsAtOnceLeaveOne(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	for range 5 {
		b := newBrowser(t, env)
		b.at(t, "dev", "alice")
		_, code := b.asked(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-alice"))
		location(t, confirmLink(t, env, b.session(), code), http.StatusSeeOther)
		other := newBrowser(t, env)
		other.at(t, "corp", "c-alice")
		var list struct{ Items []struct{ ID string } }
		env.Do(t, http.MethodGet, "/v1/me/identities", b.session(), nil).JSON(t, &list)
		// Each with a session of the other, so that neither ends its own.
		var group sync.WaitGroup
		for i, session := range []string{b.session(), other.session()} {
			group.Go(func() { env.Do(t, http.MethodDelete, "/v1/me/identities/"+list.Items[i].ID, session, nil) })
		}
		group.Wait()
		if n := identities(t, env); n != 1 {
			t.Fatalf("%d identities are left, want 1", n)
		}
		env.Exec(t, `delete from sessions`)
		env.Exec(t, `delete from identities`)
	}
}

// A sign-in is not done by a credential, even if the browser still sends an earlier one.
func TestLinkingAndDevicesAreRecordedWithTheSessionThatConfirmedThem(t *testing.T) {
	t.Parallel()
	env := newTwoProviders(t)
	b := newBrowser(t, env)
	b.at(t, "dev", "alice")
	b.at(t, "dev", "alice") // with the cookie of the one before
	session := current(t, env, b.session())
	_, code := b.asked(t, b.comeBack(t, startLink(t, env, b.session(), "corp"), "c-alice"))
	location(t, confirmLink(t, env, b.session(), code), http.StatusSeeOther)
	approveDevice(t, env, b.session())
	c := newBrowser(t, env)
	c.at(t, "corp", "c-alice") // its session ends with the link
	var linked struct {
		Items []struct{ ID, Subject string }
	}
	want(t, http.StatusOK, env.Do(t, http.MethodGet, "/v1/me/identities", b.session(), nil)).JSON(t, &linked)
	for _, one := range linked.Items {
		if one.Subject == "c-alice" {
			want(t, http.StatusNoContent, env.Do(t, http.MethodDelete, "/v1/me/identities/"+one.ID, b.session(), nil))
		}
	}
	for rows, times := range map[string]int{
		`action = 'session.create' and detail like 'by %' and via_id is null and via_kind is null`: 3,
		`action = 'session.create' and detail = 'device approved'`:                                 1,
		`action = 'identity.link'`: 1, `action = 'identity.unlink'`: 1, `action = 'session.end'`: 1,
	} {
		if times < 3 {
			rows += ` and via_kind = 'session' and via_id = '` + session + `'`
		}
		if n := number(t, env, `select count(*) from audit_events where `+rows); n != times {
			t.Errorf("%d rows, want %d: %s", n, times, rows)
		}
	}
	if n := number(t, env, `select count(*) from audit_events`); n != 7 {
		t.Errorf("%d rows in all", n)
	}
}

// another is a code of the same form that is not this one.
func another(code string) string {
	if strings.HasPrefix(code, "x") {
		return "y" + code[1:]
	}
	return "x" + code[1:]
}
