// Package pg is what rooms share in talking to PostgreSQL by pgx.
package pg
