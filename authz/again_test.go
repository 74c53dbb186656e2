package authz_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"

	"noted"
	"noted/authz"
	"noted/internal/problem"
)

// An organization's notebook. The caller is an admin when the request comes.
func findNotebook(context.Context, *authz.Principal, authz.Place) (authz.Standing, func(context.Context) (int, error), error) {
	return authz.Standing{Org: someOrg, Role: "admin"}, func(context.Context) (int, error) { return 1, nil }, nil
}

// request sends a request to an operation on a notebook and returns the status.
func request(t *testing.T, method string, caller *authz.Principal, handler func(context.Context, *struct{}, authz.Found[int]) (*nothing, error)) int {
	t.Helper()
	api, routes := newAPI()
	authz.RegisterOn(api, operation(method, "/v1/orgs/{org}/notebooks/{id}"), "notebook", "write", findNotebook, handler)
	if err := api.Err(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(authz.WithPrincipal(t.Context(), caller), method, "/v1/orgs/"+someOrg.String()+"/notebooks/"+uuid.NewString(), nil)
	w := httptest.NewRecorder()
	routes.(http.Handler).ServeHTTP(w, r) //nolint:forcetypeassert // a router is one
	return w.Code
}

func person(t *testing.T, more string) *authz.Principal {
	t.Helper()
	return authz.NewPrincipal(authz.Principal{ID: uuid.New(), Kind: authz.KindUser, Via: authz.ViaSession}, mustLoad(t, string(noted.Policy)+more), nil)
}

// An operation that writes an organization's things must decide again, or it never succeeds: no test of it passes.
func TestAWriteThatDoesNotDecideAgainFails(t *testing.T) {
	caller := person(t, "")
	for name, test := range map[string]struct {
		method string
		again  func(context.Context, authz.Found[int]) error
		want   int
	}{
		"it does": {http.MethodPatch, func(ctx context.Context, found authz.Found[int]) error {
			_, err := found.Again(ctx, found.Standing)
			return err
		}, http.StatusNoContent},
		"it does not": {http.MethodPatch, func(context.Context, authz.Found[int]) error { return nil }, http.StatusInternalServerError},
		"it looks past the refusal": {http.MethodPatch, func(ctx context.Context, found authz.Found[int]) error {
			if _, err := found.Again(ctx, authz.Standing{Org: someOrg, Role: "reader"}); err == nil {
				t.Error("a reader writes notebooks")
			}
			return nil
		}, http.StatusInternalServerError},
		"it asks for another permission": {http.MethodDelete, func(ctx context.Context, found authz.Found[int]) error {
			_, err := authz.From(ctx).DecideOn("notebook", "read", found.Standing)
			return err
		}, http.StatusInternalServerError},
		"it reads": {http.MethodGet, func(context.Context, authz.Found[int]) error { return nil }, http.StatusNoContent},
	} {
		got := request(t, test.method, caller, func(ctx context.Context, _ *struct{}, found authz.Found[int]) (*nothing, error) {
			ctx, err := authz.Again(ctx, caller) // as identity's Confirm does
			if err != nil {
				return nil, err
			}
			return &nothing{}, test.again(ctx, found)
		})
		if got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// The second decision is about the caller whom the transaction confirmed, not about the one from outside.
func TestTheSecondDecisionIsOnTheCallerOfTheTransaction(t *testing.T) {
	caller := person(t, "")
	demoted := authz.NewPrincipal(*caller, mustLoad(t, "p, user, self, read\np, org-admin, notebook, read\n"), nil)
	request(t, http.MethodPatch, caller, func(outside context.Context, _ *struct{}, found authz.Found[int]) (*nothing, error) {
		if _, err := found.Again(outside, found.Standing); err == nil || isProblem(err) {
			t.Errorf("it decides where nobody was confirmed: %v", err)
		}
		if err := found.Gone(outside, found.Standing, authz.NotFound("notebook")); err == nil || isProblem(err) {
			t.Errorf("it answers where nobody was confirmed: %v", err)
		}
		inside, err := authz.Again(outside, demoted)
		if !isProblem(err) {
			t.Errorf("the declaration lets in who has lost what it needs: %v", err)
		}
		if authz.From(inside) != demoted {
			t.Error("the transaction's caller is another than was made anew")
		}
		if _, err := found.Again(inside, found.Standing); !isProblem(err) {
			t.Errorf("it decides on the caller from outside: %v", err)
		}
		return &nothing{}, nil
	})
	if _, err := (authz.Target{}).Again(t.Context(), authz.Mine); err == nil {
		t.Error("the zero target allows something")
	}
}

// A caller who can reach nothing of the kind is not told that a thing is gone.
func TestWhatIsGoneIsToldToWhomeverItConcerns(t *testing.T) {
	caller, gone := person(t, ""), errors.New("gone")
	request(t, http.MethodPatch, caller, func(ctx context.Context, _ *struct{}, found authz.Found[int]) (*nothing, error) {
		ctx, err := authz.Again(ctx, caller)
		if err != nil {
			t.Error(err)
		}
		for role, want := range map[string]int{"": http.StatusNotFound, "reader": 0, "admin": 0} {
			err := found.Gone(ctx, authz.Standing{Org: someOrg, Role: role}, gone)
			var refused *problem.Error
			if errors.As(err, &refused) != (want != 0) || want != 0 && refused.Status != want || want == 0 && !errors.Is(err, gone) {
				t.Errorf("%q: %v", role, err)
			}
		}
		nobody := authz.NewPrincipal(*caller, mustLoad(t, "p, user, self, read\np, org-admin, org, read\n"), nil)
		ctx, _ = authz.Again(ctx, nobody)
		var refused *problem.Error
		if err := found.Gone(ctx, found.Standing, gone); !errors.As(err, &refused) || refused.Permission != "notebook write" {
			t.Errorf("who reaches no notebook: %v", err)
		}
		return &nothing{}, nil
	})
}

func isProblem(err error) bool {
	var refused *problem.Error
	return errors.As(err, &refused)
}
