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
	"noted/internal/uid"
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
		UserID  strictjson.Optional[uid.ID] `json:"user_id,omitempty" doc:"A user; this, key_id or subject"`
		KeyID   strictjson.Optional[uid.ID] `json:"key_id,omitempty" doc:"An API key, whose role narrows what its owner may do"`
		Subject strictjson.Optional[string] `json:"subject,omitempty" minLength:"1" maxLength:"1000" example:"moderator" doc:"A role, or a name as in a g line, known or not"`
		Object  string                      `json:"object" maxLength:"100" example:"note:any" doc:"Such as note:any"`
		Act     string                      `json:"act" maxLength:"100" example:"read" doc:"Such as read"`
	}
}

type explainOutput struct {
	Body struct {
		authz.Explanation
		Names []identity.NameInPolicy `json:"names" nullable:"false" doc:"Of a user, or a key's owner: the names under which the policy sees them"`
	}
}

func (s *Service) explain(ctx context.Context, in *explainInput) (*explainOutput, error) {
	asked := 0
	for _, sent := range []bool{in.Body.UserID.Sent, in.Body.KeyID.Sent, in.Body.Subject.Sent} {
		if sent {
			asked++
		}
	}
	if asked != 1 {
		return nil, problem.Invalid("body", "needs one of user_id, key_id and subject")
	}
	needed, err := authz.ParsePermission(in.Body.Object, in.Body.Act)
	switch {
	case errors.Is(err, authz.ErrObject):
		return nil, problem.Invalid("body.object", "%v", err)
	case err != nil:
		return nil, problem.Invalid("body.act", "%v", err)
	}
	if err := authz.CheckSubject(in.Body.Subject.Value); err != nil {
		return nil, problem.Invalid("body.subject", "%v", err)
	}
	who := asking{subjects: []string{in.Body.Subject.Value}}
	if !in.Body.Subject.Sent {
		if err := authz.From(ctx).Check(authz.Permission{Object: "user:any", Act: "read"}); err != nil {
			return nil, err
		}
		if who, err = s.find(ctx, in.Body.UserID.Value.UUID, in.Body.KeyID); err != nil {
			return nil, err
		}
	}
	out := &explainOutput{}
	out.Body.Names = append([]identity.NameInPolicy{}, who.names...)
	out.Body.Explanation = s.policy.Policy().ExplainBy(who.keyRole, needed, who.subjects...)
	return out, nil
}

// asking is whom an explanation is about.
type asking struct {
	subjects []string
	keyRole  string                  // empty without a key
	names    []identity.NameInPolicy // of a person, aged ones too
}

// find is what the policy sees of a key, if one was sent, else of a user.
func (s *Service) find(ctx context.Context, user uuid.UUID, key strictjson.Optional[uid.ID]) (who asking, err error) {
	if key.Sent {
		owner, role, err := s.keys.OwnerOf(ctx, key.Value.UUID)
		if err != nil {
			return asking{}, err
		}
		if owner.User == uuid.Nil {
			return asking{subjects: []string{"org-" + owner.OrgRole}, keyRole: role}, nil
		}
		user, who.keyRole = owner.User, role
	}
	if who.names, err = s.users.NamesInPolicy(ctx, user); err != nil {
		return asking{}, err
	}
	for _, one := range who.names {
		if !one.Aged {
			who.subjects = append(who.subjects, one.Name)
		}
	}
	return who, nil
}
