package admin

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"noted/authz"
	"noted/identity"
	"noted/internal/problem"
	"noted/internal/strictjson"
)

type policyOutput struct {
	Body struct {
		Hash     string    `json:"hash" doc:"SHA-256 of the files in force; equal on all replicas that decide alike"`
		LoadedAt time.Time `json:"loaded_at"`
		Error    *string   `json:"error" doc:"Why the files as they stand now are not in force; null when they are"`
		Roles    []string  `json:"roles" nullable:"false"`
	}
}

func (s *Service) getPolicy(context.Context, *struct{}) (*policyOutput, error) {
	state := s.policy.State()
	out := &policyOutput{}
	out.Body.Hash, out.Body.LoadedAt, out.Body.Roles = state.Policy.Hash, state.LoadedAt, state.Policy.Roles()
	if state.Err != nil {
		text := state.Err.Error()
		out.Body.Error = &text
	}
	return out, nil
}

type explainInput struct {
	Body struct {
		UserID  strictjson.Optional[uuid.UUID] `json:"user_id,omitempty" doc:"A user; this or subject"`
		Subject strictjson.Optional[string]    `json:"subject,omitempty" minLength:"1" maxLength:"1000" doc:"A role, or a name as in a g line, known or not"`
		Object  string                         `json:"object" maxLength:"100" doc:"Such as note:any"`
		Act     string                         `json:"act" maxLength:"100" doc:"Such as read"`
	}
}

type explainOutput struct {
	Body struct {
		authz.Explanation
		Names []identity.NameInPolicy `json:"names" nullable:"false" doc:"Of a user: the names under which the policy sees them"`
	}
}

func (s *Service) explain(ctx context.Context, in *explainInput) (*explainOutput, error) {
	if in.Body.UserID.Sent == in.Body.Subject.Sent {
		return nil, problem.Invalid("body", "needs either user_id or subject")
	}
	needed, err := authz.ParsePermission(in.Body.Object, in.Body.Act)
	switch {
	case errors.Is(err, authz.ErrObject):
		return nil, problem.Invalid("body.object", "%v", err)
	case err != nil:
		return nil, problem.Invalid("body.act", "%v", err)
	}
	out := &explainOutput{}
	out.Body.Names = []identity.NameInPolicy{}
	subjects := []string{in.Body.Subject.Value}
	if in.Body.UserID.Sent {
		if err := authz.From(ctx).Check(authz.Permission{Object: "user:any", Act: "read"}); err != nil {
			return nil, err
		}
		if out.Body.Names, err = s.users.NamesInPolicy(ctx, in.Body.UserID.Value); err != nil {
			return nil, err
		}
		subjects = nil
		for _, one := range out.Body.Names {
			if !one.Aged {
				subjects = append(subjects, one.Name)
			}
		}
	}
	out.Body.Explanation = s.policy.Policy().Explain(needed, subjects...)
	return out, nil
}
