package controller_test

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/pkg/controller"
)

// firstWatches notes how long the first watch of each resource is asked to last.
type firstWatches struct {
	mu      sync.Mutex
	seconds map[string]string
}

func (f *firstWatches) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		if query := r.URL.Query(); query.Get("watch") == "true" {
			f.mu.Lock()
			resource := path.Base(r.URL.Path)
			if _, ok := f.seconds[resource]; !ok {
				f.seconds[resource] = query.Get("timeoutSeconds")
			}
			f.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestFirstWatchesAreShort holds that what a watch that is begun while the API
// server starts does not deliver is known soon, of everything that the
// controller knows: those watches end within a minute.
func TestFirstWatchesAreShort(t *testing.T) {
	f := newFleet(t, "a")
	seen := &firstWatches{seconds: map[string]string{}}
	f.start(func(_ *controller.Options, c *rest.Config) { c.Wrap(seen.wrap) })
	f.good("nginx", 1, nil)
	f.eventually("the watches", func() error {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		var missing error
		for _, resource := range []string{"nodes", "pods", "profilenodes", "securityprofiles"} {
			asked, ok := seen.seconds[resource]
			if !ok {
				missing = errors.Join(missing, fmt.Errorf("%s are not watched", resource))
				continue
			}
			if seconds, err := strconv.Atoi(asked); err != nil || seconds < 30 || seconds > 60 {
				t.Fatalf("the first watch of %s lasts %q s, want 30 to 60", resource, asked)
			}
		}
		return missing
	})
}
