package web_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"noted/server/servertest"
)

// invited makes an organization of alice's with an invitation, and returns its token and id.
func invited(t *testing.T, env *servertest.Env, alice, org, email string) (token, id string) {
	t.Helper()
	a := env.Do(t, "POST", "/v1/orgs/"+org+"/invitations", alice, map[string]string{"email": email, "role": "writer"})
	if a.Status != http.StatusCreated {
		t.Fatalf("inviting: %d %s", a.Status, a.Body)
	}
	var made struct{ ID, Token string }
	a.JSON(t, &made)
	return made.Token, made.ID
}

// post posts the page's form as a browser does.
func post(t *testing.T, env *servertest.Env, session, body string) servertest.Answer {
	t.Helper()
	return env.Do(t, "POST", "/invitation", "", body, "Content-Type", form, "Accept", "text/html", "Cookie", "noted_session="+session, "Sec-Fetch-Site", "same-origin")
}

func TestAnInvitationSaysByWhomToWhatAndAsWhatBeforeItIsAccepted(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, alice, "<Acme> & sons")
	token, _ := invited(t, env, alice, org, "bob@dev.example")

	// The token and the whole link count; looking uses nothing up.
	for _, pasted := range []string{token, env.URL + "/invitation%23" + token, "%20" + token + "%0A"} {
		a := post(t, env, bob, "token="+pasted)
		text := string(a.Body)
		if a.Status != http.StatusOK || !strings.Contains(text, "alice invites you to <strong>&lt;Acme&gt; &amp; sons</strong>, as writer.") ||
			!strings.Contains(text, `<button name="join" value="yes">Join</button>`) || !strings.Contains(text, `value="`+token+`"`) || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: %d %v %s", pasted, a.Status, a.Header, text)
		}
	}
	a := post(t, env, bob, "token="+token+"&join=yes")
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Errorf("joining: %d %v %s", a.Status, a.Header, a.Body)
	}
	// It leads to the page with the membership.
	if text := string(env.Do(t, "GET", "/", bob, nil).Body); !strings.Contains(text, "<li>&lt;Acme&gt; &amp; sons, as writer</li>") {
		t.Errorf("afterwards bob sees %s", text)
	}
	var me struct{ Orgs []struct{ Role string } }
	env.Do(t, "GET", "/v1/me", bob, nil).JSON(t, &me)
	if len(me.Orgs) != 1 || me.Orgs[0].Role != "writer" {
		t.Errorf("bob is in %+v", me.Orgs)
	}
	// A member is told that they are one.
	again, _ := invited(t, env, alice, org, "bob@dev.example")
	if a := post(t, env, bob, "token="+again+"&join=yes"); a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "a member of this organization already") {
		t.Errorf("a member joins: %d %s", a.Status, a.Body)
	}
}

func TestAnInvitationOfAServiceSaysItsName(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, alice, "acme")
	var key struct{ Secret string }
	env.Do(t, "POST", "/v1/orgs/"+org+"/keys", alice, map[string]string{"name": "onboarding", "org_role": "admin", "role": "key-admin"}).JSON(t, &key)
	token, _ := invited(t, env, key.Secret, org, "bob@dev.example")
	if a := post(t, env, bob, "token="+token); !strings.Contains(string(a.Body), "onboarding invites you to <strong>acme</strong>") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// Looking tells no more than accepting: whatever is wrong with a token, the page is the same.
