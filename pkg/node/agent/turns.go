package agent

import (
	"context"
	"slices"
	"sync"
)

// turns are the turns taken at the network. A registry that answers nothing
// keeps each of its pulls until their timeout, and whoever may choose artifacts
// may have many there. So no host has all turns, and a free one goes to the host
// that has the fewest.
type turns struct {
	mu      sync.Mutex
	free    int
	perHost int
	taken   map[string]int
	waiting []*waiter // in the order they came
}

type waiter struct {
	host string
	turn chan struct{} // closed when it has one
}

// newTurns returns so many turns for one host, and one more for others.
func newTurns(n int) *turns {
	return &turns{free: n + 1, perHost: n, taken: map[string]int{}}
}

// enter waits for a turn of a host, which leave ends.
func (t *turns) enter(ctx context.Context, host string) error {
	w := &waiter{host: host, turn: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, w)
	t.give()
	t.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	} else {
		t.end(host) // it was given one in the same moment
	}
	return stoppedBeforeTurn(ctx)
}

func (t *turns) leave(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(host)
}

// end gives a turn back. The caller holds mu.
func (t *turns) end(host string) {
	t.free++
	if t.taken[host]--; t.taken[host] == 0 {
		delete(t.taken, host)
	}
	t.give()
}

// give hands out free turns. The caller holds mu.
func (t *turns) give() {
	for t.free > 0 {
		best := -1
		for i, w := range t.waiting {
			if n := t.taken[w.host]; n < t.perHost && (best < 0 || n < t.taken[t.waiting[best].host]) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		w := t.waiting[best]
		t.waiting = slices.Delete(t.waiting, best, best+1)
		t.free--
		t.taken[w.host]++
		close(w.turn)
	}
}
