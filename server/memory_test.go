package server

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestTheLimitOfTheControlGroupIsFound(t *testing.T) {
	files := func(pairs ...string) fstest.MapFS {
		root := fstest.MapFS{}
		for i := 0; i < len(pairs); i += 2 {
			root[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
		}
		return root
	}
	const mib = 1 << 20
	for name, c := range map[string]struct {
		root  fstest.MapFS
		limit int64
		file  string
	}{
		"no Linux":               {files(), math.MaxInt64, ""},
		"no limit":               {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "max\n"), math.MaxInt64, ""},
		"a container":            {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "536870912\n"), 512 * mib, "sys/fs/cgroup/memory.max"},
		"a systemd unit":         {files("proc/self/cgroup", "0::/system.slice/noted.service\n", "sys/fs/cgroup/system.slice/noted.service/memory.max", "268435456\n"), 256 * mib, "sys/fs/cgroup/system.slice/noted.service/memory.max"},
		"the group above":        {files("proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "268435456\n", "sys/fs/cgroup/a/b/memory.max", "max\n"), 256 * mib, "sys/fs/cgroup/a/memory.max"},
		"the least of both":      {files("proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "268435456\n", "sys/fs/cgroup/a/b/memory.max", "134217728\n"), 128 * mib, "sys/fs/cgroup/a/b/memory.max"},
		"a path of the host":     {files("proc/self/cgroup", "0::/docker/0123\n", "sys/fs/cgroup/memory.max", "536870912\n"), 512 * mib, "sys/fs/cgroup/memory.max"},
		"outside its root":       {files("proc/self/cgroup", "0::/../x\n", "sys/fs/cgroup/memory.max", "536870912\n"), 512 * mib, "sys/fs/cgroup/memory.max"},
		"v1":                     {files("proc/self/cgroup", "12:cpu,cpuacct:/y\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "134217728\n"), 128 * mib, "sys/fs/cgroup/memory/x/memory.limit_in_bytes"},
		"v1, memory beside else": {files("proc/self/cgroup", "4:hugetlb,memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"), 128 * mib, "sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"v1 with none":           {files("proc/self/cgroup", "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"), math.MaxInt64, ""},
		"garbage":                {files("proc/self/cgroup", "x\n\n::\n0::/\n", "sys/fs/cgroup/memory.max", "much\n"), math.MaxInt64, ""},
	} {
		if limit, file := controlGroupLimit(c.root); limit != c.limit || file != c.file {
			t.Errorf("%s: %d by %q, want %d by %q", name, limit, file, c.limit, c.file)
		}
	}
	root := files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "536870912\n")
	t.Setenv("GOMEMLIMIT", "")
	if m := findMemory(root); m.limit != 536870912/5*4 || m.source != "/sys/fs/cgroup/memory.max" {
		t.Errorf("found %+v", m)
	}
	t.Setenv("GOMEMLIMIT", "300MiB") // the runtime read it at its start; this one had none
	if m := findMemory(root); m.source != "GOMEMLIMIT" {
		t.Errorf("GOMEMLIMIT does not go before the control group: %+v", m)
	}
}

func TestBodiesGetTheirShareOfLittleMemoryAndNoMoreOfMuch(t *testing.T) {
	for limit, together := range map[int64]int64{64 << 20: 16 << 20, 256 << 20: 32 << 20, 512 << 20: 64 << 20, 4 << 30: 128 << 20, math.MaxInt64: 128 << 20} {
		if got := (memory{limit: limit}).bodies(); got.Together != together || got.Caller != together/4 {
			t.Errorf("of %d: %+v", limit, got)
		}
	}
}
