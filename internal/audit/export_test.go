package audit

import "time"

// FailuresAtMost is how many failures may wait.
const FailuresAtMost = failuresAtMost

// TellEvery sets how often the log reports drops.
func (f *Failures) TellEvery(d time.Duration) { f.tellEvery = d }
