// Command bodies answers: what do many large bodies at once cost, and what do other callers notice?
//
//	go run ./bench/bodies
//
// It builds noted, runs `noted dev` on a private PostgreSQL, and sends many bodies at once from several callers: wide
// ones of 6.9 MB (an unknown member with a list of empty objects), uploads of 7 MiB that stall before their end, and
// notes of 1 MiB. Meanwhile another person reads and writes small notes. Each row shows the process's peak memory
// (VmHWM), its memory afterwards, when it was back under 200 MiB (at most -settle later), the times of the other
// person's requests, before and meanwhile, and all statuses. A row usually takes two minutes, at most five. Linux only.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bodies:", err)
		os.Exit(1) //nolint:forbidigo // the end of main
	}
}

func command(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == "attack" {
		return attackFrom(ctx, args[1:], out)
	}
	flags := flag.NewFlagSet("bodies", flag.ContinueOnError)
	callers := flags.Int("callers", 12, "how many callers send the large bodies")
	counts := flags.String("counts", "20,100,400", "how many at once, for each row")
	length := flags.Duration("length", 5*time.Second, "how long each sender sends one body after another")
	settle := flags.Duration("settle", time.Minute, "how long the process may take to give memory back")
	kinds := flags.String("kinds", "wide,unfinished,notes", "which bodies")
	binary := flags.String("binary", "", "measure this noted; built from the sources if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *callers < 1 || flags.NArg() > 0 {
		return errors.New("there is at least one caller, and there are no arguments")
	}
	dir, err := os.MkdirTemp("", "noted-bodies-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // run by root, PostgreSQL is another user's
		return err
	}
	if *binary == "" {
		*binary = filepath.Join(dir, "noted")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", *binary, "./cmd/noted").CombinedOutput(); err != nil { //nolint:gosec // ours
			return fmt.Errorf("building noted: %w\n%s", err, text)
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "bodies\tat once\tat rest\tpeak\tafter\tunder 200 MiB\tothers' p50, p99 before\tmeanwhile\tothers' answers\tstatuses")
	for kind := range strings.SplitSeq(*kinds, ",") {
		for count := range strings.SplitSeq(*counts, ",") {
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 {
				return fmt.Errorf("-counts: %q is no number of bodies", count)
			}
			rowContext, cancel := context.WithTimeout(ctx, 4*time.Minute+*settle)
			err = row(rowContext, table, *binary, filepath.Join(dir, kind+count), kind, n, *callers, *length, *settle)
			cancel()
			if err != nil {
				return fmt.Errorf("%s, %d at once: %w", kind, n, err)
			}
			_ = table.Flush()
		}
	}
	return nil
}

// row measures one kind of body on its own process.
func row(ctx context.Context, table io.Writer, binary, data, kind string, n, callers int, length, settle time.Duration) error {
	s, err := startNoted(ctx, binary, data)
	if err != nil {
		return err
	}
	defer s.stop()
	tokens, org, err := s.makeCallers(ctx, callers)
	if err != nil {
		return err
	}
	before, _ := s.others(ctx, 3*time.Second, nil)
	rest, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	// A separate, nice process: the senders' load must not count as noted's.
	program, err := os.Executable()
	if err != nil {
		return err
	}
	attack := exec.CommandContext(ctx, program, append([]string{"attack", s.url, kind, strconv.Itoa(n), length.String(), org}, tokens...)...) //nolint:gosec // itself
	attack.Stderr = os.Stderr
	answered, statuses := make(chan struct{}), []byte(nil)
	go func() {
		defer close(answered)
		statuses, err = attack.Output()
	}()
	meanwhile, others := s.others(ctx, 0, answered)
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	over := time.Now()
	peak, err := s.memory("VmHWM")
	if err != nil {
		return err
	}
	after, err := s.memory("VmRSS")
	for ; err == nil && after >= 200 && time.Since(over) < settle; after, err = s.memory("VmRSS") {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	back := "never"
	if after < 200 {
		back = time.Since(over).Round(100 * time.Millisecond).String()
	}
	_, _ = fmt.Fprintf(table, "%s\t%d\t%d MiB\t%d MiB\t%d MiB\t%s\t%s\t%s\t%s\t%s\n",
		kind, n, rest, peak, after, back, quantiles(before), quantiles(meanwhile), counted(others), statuses)
	return nil
}

// instance is a running `noted dev`.
type instance struct {
	command *exec.Cmd
	url     string
	keys    map[string]string
}

func startNoted(ctx context.Context, binary, data string) (*instance, error) {
	s := &instance{command: exec.CommandContext(ctx, binary, "dev", "--listen", "127.0.0.1:0", "--data", data), keys: map[string]string{}} //nolint:gosec // ours
	s.command.Cancel = func() error { return s.command.Process.Signal(syscall.SIGTERM) }
	s.command.WaitDelay = 30 * time.Second
	out, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch words := strings.Fields(lines.Text()); {
		case len(words) == 3 && words[0] == "key":
			s.keys[words[1]] = words[2]
		case len(words) == 2 && words[0] == "ready":
			s.url = words[1]
			return s, nil
		}
	}
	s.stop()
	return nil, errors.New("noted did not become ready")
}

