package oidc

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// signatureAlgorithms are those that noted knows for ID tokens: only public keys (RFC 7518, 3.1;
// RFC 8037). go-oidc allows those of them that the discovery document lists.
var signatureAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// keySet holds a provider's published keys, as an oidc.KeySet. Unlike go-oidc's own it uses a key
// only for what it was published for. An unknown key id makes it fetch the keys at most once in
// refetchKeysAfter: anybody can send a token with one.
type keySet struct {
	client  *http.Client
	address string // jwks_uri
	now     func() time.Time

	fetching sync.Mutex // held during a fetch, so that others wait for its outcome
	mu       sync.RWMutex
	keys     []jose.JSONWebKey
	tried    time.Time // the last fetch, except the first good one: no unknown key id caused it
	err      error     // of the last fetch
}

// VerifySignature returns the payload of a token signed by one of the keys. If no known key fits,
// it fetches the keys once more (OpenID Connect Core, 10.1.1).
func (k *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	token, err := jose.ParseSignedCompact(raw, signatureAlgorithms)
	if err != nil {
		return nil, err
	}
	keys, err := k.known(ctx)
	if err != nil {
		return nil, err
	}
	if payload, ok := verifyBy(keys, token); ok {
		return payload, nil
	}
	if keys, err = k.fetch(ctx); err != nil {
		return nil, err
	}
	if payload, ok := verifyBy(keys, token); ok {
		return payload, nil
	}
	return nil, errors.New("none of the provider's keys has signed it")
}

// verifyBy tries the keys that the token's header allows: those with its key id, if it has one,
// and with its algorithm, if the key has one (RFC 7517, 4.4 and 4.5; RFC 8725, 3.1).
func verifyBy(keys []jose.JSONWebKey, token *jose.JSONWebSignature) (payload []byte, ok bool) {
	header := token.Signatures[0].Header
	for _, key := range keys {
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := token.Verify(&key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// known returns the keys as last fetched.
func (k *keySet) known(ctx context.Context) ([]jose.JSONWebKey, error) {
	k.mu.RLock()
	keys := k.keys
	k.mu.RUnlock()
	if keys != nil {
		return keys, nil
	}
	return k.fetch(ctx)
}

// fetch asks for the keys unless that was just done. If that fails, the earlier keys stay in use.
func (k *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	asked := k.now()
	k.fetching.Lock()
	defer k.fetching.Unlock()
	k.mu.RLock()
	keys, tried, err := k.keys, k.tried, k.err
	k.mu.RUnlock()
	pause := refetchKeysAfter
	if keys == nil {
		pause = retryAfter
	}
	if tried.After(asked) || k.now().Sub(tried) < pause {
		return keys, err
	}
	fresh, _, err := fetchKeys(context.WithoutCancel(ctx), k.client, k.address)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err != nil {
		k.tried = k.now()
		return k.keys, err
	}
	if k.keys != nil {
		k.tried = k.now()
	}
	k.keys = fresh
	return fresh, nil
}

// fetchKeys asks once for the keys that may sign tokens. It returns the answer's header too.
func fetchKeys(ctx context.Context, client *http.Client, address string) ([]jose.JSONWebKey, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("jwks_uri: %w", err)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := client.Do(r)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching the keys: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("fetching the keys: %s", response.Status)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching the keys: %w", err)
	}
	keys, err := readKeys(body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the keys: %w", err)
	}
	return keys, response.Header, nil
}

// minimumRSA is the minimum length of an RSA key in bytes (RFC 7518, 3.3).
const minimumRSA = 2048 / 8

// readKeys reads a JWK set (RFC 7517, 5). It leaves out keys that noted does not know, that are
// not for signatures, or that are not strong public keys.
func readKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, err
	}
	keys := []jose.JSONWebKey{}
	for _, raw := range set.Keys {
		var about struct {
			Operations []string `json:"key_ops"`
		}
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &about) != nil || json.Unmarshal(raw, &key) != nil || !key.Valid() || !key.IsPublic() {
			continue
		}
		number, isRSA := key.Key.(*rsa.PublicKey)
		switch {
		case key.Use != "" && key.Use != "sig",
			about.Operations != nil && !slices.Contains(about.Operations, "verify"),
			key.Algorithm != "" && !slices.Contains(signatureAlgorithms, jose.SignatureAlgorithm(key.Algorithm)),
			isRSA && number.Size() < minimumRSA:
		default:
			keys = append(keys, key)
		}
	}
	return keys, nil
}
