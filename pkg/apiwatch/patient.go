package apiwatch

import (
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// The pause before one asks again: at most longestPause, and with its jitter
// twice that.
const (
	firstPause   = time.Second
	longestPause = 10 * time.Second
	pauseFactor  = 2.0
	pauseJitter  = 1.0
	pauseSteps   = 5

	// listWithin bounds one list, or one page of it. The API server's own bound
	// is a minute (kube-apiserver, --request-timeout).
	listWithin = 90 * time.Second
)

// Patient makes a lister and watcher for one reflector whose pauses cannot be
// configured, as those of informers cannot. It asks again by itself as long as
// the API server is away or refuses; all that needs the reflector, such as a
// version that is too old, it hands on. Its watches are those of Young. The name
// is what is watched, for the log.
func Patient(lw cache.ListerWatcher, name string, log *slog.Logger) cache.ListerWatcher {
	inner := cache.ToListerWatcherWithContext(lw)
	begin := Young(inner.WatchWithContext)
	log = log.With("resource", name)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return again(ctx, log, true, func() (runtime.Object, error) {
				ctx, cancel := context.WithTimeout(ctx, listWithin)
				defer cancel()
				return inner.ListWithContext(ctx, options)
			})
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			all := options.SendInitialEvents != nil && *options.SendInitialEvents
			return again(ctx, log, all, func() (watch.Interface, error) { return begin(ctx, options) })
		},
	}
}

// again calls f until it succeeds, or fails in a way that asking again cannot
// mend. Whether f reads all that there is, is all.
func again[T any](ctx context.Context, log *slog.Logger, all bool, f func() (T, error)) (T, error) {
	var pauses wait.Backoff
	told := ""
	for {
		got, err := f()
		if err == nil || ctx.Err() != nil || !passing(err, all) {
			if err == nil && told != "" {
				log.Info("it can be watched again")
			}
			return got, err
		}
		// One who answers otherwise than before, such as a server that starts, may
		// soon be well. Not each failure is told: an outage may last for hours.
		if reason := string(apierrors.ReasonForError(err)) + "!"; reason != told {
			told = reason
			pauses = wait.Backoff{Duration: firstPause, Factor: pauseFactor, Jitter: pauseJitter, Steps: pauseSteps, Cap: longestPause}
			log.Warn("it cannot be watched; it is tried again and again", "error", err)
		}
		pause := pauses.Step()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return got, ctx.Err()
		case <-timer.C:
		}
	}
}

// passing reports whether an error may pass by itself.
func passing(err error, all bool) bool {
	var answer apierrors.APIStatus
	switch {
	case !errors.As(err, &answer):
		return true // no answer at all
	case apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
		return false // the reflector asks for another version
	case apierrors.IsNotFound(err):
		// Definitions may come later. But what is watched from a version on may
		// have gone with its definition, and a new one may know the version: only
		// a list tells then.
		return all
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err), apierrors.IsTooManyRequests(err):
		return true
	default:
		const serverErrors = 500
		return answer.Status().Code >= serverErrors
	}
}
