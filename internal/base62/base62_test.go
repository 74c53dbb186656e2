package base62_test

import (
	"bytes"
	"errors"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"noted/internal/base62"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// byBigInt encodes with the standard library instead: big.Int orders digits, lower case, upper case, while noted
// has upper case first.
func byBigInt(b []byte, width int) string {
	swapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, new(big.Int).SetBytes(b).Text(62))
	return strings.Repeat("0", width-len(swapped)) + swapped
}

func TestEveryNumberIsWrittenAsBigIntWritesItAndReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]struct{ bytes, width int }{{4, 6}, {16, 22}, {32, 43}}).Draw(t, "size")
		b := rapid.SliceOfN(rapid.Byte(), size.bytes, size.bytes).Draw(t, "b")
		before := bytes.Clone(b)
		text := base62.Encode(b, size.width)
		if want := byBigInt(b, size.width); text != want {
			t.Fatalf("%x is %s, want %s", b, text, want)
		}
		if !bytes.Equal(b, before) {
			t.Fatalf("encoding changed its argument to %x", b)
		}
		// The buffer's old content must not matter.
		back := bytes.Repeat([]byte{0xff}, size.bytes)
		if err := base62.Decode(back, text); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%s is read as %x, %v; want %x", text, back, err, b)
		}
	})
}

func TestTheSmallestAndTheLargestNumberFit(t *testing.T) {
	for _, size := range []struct{ bytes, width int }{{4, 6}, {16, 22}, {32, 43}} {
		for _, fill := range []byte{0, 0xff} {
			b := bytes.Repeat([]byte{fill}, size.bytes)
			text, back := base62.Encode(b, size.width), make([]byte, size.bytes)
			if err := base62.Decode(back, text); err != nil || !bytes.Equal(back, b) || len(text) != size.width {
				t.Errorf("%d bytes of %#x: %q, back %x, %v", size.bytes, fill, text, back, err)
			}
		}
	}
}

func TestANumberThatDoesNotFitIsRefused(t *testing.T) {
	for _, bytes := range []int{4, 16, 32} {
		width := map[int]int{4: 6, 16: 22, 32: 43}[bytes]
		over := new(big.Int).Lsh(big.NewInt(1), uint(8*bytes))
		for _, text := range []string{byBigInt(over.Bytes(), width), strings.Repeat("z", width)} {
			if err := base62.Decode(make([]byte, bytes), text); !errors.Is(err, base62.ErrInvalid) {
				t.Errorf("%s into %d bytes: %v", text, bytes, err)
			}
		}
	}
}

func TestACharacterOutsideTheAlphabetIsRefused(t *testing.T) {
	for c := range 256 {
		text := "00" + string([]byte{byte(c)}) + "000"
		err := base62.Decode(make([]byte, 4), text)
		inside := strings.IndexByte(alphabet, byte(c)) >= 0
		if inside != (err == nil) {
			t.Errorf("byte %#x: %v", c, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"", "0", "zzzzzz", "4gfFC3", "4gfFC4", "00000000000000000000", "Ω", "a b", "\x00", "+/", strings.Repeat("z", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := make([]byte, 4)
		if base62.Decode(b, text) != nil {
			return
		}
		// Accepted text has one spelling, except for the padding.
		want := strings.TrimLeft(text, "0")
		if got := strings.TrimLeft(base62.Encode(b, 6), "0"); got != want {
			t.Errorf("%q is read as %x, which is written %q", text, b, got)
		}
	})
}
