package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"noted/server/servertest"
)

// A 403 names the key's role only if that role alone lacks the permission: the same person would be allowed
// without the key.
func TestARefusalTellsWhetherTheKeysRoleAloneIsInTheWay(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	ada, bob := env.SignIn(t, "ada"), env.SignIn(t, "bob")
	w := newWriteWorld(t, env)
	limitedBy := func(a servertest.Answer) string {
		var body struct {
			LimitedBy string `json:"limited_by"`
		}
		if a.Status == http.StatusForbidden {
			a.JSON(t, &body)
		}
		return body.LimitedBy
	}
	limited, other := 0, 0
	for who, session := range map[string]string{"ada": ada, "bob": bob} {
		own, key := env.NewKey(t, session, "key-reader")
		for _, route := range routesOf(t, env) {
			method, path := splitRoute(route)
			if slices.Contains(publicRoutes, route) || strings.HasPrefix(path, "/auth/") {
				continue
			}
			thing := map[string]string{"/v1/notes": w.note, "/v1/deadzone": w.dead, "/v1/keys": own, "/v1/orgs/{org}/keys": w.orgKey}[strings.Split(path, "/{id}")[0]]
			switch {
			case strings.Contains(path, "notebooks/{id}"):
				thing = w.notebook
			case strings.Contains(path, "{org}/notes/{id}"):
				thing = w.orgNote
			case strings.Contains(path, "invitations/{id}"):
				thing = w.invitation
			case strings.Contains(path, "users/{id}"):
				thing = w.carol
			}
			address := strings.NewReplacer("{id}", thing, "{org}", w.org, "{user}", w.member).Replace(path) + "?nonsense=1" // refused after the decision
			byKey, bySession := env.Do(t, method, address, key, nil), env.Do(t, method, address, session, nil)
			if byKey.Status != http.StatusForbidden {
				continue
			}
			want := ""
			if bySession.Status != http.StatusForbidden && bySession.Status != http.StatusNotFound {
				want = "key-reader"
				limited++
			} else {
				other++
			}
			if got := limitedBy(byKey); got != want {
				t.Errorf("%s by a key of %s: limited by %q, want %q; the session gets %d", route, who, got, want, bySession.Status)
			}
			if got := limitedBy(bySession); got != "" {
				t.Errorf("%s by a session of %s is limited by %q", route, who, got)
			}
		}
	}
	if limited < 20 || other < 5 {
		t.Errorf("%d refusals by the key's role, %d others", limited, other)
	}
	for role, want := range map[string]string{"admin": "key-reader", "reader": ""} {
		var key struct{ Secret string }
		env.Do(t, http.MethodPost, "/v1/orgs/"+w.org+"/keys", w.ada, map[string]any{"name": "n", "org_role": role, "role": "key-reader"}).JSON(t, &key)
		if got := limitedBy(env.Do(t, http.MethodDelete, "/v1/orgs/"+w.org, key.Secret, nil)); got != want {
			t.Errorf("a service %s: limited by %q, want %q", role, got, want)
		}
	}
}
