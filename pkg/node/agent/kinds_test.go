package agent_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

// kernelHost is a host whose kernel forgets at a reboot: what its disk says is
// in force only once it was restored or installed again.
type kernelHost struct {
	*profiletest.MemoryHost

	mu       sync.Mutex
	loaded   map[profile.Owner]digest.Digest
	restores int
	restored chan struct{} // where set, Restore waits for it
}

func newKernelHost(kind string) *kernelHost {
	return &kernelHost{MemoryHost: profiletest.NewMemoryHost(kind), loaded: map[profile.Owner]digest.Digest{}}
}

func (h *kernelHost) reboot() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = map[profile.Owner]digest.Digest{}
}

// sync loads what the disk has.
func (h *kernelHost) sync(ctx context.Context) error {
	installed, err := h.Installed(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = map[profile.Owner]digest.Digest{}
	for _, in := range installed {
		h.loaded[in.Owner] = in.Digest
	}
	return nil
}

func (h *kernelHost) Install(ctx context.Context, units []profile.Unit) []profile.Outcome {
	outcomes := h.MemoryHost.Install(ctx, units)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, u := range units {
		if outcomes[i].Err == nil {
			outcomes[i].Changed = outcomes[i].Changed || h.loaded[u.Owner] != u.Digest
			h.loaded[u.Owner] = u.Digest
		}
	}
	return outcomes
}

func (h *kernelHost) Remove(ctx context.Context, owners []profile.Owner) []profile.Outcome {
	outcomes := h.MemoryHost.Remove(ctx, owners)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, o := range owners {
		if outcomes[i].Err == nil {
			delete(h.loaded, o)
		}
	}
	return outcomes
}

func (h *kernelHost) Restore(ctx context.Context) ([]profile.Outcome, error) {
	if h.restored != nil {
		<-h.restored
	}
	h.mu.Lock()
	h.restores++
	h.mu.Unlock()
	return []profile.Outcome{{Changed: true}}, h.sync(ctx)
}

func (h *kernelHost) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, o := range slices.SortedFunc(maps.Keys(h.loaded), profile.Owner.Compare) {
		names = append(names, o.String())
	}
	return names
}

// threeKinds is an artifact with a file of each kind, on a node whose third
// kind may not be supported.
func threeKinds(t *testing.T, extra string) (*node, *profiletest.MemoryHost, digest.Digest) {
	t.Helper()
	n := newNode(t)
	gamma := profiletest.NewMemoryHost("gamma")
	n.hosts = []profile.Host{n.alpha, n.beta, gamma}
	d := n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.beta=two", "c.gamma=three"}, theKey())
	n.manifest("m", "nginx", d, extra)
	return n, gamma, d
}

func kindOf(t *testing.T, p status.Profile, name string) status.Kind {
	t.Helper()
	i := slices.IndexFunc(p.Kinds, func(k status.Kind) bool { return k.Name == name })
	if i < 0 {
		t.Fatalf("nothing is said of %s: %+v", name, p.Kinds)
	}
	return p.Kinds[i]
}

func TestSupportedKindsAreInstalledAndTheRestIsNoError(t *testing.T) {
	n, gamma, d := threeKinds(t, "")
	gamma.SetUnsupported(true)
	report := n.once()
	p := find(t, report, "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	wantCondition(t, p, status.Degraded, status.False, status.AsWanted)
	if c := p.Condition(status.Ready); !strings.Contains(c.Message, "gamma") {
		t.Errorf("it does not say what is left out: %s", c.Message)
	}
	if k := kindOf(t, p, "gamma"); k.Reason != reason.KindUnsupported || k.InstalledDigest != "" {
		t.Errorf("gamma is %+v", k)
	}
	if k := kindOf(t, p, "alpha"); k.Reason != "" || k.InstalledDigest != d {
		t.Errorf("alpha is %+v", k)
	}
	if len(report.Kinds) != 3 || report.Kinds[2].Reason != reason.KindUnsupported || report.Kinds[0].Reason != "" {
		t.Errorf("the node's kinds are %+v", report.Kinds)
	}
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.wantFiles(n.beta, "nginx", "b.beta=two")

	// The machine boots with it: the next start installs the rest, and needs no registry.
	n.remote.setDown(errDown)
	gamma.SetUnsupported(false)
	p = find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	if c := p.Condition(status.Ready); c.Message != "" {
		t.Errorf("something is still left out: %s", c.Message)
	}
	n.wantFiles(gamma, "nginx", "c.gamma=three")
}

func TestRequiredKindsAreInstalledTogetherOrNotAtAll(t *testing.T) {
	n, gamma, d := threeKinds(t, "  kinds: Required")
	gamma.SetUnsupported(true)
	p := find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.False, reason.KindUnsupported)
	wantCondition(t, p, status.Verified, status.True, status.Signed)
	wantCondition(t, p, status.Degraded, status.False, status.AsWanted)
	for _, h := range []*profiletest.MemoryHost{n.alpha, n.beta, gamma} {
		n.wantFiles(h, "nginx", "")
	}
	gamma.SetUnsupported(false)
	p = find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	n.wantFiles(gamma, "nginx", "c.gamma=three")

	// It stops being supported: what is in force stays, and an update waits.
	gamma.SetUnsupported(true)
	next := n.remote.push(t, n.kinds, []string{"a.alpha=new", "c.gamma=new"}, theKey())
	n.manifest("m", "nginx", next, "  kinds: Required")
	p = find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.False, reason.KindUnsupported)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	if p.InstalledDigest != d {
		t.Errorf("installed is %s, want %s", p.InstalledDigest, d)
	}
}

