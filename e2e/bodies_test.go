package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"noted/internal/localpg/pgtest"
)

// buildPlain makes the binary without the race detector, which needs several times the memory.
func buildPlain(t *testing.T) string {
	t.Helper()
	path := filepath.Join(publicFolder(t, nil), "noted")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", path, "../cmd/noted").CombinedOutput(); err != nil { //nolint:gosec // ours
		t.Fatalf("building the binary: %v\n%s", err, out)
	}
	return path
}

// memory reads a line of /proc/PID/status, in MiB.
func (p *process) memory(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// post sends part of a body, announcing the whole length, and returns the answer's status. It returns zero if the
// connection broke first, as it may for a refused client that goes on sending.
func post(ctx context.Context, base, token string, length int, body string) int {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		_, _ = fmt.Fprintf(conn, "POST /v1/notes HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", conn.RemoteAddr(), token, length)
		_, _ = io.WriteString(conn, body)
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// meanwhile reads and writes small notes until done, and returns the count of each status, and the slowest.
func meanwhile(ctx context.Context, c client, done <-chan struct{}) (statuses map[int]int, slowest time.Duration) {
	statuses = map[int]int{}
	for {
		select {
		case <-done:
			return statuses, slowest
		case <-time.After(20 * time.Millisecond):
		}
		for method, body := range map[string]any{http.MethodGet: nil, http.MethodPost: map[string]string{"title": "small", "body": "short"}} {
			a, err := c.try(ctx, method, "/v1/notes", body)
			if err != nil {
				a.status = 0
			}
			statuses[a.status]++
			slowest = max(slowest, a.took)
		}
	}
}

// A misplaced list of a million empty objects took fifty times its bytes when it was decoded before it was
// refused, and stalled uploads were held forever.
func TestServeStaysSmallUnderLargeBodiesAndUnfinishedUploads(t *testing.T) {
	s := newSite(t, pgtest.URL(t), "")
	p := s.serveWith(t, buildPlain(t), nil)
	var attackers []string
	for _, name := range []string{"ada", "alice"} {
		attackers = append(attackers, s.browser(t).signIn(t, "/auth/login?login_hint="+name, sessionCookie))
	}
	bob := plainClient(s.direct, s.browser(t).signIn(t, "/auth/login?login_hint=bob", sessionCookie))
	atRest := p.memory(t, "VmRSS")

	const size = 7 << 20
	wide := `{"title":"a","body":"b","x":[` + strings.Repeat("{},", 2_300_000) + `{}]}`
	unfinished := (`{"title":"a","body":"` + strings.Repeat("x", size))[:size-100]
	var mu sync.Mutex
	answers := map[string]map[int]int{"wide": {}, "unfinished": {}}
	var all sync.WaitGroup
	attack := func(kind string, n, length int, body string) {
		for i := range n {
			all.Go(func() {
				status := post(t.Context(), s.direct, attackers[i%len(attackers)], length, body)
				mu.Lock()
				defer mu.Unlock()
				answers[kind][status]++
			})
		}
	}
	done := make(chan struct{})
	attack("wide", 20, len(wide), wide)
	attack("unfinished", 60, size, unfinished)
	go func() { all.Wait(); close(done) }()
	others, slowest := meanwhile(t.Context(), bob, done)
	attack("wide", 8, len(wide), wide) // when nothing is held any more, some are read to the end
	all.Wait()

	peak := p.memory(t, "VmHWM")
	t.Logf("at rest %d MiB, at most %d MiB; answers %v; others %v, the slowest after %s", atRest, peak, answers, others, slowest)
	if peak > 400 {
		t.Errorf("the process held %d MiB", peak)
	}
	for kind, statuses := range answers {
		for status := range statuses {
			switch {
			case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == 0,
				kind == "wide" && status == http.StatusUnprocessableEntity, kind == "unfinished" && status == http.StatusRequestTimeout:
			default:
				t.Errorf("%s: %d answers of %d", kind, statuses[status], status)
			}
		}
	}
	if answers["wide"][http.StatusUnprocessableEntity] == 0 || answers["unfinished"][http.StatusRequestTimeout] == 0 {
		t.Error("no large body was refused for what stands in it, or no unfinished one for its pace")
	}
	if len(others) != 2 || others[http.StatusOK] == 0 || others[http.StatusCreated] == 0 || slowest > 10*time.Second {
		t.Error("the other person's requests were not answered as ever")
	}
	p.await(t, time.Minute, "the process gives back what it took", func() bool { return p.memory(t, "VmRSS") < 140 })
	metrics := foreignClient(s.metrics, "").get(t, "/metrics").body
	if !strings.Contains(metrics, "\nnoted_http_body_bytes 0\n") {
		t.Error("something is still held")
	}
}

func TestServeSaysWhichMemoryItHasAndKeepsToGOMEMLIMIT(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.URL(t), "")
	p := s.serve(t, []string{"GOMEMLIMIT=256MiB"})
	var said struct {
		Limit int64
		From  string
	}
	for line := range strings.Lines(p.stderr.String()) {
		if strings.Contains(line, `"msg":"memory"`) {
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatal(err)
			}
		}
	}
	if said.Limit != 256<<20 || said.From != "GOMEMLIMIT" {
		t.Errorf("it says %+v", said)
	}
}
