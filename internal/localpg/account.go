package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is who PostgreSQL runs as: ourselves, or, as it refuses root, an unprivileged account.
type account struct {
	name string
	as   *syscall.Credential // nil: ourselves
}

// accountFor chooses the account for a cluster, which may not exist yet. An existing cluster keeps its owner,
// since PostgreSQL starts only on its own cluster.
func accountFor(cluster string) (account, error) {
	uid, gid, err := owner(cluster)
	if me := os.Geteuid(); me != 0 {
		if err == nil && int(uid) != me {
			return account{}, fmt.Errorf("the cluster %s belongs to %s: start as root, or choose another folder", cluster, userName(uid))
		}
		return account{}, nil
	}
	switch {
	case err == nil && uid != 0:
		return account{userName(uid), &syscall.Credential{Uid: uid, Gid: gid}}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return account{}, err
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseInt(u.Uid, 10, 64) // nobody is -2 on macOS
		gid, gidErr := strconv.ParseInt(u.Gid, 10, 64)
		if uidErr != nil || gidErr != nil || uid == 0 {
			continue
		}
		return account{name, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root, and there is no account postgres or nobody " +
		"to run it as: start noted as an ordinary user")
}

// prepare makes cmd run as the account, in a folder that everybody can read, with only the environment that it
// needs: it must not see our secrets, and PGPORT and the like would change its behavior.
func (a account) prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.as} // no groups in it: no supplementary groups
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH") + ":/usr/bin:/bin"}
	for _, name := range []string{"LD_LIBRARY_PATH", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
}

// own gives a file or folder to the account.
func (a account) own(path string) error {
	if a.as == nil {
		return nil
	}
	return os.Lchown(path, int(a.as.Uid), int(a.as.Gid))
}

// can reports whether the shell script succeeds as the account. Only trying tells: modes do not show ACLs,
// security modules and mounts.
func (a account) can(script string, args ...string) bool {
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	a.prepare(cmd)
	return cmd.Run() == nil
}

// reaches reports whether the account can use a folder of its own inside dir.
func (a account) reaches(dir string) (bool, error) {
	if a.as == nil {
		return true, nil
	}
	probe, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(probe)
	if err := a.own(probe); err != nil {
		return false, err
	}
	return a.can(`cd "$1" && : >file && rm file`, probe), nil
}

func owner(path string) (uid, gid uint32, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s: the system does not tell its owner", path)
	}
	return stat.Uid, stat.Gid, nil
}
