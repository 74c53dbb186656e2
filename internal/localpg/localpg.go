package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say what to start. The zero value is a server for a test: temporary and careless.
type Options struct {
	// Data is the folder for the cluster and its lock, made with mode 0700 if missing. Empty means a temporary
	// folder, removed when the server ends, even if this process is killed.
	Data string
	// Log gets the output of the server and initdb. Errors contain its end with or without Log.
	Log io.Writer
	// Durable makes commits survive a crash of the machine. They always survive a crash or kill of PostgreSQL or
	// of this process.
	Durable bool
	// Settings are more settings of the server. They cannot change where it listens.
	Settings map[string]string
	// BinDir is the folder of the server programs. If empty, Find looks; if it finds none, they are downloaded.
	BinDir string
}

// Server is a running PostgreSQL. It ends with Stop, or with this process, however that ends.
type Server struct {
	folder  *folder // nil if temporary
	socket  string  // the folder of the socket; if temporary, of the cluster too
	fresh   bool
	log     *tail
	process *process
	stop    func() error
}

const (
	formerLimit = 15 * time.Second // for a killed process's PostgreSQL to end
	readyLimit  = 30 * time.Second // for the server to answer, after crash recovery if needed
	stopLimit   = 20 * time.Second // after 6 s the guard goes from a fast to an immediate shutdown
)

// Start starts a private PostgreSQL and returns when it answers. ctx bounds the start, not the server's life. The
// error wraps ErrInUse if the data folder is in use, and ErrNoPrograms if there is nothing to start.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{log: &tail{to: o.Log}}
	s.stop = sync.OnceValue(s.end)
	if err := s.start(ctx, o); err != nil {
		_ = s.stop() // the first failure is what matters
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) (err error) {
	var cluster string
	var as account
	if o.Data == "" {
		if as, err = accountFor(""); err != nil {
			return err
		}
		if s.socket, err = socketFolder(as); err != nil {
			return err
		}
		cluster = filepath.Join(s.socket, "pg")
	} else {
		if s.folder, err = openFolder(o.Data); err != nil {
			return err
		}
		if cluster, as, err = s.folder.cluster(); err != nil {
			return err
		}
		if err = awaitFormer(ctx, cluster, formerLimit); err != nil {
			return err
		}
		if err = s.folder.clearSocket(); err != nil {
			return err
		}
		if s.socket, err = socketFolder(as); err != nil {
			return err
		}
		if err = s.folder.write("socket", s.socket); err != nil {
			return err
		}
	}
	binDir, err := binDirFor(ctx, o.BinDir, cluster, as)
	if err != nil {
		return err
	}

	if s.fresh, err = s.makeCluster(ctx, cluster, binDir, as, o.Durable); err != nil {
		return err
	}
	argv := append([]string{filepath.Join(binDir, "postgres"), "-D", cluster}, arguments(o, s.socket)...)
	if s.process, err = guard(as, s.log, s.socket, argv...); err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

// arguments are the server's settings. The last of the same name wins, so where it listens is fixed.
func arguments(o Options, socket string) []string {
	var args []string
	set := func(name, value string) { args = append(args, "-c", name+"="+value) }
	set("logging_collector", "off")
	set("log_destination", "stderr")
	if !o.Durable {
		set("fsync", "off")
		set("synchronous_commit", "off")
		set("full_page_writes", "off")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		set(name, o.Settings[name])
	}
	set("listen_addresses", "")
	set("port", "5432") // part of the socket's name
	set("unix_socket_directories", `"`+strings.ReplaceAll(socket, `"`, `""`)+`"`)
	set("unix_socket_permissions", "0700")
	return args
}

// newCluster is the prefix of an unfinished cluster's name.
const newCluster = "pg.new-"

// makeCluster makes the cluster if there is none. It gets its name only when complete (and, if durable, on the
// disk), so that a killed start never leaves half a cluster under that name.
func (s *Server) makeCluster(ctx context.Context, cluster, binDir string, as account, durable bool) (made bool, err error) {
	if _, err := os.Stat(filepath.Join(cluster, "PG_VERSION")); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	home := filepath.Dir(cluster)
	entries, err := os.ReadDir(home)
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), newCluster) {
			os.RemoveAll(filepath.Join(home, entry.Name())) // may fail while its initdb is just ending, which does no harm
		}
	}
	half, err := os.MkdirTemp(home, newCluster)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(half)
		}
	}()
	if err := as.own(half); err != nil {
		return false, err
	}

	initdb := filepath.Join(binDir, "initdb")
	initialize := func(locale string) (*tail, error) {
		return s.run(ctx, as, initdb, "-D", half, "-U", "noted", "--encoding=UTF8", "--locale="+locale,
			"--auth-local=trust", "--auth-host=reject", "--no-sync", "--no-instructions")
	}
	printed, err := initialize("C.UTF-8")
	if err != nil && strings.Contains(printed.String(), "invalid locale") {
		printed, err = initialize("C") // a system without C.UTF-8
	}
	if err == nil && durable {
		// One sync of everything at the end is faster than initdb's own.
		printed, err = s.run(ctx, as, initdb, "-D", half, "--sync-only")
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w\n%s", initdb, err, printed)
	}
	if err := os.Rename(half, cluster); err != nil {
		return false, err
	}
	if durable {
		return true, syncFolder(home)
	}
	return true, nil
}

// run runs a command to its end as the account and returns the end of its output.
func (s *Server) run(ctx context.Context, as account, argv ...string) (*tail, error) {
	printed := &tail{to: s.log}
	p, err := guard(as, printed, "", argv...)
	if err != nil {
		return printed, err
	}
	select {
	case <-p.done:
		return printed, p.err
	case <-ctx.Done():
		p.end()
		<-p.done
		return printed, ctx.Err()
	}
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("it ended at once (%w); its last words:\n%s", s.process.err, s.log)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w (%w); its last words:\n%s", err, ctx.Err(), s.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// URL is the address of a database of this server, for pgx and psql. The database need not exist; postgres always
// does.
func (s *Server) URL(database string) string {
	// Everything is explicit, so that no PGPORT or PGSSLMODE of ours matters.
	query := url.Values{"host": {s.socket}, "port": {"5432"}, "user": {"noted"}, "sslmode": {"disable"}}
	return "postgres:///" + url.PathEscape(database) + "?" + query.Encode()
}

// Fresh reports whether this start made the cluster.
func (s *Server) Fresh() bool { return s.fresh }

// Done is closed when PostgreSQL has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Stop shuts PostgreSQL down fast, which ends all sessions, waits until it is gone, and releases the data folder.
// It returns an error if PostgreSQL ended badly, now or before. It may be called more than once.
func (s *Server) Stop() error { return s.stop() }

func (s *Server) end() error {
	var err error
	if s.process != nil {
		s.process.end()
		select {
		case <-s.process.done:
			if s.process.err != nil {
				err = fmt.Errorf("PostgreSQL ended badly (%w); its last words:\n%s", s.process.err, s.log)
			}
		case <-time.After(stopLimit):
			// Keep the folders and the lock: PostgreSQL still uses them.
			return fmt.Errorf("PostgreSQL has not ended in %s", stopLimit)
		}
	}
	if s.socket != "" {
		// The guard has done this, unless it was killed or the start failed before it.
		err = errors.Join(err, os.RemoveAll(s.socket))
	}
	if s.folder != nil {
		s.folder.unlock()
	}
	return err
}
