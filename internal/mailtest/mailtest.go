package mailtest

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Server receives mail by SMTP (RFC 5321) and keeps it.
type Server struct {
	Address string // host:port
	refuses bool   // every recipient

	mu   sync.Mutex
	mail []string
}

// New starts one on a loopback port; with refuses it refuses every recipient. It ends with the test.
func New(t *testing.T, refuses bool) *Server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: listener.Addr().String(), refuses: refuses}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); wait.Wait() })
	return s
}

func (s *Server) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	say := func(line string) { _, _ = fmt.Fprintf(conn, "%s\r\n", line) }
	lines := bufio.NewScanner(conn)
	say("220 here")
	to := ""
	for lines.Scan() {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch strings.ToUpper(verb) {
		case "RCPT":
			if to = rest; s.refuses {
				say("550 no such mailbox")
				continue
			}
			say("250 ok")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for lines.Scan() && lines.Text() != "." {
				text.WriteString(strings.TrimPrefix(lines.Text(), ".") + "\r\n")
			}
			s.mu.Lock()
			s.mail = append(s.mail, to+"\n"+text.String())
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// Mail returns the mails so far, each as "RCPT's argument\n" and the message.
func (s *Server) Mail() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mail)
}

// Forget deletes the mails so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = nil
}
