package agent_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

// asInACluster is a source that lets nothing be removed without a release, and
// can hold what is new.
type asInACluster struct {
	agent.Source
	releases []intent.Release
	hold     *reason.Error
}

func (s *asInACluster) Profiles() (intent.Desired, error) {
	d, err := s.Source.Profiles()
	d.NeedsRelease, d.Releases = true, s.releases
	return d, err
}

type held struct {
	agent.Trust
	why *reason.Error
}

func (h held) Hold() *reason.Error { return h.why }

func (s *asInACluster) Trust() (agent.Trust, error) {
	t, err := s.Source.Trust()
	if err == nil && s.hold != nil {
		t = held{t, s.hold}
	}
	return t, err
}

// inCluster lets the node's agents work from such a source.
func (n *node) inCluster() *asInACluster {
	n.cluster = &asInACluster{}
	return n.cluster
}

func (s *asInACluster) release(name string, at time.Time) {
	s.releases = append(s.releases, intent.Release{Owner: owner(name), RemoveAt: at})
}

func TestNothingIsRemovedWithoutItsRelease(t *testing.T) {
	n := newNode(t)
	source := n.inCluster()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.beta=two"}, theKey()), "")
	n.once()
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	p := find(t, n.once(), "nginx", "")
	due := n.now.Add(time.Hour)
	want := &status.Removal{At: due, References: []string{"confine/web/nginx/a.alpha", "confine/web/nginx/b.beta"}}
	if diff := cmp.Diff(want, p.Removal); diff != "" {
		t.Errorf("removal (-want +got):\n%s", diff)
	}
	source.release("nginx", due)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one") // it is not due

	n.now = due.Add(24 * time.Hour)
	source.releases = nil
	source.release("nginx", due.Add(time.Second))
	source.release("other", due)
	p = find(t, n.once(), "nginx", "")
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	if !p.RemoveAt.Equal(due) || !strings.Contains(p.Condition(status.Ready).Message, "releases it") {
		t.Errorf("it is removed at %v: %+v", p.RemoveAt, p.Condition(status.Ready))
	}
	source.release("nginx", due)
	if r := n.once(); len(r.Profiles) > 0 {
		t.Errorf("it is still reported: %+v", r.Profiles)
	}
	n.wantFiles(n.alpha, "nginx", "")
	n.wantFiles(n.beta, "nginx", "")
}

func TestDroppedFilesWaitForTheirRelease(t *testing.T) {
	n := newNode(t)
	source := n.inCluster()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=1", "old.alpha=2", "b.beta=3"}, theKey()), "")
	n.once()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=new"}, theKey()), "")
	due := n.now.Add(time.Hour)
	p := find(t, n.once(), "nginx", "")
	want := &status.Removal{At: due, References: []string{"confine/web/nginx/b.beta", "confine/web/nginx/old.alpha"}}
	if diff := cmp.Diff(want, p.Removal); diff != "" {
		t.Errorf("removal (-want +got):\n%s", diff)
	}
	if !p.RemoveAt.IsZero() {
		t.Errorf("the whole is removed at %v", p.RemoveAt)
	}
	n.now = due.Add(time.Hour)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=new old.alpha=2")
	n.wantFiles(n.beta, "nginx", "b.beta=3")

	// What is dropped now has a due time of its own, which the release does not
	// cover; what is due first is reported first.
	next := n.remote.push(t, n.kinds, []string{"c.alpha=newer"}, theKey())
	n.manifest("m", "nginx", next, "")
	// A kind that was dropped waits anew, because it could have come back.
	p = find(t, n.once(), "nginx", "")
	want.References = []string{"confine/web/nginx/old.alpha"}
	if diff := cmp.Diff(want, p.Removal); diff != "" {
		t.Errorf("removal (-want +got):\n%s", diff)
	}
	source.release("nginx", due)
	p = find(t, n.once(), "nginx", "")
	n.wantFiles(n.alpha, "nginx", "a.alpha=new c.alpha=newer")
	n.wantFiles(n.beta, "nginx", "b.beta=3")
	want = &status.Removal{At: n.now.Add(time.Hour), References: []string{"confine/web/nginx/a.alpha", "confine/web/nginx/b.beta"}}
	if diff := cmp.Diff(want, p.Removal); diff != "" {
		t.Errorf("what goes next (-want +got):\n%s", diff)
	}
}

