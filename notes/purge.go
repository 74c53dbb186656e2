package notes

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// purgeBatchSize is how many notes the purge finds at once. One transaction deletes at most as many, so
// that it is short.
const purgeBatchSize = 200

// batchTimeout ends a batch, which has no statement_timeout.
const batchTimeout = time.Minute

type metrics struct {
	purged      prometheus.Counter
	lastSuccess prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "noted_purged_notes_total", Help: "Notes that this process purged from the Dead Zone.",
		}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "noted_purge_last_success_timestamp_seconds", Help: "When this process last finished a purge, in Unix time; 0 if not yet.",
		}),
	}
	registry.MustRegister(m.purged, m.lastSuccess)
	return m
}

// Purge deletes every note whose time in the Dead Zone is over, and returns how many. It works in
// batches; each transaction stays in one space.
func (s *Service) Purge(ctx context.Context) (int, error) {
	total, last := 0, due{}
	for {
		n, found, err := s.purgeBatch(ctx, &last)
		total += n
		if err != nil {
			return total, err
		}
		if found < purgeBatchSize {
			return total, s.purgeOrgs(ctx)
		}
	}
}

// purgeBatch purges the batch after last and advances last. It returns how many notes it deleted and
// how many it found.
func (s *Service) purgeBatch(ctx context.Context, last *due) (purged, found int, err error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	list, err := s.listDue(ctx, *last, purgeBatchSize)
	if err != nil || len(list) == 0 {
		return 0, 0, err
	}
	*last = list[len(list)-1]
	inSpaces := map[uuid.UUID][]uuid.UUID{}
	for _, one := range list {
		inSpaces[one.Space] = append(inSpaces[one.Space], one.ID)
	}
	for in, ids := range inSpaces {
		n, err := s.purgeSome(ctx, in, ids)
		purged += n
		s.metrics.purged.Add(float64(n))
		if err != nil {
			return purged, len(list), err
		}
	}
	return purged, len(list), nil
}

// RunPurge purges at once and then every PurgeEvery, until ctx ends. It logs what it purged and what
// failed, and warns when the last success is older than twice PurgeEvery.
func (s *Service) RunPurge(ctx context.Context) {
	ticker := time.NewTicker(s.config.PurgeEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		n, err := s.Purge(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.LogAttrs(ctx, slog.LevelError, "purge failed", slog.Any("error", err), slog.Int("purged", n))
		default:
			last = time.Now()
			s.metrics.lastSuccess.Set(float64(last.Unix()))
			if n > 0 {
				s.log.LogAttrs(ctx, slog.LevelInfo, "purged the Dead Zone", slog.Int("purged", n))
			}
		}
		if late := time.Since(last); late > 2*s.config.PurgeEvery {
			s.log.LogAttrs(ctx, slog.LevelWarn, "the purge is late", slog.Duration("since_last_success", late), slog.Duration("purge_every", s.config.PurgeEvery))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
