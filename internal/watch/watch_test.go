package watch

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Each case changes the content of a file in another way; the path stays.
func TestEveryWayToChangeAFileIsNoticedOnce(t *testing.T) {
	must := func(t *testing.T, errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }
	for _, c := range []struct {
		name   string
		start  func(t *testing.T, dir string) // makes dir/policy.csv
		change func(t *testing.T, dir string)
	}{
		{"written in place", nil, func(t *testing.T, dir string) {
			must(t, write(filepath.Join(dir, "policy.csv"), "two"))
		}},
		{"written in place in pieces", nil, func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "policy.csv"), os.O_TRUNC|os.O_WRONLY, 0)
			must(t, err)
			for range 8 {
				_, err := f.WriteString("x")
				must(t, err)
				time.Sleep(every / 2)
			}
			must(t, f.Close())
		}},
		{"written in place with the same size and time", nil, func(t *testing.T, dir string) {
			name := filepath.Join(dir, "policy.csv")
			info, err := os.Stat(name)
			must(t, err, write(name, "eno"), os.Chtimes(name, info.ModTime(), info.ModTime()))
		}},
		{"replaced by a rename, as editors do", nil, func(t *testing.T, dir string) {
			must(t, write(filepath.Join(dir, ".policy.csv.swp"), "two"), os.Rename(filepath.Join(dir, ".policy.csv.swp"), filepath.Join(dir, "policy.csv")))
		}},
		{"moved away and written again, as other editors do", nil, func(t *testing.T, dir string) {
			name := filepath.Join(dir, "policy.csv")
			must(t, os.Rename(name, name+"~"), write(name, "two"))
		}},
		{"deleted", nil, func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "policy.csv"))) }},
		{"a folder behind two symbolic links, as Kubernetes does", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "..1"), 0o700), write(filepath.Join(dir, "..1", "policy.csv"), "one"),
				os.Symlink("..1", filepath.Join(dir, "..data")), os.Symlink(filepath.Join("..data", "policy.csv"), filepath.Join(dir, "policy.csv")))
		}, func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "..2"), 0o700), write(filepath.Join(dir, "..2", "policy.csv"), "two"),
				os.Symlink("..2", filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
				os.RemoveAll(filepath.Join(dir, "..1")))
		}},
		{"what a symbolic link leads to is written", func(t *testing.T, dir string) {
			elsewhere := filepath.Join(t.TempDir(), "real.csv")
			must(t, write(elsewhere, "one"), os.Symlink(elsewhere, filepath.Join(dir, "policy.csv")))
		}, func(t *testing.T, dir string) {
			target, err := os.Readlink(filepath.Join(dir, "policy.csv"))
			must(t, err, write(target, "two"))
		}},
		{"the whole folder is replaced", nil, func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700), write(filepath.Join(dir, "policy.csv"), "two"))
		}},
		{"it comes to be", func(*testing.T, string) {}, func(t *testing.T, dir string) {
			must(t, write(filepath.Join(dir, "policy.csv"), "one"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "etc")
			must(t, os.Mkdir(dir, 0o700))
			if c.start != nil {
				c.start(t, dir)
			} else {
				must(t, write(filepath.Join(dir, "policy.csv"), "one"))
			}
			ctx, cancel := context.WithCancel(t.Context())
			var told atomic.Int32
			w, done := Files(filepath.Join(dir, "policy.csv"), filepath.Join(dir, "model.conf")), make(chan struct{})
			go func() {
				defer close(done)
				w.Run(ctx, func() { told.Add(1) })
			}()
			time.Sleep(3 * every)
			if told.Load() != 0 {
				t.Errorf("told %d times of nothing", told.Load())
			}
			c.change(t, dir)
			for end := time.Now().Add(20 * time.Second); told.Load() == 0 && time.Now().Before(end); {
				time.Sleep(every / 5)
			}
			time.Sleep(3 * every)
			if told.Load() != 1 {
				t.Errorf("told %d times", told.Load())
			}
			cancel()
			<-done
		})
	}
}

func TestAChangeBeforeRunIsTold(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy.csv")
	w := Files(name)
	if err := os.WriteFile(name, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := false
	w.Run(ctx, func() {
		told = true
		cancel()
	})
	if !told {
		t.Error("not told")
	}
}
