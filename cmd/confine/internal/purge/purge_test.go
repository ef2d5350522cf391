package purge

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
)

// site is a node on which Confine installed two profiles, beside what belongs to
// others.
type site struct {
	t              *testing.T
	dir            string
	root, kubelet  string
	victim         string // outside of everything, with a file in it
	options        Options
	agent          *agent.Agent
	confine, first string
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, root: filepath.Join(dir, "state"), kubelet: filepath.Join(dir, "kubelet", "seccomp"), victim: filepath.Join(dir, "victim")}
	s.confine = filepath.Join(s.kubelet, "confine")
	s.options = Options{Root: s.root, SeccompRoots: []string{s.kubelet}}
	s.write(filepath.Join(s.victim, "precious"))
	s.write(filepath.Join(s.kubelet, "somebody-elses.json"))
	s.write(filepath.Join(dir, "manifests", ".keep"))
	s.write(filepath.Join(dir, "trust", ".keep"))
	h, err := host.New(host.Options{Root: s.kubelet})
	s.must(err)
	var units []profile.Unit
	for _, name := range []string{"nginx", "worker"} {
		units = append(units, profile.Unit{
			Owner: profile.Owner{Namespace: "web", Name: name}, Digest: digest.FromString(name),
			Files: []profile.File{{Name: name + ".json", Data: []byte("{}")}},
		})
	}
	for _, outcome := range h.Install(t.Context(), units) {
		s.must(outcome.Err)
	}
	s.first = "sha256-" + digest.FromString("nginx").Encoded()
	s.start()
	return s
}

// start starts the agent, which takes the lock, and has it write its state.
func (s *site) start() {
	s.t.Helper()
	h, err := host.New(host.Options{Root: s.kubelet})
	s.must(err)
	s.agent, err = agent.New(agent.Options{
		Root: s.root, Hosts: []profile.Host{h},
		Source: agent.Folders{Manifests: filepath.Join(s.dir, "manifests"), TrustDir: filepath.Join(s.dir, "trust")},
	})
	s.must(err)
	_, err = s.agent.Once(s.t.Context())
	s.must(err)
}

func (s *site) stop() {
	s.t.Helper()
	s.must(s.agent.Close())
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) write(name string) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(name), 0o755))
	s.must(os.WriteFile(name, []byte("x"), 0o600))
}

// tree lists everything below the site, links with their targets.
func (s *site) tree() []string {
	s.t.Helper()
	var found []string
	s.must(filepath.WalkDir(s.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, name)
		if e.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			rel += " -> " + target
		}
		found = append(found, rel)
		return err
	}))
	return found
}

func others() []string {
	return []string{
		".", "kubelet", "kubelet/seccomp", "kubelet/seccomp/somebody-elses.json",
		"manifests", "manifests/.keep", "trust", "trust/.keep", "victim", "victim/precious",
	}
}

