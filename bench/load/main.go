package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"noted/internal/localpg"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1) //nolint:forbidigo // the end of main
	}
}

// plan sets how much is measured.
type plan struct {
	rounds, connections int
	each                time.Duration // a round's length
	profile             string
}

// notesWritten is the number of notes, so that lists have several pages.
const notesWritten = 200

func command(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) > 0 {
		switch args[0] {
		case "noted":
			return serveNoted(ctx, args[1:], out)
		case "bare":
			return serveBare(ctx, args[1:], out)
		case "send":
			return sendMany(ctx, args[1:], out)
		}
	}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	var p plan
	flags.IntVar(&p.rounds, "rounds", 7, "rounds of each server for each row")
	flags.DurationVar(&p.each, "each", 2*time.Second, "length of a round")
	flags.IntVar(&p.connections, "connections", 32, "requests under way at once")
	flags.StringVar(&p.profile, "profile", "", "write a CPU profile of noted during the first row to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if p.rounds < 1 || p.each < 100*time.Millisecond || p.connections < 1 || flags.NArg() > 0 {
		return errors.New("rounds and connections are at least 1, a round at least 100ms, and there are no arguments")
	}
	// This ends whatever hangs.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute+time.Duration(6*(p.rounds+1))*2*p.each)
	defer cancel()

	database, err := localpg.Start(ctx, localpg.Options{Durable: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Stop()) }()
	noted, err := startChild(ctx, "noted", database.URL("postgres"), p.profile)
	if err != nil {
		return err
	}
	defer noted.end()
	who, err := prepare(ctx, noted.url)
	if err != nil {
		return err
	}
	bare, err := startChild(ctx, "bare", database.URL("postgres"), who.id)
	if err != nil {
		return err
	}
	defer bare.end()
	return compare(ctx, p, noted, bare, who, out)
}

// child is a server in its own process.
type child struct {
	cmd *exec.Cmd
	url string
	in  io.WriteCloser
}

// startChild runs this program in another role, which prints its address.
func startChild(ctx context.Context, role string, args ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{role}, args...)...) //nolint:gosec // ourselves
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second // then it is killed
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, errors.Join(fmt.Errorf("the server %s did not start", role), cmd.Wait())
	}
	return &child{cmd, strings.TrimSpace(line), in}, nil
}

func (c *child) end() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	_ = c.cmd.Wait()
}

// tell sends a line; it makes the noted child begin and end its profile.
func (c *child) tell(line string) error {
	_, err := io.WriteString(c.in, line+"\n")
	return err
}

// cpu returns the process's CPU time so far, user and system.
func (c *child) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// person is alice, who wrote the notes.
type person struct{ id, session, key, note string }

// prepare signs alice in, makes her a key and writes her notes.
func prepare(ctx context.Context, url string) (who person, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return who, err
	}
	browser := &http.Client{Jar: jar}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/auth/login?return_to=/version&login_hint=alice", http.NoBody)
	if err != nil {
		return who, err
	}
	answer, err := browser.Do(r)
	if err != nil {
		return who, err
	}
	_ = answer.Body.Close()
	for _, cookie := range jar.Cookies(answer.Request.URL) {
		who.session = cmp.Or(who.session, cookie.Value)
	}
	var key struct{ Secret string }
	var me struct{ ID string }
	err = errors.Join(
		do(ctx, http.MethodGet, url+"/v1/me", who.session, nil, &me),
		do(ctx, http.MethodPost, url+"/v1/keys", who.session, map[string]string{"name": "load"}, &key))
	who.id, who.key = me.ID, key.Secret
	for i := range notesWritten {
		var note struct{ ID string }
		body := map[string]string{"title": fmt.Sprintf("Note %d", i), "body": strings.Repeat("A line of a note.\n", 57)} // 1 KiB
		err = errors.Join(err, do(ctx, http.MethodPost, url+"/v1/notes", who.session, body, &note))
		who.note = note.ID
	}
	return who, err
}

func do(ctx context.Context, method, url, token string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	status, answer, err := send(ctx, method, url, token, text)
	if err == nil && status >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s: %d %s", method, url, status, answer)
	}
	return errors.Join(err, json.Unmarshal(answer, into))
}

