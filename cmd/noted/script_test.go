package main

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain also makes this test program `noted`, for the scripts.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"noted": main}) }

// stackTrace matches what no user should see.
var stackTrace = regexp.MustCompile(`goroutine \d+|panic:|\.go:\d+|DATA RACE`)

// Tests without a server or browser are scripts in testdata/script. Each has its own folder, with the shipped
// policy in shipped.csv and its expectations in shipped_test.csv.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=50") // it would wait a second at each exit
			var errs []error
			for _, name := range []string{"policy", "policy_test"} {
				text, err := os.ReadFile("../../" + name + ".csv")
				target := map[string]string{"policy": "shipped.csv", "policy_test": "shipped_test.csv"}[name]
				errs = append(errs, err, os.WriteFile(env.WorkDir+"/"+target, text, 0o600))
			}
			return errors.Join(errs...)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "commands": commands},
	})
}

// exits CODE COMMAND ARGUMENTS... runs the command, which must exit with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENTS...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("it exits with %d, want %s", code, args[0])
	}
	if match := stackTrace.FindString(ts.ReadFile("stderr")); match != "" {
		ts.Fatalf("it shows %q", match)
	}
}

// commands FILE runs all commands named in a policy's head, in order.
func commands(ts *testscript.TestScript, neg bool, args []string) {
	line := regexp.MustCompile(`in its folder: (.* && .* && .*)\n`).FindStringSubmatch(ts.ReadFile(args[0]))
	if neg || line == nil {
		ts.Fatalf("the head of %s names no three commands", args[0])
	}
	ts.Check(ts.Exec("sh", "-ec", line[1]))
}
