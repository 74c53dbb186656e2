package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"noted"
	"noted/internal/server"
	"noted/internal/server/servertest"
)

type explanation struct {
	Allowed bool
	Because []struct {
		Line int
		Text string
	}
	Missing *struct {
		Permission string
		Roles      []string
	}
	Names []struct {
		Name  string
		Aged  bool
		Until *time.Time
	}
}

func explain(t *testing.T, env *servertest.Env, token string, body map[string]any) (e explanation) {
	t.Helper()
	want(t, 200, env.Do(t, "POST", "/v1/admin/explain", token, body)).JSON(t, &e)
	return e
}

func texts(e explanation) string {
	var list []string
	for _, step := range e.Because {
		list = append(list, step.Text)
	}
	return strings.Join(list, " | ")
}

func TestAnAdminIsToldWhyAUserMay(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) {
		policy, err := servertest.LoadPolicy([]byte(string(noted.Policy) + "\ng, bob@dev.example, moderator\n"))
		o.Policy = servertest.Fixed(t, policy, err)
	})
	ada := env.SignIn(t, "ada")
	env.SignIn(t, "mona")
	bob := env.SignIn(t, "bob")
	id := find(t, env, ada, "bob").ID
	ask := map[string]any{"user_id": id, "object": "note:any", "act": "read"}
	e := explain(t, env, ada, ask)
	if !e.Allowed || e.Missing != nil || texts(e) != "g, bob@dev.example, moderator | p, moderator, note:any, read" || e.Because[1].Line != 22 {
		t.Errorf("got %+v", e)
	}
	if len(e.Names) != 2 || e.Names[0].Name != "dev:bob" || e.Names[0].Until != nil || e.Names[1].Name != "bob@dev.example" || e.Names[1].Aged || e.Names[1].Until == nil ||
		time.Until(*e.Names[1].Until) < 167*time.Hour || time.Until(*e.Names[1].Until) > 168*time.Hour {
		t.Errorf("names %+v", e.Names)
	}
	// A name that has aged does not count, is shown all the same, and the answer is the one that bob gets.
	env.Exec(t, `update identities set signed_in_at = now() - interval '8 days' where subject = 'bob'`)
	e = explain(t, env, ada, ask)
	if e.Allowed || e.Because == nil || len(e.Because) != 0 || !slices.Equal(e.Missing.Roles, []string{"admin", "moderator"}) || e.Missing.Permission != "note:any read" || !e.Names[1].Aged || e.Names[0].Aged {
		t.Errorf("got %+v", e)
	}
	var refused struct{ Permission string }
	want(t, 403, env.Do(t, "GET", "/v1/notes?scope=all", bob, nil)).JSON(t, &refused)
	object, act, _ := strings.Cut(refused.Permission, " ")
	if e := explain(t, env, ada, map[string]any{"user_id": id, "object": object, "act": act}); e.Allowed {
		t.Errorf("what is refused is explained as allowed: %+v", e)
	}
	// By what everyone holds.
	if e := explain(t, env, ada, map[string]any{"user_id": id, "object": "note:own", "act": "write"}); !e.Allowed || texts(e) != "p, user, note:own, write" {
		t.Errorf("got %+v", e)
	}
	// Roles, and names known or not.
	if e := explain(t, env, ada, map[string]any{"subject": "org-writer", "object": "note:org", "act": "read"}); !e.Allowed || texts(e) != "g, org-writer, org-reader | p, org-reader, note:org, read" || e.Names == nil {
		t.Errorf("got %+v", e)
	}
	if e := explain(t, env, ada, map[string]any{"subject": "dev:ada", "object": "policy", "act": "explain"}); !e.Allowed || e.Because[0].Line != 0 {
		t.Errorf("got %+v", e)
	}
	if e := explain(t, env, ada, map[string]any{"subject": "nobody@dev.example", "object": "user:any", "act": "lock"}); e.Allowed || !slices.Equal(e.Missing.Roles, []string{"admin"}) {
		t.Errorf("got %+v", e)
	}
	// Nobody is told by asking.
	_, key := env.NewKey(t, ada, "key-admin")
	explain(t, env, key, ask)
	want(t, 403, env.Do(t, "POST", "/v1/admin/explain", bob, ask))
}

func TestAQuestionThatIsWrongIs422(t *testing.T) {
	env := servertest.New(t)
	ada := env.SignIn(t, "ada")
	for _, c := range []struct {
		body     map[string]any
		status   int
		location string
		says     string
	}{
		{map[string]any{"object": "note:own", "act": "read"}, 422, "body", "either"},
		{map[string]any{"object": "note:own", "act": "read", "subject": "user", "user_id": nobody}, 422, "body", "either"},
		{map[string]any{"object": "notes:own", "act": "read", "subject": "user"}, 422, "body.object", "write note:own"},
		{map[string]any{"object": "note:own", "act": "reed", "subject": "user"}, 422, "body.act", "write read"},
		{map[string]any{"object": "note:own", "act": "read", "subject": ""}, 422, "body.subject", ""},
		{map[string]any{"object": "note:own", "act": "read", "subject": nil}, 422, "body.subject", "null"},
		{map[string]any{"object": "note:own", "act": "read", "user_id": "bob"}, 422, "body.user_id", ""},
		{map[string]any{"object": "note:own", "act": "read", "subject": "user", "role": "x"}, 422, "body.role", ""},
		{map[string]any{"act": "read", "subject": "user"}, 422, "body", "object"},
		{map[string]any{"object": "note:own", "act": "read", "user_id": nobody}, 404, "", ""},
	} {
		a := env.Do(t, "POST", "/v1/admin/explain", ada, c.body)
		var p struct {
			Errors []struct{ Location, Message string }
		}
		a.JSON(t, &p)
		if a.Status != c.status || c.status == 422 && (len(p.Errors) == 0 || p.Errors[0].Location != c.location || !strings.Contains(p.Errors[0].Message, c.says)) {
			t.Errorf("%v: %d %s", c.body, a.Status, a.Body)
		}
	}
}

func TestWhoMayExplainButNotReadAccountsLearnsNobodysNames(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) {
		policy, err := servertest.LoadPolicy([]byte(string(noted.Policy) + "\np, helper, policy, explain\ng, dev:alice, helper\n"))
		o.Policy = servertest.Fixed(t, policy, err)
	})
	ada, alice := env.SignIn(t, "ada"), env.SignIn(t, "alice")
	id := find(t, env, ada, "ada").ID
	a := want(t, 403, env.Do(t, "POST", "/v1/admin/explain", alice, map[string]any{"user_id": id, "object": "note:own", "act": "read"}))
	if !strings.Contains(string(a.Body), `"permission":"user:any read"`) {
		t.Errorf("got %s", a.Body)
	}
	want(t, 200, env.Do(t, "POST", "/v1/admin/explain", alice, map[string]any{"subject": "user", "object": "note:own", "act": "read"}))
	want(t, 403, env.Do(t, "GET", "/v1/admin/policy", alice, nil))
}
