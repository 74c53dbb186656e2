//go:build !race

// Sizes. The race detector has nothing to find here. `make test` runs it without.

package authz_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"noted/authz"
)

// sized is a policy with so many p lines, in roles of ten lines that include one another, and so many g lines
// that name people.
func sized(p, g int) string {
	var b strings.Builder
	var platform []authz.Permission
	for _, one := range vocabulary() {
		if roleFor(one) == "tester" {
			platform = append(platform, one)
		}
	}
	for i := range p {
		one := platform[i%len(platform)]
		fmt.Fprintf(&b, "p, r%d, %s, %s\n", i/10, one.Object, one.Act)
	}
	roles := (p + 9) / 10
	for i := range roles - 1 {
		if i%10 < 9 {
			fmt.Fprintf(&b, "g, r%d, r%d\n", i, i+1)
		}
	}
	for i := range g {
		fmt.Fprintf(&b, "g, google:%d, r%d\n", i, i%roles/10*10+9)
	}
	return b.String()
}

var sizes = []struct{ p, g int }{{100, 10}, {1_000, 10}, {1_000, 100_000}}

// BenchmarkDecide is one decision by the compiled table, as for every request.
func BenchmarkDecide(b *testing.B) {
	for _, size := range sizes {
		policy := mustLoad(b, sized(size.p, size.g))
		principal := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"google:3", "a@example.com"})
		needed := authz.Permission{Object: "audit:org", Act: "read"}
		b.Run(fmt.Sprintf("p=%d/g=%d/principal", size.p, size.g), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				principal.Holds(needed)
			}
		})
		b.Run(fmt.Sprintf("p=%d/g=%d/name", size.p, size.g), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				policy.Allows("google:3", needed)
			}
		})
	}
}

// BenchmarkEnforce is Casbin's own answer to the same question.
func BenchmarkEnforce(b *testing.B) {
	for _, size := range sizes {
		enforcer, _ := plainly(b, sized(size.p, size.g))
		b.Run(fmt.Sprintf("p=%d/g=%d", size.p, size.g), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := enforcer.Enforce("google:3", "audit:org", "read"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, size := range sizes {
		text := sized(size.p, size.g)
		b.Run(fmt.Sprintf("p=%d/g=%d", size.p, size.g), func(b *testing.B) {
			for b.Loop() {
				mustLoad(b, text)
			}
		})
	}
}

func TestADecisionByNameAllocatesNothing(t *testing.T) {
	policy := mustLoad(t, sized(1_000, 1_000))
	principal := authz.NewPrincipal(authz.Principal{Via: authz.ViaSession}, policy, []string{"google:3"})
	needed := authz.Permission{Object: "audit:org", Act: "read"}
	if n := testing.AllocsPerRun(100, func() {
		principal.Holds(needed)
		policy.Allows("google:3", needed)
		policy.Allows("r7", needed)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A policy of this size loads in well under two seconds; this only catches a quadratic step.
func TestAHundredThousandPeopleLoad(t *testing.T) {
	start := time.Now()
	policy := mustLoad(t, sized(1_000, 100_000))
	t.Logf("loaded in %v", time.Since(start))
	if roles := policy.RolesOf("google:99999"); len(roles) < 2 {
		t.Errorf("got %v", roles)
	}
	if time.Since(start) > time.Minute {
		t.Error("it took more than a minute")
	}
}
