package space_test

import (
	"fmt"
	"math/bits"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"noted/internal/space"
)

// binary writes an id as RFC 9562 draws it: 128 bits, the most significant first.
func binary(id uuid.UUID) string {
	text := ""
	for _, octet := range id {
		text += fmt.Sprintf("%08b", octet)
	}
	return text
}

func TestTheSixteenBitsBehindTheVariantAreTheSpacesAndAllElseIsAUUIDv7(t *testing.T) {
	spaces := []uuid.UUID{uuid.Nil, uuid.Max}
	for range 200 {
		spaces = append(spaces, uuid.New(), uuid.Must(uuid.NewV7()))
	}
	for i := range 128 { // a single bit
		var one uuid.UUID
		one[i/8] = 0x80 >> (i % 8)
		spaces = append(spaces, one)
	}
	for _, of := range spaces {
		before := time.Now().UnixMilli()
		id := space.NewID(of)
		after := time.Now().UnixMilli()
		drawn := binary(id)
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%s is version %d of variant %s", id, id.Version(), id.Variant())
		}
		if at, _ := strconv.ParseInt(drawn[:48], 2, 64); at < before || at > after {
			t.Errorf("%s has the time %d, not one from %d to %d", id, at, before, after)
		}
		if got, want := drawn[66:82], binary(of)[66:82]; got != want {
			t.Errorf("%s in %s: %s, want %s", id, of, got, want)
		}
		if want, _ := strconv.ParseUint(drawn[66:82], 2, 16); uint64(space.Bucket(id)) != want || uint64(space.Bucket(of)) != want {
			t.Errorf("the buckets of %s and %s are %d and %d, want %d", id, of, space.Bucket(id), space.Bucket(of), want)
		}
	}
}

// The 46 bits after the bucket are random: over many ids each is about as often 1 as 0.
func TestTheBitsBehindTheBucketAreRandom(t *testing.T) {
	const ids = 4000
	of, seen, ones := uuid.New(), map[uuid.UUID]bool{}, [128]int{}
	for range ids {
		id := space.NewID(of)
		seen[id] = true
		for i := range ones {
			ones[i] += bits.OnesCount8(id[i/8] & (0x80 >> (i % 8)))
		}
	}
	if len(seen) != ids {
		t.Errorf("%d of %d ids differ", len(seen), ids)
	}
	for i := 82; i < 128; i++ {
		if ones[i] < ids*4/10 || ones[i] > ids*6/10 { // twelve standard deviations
			t.Errorf("bit %d is 1 in %d of %d ids", i, ones[i], ids)
		}
	}
}

// Lists are ordered by time and id, so ids must not decrease.
func TestIDsOfOneSpaceGrow(t *testing.T) {
	of := uuid.New()
	last := space.NewID(of)
	for range 10_000 {
		next := space.NewID(of)
		if next.String() <= last.String() {
			t.Fatalf("%s comes after %s", next, last)
		}
		last = next
	}
}
