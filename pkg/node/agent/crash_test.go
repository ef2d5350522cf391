package agent_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/pkg/reason"
)

var errCrash = errors.New("killed here")

// crash fails at the n-th change, and at every one after it: a killed process
// changes nothing more.
type crash struct {
	mu       sync.Mutex // pulls put things into the store beside the loop
	at, seen int
}

func (c *crash) before() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen++
	if c.seen >= c.at {
		return errCrash
	}
	return nil
}

const seccompText = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","exit_group"%s],"action":"SCMP_ACT_ALLOW"}]}`

// seccompNode is a node with the real seccomp kind and host.
func seccompNode(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.kinds = kinds.All(nil)
	n.openHost(nil)
	return n
}

func (n *node) openHost(before func() error) {
	n.t.Helper()
	opts := host.Options{Root: filepath.Join(n.dir, "kubelet")}
	if before != nil {
		opts.Before = func(durable.Step) error { return before() }
	}
	h, err := host.New(opts)
	if err != nil {
		n.t.Fatal(err)
	}
	n.hosts = []profile.Host{h}
}

// installed returns the content of one installed file, or "" where it is not there.
func (n *node) installed(name, file string) string {
	data, err := os.ReadFile(filepath.Join(n.dir, "kubelet", "confine", "web", name, file))
	if err != nil {
		return ""
	}
	return string(data)
}

// TestKilledBeforeEveryChange kills the agent before each change to the store,
// the journal, the status and the host while it updates one profile, drops a
// file of it, installs a second one and removes a third; and starts it again
// without a registry or with one.
func TestKilledBeforeEveryChange(t *testing.T) {
	oldText, newText := fmt.Sprintf(seccompText, ""), fmt.Sprintf(seccompText, `,"close"`)
	n := seccompNode(t)
	old := n.remote.push(t, n.kinds, []string{"a.json=" + oldText, "dropped.json=" + oldText}, theKey())
	next := n.remote.push(t, n.kinds, []string{"a.json=" + newText}, theKey())
	n.manifest("m", "nginx", old, "")
	n.manifest("gone", "gone", old, "")
	n.once()
	n.remove(filepath.Join(n.manifests, "gone.yaml"))
	n.once() // it waits for its removal now
	n.now = n.now.Add(2 * time.Hour)
	n.manifest("m", "nginx", next, "")
	n.manifest("second", "second", next, "")
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
		if got := n.installed("nginx", "a.json"); got != oldText && got != newText {
			t.Fatalf("killed at %d: nginx is neither old nor new: %q", at, got)
		}
		if got := n.installed("nginx", "dropped.json"); got != oldText {
			t.Fatalf("killed at %d: the dropped file is gone at once: %q", at, got)
		}
		n.once()
		for _, name := range []string{"nginx", "second"} {
			if got := n.installed(name, "a.json"); got != newText {
				t.Fatalf("killed at %d: %s did not converge: %q", at, name, got)
			}
		}
		if got := n.installed("nginx", "dropped.json"); got != oldText {
			t.Fatalf("killed at %d: the dropped file does not wait: %q", at, got)
		}
		if got := n.installed("second", "dropped.json"); got != "" {
			t.Fatalf("killed at %d: second has a file that is not its own", at)
		}
		if got := n.installed("gone", "a.json"); got != "" {
			t.Fatalf("killed at %d: what is due was not removed", at)
		}
		n.wantNoLeftovers(at)
	}
}

// killed runs one agent until the crash. Its errors are the crash's.
func killed(n *node) {
	a, err := agent.New(n.options())
	if err != nil {
		return
	}
	_, _ = a.Once(n.t.Context())
	_ = a.Close()
}

// moveTo makes dir a copy of the machine from and works there.
func (n *node) moveTo(dir, from string) {
	n.t.Helper()
	if out, err := exec.CommandContext(n.t.Context(), "cp", "-a", from, dir).CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	n.dir, n.manifests, n.trust, n.root = dir, filepath.Join(dir, "manifests"), filepath.Join(dir, "trust"), filepath.Join(dir, "root")
}

func (n *node) wantNoLeftovers(at int) {
	n.t.Helper()
	err := filepath.WalkDir(n.dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), "durable-tmp") {
			n.t.Errorf("killed at %d: %s was left", at, path)
		}
		return err
	})
	if err != nil {
		n.t.Error(err)
	}
}

// The child of TestKill9 is this test binary with these variables.
const (
	childDir  = "CONFINE_TEST_CHILD_DIR"
	childStep = "CONFINE_TEST_CHILD_STEP"
)

// TestKill9 ends a real process with SIGKILL in the middle of its changes.
func TestKill9(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		killedChild(t, dir)
		return
	}
	text := fmt.Sprintf(seccompText, "")
	for step := 1; ; step += 3 {
		n := seccompNode(t)
		n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.json=" + text}, theKey()), "")
		n.once()
		d := n.remote.push(t, n.kinds, []string{"a.json=" + fmt.Sprintf(seccompText, `,"close"`)}, theKey())
		n.manifest("m", "nginx", d, "")
		n.fillStoreOf("spare", d)

		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestKill9$")
		cmd.Env = append(os.Environ(), childDir+"="+n.dir, childStep+"="+strconv.Itoa(step))
		out, err := cmd.CombinedOutput()
		if err == nil && step > 20 {
			return // it made fewer changes, and ended by itself
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: the child was not killed: %v\n%s", step, err, out)
		}
		if n.installed("nginx", "a.json") == "" {
			t.Fatalf("step %d: nothing is in force", step)
		}
		n.openHost(nil)
		wantCondition(t, find(t, n.once(), "nginx", ""), status.Ready, status.True, status.Installed)
		n.wantNoLeftovers(step)
	}
}

