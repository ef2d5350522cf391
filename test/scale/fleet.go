package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/cluster"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
)

// fleet is the agents of all nodes.
type fleet struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	installed []time.Time // when each of the batch came into force
	failed    error
}

// startFleet starts one agent a node. They share the connections to the API
// server and the registry, and nothing else.
func startFleet(ctx context.Context, config *rest.Config, dir string, nodes int) (*fleet, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // each limits itself
	api, err := cluster.Connect(config)
	if err != nil {
		return nil, err
	}
	remote, err := registry.New(registry.Options{})
	if err != nil {
		return nil, err
	}
	f := &fleet{}
	ctx, f.stop = context.WithCancel(ctx)
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(compile.Resolver())})
	places := make(chan struct{}, agentsAtOnce)
	for i := range nodes {
		name := nodeName(i)
		root := filepath.Join(dir, name)
		turn := &inTurns{Puller: puller, places: places}
		source, err := cluster.New(cluster.Options{Client: api, Node: name, Root: root, Puller: turn})
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		seccomp, err := host.New(host.Options{Root: filepath.Join(root, "seccomp")})
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		a, err := agent.New(agent.Options{
			Root: root, Source: source, Changes: source.Changes(), Reported: turn.upTo(source.Report),
			Hosts: []profile.Host{timedHost{seccomp, f}}, Remote: remote,
			Resync: time.Hour, PullTimeout: time.Hour, // most of it is waiting for the turn
			FreeMemory: func() {}, // one process holds them all
		})
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.running.Go(func() { source.Run(ctx) })
		f.running.Go(func() {
			err := errors.Join(a.Run(ctx), a.Close())
			f.note(err)
		})
	}
	return f, nil
}

func (f *fleet) close() error {
	f.stop()
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fleet) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = errors.Join(f.failed, err)
}

// take returns when each install since the last call took place.
func (f *fleet) take() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.installed
	f.installed = nil
	return taken
}

// agentsAtOnce is how many agents pull at one time: real nodes have processors
// of their own, these share one machine with the API server.
const agentsAtOnce = 4

// inTurns is the real puller of one agent, which waits for the agent's turn with
// the first pull of a batch, and ends it with the report on the last.
type inTurns struct {
	agent.Puller
	places chan struct{}

	mu   sync.Mutex
	mine bool
}

// Pull waits for the agent's turn.
func (t *inTurns) Pull(ctx context.Context, from artifact.Fetcher, policies *trust.Policies, req artifact.Request) (*artifact.Artifact, error) {
	t.mu.Lock()
	for !t.mine {
		select {
		case t.places <- struct{}{}:
			t.mine = true
		case <-ctx.Done():
			t.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	t.mu.Unlock()
	return t.Puller.Pull(ctx, from, policies, req)
}

// upTo hands a report on, and ends the turn where nothing is left to pull.
func (t *inTurns) upTo(report func(status.Report, bool)) func(status.Report, bool) {
	return func(r status.Report, busy bool) {
		report(r, busy)
		if busy || !t.mu.TryLock() { // who waits for a turn has none to end
			return
		}
		defer t.mu.Unlock()
		if t.mine {
			t.mine = false
			<-t.places
		}
	}
}

// timedHost is the real host that says when something came into force.
type timedHost struct {
	profile.Host
	fleet *fleet
}

// Install notes the time of each unit that changed.
func (h timedHost) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	outcomes := h.Host.Install(ctx, units)
	now := time.Now()
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	for _, o := range outcomes {
		if o.Changed && o.Err == nil {
			h.fleet.installed = append(h.fleet.installed, now)
		}
	}
	return outcomes
}
