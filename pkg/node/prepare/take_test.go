package prepare_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/node/prepare"
	"github.com/confine-dev/confine/pkg/reason"
)

func (m machine) folders() []prepare.Folder {
	return []prepare.Folder{{Below: m.kubelet, Path: "seccomp/confine"}, {Below: m.path("lib"), Path: "confine", Private: []string{"private"}}}
}

func (m machine) give() { m.t.Helper(); m.must(prepare.Prepare(agentUser, agentUser, m.folders()...)) }

func (m machine) take() error { return prepare.Take(agentUser, m.folders()...) }

// used is a machine on which an agent of the ordinary user worked.
func used(t *testing.T) machine {
	t.Helper()
	m := newMachine(t)
	m.give()
	for _, name := range []string{"kubelet/seccomp/confine/.artifacts/sha256-0", "kubelet/seccomp/confine/web", "lib/confine/store/blobs"} {
		m.mkdir(name, agentUser)
		m.must(os.Chown(m.path(filepath.Dir(name)), agentUser, agentUser))
	}
	m.must(os.Chmod(m.path("lib/confine/store"), 0o700))
	m.write("kubelet/seccomp/confine/.artifacts/sha256-0/a.json", agentUser)
	m.must(os.Symlink("../.artifacts/sha256-0", m.path("kubelet/seccomp/confine/web/nginx")))
	m.must(os.Lchown(m.path("kubelet/seccomp/confine/web/nginx"), agentUser, agentUser))
	m.write("lib/confine/journal.json", agentUser)
	m.write("lib/confine/store/blobs/x", agentUser)
	return m
}

// mine are the owners below the agent's two folders.
func (m machine) mine() map[string]int {
	m.t.Helper()
	found := map[string]int{}
	for name, owner := range m.list() {
		if strings.HasPrefix(name, "lib/confine") || strings.HasPrefix(name, "kubelet/seccomp/confine") {
			found[name] = owner
		}
	}
	return found
}

func allOf(owner int, names map[string]int) map[string]int {
	all := map[string]int{}
	for name := range names {
		all[name] = owner
	}
	return all
}

// TestTheAgentsUserChangesThereAndBack gives, takes and gives again, each twice.
func TestTheAgentsUserChangesThereAndBack(t *testing.T) {
	m := used(t)
	before := m.mine()
	if diff := cmp.Diff(allOf(agentUser, before), before); diff != "" {
		t.Fatal(diff)
	}
	for range 2 {
		for range 2 {
			m.must(m.take())
			if diff := cmp.Diff(allOf(0, before), m.mine()); diff != "" {
				t.Errorf("taken: %s", diff)
			}
		}
		for range 2 {
			m.give()
			if diff := cmp.Diff(allOf(agentUser, before), m.mine()); diff != "" {
				t.Errorf("given: %s", diff)
			}
		}
	}
	m.wantOwners(map[string]int{"kubelet": 0, "kubelet/seccomp": 0, "lib": 0})
}

func TestTakeMakesWhatIsMissing(t *testing.T) {
	m := newMachine(t)
	m.must(m.take())
	m.wantOwners(map[string]int{"kubelet/seccomp/confine": 0, "lib/confine": 0})
}

// TestWhatIsPrivateStays is about what an agent that is root believes: it is not
// given away, and what the ordinary user made under its name does not become
// root's.
func TestWhatIsPrivateStays(t *testing.T) {
	m := used(t)
	m.must(m.take())
	m.mkdir("lib/confine/private", 0)
	m.write("lib/confine/private/record", 0)
	m.mkdir("lib/confine/store/private", 0) // only a name
	m.give()
	m.wantOwners(map[string]int{"lib/confine": agentUser, "lib/confine/private": 0, "lib/confine/private/record": 0, "lib/confine/store/private": agentUser})
	m.must(os.Rename(m.path("lib/confine/private"), m.path("lib/confine/other"))) // as the owner of lib/confine may
	m.mkdir("lib/confine/private", agentUser)
	m.write("lib/confine/private/record", agentUser)
	m.must(m.take())
	m.wantOwners(map[string]int{"lib/confine": 0, "lib/confine/private": agentUser, "lib/confine/private/record": agentUser, "lib/confine/store/private": 0})
}

