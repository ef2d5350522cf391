package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

var errDown = reason.New(reason.RegistryUnavailable, "registry.example.com", "connection refused")

func TestInstallsWhatIsWantedAndAssertsItWithoutARegistry(t *testing.T) {
	n := newNode(t)
	d := n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.beta=two"}, theKey())
	n.manifest("m", "nginx", d, "")
	p := find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Verified, status.True, status.Signed)
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	wantCondition(t, p, status.Degraded, status.False, status.AsWanted)
	if p.InstalledDigest != d || len(p.References) != 2 || !p.Since.Equal(n.now) {
		t.Errorf("digest %s, references %v, since %v", p.InstalledDigest, p.References, p.Since)
	}
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.wantFiles(n.beta, "nginx", "b.beta=two")

	// The machine loses it, the registry is away: a start alone mends it.
	contacts := n.remote.count()
	n.remote.setDown(errDown)
	n.alpha.Forget(owner("nginx"))
	n.beta.Damage(owner("nginx"))
	p = find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.wantFiles(n.beta, "nginx", "b.beta=two")
	if got := n.remote.count(); got != contacts {
		t.Errorf("the registry was contacted %d times after the restart", got-contacts)
	}
}

func TestRefusalsReachNeitherHostNorStore(t *testing.T) {
	for name, c := range map[string]struct {
		push     func(n *node) digest.Digest
		prepare  func(n *node)
		want     reason.Reason
		contacts bool
	}{
		"unsigned": {
			push: func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=one"}) },
			want: reason.SignatureMissing, contacts: true,
		},
		"signed by somebody else": {
			push: func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=one"}, otherKey()) },
			want: reason.IdentityMismatch, contacts: true,
		},
		"invalid": {
			push: func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=bad"}, theKey()) },
			want: reason.ProfileInvalid, contacts: true,
		},
		"nobody is trusted": {
			push:    func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()) },
			prepare: func(n *node) { n.remove(filepath.Join(n.trust, "web.yaml")) },
			want:    reason.NoTrustPolicy,
		},
		"trust cannot be read": {
			push:    func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()) },
			prepare: func(n *node) { n.write(filepath.Join(n.trust, "typo.yaml"), "kind: TrustPolicie\n") },
			want:    reason.TrustPolicyInvalid,
		},
		"others may write who is trusted": {
			push: func(n *node) digest.Digest { return n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()) },
			prepare: func(n *node) {
				if err := os.Chmod(n.trust, 0o777); err != nil {
					t.Fatal(err)
				}
			},
			want: reason.TrustPolicyInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.manifest("m", "nginx", c.push(n), "")
			if c.prepare != nil {
				c.prepare(n)
			}
			p := find(t, n.once(), "nginx", "")
			if got := p.Condition(status.Ready); got.Status != status.False || got.Reason != c.want {
				t.Errorf("Ready is %+v, want False %s", got, c.want)
			}
			if p.AsWanted() {
				t.Error("it counts as wanted")
			}
			if contacts := n.remote.count(); (contacts > 0) != c.contacts {
				t.Errorf("the registry was contacted %d times", contacts)
			}
			if state, _ := n.alpha.State(); len(state) > 0 {
				t.Errorf("the host has %v", state)
			}
			n.wantEmptyStore()
		})
	}
}

func (n *node) wantEmptyStore() {
	n.t.Helper()
	err := filepath.WalkDir(filepath.Join(n.root, "store"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n.t.Errorf("the store has %s", path)
		}
		return err
	})
	if err != nil {
		n.t.Error(err)
	}
}

func TestLastGoodStaysUntilTheNextIsInstalled(t *testing.T) {
	n := newNode(t)
	good := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	n.manifest("m", "nginx", good, "")
	n.once()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=two"}), "")
	p := find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.False, reason.SignatureMissing)
	if p.InstalledDigest != good {
		t.Errorf("installed is %s, want %s", p.InstalledDigest, good)
	}
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")

	next := n.remote.push(t, n.kinds, []string{"a.alpha=three"}, theKey())
	n.manifest("m", "nginx", next, "")
	n.alpha.FailFor(owner("nginx"), reason.New(reason.NoSpace, "disk", "full"))
	p = find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.False, reason.NoSpace)
	wantCondition(t, p, status.Degraded, status.True, reason.NoSpace)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.alpha.FailFor(owner("nginx"), nil)
	wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "nginx", "a.alpha=three")

	// Back to what was there before needs no registry.
	n.manifest("m", "nginx", good, "")
	n.remote.setDown(errDown)
	wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
}

