package localpg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// without simulates a machine without PostgreSQL, with an empty cache and no network.
func without(t *testing.T) {
	t.Helper()
	placesBefore, fromBefore := places, downloadFrom
	t.Cleanup(func() { places, downloadFrom = placesBefore, fromBefore })
	places = func() [][]string { return nil }
	downloadFrom = "http://127.0.0.1:1"
	cache := openFolderForAll(t)
	t.Setenv("HOME", cache) // macOS
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("TMPDIR", cache) // embedded-postgres leaves an empty log file there
}

func TestNoProgramsAndNoNetworkTellsWhatToDo(t *testing.T) {
	without(t)
	if _, err := Find(); !errors.Is(err, ErrNoPrograms) {
		t.Errorf("Find: err = %v, want ErrNoPrograms", err)
	}
	data := openFolderForAll(t)
	_, err := Start(t.Context(), Options{Data: data})
	if !errors.Is(err, ErrNoPrograms) {
		t.Fatalf("err = %v, want ErrNoPrograms", err)
	}
	t.Log(err)
	for _, want := range []string{
		"no PostgreSQL 15+ server programs found", "127.0.0.1:1", "apt-get install postgresql",
		"dnf install postgresql-server", "brew install postgresql@17", "database_url",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the message", want)
		}
	}
	// The failed start releases everything.
	f, err := openFolder(data)
	if err != nil {
		t.Fatal(err)
	}
	f.unlock()
}

func TestDownloadedProgramsRun(t *testing.T) {
	if os.Getenv("LOCALPG_TEST_DOWNLOAD") == "" {
		t.Skip("downloads 15 MB; set LOCALPG_TEST_DOWNLOAD to run it")
	}
	from := downloadFrom
	without(t)
	downloadFrom = from
	s := start(t, Options{})
	if got := queryString(t, s, "show server_version"); !strings.HasPrefix(got, strings.TrimSuffix(downloadVersion, ".0")) {
		t.Errorf("version %s", got)
	}
	// The second time downloads nothing.
	downloadFrom = "http://127.0.0.1:1"
	start(t, Options{})
}

// fakePrograms makes a postgres that only knows its version, and an initdb unless left out.
func fakePrograms(t *testing.T, version string, names ...string) string {
	t.Helper()
	dir := openFolderForAll(t)
	for _, name := range names {
		script := "#!/bin/sh\necho '" + name + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindPrefersTheFirstGroupThenTheNewest(t *testing.T) {
	v14 := fakePrograms(t, "14.9", "postgres", "initdb")
	v15 := fakePrograms(t, "15.3 (Debian 15.3-1)", "postgres", "initdb")
	v9 := fakePrograms(t, "9.6.24", "postgres", "initdb")
	v17 := fakePrograms(t, "17beta1", "postgres", "initdb")
	clientOnly := fakePrograms(t, "18.0", "initdb")
	serverOnly := fakePrograms(t, "18.0", "postgres")
	linked := openFolderForAll(t)
	if err := os.Symlink(filepath.Join(v17, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}

	before := places
	t.Cleanup(func() { places = before })
	for _, c := range []struct {
		what   string
		places [][]string
		major  int
		want   string
	}{
		{"nothing", nil, 0, ""},
		{"first group wins", [][]string{{v15}, {v17}}, 0, v15},
		{"newest in the group", [][]string{{}, {v15, v17, v14}}, 0, v17},
		{"9.6 is older than 15", [][]string{{v9, v15}}, 0, v15},
		{"too old only", [][]string{{v14, v9}}, 0, ""},
		{"incomplete ones", [][]string{{clientOnly, serverOnly, "", ".", "/nowhere"}, {v15}}, 0, v15},
		{"a link is followed", [][]string{{linked}}, 0, v17},
		{"the cluster's version", [][]string{{v17}, {v15}}, 15, v15},
		{"no programs of the cluster's version", [][]string{{v17}, {v15}}, 16, v17},
	} {
		places = func() [][]string { return c.places }
		if got := find(c.major); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestBinDirWithoutProgramsIsAnError(t *testing.T) {
	dir := openFolderForAll(t)
	_, err := Start(t.Context(), Options{BinDir: dir})
	if !errors.Is(err, ErrNoPrograms) || !strings.Contains(err.Error(), dir) {
		t.Errorf("err = %v", err)
	}
}

func TestFoundProgramsStart(t *testing.T) {
	dir, err := Find()
	if err != nil {
		t.Skip(err)
	}
	start(t, Options{BinDir: dir})
}
