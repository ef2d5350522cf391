// Package agent is the node's loop: it brings what people want and what the
// hosts have together, again and again, and changes nothing it need not.
//
// One goroutine owns the journal and the hosts. Only pulls run beside it; they
// write verified evidence to the store and nothing else. So a registry that
// hangs holds up nobody.
package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/journal"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/node/store"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// Trust judges artifacts under the policies as they were at one moment.
type Trust interface {
	// Pull reads an artifact from a registry or a store and judges it.
	Pull(ctx context.Context, from artifact.Fetcher, req artifact.Request) (*artifact.Artifact, error)
	// Fingerprint changes whenever a verdict for this repository and namespace
	// could. The error is NoTrustPolicy where nothing matches.
	Fingerprint(repo reference.Repository, namespace string) (digest.Digest, error)
}

// Held is the optional ability of a Trust that is only good enough for what is
// installed already: that is judged again and repaired, and nothing new is
// installed.
type Held interface {
	// Hold says why; nil where the Trust is good for all.
	Hold() *reason.Error
}

// Source says what is wanted and who is trusted. The loop calls it again after
// every event on Options.Changes.
type Source interface {
	// Profiles returns what is wanted. An error means that it is not known.
	Profiles() (intent.Desired, error)
	// Trust returns who is trusted. An error means to wait: nobody is trusted
	// anew, and what is installed stays.
	Trust() (Trust, error)
}

// Defaults of Options.
const (
	DefaultRemovalDelay = time.Hour
	DefaultResync       = 5 * time.Minute
	defaultPulls        = 8
	defaultPullTimeout  = 5 * time.Minute
	defaultLinger       = 100 * time.Millisecond

	rootMode = 0o755 // the status and the profiles below are for everybody to read
)

// Options of an Agent. Root, Source and Remote are required.
type Options struct {
	// Root is the folder of the agent's state.
	Root string
	// Source says what is wanted and who is trusted.
	Source Source
	// Hosts bring profiles into force, one a kind.
	Hosts []profile.Host
	// Remote serves what the store does not have.
	Remote artifact.Fetcher

	// RemovalDelay is how long what nobody wants stays. Zero means one hour,
	// negative means not at all.
	RemovalDelay time.Duration
	// Resync is how often folders are read and hosts repaired although nothing
	// said that they changed; zero means five minutes.
	Resync time.Duration
	// Pulls bounds the artifacts pulled from one registry at one time, and one
	// more is pulled from others; zero means 8.
	Pulls int
	// PullTimeout bounds one pull; zero means five minutes.
	PullTimeout time.Duration
	// Linger is how long events are collected before a pass; zero means 100 ms.
	Linger time.Duration
	// Changes says that something in Source may have changed; nil means never.
	Changes <-chan struct{}
	// Reported is given every report, by the loop; busy is set while pulls run or
	// are due. It must not wait. nil: nobody is.
	Reported func(r status.Report, busy bool)
	// Pulled is told how each pull ended, by the loop; nil: nobody is.
	Pulled func(err error)
	// Notify is told the agent's states as sd_notify(3) words them; nil means
	// nobody is.
	Notify func(state string)
	// Watchdog is how often Notify is told that the loop runs; zero means never.
	Watchdog time.Duration

	// FreeMemory is called after work that took memory once; nil is
	// debug.FreeOSMemory, which is wrong where many agents share a process.
	FreeMemory func()

	// Now is the clock for everything that is written down; nil is time.Now.
	Now func() time.Time
	// Jitter picks a duration in [0, d]; nil picks at random.
	Jitter func(d time.Duration) time.Duration
	// Before is called before every change to the agent's own state, also by
	// pulls beside the loop; see durable.Options.
	Before func(durable.Step) error
	// Log receives what happens; nil means nowhere.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	switch {
	case o.RemovalDelay == 0:
		o.RemovalDelay = DefaultRemovalDelay
	case o.RemovalDelay < 0:
		o.RemovalDelay = 0
	}
	o.Resync = cmp.Or(o.Resync, DefaultResync)
	o.Pulls = cmp.Or(o.Pulls, defaultPulls)
	o.PullTimeout = cmp.Or(o.PullTimeout, defaultPullTimeout)
	o.Linger = cmp.Or(o.Linger, defaultLinger)
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	if o.Reported == nil {
		o.Reported = func(status.Report, bool) {}
	}
	if o.Pulled == nil {
		o.Pulled = func(error) {}
	}
	if o.FreeMemory == nil {
		o.FreeMemory = debug.FreeOSMemory
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = func(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d) + 1)) } //nolint:gosec // spreads load, hides nothing
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Hosts = slices.SortedFunc(slices.Values(o.Hosts), func(a, b profile.Host) int { return strings.Compare(a.Kind(), b.Kind()) })
	return o
}

