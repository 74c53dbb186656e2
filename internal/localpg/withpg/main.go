// Command withpg runs a command beside a private PostgreSQL for tests, whose URL it puts in NOTED_TEST_DATABASE_URL:
//
//	go run ./internal/localpg/withpg go test ./...
//
// It exits as the command does (but `go run` itself knows only 0 and 1).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"noted/internal/localpg"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: withpg COMMAND ARGS...")
		os.Exit(2)
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withpg:", err)
	}
	os.Exit(code)
}

func run(argv []string) (code int, err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	forward := make(chan *os.Process, 1)
	go func() {
		var command *os.Process
		var pending os.Signal
		for {
			select {
			case command = <-forward:
				if pending != nil {
					command.Signal(pending)
				}
			case pending = <-signals:
				cancel() // matters only while the server starts
				if command != nil {
					command.Signal(pending)
				}
			}
		}
	}()

	server, err := localpg.Start(ctx, localpg.Options{Settings: map[string]string{"max_connections": "500"}})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "NOTED_TEST_DATABASE_URL="+server.URL("postgres"))
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	forward <- cmd.Process
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil // as shells do
	}
	return exit.ExitCode(), nil
}
