package agent_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

// loop runs an agent in a bubble in which time passes only while everybody
// waits; the returned function ends it.
func (n *node) loop(t *testing.T, changes chan struct{}) (end func()) {
	t.Helper()
	opts := n.options()
	opts.Now, opts.Changes = time.Now, changes
	opts.Jitter = func(d time.Duration) time.Duration { return d }
	var mu sync.Mutex
	var states []string
	opts.Notify = func(state string) {
		mu.Lock()
		defer mu.Unlock()
		if state != agent.StateAlive {
			states = append(states, state)
		}
	}
	a, err := agent.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(states) != "[READY=1 STOPPING=1]" {
			t.Errorf("systemd was told %v", states)
		}
	}
}

// pass lets d go by.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock: nobody waits
	synctest.Wait()
}

func (n *node) status(t *testing.T, name string) status.Profile {
	t.Helper()
	report, err := status.Read(n.root)
	if err != nil {
		t.Fatal(err)
	}
	return find(t, report, name, "")
}

func TestLoopFollowsChangesAndRepairs(t *testing.T) {
	n := newNode(t)
	one := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	two := n.remote.push(t, n.kinds, []string{"a.alpha=two"}, theKey())
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{})
		end := n.loop(t, changes)
		n.manifest("m", "nginx", one, "")
		changes <- struct{}{}
		pass(time.Second)
		n.wantFiles(n.alpha, "nginx", "a.alpha=one")

		n.manifest("m", "nginx", two, "") // nobody says so: notifications get lost
		n.alpha.Damage(owner("nginx"))
		pass(agent.DefaultResync + time.Second)
		n.wantFiles(n.alpha, "nginx", "a.alpha=two")

		n.remove(filepath.Join(n.manifests, "m.yaml"))
		changes <- struct{}{}
		pass(agent.DefaultRemovalDelay - time.Second)
		n.wantFiles(n.alpha, "nginx", "a.alpha=two")
		pass(2 * time.Second)
		n.wantFiles(n.alpha, "nginx", "")
		end()
	})
}

func TestLoopTriesAgainAtThePaceOfTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		err    *reason.Error
		within time.Duration
		// contacts are the least and most in that time.
		least, most int
	}{
		"retry":             {errDown, time.Minute, 5, 8},
		"wait":              {reason.New(reason.Unauthorized, "x", "no"), time.Hour, 5, 9},
		"stalled":           {reason.New(reason.UnsupportedArtifact, "x", "no"), 24 * time.Hour, 4, 10},
		"as long as told":   {&reason.Error{Reason: reason.RateLimited, RetryAfter: 20 * time.Minute}, time.Hour, 2, 3},
		"not longer than h": {&reason.Error{Reason: reason.RateLimited, RetryAfter: 1000 * time.Hour}, 5 * time.Hour, 4, 6},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			d := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
			n.manifest("m", "nginx", d, "")
			n.remote.setDown(c.err)
			n.opts.Resync = 1000 * time.Hour
			synctest.Test(t, func(t *testing.T) {
				changes := make(chan struct{})
				end := n.loop(t, changes)
				pass(c.within)
				if got := n.remote.count(); got < c.least || got > c.most {
					t.Errorf("%d contacts in %v, want %d to %d", got, c.within, c.least, c.most)
				}
				wantCondition(t, n.status(t, "nginx"), status.Ready, status.False, c.err.Reason)
				// A changed policy is tried at once.
				before := n.remote.count()
				n.remote.setDown(nil)
				n.policy("web", "  requireName: false\n  floor: []")
				n.policy("more", "")
				changes <- struct{}{}
				pass(time.Second)
				if n.remote.count() == before {
					t.Error("a changed policy did not lead to another try")
				}
				n.wantFiles(n.alpha, "nginx", "a.alpha=one")
				end()
			})
		})
	}
}

func TestLoopForgetsFailuresOfWhatNobodyWants(t *testing.T) {
	n := newNode(t)
	good := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	next := n.remote.push(t, n.kinds, []string{"a.alpha=two"}, theKey())
	n.manifest("m", "nginx", good, "")
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{})
		end := n.loop(t, changes)
		pass(time.Second)
		n.alpha.FailFor(owner("nginx"), reason.New(reason.NoSpace, "disk", "full"))
		n.manifest("m", "nginx", next, "")
		changes <- struct{}{}
		pass(time.Second)
		wantCondition(t, n.status(t, "nginx"), status.Degraded, status.True, reason.NoSpace)
		n.manifest("m", "nginx", good, "")
		changes <- struct{}{}
		pass(time.Second)
		wantCondition(t, n.status(t, "nginx"), status.Degraded, status.False, status.AsWanted)
		wantCondition(t, n.status(t, "nginx"), status.Ready, status.True, status.Installed)
		n.manifest("m", "nginx", next, "")
		changes <- struct{}{}
		n.alpha.FailFor(owner("nginx"), nil)
		pass(time.Minute)
		n.wantFiles(n.alpha, "nginx", "a.alpha=two")
		end()
	})
}

