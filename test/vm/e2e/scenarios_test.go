//go:build lsm_apparmor || lsm_selinux

package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

type scenario struct {
	name string
	play func(n *node)
}

// runScenarios runs them one after the other: there is one kernel.
func runScenarios(t *testing.T, k kernel) {
	t.Helper()
	key := newKey(t)
	for _, s := range append([]scenario{
		{"from the registry to a confined process, and back", fromRegistryToProcess},
		{"what others change comes back", driftComesBack},
		{"what nobody signed never reaches the kernel", unsignedIsRefused},
		{"all kinds or none", requiredKinds},
		{"what the agent's processes have left", privileges},
		{"node purge takes all away", purge},
	}, k.more...) {
		t.Run(s.name, func(t *testing.T) { s.play(newNode(t, k, key)) })
	}
}

func fromRegistryToProcess(n *node) {
	digest := n.want(n.push(first(), n.key), "")
	n.start()
	p := n.installed(digest)
	n.wantKinds(p)
	running := newProcess(n.t, n.kernel)
	running.reads("under the first version", underFirst())
	if got := running.label(); got != n.kernel.label {
		n.t.Errorf("the process is under %q, want %q", got, n.kernel.label)
	}

	// An update reaches the process while it runs.
	n.installed(n.want(n.push(second(), n.key), ""))
	running.reads("under the second version", underSecond())
	n.installed(n.want(n.push(first(), n.key), ""))
	running.reads("back under the first version", underFirst())

	// Nobody wants it any more, but the process is under it.
	must(n.t, os.Remove(manifests+"/web.yaml"))
	n.says("the removal waits for the process", func(p status.Profile) string {
		k := kindOf(p, n.kernel.kind)
		pid := fmt.Sprintf("process %d ", running.cmd.Process.Pid)
		if p.Origin != "" || k.Reason != reason.InstallFailed || !strings.Contains(k.Message, pid) {
			return "it says nothing of the process"
		}
		return ""
	})
	running.reads("while its removal waits", underFirst())
	running.end()
	n.gone()
}

// wantKinds expects what this kernel has to be in force, and the rest to be told.
func (n *node) wantKinds(p status.Profile) {
	n.t.Helper()
	if k := kindOf(p, n.kernel.kind); k.Reason != "" || !slices.Equal(k.References, []string{n.kernel.reference}) {
		n.t.Errorf("%s: %+v, want the reference %s", n.kernel.kind, k, n.kernel.reference)
	}
	if k := kindOf(p, "seccomp"); k.Reason != "" || !slices.Equal(k.References, []string{"confine/shop/web/web.json"}) {
		n.t.Errorf("seccomp: %+v", k)
	}
	if k := kindOf(p, n.kernel.other); k.Reason != reason.KindUnsupported || k.InstalledDigest != "" {
		n.t.Errorf("%s: %+v, want %s", n.kernel.other, k, reason.KindUnsupported)
	}
	if text, err := os.ReadFile(seccomp + "/shop/web/web.json"); err != nil || string(text) != seccompText {
		n.t.Errorf("the seccomp profile: %q, %v", text, err)
	}
}

// gone waits until nothing of the profile is left.
func (n *node) gone() {
	n.t.Helper()
	n.eventually("the profile is gone", func() error {
		if _, err := profileStatus(); !errors.Is(err, errGone) {
			return fmt.Errorf("it is in the status: %w", err)
		}
		return nil
	})
	n.nothing()
}

// nothing expects that neither the kernel nor the kubelet's folder has anything.
func (n *node) nothing() {
	n.t.Helper()
	if n.kernel.loaded(n.t) {
		n.t.Error("the kernel has the profile")
	}
	if _, err := os.Lstat(seccomp + "/shop/web"); !errors.Is(err, fs.ErrNotExist) {
		n.t.Errorf("the seccomp profile is there: %v", err)
	}
}

func driftComesBack(n *node) {
	n.start()
	n.installed(n.want(n.push(first(), n.key), ""))
	n.asleep(func() {
		n.kernel.forget(n.t)
		if n.kernel.loaded(n.t) {
			n.t.Fatal("the profile was not taken away")
		}
	})
	n.eventually("the profile comes back", func() error {
		if !n.kernel.loaded(n.t) {
			return errors.New("the kernel does not have it")
		}
		return nil
	})
	running := newProcess(n.t, n.kernel)
	running.reads("after it came back", underFirst())
	read := "read -r x < " + secret
	n.asleep(func() {
		n.kernel.loosen(n.t)
		if !running.may(read) {
			n.t.Fatal("the profile was not loosened")
		}
	})
	n.eventually("what was loosened is repaired", func() error {
		if running.may(read) {
			return errors.New("the process may still read what the profile does not allow")
		}
		return nil
	})
	running.reads("after the repair", underFirst())
}

func unsignedIsRefused(n *node) {
	n.start()
	n.refused(n.want(n.push(first(), nil), ""), reason.SignatureMissing)
	n.nothing()

	// What is in force stays when something unsigned is to replace it.
	signed := n.want(n.push(otherwise(first()), n.key), "")
	n.installed(signed)
	p := n.refused(n.want(n.push(second(), nil), ""), reason.SignatureMissing)
	if k := kindOf(p, n.kernel.kind); k.InstalledDigest != signed {
		n.t.Errorf("in force is %s, want %s", k.InstalledDigest, signed)
	}
	newProcess(n.t, n.kernel).reads("under the last good version", underFirst())
}

// refused waits until the digest is refused for the reason.
func (n *node) refused(d digest.Digest, why reason.Reason) status.Profile {
	n.t.Helper()
	return n.says("it is refused: "+string(why), func(p status.Profile) string {
		if ready := p.Condition(status.Ready); p.WantedDigest != d || ready.Status != status.False || ready.Reason != why {
			return "it is not"
		}
		return ""
	})
}

func requiredKinds(n *node) {
	n.start()
	pinned := n.push(first(), n.key)
	p := n.refused(n.want(pinned, ", kinds: Required"), reason.KindUnsupported)
	if verified := p.Condition(status.Verified); verified.Status != status.True {
		n.t.Errorf("verified: %+v", verified)
	}
	n.nothing()
	n.installed(n.want(pinned, ", kinds: Supported"))
	if !n.kernel.loaded(n.t) {
		n.t.Error("the kernel does not have what it supports")
	}
}

func purge(n *node) {
	n.start()
	n.installed(n.want(n.push(first(), n.key), ""))
	running := newProcess(n.t, n.kernel)
	command := func() (string, error) {
		said, err := exec.CommandContext(n.t.Context(), "confine", "node", "purge", "--yes", "--root", state, "--kubelet-root", kubelet).CombinedOutput()
		return string(said), err
	}
	if said, err := command(); err == nil || !strings.Contains(said, "an agent runs here") {
		n.t.Errorf("beside an agent: %v, %s", err, said)
	}
	n.stop()
	said, err := command()
	if !strings.Contains(said, n.kernel.reference) || !strings.Contains(said, fmt.Sprintf("process %d ", running.cmd.Process.Pid)) {
		n.t.Errorf("while a process is under the profile: %v, %s", err, said)
	}
	running.reads("after a purge that kept the profile", underFirst())
	running.end()
	if said, err := command(); err != nil {
		n.t.Errorf("%v: %s", err, said)
	}
	n.nothing()
	for _, folder := range []string{state, seccomp} {
		if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
			n.t.Errorf("%s is left: %v", folder, err)
		}
	}
}
