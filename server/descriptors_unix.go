//go:build unix

package server

import "golang.org/x/sys/unix"

// descriptors returns how many files and connections the process may open; 0 if unknown.
func descriptors() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30)) //nolint:unconvert // the type differs among systems
}
