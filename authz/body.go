package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"noted/internal/bodies"
	"noted/internal/strictjson"
)

// maxBody is the limit in bytes for an operation that sets no MaxBodyBytes. It has room for a handful of
// names and ids with every character escaped.
const maxBody = 16 << 10

// serve registers a declared operation. If it has a body, the body is checked here, after the
// decision and before huma decodes it. MaxBodyBytes is its limit. A body type that makes no Shape is
// a fault of the declaration.
func serve[I, O any](a *API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	if _, hasBody := reflect.TypeFor[I]().FieldByName("Body"); !hasBody {
		huma.Register(a.huma, op, handler)
		return
	}
	intake := &intake{budget: a.bodies, limit: op.MaxBodyBytes}
	if intake.limit == 0 {
		intake.limit = maxBody
	}
	// Turn off huma's own limit, deadline and validation.
	op.MaxBodyBytes, op.BodyReadTimeout, op.SkipValidateBody = -1, -1, true
	op.RequestBody = &huma.RequestBody{}
	op.Middlewares = append(op.Middlewares, intake.hold)
	huma.Register(a.huma, op, handler)
	var err error
	if intake.shape, err = strictjson.NewShape(a.huma.OpenAPI().Components.Schemas, op.RequestBody.Content["application/json"].Schema); err != nil {
		a.fail(op, "its body: %v", err)
	}
}

// intake takes the bodies of one operation.
type intake struct {
	budget *bodies.Budget
	limit  int64
	shape  *strictjson.Shape
	large  [maxClass + 1]sync.Pool // of buffers; the index is the log2 of their size
}

// Buffers for bodies over 2 MiB are reused. As garbage they would be most of the process's memory
// while somebody sends one after another. (A note of the largest size is smaller unless most of it is
// escaped. Its buffer is not rounded up and is dropped once decoded.) A pool drops what two
// collections found unused.
const (
	minClass = 22
	maxClass = 23
)

// hold is the middleware after the decision. The body counts until the request is done.
func (i *intake) hold(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	body, err := i.budget.Take(w, r, From(ctx.Context()).ID, i.limit)
	if !answer(ctx, err) {
		return
	}
	defer body.Release()
	checked := &checked{Body: body, intake: i}
	defer checked.putBack() // the input is decoded; nothing refers to the buffer
	r.Body = checked
	next(ctx)
}

// checked is a body that holds JSON of the shape.
type checked struct {
	*bodies.Body
	intake *intake
	large  []byte
}

// grow makes room for a body of known length, and for the spare bytes that ReadFrom wants. It replaces
// huma's buffer with a large one if needed; huma drops large ones.
func (c *checked) grow(buffer *bytes.Buffer) {
	length := int(c.Length()) + bytes.MinRead
	class := bits.Len(uint(length - 1))
	if buffer.Len() > 0 || class < minClass || class > maxClass {
		buffer.Grow(length)
		return
	}
	if c.large, _ = c.intake.large[class].Get().([]byte); c.large == nil {
		c.large = make([]byte, 0, 1<<class)
	}
	*buffer = *bytes.NewBuffer(c.large)
}

func (c *checked) putBack() {
	if c.large != nil {
		c.intake.large[bits.Len(uint(cap(c.large)-1))].Put(c.large) //nolint:staticcheck // the header of the slice is small beside what is saved
		c.large = nil
	}
}

// Read always fails: what it read would be unchecked. huma copies with io.Copy, which calls WriteTo.
func (*checked) Read([]byte) (int, error) { return 0, errors.New("a body was read without its check") }

// WriteTo reads the whole body into huma's buffer, grown once, and checks it there. No second copy
// is held.
func (c *checked) WriteTo(to io.Writer) (int64, error) {
	buffer, ok := to.(*bytes.Buffer)
	if !ok {
		return 0, fmt.Errorf("a body was read into %T", to)
	}
	start := buffer.Len()
	if c.Length() > 0 {
		c.grow(buffer)
	}
	n, err := buffer.ReadFrom(c.Body)
	if err == nil && n > 0 {
		err = c.intake.shape.Check(buffer.Bytes()[start:])
	}
	return n, err
}
