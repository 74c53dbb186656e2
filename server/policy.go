package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"noted/authz"
	"noted/internal/audit"
)

type policyMetrics struct {
	reloads  *prometheus.CounterVec
	warnings prometheus.Gauge
}

// newPolicyMetrics registers the metrics of the policy in force.
func newPolicyMetrics(registry prometheus.Registerer, policy *authz.InForce) policyMetrics {
	m := policyMetrics{reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "noted_policy_reloads_total", Help: "Reloads of the policy by result: changed, same, refused.",
	}, []string{"result"}), warnings: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "noted_policy_warnings", Help: "Warnings about the policy in force.",
	})}
	for _, result := range []string{"changed", "same", "refused"} {
		m.reloads.WithLabelValues(result)
	}
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("noted_policy_loaded_timestamp_seconds", "When the policy in force was loaded, in Unix time.", func() float64 {
		return float64(policy.State().LoadedAt.UnixMilli()) / 1000
	})
	gauge("noted_policy_refused", "1 when the files were refused, so that an older policy is in force.", func() float64 {
		if policy.State().Err != nil {
			return 1
		}
		return 0
	})
	registry.MustRegister(m.reloads, m.warnings, policyHash{policy})
	return m
}

// policyHash shows the hash of the policy in force as a label.
type policyHash struct{ policy *authz.InForce }

var policyHashDesc = prometheus.NewDesc("noted_policy_info", "The hash of the policy in force.", []string{"hash"}, nil)

func (policyHash) Describe(to chan<- *prometheus.Desc) { to <- policyHashDesc }

func (h policyHash) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(policyHashDesc, prometheus.GaugeValue, 1, h.policy.Policy().Hash)
}

// warn logs the warnings about the policy in force.
func (s *Server) warn(ctx context.Context) {
	warnings := s.options.Policy.Policy().Warnings(s.options.Providers.InPolicy())
	s.policyMetrics.warnings.Set(float64(len(warnings)))
	for _, one := range warnings {
		s.options.Log.LogAttrs(ctx, slog.LevelWarn, "policy", slog.String("warning", one.String()))
	}
}

// keepPolicy reloads the policy whenever asked.
func (s *Server) keepPolicy(ctx context.Context) {
	s.warn(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.options.Reload:
			s.reloadPolicy(ctx)
		}
	}
}

func (s *Server) reloadPolicy(ctx context.Context) {
	log := s.options.Log
	before, after, err := s.options.Policy.Reload()
	switch {
	case err != nil:
		s.policyMetrics.reloads.WithLabelValues("refused").Inc()
		log.LogAttrs(ctx, slog.LevelError, "the policy was refused; the one before stays in force",
			slog.String("policy", after.Hash), slog.Any("error", err))
	case before == after:
		s.policyMetrics.reloads.WithLabelValues("same").Inc()
		log.LogAttrs(ctx, slog.LevelInfo, "the policy was loaded again and is the same", slog.String("policy", after.Hash))
	default:
		s.policyMetrics.reloads.WithLabelValues("changed").Inc()
		detail := fmt.Sprintf("from %s to %s: %s", before.Hash, after.Hash, summary(after.Diff(before)))
		log.LogAttrs(ctx, slog.LevelInfo, "another policy is in force", slog.String("policy", after.Hash), slog.String("changes", detail))
		s.warn(ctx)
		event := audit.Event{Action: audit.PolicyReload, Object: "policy", Target: after.Hash, Detail: detail}
		s.work.run(ctx, func(ctx context.Context) { s.recordReload(ctx, event) })
	}
}

// recordReload writes the audit row; if the database is away, it retries until it is back.
func (s *Server) recordReload(ctx context.Context, event audit.Event) {
	for {
		err := audit.Record(ctx, s.Pool, event)
		if err == nil || errors.Is(ctx.Err(), context.Canceled) {
			return
		}
		s.options.Log.LogAttrs(ctx, slog.LevelError, "recording a reload of the policy; trying again", slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}

// summaryLimit bounds an audit row; the log and `noted policy diff` have the rest.
const summaryLimit = 100

// summary says in one line who gains and who loses what.
func summary(changes []authz.Change) string {
	if len(changes) == 0 {
		return "nobody gains or loses anything"
	}
	var parts []string
	for i, c := range changes {
		if i == summaryLimit {
			parts = append(parts, fmt.Sprintf("and %d more", len(changes)-i))
			break
		}
		part := c.Who
		for _, one := range []struct {
			verb string
			what []string
		}{
			{"gains the role", c.GainsRoles}, {"loses the role", c.LosesRoles}, {"gains", c.Gains}, {"loses", c.Loses},
		} {
			if len(one.what) > 0 {
				part += " " + one.verb + " " + strings.Join(one.what, ", ") + ";"
			}
		}
		parts = append(parts, strings.TrimSuffix(part, ";"))
	}
	return strings.Join(parts, " | ")
}
