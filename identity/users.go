package identity

import (
	"time"

	"github.com/google/uuid"

	"noted/identity/oidc"
	"noted/internal/problem"
)

// User is an account as operators see it.
type User struct {
	ID           uuid.UUID  `json:"id"`
	Name         string     `json:"name"`
	Email        *string    `json:"email"`
	Locked       bool       `json:"locked"`
	Roles        []string   `json:"roles" nullable:"false" doc:"The platform roles in force"`
	CreatedAt    time.Time  `json:"created_at"`
	LastSignInAt *time.Time `json:"last_sign_in_at"`
}

// UserDetail is an account with its identities and what each showed at its last sign-in.
type UserDetail struct {
	User
	Identities []UserIdentity `json:"identities" nullable:"false"`
}

// UserIdentity is one of an account's identities.
type UserIdentity struct {
	ID           uuid.UUID       `json:"id"`
	Issuer       string          `json:"issuer"`
	Subject      string          `json:"subject"`
	LastSignInAt time.Time       `json:"last_sign_in_at"`
	Claims       oidc.SeenClaims `json:"claims" doc:"Of the ID token of the last sign-in"`
}

// errNoUser is a 404.
var errNoUser = problem.NotFound("user")
