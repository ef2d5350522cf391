package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
)

// hostile is a registry inside this process, on loopback, that can be made to
// serve other bytes than those that were pushed.
type hostile struct {
	host   string
	server *http.Server

	mu       sync.Mutex
	tampered digest.Digest
}

func startRegistry() (*hostile, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &hostile{host: listener.Addr().String()}
	backend := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	h.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !h.serveTampered(w, r, backend) {
				backend.ServeHTTP(w, r)
			}
		}),
	}
	go func() {
		if err := h.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("registry: %v", err)
		}
	}()
	return h, nil
}

// serveTampered changes one byte of the tampered blob, keeping its length.
func (h *hostile) serveTampered(w http.ResponseWriter, r *http.Request, backend http.Handler) bool {
	h.mu.Lock()
	target := h.tampered
	h.mu.Unlock()
	if target == "" || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+target.String()) {
		return false
	}
	recorder := httptest.NewRecorder()
	backend.ServeHTTP(recorder, r)
	body := recorder.Body.Bytes()
	body[len(body)/2] ^= 1
	w.WriteHeader(recorder.Code)
	_, _ = w.Write(body)
	return true
}

func (h *hostile) tamperWith(d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tampered = d
}

func (h *hostile) stop() { _ = h.server.Close() }
