package base62

import "errors"

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// ErrInvalid is returned for characters outside the alphabet and for numbers that do not fit.
var ErrInvalid = errors.New("not base62 of this size")

// Encode writes b, a number with its most significant byte first, as width characters. A width too small for b
// drops its top, so callers use a width for the largest b.
func Encode(b []byte, width int) string {
	number := append([]byte(nil), b...)
	out := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		remainder := 0
		for j, digit := range number {
			remainder = remainder<<8 | int(digit)
			number[j] = byte(remainder / 62)
			remainder %= 62
		}
		out[i] = alphabet[remainder]
	}
	return string(out)
}

// Decode reads s into b, filling it. It returns ErrInvalid when s has a character outside
// the alphabet or is a number too large for b.
func Decode(b []byte, s string) error {
	clear(b)
	for i := range len(s) {
		carry := value(s[i])
		if carry < 0 {
			return ErrInvalid
		}
		for j := len(b) - 1; j >= 0; j-- {
			carry += int(b[j]) * 62
			b[j] = byte(carry)
			carry >>= 8
		}
		if carry != 0 {
			return ErrInvalid
		}
	}
	return nil
}

func value(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'Z':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 36
	}
	return -1
}
