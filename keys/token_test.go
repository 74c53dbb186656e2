package keys

import (
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// inBase62 is noted's base62 by math/big, whose lower case comes first.
func inBase62(b []byte, width int) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, new(big.Int).SetBytes(b).Text(62))
	return strings.Repeat("0", width-len(text)) + text
}

// write builds a key from its parts, sharing no code with the room.
func write(id uuid.UUID, secret []byte) string {
	body := "noted_" + inBase62(id[:], 22) + "_" + inBase62(secret, 43)
	sum := crc32.ChecksumIEEE([]byte(body))
	return body + inBase62([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, 6)
}

var form = regexp.MustCompile(`^noted_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`)

func TestAKeyIsItsIDItsSecretAndAChecksumOfBoth(t *testing.T) {
	for range 200 {
		id := uuid.Must(uuid.NewV7())
		token, hash := newToken(id)
		text := string(token)
		if !form.MatchString(text) || len(text) != 78 {
			t.Fatalf("%q is not of the form", text)
		}
		number := new(big.Int)
		for _, c := range text[29:72] {
			number.Mul(number, big.NewInt(62)).Add(number, big.NewInt(int64(strings.IndexRune(alphabet, c))))
		}
		secret := number.FillBytes(make([]byte, 32))
		if want := write(id, secret); text != want {
			t.Fatalf("%s, want %s", text, want)
		}
		if sum := sha256.Sum256(secret); string(sum[:]) != string(hash) {
			t.Fatal("the hash is not the secret's SHA-256")
		}
		gotID, gotHash, err := token.parse()
		if err != nil || gotID != id || string(gotHash[:]) != string(hash) {
			t.Fatalf("parsed as %v, %v", gotID, err)
		}
	}
}

func TestAnyKeyWrittenElsewhereIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		secret := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret")
		got, hash, err := Token(write(id, secret)).parse()
		if err != nil || got != id || hash != sha256.Sum256(secret) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

func TestAnyChangedCharacterOfAKeyIsNoticed(t *testing.T) {
	token, _ := newToken(uuid.Must(uuid.NewV7()))
	characters := alphabet + "_-+/= \x00\n"
	for i := range token {
		for _, c := range []byte(characters) {
			if token[i] == c {
				continue
			}
			changed := token[:i] + Token(c) + token[i+1:]
			if _, _, err := changed.parse(); err == nil {
				t.Fatalf("%s was taken for %s", changed, token)
			}
		}
	}
	// Swapped neighbours are a common typo.
	for i := 6; i+1 < len(token); i++ {
		if token[i] != token[i+1] {
			if _, _, err := (token[:i] + token[i+1:i+2] + token[i:i+1] + token[i+2:]).parse(); err == nil {
				t.Fatalf("characters %d and %d swapped were taken", i, i+1)
			}
		}
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	token, _ := newToken(uuid.Must(uuid.NewV7()))
	overflow := func(id, secret string) Token {
		body := "noted_" + id + "_" + secret
		sum := crc32.ChecksumIEEE([]byte(body))
		return Token(body + inBase62([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, 6))
	}
	zeros := strings.Repeat("0", 43)
	for _, c := range []struct {
		token Token
		err   error
	}{
		{"", errMalformed},
		{"noted_", errMalformed},
		{token + "0", errMalformed},
		{token[:77], errMalformed},
		{" " + token[:77], errMalformed},
		{"NOTED_" + token[6:], errMalformed},
		{Token(strings.Repeat("a", 78)), errMalformed},
		{overflow(strings.Repeat("z", 22), zeros), errMalformed},
		{overflow(zeros[:22], strings.Repeat("z", 43)), errMalformed},
		{overflow(zeros[:21]+"-", zeros), errMalformed},
		{overflow(zeros[:22], zeros[:42]+"_"), errMalformed},
	} {
		if _, _, err := c.token.parse(); !errors.Is(err, c.err) {
			t.Errorf("%q: %v, want %v", c.token, err, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	token, _ := newToken(uuid.MustParse("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"))
	for _, seed := range []string{string(token), "", "noted_", string(token[:50]), string(token) + "\n", write(uuid.Nil, make([]byte, 32)), write(uuid.Max, []byte(strings.Repeat("\xff", 32))), strings.Repeat("noted_", 13)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, hash, err := Token(text).parse()
		if err != nil {
			return
		}
		number := new(big.Int)
		for _, c := range text[29:72] {
			number.Mul(number, big.NewInt(62)).Add(number, big.NewInt(int64(strings.IndexRune(alphabet, c))))
		}
		secret := number.FillBytes(make([]byte, 32))
		if again := write(id, secret); again != text || hash != sha256.Sum256(secret) {
			t.Errorf("%q was read, and is written %q", text, again)
		}
	})
}

func TestParsingAllocatesNothing(t *testing.T) {
	token, _ := newToken(uuid.Must(uuid.NewV7()))
	typo := token[:40] + "0" + token[41:]
	if typo == token {
		typo = token[:40] + "1" + token[41:]
	}
	for what, one := range map[string]Token{"a key": token, "a typo": typo, "no key": "noted_x"} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = one.parse() }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func TestTheChecksumIsTheLibrarysCRC(t *testing.T) {
	for _, text := range []string{"", "a", "123456789", strings.Repeat("noted", 20)} {
		if got, want := crc(text), crc32.ChecksumIEEE([]byte(text)); got != want {
			t.Errorf("of %q it is %08x, want %08x", text, got, want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	token, _ := newToken(uuid.Must(uuid.NewV7()))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := token.parse(); err != nil {
			b.Fatal(err)
		}
	}
}
