package registry

import (
	"context"
	"io"
	"sync"
	"time"
)

// discard drains a little of body, so that the connection can be used again,
// and closes it.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxErrorBody)
	_ = body.Close()
}

// pacedBody cuts a request off whose answer makes no progress: fewer than min
// bytes within a window, unless it ends.
type pacedBody struct {
	io.ReadCloser
	window time.Duration
	min    int64
	cut    context.CancelCauseFunc

	mu     sync.Mutex
	read   int64
	closed bool
	timer  *time.Timer
}

func pace(body io.ReadCloser, l limits, cut context.CancelCauseFunc) io.ReadCloser {
	p := &pacedBody{ReadCloser: body, window: l.window, min: l.windowMin, cut: cut}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(p.window, p.check)
	return p
}

func (p *pacedBody) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.read < p.min {
		p.cut(errTrickle)
		return
	}
	p.read = 0
	p.timer.Reset(p.window)
}

// Read implements io.Reader.
func (p *pacedBody) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read += int64(n)
	return n, err
}

// Close implements io.Closer.
func (p *pacedBody) Close() error {
	p.mu.Lock()
	p.closed = true
	p.timer.Stop()
	p.mu.Unlock()
	return p.ReadCloser.Close()
}