func TestPurgeRemovesWhatConfineInstalled(t *testing.T) {
	s := newSite(t)
	s.write(filepath.Join(s.root, "cluster", "known.json")) // as an agent in a cluster keeps it
	s.write(filepath.Join(s.confine, ".durable-tmp-1", "x"))
	s.write(filepath.Join(s.root, ".durable-tmp-2"))
	s.stop()
	before := s.tree()
	if !strings.Contains(strings.Join(before, "\n"), "state/journal.json") || !strings.Contains(strings.Join(before, "\n"), "state/status.json") {
		t.Fatalf("the agent kept no state:\n%s", strings.Join(before, "\n"))
	}
	listed, err := Survey(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(before, s.tree()); diff != "" {
		t.Errorf("a survey changed something:\n%s", diff)
	}
	if listed.NoState || listed.Profiles != 2 || len(listed.Keep) != 0 {
		t.Errorf("%d profiles, kept %v", listed.Profiles, listed.Keep)
	}
	done, err := Run(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(listed.Remove, done.Remove); diff != "" {
		t.Errorf("other things were removed than listed:\n%s", diff)
	}
	if diff := cmp.Diff(others(), s.tree()); diff != "" {
		t.Error(diff)
	}
	again, err := Run(t.Context(), s.options)
	s.must(err)
	if len(again.Remove) != 0 {
		t.Errorf("a second time it removed %v", again.Remove)
	}
}

func TestPurgeOfAStandaloneRoot(t *testing.T) {
	s := newSite(t)
	h, err := host.New(host.Options{Root: filepath.Join(s.root, "seccomp")})
	s.must(err)
	for _, o := range h.Install(t.Context(), []profile.Unit{{
		Owner: profile.Owner{Namespace: "web", Name: "own"}, Digest: digest.FromString("own"), Files: []profile.File{{Name: "own.json", Data: []byte("{}")}},
	}}) {
		s.must(o.Err)
	}
	s.stop()
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	if plan.Profiles != 3 || len(plan.Keep) != 0 {
		t.Errorf("%d profiles, kept %v", plan.Profiles, plan.Keep)
	}
	if diff := cmp.Diff(others(), s.tree()); diff != "" {
		t.Error(diff)
	}
}

func TestPurgeRefusesWhileAnAgentRuns(t *testing.T) {
	s := newSite(t)
	before := s.tree()
	for name, work := range map[string]func(context.Context, Options) (*Plan, error){"survey": Survey, "run": Run} {
		var busy *BusyError
		if _, err := work(t.Context(), s.options); !errors.As(err, &busy) || busy.WhatToDo() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, s.tree()); diff != "" {
		t.Errorf("something was removed under a running agent:\n%s", diff)
	}
	s.stop()
	_, err := Run(t.Context(), s.options)
	s.must(err)
}

func TestPurgeKeepsWhatIsNotItsOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(s *site)
		kept    string // below the site
		left    []string
	}{
		"a file in confine": {func(s *site) { s.write(filepath.Join(s.confine, "notes.json")) }, "kubelet/seccomp/confine/notes.json",
			[]string{"kubelet/seccomp/confine", "kubelet/seccomp/confine/notes.json"}},
		"a file in a namespace": {func(s *site) { s.write(filepath.Join(s.confine, "web", "mine.json")) }, "kubelet/seccomp/confine/web/mine.json",
			[]string{"kubelet/seccomp/confine", "kubelet/seccomp/confine/web", "kubelet/seccomp/confine/web/mine.json"}},
		"a folder among the artifacts": {func(s *site) { s.write(filepath.Join(s.confine, ".artifacts", "mine", "x")) }, "kubelet/seccomp/confine/.artifacts/mine",
			[]string{"kubelet/seccomp/confine", "kubelet/seccomp/confine/.artifacts", "kubelet/seccomp/confine/.artifacts/mine", "kubelet/seccomp/confine/.artifacts/mine/x"}},
		"a link to elsewhere for a profile": {func(s *site) { s.link(s.victim, filepath.Join(s.confine, "web", "evil")) }, "kubelet/seccomp/confine/web/evil",
			[]string{"kubelet/seccomp/confine", "kubelet/seccomp/confine/web", "kubelet/seccomp/confine/web/evil -> VICTIM"}},
		"a link to elsewhere for a namespace": {func(s *site) { s.link(s.victim, filepath.Join(s.confine, "evil")) }, "kubelet/seccomp/confine/evil",
			[]string{"kubelet/seccomp/confine", "kubelet/seccomp/confine/evil -> VICTIM"}},
		"a file in the state folder": {func(s *site) { s.write(filepath.Join(s.root, "mine.txt")) }, "state/mine.txt",
			[]string{"state", "state/mine.txt"}},
		"a link among the state": {func(s *site) { s.link(s.victim, filepath.Join(s.root, "cluster")) }, "state/cluster",
			[]string{"state", "state/cluster -> VICTIM"}},
		"a link for the status": {func(s *site) {
			s.must(os.Remove(filepath.Join(s.root, "status.json")))
			s.link(filepath.Join(s.victim, "precious"), filepath.Join(s.root, "status.json"))
		}, "state/status.json", []string{"state", "state/status.json -> VICTIM/precious"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.stop()
			tc.prepare(s)
			plan, err := Run(t.Context(), s.options)
			s.must(err)
			if len(plan.Keep) != 1 || plan.Keep[0].Path != filepath.Join(s.dir, tc.kept) || plan.Keep[0].What == "" {
				t.Errorf("kept %v, want %s", plan.Keep, tc.kept)
			}
			want := map[string]bool{}
			for _, name := range append(others(), tc.left...) {
				want[strings.ReplaceAll(name, "VICTIM", s.victim)] = true
			}
			got := map[string]bool{}
			for _, name := range s.tree() {
				got[name] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func (s *site) link(target, name string) {
	s.t.Helper()
	s.must(os.Symlink(target, name))
}

func TestPurgeFollowsNoLink(t *testing.T) {
	s := newSite(t)
	s.stop()
	// Links below what is removed whole: they go, what they lead to stays.
	s.link(s.victim, filepath.Join(s.confine, ".artifacts", s.first, "out"))
	s.link(s.victim, filepath.Join(s.root, "store", "out"))
	_, err := Run(t.Context(), s.options)
	s.must(err)
	if diff := cmp.Diff(others(), s.tree()); diff != "" {
		t.Error(diff)
	}
}

func TestPurgeThroughALinkedConfineFolder(t *testing.T) {
	s := newSite(t)
	s.stop()
	moved := filepath.Join(s.victim, "confine")
	s.must(os.Rename(s.confine, moved))
	s.link(moved, s.confine)
	plan, err := Run(t.Context(), s.options)
	s.must(err)
	if len(plan.Keep) != 1 || plan.Keep[0].Path != s.confine || plan.Profiles != 0 {
		t.Errorf("kept %v, %d profiles", plan.Keep, plan.Profiles)
	}
	if _, err := os.Stat(filepath.Join(moved, ".artifacts", s.first)); err != nil {
		t.Errorf("what the link leads to is gone: %v", err)
	}
}

// TestFoldersThatBecomeLinks swaps a folder for a link between the survey and
// the removal.
func TestFoldersThatBecomeLinks(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.must(os.MkdirAll(filepath.Join(s.victim, s.first), 0o755))
	s.write(filepath.Join(s.victim, s.first, "nginx.json"))
	plan := &Plan{}
	s.must(plan.seccomp(s.kubelet))
	s.must(os.RemoveAll(filepath.Join(s.confine, ".artifacts")))
	s.link(s.victim, filepath.Join(s.confine, ".artifacts"))
	if err := plan.trees[0].remove(plan); !errors.Is(err, errNoFolder) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.victim, s.first, "nginx.json")); err != nil {
		t.Errorf("what the link leads to is gone: %v", err)
	}
}

func TestALockThatNoAgentMade(t *testing.T) {
	s := newSite(t)
	s.stop()
	lock := filepath.Join(s.root, lockName)
	s.must(os.Remove(lock))
	s.link(filepath.Join(s.victim, "precious"), lock)
	before := s.tree()
	if _, err := Run(t.Context(), s.options); err == nil {
		t.Error("it was taken for an agent's lock")
	}
	if diff := cmp.Diff(before, s.tree()); diff != "" {
		t.Error(diff)
	}
}

func TestNothingInstalled(t *testing.T) {
	dir := t.TempDir()
	o := Options{Root: filepath.Join(dir, "state"), SeccompRoots: []string{filepath.Join(dir, "seccomp")}}
	for name, work := range map[string]func(context.Context, Options) (*Plan, error){"survey": Survey, "run": Run} {
		plan, err := work(t.Context(), o)
		if err != nil || len(plan.Remove)+len(plan.Keep) != 0 || !plan.NoState {
			t.Errorf("%s: %v, %v", name, plan, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("something was made: %v, %v", entries, err)
	}
}
