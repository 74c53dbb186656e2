// Package pg is what rooms share in using PostgreSQL through pgx.
package pg
