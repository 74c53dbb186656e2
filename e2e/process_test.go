package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// noted is the path of the binary under test.
var noted string

func TestMain(m *testing.M) { os.Exit(build(m)) }

// build makes the binary once for all tests, in a folder that every user may read: some tests run it as another
// user.
func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "noted-e2e-bin-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = os.Chmod(dir, 0o755) //nolint:gosec // as said above
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "a folder for the binary:", err)
		return 1
	}
	noted = filepath.Join(dir, "noted")
	if out, err := exec.Command("go", "build", "-race", "-ldflags=-s -w", "-o", noted, "../cmd/noted").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	// startLimit, exitLimit and settleLimit are generous, since the tests share two cores: they bound a hang and
	// measure nothing.
	startLimit  = time.Minute
	exitLimit   = 30 * time.Second
	settleLimit = 10 * time.Second
	// lifeLimit ends a forgotten process.
	lifeLimit = 4 * time.Minute
)

// command says how to run the binary. It passes on only PATH of the test's environment: a developer's NOTED_…
// variable must not change a test.
type command struct {
	binary  string // noted if empty
	args    []string
	env     []string            // besides PATH and HOME
	dir     string              // its working folder; empty: a fresh one
	as      *syscall.Credential // nil: the test's own user
	wrapper []string            // a command line that runs the binary
}

// process is a running noted.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{}
	err            error // how it ended; read it after done
}

// output keeps a process's output.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the binary. At the end of the test it is stopped, and it must never have had a data race or a panic.
func start(t *testing.T, c command) *process {
	t.Helper()
	if c.dir == "" {
		c.dir = publicFolder(t, c.as)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	argv := slices.Concat(c.wrapper, []string{cmp.Or(c.binary, noted)}, c.args)
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), done: make(chan struct{})} //nolint:gosec // the binary just built
	p.cmd.Dir = c.dir
	// Otherwise the race detector waits a second at each exit.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "GORACE=atexit_sleep_ms=50"}, c.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
	// Processes that inherit its output must not block Wait.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatalf("running %q: %v", argv, err)
	}
	go func() {
		defer cancel()
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		if !p.endsWithin(exitLimit) {
			t.Errorf("noted %q does not end %s after SIGTERM", c.args, exitLimit)
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		text := p.stderr.String()
		for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if at := strings.Index(text, bad); at >= 0 {
				t.Errorf("noted %q printed:\n%s", c.args, text[at:min(len(text), at+8000)])
			}
		}
		if t.Failed() {
			t.Logf("noted %q (%v) printed on standard error, at the end:\n%s", c.args, p.err, text[max(0, len(text)-4000):])
		}
	})
	return p
}

// run runs the binary to its end and returns its exit code.
func run(t *testing.T, c command) (code int, p *process) {
	t.Helper()
	p = start(t, c)
	return p.exit(t), p
}

// signal does nothing if the process has ended.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) endsWithin(limit time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// exit waits for the end and returns the exit code; -1 after a signal.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	if !p.endsWithin(exitLimit) {
		t.Fatalf("noted has not ended in %s", exitLimit)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		t.Fatalf("noted ended with: %v", p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends it like an operator.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Fatalf("after SIGTERM the exit code is %d, want 0", code)
	}
}

// await polls until ok. It fails if the process ends or the limit is reached first.
func (p *process) await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	eventually(t, limit, what, func() bool {
		if ok() {
			return true
		}
		if p.ended() {
			t.Fatalf("noted ended (%v) before this came true: %s", p.err, what)
		}
		return false
	})
}

// eventually polls until ok, and fails after the limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// publicFolder makes a folder that other accounts can reach, unlike those of t.TempDir: if root runs noted,
// PostgreSQL runs as another user. The folder belongs to as.
func publicFolder(t *testing.T, as *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "noted-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // as said above
	}
	if err == nil && as != nil {
		err = os.Chown(dir, int(as.Uid), int(as.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// missing skips the test because the machine lacks something, unless NOTED_TEST_REQUIRE demands it.
func missing(t *testing.T, what, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("NOTED_TEST_REQUIRE"), ","), what) {
		t.Fatalf("NOTED_TEST_REQUIRE asks for %s: %s", what, why)
	}
	t.Skipf("%s: %s", what, why)
}

// ordinaryUser returns a user who is not root: nobody if root runs the test, else the test's own user.
func ordinaryUser(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		missing(t, "root", err.Error())
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// running is a process of the machine, as /proc shows it.
type running struct {
	pid     int
	command string
	root    bool
}

// rootUID finds root in a process's real, effective, saved and file system user (proc_pid_status(5)).
var rootUID = regexp.MustCompile(`(?m)^Uid:.*\t0\b`)

// clusterProcesses returns the processes on the cluster of a `noted dev` data folder: PostgreSQL and its guard.
// The cluster is in the folder, or where its file place says.
func clusterProcesses(t *testing.T, data string) []running {
	t.Helper()
	clusters := []string{filepath.Join(data, "pg")}
	if place, err := os.ReadFile(filepath.Join(data, "place")); err == nil { //nolint:gosec // the test's folder
		clusters = append(clusters, filepath.Join(strings.TrimSpace(string(place)), "pg"))
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("needs /proc:", err)
	}
	var found []running
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		proc := filepath.Join("/proc", entry.Name())
		// A process may end between two looks; then it is not left over.
		raw, _ := os.ReadFile(filepath.Join(proc, "cmdline")) //nolint:gosec // in /proc
		line := strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))
		folder, _ := os.Readlink(filepath.Join(proc, "cwd"))
		// PostgreSQL's children overwrite their command lines, but stay in the folder.
		if !slices.ContainsFunc(clusters, func(c string) bool { return strings.Contains(line, c) || folder == c }) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(proc, "status")) //nolint:gosec // in /proc
		found = append(found, running{pid, line, rootUID.Match(status)})
	}
	return found
}

// clusterIsGone waits until no process works on the data folder's cluster.
func clusterIsGone(t *testing.T, data string) {
	t.Helper()
	var left []running
	eventually(t, settleLimit, "no PostgreSQL is left", func() bool {
		left = clusterProcesses(t, data)
		return len(left) == 0
	})
}
