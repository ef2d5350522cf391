//go:build reboot && (lsm_apparmor || lsm_selinux)

package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
)

// disk holds what stays when the machine is switched off: the second boot has
// it, and TestReboots makes both.
const disk = "/disk/disk.tar"

// reboot plays the first boot or the second one. stays is what the kernel's
// module has on the disk beside Confine's folders; boot is what a host does with
// it at boot.
func reboot(t *testing.T, k kernel, stays []string, boot func()) {
	t.Helper()
	if _, err := os.Stat(disk); errors.Is(err, fs.ErrNotExist) {
		n := newNode(t, k, newKey(t))
		n.start()
		n.installed(n.want(n.push(first(), n.key), ""))
		// The power fails.
		must(t, n.agent.Process.Kill())
		_ = n.agent.Wait()
		n.agent = nil
		byHand(t, "", "/bin/busybox", append([]string{"tar", "-cf", disk, "-C", "/", "etc/confine", state[1:], kubelet[1:]}, stays...)...)
		return
	}
	n := &node{t: t, kernel: k}
	must(t, os.MkdirAll("/var/log", 0o755))
	k.arrange(t)
	byHand(t, "", "/bin/busybox", "tar", "-xf", disk, "-C", "/")
	boot()
	t.Cleanup(n.end)
	secondBoot(n)
}

// secondBoot starts the agent where there is no registry.
func secondBoot(n *node) {
	must(n.t, os.Remove(state+"/"+status.FileName)) // it says what was in force before
	if c, err := net.Dial("tcp", registryAddress); err == nil {
		_ = c.Close()
		n.t.Fatal("there is a registry")
	}
	n.start()
	p := n.says("what was installed is in force", func(p status.Profile) string {
		if p.Condition(status.Ready).Status != status.True || p.Condition(status.Verified).Status != status.True {
			return "it is not"
		}
		return ""
	})
	n.wantKinds(p)
	running := newProcess(n.t, n.kernel)
	running.reads("after the second boot", underFirst())

	// An update that cannot be had changes nothing.
	const elsewhere = "what the registry would have"
	pinned, err := reference.ParsePinned(fmt.Sprintf("%s@%s", repository, digest.FromString(elsewhere)))
	must(n.t, err)
	update := n.want(pinned, "")
	n.says("the update waits", func(p status.Profile) string {
		if ready := p.Condition(status.Ready); p.WantedDigest != update || ready.Reason != reason.RegistryUnavailable {
			return "it does not"
		}
		return ""
	})
	running.reads("while the update waits", underFirst())
}
