package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// sendMany is the sending process: URL TOKEN DURATION CONNECTIONS. It prints a measured. Each connection has one
// request under way; any answer but 200 ends everything.
func sendMany(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 4 {
		return errors.New("send URL TOKEN DURATION CONNECTIONS")
	}
	target, err1 := url.Parse(args[0])
	each, err2 := time.ParseDuration(args[2])
	connections, err3 := strconv.Atoi(args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", target.RequestURI(), target.Host, args[1])
	ctx, cancel := context.WithTimeout(ctx, each+30*time.Second)
	defer cancel()
	var group sync.WaitGroup
	var mu sync.Mutex
	var times []time.Duration
	var failed error
	began := time.Now()
	for range connections {
		group.Go(func() {
			mine, err := sendOn(ctx, target.Host, request, began.Add(each))
			mu.Lock()
			defer mu.Unlock()
			times, failed = append(times, mine...), errors.Join(failed, err)
		})
	}
	group.Wait()
	took := time.Since(began)
	if failed != nil || len(times) == 0 {
		return fmt.Errorf("after %d answers: %w", len(times), failed)
	}
	slices.Sort(times)
	return json.NewEncoder(out).Encode(measured{
		Requests: len(times), Took: took, P50: times[len(times)/2], P99: times[len(times)*99/100],
	})
}

// sendOn sends over one connection until the end, and returns each answer's time.
func sendOn(ctx context.Context, host string, request []byte, end time.Time) (times []time.Duration, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(end.Add(20 * time.Second)); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	for {
		began := time.Now()
		if !began.Before(end) {
			return times, nil
		}
		if _, err := conn.Write(request); err != nil {
			return times, err
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return times, err
		}
		n, err := io.Copy(io.Discard, answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || n < 100 {
			return times, fmt.Errorf("the answer is %s with %d bytes: %w", answer.Status, n, errors.Join(err, answer.Body.Close()))
		}
		times = append(times, time.Since(began))
	}
}
