package identity

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lastStretch is how long before the moment to call sleepUntil.
const lastStretch = 2 * time.Millisecond

// sleepUntil returns at the moment. Go's own timers are up to a millisecond late here: they use
// epoll_wait, which counts whole milliseconds from the end of the work before. So their lateness
// reveals how long that work took. The kernel's timer is equally late for all.
func sleepUntil(moment time.Time) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		time.Sleep(time.Until(moment))
		return
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	defer func() { _ = timer.Close() }()
	wait := time.Until(moment)
	if wait <= 0 {
		return
	}
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(wait.Nanoseconds())}, nil); err != nil {
		time.Sleep(wait)
		return
	}
	_, _ = timer.Read(make([]byte, 8))
}
