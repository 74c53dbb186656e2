package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"noted"
	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/devidp"
	"noted/server"
)

// serveNoted is noted's process: DATABASE PROFILE. It runs the server of `noted serve` with its defaults, and the
// provider at which alice signs in.
func serveNoted(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("noted DATABASE PROFILE")
	}
	var c struct{ server.Settings }
	parser, err := kong.New(&c)
	if err != nil {
		return err
	}
	if _, err := parser.Parse(nil); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.DatabaseURL, c.PublicURL = args[0], "http://"+listener.Addr().String()
	issuing := httptest.NewUnstartedServer(nil)
	issuer := "http://" + issuing.Listener.Addr().String()
	issuing.Config.Handler, err = devidp.New(devidp.Config{
		Issuer: issuer, ClientID: "noted", ClientSecret: "for this run",
		People:       []devidp.Person{{Subject: "alice", Name: "alice", Email: "alice@corp.example", EmailVerified: true}},
		RedirectURIs: []string{c.PublicURL + "/auth/callback/corp"},
	})
	if err != nil {
		return err
	}
	issuing.Start()
	defer issuing.Close()
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = sink.Close() }()
	policy, err := authz.NewInForce(func() (*authz.Policy, error) {
		return authz.Load(authz.Source{Name: "model.conf", Text: noted.Model}, authz.Source{Name: "policy.csv", Text: noted.Policy})
	})
	if err != nil {
		return err
	}
	srv, err := server.Open(ctx, server.Options{
		Settings: c.Settings, Policy: policy, Version: "load", Dev: true,
		Log: server.NewLogger(sink, "info", true),
		Providers: oidc.Providers{{
			ID: "corp", Name: "corp", Issuer: issuer, ClientID: "noted", ClientSecret: "for this run",
			Scopes: []string{"openid", "email", "profile"}, EmailDomains: []string{"corp.example"},
		}},
	})
	if err != nil {
		return err
	}
	defer srv.Close()
	if args[1] != "" {
		go profile(args[1])
	}
	_, _ = fmt.Fprintln(out, c.PublicURL)
	return srv.Run(ctx, listener, nil)
}

// profile writes a CPU profile from the first line of standard input to the second.
func profile(name string) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	file, err := os.Create(name) //nolint:gosec // the caller names it
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "load: no profile:", err)
		return
	}
	lines.Scan()
	pprof.StopCPUProfile()
	_ = file.Close()
}

// bareNote is a note as noted shows it.
type bareNote struct {
	ID         uuid.UUID  `json:"id"`
	Title      string     `json:"title"`
	Owner      bareOwner  `json:"owner"`
	OrgID      *uuid.UUID `json:"org_id"`
	NotebookID *uuid.UUID `json:"notebook_id"`
	Version    int64      `json:"version"`
	CreatedAt  time.Time  `json:"created_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
	Body       *string    `json:"body,omitempty"`
}

type bareOwner struct {
	ID   uuid.UUID `json:"id"`
	Kind string    `json:"kind"`
	Name string    `json:"name"`
}

const bareColumns = `n.id, n.title, n.owner_id, o.name, n.version, n.created_at, n.updated_at,
	case when n.owner_id = @caller then 'own' else 'any' end as relation`

// serveBare is the bare handler's process: DATABASE CALLER. The statements are noted's.
func serveBare(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("bare DATABASE CALLER")
	}
	caller, err := uuid.Parse(args[1])
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, args[0])
	if err != nil {
		return err
	}
	defer pool.Close()
	b := bare{pool, caller}
	router := chi.NewRouter()
	router.Get("/v1/notes/{id}", b.get)
	router.Get("/v1/notes", b.list)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// It has noted's limits on slow clients, as any public server has some.
	srv := &http.Server{
		Handler: router, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 70 * time.Second, WriteTimeout: 90 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	_, _ = fmt.Fprintln(out, "http://"+listener.Addr().String())
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type bare struct {
	pool   *pgxpool.Pool
	caller uuid.UUID
}

func (b bare) get(w http.ResponseWriter, r *http.Request) {
	id, err := uuid.Parse(chi.URLParam(r, "id"))
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	n := bareNote{Body: new(string), Owner: bareOwner{Kind: "user"}}
	var relation string
	err = b.pool.QueryRow(r.Context(), `
		select `+bareColumns+`, n.body
		from notes n join people o on o.user_id = n.owner_id
		where n.id = @id and n.deleted_at is null `, pgx.NamedArgs{"caller": b.caller, "id": id}).
		Scan(&n.ID, &n.Title, &n.Owner.ID, &n.Owner.Name, &n.Version, &n.CreatedAt, &n.UpdatedAt, &relation, n.Body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	n.CreatedAt, n.UpdatedAt = n.CreatedAt.UTC(), n.UpdatedAt.UTC()
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(n.Version, 10)))
	b.write(w, n)
}

func (b bare) list(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	rows, err := b.pool.Query(r.Context(), `
		select `+bareColumns+`
		from notes n join people o on o.user_id = n.owner_id
		where n.deleted_at is null and n.space_id = @caller
			and (@at::timestamptz is null or (n.updated_at, n.id) < (@at, @id))
		order by n.updated_at desc, n.id desc
		limit @limit`, pgx.NamedArgs{"caller": b.caller, "at": nil, "id": uuid.Nil, "limit": limit + 1})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (bareNote, error) {
		n := bareNote{Owner: bareOwner{Kind: "user"}}
		var relation string
		err := row.Scan(&n.ID, &n.Title, &n.Owner.ID, &n.Owner.Name, &n.Version, &n.CreatedAt, &n.UpdatedAt, &relation)
		n.CreatedAt, n.UpdatedAt = n.CreatedAt.UTC(), n.UpdatedAt.UTC()
		return n, err
	})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var page struct {
		Items []bareNote `json:"items"`
		Next  string     `json:"next_cursor"`
	}
	page.Items = list[:min(limit, len(list))]
	page.Next = "as long as a cursor of noted's, which it takes no time to make"
	b.write(w, page)
}

func (b bare) write(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}
