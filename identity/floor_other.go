//go:build !linux

package identity

import "time"

// lastStretch is how long before the moment to call sleepUntil.
const lastStretch = 0

// sleepUntil returns at the moment.
func sleepUntil(moment time.Time) { time.Sleep(time.Until(moment)) }
