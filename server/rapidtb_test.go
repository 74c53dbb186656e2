package server_test

import (
	"context"
	"testing"

	"pgregory.net/rapid"
)

// rapidTB is a testing.TB whose failures end a rapid run; rapid then looks for a shorter one.
type rapidTB struct {
	testing.TB
	t *rapid.T
}

func (r rapidTB) Helper()                           {}
func (r rapidTB) Context() context.Context          { return context.Background() }
func (r rapidTB) Fatal(args ...any)                 { r.t.Fatal(args...) }
func (r rapidTB) Fatalf(format string, args ...any) { r.t.Fatalf(format, args...) }
func (r rapidTB) Error(args ...any)                 { r.t.Error(args...) }
func (r rapidTB) Errorf(format string, args ...any) { r.t.Errorf(format, args...) }
