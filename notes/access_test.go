package notes_test

import (
	"net/http"
	"slices"
	"testing"

	"noted"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

type access struct {
	ID, Kind, Name string
	Locked         bool
	Acts           []string
	Reasons        []struct {
		By, On, Role string
		Acts         []string
		Because      []struct {
			Line int
			Text string
		}
	}
}

// TestWhoHasAccessIsWhatAskingEachOfThemGives compares the answer with what each person gets who
// reads, writes and deletes, and checks the reasons.
func TestWhoHasAccessIsWhatAskingEachOfThemGives(t *testing.T) {
	env := servertest.New(t)
	tokens := map[string]string{}
	for _, name := range servertest.People {
		tokens[name] = env.SignIn(t, name)
	}
	ids := map[string]string{}
	for name, token := range tokens {
		var me struct{ ID string }
		env.Do(t, http.MethodGet, "/v1/me", token, nil).JSON(t, &me)
		ids[name] = me.ID
	}
	org := env.NewOrg(t, tokens["alice"], "acme")
	for name, role := range map[string]string{"bob": "writer", "carol": "reader", "dave": "reader", "erin": "reader", "mona": "reader"} {
		env.Join(t, tokens["alice"], org, name, role)
	}
	for name, roles := range map[string][2]string{"reads": {"reader", "key-admin"}, "writes": {"writer", "key-writer"}, "narrowed": {"admin", "key-reader"}} {
		var key struct{ ID, Secret string }
		env.Do(t, http.MethodPost, "/v1/orgs/"+org+"/keys", tokens["alice"], map[string]string{"name": name, "org_role": roles[0], "role": roles[1]}).JSON(t, &key)
		tokens[name], ids[name] = key.Secret, key.ID
	}
	for _, restricted := range []bool{false, true} {
		notebook := env.Make(t, tokens["alice"], "/v1/orgs/"+org+"/notebooks", map[string]any{"name": "n", "restricted": restricted})
		newNote := func() string {
			return env.Make(t, tokens["alice"], "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org, "notebook_id": notebook})
		}
		note := newNote()
		grant := func(thing, name, access string) {
			t.Helper()
			if a := env.Do(t, http.MethodPut, "/v1/orgs/"+org+thing+"/grants/"+ids[name], tokens["alice"], map[string]string{"access": access}); a.Status != http.StatusOK {
				t.Fatalf("granting: %d %s", a.Status, a.Body)
			}
		}
		grant("/notebooks/"+notebook, "carol", "write")
		grant("/notes/"+note, "carol", "read")
		grant("/notes/"+note, "dave", "read")

		got := whoHasAccess(t, env, tokens["alice"], "/v1/orgs/"+org+"/notes/"+note+"/access")
		for name, token := range tokens {
			var may []string
			for act, try := range map[string]func() int{
				"read": func() int { return env.Do(t, http.MethodGet, "/v1/notes/"+note, token, nil).Status },
				"write": func() int {
					return env.Do(t, http.MethodPatch, "/v1/notes/"+note, token, map[string]string{"title": "u"}).Status
				},
				// Only a stale version, which is checked after the permission.
				"delete": func() int {
					return env.Do(t, http.MethodDelete, "/v1/notes/"+note, token, nil, "If-Match", `"0"`).Status
				},
			} {
				if status := try(); status == http.StatusOK || status == http.StatusPreconditionFailed {
					may = append(may, act)
				}
			}
			checkAccess(t, "note", name, got[ids[name]], may)
		}

		got = whoHasAccess(t, env, tokens["alice"], "/v1/orgs/"+org+"/notebooks/"+notebook+"/access")
		for name, token := range tokens {
			var may []string
			path := "/v1/orgs/" + org + "/notebooks/" + notebook
			for act, try := range map[string]func() int{
				"read":   func() int { return env.Do(t, http.MethodGet, path, token, nil).Status },
				"write":  func() int { return env.Do(t, http.MethodPatch, path, token, map[string]string{"name": "u"}).Status },
				"delete": func() int { return env.Do(t, http.MethodDelete, path, token, nil).Status }, // it is not empty
			} {
				if status := try(); status == http.StatusOK || status == http.StatusConflict {
					may = append(may, act)
				}
			}
			checkAccess(t, "notebook", name, got[ids[name]], may)
		}
	}
}

func whoHasAccess(t *testing.T, env *servertest.Env, token, path string) map[string]access {
	t.Helper()
	found, cursor := map[string]access{}, ""
	for range 50 {
		var page struct {
			Items      []access
			NextCursor *string `json:"next_cursor"`
		}
		a := env.Do(t, http.MethodGet, path+"?limit=2"+cursor, token, nil)
		if a.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.Status, a.Body)
		}
		a.JSON(t, &page)
		for _, item := range page.Items {
			if _, twice := found[item.ID]; twice {
				t.Errorf("%s is there twice", item.Name)
			}
			found[item.ID] = item
		}
		if page.NextCursor == nil {
			return found
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	t.Fatal("the list has no end")
	return nil
}

// checkAccess compares what somebody could do with the answer. Every act needs a reason, and every
// reason the lines for it.
func checkAccess(t *testing.T, kind, name string, said access, may []string) {
	t.Helper()
	slices.Sort(may)
	slices.Sort(said.Acts)
	if !slices.Equal(may, said.Acts) {
		t.Errorf("%s: %s may %v, the list says %v", kind, name, may, said.Acts)
	}
	var reasons []string
	for _, r := range said.Reasons {
		reasons = append(reasons, r.Acts...)
		if len(r.Because) == 0 {
			t.Errorf("%s: %s has a reason without a line: %+v", kind, name, r)
		}
	}
	slices.Sort(reasons)
	if reasons = slices.Compact(reasons); !slices.Equal(reasons, said.Acts) {
		t.Errorf("%s: %s may %v, by the reasons %v", kind, name, said.Acts, reasons)
	}
	byWay := map[string]int{}
	for _, r := range said.Reasons {
		byWay[r.By+" "+r.On+" "+r.Role]++
	}
	if kind == "note" && name == "carol" && (byWay["grant notebook grant-writer"] != 1 || byWay["grant note grant-reader"] != 1) {
		t.Errorf("carol's two grants are %v", byWay)
	}
	if kind == "note" && name == "mona" && byWay["platform  "] != 1 {
		t.Errorf("mona's platform role is %v", byWay)
	}
}

// Staff by e-mail and by group are found too; aged names are not.
func TestWhoHasAccessKnowsStaffByEveryKindOfName(t *testing.T) {
	policy, err := servertest.LoadPolicy([]byte(string(noted.Policy) + "g, erin@dev.example, moderator\ng, group:dev:ops, admin\ng, heidi@dev.example, moderator\n"))
	env := servertest.New(t, func(o *server.Options) { o.Policy = servertest.Fixed(t, policy, err) })
	alice := env.SignIn(t, "alice")
	env.SignIn(t, "erin")
	env.SignIn(t, "heidi")
	env.Provider.SetLie(devidp.Lie{Claims: func(signed map[string]any) { signed["groups"] = []string{"ops"} }})
	env.SignIn(t, "frank")
	env.Provider.SetLie(devidp.Lie{})
	env.Exec(t, `update identities set signed_in_at = now() - interval '8 days' where subject = 'heidi'`)
	org := env.NewOrg(t, alice, "acme")
	note := env.Make(t, alice, "/v1/notes", map[string]any{"title": "t", "body": "b", "org_id": org})
	var names []string
	for _, one := range whoHasAccess(t, env, alice, "/v1/orgs/"+org+"/notes/"+note+"/access") {
		names = append(names, one.Name+" "+one.Acts[len(one.Acts)-1])
	}
	slices.Sort(names)
	if want := []string{"alice delete", "erin write", "frank delete"}; !slices.Equal(names, want) {
		t.Errorf("access have %v, want %v", names, want)
	}
}
