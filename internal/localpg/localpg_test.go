package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// If parentVariable names a data folder, this test binary starts a server on it, commits a row, says so and waits
// to be killed. "temporary" stands for an empty folder.
const parentVariable = "LOCALPG_TEST_PARENT"

// With stubborn as its first argument, only SIGQUIT ends the program.
const stubborn = "stubborn"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == stubborn {
		signal.Ignore(syscall.SIGINT)
		quit := make(chan os.Signal, 1)
		signal.Notify(quit, syscall.SIGQUIT)
		fmt.Println("running")
		<-quit
		fmt.Println("got SIGQUIT")
		os.Exit(1)
	}
	data := os.Getenv(parentVariable)
	if data == "" {
		os.Exit(m.Run())
	}
	if data == "temporary" {
		data = ""
	}
	s, err := Start(context.Background(), Options{Data: data, Durable: data != ""})
	if err == nil {
		err = execute(s, "create table if not exists note (title text)", "insert into note values ('kept')")
	}
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	fmt.Println("ready", s.URL("postgres"))
	select {}
}

// startParent runs the program above. It returns its server's URL or its error.
func startParent(t *testing.T, binary, data string, as *syscall.Credential) (*exec.Cmd, string, error) {
	t.Helper()
	if data == "" {
		data = "temporary"
	}
	cmd := exec.Command(binary)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), parentVariable+"="+data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the program said %q: %v", line, err)
	}
	what, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	if what == "error" {
		return cmd, "", errors.New(text)
	}
	return cmd, text, nil
}

func binary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

func execute(s *Server, statements ...string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func queryString(t *testing.T, s *Server, query string) (result string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), query).Scan(&result); err != nil {
		t.Fatal(err)
	}
	return result
}

// openFolderForAll makes a folder that every account can enter, unlike t.TempDir's.
func openFolderForAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "localpg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// closedFolder makes a folder like `mktemp -d`.
func closedFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "localpg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func socketOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// eventually waits far longer than needed: the limit matters only if the thing never happens.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", limit, what)
		}
	}
}

