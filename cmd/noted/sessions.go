package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// sessions are this account's sessions, as sessionFile keeps them.
type sessions struct {
	Last    string             `json:"last,omitzero"` // the server of the last login, even after logout
	Servers map[string]session `json:"servers"`       // by address, as parseServer writes it
}

// session is a session with one server.
type session struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"` // its absolute end, as promised by the server
}

// bearerToken matches a valid bearer token (RFC 6750, 2.1).
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9\-._~+/]{1,1000}={0,2}$`)

// check refuses what this program never writes.
func (s sessions) check() error {
	if s.Last != "" {
		if address, err := parseServer(s.Last); err != nil || address != s.Last {
			return errors.New("last is no address of a server")
		}
	}
	for name, one := range s.Servers {
		if address, err := parseServer(name); err != nil || address != name {
			return errors.New("one of the servers has a name that is no address")
		}
		if !bearerToken.MatchString(one.Token) {
			return fmt.Errorf("the token of %s is none", name)
		}
	}
	return nil
}

// sessionFile is the path of the file with the sessions: noted/sessions.json in the account's configuration folder
// ($XDG_CONFIG_HOME, else ~/.config, on Unix). Only the account may read it: whoever has a token is signed in.
type sessionFile string

// maxSessionFile is far more than anybody needs.
const maxSessionFile = 1 << 20

// findSessionFile returns the file's path; the file need not exist.
func findSessionFile() (sessionFile, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder to keep sessions in: %w", err)
	}
	return sessionFile(filepath.Join(folder, "noted", "sessions.json")), nil
}

// read returns the kept sessions; none if there is no file. If others can read the file, or it is damaged, read
// returns an error that says what to do.
func (f sessionFile) read() (sessions, error) {
	kept := sessions{Servers: map[string]session{}}
	file, err := os.Open(string(f))
	if errors.Is(err, os.ErrNotExist) {
		return kept, nil
	}
	if err != nil {
		return kept, fmt.Errorf("sessions: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return kept, fmt.Errorf("sessions: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return kept, fmt.Errorf("others on this machine can read or change %s, which keeps your sessions (its mode is %#o). If nobody had a reason to, close it:\n  chmod 600 %[1]q\nelse end your sessions and delete it",
			string(f), info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSessionFile+1))
	if err == nil && len(text) > maxSessionFile {
		err = errors.New("too large")
	}
	if err == nil {
		// Strict, so that rewriting the file does not lose what a newer noted added.
		if json.Unmarshal(text, &kept, json.RejectUnknownMembers(true)) != nil {
			err = errors.New("not the JSON that noted writes") // the decoder's own words might quote a token
		}
	}
	if err == nil {
		err = kept.check()
	}
	if err != nil {
		return sessions{}, fmt.Errorf("%s is damaged: %w. Repair it, or move it away and log in again; it was left as it is", string(f), err)
	}
	if kept.Servers == nil {
		kept.Servers = map[string]session{}
	}
	return kept, nil
}

// change reads, edits and writes the file; concurrent programs wait for each other.
func (f sessionFile) change(edit func(*sessions)) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	kept, err := f.read()
	if err != nil {
		return err
	}
	edit(&kept)
	return f.write(kept)
}

// prepare checks, before a person is asked for anything, that a session can be kept.
func (f sessionFile) prepare() error { return f.change(func(*sessions) {}) }

// lock makes the folder if it is missing and locks it.
func (f sessionFile) lock() (unlock func(), err error) {
	folder := filepath.Dir(string(f))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	info, err := os.Stat(folder)
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("others on this machine can change what is in %s, where your sessions are kept (its mode is %#o). Close it:\n  chmod 700 %[1]q", folder, info.Mode().Perm())
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // in the account's own folder
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("sessions: locking %s: %w", lock.Name(), err)
	}
	return func() { lock.Close() }, nil
}

// write replaces the file in one step: readers find the old one or the new one, whole.
func (f sessionFile) write(kept sessions) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sessions: %w", err)
		}
	}()
	text, err := json.Marshal(kept, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(string(f)), ".sessions-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // still there only after a failure
	_, err = file.Write(append(text, '\n'))
	// os.CreateTemp makes it 0600, minus the umask.
	if err = errors.Join(err, file.Chmod(0o600), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), string(f))
}
