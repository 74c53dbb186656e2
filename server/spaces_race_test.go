//go:build race

package server_test

import (
	"net/http"
	"testing"

	"noted/server/servertest"
)

// Every suite checks its statements when a server ends. Here each exception is used, so that none outlives its
// reason.
func TestEveryStatementThatLooksAcrossSpacesIsStillNeeded(t *testing.T) {
	t.Parallel()
	s := newSpaced(t)
	s.must(t, http.MethodGet, "/v1/notes/"+s.inOrg, s.alice, nil, http.StatusOK)
	s.must(t, http.MethodGet, "/v1/notes?notebook_id="+s.notebook, s.alice, nil, http.StatusOK)
	s.must(t, http.MethodGet, "/v1/notes?scope=all", s.ada, nil, http.StatusOK)
	s.must(t, http.MethodGet, "/v1/deadzone", s.ada, nil, http.StatusOK)
	s.must(t, http.MethodGet, "/v1/deadzone/"+s.dead, s.ada, nil, http.StatusOK)
	if _, err := s.Server.Notes.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	needed := s.Excepted(t)
	for _, x := range servertest.AcrossSpaces {
		if !needed[x] {
			t.Errorf("nothing needs the exception for %q: %s", x.In, x.Why)
		}
	}
}

// A service reaches nothing outside its organization, so it is not asked there.
func TestAServiceNeedsNoStatementAcrossSpaces(t *testing.T) {
	t.Parallel()
	s := newSpaced(t)
	before := len(s.Excepted(t))
	s.must(t, http.MethodGet, "/v1/notes/"+s.inOrg, s.service, nil, http.StatusOK)
	s.must(t, http.MethodGet, "/v1/notes/"+s.own, s.service, nil, http.StatusNotFound)
	s.must(t, http.MethodGet, "/v1/notes?notebook_id="+s.notebook, s.service, nil, http.StatusOK)
	s.must(t, http.MethodPatch, "/v1/notes/"+s.byService, s.service, `{"title":"new"}`, http.StatusOK)
	if after := len(s.Excepted(t)); after != before {
		t.Errorf("it needed %d exceptions", after-before)
	}
}
