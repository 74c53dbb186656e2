package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"noted/server"
	"noted/server/servertest"
)

// exchangeForm is what a client sends for a token.
func exchangeForm(token string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"subject_token":      {token},
	}
}

// idToken is an honest one of alice's, with these claims besides; nil takes one away.
func idToken(t testing.TB, env *servertest.Env, claims map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": env.Issuer, "aud": "noted", "sub": "alice", "name": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"jti": time.Now().String(),
	}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return sign(t, env, all)
}

func TestExchangeTakesOnlyTokensMadeForItJustNow(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, func(o *server.Options) {
		o.Providers[0].AllowedAudiences = []string{"mobile"}
		o.Providers[0].AllowedEmailDomains = []string{"dev.example"}
	})
	mail := func(more map[string]any) map[string]any {
		all := map[string]any{"email": "alice@dev.example", "email_verified": true}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	ago := func(d time.Duration) map[string]any { return mail(map[string]any{"iat": time.Now().Add(-d).Unix()}) }
	for _, c := range []struct {
		what   string
		claims map[string]any
		reason string // empty: it counts
	}{
		{"its own client", mail(nil), ""},
		{"an allowed audience", mail(map[string]any{"aud": "mobile", "azp": "mobile"}), ""},
		{"both", mail(map[string]any{"aud": []string{"mobile", "noted"}, "azp": "noted"}), ""},
		{"another audience", mail(map[string]any{"aud": "other"}), "id_token"},
		{"another audience besides", mail(map[string]any{"aud": []string{"noted", "other"}}), "id_token"},
		{"no audience", mail(map[string]any{"aud": nil}), "id_token"},
		{"a foreign azp", mail(map[string]any{"azp": "other"}), "id_token"},
		{"4 m 55 s old", ago(4*time.Minute + 55*time.Second), ""},
		{"5 m 2 s old", ago(5*time.Minute + 2*time.Second), "id_token"},
		{"55 s to come", ago(-55 * time.Second), ""},
		{"65 s to come", ago(-65 * time.Second), "id_token"},
		{"no iat", mail(map[string]any{"iat": nil}), "id_token"},
		{"expired", mail(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "id_token"},
		{"no sub", mail(map[string]any{"sub": nil}), "id_token"},
		{"an empty sub", mail(map[string]any{"sub": ""}), "id_token"},
		{"a logout token", mail(map[string]any{"events": map[string]any{logoutEvent: map[string]any{}}}), "id_token"},
		{"Keycloak's access token", mail(map[string]any{"typ": "Bearer"}), "id_token"},
		{"another issuer", mail(map[string]any{"iss": "https://elsewhere.example"}), "id_token"},
		{"a gate", mail(map[string]any{"email": "alice@other.example"}), "gate"},
		{"an e-mail that is not verified", mail(map[string]any{"email_verified": "true"}), "gate"},
	} {
		sent := time.Now()
		a := postForm(t, env, "/auth/token", exchangeForm(idToken(t, env, c.claims)))
		switch {
		case c.reason == "":
			if a.Status != http.StatusOK {
				t.Errorf("%s: %d %s", c.what, a.Status, logOf(env, a))
			}
		case a.Status != http.StatusBadRequest || string(a.Body) != `{"error":"invalid_request"}` || time.Since(sent) < servertest.Floor:
			t.Errorf("%s: %d %s after %v", c.what, a.Status, a.Body, time.Since(sent))
		case !strings.Contains(logOf(env, a), "reason="+c.reason+" "):
			t.Errorf("%s: %s", c.what, logOf(env, a))
		}
	}
}