// processesAt lists the processes with path in their arguments or as their working folder. PostgreSQL works in
// the cluster, and the guard has it in its arguments.
func processesAt(t *testing.T, path string) (found []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if filepath.Base(pid) == strconv.Itoa(os.Getpid()) {
			continue
		}
		cwd, _ := os.Readlink(pid + "/cwd")
		arguments, _ := os.ReadFile(pid + "/cmdline") // empty for a zombie
		if strings.HasPrefix(cwd, path) || strings.Contains(string(arguments), path) {
			found = append(found, pid+" "+strings.ReplaceAll(string(arguments), "\x00", " "))
		}
	}
	return found
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestRestartKeepsData(t *testing.T) {
	data := filepath.Join(openFolderForAll(t), "data")
	s := start(t, Options{Data: data, Durable: true})
	if !s.Fresh() {
		t.Error("the first start is not fresh")
	}
	if err := execute(s, "create table note (title text)", "insert into note values ('kept')"); err != nil {
		t.Fatal(err)
	}
	socket := s.socket
	stop(t, s)
	stop(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	if exists(socket) {
		t.Errorf("the socket folder %s is still there after Stop", socket)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&^0o001 != 0o700 {
		t.Errorf("the data folder has mode %o", mode)
	}

	s = start(t, Options{Data: data, Durable: true})
	if s.Fresh() {
		t.Error("the second start is fresh")
	}
	if got := queryString(t, s, "select title from note"); got != "kept" {
		t.Errorf("title = %q", got)
	}
}

func TestDurabilityAndSettingsReachTheServer(t *testing.T) {
	for _, durable := range []bool{true, false} {
		s := start(t, Options{Durable: durable, Settings: map[string]string{
			"max_connections": "33", "listen_addresses": "*", "application_name": "a b'c",
		}})
		want := map[bool]string{true: "on", false: "off"}[durable]
		for _, c := range []struct{ setting, want string }{
			{"fsync", want},
			{"synchronous_commit", want},
			{"full_page_writes", want},
			{"max_connections", "33"},
			{"application_name", "a b'c"},
			{"listen_addresses", ""},
			{"server_encoding", "UTF8"},
		} {
			if got := queryString(t, s, "show "+c.setting); got != c.want {
				t.Errorf("durable=%t: %s = %q, want %q", durable, c.setting, got, c.want)
			}
		}
	}
}

func TestEnvironmentDoesNotChangeTheServer(t *testing.T) {
	for name, value := range map[string]string{
		"PGPORT": "1", "PGHOST": "nowhere.invalid", "PGUSER": "x", "PGDATABASE": "x", "PGDATA": "/nowhere",
		"PGSSLMODE": "require", "LC_ALL": "xx_XX", "LANG": "xx_XX", "NOTED_SECRET": "s",
	} {
		t.Setenv(name, value)
	}
	s := start(t, Options{})
	if got := queryString(t, s, "select current_user::text"); got != "noted" {
		t.Errorf("user = %q", got)
	}
}

func TestSecondStartOnSameDataIsRefused(t *testing.T) {
	data := closedFolder(t)
	s := start(t, Options{Data: data})
	_, err := Start(t.Context(), Options{Data: data})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("err = %v, want ErrInUse", err)
	}
	for _, want := range []string{data, "process " + strconv.Itoa(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if got := queryString(t, s, "select 'alive'"); got != "alive" {
		t.Error("the first server suffered")
	}
	_, _, err = startParent(t, binary(t), data, nil)
	if err == nil || !strings.Contains(err.Error(), ErrInUse.Error()) {
		t.Errorf("another process: err = %v, want ErrInUse", err)
	}
	stop(t, s)
	start(t, Options{Data: data})
}

func TestPostgresEndsWithItsKilledParent(t *testing.T) {
	data := openFolderForAll(t)
	cmd, address, err := startParent(t, binary(t), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	socket := socketOf(t, address)
	// A busy session must not keep the server alive.
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	go conn.Exec(context.Background(), "select pg_sleep(3600)")
	if len(processesAt(t, data)) == 0 {
		t.Fatal("no PostgreSQL found while it runs")
	}

	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, 10*time.Second, "no process left", func() bool {
		return len(processesAt(t, data)) == 0 && len(processesAt(t, socket)) == 0
	})
	eventually(t, 10*time.Second, "the socket folder is gone", func() bool { return !exists(socket) })

	s := start(t, Options{Data: data, Durable: true})
	if got := queryString(t, s, "select title from note"); got != "kept" {
		t.Errorf("title = %q", got)
	}
}

func TestStartWaitsForThePostgresOfAKilledParent(t *testing.T) {
	data := openFolderForAll(t)
	cmd, _, err := startParent(t, binary(t), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	s := start(t, Options{Data: data, Durable: true})
	if got := queryString(t, s, "select title from note"); got != "kept" {
		t.Errorf("title = %q", got)
	}
}

func TestTemporaryServerLeavesNothing(t *testing.T) {
	s := start(t, Options{})
	if !s.Fresh() {
		t.Error("not fresh")
	}
	stop(t, s)
	if exists(s.socket) {
		t.Errorf("%s is still there after Stop", s.socket)
	}

	cmd, address, err := startParent(t, binary(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, 10*time.Second, "the folder of a killed parent is gone", func() bool {
		return !exists(socketOf(t, address))
	})
}

func TestDoneClosesWhenPostgresDies(t *testing.T) {
	data := openFolderForAll(t)
	s := start(t, Options{Data: data})
	text, err := os.ReadFile(filepath.Join(data, "pg", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Stop(); err == nil {
		t.Error("Stop did not tell that PostgreSQL was killed")
	}
	if left := processesAt(t, filepath.Join(data, "pg")); len(left) > 0 {
		t.Errorf("Done closed while there was %q", left)
	}
	start(t, Options{Data: data})
}

func TestGuardKilledStillEndsPostgres(t *testing.T) {
	data := openFolderForAll(t)
	cmd, address, err := startParent(t, binary(t), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	guards := childrenOf(t, cmd.Process.Pid)
	if len(guards) != 1 {
		t.Fatalf("guards = %d, want one", guards)
	}
	if err := syscall.Kill(guards[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, 10*time.Second, "no process left", func() bool { return len(processesAt(t, data)) == 0 })
	// Nobody could remove the socket folder: the next start does.
	start(t, Options{Data: data})
	if socket := socketOf(t, address); exists(socket) {
		t.Errorf("%s is still there", socket)
	}
}

func childrenOf(t *testing.T, parent int) (children []int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // fails for a process that has just ended
		// "PID (NAME) STATE PARENT ..."; the name may have spaces.
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			children = append(children, pid)
		}
	}
	return children
}

func TestGuardTurnsToSIGQUITWhenSIGINTIsNotEnough(t *testing.T) {
	t.Parallel() // it waits out the guard's 6 seconds
	log := &tail{}
	p, err := guard(account{}, log, "", binary(t), stubborn)
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	eventually(t, time.Minute, "the command runs", func() bool { return strings.Contains(log.String(), "running") })
	p.end()
	eventually(t, time.Minute, "the command has ended", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if !strings.Contains(log.String(), "got SIGQUIT") {
		t.Errorf("it ended by %v, printing %q", p.err, log)
	}
}

func TestHalfMadeClusterIsMadeAnew(t *testing.T) {
	data := openFolderForAll(t)
	half := filepath.Join(data, newCluster+"1")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Data: data})
	if !s.Fresh() {
		t.Error("not fresh")
	}
	if exists(half) {
		t.Error("the half-made cluster is still there")
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	data := openFolderForAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{Data: data}); !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v, want context.Canceled", err)
	}
	eventually(t, 10*time.Second, "no process left", func() bool { return len(processesAt(t, data)) == 0 })
	if s := start(t, Options{Data: data}); !s.Fresh() {
		t.Error("the cancelled start made a cluster")
	}
}

func TestStalePidFileOfAnotherProcessIsNoObstacle(t *testing.T) {
	data := openFolderForAll(t)
	stop(t, start(t, Options{Data: data}))
	// Alive, but not PostgreSQL: a killed container leaves this when its pids are reused.
	other := exec.Command("sleep", "3600")
	other.SysProcAttr = &syscall.SysProcAttr{}
	if uid, gid, err := owner(filepath.Join(data, "pg")); err == nil && os.Geteuid() == 0 {
		other.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	for _, pid := range []string{strconv.Itoa(other.Process.Pid), strconv.Itoa(os.Getpid()), "", "nonsense"} {
		path := filepath.Join(data, "pg", "postmaster.pid")
		if err := os.WriteFile(path, []byte(pid+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		stop(t, start(t, Options{Data: data}))
	}
}

func TestRunningPostgresIsWaitedForAndNamed(t *testing.T) {
	data := openFolderForAll(t)
	start(t, Options{Data: data})
	err := awaitFormer(t.Context(), filepath.Join(data, "pg"), time.Nanosecond)
	if err == nil || !strings.Contains(err.Error(), data) {
		t.Errorf("err = %v", err)
	}
}

func TestSocketIsPrivateAndThereIsNoTCP(t *testing.T) {
	s := start(t, Options{})
	info, err := os.Stat(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		t.Errorf("the socket folder has mode %o", mode)
	}
	socket, err := os.Stat(filepath.Join(s.socket, socketName))
	if err != nil {
		t.Fatal(err)
	}
	if mode := socket.Mode().Perm(); mode != 0o700 {
		t.Errorf("the socket has mode %o", mode)
	}
	folderUID, _, err := owner(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	serverUID, _, err := owner(filepath.Join(s.socket, socketName))
	if err != nil {
		t.Fatal(err)
	}
	if folderUID != serverUID {
		t.Errorf("the folder belongs to %d, PostgreSQL runs as %d", folderUID, serverUID)
	}
	if serverUID == 0 {
		t.Error("PostgreSQL runs as root")
	}
	if got := queryString(t, s, "show listen_addresses"); got != "" {
		t.Errorf("listen_addresses = %q", got)
	}
	if runtime.GOOS != "linux" {
		return
	}
	// By the system's own list, no socket of PostgreSQL's processes is a TCP one.
	tcp := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if fields := strings.Fields(line); len(fields) > 9 {
				tcp["socket:["+fields[9]+"]"] = true
			}
		}
	}
	processes := processesAt(t, s.socket)
	if len(processes) == 0 {
		t.Fatal("found no PostgreSQL")
	}
	for _, process := range processes {
		dir, _, _ := strings.Cut(process, " ")
		files, _ := filepath.Glob(dir + "/fd/*")
		for _, file := range files {
			if to, _ := os.Readlink(file); tcp[to] {
				t.Errorf("%s has the TCP socket %s", process, to)
			}
		}
	}
}

func TestPostgresInheritsNeitherLockNorLifeline(t *testing.T) {
	data := openFolderForAll(t)
	start(t, Options{Data: data})
	files := map[string][]string{} // of each process
	lifeline := ""
	for _, process := range processesAt(t, filepath.Join(data, "pg")) {
		dir, arguments, _ := strings.Cut(process, " ")
		names, _ := filepath.Glob(dir + "/fd/*")
		for _, name := range names {
			to, _ := os.Readlink(name)
			if !strings.HasPrefix(arguments, "/bin/sh") {
				files[process] = append(files[process], to)
			} else if filepath.Base(name) == "3" && strings.HasPrefix(to, "pipe:") {
				lifeline = to
			}
		}
	}
	if lifeline == "" || len(files) == 0 {
		t.Fatalf("lifeline %q, processes %d", lifeline, len(files))
	}
	for process, files := range files {
		if slices.Contains(files, filepath.Join(data, "lock")) {
			t.Errorf("%s holds the lock", process)
		}
		if slices.Contains(files, lifeline) {
			t.Errorf("%s holds the lifeline", process)
		}
	}
}

func TestLeftoverSocketFolderIsRemoved(t *testing.T) {
	data := openFolderForAll(t)
	left, err := os.MkdirTemp("/tmp", "noted-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(left)
	for _, name := range []string{socketName, socketName + ".lock"} {
		if err := os.WriteFile(filepath.Join(left, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, "socket"), []byte(left+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Data: data})
	if exists(left) {
		t.Errorf("%s is still there", left)
	}
}

func TestLongTemporaryFolderIsNotUsedForTheSocket(t *testing.T) {
	long := filepath.Join(openFolderForAll(t), strings.Repeat("long/", 20))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fits(long); err == nil || !strings.Contains(err.Error(), filepath.Join(long, socketName)) {
		t.Errorf("err = %v, want one that names the path", err)
	}
	t.Setenv("TMPDIR", long)
	s := start(t, Options{})
	if filepath.Dir(s.socket) != "/tmp" {
		t.Errorf("the socket is in %s", s.socket)
	}

	short := openFolderForAll(t)
	t.Setenv("TMPDIR", short)
	s = start(t, Options{})
	if filepath.Dir(s.socket) != short {
		t.Errorf("the socket is in %s, want it in %s", s.socket, short)
	}
}

func TestFailedStartShowsWhatPostgresSaid(t *testing.T) {
	var log strings.Builder
	_, err := Start(t.Context(), Options{Log: &log, Settings: map[string]string{"shared_buffers": "many"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("err = %v, want the server's own words", err)
	}
	if !strings.Contains(log.String(), "shared_buffers") {
		t.Error("Log did not get it")
	}
}

func TestRootReachesAClusterBelowAClosedFolder(t *testing.T) {
	needRoot(t)
	home := openFolderForAll(t)
	defer func(before []string) { homes = before }(homes)
	homes = []string{home}

	closed := closedFolder(t)
	data := filepath.Join(closed, "data")
	s := start(t, Options{Data: data})
	if err := execute(s, "create table note (title text)", "insert into note values ('kept')"); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	place, err := os.ReadFile(filepath.Join(data, "place"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(place), home) {
		t.Errorf("the cluster is in %s", place)
	}
	for _, dir := range []string{closed, data} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s was opened in vain: %v %v", dir, info.Mode(), err)
		}
	}
	s = start(t, Options{Data: data})
	if got := queryString(t, s, "select title from note"); got != "kept" || s.Fresh() {
		t.Errorf("title = %q, fresh = %t", got, s.Fresh())
	}
}

func TestRootOpensADataFolderThatIsClosedItself(t *testing.T) {
	needRoot(t)
	data := closedFolder(t)
	start(t, Options{Data: data})
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o701 {
		t.Errorf("the data folder has mode %o", mode)
	}
	if !exists(filepath.Join(data, "pg", "PG_VERSION")) {
		t.Error("the cluster is not in the data folder")
	}
}

func TestRootDoesNotForgetAClusterThatItCanNoLongerReach(t *testing.T) {
	needRoot(t)
	above := openFolderForAll(t)
	data := filepath.Join(above, "data")
	stop(t, start(t, Options{Data: data}))
	if err := os.Chmod(above, 0o700); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), Options{Data: data}); err == nil || !strings.Contains(err.Error(), "cannot reach") {
		t.Errorf("err = %v", err)
		if s != nil {
			s.Stop()
		}
	}
}

// nobody is an ordinary user for the tests that run as root.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// publicBinary copies this test binary to where everybody can run it.
func publicBinary(t *testing.T) string {
	t.Helper()
	from, err := os.Open(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(openFolderForAll(t), "localpg.test")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOrdinaryUserPassesTheSameTests(t *testing.T) {
	needRoot(t)
	cmd := exec.Command(publicBinary(t), "-test.run=^Test(Restart|Second|PostgresEnds|Temporary|Half|Stale|Socket)")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	} else if !strings.Contains(string(out), "PASS") {
		t.Fatalf("nothing ran:\n%s", out)
	}
}

func TestOrdinaryUserIsToldThatTheDataIsRoots(t *testing.T) {
	needRoot(t)
	data := openFolderForAll(t)
	stop(t, start(t, Options{Data: data}))
	_, _, err := startParent(t, publicBinary(t), data, nobody)
	if err == nil || !strings.Contains(err.Error(), data+" belongs to root") {
		t.Errorf("err = %v", err)
	}
}

func TestRootContinuesWhatAnOrdinaryUserBegan(t *testing.T) {
	needRoot(t)
	data := filepath.Join(openFolderForAll(t), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(nobody.Uid), int(nobody.Gid)); err != nil {
		t.Fatal(err)
	}
	program := publicBinary(t)
	cmd, _, err := startParent(t, program, data, nobody)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	s := start(t, Options{Data: data})
	if got := queryString(t, s, "select title from note"); got != "kept" {
		t.Errorf("title = %q", got)
	}
	stop(t, s)
	// Root leaves it usable for the user.
	if _, _, err := startParent(t, program, data, nobody); err != nil {
		t.Error(err)
	}
}
