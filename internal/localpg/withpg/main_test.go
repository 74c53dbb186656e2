package main

import (
	"bufio"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const selfVariable = "WITHPG_TEST_SELF"

func TestMain(m *testing.M) {
	if os.Getenv(selfVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// withpg runs this program with a shell script as the command.
func withpg(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "sh", "-c", script)
	cmd.Env = append(os.Environ(), selfVariable+"=1")
	cmd.Stderr = os.Stderr
	return cmd
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

func TestCommandGetsTheServerAndItsInputAndGivesItsCode(t *testing.T) {
	cmd := withpg(t, `cat; echo "$NOTED_TEST_DATABASE_URL"; exit 7`)
	cmd.Stdin = strings.NewReader("input\n")
	out, err := cmd.Output()
	if code := exitCode(t, err); code != 7 {
		t.Errorf("code = %d, want 7", code)
	}
	input, address, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if input != "input" || !strings.HasPrefix(address, "postgres:///postgres?") {
		t.Errorf("output = %q", out)
	}
}

func TestSignalIsPassedOnAndNothingIsLeft(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := withpg(t, `trap 'exit 9' INT TERM; echo "$NOTED_TEST_DATABASE_URL"; while :; do sleep 0.1; done`)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd.Wait()); code != 9 {
			t.Errorf("%s: code = %d, want the command's 9", signal, code)
		}
		address, err := url.Parse(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		folder := address.Query().Get("host")
		if _, err := os.Stat(folder); folder == "" || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the server's folder %q is still there", signal, folder)
		}
	}
}

func TestUnknownCommandIsAnError(t *testing.T) {
	if code, err := run([]string{"/nowhere/command"}); code != 127 || err == nil {
		t.Errorf("code = %d, err = %v", code, err)
	}
}
