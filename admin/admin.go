package admin

import (
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/authz"
	"noted/identity"
	"noted/keys"
	"noted/orgs"
)

// Service is the admin room.
type Service struct {
	pool   *pgxpool.Pool
	users  *identity.Service
	keys   *keys.Service
	orgs   *orgs.Service
	policy *authz.InForce
}

// New makes the room.
func New(pool *pgxpool.Pool, users *identity.Service, keys *keys.Service, orgs *orgs.Service, policy *authz.InForce) *Service {
	return &Service{pool: pool, users: users, keys: keys, orgs: orgs, policy: policy}
}
