package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/confine-dev/confine/pkg/apiwatch"
)

// How a watch that ended is begun again. After an outage all nodes come back at
// once: the jitter (a factor: up to three times the pause) spreads them.
const (
	firstPause   = time.Second
	longestPause = 10 * time.Second
	pauseFactor  = 2.0
	pauseJitter  = 2.0
	pauseSteps   = 5

	// watchAtLeast is how long the server is asked to keep a watch; the client
	// asks for up to twice as much, at random. It is less at first, and after an
	// outage: see apiwatch.Young.
	watchAtLeast = 20 * time.Minute
)

// state is what is known of one of both watches.
type state struct {
	// synced is set once everything was read since start.
	synced bool
	// refused is the server's word that this may or can not be read.
	refused error
	// unreachable is why the last attempt got no such word; nil once one did.
	unreachable error
}

// note takes in how a list or the begin of a watch ended, and reports whether
// that changes what is known.
func (s *state) note(err error) bool {
	switch {
	case err == nil:
		changed := s.refused != nil || s.unreachable != nil
		s.refused, s.unreachable = nil, nil
		return changed
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		changed := s.refused == nil || apierrors.ReasonForError(s.refused) != apierrors.ReasonForError(err)
		s.refused, s.unreachable = err, nil
		return changed
	default:
		changed := s.unreachable == nil
		s.unreachable = err
		return changed
	}
}

// watchAll watches one resource into a store until ctx ends. Where name is not
// empty, only the object of that name.
func (s *Source) watchAll(ctx context.Context, kind, name string, api dynamic.ResourceInterface, st *state, store cache.ReflectorStore) {
	noted := func(err error) {
		if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			s.noted(kind, st, err)
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := api.List(ctx, own(options, name))
			noted(err)
			return list, err
		},
		WatchFuncWithContext: apiwatch.Young(func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w, err := api.Watch(ctx, own(options, name))
			noted(err)
			return w, err
		}),
	}
	expected := &unstructured.Unstructured{}
	expected.SetGroupVersionKind(kindOf(kind))
	logger := logr.FromSlogHandler(s.opts.Log.Handler())
	cache.NewReflectorWithOptions(lw, expected, store, cache.ReflectorOptions{
		Name: kind, Logger: &logger, MinWatchTimeout: watchAtLeast,
		Backoff: &wait.Backoff{Duration: firstPause, Factor: pauseFactor, Jitter: pauseJitter, Steps: pauseSteps, Cap: longestPause},
	}).RunWithContext(ctx)
}

// objects is a cache.ReflectorStore that hands each object on and keeps none.
type objects struct {
	set     func(object *unstructured.Unstructured)
	gone    func(name string)
	replace func(objects []*unstructured.Unstructured)
}

var errNotAnObject = errors.New("not an object")

// Add takes in an object.
func (o objects) Add(object any) error { return o.Update(object) }

// Update takes in an object.
func (o objects) Update(object any) error {
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return errNotAnObject
	}
	o.set(u)
	return nil
}

// Delete takes in that an object is gone.
func (o objects) Delete(object any) error {
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return errNotAnObject
	}
	o.gone(u.GetName())
	return nil
}

// Replace takes in all objects there are.
func (o objects) Replace(all []any, _ string) error {
	found := make([]*unstructured.Unstructured, 0, len(all))
	for _, object := range all {
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			return errNotAnObject
		}
		found = append(found, u)
	}
	o.replace(found)
	return nil
}

// Resync does nothing: the agent looks at everything now and then anyway.
func (objects) Resync() error { return nil }