func (s *instance) stop() {
	_ = s.command.Process.Signal(syscall.SIGTERM)
	_ = s.command.Wait()
}

// memory reads a line of /proc/PID/status, in MiB.
func (s *instance) memory(name string) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kib, err := strconv.Atoi(fields[1])
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s", name)
}

// makeCallers makes an organization with n service keys: each is its own caller.
func (s *instance) makeCallers(ctx context.Context, n int) (tokens []string, org string, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, "", err
	}
	alice := &http.Client{Jar: jar, Timeout: 20 * time.Second}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/auth/login?login_hint=alice&return_to=/v1/me", nil)
	if err != nil {
		return nil, "", err
	}
	response, err := alice.Do(r)
	if err != nil {
		return nil, "", err
	}
	_ = response.Body.Close()
	var made struct{ ID, Secret string }
	ask := func(path, body string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		response, err := alice.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusCreated {
			return fmt.Errorf("POST %s: %s", path, response.Status)
		}
		return json.NewDecoder(response.Body).Decode(&made)
	}
	if err := ask("/v1/orgs", `{"name":"Senders"}`); err != nil {
		return nil, "", err
	}
	org = made.ID
	for i := range n {
		if err := ask("/v1/orgs/"+org+"/keys", fmt.Sprintf(`{"name":"sender %d","org_role":"writer","role":"key-writer"}`, i)); err != nil {
			return nil, "", err
		}
		tokens = append(tokens, made.Secret)
	}
	return tokens, org, nil
}

// others sends bob's small requests, about forty a second, for a time or until done.
func (s *instance) others(ctx context.Context, length time.Duration, done <-chan struct{}) (took []time.Duration, statuses map[string]int) {
	if done == nil {
		timer, cancel := context.WithTimeout(ctx, length)
		defer cancel()
		done = timer.Done()
	}
	statuses = map[string]int{}
	client := &http.Client{Timeout: time.Minute}
	var mu sync.Mutex
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := worker; ; i++ {
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond):
				}
				method, body := http.MethodGet, ""
				if i%2 == 0 {
					method, body = http.MethodPost, `{"title":"small","body":"and short"}`
				}
				began := time.Now()
				status := s.send(ctx, client, method, s.keys["bob"], []byte(body))
				mu.Lock()
				took = append(took, time.Since(began))
				statuses[status]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took, statuses
}

func (s *instance) send(ctx context.Context, client *http.Client, method, token string, body []byte) string {
	r, err := http.NewRequestWithContext(ctx, method, s.url+"/v1/notes", bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return "broken"
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return strconv.Itoa(response.StatusCode)
}

// attackFrom is the senders' process: URL KIND N LENGTH ORG TOKENS.
func attackFrom(ctx context.Context, args []string, out io.Writer) error {
	if len(args) < 6 {
		return errors.New("attack URL KIND N LENGTH ORG TOKENS")
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 5); err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	length, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(out, counted((&instance{url: args[0]}).attack(ctx, args[1], n, length, args[5:], args[4])))
	return err
}

// attack runs n senders, each with at least one body after another, and returns the statuses.
func (s *instance) attack(ctx context.Context, kind string, n int, length time.Duration, tokens []string, org string) map[string]int {
	var body []byte
	switch kind {
	case "wide":
		body = []byte(`{"title":"a","body":"b","x":[` + strings.Repeat("{},", 2_300_000) + `{}]}`)
	case "notes":
		body = fmt.Appendf(nil, `{"title":"a","org_id":%q,"body":%q}`, org, strings.Repeat("All of a note. ", 1<<20/15))
	}
	announced := len(body)
	if kind == "unfinished" {
		announced = 7 << 20
		body = []byte(`{"title":"a","body":"` + strings.Repeat("x", announced-100))
	}
	statuses := map[string]int{}
	end := time.Now().Add(length)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for once := true; once || time.Now().Before(end) && ctx.Err() == nil; once = false {
				status := s.post(ctx, tokens[i%len(tokens)], announced, body)
				mu.Lock()
				statuses[status]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return statuses
}

// post sends a body, announcing announced bytes, and reads the server's answer whenever it comes.
func (s *instance) post(ctx context.Context, token string, announced int, body []byte) string {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return "broken"
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() {
		_, _ = fmt.Fprintf(conn, "POST /v1/notes HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", conn.RemoteAddr(), token, announced)
		_, _ = conn.Write(body)
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "broken"
	}
	_ = response.Body.Close()
	return strconv.Itoa(response.StatusCode)
}

func quantiles(took []time.Duration) string {
	if len(took) == 0 {
		return "none"
	}
	slices.Sort(took)
	return fmt.Sprintf("%.1f, %.1f ms", took[len(took)/2].Seconds()*1000, took[(len(took)-1)*99/100].Seconds()*1000)
}

func counted(statuses map[string]int) string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		parts = append(parts, fmt.Sprintf("%s: %d", status, statuses[status]))
	}
	return strings.Join(parts, ", ")
}
