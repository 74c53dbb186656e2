package watch

import (
	"os"
	"syscall"
	"time"
)

// changeTime is when the file or its status last changed, which no program can set back.
func changeTime(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}
