package agent_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/profile"
)

// waitingHost takes long to say what it has, as one whose policy another program
// changes.
type waitingHost struct {
	*kernelHost
	takes time.Duration
}

func (h waitingHost) Installed(ctx context.Context) ([]profile.Installed, error) {
	time.Sleep(h.takes)
	return h.kernelHost.Installed(ctx)
}

// TestTheWatchdogHearsOfAHostThatWaits: being asked what is there is work, too.
func TestTheWatchdogHearsOfAHostThatWaits(t *testing.T) {
	n := newNode(t)
	n.hosts = []profile.Host{waitingHost{newKernelHost("alpha"), 5 * time.Minute}}
	synctest.Test(t, func(t *testing.T) {
		var last atomic.Int64
		var longest time.Duration
		opts := n.options()
		opts.Now, opts.Watchdog = time.Now, 10*time.Second
		last.Store(time.Now().UnixNano())
		opts.Notify = func(string) { // one after the other, by the loop
			now := time.Now()
			longest = max(longest, now.Sub(time.Unix(0, last.Swap(now.UnixNano()))))
		}
		a, err := agent.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		pass(20 * time.Minute)
		cancel()
		if err := errors.Join(<-done, a.Close()); err != nil {
			t.Error(err)
		}
		if longest > 11*time.Second {
			t.Errorf("it said nothing for %s", longest)
		}
	})
}
