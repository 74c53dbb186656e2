package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

type tokenCommand struct {
	serverFlag
	Show bool `help:"Print it to a terminal too, where others may read it and scrollback keeps it."`
}

// Help is shown by `noted token --help`.
func (*tokenCommand) Help() string {
	return `It prints the token of the session that noted login made, for a script:

  curl -H "Authorization: Bearer $(noted token)" https://notes.example/v1/notes

Whoever has it is you until noted logout. ` + tokenVariable + ` is left alone: what it holds, you have.`
}

// Run prints only the session's token on standard output, and contacts no server.
func (t *tokenCommand) Run(to streams) error {
	_, kept, c, err := t.openKept()
	if err != nil {
		return err
	}
	one := kept.Servers[c.server]
	switch {
	case one.Token == "":
		return fmt.Errorf("not signed in at %s; run: noted login --server %[1]s", c.server)
	case !time.Now().Before(one.ExpiresAt):
		return fmt.Errorf("the session at %s has expired; run: noted login --server %[1]s", c.server)
	case isTerminal(to.out) && !t.Show:
		return errors.New("standard output is a terminal, and whoever reads the token is you; send it to a program or a file, or say --show")
	}
	_, err = fmt.Fprintln(to.out, one.Token)
	return err
}

// isTerminal reports whether out is a terminal; /dev/null is not.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
