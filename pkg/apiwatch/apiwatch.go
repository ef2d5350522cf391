// Package apiwatch bounds how long one who watches the API server may miss what
// changes, after the API server was away.
//
// A cache.Reflector by itself may miss it for minutes. Its pauses grow to 30 to
// 60 s, also in a short outage that follows another, and a server that starts
// refuses (403) until it has read its roles: that is one more such pause. And
// what a watch begun in such a moment does not deliver is found when it ends,
// after 5 minutes at least.
//
// So Patient asks again by itself, soon; and Young ends watches early that were
// begun after an outage, and gives the following ones ever more time. To renew a
// watch costs the server little: it goes on where the former one ended, and
// nothing is listed.
//
// See reflector.go of k8s.io/client-go/tools/cache: defaultBackoffMax,
// defaultMinWatchTimeout.
package apiwatch

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// youngest is how long a watch after an outage lasts at least. Each one lasts
	// up to twice that, at random, and the next one twice as long.
	youngest = 30 * time.Second
	// grace is what a server has, beyond the time that was asked for, to end a
	// watch before the client does.
	grace = 15 * time.Second
	// slack is how much earlier than asked for a watch may end that was not cut;
	// the server is asked in whole seconds.
	slack = 2 * time.Second
)

// Begin begins a watch, as cache.WatchFuncWithContext does.
type Begin = func(context.Context, metav1.ListOptions) (watch.Interface, error)

// Young makes a Begin that asks for shorter watches after an outage: at first,
// after one that could not be begun, and after one that was cut. Where the
// server does not end a watch in time the client does. It is for one reflector.
func Young(begin Begin) Begin {
	a := &age{jitter: func(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d) + 1)) }} //nolint:gosec // spreads load, hides nothing
	return func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		lasts := a.next(options.TimeoutSeconds)
		seconds := int64(lasts / time.Second)
		options.TimeoutSeconds = &seconds
		ctx, cancel := context.WithTimeout(ctx, lasts+grace)
		began := time.Now()
		w, err := begin(ctx, options)
		if err != nil {
			cancel()
			a.cut()
			return nil, err
		}
		return &stream{Interface: w, ended: func() {
			cancel()
			if time.Since(began) < lasts-slack {
				a.cut()
			}
		}}, nil
	}
}

// age is how far watches have grown since the last outage.
type age struct {
	jitter func(time.Duration) time.Duration
	mu     sync.Mutex
	least  time.Duration // of the next watch; 0 after an outage
}

// next returns how long the next watch is to last, in whole seconds. What the
// reflector asks for, if anything, is the most.
func (a *age) next(asked *int64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	least := max(a.least, youngest)
	lasts := least + a.jitter(least)
	if asked != nil && *asked > 0 {
		most := time.Duration(*asked) * time.Second
		lasts, least = min(lasts, most), min(least, most)
	}
	a.least = 2 * least
	return lasts.Truncate(time.Second)
}

func (a *age) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.least = 0
}

// stream says when it is stopped, which a reflector does with every watch, also
// with one that ended by itself.
type stream struct {
	watch.Interface
	once  sync.Once
	ended func()
}

func (s *stream) Stop() {
	s.Interface.Stop()
	s.once.Do(s.ended)
}