func send(ctx context.Context, method, url, token string, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodGet {
		r.Body, r.ContentLength = http.NoBody, 0
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// measured is one round on one server.
type measured struct {
	Requests int           `json:"requests"`
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	cpu      time.Duration
}

func (m measured) perSecond() float64 { return float64(m.Requests) / m.Took.Seconds() }

// goal is what a single read should keep of the bare handler's requests per second.
const goal = 0.85

func compare(ctx context.Context, p plan, noted, bare *child, who person, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(table, format+"\t\n", args...) }
	line("\tserver\trequests/s\tp50\tp99\tCPU/request\tratio (least–greatest)")
	var verdicts []string
	for i, row := range []struct{ name, path, token string }{
		{"GET by key", "/v1/notes/" + who.note, who.key},
		{"GET by session", "/v1/notes/" + who.note, who.session},
		{"list of 50 by key", "/v1/notes?limit=50", who.key},
	} {
		if err := sameAnswer(ctx, noted.url, bare.url, row.path, row.token); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		profiled := i == 0 && p.profile != ""
		var of [2][]measured // noted's, the bare one's
		for round := range p.rounds + 1 {
			if profiled && round == 1 {
				if err := noted.tell("profile"); err != nil {
					return err
				}
			}
			for turn := range 2 {
				which := (turn + round) % 2
				m, err := measure(ctx, p, [2]*child{noted, bare}[which], row.path, row.token)
				if err != nil {
					return fmt.Errorf("%s: %w", row.name, err)
				}
				if round > 0 { // the first warms up
					of[which] = append(of[which], m)
				}
			}
		}
		if profiled {
			if err := noted.tell("done"); err != nil {
				return err
			}
		}
		var ratios []float64
		for round := range p.rounds {
			ratios = append(ratios, of[0][round].perSecond()/of[1][round].perSecond())
		}
		slices.Sort(ratios)
		middle := ratios[len(ratios)/2]
		for which, name := range []string{"noted", "bare"} {
			ratio := ""
			if which == 0 {
				ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", middle, ratios[0], ratios[len(ratios)-1])
			}
			m := sum(of[which])
			line("%s\t%s\t%.0f\t%v\t%v\t%v\t%s", row.name, name, m.perSecond(), m.P50.Round(10*time.Microsecond), m.P99.Round(10*time.Microsecond),
				(m.cpu / time.Duration(max(1, m.Requests))).Round(time.Microsecond), ratio)
		}
		if !strings.HasPrefix(row.name, "list") {
			word := "reached"
			if middle < goal {
				word = "not reached"
			}
			verdicts = append(verdicts, fmt.Sprintf("%s: %.2f of the bare handler; the goal of %.2f is %s", row.name, middle, goal, word))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d connections, %d rounds of %v each.\n%s\n", p.connections, p.rounds, p.each, strings.Join(verdicts, "\n"))
	return err
}

// sameAnswer compares the two servers' answers.
func sameAnswer(ctx context.Context, noted, bare, path, token string) error {
	status, one, err := send(ctx, http.MethodGet, noted+path, token, nil)
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("noted answers %d: %w", status, err)
	}
	status, other, err := send(ctx, http.MethodGet, bare+path, token, nil)
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("the bare handler answers %d: %w", status, err)
	}
	if noted, bare := shorn(one), shorn(other); !bytes.Equal(noted, bare) {
		return fmt.Errorf("the answers differ:\n%s\n%s", noted, bare)
	}
	return nil
}

// shorn removes a cursor, which each server seals for itself.
func shorn(answer []byte) []byte {
	if at := bytes.LastIndex(answer, []byte(`"next_cursor"`)); at >= 0 {
		answer = answer[:at]
	}
	return bytes.TrimSpace(answer)
}

func measure(ctx context.Context, p plan, server *child, path, token string) (m measured, err error) {
	before := server.cpu()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "send", server.url+path, token, p.each.String(), strconv.Itoa(p.connections)) //nolint:gosec // ourselves
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("sending requests: %w", err)
	}
	err = json.Unmarshal(text, &m)
	m.cpu = server.cpu() - before
	return m, err
}

// sum adds up rounds; its percentiles are the medians of theirs.
func sum(rounds []measured) (m measured) {
	var p50, p99 []time.Duration
	for _, one := range rounds {
		m.Requests += one.Requests
		m.Took += one.Took
		m.cpu += one.cpu
		p50, p99 = append(p50, one.P50), append(p99, one.P99)
	}
	slices.Sort(p50)
	slices.Sort(p99)
	m.P50, m.P99 = p50[len(p50)/2], p99[len(p99)/2]
	return m
}