// TestTakeTakesOnlyTheAgents finds what the ordinary user could have put there
// to make root's what should not be.
func TestTakeTakesOnlyTheAgents(t *testing.T) {
	m := used(t)
	m.write("elsewhere", agentUser)
	m.must(os.Link(m.path("elsewhere"), m.path("lib/confine/hard")))
	m.must(os.Symlink(m.path("elsewhere"), m.path("lib/confine/link")))
	m.must(os.Lchown(m.path("lib/confine/link"), agentUser, agentUser))
	m.must(os.Symlink(m.dir, m.path("lib/confine/store/up")))
	m.mkdir("lib/confine/foreign", another)
	m.write("lib/confine/foreign/inside", agentUser)
	m.write("lib/confine/theirs", another)
	m.write("lib/confine/suid", agentUser)
	m.must(os.Chmod(m.path("lib/confine/suid"), 0o777|fs.ModeSetuid|fs.ModeSetgid))
	m.must(os.Chmod(m.path("lib/confine/store/blobs"), 0o777))
	m.must(syscall.Mkfifo(m.path("lib/confine/fifo"), 0o600))
	m.must(os.Chown(m.path("lib/confine/fifo"), agentUser, agentUser))
	m.must(m.take())
	m.wantOwners(map[string]int{
		"elsewhere": agentUser, "lib/confine/hard": agentUser, "lib/confine/link": 0, "lib/confine/foreign": another,
		"lib/confine/foreign/inside": agentUser, "lib/confine/theirs": another, "lib/confine/suid": 0, "lib/confine/store/blobs/x": 0,
		"lib/confine/fifo": agentUser, ".": 0,
	})
	for name, want := range map[string]fs.FileMode{"lib/confine/suid": 0o755, "lib/confine/store/blobs": 0o755 | fs.ModeDir, "lib/confine/store": 0o700 | fs.ModeDir} {
		if info, err := os.Lstat(m.path(name)); err != nil || info.Mode() != want {
			t.Errorf("%s has the mode %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
}

func TestTakeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m machine)
		says  string
	}{
		"a link at the state":    {func(m machine) { m.must(os.Symlink("../kubelet", m.path("lib/confine"))) }, "no folder"},
		"somebody else's state":  {func(m machine) { m.mkdir("lib/confine", another) }, "64218"},
		"a link at seccomp":      {func(m machine) { m.must(os.Symlink("../lib", m.path("kubelet/seccomp"))) }, "no folder"},
		"the user's own seccomp": {func(m machine) { m.mkdir("kubelet/seccomp", agentUser) }, "64217"},
		"a file":                 {func(m machine) { m.mkdir("kubelet/seccomp", 0); m.write("kubelet/seccomp/confine", agentUser) }, "no folder"},
		"no kubelet":             {func(m machine) { m.must(os.Remove(m.kubelet)) }, "mount"},
		"very deep":              {func(m machine) { m.mkdir("lib/confine/"+strings.Repeat("a/", 20), 0) }, "deep"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.spoil(m)
			err := m.take()
			if e, ok := reason.Of(err); !ok || e.Reason != reason.InstallFailed || !strings.Contains(e.Error()+e.WhatToDo(), c.says) {
				t.Errorf("got %v, want InstallFailed that says %q", err, c.says)
			}
		})
	}
	for _, from := range []int{0, -1} {
		if err := prepare.Take(from); !errors.Is(err, reason.InstallFailed) {
			t.Errorf("from %d: %v", from, err)
		}
	}
}

// takeEnv makes this test binary the init container of TestTakeNeedsOnlyChown.
const takeEnv = "CONFINE_TEST_TAKE"

// TestTakeNeedsOnlyChown lets root without any other capability give and take,
// as the init container does.
func TestTakeNeedsOnlyChown(t *testing.T) {
	if dir := os.Getenv(takeEnv); dir != "" {
		m := machine{t: t, dir: dir, kubelet: filepath.Join(dir, "kubelet")}
		m.must(m.take())
		m.give()
		m.must(m.take())
		return
	}
	m := used(t)
	before := m.mine()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv of util-linux")
	}
	cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", "-all,+chown", "--inh-caps", "-all", "--ambient-caps", "-all",
		os.Args[0], "-test.run", "^TestTakeNeedsOnlyChown$")
	cmd.Env = append(os.Environ(), takeEnv+"="+m.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(allOf(0, before), m.mine()); diff != "" {
		t.Error(diff)
	}
}
