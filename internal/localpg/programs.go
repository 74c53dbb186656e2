package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// ErrNoPrograms is returned if the machine has no PostgreSQL that we can run.
var ErrNoPrograms = errors.New("no PostgreSQL 15+ server programs found")

const (
	oldestMajor = 15

	// The version to download if the machine has none.
	downloadVersion = "17.5.0"
	downloadLimit   = 2 * time.Minute

	advice = "install a package (Debian, Ubuntu: apt-get install postgresql; Fedora, RHEL: dnf install postgresql-server; " +
		"macOS: brew install postgresql@17), or set database_url to a running server"
)

// Variables only for the tests.
var (
	// places lists the folders to look in, in groups. The first group with the programs wins; in it, the newest.
	places = func() [][]string {
		var groups [][]string
		if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
			groups = append(groups, []string{strings.TrimSpace(string(out))})
		}
		var packaged []string
		for _, pattern := range []string{
			"/usr/lib/postgresql/*/bin",          // Debian
			"/usr/pgsql-*/bin",                   // Red Hat
			"/opt/homebrew/opt/postgresql@*/bin", // Homebrew
			"/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
		} {
			found, _ := filepath.Glob(pattern) // fails only on a bad pattern
			packaged = append(packaged, found...)
		}
		return append(groups, packaged, filepath.SplitList(os.Getenv("PATH")))
	}

	downloadFrom = "https://repo1.maven.org/maven2"
)

// Find returns the folder of the machine's PostgreSQL server programs (postgres and initdb, version 15 or newer).
// The one that pg_config names comes first, then the newest of the usual packages, then PATH. The error wraps
// ErrNoPrograms and says what to install.
func Find() (binDir string, err error) {
	if dir := find(0); dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("%w: %s", ErrNoPrograms, advice)
}

// find is Find, but prefers programs of the given major version, unless that is 0. Only the version that made a
// cluster can open it, and that need not be the newest.
func find(major int) (binDir string) {
	first := ""
	for _, group := range places() {
		best, bestMajor := "", 0
		for _, dir := range group {
			dir, m := programs(dir)
			if m < oldestMajor {
				continue
			}
			if m == major {
				return dir
			}
			if m > bestMajor {
				best, bestMajor = dir, m
			}
		}
		if first == "" {
			first = best
		}
		if first != "" && major == 0 {
			break
		}
	}
	return first
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// programs returns the real folder of dir's server programs, and their major version; 0 if there are none.
func programs(dir string) (string, int) {
	if !filepath.IsAbs(dir) {
		return "", 0 // a PATH entry like "." or ""
	}
	// A link, as in /usr/local/bin, may lead to one program but not to its companions.
	postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return "", 0
	}
	dir = filepath.Dir(postgres)
	if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
		return "", 0
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return "", 0
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return "", 0
	}
	major, _ := strconv.Atoi(string(match[1]))
	return dir, major
}

// clusterMajor is the major version of the PostgreSQL that made the cluster; 0 if there is none.
func clusterMajor(cluster string) int {
	text, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

// binDirFor returns the folder of the programs for the cluster, which may not exist yet: those asked for, else the
// machine's, else downloaded ones.
func binDirFor(ctx context.Context, asked, cluster string, as account) (string, error) {
	if asked != "" {
		asked, err := filepath.Abs(asked)
		if err != nil {
			return "", err
		}
		dir, major := programs(asked)
		if major < oldestMajor {
			return "", fmt.Errorf("%w in %s", ErrNoPrograms, asked)
		}
		return dir, nil
	}
	if dir := find(clusterMajor(cluster)); dir != "" {
		return dir, nil
	}
	dir, err := downloaded(ctx, as)
	if err != nil {
		return "", fmt.Errorf("%w, and downloading them failed (%w): %s", ErrNoPrograms, err, advice)
	}
	return dir, nil
}

// downloaded returns the folder of the downloaded programs, and downloads them if needed.
func downloaded(ctx context.Context, as account) (string, error) {
	cache, err := cacheFolder(as)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, "postgres-"+downloadVersion)
	if dir, major := programs(filepath.Join(final, "bin")); major > 0 {
		return dir, nil
	}

	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	result := make(chan error, 1)
	// The library cannot be stopped. If we give up, it goes on and then cleans up after itself; removing its files
	// meanwhile would make it panic.
	go func() { result <- download(cache, final) }()
	select {
	case err := <-result:
		if err != nil {
			return "", err
		}
	case <-ctx.Done():
		return "", fmt.Errorf("no end after %s: %w", downloadLimit, ctx.Err())
	}
	dir, major := programs(filepath.Join(final, "bin"))
	if major == 0 {
		return "", fmt.Errorf("the programs in %s do not run on this machine", final)
	}
	if as.as != nil && !as.can(`"$1" --version`, filepath.Join(dir, "postgres")) {
		return "", fmt.Errorf("%s cannot run the programs in %s", as.name, dir)
	}
	return dir, nil
}

// cacheFolder is the user's, unless it is root's and closed to the account; then it is the machine's.
func cacheFolder(as account) (string, error) {
	user, err := os.UserCacheDir()
	if err == nil {
		cache := filepath.Join(user, "noted")
		if err = os.MkdirAll(cache, 0o755); err == nil && (as.as == nil || as.can(`cd "$1"`, cache)) {
			return cache, nil
		}
	}
	if as.as == nil {
		return "", err
	}
	// Not /var/tmp: anybody could put programs there for us to run.
	cache := "/var/cache/noted"
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	return cache, os.Chmod(cache, 0o755) // whatever our umask
}

// download fetches the programs and puts them in the folder final in one step, so that nobody ever sees half of
// them.
func download(cache, final string) (err error) {
	staging, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staging)
	defer func() {
		if p := recover(); p != nil { // the library panics if it cannot remove files
			err = fmt.Errorf("embedded-postgres: %v", p)
		}
	}()

	programs := filepath.Join(staging, "programs")
	postgres := filepath.Join(programs, "bin", "postgres")
	// The library has no call that only downloads. After unpacking the programs it makes its runtime folder. Here
	// it cannot, since the path is inside a program file just unpacked. So it stops there: before initdb, and long
	// before it would listen. Port 0 satisfies its check for a free port.
	startErr := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.PostgresVersion(downloadVersion)).
		BinaryRepositoryURL(downloadFrom).
		CachePath(filepath.Join(staging, "archive")).
		BinariesPath(programs).
		RuntimePath(filepath.Join(postgres, "none")).
		Port(0).
		Logger(io.Discard)).Start()
	if startErr == nil || !strings.HasPrefix(startErr.Error(), "unable to create runtime directory") {
		return fmt.Errorf("embedded-postgres: %w", startErr)
	}

	// Whatever our umask, the account that runs the programs must be able to read them.
	err = filepath.WalkDir(programs, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mine := info.Mode().Perm() & 0o500
		return os.Chmod(path, info.Mode().Perm()|mine>>3|mine>>6) //nolint:gosec // in a folder that nobody else writes
	})
	if err != nil {
		return err
	}
	if err := os.Rename(programs, final); err != nil {
		if _, statErr := os.Stat(filepath.Join(final, "bin", "postgres")); statErr == nil {
			return nil // another process was faster
		}
		return err
	}
	return nil
}
