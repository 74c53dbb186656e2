package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrInUse is returned if another process, or another server of this one, uses the data folder.
var ErrInUse = errors.New("the data folder is in use")

// folder is a data folder whose lock we hold. In it:
//
//	lock    locked for as long as the process that uses the folder lives; holds its pid
//	pg      the cluster, unless place says otherwise
//	place   the path of the folder that has the cluster, where the account that PostgreSQL runs as cannot reach this one
//	socket  the path of the socket folder of the latest start
type folder struct {
	path string
	lock *os.File
}

// openFolder makes the folder if it is missing and takes its lock.
func openFolder(path string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err = os.MkdirAll(path, 0o700); err != nil {
		return nil, notOurs(path, err)
	}
	// Go opens files with O_CLOEXEC: PostgreSQL does not inherit the lock.
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, notOurs(path, err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := "another process"
		if pid, err := io.ReadAll(lock); err == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		lock.Close()
		return nil, fmt.Errorf("%w: %s belongs to %s; stop that one, or choose another folder", ErrInUse, path, holder)
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock the data folder %s: %w", path, err)
	}
	return &folder{path, lock}, nil
}

func (f *folder) unlock() {
	f.lock.Close()
}

// notOurs explains a permission error by naming the folder's owner.
func notOurs(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("data folder: %w", err)
	}
	uid, _, ownerErr := owner(filepath.Join(path, "lock"))
	if ownerErr != nil {
		uid, _, ownerErr = owner(path)
	}
	if ownerErr != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	return fmt.Errorf("the data folder %s belongs to %s: start as that user again, or choose another folder: %w",
		path, userName(uid), err)
}

func userName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return "the user with id " + strconv.Itoa(int(uid))
}

// read returns the text of one of the folder's small files; empty if there is none.
func (f *folder) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(f.path, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// write replaces one of the folder's small files, even one that another user left there.
func (f *folder) write(name, text string) error {
	path := filepath.Join(f.path, name)
	os.Remove(path + ".new") // another user's file could not be written to
	// The folder's owner can read it even when root writes it.
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// cluster returns the folder of the cluster, which may not exist yet, and an account that can work there.
func (f *folder) cluster() (string, account, error) {
	home, err := f.home()
	if err != nil {
		return "", account{}, err
	}
	as, err := accountFor(filepath.Join(home, "pg"))
	if err != nil {
		return "", account{}, err
	}
	home, err = f.reachable(home, as)
	return filepath.Join(home, "pg"), as, err
}

// home returns the folder that holds, or will hold, the cluster: the data folder, or the one that place names.
func (f *folder) home() (string, error) {
	place, err := f.read("place")
	if err != nil || place == "" {
		return f.path, err
	}
	if _, err := os.Stat(place); errors.Is(err, fs.ErrNotExist) {
		return f.path, nil // somebody deleted it: start over
	} else if err != nil {
		return "", err
	}
	return place, nil
}

// reachable returns home if the account can work in it, after giving others search permission if needed.
// Otherwise, if there is no cluster yet, it makes another home and remembers it.
func (f *folder) reachable(home string, as account) (string, error) {
	ok, err := as.reaches(home)
	if err != nil || ok {
		return home, err
	}
	info, err := os.Stat(home)
	if err != nil {
		return "", err
	}
	// Search permission does not allow listing the folder, and its files have their own modes.
	if err := os.Chmod(home, info.Mode().Perm()|0o001); err != nil {
		return "", err
	}
	if ok, err = as.reaches(home); err != nil || ok {
		return home, err
	}
	if err := os.Chmod(home, info.Mode().Perm()); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(home, "pg")); err == nil {
		return "", fmt.Errorf("%s has a cluster, but its owner (%s), whom PostgreSQL has to run as, cannot reach it: "+
			"was the folder moved, or one above it closed?", home, as.name)
	}

	var problems []error
	for _, base := range homes {
		place, err := os.MkdirTemp(base, "noted-")
		if err != nil {
			problems = append(problems, err)
			continue
		}
		err = os.Chmod(place, 0o711)
		if err == nil {
			ok, err = as.reaches(place)
		}
		if err == nil && ok {
			return place, f.write("place", place)
		}
		os.Remove(place)
		problems = append(problems, fmt.Errorf("%s cannot use %s: %w", as.name, place, err))
	}
	return "", fmt.Errorf("%s, whom PostgreSQL has to run as, cannot reach the data folder %s, nor any other place: %w",
		as.name, home, errors.Join(problems...))
}

// homes are for clusters that the account cannot reach in the data folder. A variable only for the tests.
var homes = []string{"/var/lib", "/var/tmp"}

// socketName is PostgreSQL's socket file. The number is part of the protocol's address, not a TCP port.
const socketName = ".s.PGSQL.5432"

// socketFolder makes a fresh folder for the socket, in the user's temporary folder if its path is short enough and
// the account reaches it, else in /tmp.
func socketFolder(as account) (string, error) {
	var problems []error
	for _, base := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(base, "noted-")
		if err != nil {
			problems = append(problems, err)
			continue
		}
		err = fits(dir)
		if err == nil {
			err = as.own(dir)
		}
		if err == nil && as.as != nil && !as.can(`cd "$1"`, dir) {
			err = fmt.Errorf("%s cannot reach %s", as.name, dir)
		}
		if err == nil {
			return dir, nil
		}
		os.Remove(dir)
		problems = append(problems, err)
	}
	return "", fmt.Errorf("no folder for PostgreSQL's socket: %w", errors.Join(problems...))
}

// fits returns an error if a socket's path in dir is too long: over 107 bytes on Linux, 103 on macOS.
func fits(dir string) error {
	path := filepath.Join(dir, socketName)
	if longest := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > longest {
		return fmt.Errorf("the socket path %s has %d bytes, the system takes at most %d", path, len(path), longest)
	}
	return nil
}

// clearSocket removes the socket folder left by a killed start. It deletes only files that it knows, since all it
// has is a path from a file.
func (f *folder) clearSocket() error {
	dir, err := f.read("socket")
	if err != nil || !strings.HasPrefix(filepath.Base(dir), "noted-") {
		return err
	}
	os.Remove(filepath.Join(dir, socketName))
	os.Remove(filepath.Join(dir, socketName+".lock"))
	os.Remove(dir)
	return nil
}

// awaitFormer waits for the end of a PostgreSQL whose starter was killed, and removes the pid file of one that is
// gone: PostgreSQL itself would take any process with the same number for its predecessor.
func awaitFormer(ctx context.Context, cluster string, limit time.Duration) error {
	path := filepath.Join(cluster, "postmaster.pid")
	deadline := time.Now().Add(limit)
	for {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid <= 0 || !serves(pid, cluster) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("an earlier PostgreSQL (process %d) still runs on %s; it was waited for %s; "+
				"stop it (kill -INT %d) and start again", pid, cluster, limit, pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serves reports whether the process is a PostgreSQL on the cluster: it is alive, and its working folder, where
// the system shows it, is the cluster.
func serves(pid int, cluster string) bool {
	if pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	dir, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	if err != nil {
		return true
	}
	there, err := os.Stat(dir)
	if err != nil {
		return false
	}
	here, err := os.Stat(cluster)
	return err == nil && os.SameFile(here, there)
}
