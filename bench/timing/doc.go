// Command timing answers: can a caller tell from the time why authentication failed?
//
//	make timing
//
// It builds noted and runs it as `noted serve`, with its own PostgreSQL and OpenID provider. It sends credentials that
// fail for every reason, in random order, over kept connections. A time runs from just before the request is written to
// the first byte of the answer. Every answer must be the one answer, and noted must count the intended reasons.
//
// A busy server blurs its own times, and an attacker waits for a quiet moment. So many replicas run, which share the
// database, with one request at a time each (-replicas, -workers): as quiet as possible, and still done in two minutes.
//
// Each kind of failure is compared with all others of the same sort of credential; a caller knows anyway whether it sent
// a key or a session. (The comparison with all sorts is shown too, and decides nothing: those are other requests.) The
// measure is Welch's t, how many standard errors two means are apart. The limit is 4.5, as in the usual tests for
// leakage (TVLA, ISO/IEC 17825, dudect): chance gives such a |t| once in 150,000 comparisons, so that a table of fifty
// passes unless there is something to see.
//
// t uses all measurements. But a few slow ones widen the spread and so hide a small difference, which a patient caller
// would find by ignoring them. So the same limit applies to two more values. "of 90 %" uses the quicker nine tenths,
// with the same cut for all compared. "of spread" uses squared distances from the mean, for times with the same mean and
// another distribution (TVLA's second order).
//
// Seeing nothing proves little unless the program can see something. So a short run with next to no floor comes first,
// which must find a difference; -self-test is that run alone.
//
// It exits with 0 if it sees no difference, and with 1 if it sees one or something went wrong, which it says.
package main
