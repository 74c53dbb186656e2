package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// freshHome gives the test its own configuration folder, without the developer's variables.
func freshHome(t *testing.T) sessionFile {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("NOTED_SERVER", "")
	t.Setenv("NOTED_TOKEN", "")
	file, err := findSessionFile()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// keep writes a file as another program or an earlier noted might have left it.
func keep(t *testing.T, file sessionFile, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(string(file)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(string(file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(string(file), mode); err != nil {
		t.Fatal(err)
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// kept returns the file's content.
func kept(t *testing.T, file sessionFile) sessions {
	t.Helper()
	got, err := file.read()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

const (
	oneToken   = "nsess_1111111111111111111111111111111111111111111"
	otherToken = "nsess_2222222222222222222222222222222222222222222"
)

var soon = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSessionsOfTwoServersStandInOneFileThatIsTheAccountsAlone(t *testing.T) {
	file := freshHome(t)
	for server, token := range map[string]string{"https://one.example": oneToken, "https://two.example": otherToken} {
		if err := file.change(func(s *sessions) { s.Servers[server] = session{token, soon} }); err != nil {
			t.Fatal(err)
		}
	}
	want := sessions{Servers: map[string]session{"https://one.example": {oneToken, soon}, "https://two.example": {otherToken, soon}}}
	if diff := cmp.Diff(want, kept(t, file)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	folder := filepath.Dir(string(file))
	if file, folder := modeOf(t, string(file)), modeOf(t, folder); file != 0o600 || folder != 0o700 {
		t.Errorf("the file's mode is %#o, the folder's %#o", file, folder)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if diff := cmp.Diff([]string{"lock", "sessions.json"}, names); diff != "" {
		t.Errorf("left in the folder, -want +got:\n%s", diff)
	}
}

func TestProgramsThatKeepSessionsAtTheSameTimeLoseNone(t *testing.T) {
	file := freshHome(t)
	const programs = 30
	var all sync.WaitGroup
	for i := range programs {
		all.Go(func() {
			if err := file.change(func(s *sessions) { s.Servers[fmt.Sprintf("https://n%d.example", i)] = session{oneToken, soon} }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(kept(t, file).Servers); got != programs {
		t.Errorf("%d sessions are kept, want %d", got, programs)
	}
}

func TestAFileThatOthersCanReadIsRefusedWithWhatToDo(t *testing.T) {
	whole := fmt.Sprintf(`{"servers": {"http://127.0.0.1:8080": {"token": %q, "expires_at": "2030-01-02T03:04:05Z"}}}`, oneToken)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620, 0o601} {
		file := freshHome(t)
		keep(t, file, whole, mode)
		for _, command := range []string{"login", "logout", "whoami"} {
			code, _, stderr := runNoted(t, command)
			if code != 1 || !strings.Contains(stderr, fmt.Sprintf("chmod 600 %q", string(file))) || strings.Contains(stderr, oneToken) {
				t.Errorf("%s with the mode %#o: exit code %d, and on standard error: %s", command, mode, code, stderr)
			}
		}
		if modeOf(t, string(file)) != mode {
			t.Errorf("the mode %#o was changed", mode)
		}
	}
}

func TestAFolderThatOthersCanChangeIsRefusedWithWhatToDo(t *testing.T) {
	file := freshHome(t)
	keep(t, file, `{"servers": {}}`, 0o600)
	folder := filepath.Dir(string(file))
	if err := os.Chmod(folder, 0o770); err != nil { //nolint:gosec // that is what is tested
		t.Fatal(err)
	}
	code, _, stderr := runNoted(t, "login")
	if code != 1 || !strings.Contains(stderr, fmt.Sprintf("chmod 700 %q", folder)) {
		t.Errorf("exit code %d, and on standard error: %s", code, stderr)
	}
}

func TestADamagedFileIsNamedAndLeftAsItIs(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                "",
		"cut off":              `{"servers": {"https://notes.example": {"token": "` + oneToken,
		"no JSON":              oneToken,
		"a list":               `[]`,
		"more after it":        `{"servers": {}} {}`,
		"a newer noted's":      `{"servers": {}, "refresh": {}}`,
		"a server twice":       `{"servers": {"https://a.example": {"token": "` + oneToken + `"}, "https://a.example": {"token": "` + otherToken + `"}}}`,
		"no address":           `{"servers": {"notes": {"token": "` + oneToken + `"}}}`,
		"not written our way":  `{"servers": {"https://NOTES.example/": {"token": "` + oneToken + `"}}}`,
		"an http address":      `{"servers": {"http://notes.example": {"token": "` + oneToken + `"}}}`,
		"a token of two lines": `{"servers": {"https://notes.example": {"token": "` + oneToken + `\nX: y"}}}`,
		"no token":             `{"servers": {"https://notes.example": {"expires_at": "2030-01-02T03:04:05Z"}}}`,
		"a bad last":           `{"last": "file:///etc/passwd", "servers": {}}`,
		"far too large":        `{"servers": {}}` + strings.Repeat(" ", maxSessionFile),
	} {
		t.Run(name, func(t *testing.T) {
			file := freshHome(t)
			keep(t, file, text, 0o600)
			for _, args := range [][]string{{"login"}, {"logout"}, {"logout", "--forget"}, {"whoami"}} {
				code, stdout, stderr := runNoted(t, args...)
				if code != 1 || stdout != "" || !strings.Contains(stderr, string(file)+" is damaged") {
					t.Errorf("%q: exit code %d, standard output %q, standard error: %s", args, code, stdout, stderr)
				}
				if strings.Contains(stderr, "nsess_") {
					t.Errorf("%q shows a token: %s", args, stderr)
				}
			}
			after, err := os.ReadFile(string(file))
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != text {
				t.Errorf("the file is now %q", after)
			}
		})
	}
}

func FuzzSessionFileIsReadWithoutAPanicAndWrittenAsItWasRead(f *testing.F) {
	f.Add([]byte(`{"last":"https://a.example","servers":{"https://a.example":{"token":"x","expires_at":"2030-01-02T03:04:05Z"}}}`))
	f.Add([]byte(`{"servers":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := sessionFile(filepath.Join(t.TempDir(), "noted", "sessions.json"))
		keep(t, file, string(text), 0o600)
		before, err := file.read()
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' }) {
				t.Errorf("%q", err)
			}
			return
		}
		if err := file.change(func(*sessions) {}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, kept(t, file)); diff != "" {
			t.Errorf("-before +after:\n%s", diff)
		}
	})
}