// Agent is one node's agent. Run, Once and Close are called by one goroutine.
type Agent struct {
	opts Options
	log  *slog.Logger

	lock    io.Closer
	dir     *durable.Dir
	store   *store.Store
	file    *journal.File
	journal *journal.Journal
	status  *status.Writer

	inputs   inputs
	adopted  map[string]bool // kinds whose host was compared with the journal
	memo     map[judgeKey]*content
	refusals map[judgeKey]*refusal
	attempts map[judgeKey]*attempt
	failures map[journal.Key]*attempt
	inflight map[unit.Source]bool
	// queue are the pulls that are due; fetched are those done since the last
	// pass.
	queue   []judgeKey
	fetched map[unit.Source]bool
	// litter is set while the store may hold what nothing needs.
	litter bool
	// once is set while Once runs.
	once    bool
	results chan pulled
	// pulls and keeps are the turns taken at the network and at the store.
	pulls    *turns
	keeps    chan struct{}
	workers  sync.WaitGroup
	report   status.Report
	lastPass time.Duration
}

// inputs are what Source said last.
type inputs struct {
	desired    intent.Desired
	desiredErr error
	trust      Trust
	trustErr   error
	// hold says why nothing new is installed; nil where it may be.
	hold *reason.Error
	// prints remembers what trust said; a pass asks for each owner.
	prints map[printPlace]fingerprint
}

type printPlace struct {
	repo      reference.Repository
	namespace string
}

type fingerprint struct {
	policies digest.Digest
	err      error
}

// New opens the state in opts.Root and takes it for this process alone. The
// error is a *reason.Error.
func New(opts Options) (*Agent, error) {
	opts = opts.withDefaults()
	a := &Agent{
		opts: opts, log: opts.Log,
		adopted:  map[string]bool{},
		memo:     map[judgeKey]*content{},
		refusals: map[judgeKey]*refusal{},
		attempts: map[judgeKey]*attempt{},
		failures: map[journal.Key]*attempt{},
		inflight: map[unit.Source]bool{},
		fetched:  map[unit.Source]bool{},
		results:  make(chan pulled, max(started, opts.Pulls)),
		pulls:    newTurns(opts.Pulls),
		keeps:    make(chan struct{}, keeping),
	}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) open() error {
	var err error
	a.dir, err = durable.Open(a.opts.Root, durable.Options{Before: a.opts.Before, Perm: rootMode})
	if err != nil {
		return durable.Explain(a.opts.Root, err)
	}
	if a.lock, err = takeLock(filepath.Join(a.opts.Root, lockName)); err != nil {
		return err
	}
	if err := a.dir.SweepTemp("."); err != nil {
		return durable.Explain(a.opts.Root, err)
	}
	if a.store, err = store.Open(filepath.Join(a.opts.Root, "store"), store.Options{Before: a.opts.Before}); err != nil {
		return err
	}
	a.file = journal.Open(a.dir)
	a.status = status.NewWriter(a.dir)
	return a.loadJournal()
}

// loadJournal reads the journal. A damaged one is set aside: the hosts and the
// store say what was in it.
func (a *Agent) loadJournal() error {
	j, _, err := a.file.Load()
	if errors.Is(err, journal.ErrDamaged) {
		a.log.Warn("the journal is damaged; it is set aside and made anew", "error", err)
		a.journal = &journal.Journal{}
		if err := a.file.SetAside(); err != nil {
			return durable.Explain(a.opts.Root, err)
		}
		return nil
	}
	if err != nil {
		return durable.Explain(a.opts.Root, err)
	}
	a.journal = j
	return nil
}

// Close waits for pulls that run and releases the state.
func (a *Agent) Close() error {
	a.workers.Wait()
	var errs []error
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
	}
	if a.dir != nil {
		errs = append(errs, a.dir.Close())
	}
	return errors.Join(errs...)
}

const lockName = "lock"

// takeLock makes sure that one agent alone works on a root.
func takeLock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, durable.Explain(name, err)
	}
	if err := flock(f); err != nil {
		return nil, errors.Join(reason.New(reason.InstallFailed, name, "another agent works on this root: %w", err).
			WithAdvice("stop the other agent, or give this one a --root of its own"), f.Close())
	}
	return f, nil
}