// TestAReleaseOfBeforeNeverCoversWhatIsNew drops things in the very second for
// which a release is there already.
func TestAReleaseOfBeforeNeverCoversWhatIsNew(t *testing.T) {
	n := newNode(t)
	n.opts.RemovalDelay = -1
	source := n.inCluster()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=1", "old.alpha=2"}, theKey()), "")
	n.manifest("g", "gone", n.remote.push(t, n.kinds, []string{"a.alpha=1"}, theKey()), "")
	n.once()
	source.release("nginx", n.now)
	source.release("gone", n.now)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=3"}, theKey()), "")
	n.remove(filepath.Join(n.manifests, "g.yaml"))
	for range 3 {
		n.once()
		n.wantFiles(n.alpha, "nginx", "a.alpha=3 old.alpha=2")
		n.wantFiles(n.alpha, "gone", "a.alpha=1")
	}
	r := n.once()
	for _, name := range []string{"nginx", "gone"} {
		p := find(t, r, name, "")
		if p.Removal == nil || !p.Removal.At.Equal(n.now.Add(time.Second)) {
			t.Errorf("%s goes %+v", name, p.Removal)
		}
	}
}

func TestWhatCannotBeNamedIsNotOfferedForRemoval(t *testing.T) {
	n := newNode(t)
	source := n.inCluster()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.beta=two"}, theKey()), "")
	n.once()
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	n.once()
	n.alpha.FailInstalled(reason.New(reason.InstallFailed, "alpha", "cannot be read"))
	if p := find(t, n.once(), "nginx", ""); p.Removal != nil {
		t.Errorf("it offers %+v, and cannot name all of it", p.Removal)
	}
	n.alpha.FailInstalled(nil)

	// What is not on the host any more needs no release: nothing names it.
	n.remote.setDown(errDown)
	n.policyUntil("2000-01-01T00:00:00Z") // nothing can be verified, so nothing is repaired
	n.alpha.Forget(owner("nginx"))
	n.now = n.now.Add(2 * time.Hour)
	p := find(t, n.once(), "nginx", "")
	if len(p.Kinds) != 1 || p.Kinds[0].Name != "beta" {
		t.Errorf("kinds: %+v", p.Kinds)
	}
	n.wantFiles(n.beta, "nginx", "b.beta=two")
	source.release("nginx", p.RemoveAt)
	n.once()
	n.wantFiles(n.beta, "nginx", "")
}

// TestHeldTrustInstallsNothingNew has policies that are only kept from before.
func TestHeldTrustInstallsNothingNew(t *testing.T) {
	n := newNode(t)
	source := n.inCluster()
	one := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	two := n.remote.push(t, n.kinds, []string{"a.alpha=two"}, theKey())
	n.manifest("m", "nginx", one, "")
	n.manifest("u", "updated", one, "")
	n.once()
	contacts := n.remote.count()
	source.hold = reason.New(reason.TrustPolicyInvalid, "policies", "not read since start")
	n.manifest("u", "updated", two, "")
	n.manifest("s", "second", one, "") // in the store already
	n.alpha.Damage(owner("nginx"))
	n.alpha.Forget(owner("updated"))
	r := n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.wantFiles(n.alpha, "updated", "a.alpha=one")
	n.wantFiles(n.alpha, "second", "")
	if got := n.remote.count(); got != contacts {
		t.Errorf("the registry was contacted %d times", got-contacts)
	}
	wantCondition(t, find(t, r, "nginx", ""), status.Ready, status.True, status.Installed)
	for _, name := range []string{"updated", "second"} {
		p := find(t, r, name, "")
		wantCondition(t, p, status.Verified, status.Unknown, reason.TrustPolicyInvalid)
		if p.Outcome() != status.OutcomePending {
			t.Errorf("%s is %s", name, p.Outcome())
		}
	}
	if !strings.Contains(fmt.Sprint(r.Problems), "not read since start") {
		t.Errorf("problems: %+v", r.Problems)
	}
	source.hold = nil
	n.once()
	n.wantFiles(n.alpha, "updated", "a.alpha=two")
	n.wantFiles(n.alpha, "second", "a.alpha=one")
}

