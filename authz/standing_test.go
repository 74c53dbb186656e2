package authz_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"noted"
	"noted/authz"
	"noted/internal/problem"
)

// standings returns all standings that somebody can have to a thing.
func standings() []authz.Standing {
	list := []authz.Standing{{Own: true}, {}}
	for _, role := range append([]string{""}, authz.MemberRoles...) {
		for _, grant := range append([]string{""}, authz.Accesses...) {
			if role == "" && grant != "" {
				continue // only members have grants
			}
			for _, restricted := range []bool{false, true} {
				list = append(list, authz.Standing{Org: uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"), Role: role, Grant: grant, Restricted: restricted})
			}
		}
	}
	return list
}

// may is the promise for notes, written out by hand for the shipped policy: who may read, write and delete.
func may(platform string, s authz.Standing, act authz.Act) bool {
	everywhere := map[string][]authz.Act{"moderator": {"read", "write"}, "admin": {"read", "write", "delete"}}[platform]
	if s.Own || slices.Contains(everywhere, act) {
		return true
	}
	byRole := map[string][]authz.Act{"reader": {"read"}, "writer": {"read", "write", "delete"}, "admin": {"read", "write", "delete"}}[s.Role]
	byGrant := map[string][]authz.Act{"read": {"read"}, "write": {"read", "write"}}[s.Grant]
	if slices.Contains(byGrant, act) {
		return true
	}
	return slices.Contains(byRole, act) && (!s.Restricted || s.Role == "admin")
}

func TestANoteIsDecidedByRoleGrantOrPlatform(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy)+"g, t:moderator, moderator\ng, t:admin, admin\n")
	allowed, refused := 0, 0
	for _, platform := range []string{"user", "moderator", "admin"} {
		p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"t:" + platform})
		for _, s := range standings() {
			for _, act := range []authz.Act{"read", "write", "delete"} {
				by, err := p.DecideOn("note", act, s)
				want := may(platform, s, act)
				if (err == nil) != want {
					t.Errorf("%s, %s, %v: %v, want allowed: %t", platform, act, s, err, want)
					continue
				}
				if want {
					allowed++
				} else {
					refused++
				}
				var got *problem.Error
				switch {
				case want:
					inside := may("user", s, act)
					if (by == authz.Any) == inside {
						t.Errorf("%s, %s, %v: by %q", platform, act, s, by)
					}
				case !errors.As(err, &got):
					t.Errorf("%s, %s, %v: %v", platform, act, s, err)
				case may(platform, s, "read") != (got.Status == 403):
					t.Errorf("%s, %s, %v: %d", platform, act, s, got.Status)
				case got.Status == 403:
					object := "note:org"
					switch {
					case s.Org == uuid.Nil:
						object = "note:any"
					case s.Restricted && s.Grant == "":
						object = "note:restricted"
					}
					if want := fmt.Sprintf("%s %s", object, act); got.Permission != want {
						t.Errorf("%s, %s, %v: missing %q, want %q", platform, act, s, got.Permission, want)
					}
				}
			}
		}
	}
	if allowed < 50 || refused < 30 {
		t.Errorf("%d allowed, %d refused", allowed, refused)
	}
}

// Only what reaches somebody else's things makes staff of a caller, whose address their record hides.
func TestOneActsByAnyOnlyOnWhatIsSomebodyElses(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy)+"g, t:admin, admin\n")
	org := uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
	for _, c := range []struct {
		kind authz.Kind
		act  authz.Act
		s    authz.Standing
		want authz.Relation
	}{
		{"member", "delete", authz.Standing{Own: true, Org: org, Role: "reader"}, authz.Own}, // leaves
		{"member", "delete", authz.Standing{Org: org, Role: "admin"}, authz.Org},
		{"note", "read", authz.Mine, authz.Own},
		{"note", "read", authz.Standing{}, authz.Any},
		{"note", "read", authz.Standing{Own: true, Org: org}, authz.Any}, // written there by somebody who is there no longer
		{"deadzone", "read", authz.Standing{Org: org}, authz.Any},
		{"user", "read", authz.Standing{}, authz.Any},
	} {
		p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"t:admin"})
		if by, err := p.DecideOn(c.kind, c.act, c.s); err != nil || by != c.want {
			t.Errorf("%s %s, %v: by %q, %v; want %q", c.kind, c.act, c.s, by, err, c.want)
		}
	}
}

func TestAKeyNarrowsWhatItsOwnerMayInAnOrganization(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy))
	session := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, nil)
	for _, role := range policy.KeyRoles() {
		key := authz.NewPrincipal(authz.Principal{Via: authz.ViaKey, KeyRole: role}, policy, nil)
		for _, kind := range []authz.Kind{"note", "notebook", "deadzone", "org", "member", "invitation", "grant", "key", "audit"} {
			for _, act := range []authz.Act{"read", "write", "delete", "restore", "purge"} {
				for _, s := range standings() {
					_, byKey := key.DecideOn(kind, act, s)
					_, bySession := session.DecideOn(kind, act, s)
					if byKey == nil && bySession != nil {
						t.Errorf("a %s may %s %s where its owner may not: %v", role, act, kind, s)
					}
					if kind == "key" && byKey == nil {
						t.Errorf("a %s may %s keys: %v", role, act, s)
					}
				}
			}
		}
		if role == "key-reader" && len(key.RolesFor(authz.Permission{Object: "note:org", Act: "write"})) > 0 {
			t.Error("a key-reader writes in organizations")
		}
	}
}

func TestADeletedNoteOfARestrictedNotebookIsThereForWhoCouldReadIt(t *testing.T) {
	policy := mustLoad(t, string(noted.Policy)+"p, org-writer, deadzone:org, read\np, org-admin, deadzone:org, restore\n")
	p := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, nil)
	for _, s := range standings() {
		if s.Org == uuid.Nil {
			continue
		}
		_, err := p.DecideOn("deadzone", "read", s)
		want := s.Role == "admin" || s.Role == "writer" && !s.Restricted // a grant reaches no deleted note
		if (err == nil) != want {
			t.Errorf("%v: %v", s, err)
		}
	}
}