func TestRemovalWaits(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one", "b.beta=two"}, theKey()), "")
	n.once()
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	p := find(t, n.once(), "nginx", "")
	if want := n.now.Add(time.Hour); !p.RemoveAt.Equal(want) {
		t.Errorf("it is removed at %v, want %v", p.RemoveAt, want)
	}
	n.now = n.now.Add(59 * time.Minute)
	n.alpha.Damage(owner("nginx")) // what waits is kept in repair
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.now = n.now.Add(time.Minute)
	if r := n.once(); len(r.Profiles) > 0 {
		t.Errorf("it is still reported: %+v", r.Profiles)
	}
	n.wantFiles(n.alpha, "nginx", "")
	n.wantFiles(n.beta, "nginx", "")
	n.once()
	n.wantEmptyStore()
}

func TestWantedAgainIsNotRemoved(t *testing.T) {
	n := newNode(t)
	d := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	n.manifest("m", "nginx", d, "")
	n.once()
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	n.once()
	n.now = n.now.Add(50 * time.Minute)
	n.manifest("m", "nginx", d, "")
	n.once()
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	n.now = n.now.Add(50 * time.Minute)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
}

func TestDroppedFilesAndKindsWait(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=1", "old.alpha=2", "b.beta=3"}, theKey()), "")
	n.once()
	next := n.remote.push(t, n.kinds, []string{"a.alpha=new"}, theKey())
	n.manifest("m", "nginx", next, "")
	p := find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "nginx", "a.alpha=new old.alpha=2")
	n.wantFiles(n.beta, "nginx", "b.beta=3")

	// It survives a restart on a machine that lost everything, and a lost journal.
	n.alpha.Forget(owner("nginx"))
	n.remote.setDown(errDown)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=new old.alpha=2")
	n.write(filepath.Join(n.root, "journal.json"), "{")
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=new old.alpha=2")
	n.wantFiles(n.beta, "nginx", "b.beta=3")
	if _, err := os.Stat(filepath.Join(n.root, "journal.damaged.json")); err != nil {
		t.Error(err)
	}

	n.now = n.now.Add(time.Hour)
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=new")
	n.wantFiles(n.beta, "nginx", "")
}

func TestUnreadableManifestsRemoveNothing(t *testing.T) {
	for name, spoil := range map[string]func(n *node){
		"the only manifest is no YAML": func(n *node) { n.write(filepath.Join(n.manifests, "m.yaml"), "{") },
		"another cannot be read": func(n *node) {
			n.remove(filepath.Join(n.manifests, "m.yaml"))
			if err := os.Symlink("/nonexistent", filepath.Join(n.manifests, "x.yaml")); err != nil {
				t.Fatal(err)
			}
		},
		"the folder is gone": func(n *node) {
			if err := os.RemoveAll(n.manifests); err != nil {
				t.Fatal(err)
			}
		},
		"it is invalid and says whose": func(n *node) {
			n.write(filepath.Join(n.manifests, "m.yaml"), "apiVersion: confine.dev/v1alpha1\nkind: SecurityProfile\nmetadata: {namespace: web, name: nginx}\nspec: {artefact: x}\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
			n.once()
			spoil(n)
			for range 3 {
				r := n.once()
				if len(r.Problems) == 0 {
					t.Error("the report names no problem")
				}
				n.now = n.now.Add(24 * time.Hour)
			}
			n.wantFiles(n.alpha, "nginx", "a.alpha=one")
		})
	}
}

func TestTrustChangesJudgeAgainOffline(t *testing.T) {
	for name, c := range map[string]struct {
		change             func(n *node, d digest.Digest)
		verified, degraded status.State
		why                reason.Reason
	}{
		"policy removed": {
			change:   func(n *node, _ digest.Digest) { n.remove(filepath.Join(n.trust, "web.yaml")) },
			verified: status.False, degraded: status.False, why: reason.NoTrustPolicy,
		},
		"policy unreadable": {
			change:   func(n *node, _ digest.Digest) { n.write(filepath.Join(n.trust, "x.yaml"), "{") },
			verified: status.Unknown, degraded: status.False, why: reason.TrustPolicyInvalid,
		},
		"revoked": {
			change:   func(n *node, d digest.Digest) { n.policy("web", "  revoked: {digests: [\""+d.String()+"\"]}") },
			verified: status.False, degraded: status.True, why: reason.Revoked,
		},
		"key revoked": {
			change: func(n *node, _ digest.Digest) {
				n.policy("web", "  revoked: {keys: [\""+theKey().ID()+"\"]}")
			},
			verified: status.False, degraded: status.True, why: reason.Revoked,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			d := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
			n.manifest("m", "nginx", d, "")
			n.once()
			n.remote.setDown(errDown)
			c.change(n, d)
			n.now = n.now.Add(24 * time.Hour)
			p := find(t, n.once(), "nginx", "")
			if got := p.Condition(status.Verified); got.Status != c.verified || got.Reason != c.why {
				t.Errorf("Verified is %+v, want %s %s", got, c.verified, c.why)
			}
			if got := p.Condition(status.Degraded); got.Status != c.degraded {
				t.Errorf("Degraded is %+v, want %s", got, c.degraded)
			}
			if p.AsWanted() {
				t.Error("it counts as wanted")
			}
			n.wantFiles(n.alpha, "nginx", "a.alpha=one")
		})
	}
}

