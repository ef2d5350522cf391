package agent

import (
	"context"
	"errors"
	"time"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
)

// The states that Options.Notify is told, as sd_notify(3) words them.
const (
	StateReady    = "READY=1"
	StateAlive    = "WATCHDOG=1"
	StateStopping = "STOPPING=1"
)

// seconds is how times are written down.
func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// alive tells the watchdog that the loop gets on.
func (a *Agent) alive() {
	if a.opts.Watchdog > 0 {
		a.opts.Notify(StateAlive)
	}
}

// start re-asserts what was installed, before any registry is asked; and what a
// kernel lost in a reboot before anything is read that says who is trusted now.
func (a *Agent) start(ctx context.Context) {
	a.restore(ctx)
	a.read()
	a.run(ctx, false, true)
}

// restore asks the hosts whose kernel forgets to bring back what they had. What
// is no longer trusted comes back, too, as it stays where no reboot was. What
// fails is repaired by the first pass, or reported by it.
func (a *Agent) restore(ctx context.Context) {
	for _, h := range a.opts.Hosts {
		r, ok := h.(profile.Restorer)
		if !ok || h.Supported(ctx) != nil {
			continue
		}
		var outcomes []profile.Outcome
		var err error
		a.during(func() { outcomes, err = r.Restore(ctx) })
		changed := 0
		for _, o := range outcomes {
			if o.Changed {
				changed++
			}
			err = errors.Join(err, o.Err)
		}
		if err != nil {
			a.log.Warn("not all that was installed could be brought back", "kind", h.Kind(), "error", err)
		}
		if changed > 0 {
			a.log.Info("brought back what the kernel had lost", "kind", h.Kind(), "profiles", changed)
		}
	}
}

// longestWork is how long one call of a host may take before the watchdog hears
// nothing of it any more: compiling many profiles on a busy machine takes long,
// and for ever means that something hangs.
const longestWork = 15 * time.Minute

// during lets a host work, and says meanwhile that the loop is alive.
func (a *Agent) during(work func()) {
	if a.opts.Watchdog <= 0 {
		work()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	ticker := time.NewTicker(a.opts.Watchdog)
	defer ticker.Stop()
	for began := time.Now(); ; {
		select {
		case <-done:
			a.alive()
			return
		case <-ticker.C:
			if time.Since(began) < longestWork {
				a.alive()
			}
		}
	}
}

// Run works until ctx ends, which is no error.
func (a *Agent) Run(ctx context.Context) error {
	a.start(ctx)
	a.opts.Notify(StateReady)
	defer a.opts.Notify(StateStopping)
	resync := a.opts.Now().Add(a.opts.Resync)
	wake := a.opts.Now()
	spare := true // reading and judging all anew took memory
	for {
		e, ok := a.await(ctx, wake)
		if !ok {
			a.drain()
			return nil
		}
		if now := a.opts.Now(); !now.Before(resync) {
			e.reread, e.repair = true, true
			resync = now.Add(a.opts.Resync)
		}
		if e.reread {
			a.read()
		}
		p := a.run(ctx, true, e.repair)
		if spare = spare || p.changed || e.reread; spare && !a.pulling() {
			a.opts.FreeMemory() // what was read and installed is not needed again
			spare = false
		}
		wake = a.wake(p, resync)
	}
}

// While many pulls are due, passes take at most one part in passShare of the
// time, but come at least every longestLinger.
const (
	passShare     = 4
	longestLinger = 2 * time.Second
)

// pulling reports whether pulls run or are due.
func (a *Agent) pulling() bool { return len(a.inflight) > 0 }

// events are what woke the loop.
type events struct{ reread, repair bool }

// await waits for something to do, until wake at the latest, and collects what
// comes close together. It returns false once ctx has ended.
func (a *Agent) await(ctx context.Context, wake time.Time) (events, bool) {
	var e events
	timer := time.NewTimer(max(0, wake.Sub(a.opts.Now())))
	defer timer.Stop()
	var watchdog <-chan time.Time
	if a.opts.Watchdog > 0 {
		ticker := time.NewTicker(a.opts.Watchdog)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	changes, lingering := a.opts.Changes, false
	linger := func() {
		if !lingering {
			lingering = true
			timer.Reset(max(a.opts.Linger, min(a.lastPass*passShare, longestLinger)))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return e, false
		case <-timer.C:
			return e, ctx.Err() == nil
		case <-watchdog:
			a.alive()
		case _, open := <-changes:
			if !open {
				changes = nil // nobody watches any more; resync is left
				continue
			}
			e.reread = true
			linger()
		case r := <-a.results:
			a.finish(r)
			a.pump(ctx)
			if !a.pulling() && !e.reread {
				return e, ctx.Err() == nil
			}
			linger()
		}
	}
}

// drain takes in the results of pulls that were cut short.
func (a *Agent) drain() {
	a.workers.Wait()
	for len(a.inflight) > 0 {
		r := <-a.results
		delete(a.inflight, r.key.source)
	}
}

// Once converges and returns what came of it. Every artifact is asked for once;
// only a search through many signatures goes on until it is over. The error is
// ctx's.
func (a *Agent) Once(ctx context.Context) (status.Report, error) {
	a.once = true
	a.start(ctx)
	for {
		p := a.run(ctx, true, false)
		if err := ctx.Err(); err != nil {
			a.drain()
			return a.report, err
		}
		if a.pulling() {
			a.await(ctx, a.opts.Now().Add(a.opts.PullTimeout))
			continue
		}
		again, wait := a.unfinished(p)
		if !again {
			return a.report, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return a.report, err
		}
	}
}

// unfinished reports whether another pass of Once would get further, and how
// long to wait before it.
func (a *Agent) unfinished(p *pass) (bool, time.Duration) {
	if p.again {
		return true, 0
	}
	for _, tried := range a.attempts {
		if errors.Is(tried.err, artifact.ErrMoreSignatures) {
			return true, max(0, tried.next.Sub(a.opts.Now()))
		}
	}
	return false, 0
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
