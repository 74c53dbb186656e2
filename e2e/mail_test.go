package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"noted/internal/mailtest"
)

// At most 30 invitations an hour are mailed for a person, whatever they do: deleting the organization returns
// none, and a service key's count for its maker. A key's name breaks no line of a mail.
func TestNobodyHasMoreMailsSentThanTheLimit(t *testing.T) {
	t.Parallel()
	mails := mailtest.New(t, false)
	d := startDev(t, publicFolder(t, nil), nil, "--empty", "--smtp-url", "smtp://"+mails.Address, "--mail-from", "noted <noted@dev.example>")
	alice := d.signedIn(t, "alice")
	made := 0
	invite := func(c client, org string) {
		made++
		c.do(t, http.MethodPost, "/v1/orgs/"+org+"/invitations", map[string]string{"email": fmt.Sprintf("victim%d@dev.example", made), "role": "reader"}).want(t, http.StatusCreated)
	}
	for range 3 {
		var org, key struct{ ID, Secret string }
		alice.do(t, http.MethodPost, "/v1/orgs", map[string]string{"name": "Free money"}).want(t, http.StatusCreated).into(t, &org)
		keys := "/v1/orgs/" + org.ID + "/keys"
		for _, name := range []string{"x\r\nSubject: y", "x\ny", "x\u2028y", "\u202ey", " "} {
			alice.do(t, http.MethodPost, keys, map[string]string{"name": name, "org_role": "admin", "role": "key-admin"}).want(t, http.StatusUnprocessableEntity)
		}
		alice.do(t, http.MethodPost, keys, map[string]string{"name": "mallory", "org_role": "admin", "role": "key-admin"}).want(t, http.StatusCreated).into(t, &key)
		service := plainClient(d.url, key.Secret)
		for range 8 {
			invite(alice.client, org.ID)
			invite(service, org.ID)
		}
		alice.do(t, http.MethodDelete, "/v1/orgs/"+org.ID, nil).want(t, http.StatusNoContent)
	}
	sent := mails.Mail()
	if len(sent) != 30 {
		t.Errorf("%d mails for %d invitations, want 30", len(sent), made)
	}
	for _, mail := range sent {
		if !strings.Contains(mail, "\r\nSubject: Invitation to an organization on noted: ") {
			t.Errorf("got %s", mail)
		}
	}
	d.stop(t)
}
