package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// keyCommand is `noted key`: the caller's API keys at a server.
type keyCommand struct {
	List   keyListCommand   `cmd:"" help:"List your keys: role, last use, when they stop."`
	New    keyNewCommand    `cmd:"" help:"Make a key; it is printed, this once, on standard output."`
	Rotate keyRotateCommand `cmd:"" help:"Give a key a new secret; it is printed on standard output, and the old one works until the overlap ends."`
	Rename keyRenameCommand `cmd:"" help:"Rename a key."`
	Revoke keyRevokeCommand `cmd:"" help:"Revoke a key, at once."`
}

// apiKey is a key as the server shows it.
type apiKey struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Role       string     `json:"role"`
	ExpiresAt  time.Time  `json:"expires_at"`
	StopsAt    time.Time  `json:"stops_at"`
	Warning    string     `json:"warning"`
	LastUsedAt *time.Time `json:"last_used_at"`
	LastUsedIP *string    `json:"last_used_ip"`
	Secrets    []struct {
		ExpiresAt time.Time `json:"expires_at"`
	} `json:"secrets"`
	Secret string `json:"secret"` // of a new one
}

// keyToken matches a key; nothing else that a server sends is printed as one.
var keyToken = regexp.MustCompile(`^noted_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}$`)

// sendJSON sends body, unless nil, and reads an answer of the status into out, unless nil.
func (c *client) sendJSON(ctx context.Context, method, path string, body any, status int, out any) error {
	var text []byte
	mediaType := ""
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
		mediaType = "application/json"
	}
	a, err := c.send(ctx, method, path, mediaType, text)
	if err != nil {
		return err
	}
	if a.status != status {
		return c.refused(a)
	}
	if out == nil {
		return nil
	}
	return c.decode(a, out)
}

// printSecret prints a new key alone on standard output, for a file or a variable, the rest on standard error.
func (c *client) printSecret(to streams, key apiKey, did string) error {
	if !keyToken.MatchString(key.Secret) {
		return c.noSense()
	}
	if _, err := fmt.Fprintln(to.out, key.Secret); err != nil {
		return fmt.Errorf("the key %s was %s, and could not be printed: %w; revoke or rotate it", c.show(key.ID), did, err)
	}
	_, err := fmt.Fprintf(to.err, "Key %s (%s, %s) %s at %s; it works until %s. It cannot be shown again.\n",
		c.show(key.ID), c.show(key.Name), c.show(key.Role), did, c.server, key.StopsAt.Local().Format(time.RFC3339))
	return err
}

type keyListCommand struct {
	serverFlag
	JSON bool `name:"json" help:"Print the server's own items, one a line."`
}

// Run prints the keys, the newest first.
func (k *keyListCommand) Run(ctx context.Context, to streams) error {
	c, err := k.signedIn()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(table, format+"\n", args...) }
	if !k.JSON {
		line("ID\tNAME\tROLE\tSECRETS\tLAST USED\tSTOPS")
	}
	var warnings []string
	for cursor := ""; ; {
		var page struct {
			Items []jsontext.Value `json:"items"`
			Next  *string          `json:"next_cursor"`
		}
		if _, err := c.read(ctx, "/v1/keys?limit=200"+cursor, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if k.JSON {
				line("%s", escaped(c.hide(string(item))))
				continue
			}
			var key apiKey
			if json.Unmarshal(item, &key) != nil {
				return c.noSense()
			}
			used := "never"
			if key.LastUsedAt != nil {
				used = key.LastUsedAt.Local().Format(time.DateTime)
				if key.LastUsedIP != nil {
					used += " from " + c.show(*key.LastUsedIP)
				}
			}
			line("%s\t%s\t%s\t%d\t%s\t%s", c.show(key.ID), c.show(key.Name), c.show(key.Role), len(key.Secrets), used, key.StopsAt.Local().Format(time.DateTime))
			if key.Warning != "" {
				warnings = append(warnings, fmt.Sprintf("%s (%s): %s", c.show(key.Name), c.show(key.ID), c.show(key.Warning)))
			}
		}
		if page.Next == nil || len(page.Items) == 0 {
			err := table.Flush()
			for _, one := range warnings {
				_, _ = fmt.Fprintln(to.err, "warning:", one)
			}
			return err
		}
		cursor = "&cursor=" + url.QueryEscape(*page.Next)
	}
}

type keyNewCommand struct {
	serverFlag
	Name    string        `arg:"" help:"What the key is for."`
	Role    string        `help:"A key role of the policy; key-reader if left out."`
	Expires time.Duration `help:"How long it works, such as 12h, 30d or 1d12h; 90 days if left out."`
}

// Run makes a key.
func (k *keyNewCommand) Run(ctx context.Context, to streams) error {
	c, err := k.signedIn()
	if err != nil {
		return err
	}
	body := map[string]any{"name": k.Name, "role": cmp.Or(k.Role, "key-reader")}
	if k.Expires != 0 {
		body["expires_at"] = time.Now().Add(k.Expires).UTC()
	}
	var key apiKey
	if err := c.sendJSON(ctx, http.MethodPost, "/v1/keys", body, http.StatusCreated, &key); err != nil {
		return err
	}
	return c.printSecret(to, key, "made")
}

// keyID is the argument that names a key.
type keyID struct {
	ID string `arg:"" help:"The key's id, as noted key list shows it."`
}

func (k keyID) path() string { return "/v1/keys/" + url.PathEscape(k.ID) }

type keyRotateCommand struct {
	serverFlag
	keyID
	Overlap *time.Duration `help:"How long the old secret works on, such as 1h or 7d; 0s for not at all; 24h if left out."`
}

// Run rotates a key.
func (k *keyRotateCommand) Run(ctx context.Context, to streams) error {
	c, err := k.signedIn()
	if err != nil {
		return err
	}
	body := map[string]string{}
	if k.Overlap != nil {
		body["overlap"] = k.Overlap.String()
	}
	var key apiKey
	if err := c.sendJSON(ctx, http.MethodPost, k.path()+"/rotate", body, http.StatusCreated, &key); err != nil {
		return err
	}
	return c.printSecret(to, key, "rotated")
}

type keyRenameCommand struct {
	serverFlag
	keyID
	Name string `arg:"" help:"Its new name."`
}

// Run renames a key.
func (k *keyRenameCommand) Run(ctx context.Context) error {
	c, err := k.signedIn()
	if err != nil {
		return err
	}
	return c.sendJSON(ctx, http.MethodPatch, k.path(), map[string]string{"name": k.Name}, http.StatusOK, nil)
}

type keyRevokeCommand struct {
	serverFlag
	keyID
}

// Run revokes a key.
func (k *keyRevokeCommand) Run(ctx context.Context) error {
	c, err := k.signedIn()
	if err != nil {
		return err
	}
	return c.sendJSON(ctx, http.MethodDelete, k.path(), nil, http.StatusNoContent, nil)
}
