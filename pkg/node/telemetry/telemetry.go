// Package telemetry is what a node's agent tells monitoring: whether it is
// alive and ready, and metrics. All label sets are closed; no digest, profile
// or node is a label.
package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// Watchdog is how often the agent's loop should say that it runs.
	Watchdog = 10 * time.Second
	// silence is how long it may say nothing: a batch of installs on a slow
	// disk takes its time.
	silence = 5 * time.Minute

	headerTimeout   = 5 * time.Second
	answerTimeout   = 30 * time.Second
	shutdownTimeout = 2 * time.Second
	// listenAgain is how often an address is tried that is taken.
	listenAgain    = time.Second
	maxHeaderBytes = 16 << 10
	maxScrapes     = 4

	// pulledWell is the result of a pull that no reason stopped.
	pulledWell = "Pulled"
)

// Telemetry takes in what the agent says of itself. It is safe for concurrent
// use.
type Telemetry struct {
	synced func() bool
	now    func() time.Time

	mu        sync.Mutex
	asserted  bool
	lastAlive time.Time

	registry *prometheus.Registry
	profiles *prometheus.GaugeVec
	reasons  *prometheus.GaugeVec
	pulls    *prometheus.CounterVec
	lastPass prometheus.Gauge
}

// New returns a Telemetry. synced says whether all that is wanted and trusted
// was read since start.
func New(synced func() bool) *Telemetry {
	t := &Telemetry{
		synced: synced, now: time.Now, registry: prometheus.NewRegistry(), lastAlive: time.Now(),
		profiles: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "confine_agent_profiles", Help: "Profiles of this node by what became of them.",
		}, []string{"state"}),
		reasons: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "confine_agent_profiles_not_as_wanted", Help: "Profiles of this node that are not as wanted, by reason.",
		}, []string{"reason"}),
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "confine_agent_pulls_total", Help: "Pulls that ended, by result: Pulled, or the reason why not.",
		}, []string{"result"}),
		lastPass: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "confine_agent_last_pass_timestamp_seconds", Help: "When the agent last compared what is wanted with what is installed.",
		}),
	}
	t.registry.MustRegister(t.profiles, t.reasons, t.pulls, t.lastPass,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "confine_agent_synced", Help: "1 once all that is wanted and trusted was read since start.",
		}, t.syncedValue),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, o := range outcomes() {
		t.profiles.WithLabelValues(string(o)).Set(0)
	}
	t.pulls.WithLabelValues(pulledWell).Add(0)
	return t
}

func outcomes() []status.Outcome {
	return []status.Outcome{status.OutcomeInstalled, status.OutcomePending, status.OutcomeFailed, status.OutcomeRemoving}
}

func (t *Telemetry) syncedValue() float64 {
	if t.synced() {
		return 1
	}
	return 0
}

// Notify takes in the agent's states; see agent.Options.
func (t *Telemetry) Notify(state string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastAlive = t.now()
	t.asserted = t.asserted || state == agent.StateReady
}

// Report takes in a report; see agent.Options.Reported.
func (t *Telemetry) Report(r status.Report, _ bool) {
	states, reasons := map[status.Outcome]int{}, map[reason.Reason]int{}
	for _, p := range r.Profiles {
		states[p.Outcome()]++
		if why := p.Cause().Reason; why.Valid() {
			reasons[why]++
		}
	}
	for _, o := range outcomes() {
		t.profiles.WithLabelValues(string(o)).Set(float64(states[o]))
	}
	for _, why := range reason.All() {
		if n := reasons[why]; n > 0 {
			t.reasons.WithLabelValues(string(why)).Set(float64(n))
		} else {
			t.reasons.DeleteLabelValues(string(why))
		}
	}
	t.lastPass.Set(float64(t.now().Unix()))
}

// Pulled takes in how a pull ended; see agent.Options.
func (t *Telemetry) Pulled(err error) {
	result := pulledWell
	if err != nil {
		r, _ := status.Describe(err)
		result = string(r)
	}
	t.pulls.WithLabelValues(result).Inc()
}

// Health serves /healthz, which fails where the loop has said nothing for long,
// and /readyz, which fails until what was installed is asserted again and all
// that is wanted and trusted was read.
func (t *Telemetry) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(func() string {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.now().Sub(t.lastAlive) > silence {
			return "the loop has said nothing for long"
		}
		return ""
	}))
	mux.HandleFunc("GET /readyz", answer(func() string {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch {
		case !t.asserted:
			return "what was installed is not asserted yet"
		case !t.synced():
			return "the ProfileNode and the TrustPolicies were not read since start"
		}
		return ""
	}))
	return mux
}

func answer(wrong func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if why := wrong(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	}
}

// Metrics serves /metrics for Prometheus.
func (t *Telemetry) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: answerTimeout}))
	return mux
}

// Listen opens an address; the error is a *reason.Error.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, reason.New(reason.InstallFailed, address, "%w", err).WithAdvice("give an address that is free on this node")
	}
	return l, nil
}

// ServeWhenFree serves an address until ctx ends. Where it is taken it tries
// again: whoever takes a node's port must not keep its profiles from being
// asserted.
func ServeWhenFree(ctx context.Context, address string, handler http.Handler, log *slog.Logger) {
	for {
		l, err := Listen(ctx, address)
		if err == nil {
			Serve(ctx, l, handler, log)
			return
		}
		if ctx.Err() != nil {
			return
		}
		log.Error("an address cannot be served; it is tried again", "address", address, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenAgain):
		}
	}
}

// Serve answers on l until ctx ends, and closes it.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout,
		WriteTimeout: answerTimeout + headerTimeout, MaxHeaderBytes: maxHeaderBytes,
	}
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		_ = server.Shutdown(late)
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Error("an address is no longer served", "address", l.Addr().String(), "error", err)
	}
}
