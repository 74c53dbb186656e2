package server

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// memory is what the process may use.
type memory struct {
	limit  int64 // bytes, for Go's runtime; math.MaxInt64: no limit
	source string
}

// findMemory takes four fifths of the control group's limit. The rest is for what Go's runtime does not count (the
// program itself, the kernel's connection buffers). GOMEMLIMIT takes precedence; the runtime reads it itself.
func findMemory(root fs.FS) memory {
	if os.Getenv("GOMEMLIMIT") != "" {
		return memory{debug.SetMemoryLimit(-1), "GOMEMLIMIT"}
	}
	if limit, file := controlGroupLimit(root); file != "" {
		return memory{limit / 5 * 4, "/" + file}
	}
	return memory{math.MaxInt64, "none"}
}

// controlGroupLimit returns the smallest limit of the process's control groups and their ancestors, and the file
// that sets it; no file if there is no limit. (See the kernel's cgroup-v2 and cgroup-v1/memory. In a container the
// own group is often mounted as the root, whatever /proc/self/cgroup says.)
func controlGroupLimit(root fs.FS) (limit int64, file string) {
	limit = math.MaxInt64
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit, ""
	}
	for line := range strings.Lines(string(own)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		var mount, name string
		switch {
		case controllers == "":
			mount, name = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+controllers+",", ",memory,"):
			mount, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for at := path.Join("/", group); ; at = path.Dir(at) {
			candidate := path.Join(mount, at, name)
			text, err := fs.ReadFile(root, candidate)
			// Without a limit, v2 says max, v1 a huge number.
			if n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && parseErr == nil && n > 0 && n < 1<<60 && n < limit {
				limit, file = n, candidate
			}
			if at == "/" {
				break
			}
		}
	}
	return limit, file
}

// apply sets the runtime's limit. The runtime then collects more often near it.
func (m memory) apply(log *slog.Logger) {
	if m.source != "GOMEMLIMIT" && m.limit != math.MaxInt64 {
		debug.SetMemoryLimit(m.limit)
	}
	limit := slog.String("limit", "none")
	if m.limit != math.MaxInt64 {
		limit = slog.Int64("limit", m.limit)
	}
	log.Info("memory", limit, slog.String("from", m.source))
}

const mib = 1 << 20

// A process that holds more than restful from the system, while the runtime has no reason to collect, gives back
// what it can.
const (
	restful   = 96 * mib
	restEvery = 10 * time.Second
)

// rest gives memory back after a burst. The runtime collects only when the heap has grown, so a burst leaves its
// memory behind: the next collection may be two minutes away, and pages go back slowly.
func (s *Server) rest(ctx context.Context) {
	ticker := time.NewTicker(restEvery)
	defer ticker.Stop()
	var before usage
	floor := uint64(restful)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := readUsage()
		// A collection since the last look means that there is work: the runtime handles it.
		if now.held > floor && now.collections == before.collections {
			debug.FreeOSMemory()
			now = readUsage()
			// What is left is live. Try again only when it has grown by half.
			floor = max(restful, now.held+now.held/2)
		}
		before = now
	}
}

// usage is what the runtime holds from the system, in bytes, and how many collections it started by itself.
type usage struct{ held, collections uint64 }

func readUsage() usage {
	samples := []runtimemetrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/cycles/automatic:gc-cycles"},
	}
	runtimemetrics.Read(samples)
	return usage{samples[0].Value.Uint64() - samples[1].Value.Uint64(), samples[2].Value.Uint64()}
}