func TestReportsSayWhetherPullsAreLeft(t *testing.T) {
	n := newNode(t)
	for i := range 20 {
		name := fmt.Sprintf("p%d", i)
		n.manifest(name, name, n.remote.push(t, n.kinds, []string{"a.alpha=" + name}, theKey()), "")
	}
	n.opts.Pulls = 2
	type said struct {
		installed int
		busy      bool
	}
	var reports []said
	n.opts.Reported = func(r status.Report, busy bool) {
		installed := 0
		for _, p := range r.Profiles {
			if p.Outcome() == status.OutcomeInstalled {
				installed++
			}
		}
		reports = append(reports, said{installed, busy})
	}
	pulled := 0
	n.opts.Pulled = func(err error) {
		if err == nil {
			pulled++
		}
	}
	synctest.Test(t, func(t *testing.T) {
		end := n.loop(t, nil)
		pass(time.Minute)
		end()
	})
	idle := false // after the first pass, which starts the pulls
	for _, r := range reports[1:] {
		if !r.busy && r.installed < 20 {
			t.Errorf("%d are installed, and no pull is said to be left", r.installed)
		}
		idle = idle || !r.busy
	}
	if !idle || pulled != 20 {
		t.Errorf("it never got idle, or only %d were pulled: %+v", pulled, reports)
	}
}

// TestKilledBeforeEveryChangeInACluster kills the agent before each change while
// it installs, drops a file, removes what is released, and keeps what is due and
// not released.
func TestKilledBeforeEveryChangeInACluster(t *testing.T) {
	oldText, newText := fmt.Sprintf(seccompText, ""), fmt.Sprintf(seccompText, `,"close"`)
	n := seccompNode(t)
	source := n.inCluster()
	old := n.remote.push(t, n.kinds, []string{"a.json=" + oldText, "dropped.json=" + oldText}, theKey())
	next := n.remote.push(t, n.kinds, []string{"a.json=" + newText}, theKey())
	for _, name := range []string{"nginx", "let", "kept"} {
		n.manifest(name, name, old, "")
	}
	n.once()
	due := n.now.Add(time.Hour)
	n.remove(filepath.Join(n.manifests, "let.yaml"))
	n.remove(filepath.Join(n.manifests, "kept.yaml"))
	n.once()
	n.now = due.Add(time.Hour)
	source.release("let", due)
	n.manifest("nginx", "nginx", next, "")
	start := n.dir
	for at := 1; ; at++ {
		n.moveTo(filepath.Join(t.TempDir(), "copy"), start)
		c := &crash{at: at}
		n.opts.Before = func(durable.Step) error { return c.before() }
		n.openHost(c.before)
		killed(n)
		if c.seen < at {
			if at < 20 {
				t.Fatalf("only %d changes were made", c.seen)
			}
			return // it went through
		}
		n.opts.Before = nil
		n.openHost(nil)
		for range 2 {
			if got := n.installed("kept", "a.json") + n.installed("kept", "dropped.json"); got != oldText+oldText {
				t.Fatalf("killed at %d: what is not released is gone", at)
			}
			if n.installed("nginx", "dropped.json") != oldText {
				t.Fatalf("killed at %d: the dropped file is gone", at)
			}
			n.once()
		}
		if n.installed("let", "a.json") != "" || n.installed("nginx", "a.json") != newText {
			t.Fatalf("killed at %d: it did not converge", at)
		}
		p := find(t, n.once(), "kept", "")
		if p.Removal == nil || !p.Removal.At.Equal(due) || len(p.Removal.References) != 2 {
			t.Fatalf("killed at %d: it reports %+v", at, p.Removal)
		}
		n.wantNoLeftovers(at)
	}
}

func TestNoProblemWhereNothingIsHeld(t *testing.T) {
	n := newNode(t)
	n.inCluster()
	if r := n.once(); len(r.Problems) > 0 {
		t.Errorf("problems: %+v", r.Problems)
	}
}
