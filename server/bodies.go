package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"noted/internal/bodies"
)

// bodies bounds what callers' bodies may hold. A request with a note of 1 MiB costs about four times its body at
// its peak (the body, the text made of it, what goes to the database, what comes back and is written), and the
// heap may grow to five times what lives before it is collected. So bodies get an eighth of the memory, at most
// 128 MiB: as many of the largest notes at a time. One caller gets a quarter of it.
func (m memory) bodies() bodies.Limits {
	together := min(max(m.limit/8, 16*mib), 128*mib)
	return bodies.Limits{Caller: together / 4, Together: together}
}

// strangers bounds the forms of the public routes: hundreds at a time, of a few KiB each.
func (m memory) strangers() bodies.Limits {
	return bodies.Limits{Caller: mib, Together: m.bodies().Together / 8}
}

// newBudgets makes both budgets, with their metrics.
func (s *Server) newBudgets() (callers, strangers *bodies.Budget) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "noted_http_bodies_refused_total", Help: "Bodies of requests that were refused for their size or pace, or for what others hold, by reason.",
	}, []string{"reason"})
	for _, reason := range bodies.Reasons {
		refused.WithLabelValues(reason)
	}
	count := func(reason string) { refused.WithLabelValues(reason).Inc() }
	callers, strangers = bodies.New(s.memory.bodies(), count), bodies.New(s.memory.strangers(), count)
	s.registry.MustRegister(refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "noted_http_body_bytes", Help: "What the bodies of requests under way hold, in bytes.",
	}, func() float64 { return float64(callers.Held() + strangers.Held()) }))
	return callers, strangers
}