func TestAnInvitationThatDoesNotCountIsAlikeWhateverIsWrongWithIt(t *testing.T) {
	env := servertest.New(t)
	alice, bob := env.SignIn(t, "alice"), env.SignIn(t, "bob")
	org := env.NewOrg(t, alice, "secret name")
	used, _ := invited(t, env, alice, org, "bob@dev.example")
	revoked, id := invited(t, env, alice, org, "bob@dev.example")
	expired, expiredID := invited(t, env, alice, org, "bob@dev.example")
	another, _ := invited(t, env, alice, org, "carol@dev.example")
	env.SignIn(t, "carol")
	lockedMaker, lockedID := invited(t, env, alice, org, "bob@dev.example")
	unverified, _ := invited(t, env, alice, org, "dave@dev.example")
	dave := env.SignIn(t, "dave")
	if a := post(t, env, bob, "token="+used+"&join=yes"); a.Status != http.StatusSeeOther {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	env.Do(t, "DELETE", "/v1/orgs/"+org+"/invitations/"+id, alice, nil)
	env.Exec(t, `update invitations set created_at = now() - interval '8 days', expires_at = now() - interval '1 day' where id = $1`, expiredID)
	env.Exec(t, `update identities set email_verified = false where subject = 'dave'`)
	env.Exec(t, `update invitations set created_by = (select user_id from identities where subject = 'carol') where id = $1`, lockedID)

	gone := env.NewOrg(t, alice, "gone")
	ended, _ := invited(t, env, alice, gone, "bob@dev.example")
	env.Do(t, "DELETE", "/v1/orgs/"+gone, alice, nil)

	var first string
	check := func(name, session, token string) {
		t.Helper()
		for _, join := range []string{"", "&join=yes"} {
			a := post(t, env, session, "token="+token+join)
			text := strings.NewReplacer(a.Header.Get("X-Request-Id"), "ID", `value="`+token+`"`, `value="TOKEN"`, "dave", "bob").Replace(string(a.Body))
			if first == "" {
				first = text
			}
			if a.Status != http.StatusNotFound || text != first || strings.Contains(text, "secret name") || strings.Contains(text, "alice") || strings.Contains(text, "Join<") {
				t.Errorf("%s%s: %d %s\nwant as\n%s", name, join, a.Status, text, first)
			}
			if !strings.Contains(string(a.Body), a.Header.Get("X-Request-Id")) {
				t.Errorf("%s: no request id", name)
			}
		}
	}
	check("unknown", bob, "nothing")
	check("empty", bob, "")
	check("used", bob, used)
	check("revoked", bob, revoked)
	check("expired", bob, expired)
	check("another's", bob, another)
	check("of an ended organization", bob, ended)
	check("for an e-mail that is not verified", dave, unverified)
	env.Exec(t, `update users set locked_at = now() where id = (select user_id from identities where subject = 'carol')`)
	check("made by somebody who is locked", bob, lockedMaker)
	// A program gets the operation's 404.
	a := env.Do(t, "POST", "/invitation", bob, "token=nothing", "Content-Type", form)
	b := env.Do(t, "POST", "/v1/invitations/accept", bob, map[string]string{"token": "nothing"})
	if a.Status != 404 || string(a.Body) != string(b.Body) {
		t.Errorf("%d %s, the operation says %s", a.Status, a.Body, b.Body)
	}
}

func TestTheInvitationPageOffersNothingWithoutAToken(t *testing.T) {
	env := servertest.New(t)
	bob := env.SignIn(t, "bob")
	stranger, person := string(env.Do(t, "GET", "/invitation", "", nil).Body), string(env.Do(t, "GET", "/invitation", bob, nil).Body)
	for _, text := range []string{stranger, person} {
		if strings.Contains(text, "Join<") || strings.Contains(text, `name="join"`) {
			t.Errorf("it offers to join: %s", text)
		}
	}
	// Without scripts people paste the token.
	if !regexp.MustCompile(`(?s)<noscript>.*<label>Invitation <input name="token"[^>]*>.*</noscript>`).MatchString(person) {
		t.Errorf("no textbox without scripts: %s", person)
	}
	if strings.Contains(stranger, `name="token"`) || !strings.Contains(stranger, "return_to=/invitation") {
		t.Errorf("a stranger sees %s", stranger)
	}
	// Only a person's session may post the form, from here.
	for name, a := range map[string]servertest.Answer{
		"nobody":       env.Do(t, "POST", "/invitation", "", "token=x", "Content-Type", form),
		"another site": env.Do(t, "POST", "/invitation", "", "token=x", "Content-Type", form, "Cookie", "noted_session="+bob, "Sec-Fetch-Site", "cross-site"),
	} {
		if a.Status != 401 && a.Status != 403 {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}
