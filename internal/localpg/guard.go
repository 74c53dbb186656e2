package localpg

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

//go:embed guard.sh
var guardScript string

// process is a command under the guard (guard.sh). It ends when end is called or this process is gone.
type process struct {
	lifeline *os.File      // the write end of the guard's pipe
	done     chan struct{} // closed when the command, and all it started, have ended
	err      error         // how it ended; read it after done
}

// guard starts argv as the account. After the command ends, the guard removes folder, unless that is empty.
func guard(as account, log *tail, folder string, argv ...string) (*process, error) {
	watched, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer watched.Close()

	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "noted-guard", folder}, argv...)...)
	cmd.ExtraFiles = []*os.File{watched} // fd 3
	// One pipe for both: Wait then returns only after the last process that could print has ended.
	cmd.Stdout, cmd.Stderr = log, log
	as.prepare(cmd)
	cmd.SysProcAttr.Setsid = true // Ctrl-C in a terminal is for us, not for PostgreSQL
	if err := cmd.Start(); err != nil {
		lifeline.Close()
		return nil, fmt.Errorf("run %s: %w", argv[0], err)
	}

	p := &process{lifeline: lifeline, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		p.lifeline.Close()
		close(p.done)
	}()
	return p, nil
}

// end asks the command to end; done is closed when it has.
func (p *process) end() {
	p.lifeline.Close() // a second Close is a harmless error
}

// tail passes on a command's output and keeps its end for error messages.
type tail struct {
	to io.Writer // may be nil

	mu   sync.Mutex
	last []byte
}

const tailSize = 4096

// Write never fails: an error would close the pipe that the server logs to.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.last = append(t.last, p...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append([]byte(nil), t.last[over:]...)
	}
	t.mu.Unlock()
	if t.to != nil {
		_, _ = t.to.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
