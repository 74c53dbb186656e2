package identity

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lastStretch is how long before a moment sleepUntil should be called.
const lastStretch = 2 * time.Millisecond

// sleepUntil returns at the moment. Go's own timers are late by up to a millisecond here, since
// they wait by epoll_wait, which counts in whole ones from when the work before was done: how
// late they are tells how long that work took. The kernel's timer is late by the same for all.
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
