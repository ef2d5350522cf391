package interop_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// gate is the only way from a desk to anything but loopback: an HTTP proxy that
// lets through to the hosts it knows, and fails the test for any other.
type gate struct {
	*httptest.Server

	known map[string]string // "host:port" as asked for, to the address behind

	mu      sync.Mutex
	refused []string
}

func newGate(t *testing.T, known map[string]string) *gate {
	t.Helper()
	g := &gate{known: known}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(func() {
		g.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.refused) > 0 {
			t.Errorf("a program tried to leave this machine: %s", strings.Join(g.refused, ", "))
		}
	})
	return g
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	address, ok := g.known[r.Host]
	if !ok || r.Method != http.MethodConnect {
		g.mu.Lock()
		g.refused = append(g.refused, r.Method+" "+r.Host)
		g.mu.Unlock()
		http.Error(w, "this proxy leads nowhere", http.StatusForbidden)
		return
	}
	far, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	// Whichever side ends first, the other copy ends when both are closed.
	done := make(chan struct{}, 2)
	pump := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go pump(far, buffered)
	go pump(near, far)
	<-done
}
