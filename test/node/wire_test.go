package node_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// wire is the network between an agent and the API server, which can be cut.
type wire struct {
	t       *testing.T
	address string // the agent's
	server  string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
}

// newWire leads to the server of config.
func newWire(t *testing.T, config *rest.Config) *wire {
	t.Helper()
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, server: server.Host, address: "127.0.0.1:0", open: map[net.Conn]bool{}}
	w.mend()
	t.Cleanup(w.cut)
	return w
}

// through is config by way of the wire.
func (w *wire) through(config *rest.Config) *rest.Config {
	c := rest.CopyConfig(config)
	c.Host = "https://" + w.address
	return c
}

// mend lets connections through, at the address of before.
func (w *wire) mend() {
	w.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.WithoutCancel(w.t.Context()), "tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.listener, w.address = l, l.Addr().String()
	w.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
}

// cut closes every connection and lets none through.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.listener.Close()
	for c := range w.open {
		_ = c.Close()
	}
	clear(w.open)
}

func (w *wire) carry(from net.Conn) {
	to, err := (&net.Dialer{}).DialContext(context.WithoutCancel(w.t.Context()), "tcp", w.server)
	if err != nil {
		_ = from.Close()
		return
	}
	w.mu.Lock()
	w.open[from], w.open[to] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}