func TestLoopIsNotHeldUpByARegistryThatHangs(t *testing.T) {
	n := newNode(t)
	kept := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	n.manifest("m", "kept", kept, "")
	n.once()
	hanging := n.remote.push(t, n.kinds, []string{"a.alpha=two"}, theKey())
	n.manifest("h", "hanging", hanging, "")
	n.opts.Resync = time.Minute
	synctest.Test(t, func(t *testing.T) {
		n.remote.gate = make(chan struct{})
		end := n.loop(t, nil)
		pass(time.Second)
		wantCondition(t, n.status(t, "hanging"), status.Ready, status.Unknown, status.Pending)
		n.alpha.Damage(owner("kept"))
		pass(time.Minute)
		n.wantFiles(n.alpha, "kept", "a.alpha=one")
		pass(5 * time.Minute) // the pull's own time is over
		wantCondition(t, n.status(t, "hanging"), status.Ready, status.False, reason.RegistryUnavailable)
		close(n.remote.gate)
		pass(5 * time.Minute)
		n.wantFiles(n.alpha, "hanging", "a.alpha=two")
		end()
	})
}

func TestPullsAreBounded(t *testing.T) {
	n := newNode(t)
	const many, bound = 300, 3 // more than are started at one time
	for i := range many {
		name := fmt.Sprintf("p%d", i)
		n.manifest(name, name, n.remote.push(t, n.kinds, []string{"a.alpha=" + name}, theKey()), "")
	}
	n.opts.Pulls = bound
	synctest.Test(t, func(t *testing.T) {
		n.remote.gate = make(chan struct{})
		end := n.loop(t, nil)
		pass(time.Second)
		if n.remote.atGate != bound {
			t.Errorf("%d artifacts are pulled at one time, want %d", n.remote.atGate, bound)
		}
		close(n.remote.gate)
		pass(time.Minute)
		for i := range many {
			name := fmt.Sprintf("p%d", i)
			n.wantFiles(n.alpha, name, "a.alpha="+name)
		}
		end()
	})
}

func TestLoopEndsWhilePulling(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	synctest.Test(t, func(t *testing.T) {
		n.remote.gate = make(chan struct{})
		end := n.loop(t, nil)
		pass(time.Second)
		end()
	})
	n.remote.gate = nil
	wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.True, status.Installed)
}

func TestLoopWritesStatusOnlyWhenItsMeaningChanged(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	writes := map[string]int{}
	n.opts.Before = countWrites(writes)
	synctest.Test(t, func(t *testing.T) {
		end := n.loop(t, nil)
		pass(time.Minute)
		before := fmt.Sprint(writes)
		pass(24 * time.Hour)
		if after := fmt.Sprint(writes); after != before {
			t.Errorf("a day without a change wrote: %s, before %s", after, before)
		}
		end()
	})
}

func TestFlappingKeepsOneOfBoth(t *testing.T) {
	n := newNode(t)
	digests := []digest.Digest{
		n.remote.push(t, n.kinds, []string{"a.alpha=one", "x.alpha=1"}, theKey()),
		n.remote.push(t, n.kinds, []string{"a.alpha=two", "y.alpha=2"}, theKey()),
	}
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{})
		end := n.loop(t, changes)
		for i := range 40 {
			n.manifest("m", "nginx", digests[i%2], "")
			changes <- struct{}{}
			pass(10 * time.Second)
			want := []string{"a.alpha=one x.alpha=1 y.alpha=2", "a.alpha=two x.alpha=1 y.alpha=2"}[i%2]
			if i == 0 {
				want = "a.alpha=one x.alpha=1"
			}
			n.wantFiles(n.alpha, "nginx", want)
		}
		if got := n.remote.count(); got > 16 {
			t.Errorf("%d contacts for two artifacts", got)
		}
		pass(2 * time.Hour)
		n.wantFiles(n.alpha, "nginx", "a.alpha=two y.alpha=2")
		end()
	})
}

func TestSignerThatExpiresIsJudgedAgain(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	n.opts.Resync = 1000 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		n.live = true
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		n.policyUntil(until)
		end := n.loop(t, nil)
		pass(time.Minute)
		wantCondition(t, n.status(t, "nginx"), status.Verified, status.True, status.Signed)
		pass(time.Hour)
		wantCondition(t, n.status(t, "nginx"), status.Verified, status.False, reason.SignerExpired)
		n.wantFiles(n.alpha, "nginx", "a.alpha=one")
		end()
	})
}

func TestManyProfilesInLittleMemory(t *testing.T) {
	n := newNode(t)
	const many = 500
	for i := range many {
		name := fmt.Sprintf("p%d", i)
		d := n.remote.push(t, n.kinds, []string{fmt.Sprintf("a.alpha=%d", i)}, theKey())
		n.manifest(name, name, d, "")
	}
	a, err := agent.New(n.options())
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Profiles {
		if !p.AsWanted() {
			t.Errorf("%s is not as wanted: %+v", p.Owner, p.Conditions)
		}
	}
	if len(report.Profiles) != many {
		t.Errorf("%d profiles, want %d", len(report.Profiles), many)
	}
	n.remote = nil // what the test itself holds
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	if stats.HeapAlloc > 40<<20 {
		t.Errorf("%d MiB are in use with %d profiles", stats.HeapAlloc>>20, many)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
