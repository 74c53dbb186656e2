package server_test

import (
	"net/http"
	"testing"

	"noted/server/servertest"
)

func TestSomebodySignsInAndIsWhoTheyAre(t *testing.T) {
	env := servertest.New(t)
	a := env.Do(t, http.MethodGet, "/v1/me", env.SignIn(t, "ada"), nil)
	if a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var me struct {
		Name  string
		Roles []string
		Via   string
	}
	a.JSON(t, &me)
	if me.Name != "ada" || me.Via != "session" || len(me.Roles) != 2 || me.Roles[0] != "admin" {
		t.Errorf("got %s", a.Body)
	}
}
