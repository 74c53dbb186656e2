package admin

import (
	"github.com/jackc/pgx/v5/pgxpool"

	"noted/identity"
)

// Service is the admin room.
type Service struct {
	pool  *pgxpool.Pool
	users *identity.Service
}

// New makes the room.
func New(pool *pgxpool.Pool, users *identity.Service) *Service {
	return &Service{pool: pool, users: users}
}