// TestUnsupportedKindsAreNoErrorLoop counts what a node does for a kind that it
// does not have, for an hour; then it has it.
func TestUnsupportedKindsAreNoErrorLoop(t *testing.T) {
	n, gamma, _ := threeKinds(t, "")
	gamma.SetUnsupported(true)
	var reports atomic.Int64
	n.opts.Reported = func(status.Report, bool) { reports.Add(1) }
	synctest.Test(t, func(t *testing.T) {
		end := n.loop(t, nil)
		pass(time.Minute)
		passes, contacts := reports.Load(), n.remote.count()
		pass(time.Hour)
		if got := reports.Load() - passes; got > 13 { // one each five minutes
			t.Errorf("%d passes in an hour", got)
		}
		if got := n.remote.count(); got != contacts || gamma.Installs() != 0 {
			t.Errorf("the registry was contacted %d times, the host %d times", got-contacts, gamma.Installs())
		}
		gamma.SetUnsupported(false)
		pass(agent.DefaultResync + time.Second)
		n.wantFiles(gamma, "nginx", "c.gamma=three")
		end()
	})
}

// TestAKindThatIsWantedAndOffIsSaid: who asks why finds --kinds.
func TestAKindThatIsWantedAndOffIsSaid(t *testing.T) {
	n, _, _ := threeKinds(t, "")
	n.hosts = n.hosts[:1]
	report := n.once()
	var said []string
	for _, k := range report.Kinds {
		said = append(said, k.Name+":"+string(k.Reason))
		if k.Reason != "" && !strings.Contains(k.Message, "--kinds") {
			t.Errorf("%s: %s", k.Name, k.Message)
		}
	}
	if got := strings.Join(said, " "); got != "alpha: beta:KindUnsupported gamma:KindUnsupported" {
		t.Errorf("the node's kinds are %s", got)
	}
}

func TestAKindThatIsSwitchedOffKeepsWhatIsInstalled(t *testing.T) {
	n, gamma, d := threeKinds(t, "")
	n.once()
	n.hosts = n.hosts[:2]
	next := n.remote.push(t, n.kinds, []string{"a.alpha=new", "c.gamma=new"}, theKey())
	n.manifest("m", "nginx", next, "")
	report := n.once()
	p := find(t, report, "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	if k := kindOf(t, p, "gamma"); k.InstalledDigest != d || k.Reason != reason.KindUnsupported || !strings.Contains(k.Message, "--kinds") {
		t.Errorf("gamma is %+v", k)
	}
	if p.InstalledDigest != "" {
		t.Errorf("installed is %s, though kinds differ", p.InstalledDigest)
	}
	if i := slices.IndexFunc(report.Kinds, func(k status.HostKind) bool { return k.Name == "gamma" }); i < 0 || report.Kinds[i].Reason != reason.KindUnsupported {
		t.Errorf("the node's kinds are %+v", report.Kinds)
	}
	n.wantFiles(gamma, "nginx", "c.gamma=three")

	// Nobody wants it any more: it waits for as long as nobody can remove it.
	n.remove(n.manifests + "/m.yaml")
	n.once()
	n.now = n.now.Add(2 * agent.DefaultRemovalDelay)
	p = find(t, n.once(), "nginx", "")
	if ready := p.Condition(status.Ready); !strings.Contains(ready.Message, "--kinds") {
		t.Errorf("it says %q", ready.Message)
	}
	n.wantFiles(gamma, "nginx", "c.gamma=three")
	n.wantFiles(n.alpha, "nginx", "")
	n.hosts = append(n.hosts, gamma)
	n.once()
	n.wantFiles(gamma, "nginx", "")
}

