package identity_test

import (
	"slices"
	"testing"
	"time"

	"noted"
	"noted/authz"
	"noted/identity"
	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
	"noted/server/servertest"
)

func TestNamesForThePolicyAreOnlyWhatTheProviderMaySay(t *testing.T) {
	t.Parallel()
	providers := oidc.Providers{
		{ID: "corp", Issuer: "https://corp.example", EmailDomains: []string{"corp.example"}},
		{ID: "public", Issuer: "https://public.example"},
	}
	s := identity.New(nil, nil, nil, identity.Config{Providers: providers, GroupMaxAge: time.Hour}, nil, nil)
	corp := func(change func(*identity.Identity)) identity.Identity {
		i := identity.Identity{Identity: oidc.Identity{Issuer: "https://corp.example", Subject: "s", Email: "Ada@Corp.example", EmailVerified: true, Groups: []string{"/staff", "a:b"}}}
		if change != nil {
			change(&i)
		}
		return i
	}
	for _, c := range []struct {
		name string
		from identity.Identity
		want []string
	}{
		{"all of them", corp(nil), []string{"corp:s", "ada@corp.example", "group:corp:/staff", "group:corp:a:b"}},
		{"just fresh", corp(func(i *identity.Identity) { i.AgeSeconds = 3599.9 }), []string{"corp:s", "ada@corp.example", "group:corp:/staff", "group:corp:a:b"}},
		{"just too old", corp(func(i *identity.Identity) { i.AgeSeconds = 3600 }), []string{"corp:s"}},
		{"unverified", corp(func(i *identity.Identity) { i.EmailVerified = false }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"of another domain", corp(func(i *identity.Identity) { i.Email = "ada@public.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"of a subdomain", corp(func(i *identity.Identity) { i.Email = "ada@x.corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"two @", corp(func(i *identity.Identity) { i.Email = "ada@corp.example@evil.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"with a colon", corp(func(i *identity.Identity) { i.Email = "group:corp:x@corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"with a blank", corp(func(i *identity.Identity) { i.Email = "a da@corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"beyond ASCII", corp(func(i *identity.Identity) { i.Email = "аda@corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}}, // a Cyrillic а
		{"the Kelvin sign for k", corp(func(i *identity.Identity) { i.Email = "\u212Aate@corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"no @", corp(func(i *identity.Identity) { i.Email = "corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"the domain alone", corp(func(i *identity.Identity) { i.Email = "@corp.example" }), []string{"corp:s", "group:corp:/staff", "group:corp:a:b"}},
		{"a provider authoritative for nothing", identity.Identity{Identity: oidc.Identity{Issuer: "https://public.example", Subject: "s", Email: "ada@corp.example", EmailVerified: true}}, []string{"public:s"}},
		{"an issuer that is not configured", identity.Identity{Identity: oidc.Identity{Issuer: "https://gone.example", Subject: "s", Email: "ada@corp.example", EmailVerified: true, Groups: []string{"x"}}}, nil},
		{"an issuer that ends alike", identity.Identity{Identity: oidc.Identity{Issuer: "https://corp.example/", Subject: "s"}}, nil},
	} {
		if got := s.Names([]identity.Identity{c.from}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	both := s.Names([]identity.Identity{{Identity: oidc.Identity{Issuer: "https://public.example", Subject: "p"}}, {Identity: oidc.Identity{Issuer: "https://corp.example", Subject: "c"}}})
	if !slices.Equal(both, []string{"public:p", "corp:c"}) {
		t.Errorf("two identities: %q", both)
	}
	if none := s.Names(nil); len(none) != 0 {
		t.Errorf("no identity: %q", none)
	}
}

func withPolicy(t testing.TB, add string) func(*server.Options) {
	t.Helper()
	policy, err := authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: append(slices.Clone(noted.Policy), "\n"+add...)})
	return func(o *server.Options) { o.Policy = servertest.Fixed(t, policy, err) }
}

func TestAGroupOfTheSignedTokenGivesItsRoleWhileItIsFresh(t *testing.T) {
	t.Parallel()
	env := servertest.New(t, withPolicy(t, "g, group:dev:/noted/admins, admin\ng, bob@dev.example, moderator\n"))
	roles := func(session string) []string {
		t.Helper()
		var me struct{ Roles []string }
		want(t, 200, env.Do(t, "GET", "/v1/me", session, nil)).JSON(t, &me)
		return me.Roles
	}
	env.Provider.SetLie(claim("groups", []string{"/noted/admins"}))
	alice := env.SignIn(t, "alice")
	if got := roles(alice); !slices.Equal(got, []string{"admin", "user"}) {
		t.Errorf("by group: %v", got)
	}
	env.Exec(t, `update identities set signed_in_at = now() - interval '168 hours' + interval '5 seconds'`)
	if got := roles(alice); !slices.Equal(got, []string{"admin", "user"}) {
		t.Errorf("just before group_max_age: %v", got)
	}
	_, key := env.NewKey(t, alice, "key-admin")
	env.Exec(t, `update identities set signed_in_at = now() - interval '168 hours'`)
	if got := roles(alice); !slices.Equal(got, []string{"user"}) {
		t.Errorf("after group_max_age: %v", got)
	}
	if got := roles(key); !slices.Equal(got, []string{"user"}) {
		t.Errorf("after group_max_age, by key: %v", got)
	}
	want(t, 403, env.Do(t, "GET", "/v1/admin/users", key, nil))
	// The next sign-in without the group removes the role from all sessions.
	env.SignIn(t, "alice")
	env.Provider.SetLie(devidp.Lie{})
	env.SignIn(t, "alice")
	if got := roles(alice); !slices.Equal(got, []string{"user"}) {
		t.Errorf("after a sign-in without it: %v", got)
	}

	bob := env.SignIn(t, "bob")
	if got := roles(bob); !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("by e-mail: %v", got)
	}
	env.Provider.SetLie(claim("email_verified", false))
	env.SignIn(t, "bob")
	if got := roles(bob); !slices.Equal(got, []string{"user"}) {
		t.Errorf("by an e-mail that is not verified: %v", got)
	}
	env.Provider.SetLie(claim("email", "bob@dev.example"))
	if got := roles(env.SignIn(t, "carol")); !slices.Equal(got, []string{"moderator", "user"}) {
		t.Errorf("the provider is authoritative for the domain, whoever it gives the address to: %v", got)
	}
}