func TestTwoClaimsOfOneName(t *testing.T) {
	n := newNode(t)
	first := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	second := n.remote.push(t, n.kinds, []string{"a.alpha=two"}, theKey())
	n.manifest("m", "nginx", first, "")
	n.once()
	n.manifest("a", "nginx", second, "") // sorts before, but came later
	n.manifest("z", "nginx", first, "")
	r := n.once()
	loser := find(t, r, "nginx", "a.yaml")
	wantCondition(t, loser, status.Ready, status.False, reason.NameConflict)
	if message := loser.Condition(status.Ready).Message; !strings.Contains(message, "m.yaml") {
		t.Errorf("the message does not name the owner: %s", message)
	}
	for _, origin := range []string{"m.yaml", "z.yaml"} {
		wantCondition(t, find(t, r, "nginx", origin), status.Ready, status.True, status.Installed)
	}
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")

	// One of those that share goes: nothing happens. Both go: the other gets it.
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.remove(filepath.Join(n.manifests, "z.yaml"))
	n.once()
	n.wantFiles(n.alpha, "nginx", "a.alpha=two")
}

func TestKindsTheNodeDoesNotSupport(t *testing.T) {
	for name, c := range map[string]struct {
		files     []string
		extra     string
		ready     status.State
		why       reason.Reason
		installed string
	}{
		"supported are installed": {[]string{"a.alpha=1", "b.beta=2"}, "", status.True, status.Installed, "a.alpha=1"},
		"all are required":        {[]string{"a.alpha=1", "b.beta=2"}, "  kinds: Required", status.False, reason.KindUnsupported, ""},
		"nothing is left":         {[]string{"b.beta=2"}, "", status.False, reason.KindUnsupported, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.beta.SetUnsupported(true)
			n.manifest("m", "nginx", n.remote.push(t, n.kinds, c.files, theKey()), c.extra)
			r := n.once()
			p := find(t, r, "nginx", "")
			wantCondition(t, p, status.Ready, c.ready, c.why)
			wantCondition(t, p, status.Verified, status.True, status.Signed)
			n.wantFiles(n.alpha, "nginx", c.installed)
			n.wantFiles(n.beta, "nginx", "")
			why := map[string]reason.Reason{}
			for _, k := range p.Kinds {
				why[k.Name] = k.Reason
			}
			if _, has := why["beta"]; has && why["beta"] != reason.KindUnsupported {
				t.Errorf("kinds: %+v", p.Kinds)
			}
		})
	}
}

// TestAnArtifactIsJudgedAsAWhole: what a node can't install it judges all the
// same, and installs nothing of an artifact with one bad payload.
func TestAnArtifactIsJudgedAsAWhole(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		why   reason.Reason
	}{
		"an invalid one of a kind without host":      {[]string{"a.alpha=1", "b.beta=bad"}, reason.ProfileInvalid},
		"another tenant's, of a kind without host":   {[]string{"a.alpha=1", "b.beta=shop"}, reason.ProfileForbidden},
		"another tenant's, of a kind that has one":   {[]string{"a.alpha=shop"}, reason.ProfileForbidden},
		"one good and one bad of a kind with a host": {[]string{"a.alpha=1", "b.alpha=shop"}, reason.ProfileForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.beta.SetUnsupported(true)
			n.manifest("m", "nginx", n.remote.push(t, n.kinds, c.files, theKey()), "")
			for range 2 {
				p := find(t, n.once(), "nginx", "")
				wantCondition(t, p, status.Ready, status.False, c.why)
				n.wantFiles(n.alpha, "nginx", "")
				n.wantFiles(n.beta, "nginx", "")
			}
		})
	}
}

func TestUnreadableHostKeepsEverything(t *testing.T) {
	n := newNode(t)
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	n.once()
	n.alpha.FailInstalled(reason.New(reason.InstallFailed, "alpha", "cannot be read"))
	for range 2 {
		n.once()
	}
	// With the journal lost too, nothing is known: an update waits.
	n.remove(filepath.Join(n.root, "journal.json"))
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"b.alpha=two"}, theKey()), "")
	wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.Unknown, status.Pending)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	n.alpha.FailInstalled(nil)
	wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one b.alpha=two")
}
