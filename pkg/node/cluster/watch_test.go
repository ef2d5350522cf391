package cluster

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// TestFirstWatchIsShort holds that what a watch that is begun while the API
// server starts does not deliver is known soon: that watch ends within a minute.
func TestFirstWatchIsShort(t *testing.T) {
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); query.Get("watch") == "true" {
			select {
			case asked <- query.Get("timeoutSeconds"):
			default:
			}
		}
		http.Error(w, "starting", http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	client, err := Connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	s := &Source{opts: Options{Log: slog.New(slog.DiscardHandler)}, changes: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.watchAll(ctx, v1alpha1.KindTrustPolicy, "", client.policies, &s.trusted, s.policyStore())
	}()
	t.Cleanup(func() { cancel(); <-ended })
	seconds, err := strconv.Atoi(<-asked)
	if err != nil || seconds < 30 || seconds > 60 {
		t.Errorf("the first watch lasts %d s (%v), want 30 to 60", seconds, err)
	}
}