func TestWhatTheKernelLostIsRestoredBeforeAnythingIsRead(t *testing.T) {
	for name, spoil := range map[string]func(n *node){
		"trusted":                 func(n *node) { n.remote.setDown(errDown) },
		"nobody is trusted":       func(n *node) { n.remove(n.trust + "/web.yaml") },
		"trust cannot be read":    func(n *node) { n.write(n.trust+"/web.yaml", "kind: TrustPolicie\n") },
		"nothing is wanted":       func(n *node) { n.remove(n.manifests + "/m.yaml") },
		"manifests are gone":      func(n *node) { n.manifests += "/gone" },
		"the journal was damaged": func(n *node) { n.write(n.root+"/journal.json", "{") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			kernel := newKernelHost("alpha")
			n.hosts = []profile.Host{kernel}
			n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
			n.once()
			kernel.reboot()
			spoil(n)
			opts := n.options()
			opts.Source = sourceAfter{opts.Source, func() {
				if got := kernel.names(); !slices.Equal(got, []string{"web/nginx"}) {
					t.Errorf("while it reads, the kernel has %v", got)
				}
			}}
			a, err := agent.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Once(t.Context()); err != nil {
				t.Error(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if got := kernel.names(); !slices.Equal(got, []string{"web/nginx"}) || kernel.restores != 2 {
				t.Errorf("the kernel has %v after %d restores", got, kernel.restores)
			}
		})
	}
}

// sourceAfter is asked after something was looked at.
type sourceAfter struct {
	agent.Source
	look func()
}

func (s sourceAfter) Trust() (agent.Trust, error) {
	s.look()
	return s.Source.Trust()
}

func TestRestoreIsNotAskedWhereTheKindIsNotSupported(t *testing.T) {
	n := newNode(t)
	kernel := newKernelHost("alpha")
	n.hosts = []profile.Host{kernel}
	kernel.SetUnsupported(true)
	n.once()
	if kernel.restores != 0 {
		t.Errorf("%d restores", kernel.restores)
	}
}

func TestAFailingRestoreIsRepaired(t *testing.T) {
	n := newNode(t)
	kernel := newKernelHost("alpha")
	n.hosts = []profile.Host{kernel}
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	n.once()
	kernel.reboot()
	kernel.FailInstalled(errors.New("not now"))
	n.once()
	kernel.FailInstalled(nil)
	n.remote.setDown(errDown)
	n.once()
	if got := kernel.names(); !slices.Equal(got, []string{"web/nginx"}) {
		t.Errorf("the kernel has %v", got)
	}
}

// TestWhatNobodyCanNameNeedsNoRelease: a kernel lost a unit that cannot be
// brought back, and its host still lists it.
func TestWhatNobodyCanNameNeedsNoRelease(t *testing.T) {
	n := newNode(t)
	n.inCluster()
	nameless := &namelessHost{MemoryHost: n.alpha}
	n.hosts = []profile.Host{nameless}
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	n.once()
	n.remove(n.manifests + "/m.yaml")
	n.once()
	n.now = n.now.Add(2 * agent.DefaultRemovalDelay)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one") // a workload may name it
	nameless.lost = true
	n.once()
	n.wantFiles(n.alpha, "nginx", "")
}

// namelessHost lists units without their references once they are lost.
type namelessHost struct {
	*profiletest.MemoryHost
	lost bool
}

func (h *namelessHost) Installed(ctx context.Context) ([]profile.Installed, error) {
	installed, err := h.MemoryHost.Installed(ctx)
	for i := range installed {
		if h.lost {
			installed[i].References, installed[i].Files = nil, nil
		}
	}
	return installed, err
}

// countingKind counts how often payloads are read.
type countingKind struct {
	plainKind
	reads *atomic.Int64
	takes time.Duration
}

func (k countingKind) Parse(file string, data []byte) (profile.Profile, error) {
	k.reads.Add(1)
	time.Sleep(k.takes) //nolint:forbidigo // the bubble's clock: nobody waits
	return k.plainKind.Parse(file, data)
}

// TestRefusalsOfWhatIsKeptAreRemembered lets two profiles share an artifact that
// one of them may not have: it is kept for the other, and judged for both.
func TestRefusalsOfWhatIsKeptAreRemembered(t *testing.T) {
	n := newNode(t)
	var reads atomic.Int64
	n.kinds = profile.NewSet(countingKind{plainKind{"alpha"}, &reads, 0})
	n.hosts = n.hosts[:1]
	d := n.remote.push(t, n.kinds, []string{"a.alpha=shop"}, theKey())
	n.manifest("web", "nginx", d, "")
	n.write(n.manifests+"/shop.yaml", "apiVersion: confine.dev/v1alpha1\nkind: SecurityProfile\nmetadata: {namespace: shop, name: nginx}\nspec:\n  artifact: "+repository+"@"+d.String()+"\n")
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{})
		end := n.loop(t, changes)
		pass(time.Minute)
		wantCondition(t, n.status(t, "nginx"), status.Ready, status.False, reason.ProfileForbidden)
		before := reads.Load()
		for range 20 {
			changes <- struct{}{}
			pass(time.Minute)
		}
		if got := reads.Load() - before; got != 0 {
			t.Errorf("payloads were read %d times though nothing changed", got)
		}
		// Other policies may lead to another verdict.
		n.policy("web", "  requireName: false")
		n.policy("more", "")
		changes <- struct{}{}
		pass(time.Minute)
		if reads.Load() == before {
			t.Error("nothing was judged anew under other policies")
		}
		wantCondition(t, n.status(t, "nginx"), status.Ready, status.False, reason.ProfileForbidden)
		end()
	})
}

