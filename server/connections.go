package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections is a listener that bounds the number of client connections. When one more comes, it closes the one
// that has waited longest for its client's next request; HTTP lets either side do that at any time (RFC 9112,
// 9.5). So idle connections never keep active clients out. If all are busy, the new one waits.
type connections struct {
	net.Listener
	most    int
	dropped prometheus.Counter

	mu      sync.Mutex
	changed *sync.Cond
	open    map[net.Conn]*list.Element // in waiting; nil if answering
	waiting *list.List                 // waiting for a whole request, longest first
}

func newConnections(most int, registry prometheus.Registerer) *connections {
	c := &connections{most: most, open: map[net.Conn]*list.Element{}, waiting: list.New(), dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "noted_http_connections_dropped_total", Help: "Idle connections of clients that were closed for others that came.",
	})}
	c.changed = sync.NewCond(&c.mu)
	registry.MustRegister(c.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "noted_http_connections", Help: "Connections of clients.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.open))
	}))
	return c
}

// Accept implements net.Listener.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.open) >= c.most {
		if longest := c.waiting.Front(); longest != nil {
			c.drop(longest)
			c.dropped.Inc()
		} else {
			c.changed.Wait()
		}
	}
	return conn, nil
}

// drop closes a waiting connection.
func (c *connections) drop(one *list.Element) {
	conn, _ := c.waiting.Remove(one).(net.Conn)
	delete(c.open, conn)
	_ = conn.Close()
}

// dropWaiting closes all that are waiting.
func (c *connections) dropWaiting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting.Len() > 0 {
		c.drop(c.waiting.Front())
	}
}

// follow is the server's ConnState. A connection becomes active when its request's header is read.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.open[conn]
	if !known && state != http.StateNew {
		return // dropped
	}
	if before != nil {
		c.waiting.Remove(before)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.open[conn] = c.waiting.PushBack(conn)
	case http.StateActive:
		c.open[conn] = nil
	case http.StateHijacked, http.StateClosed:
		delete(c.open, conn)
	}
	c.changed.Signal()
}
