package identity

import (
	"net/http"
	"strings"
	"time"
)

// cookieNames depend on the public address. Over https they have the __Host- prefix (RFC
// 6265bis, 4.1.3.2), so that no other host and no plain http can plant them.
type cookieNames struct {
	session string
	signIn  string // with a hash of the state appended: two tabs may sign in at once
	secure  bool
}

func cookieNamesFor(publicURL string) cookieNames {
	if strings.HasPrefix(publicURL, "https:") {
		return cookieNames{"__Host-noted_session", "__Host-noted_signin_", true}
	}
	return cookieNames{"noted_session", "noted_signin_", false}
}

// set sets a cookie that scripts cannot read and that cross-site POSTs do not send. It lasts
// for life; a negative life deletes it.
func (c cookieNames) set(w http.ResponseWriter, name, value string, life time.Duration) {
	maxAge := int(life.Seconds())
	if life < 0 {
		maxAge = -1
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure is left out on loopback http alone, where browsers would drop it
		Name: name, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteLaxMode,
	})
}

// SessionCookie is the name of the session cookie.
func (s *Service) SessionCookie() string { return s.cookies.session }
