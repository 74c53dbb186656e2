// Command noted is the one binary. `noted dev` runs the whole product with no setup, and `noted serve` is
// production. `noted check-provider` and `noted policy` check production's files. `noted login`, `logout`,
// `whoami`, `token` and `key` are for the product's users.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"noted/server"
)

// version is the release; a build may set it: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// cli is the command line: one field per command.
type cli struct {
	Dev           devCommand           `cmd:"" help:"Run everything on this machine with nothing set up: its own PostgreSQL, an OpenID provider with ten people, four keys, sample notes."`
	Serve         serveCommand         `cmd:"" help:"Run the server for production."`
	CheckProvider checkProviderCommand `cmd:"" help:"Ask a configured provider whether people can sign in by it; with --sign-in, try it."`
	Policy        policyCommand        `cmd:"" help:"Work on model.conf and policy.csv, offline."`
	Login         loginCommand         `cmd:"" help:"Sign in at a noted server, through a browser on any device."`
	Logout        logoutCommand        `cmd:"" help:"End the session of login."`
	Whoami        whoamiCommand        `cmd:"" help:"Say who you are to the server, and with which roles."`
	Token         tokenCommand         `cmd:"" help:"Print your session's token, for a script."`
	Key           keyCommand           `cmd:"" help:"List, make, rotate, rename and revoke your API keys at a server."`
	Version       struct{}             `cmd:"" help:"Say which noted this is."`
}

// streams are where a command writes: its result to out, everything else to err.
type streams struct{ out, err io.Writer }

func main() {
	calmGC()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// calmGC lets the heap grow to five times its live size before a collection, unless GOGC is set. Little is live
// between requests, so Go's default of twice would collect many times a second.
func calmGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// run is main without the process. It returns 0 on success, 1 if the command failed, 2 for a bad command line.
func run(ctx context.Context, args []string, to streams) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("noted"),
		kong.Description("Notes, kept by the team that writes them."),
		kong.UsageOnError(), server.DurationFlags(), kong.Writers(to.out, to.err), kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(to))
	if err != nil {
		_, _ = fmt.Fprintln(to.err, "noted:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintln(to.err, "noted:", err)
		return 2
	}
	if command.Command() == "version" {
		_, _ = fmt.Fprintln(to.out, "noted", version, runtime.Version())
		return 0
	}
	if err := command.Run(); err != nil {
		told := exitCode{1, err}
		errors.As(err, &told)
		if told.err != nil {
			_, _ = fmt.Fprintln(to.err, "noted:", told.err)
		}
		return told.code
	}
	return 0
}
