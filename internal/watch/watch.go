package watch

import (
	"context"
	"os"
	"slices"
	"time"
)

// every is how often the files are looked at. A change is reported after two equal looks in a row: within a second
// of the last write, and not during writing.
const every = 250 * time.Millisecond

// Watch is a set of files, and their status when it was made.
type Watch struct {
	names []string
	seen  []os.FileInfo
}

// Files makes a Watch. Make it before reading the files, so that no change is missed.
func Files(names ...string) *Watch { return &Watch{names, look(names)} }

// Run calls changed after a file changed, appeared or vanished, until ctx ends. Changes while changed runs cause
// another call.
func (w *Watch) Run(ctx context.Context, changed func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := w.seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := look(w.names)
		steady := slices.EqualFunc(now, last, same)
		last = now
		if steady && !slices.EqualFunc(now, w.seen, same) {
			w.seen = now
			changed()
		}
	}
}

// look returns each file's status, through symbolic links; nil if there is no file.
func look(names []string) []os.FileInfo {
	list := make([]os.FileInfo, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); err == nil {
			list[i] = info
		}
	}
	return list
}

// same reports whether nothing was written between two looks. Two writes within one tick of the file system's
// clock have the same time, but the look that confirms the first comes after both.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changeTime(a).Equal(changeTime(b))
}
