package audit

import "time"

// FailuresAtMost is how many failures wait.
const FailuresAtMost = failuresAtMost

// TellEvery sets how often the log tells of what was dropped.
func (f *Failures) TellEvery(d time.Duration) { f.tellEvery = d }
