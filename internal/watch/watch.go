package watch

import (
	"context"
	"os"
	"slices"
	"time"
)

// every is how often the files are looked at. A change is told when two looks in a row saw the
// same: within a second of the last write, and not while writing goes on.
const every = 250 * time.Millisecond

// Watch is a set of files, and what they looked like when it was made.
type Watch struct {
	names []string
	seen  []os.FileInfo
}

// Files makes a Watch. Make it before reading the files, so that no change falls between.
func Files(names ...string) *Watch { return &Watch{names, look(names)} }

// Run calls changed after a file changed, came or went, until ctx ends. What happens while
// changed runs is told by another call.
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

// look is the status of each file, through symbolic links; nil for one that is not there.
func look(names []string) []os.FileInfo {
	list := make([]os.FileInfo, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); err == nil {
			list[i] = info
		}
	}
	return list
}

// same tells whether nothing was written between two looks. Two writes within one tick of the
// file system's clock show one time; but the second is not steady at the first look after it.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changeTime(a).Equal(changeTime(b))
}
