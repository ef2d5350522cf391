package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// metrics are the controller's own, beside those of controller-runtime. Labels
// are closed sets: no names of nodes or profiles, no digests.
type metrics struct {
	profiles *prometheus.GaugeVec
	nodes    *prometheus.GaugeVec
	stops    *prometheus.CounterVec
	passes   prometheus.Histogram
	writes   *prometheus.CounterVec
}

// newMetrics makes the metrics known to a registry.
func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		profiles: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "confine_profiles", Help: "SecurityProfiles by the reason of their condition Progressing.",
		}, []string{"state"}),
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "confine_nodes", Help: "Linux nodes by state: unavailable, unreported, failing, pending, as-wanted.",
		}, []string{"state"}),
		stops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "confine_rollout_stops_total", Help: "Rollouts that were stopped, by reason.",
		}, []string{"reason"}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "confine_plan_duration_seconds", Help: "Time to compute what all nodes should have, without writing it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "confine_writes_total", Help: "Writes to the API server by kind of object and result, ok or error.",
		}, []string{"object", "result"}),
	}
	for _, c := range []prometheus.Collector{m.profiles, m.nodes, m.stops, m.passes, m.writes} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe takes over the counts of a plan and how long it took.
func (m *metrics) observe(p *plan, took time.Duration) {
	m.passes.Observe(took.Seconds())
	m.profiles.Reset()
	for word, n := range p.profiles {
		m.profiles.WithLabelValues(word).Set(float64(n))
	}
	for _, state := range nodeStates() {
		m.nodes.WithLabelValues(string(state)).Set(float64(p.nodes[state]))
	}
}

// changed counts a stop where the status that was written is the first to
// tell of it.
func (m *metrics) changed(before, after *v1alpha1.SecurityProfileStatus) {
	stopped := ""
	if before != nil && before.Rollout != nil {
		stopped = before.Rollout.Stopped
	}
	if now := after.Rollout.Stopped; now != "" && now != stopped {
		m.stops.WithLabelValues(now).Inc()
	}
}

func (m *metrics) wrote(object, result string) { m.writes.WithLabelValues(object, result).Inc() }
