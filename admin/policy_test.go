package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"noted"
	"noted/server"
	"noted/server/servertest"
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
	LimitedBy *string `json:"limited_by"`
	Names     []struct {
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
	// An aged name does not count, but is shown. The answer is the same as for bob.
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
	// By everyone's permissions.
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
	// Asking alone tells nobody.
	_, key := env.NewKey(t, ada, "key-admin")
	explain(t, env, key, ask)
	want(t, 403, env.Do(t, "POST", "/v1/admin/explain", bob, ask))
}

// A key's explanation is what happens to it: both of its roles must allow.
func TestAnAdminIsToldWhyAKeyMayNot(t *testing.T) {
	env := servertest.New(t, func(o *server.Options) {
		policy, err := servertest.LoadPolicy([]byte(string(noted.Policy) + "\ng, bob@dev.example, moderator\np, helper, policy, explain\ng, dev:alice, helper\n"))
		o.Policy = servertest.Fixed(t, policy, err)
	})
	ada, alice, bob := env.SignIn(t, "ada"), env.SignIn(t, "alice"), env.SignIn(t, "bob")
	readerKey, reader := env.NewKey(t, bob, "key-reader")
	adminKey, _ := env.NewKey(t, bob, "key-admin")
	org := env.NewOrg(t, ada, "The firm")
	var service struct{ ID, Secret string }
	want(t, 201, env.Do(t, "POST", "/v1/orgs/"+org+"/keys", ada, map[string]any{"name": "robot", "org_role": "writer", "role": "key-reader"})).JSON(t, &service)
	ask := func(key, permission string) (explanation, string) {
		t.Helper()
		object, act, _ := strings.Cut(permission, " ")
		e := explain(t, env, ada, map[string]any{"key_id": key, "object": object, "act": act})
		limited := ""
		if e.LimitedBy != nil {
			limited = *e.LimitedBy
		}
		if e.Allowed != (e.Missing == nil) || e.Allowed != (len(e.Because) > 0) || e.Allowed && limited != "" {
			t.Errorf("%s: %+v", permission, e)
		}
		return e, limited
	}
	for _, c := range []struct {
		name, key, permission string
		because, limited      string
		missing               []string
	}{
		{"both allow it", readerKey, "note:own read", "p, user, note:own, read | p, key-reader, note:own, read", "", nil},
		{"the key alone lacks it", readerKey, "note:own write", "", "key-reader", []string{"key-admin", "key-writer"}},
		{"the person alone lacks it", adminKey, "note:any delete", "", "", []string{"admin"}},
		{"both lack it", readerKey, "note:any delete", "", "", []string{"admin"}},
		{"by e-mail, and the key includes it", adminKey, "note:any read", "g, bob@dev.example, moderator | p, moderator, note:any, read | p, key-admin, note:any, read", "", nil},
		{"a service: both allow it", service.ID, "note:org read", "g, org-writer, org-reader | p, org-reader, note:org, read | p, key-reader, note:org, read", "", nil},
		{"a service: the key alone lacks it", service.ID, "note:org write", "", "key-reader", []string{"key-admin", "key-writer"}},
		{"a service: its organization role lacks it", service.ID, "note:restricted read", "", "", []string{"org-admin"}},
		{"a service: who it is, by its key alone", service.ID, "self read", "p, key-reader, self, read", "", nil},
		{"a service is no person", service.ID, "note:own read", "", "", []string{}},
	} {
		e, limited := ask(c.key, c.permission)
		if texts(e) != c.because || limited != c.limited || e.Missing != nil && !slices.Equal(e.Missing.Roles, c.missing) {
			t.Errorf("%s: %+v, limited by %q", c.name, e, limited)
		}
		if len(e.Names) != map[string]int{readerKey: 2, adminKey: 2, service.ID: 0}[c.key] || e.Names == nil {
			t.Errorf("%s: names %+v", c.name, e.Names)
		}
	}
	// As in the refusal.
	var refused struct {
		Permission string
		LimitedBy  string `json:"limited_by"`
	}
	want(t, 403, env.Do(t, "POST", "/v1/notes", reader, map[string]any{"title": "x", "body": ""})).JSON(t, &refused)
	if _, limited := ask(readerKey, refused.Permission); limited != refused.LimitedBy || limited == "" {
		t.Errorf("explained %q, refused %q", limited, refused.LimitedBy)
	}
	// Aged names count no more for keys than for sessions.
	env.Exec(t, `update identities set signed_in_at = now() - interval '8 days' where subject = 'bob'`)
	if e, limited := ask(readerKey, "note:any read"); e.Allowed || limited != "" || !e.Names[1].Aged {
		t.Errorf("got %+v", e)
	}
	// Asking about others' keys needs reading accounts; a subject has no LimitedBy.
	question := func(key string) map[string]any {
		return map[string]any{"key_id": key, "object": "note:own", "act": "read"}
	}
	for _, key := range []string{readerKey, nobody} {
		if a := want(t, 403, env.Do(t, "POST", "/v1/admin/explain", alice, question(key))); !strings.Contains(string(a.Body), `"permission":"user:any read"`) {
			t.Errorf("got %s", a.Body)
		}
	}
	if e := explain(t, env, ada, map[string]any{"subject": "user", "object": "note:own", "act": "read"}); e.LimitedBy != nil {
		t.Errorf("got %+v", e)
	}
	// A revoked key is not found.
	want(t, 204, env.Do(t, "DELETE", "/v1/keys/"+readerKey, bob, nil))
	for _, key := range []string{readerKey, nobody} {
		want(t, 404, env.Do(t, "POST", "/v1/admin/explain", ada, question(key)))
	}
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
		{map[string]any{"object": "note:own", "act": "read"}, 422, "body", "needs one of"},
		{map[string]any{"object": "note:own", "act": "read", "subject": "user", "user_id": nobody}, 422, "body", "needs one of"},
		{map[string]any{"object": "note:own", "act": "read", "subject": "user", "key_id": nobody}, 422, "body", "needs one of"},
		{map[string]any{"object": "note:own", "act": "read", "user_id": nobody, "key_id": nobody}, 422, "body", "needs one of"},
		{map[string]any{"object": "note:own", "act": "read", "key_id": "x"}, 422, "body.key_id", ""},
		{map[string]any{"object": "note:own", "act": "read", "key_id": nil}, 422, "body.key_id", "null"},
		{map[string]any{"object": "note:own", "act": "read", "subject": "*@dev.example"}, 422, "body.subject", "names nobody"},
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
