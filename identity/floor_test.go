package identity

import (
	"context"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

func TestAFailureIsAnsweredAtAMultipleOfTheFloor(t *testing.T) {
	const floor = 300 * time.Millisecond
	for _, c := range []struct{ age, at time.Duration }{
		{0, floor}, {1, floor}, {10 * time.Millisecond, floor}, {floor - 1, floor},
		{floor + 1, 2 * floor}, {2*floor - 1, 2 * floor}, {20*time.Second + 1, 20*time.Second + 100*time.Millisecond},
	} {
		if got := c.age + untilFloor(c.age, floor); got != c.at {
			t.Errorf("work of %v is answered after %v, want %v", c.age, got, c.at)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		age := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "age"))
		floor := time.Duration(rapid.Int64Range(1, int64(10*time.Second)).Draw(t, "floor"))
		wait := untilFloor(age, floor)
		if wait < 0 || wait > floor || (age+wait)%floor != 0 || age+wait < floor {
			t.Fatalf("at the age of %v with the floor %v it waits %v", age, floor, wait)
		}
	})
	if untilFloor(time.Second, 0) != 0 || untilFloor(time.Second, -1) != 0 {
		t.Error("no floor waits")
	}
}

// Without an answer it would be an empty 200.
func TestAFailureWhoseTimeIsUpIsAnsweredAndOneWhoseClientIsGoneIsNot(t *testing.T) {
	s := &Service{config: Config{Floor: time.Hour}}
	over, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if !s.waitFloor(over) {
		t.Error("whose time is up is not answered")
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	if s.waitFloor(gone) {
		t.Error("who is gone is answered")
	}
}

func TestTheLimiterCountsAnAddressByTheMinute(t *testing.T) {
	l := newLimiter(3)
	at := time.Unix(1_800_000_000, 0) // a whole minute
	count := func(address string, after time.Duration) time.Duration {
		t.Helper()
		return l.count(netip.MustParseAddr(address), at.Add(after))
	}
	for i := range 3 {
		if wait := count("192.0.2.1", time.Duration(i)*time.Second); wait != 0 {
			t.Errorf("failure %d waits %v", i+1, wait)
		}
	}
	if wait := count("192.0.2.1", 10*time.Second); wait != 50*time.Second {
		t.Errorf("the fourth waits %v, want what is left of the minute", wait)
	}
	if wait := count("192.0.2.1", 59*time.Second+999*time.Millisecond); wait != time.Millisecond {
		t.Errorf("at the end of the minute it waits %v", wait)
	}
	if wait := count("192.0.2.2", 10*time.Second); wait != 0 {
		t.Errorf("the neighbour waits %v", wait)
	}
	if wait := count("192.0.2.1", time.Minute); wait != 0 {
		t.Errorf("in the next minute it waits %v", wait)
	}
}

func TestAnIPv6AddressCountsAsItsNetwork(t *testing.T) {
	l := newLimiter(2)
	at := time.Unix(1_800_000_000, 0)
	for i, c := range []struct {
		address string
		limited bool
	}{
		{"2001:db8:0:1::1", false},
		{"2001:db8:0:1:ffff::2", false},
		{"2001:db8:0:1::3", true},
		{"2001:db8:0:2::1", false}, // the next network
		{"2001:db8:1:1::1", false},
	} {
		if wait := l.count(netip.MustParseAddr(c.address), at); (wait > 0) != c.limited {
			t.Errorf("%d, %s: %v", i, c.address, wait)
		}
	}
}

// An IPv4 client may come as ::ffff:a.b.c.d, all of which is one /64.
func TestAnIPv4AddressInIPv6DressIsOneAddress(t *testing.T) {
	l := newLimiter(1)
	at := time.Unix(1_800_000_000, 0)
	l.count(netip.MustParseAddr("::ffff:192.0.2.1"), at)
	if wait := l.count(netip.MustParseAddr("::ffff:192.0.2.2"), at); wait > 0 {
		t.Errorf("all of IPv4 shares one count: %v", wait)
	}
	if wait := l.count(netip.MustParseAddr("192.0.2.1"), at); wait == 0 {
		t.Error("the same address in the other dress has a count of its own")
	}
}

func TestUnknownAddressesCountTogether(t *testing.T) {
	l := newLimiter(1)
	at := time.Unix(1_800_000_000, 0)
	if l.count(netip.Addr{}, at) != 0 || l.count(netip.Addr{}, at) == 0 {
		t.Error("the second unknown address was not limited")
	}
}

func TestALimitOfZeroIsNone(t *testing.T) {
	l := newLimiter(0)
	for range 1000 {
		if l.count(netip.MustParseAddr("192.0.2.1"), time.Now()) != 0 {
			t.Fatal("it waits")
		}
	}
}

func TestTheLimitersTableDoesNotGrow(t *testing.T) {
	l := newLimiter(1)
	before := unsafe.Sizeof(*l)
	at := time.Unix(1_800_000_000, 0)
	allocated := testing.AllocsPerRun(1, func() {
		for i := range 100_000 {
			l.count(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), at)
		}
	})
	if allocated > 10 || unsafe.Sizeof(*l) != before || before > 1<<20 {
		t.Errorf("%v allocations for 100,000 addresses, %d bytes", allocated, before)
	}
}

func TestASessionTokenHasOneForm(t *testing.T) {
	token := NewToken()
	if hash, ok := token.Hash(); !ok || len(hash) != 32 {
		t.Fatalf("%q has no hash", token)
	}
	if again := NewToken(); again == token {
		t.Error("two tokens are the same")
	}
	for _, bad := range []Token{"", "nsess_", token + "0", token[:len(token)-1], "NSESS_" + token[6:], " " + token, token + " ",
		token[:48] + "-", "nsess_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"} {
		if _, ok := bad.Hash(); ok {
			t.Errorf("%q is taken for a token", bad)
		}
	}
}

func FuzzTokenHash(f *testing.F) {
	f.Add(string(NewToken()))
	f.Add("nsess_")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		hash, ok := Token(s).Hash()
		if ok && (len(s) != 49 || len(hash) != 32) || !ok && hash != nil {
			t.Errorf("%q: %x, %v", s, hash, ok)
		}
	})
}
