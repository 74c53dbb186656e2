package identity

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// limiter counts failures by address, in a table of fixed size. It does not grow, however
// many addresses fail. Two addresses can share a place and its count. That refuses nobody
// who has a valid credential. Each replica counts for itself.
type limiter struct {
	perMinute int
	seed      maphash.Seed
	mu        sync.Mutex
	places    [1 << 14]struct {
		minute int64
		count  int
	}
}

func newLimiter(perMinute int) *limiter {
	return &limiter{perMinute: perMinute, seed: maphash.MakeSeed()}
}

// count counts a failure. If the address has had more than its share in this minute, it
// returns how long to wait, else 0. An IPv6 address counts as its /64, which is what one
// customer has. Unknown addresses count together.
func (l *limiter) count(ip netip.Addr, now time.Time) time.Duration {
	if l.perMinute == 0 {
		return 0
	}
	network := networkOf(ip)
	minute := now.Unix() / 60
	l.mu.Lock()
	defer l.mu.Unlock()
	place := &l.places[maphash.Comparable(l.seed, network)%uint64(len(l.places))]
	if place.minute != minute {
		place.minute, place.count = minute, 0
	}
	if place.count++; place.count <= l.perMinute {
		return 0
	}
	return time.Unix((minute+1)*60, 0).Sub(now)
}

// networkOf returns what one customer has: an IPv4 address or an IPv6 /64. It is the zero Prefix for an
// unknown address.
func networkOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	network, _ := ip.Prefix(bits)
	return network
}
