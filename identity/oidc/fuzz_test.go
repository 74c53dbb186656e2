package oidc

import (
	"encoding/base64"
	"strings"
	"testing"
)

// What strangers send is parsed before any of it is verified. It breaks nothing, and a token has one
// spelling.
func FuzzTokenBeforeItIsVerified(f *testing.F) {
	part := base64.RawURLEncoding.EncodeToString
	f.Add(part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part([]byte(`{"iss":"https://idp.example"}`)) + ".c2ln")
	f.Add(part([]byte(`{"typ":1,"crit":["b64"]}`)) + "." + part([]byte(`{"iss":"accounts.google.com","iss":"x"}`)) + ".")
	f.Add("..")
	f.Add(".")
	f.Add("")
	f.Fuzz(func(t *testing.T, raw string) {
		issuer, err := IssuerOf(raw)
		if !canonical(raw) {
			if err == nil {
				t.Fatalf("%q has the issuer %q", raw, issuer)
			}
			return
		}
		_, _ = headerType(raw)
		parts := strings.Split(raw, ".")
		for i, one := range parts {
			decoded, err := base64.RawURLEncoding.DecodeString(one)
			if err != nil || part(decoded) != one || len(parts) != 3 {
				t.Fatalf("part %d of %q is not the spelling of what it says", i, raw)
			}
		}
	})
}

// A provider's keys come from outside too. Those that are kept can verify, and are public and strong.
func FuzzReadKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"c2VjcmV0"},null,1]}`))
	f.Add([]byte(`{"keys":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := readKeys(body)
		if err != nil && keys != nil {
			t.Fatal(keys, err)
		}
		for _, key := range keys {
			if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
				t.Errorf("%+v is kept", key)
			}
		}
	})
}
