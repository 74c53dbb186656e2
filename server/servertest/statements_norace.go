//go:build !race

package servertest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// statements does nothing here; package spacetest says why.
type statements struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (*statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (*statements) check(testing.TB) {}
