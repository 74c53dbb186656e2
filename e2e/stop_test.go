package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"noted/internal/localpg/pgtest"
)

// A frozen database must neither keep the server from ending nor leave waiting clients without an answer.
func TestServeEndsInTimeWhileItsDatabaseIsFrozen(t *testing.T) {
	const grace, more = 3 * time.Second, 5 * time.Second
	data := publicFolder(t, nil)
	t.Cleanup(func() { removePlace(t, data) })
	postgres := startPostgres(t, data)
	s := newSite(t, postgres.URL("postgres"), "")
	p := s.serve(t, nil, "--shutdown-grace", grace.String())
	session := s.browser(t).signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	ada := plainClient(s.direct, session)
	kept := ada.write(t, "written before")
	// Give the pool some connections to close.
	var busy sync.WaitGroup
	for range 20 {
		busy.Go(func() { _, _ = ada.try(t.Context(), http.MethodGet, "/v1/notes/"+kept.ID, nil) })
	}
	busy.Wait()

	frozen := clusterProcesses(t, data)
	if len(frozen) < 5 {
		t.Fatalf("PostgreSQL has %d processes", len(frozen))
	}
	signalAll(frozen, syscall.SIGSTOP)
	defer func() { signalAll(clusterProcesses(t, data), syscall.SIGCONT) }()
	var waiting sync.WaitGroup
	var mu sync.Mutex
	told := map[string]int{}
	for i := range 30 {
		waiting.Go(func() {
			method, path, body := http.MethodGet, "/v1/notes/"+kept.ID, any(nil)
			switch i % 3 {
			case 1:
				method, path, body = http.MethodPost, "/v1/notes", map[string]string{"title": "t", "body": "b"}
			case 2:
				path = "/v1/me"
			}
			a, err := ada.try(t.Context(), method, path, body)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				told[err.Error()]++
			} else {
				told[fmt.Sprintf("%d, Retry-After: %t", a.status, a.header.Get("Retry-After") != "")]++
			}
		})
	}
	// One sends its body slowly, and is told too.
	conn := hang(t, s.direct, session)
	answered := make(chan string, 1)
	go func() {
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = response.Body.Close()
		answered <- response.Status
	}()
	time.Sleep(500 * time.Millisecond)
	begun := time.Now()
	p.signal(syscall.SIGTERM)
	if !p.endsWithin(grace + more) {
		t.Errorf("noted has not ended %s after SIGTERM", time.Since(begun))
	}
	waiting.Wait()
	if len(told) != 1 || told["503, Retry-After: true"] != 30 {
		t.Errorf("those who waited were told %v", told)
	}
	if status := <-answered; !strings.HasPrefix(status, "503") {
		t.Errorf("who was sending was told %s", status)
	}
}

// hang sends a request whose body never ends.
func hang(t *testing.T, base, token string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "POST /v1/notes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func signalAll(processes []running, signal syscall.Signal) {
	for _, one := range processes {
		_ = syscall.Kill(one.pid, signal)
	}
}

// A client with a kept connection is told of its end before it closes, and so loses no request.
func TestServeDrainsWithoutCuttingAnybodyOff(t *testing.T) {
	s := newSite(t, pgtest.URL(t), "")
	p := s.serve(t, nil)
	session := s.browser(t).signIn(t, "/auth/login?login_hint=ada", sessionCookie)
	ends := make(chan string)
	const clients = 40
	for i := range clients {
		go func() {
			transport := &http.Transport{MaxIdleConnsPerHost: 1}
			defer transport.CloseIdleConnections()
			for n := 0; ; n++ {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.direct+"/v1/notes", strings.NewReader(`{"title":"t","body":"b"}`))
				if err != nil {
					ends <- err.Error()
					return
				}
				r.Header.Set("Authorization", "Bearer "+session)
				r.Header.Set("Content-Type", "application/json")
				r.GetBody = nil // so that the transport sends it once
				response, err := transport.RoundTrip(r)
				if err != nil {
					ends <- err.Error()
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != http.StatusCreated {
					ends <- response.Status
					return
				}
				if response.Close {
					ends <- "told"
					return
				}
				time.Sleep(time.Duration(i*10) * time.Millisecond)
			}
		}()
	}
	time.Sleep(time.Second)
	p.signal(syscall.SIGTERM)
	var how []string
	for range clients {
		how = append(how, <-ends)
	}
	if others := slices.DeleteFunc(how, func(end string) bool { return end == "told" }); len(others) > 0 {
		t.Errorf("%d clients ended otherwise: %q", len(others), others)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
