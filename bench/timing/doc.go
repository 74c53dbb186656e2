// Command timing answers: can a caller tell from the time why authentication failed?
//
//	make timing
//
// It builds noted and runs it as `noted serve`, with a PostgreSQL and an OpenID provider of its own, and sends it
// credentials that fail for each reason there is, in random order, over connections that are kept. A time runs from
// just before the request is written to the first byte of the answer. Every answer is checked to be the one answer,
// and the reasons that noted counts to be those that were meant.
//
// A busy server blurs its own times; whoever wants to tell them apart waits for a quiet moment. So many replicas run,
// which share the database, and each has one request at a time (-replicas, -workers): as quiet as it gets, and still
// done in two minutes.
//
// Each kind of failure is held against all the others of the same sort of credential; that it sent a key and no
// session, a caller knows anyway (against all sorts is shown too, and decides nothing: they are other requests). The
// measure is Welch's t, how many standard errors two means are apart, and the limit is 4.5, as in the usual tests for
// leakage (TVLA, ISO/IEC 17825, dudect): by chance a |t| so large comes once in 150,000 comparisons, so that a table
// of fifty passes unless there is something to see.
//
// t is of all measurements; none is left out. But a few slow ones widen the spread, and so hide a small difference,
// which a patient caller would find by passing over them. So the same limit holds for two more: "of 90 %" is that of
// the quicker nine tenths, where the tenth begins being the same for those compared; "of spread" is that of their
// squared distances from the mean, for times that have the same mean and another distribution (TVLA's second order).
//
// That nothing is seen proves little unless the same program can see something. So a short run with next to no floor
// comes first, in which it must find a difference; -self-test is that run alone.
//
// It exits with 0 when no difference is seen, with 1 when one is, or when something went wrong, which it says.
package main
