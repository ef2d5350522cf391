package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/apiwatch"
)

// Defaults of Options.
const (
	DefaultNamespace = "confine-system"
	DefaultAgents    = "app.kubernetes.io/name=confine,app.kubernetes.io/component=agent"
	DefaultLinger    = 250 * time.Millisecond
	lingers          = 12 // at most: 3 s
	DefaultInterval  = time.Second
	// LeaseName is the name of the lease that the active controller holds.
	LeaseName = "confine-controller"
)

const (
	// resync is how often everything is compared although nothing changed.
	resync = 10 * time.Minute
	// retry bounds the wait after a failed pass.
	retryFirst, retryLast = time.Second, 30 * time.Second
	// stuckAfter is how long a pass may take until the controller is unhealthy.
	stuckAfter = 10 * time.Minute
)

// Options configure a controller. The zero value is good for a cluster's
// usual installation, without metrics and health endpoints and without leader
// election.
type Options struct {
	// Namespace of the installation; empty means DefaultNamespace. Agents are
	// the pods there, and the lease is there.
	Namespace string
	// Agents selects the agents' pods; nil means DefaultAgents.
	Agents labels.Selector
	// LeaderElect waits for a lease, so that of several controllers one acts.
	LeaderElect bool
	// LeaseDuration is how long the lease of a controller that died is
	// respected; zero means 15 s.
	LeaseDuration time.Duration
	// MetricsAddress and HealthAddress are where to serve them, such as
	// ":8080"; empty means nowhere. Metrics hold no names and no secrets and
	// are served as plain HTTP.
	MetricsAddress, HealthAddress string
	// Registry takes the controller's metrics; nil means one of its own. What
	// MetricsAddress serves is controller-runtime's registry.
	Registry prometheus.Registerer
	// Linger is how long nothing must have changed before a pass, though
	// changes put it off by a few lingers at most; Interval is the least time
	// from one pass to the next. Zero means the defaults.
	Linger, Interval time.Duration
	// Log receives what happens; nil means nowhere.
	Log *slog.Logger
}

func (o *Options) complete() error {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.Agents == nil {
		agents, err := labels.Parse(DefaultAgents)
		if err != nil {
			return err
		}
		o.Agents = agents
	}
	if o.LeaseDuration == 0 {
		o.LeaseDuration = 15 * time.Second
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Linger == 0 {
		o.Linger = DefaultLinger
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Controller is one controller. New makes it and Run lets it work, once.
type Controller struct {
	opts    Options
	manager manager.Manager
	runner  *runner
	changes chan struct{}
	synced  chan struct{}
	// busySince is when the pass under way began, in Unix seconds; 0 for none.
	busySince atomic.Int64
}

// New returns a controller for the cluster of config. It does not contact it.
func New(config *rest.Config, opts Options) (*Controller, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	// The number of writers bounds what is asked at one time; the API server's
	// priority and fairness does the rest.
	config.QPS = -1
	mgr, err := manager.New(config, managerOptions(scheme, &opts))
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(opts.Registry)
	if err != nil {
		return nil, err
	}
	c := &Controller{opts: opts, manager: mgr, changes: make(chan struct{}, 1), synced: make(chan struct{})}
	w := newWorld(c.poke)
	c.runner = &runner{
		world:   w,
		writer:  &writer{client: mgr.GetClient(), reader: mgr.GetAPIReader(), world: w, count: metrics.wrote},
		tell:    &teller{recorder: mgr.GetEventRecorder(FieldManager)},
		metrics: metrics, log: opts.Log, now: time.Now,
	}
	return c, errors.Join(
		mgr.Add(always(c.watch)),
		mgr.Add(manager.RunnableFunc(c.work)),
		mgr.AddHealthzCheck("pass", c.notStuck),
		mgr.AddReadyzCheck("caches", c.isSynced),
	)
}

func managerOptions(scheme *runtime.Scheme, o *Options) manager.Options {
	// A third of the lease between tries, as client-go's defaults have it.
	renew, retry := o.LeaseDuration*2/3, o.LeaseDuration/7
	grace := 10 * time.Second
	metricsAddress := o.MetricsAddress
	if metricsAddress == "" {
		metricsAddress = "0"
	}
	// What ended holds no profile, so it need not be known.
	running := fields.ParseSelectorOrDie("status.phase!=Succeeded,status.phase!=Failed")
	return manager.Options{
		Scheme: scheme,
		// What is used is known, so nothing is discovered: a resource that is
		// missing keeps the controller waiting, not from starting.
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return resources(), nil },
		Logger:         logr.FromSlogHandler(o.Log.Handler()),
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Node{}:              {Transform: compactNode},
				&corev1.Pod{}:               {Transform: compactPod(o.Namespace, o.Agents), Field: running},
				&v1alpha1.ProfileNode{}:     {Transform: compactShare},
				&v1alpha1.SecurityProfile{}: {Transform: bareProfile},
			},
			NewInformer: patientInformer(o.Log),
		},
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              LeaseName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.LeaseDuration,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,
		Metrics:                       server.Options{BindAddress: metricsAddress},
		HealthProbeBindAddress:        o.HealthAddress,
		GracefulShutdownTimeout:       &grace,
	}
}