// TestSlowJudgingIsTriedAgainLater installs an artifact that takes long to judge
// when the machine is busy.
func TestSlowJudgingIsTriedAgainLater(t *testing.T) {
	n := newNode(t)
	var reads atomic.Int64
	quick, slow := countingKind{plainKind{"alpha"}, &reads, 0}, countingKind{plainKind{"alpha"}, &reads, time.Minute}
	n.hosts, n.kinds = n.hosts[:1], profile.NewSet(quick)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.alpha=two"}, theKey()), "")
	n.once()
	n.remote.setDown(errDown)
	n.kinds = profile.NewSet(slow)
	synctest.Test(t, func(t *testing.T) {
		reads.Store(0)
		end := n.loop(t, nil)
		pass(30 * time.Minute)
		p := n.status(t, "nginx")
		wantCondition(t, p, status.Verified, status.False, reason.TooLarge)
		n.wantFiles(n.alpha, "nginx", "a.alpha=one b.alpha=two")
		if got := reads.Load(); got != 1 {
			t.Errorf("payloads were read %d times in half an hour", got)
		}
		pass(time.Hour)
		if got := reads.Load(); got != 2 {
			t.Errorf("payloads were read %d times in an hour and a half", got)
		}
		end()
	})
}

// TestTheWatchdogHearsOfLongWork lets a host work for longer than a watchdog
// waits, and then for ever.
func TestTheWatchdogHearsOfLongWork(t *testing.T) {
	n := newNode(t)
	kernel := newKernelHost("alpha")
	n.hosts = []profile.Host{kernel}
	synctest.Test(t, func(t *testing.T) {
		kernel.restored = make(chan struct{})
		var said atomic.Int64 // how often it said that it is alive
		opts := n.options()
		opts.Now, opts.Watchdog = time.Now, 10*time.Second
		opts.Notify = func(state string) {
			if state == agent.StateAlive {
				said.Add(1)
			}
		}
		a, err := agent.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		pass(10 * time.Minute)
		if got := said.Load(); got < 59 {
			t.Errorf("it said %d times in ten minutes that it is alive", got)
		}
		pass(10 * time.Minute)
		before := said.Load()
		pass(time.Hour)
		if got := said.Load() - before; got != 0 {
			t.Errorf("it said %d times that it is alive, though a host hangs", got)
		}
		close(kernel.restored)
		pass(time.Minute)
		if said.Load() == before {
			t.Error("it no longer says that it is alive")
		}
		cancel()
		if err := errors.Join(<-done, a.Close()); err != nil {
			t.Error(err)
		}
	})
}
