package request

import (
	"context"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Info is what is known of a request from its start, and later of the caller.
type Info struct {
	ID        string       // also the answer's X-Request-Id
	Arrived   time.Time    // with Go's monotonic clock
	IP        netip.Addr   // invalid if a trusted proxy sent garbage
	UserAgent string       // valid UTF-8, at most 256 bytes
	Logger    *slog.Logger // without the id: most requests log once or never

	// Credential is what let the caller in; zero before that, and on public routes.
	Credential Credential
	// Staff is true if only a permission on everybody's things lets the caller do this.
	Staff bool
}

// Credential is a session or an API key, by its id, and its holder: a user or a service.
type Credential struct {
	Kind       string // session, key
	ID, Holder uuid.UUID
}

// Log is Logger with the request's id.
func (i *Info) Log() *slog.Logger { return i.Logger.With("request_id", i.ID) }

type contextKey struct{}

// With puts info into the context.
func With(ctx context.Context, info *Info) context.Context {
	return context.WithValue(ctx, contextKey{}, info)
}

// From returns the request's Info. Outside a request (start, purge) it returns one that arrived now and logs
// nothing; never nil.
func From(ctx context.Context) *Info {
	if info, ok := ctx.Value(contextKey{}).(*Info); ok {
		return info
	}
	return &Info{Arrived: time.Now(), Logger: slog.New(slog.DiscardHandler)}
}

// New describes r, which came from ip.
func New(r *http.Request, ip netip.Addr, log *slog.Logger) *Info {
	id := uuid.NewString()
	return &Info{
		ID:        id,
		Arrived:   time.Now(),
		IP:        ip,
		UserAgent: Text(r.UserAgent(), 256),
		Logger:    log,
	}
}

// Text makes s fit for a PostgreSQL text column: valid UTF-8, no control characters, at most limit bytes. It is
// for input from strangers that nobody relies on.
func Text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// AcceptsHTML reports whether the client asked for a page: Accept names text/html. A bare */* (curl, fetch) does
// not count.
func AcceptsHTML(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(value, ",") {
			media, params, err := mime.ParseMediaType(part)
			if err != nil || media != "text/html" {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err != nil || q > 0 {
				return true
			}
		}
	}
	return false
}