// patientInformer makes informers that see what changed soon after an outage of
// the API server.
func patientInformer(log *slog.Logger) func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer {
	return func(lw toolscache.ListerWatcher, of runtime.Object, every time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		return toolscache.NewSharedIndexInformer(apiwatch.Patient(lw, fmt.Sprintf("%T", of), log), of, every, indexers)
	}
}

// resources are all that the controller reads and writes.
func resources() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	own := v1alpha1.SchemeGroupVersion()
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(own.WithKind(v1alpha1.KindProfileNode), meta.RESTScopeRoot)
	mapper.Add(own.WithKind(v1alpha1.KindSecurityProfile), meta.RESTScopeNamespace)
	mapper.Add(definitionKind(), meta.RESTScopeRoot)
	return mapper
}

// Run works until ctx ends, and gives the lease back. Its error says that the
// controller could not start or lost its lease; the process should end then.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.manager.Start(ctx); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	return nil
}

// always is a Runnable that does not wait for the lease: a controller that
// stands by knows everything already when its turn comes.
type always func(context.Context) error

func (f always) Start(ctx context.Context) error { return f(ctx) }
func (always) NeedLeaderElection() bool          { return false }

// poke says that a pass is due.
func (c *Controller) poke() {
	select {
	case c.changes <- struct{}{}:
	default:
	}
}

// watch fills the world from the caches, and closes synced once it is full.
func (c *Controller) watch(ctx context.Context) error {
	w := c.runner.world
	for _, source := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
	}{
		{&corev1.Node{}, handle(w.setNode, w.dropNode)},
		{&corev1.Pod{}, handle(w.setPod, w.dropPod)},
		{&v1alpha1.ProfileNode{}, handle(w.setShare, w.dropShare)},
		{&v1alpha1.SecurityProfile{}, handle(w.setProfile, w.dropProfile)},
	} {
		// A resource that is not there yet, such as CRDs that are installed
		// after the controller, is asked for again and again.
		informer, err := c.manager.GetCache().GetInformer(ctx, source.object, cache.BlockUntilSynced(false))
		if err != nil {
			return err
		}
		registration, err := informer.AddEventHandler(source.handler)
		if err != nil {
			return err
		}
		if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			return ctx.Err()
		}
	}
	close(c.synced)
	<-ctx.Done()
	return nil
}

// handle makes a handler of two functions for one type.
func handle[T any](set, drop func(T)) toolscache.ResourceEventHandler {
	put := func(object any) {
		if typed, ok := object.(T); ok {
			set(typed)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, object any) { put(object) },
		DeleteFunc: func(object any) {
			if lost, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = lost.Obj
			}
			if typed, ok := object.(T); ok {
				drop(typed)
			}
		},
	}
}

// work passes whenever something changed, until ctx ends.
func (c *Controller) work(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.synced:
	}
	c.poke()
	pause := retryFirst
	timer := time.NewTimer(resync)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.changes:
		}
		if !c.gather(ctx, last.Add(c.opts.Interval)) {
			return nil
		}
		last = time.Now()
		c.busySince.Store(last.Unix())
		next, err := c.runner.pass(ctx)
		c.busySince.Store(0)
		wait := resync
		if !next.IsZero() {
			wait = min(wait, max(0, time.Until(next)))
		}
		if err != nil && ctx.Err() == nil {
			c.opts.Log.Warn("not all could be written; it is tried again", "error", err, "in", pause)
			wait = min(wait, pause)
			pause = min(2*pause, retryLast)
		} else {
			pause = retryFirst
		}
		timer.Reset(wait)
	}
}

// gather waits until nothing has changed for the linger, for a few lingers at
// most, and until earliest: profiles that are applied together, one after the
// other, then cost a node one write. It returns false once ctx has ended.
func (c *Controller) gather(ctx context.Context, earliest time.Time) bool {
	latest := time.Now().Add(lingers * c.opts.Linger)
	timer := time.NewTimer(c.opts.Linger)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.changes:
			until := time.Now().Add(c.opts.Linger)
			if until.After(latest) {
				until = latest
			}
			if until.Before(earliest) {
				until = earliest
			}
			timer.Reset(time.Until(until))
		case now := <-timer.C:
			if !now.Before(earliest) {
				return true
			}
			timer.Reset(earliest.Sub(now))
		}
	}
}

// notStuck is the check behind /healthz.
func (c *Controller) notStuck(*http.Request) error {
	if since := c.busySince.Load(); since != 0 && time.Since(time.Unix(since, 0)) > stuckAfter {
		return fmt.Errorf("a pass takes longer than %s", stuckAfter)
	}
	return nil
}

// isSynced is the check behind /readyz: a controller that stands by is ready.
func (c *Controller) isSynced(*http.Request) error {
	select {
	case <-c.synced:
		return nil
	default:
		return errors.New("the caches are not filled yet")
	}
}