// fillStoreOf lets the node's store get d, through another name, so that a
// child without a registry can install it.
func (n *node) fillStoreOf(name string, d digest.Digest) {
	n.t.Helper()
	n.manifest(name, name, d, "")
	n.manifest("m2", "other", d, "")
	old, err := os.ReadFile(filepath.Join(n.manifests, "m.yaml"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.remove(filepath.Join(n.manifests, "m.yaml"))
	n.once()
	n.write(filepath.Join(n.manifests, "m.yaml"), string(old))
	n.remove(filepath.Join(n.manifests, "m2.yaml"))
}

func killedChild(t *testing.T, dir string) {
	t.Helper()
	step, err := strconv.Atoi(os.Getenv(childStep))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, manifests: filepath.Join(dir, "manifests"), trust: filepath.Join(dir, "trust"), root: filepath.Join(dir, "root"), kinds: kinds.All(nil), remote: newRemote()}
	n.remote.down = errDown
	c := &crash{at: step}
	die := func() error {
		if c.before() != nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	n.opts.Before = func(durable.Step) error { return die() }
	n.openHost(die)
	n.once()
}

// mount mounts a small file system, or skips where the kernel does not let us.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("needs mount(2) of a tmpfs, which this kernel or user does not have: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestFullDisk(t *testing.T) {
	n := newNode(t)
	mount(t, n.root, "size=256k,mode=755")
	good := n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey())
	n.manifest("m", "nginx", good, "")
	n.once()
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=" + strings.Repeat("x", 400<<10)}, theKey()), "")
	p := find(t, n.once(), "nginx", "")
	wantCondition(t, p, status.Ready, status.False, reason.NoSpace)
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")

	// Not even room for a journal: what is installed is still kept in repair.
	filler := filepath.Join(n.root, "filler")
	_ = os.WriteFile(filler, make([]byte, 256<<10), 0o600)
	n.alpha.Damage(owner("nginx"))
	n.manifest("m", "nginx", good, "")
	n.manifest("m2", "other", good, "")
	a, err := agent.New(n.options())
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Once(t.Context())
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	n.wantFiles(n.alpha, "nginx", "a.alpha=one")
	wantCondition(t, find(t, report, "other", ""), status.Ready, status.False, reason.NoSpace)
	n.wantFiles(n.alpha, "other", "")

	n.remove(filler)
	wantCondition(t, find(t, n.once(), "other", ""), status.Ready, status.True, status.Installed)
	n.wantFiles(n.alpha, "other", "a.alpha=one")
}

func TestReadOnlyRoot(t *testing.T) {
	n := newNode(t)
	mount(t, n.root, "size=256k,mode=755")
	n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
	if err := unix.Mount("", n.root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := agent.New(n.options())
	e, ok := reason.Of(err)
	if !ok || e.Reason != reason.InstallFailed || !strings.Contains(e.WhatToDo(), "read-write") {
		t.Errorf("New = %v, want advice on the read-only root", err)
	}
	if n.remote.count() > 0 {
		t.Error("the registry was contacted")
	}
}

func TestOneAgentAlone(t *testing.T) {
	n := newNode(t)
	first, err := agent.New(n.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(n.options()); !errors.Is(err, reason.InstallFailed) {
		t.Errorf("a second agent: %v, want InstallFailed", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	n.once()
}

func TestDamagedStateIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, root string){
		"journal of zeros": func(t *testing.T, root string) {
			t.Helper()
			overwrite(t, filepath.Join(root, "journal.json"), make([]byte, 100))
		},
		"journal is gone":    func(t *testing.T, root string) { t.Helper(); mustRemove(t, filepath.Join(root, "journal.json")) },
		"store is gone":      func(t *testing.T, root string) { t.Helper(); mustRemove(t, filepath.Join(root, "store")) },
		"blobs are damaged":  func(t *testing.T, root string) { t.Helper(); spoilAll(t, filepath.Join(root, "store", "blobs")) },
		"records are spoilt": func(t *testing.T, root string) { t.Helper(); spoilAll(t, filepath.Join(root, "store", "evidence")) },
		"status is spoilt": func(t *testing.T, root string) {
			t.Helper()
			overwrite(t, filepath.Join(root, "status.json"), []byte("{"))
		},
		"everything is gone": func(t *testing.T, root string) { t.Helper(); mustRemove(t, root) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.manifest("m", "nginx", n.remote.push(t, n.kinds, []string{"a.alpha=one"}, theKey()), "")
			n.once()
			spoil(t, n.root)
			n.remote.setDown(errDown)
			n.once() // nothing is lost without a registry
			n.wantFiles(n.alpha, "nginx", "a.alpha=one")
			n.remote.setDown(nil)
			n.alpha.Forget(owner("nginx"))
			p := find(t, n.once(), "nginx", "")
			wantCondition(t, p, status.Verified, status.True, status.Signed)
			wantCondition(t, p, status.Ready, status.True, status.Installed)
			n.wantFiles(n.alpha, "nginx", "a.alpha=one")
		})
	}
}

func overwrite(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

func spoilAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
