package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/confine-dev/confine/test/kube/internal/nodeinit"
)

// Tools of a node, beside the programs of this module.
func nodeTools() []string {
	return []string{
		"kube/kubelet", "node/containerd", "node/containerd-shim-runc-v2", "node/ctr", "node/runc",
		"node/bridge", "node/loopback", "node/host-local",
	}
}

// initName is the program that is process 1 of each node.
const (
	initName    = "confine-nodeinit"
	initPackage = "github.com/confine-dev/confine/test/kube/cmd/nodeinit"
	// bootedFile is as old as the last boot.
	bootedFile = "booted"
	initFile   = "init.json"
)

// The node's files are the same inside and outside of its namespaces, but for
// /var/lib, /var/log and /run.
func (c *Cluster) nodeFile(n int, name string) string { return c.file("nodes", NodeName(n), name) }

// Nodes returns the numbers of the nodes that were made, up or not.
func (c *Cluster) Nodes() ([]int, error) {
	var found []int
	for n := 1; n <= maxNodes; n++ {
		made, err := exists(c.nodeFile(n, initFile))
		if err != nil {
			return nil, err
		}
		if made {
			found = append(found, n)
		}
	}
	return found, nil
}

// makeNode writes the files of node n and makes its namespace.
func (c *Cluster) makeNode(ctx context.Context, n int) error {
	for _, dir := range []string{"lib/kubelet/seccomp", "lib/containerd", "lib/cni", "log/pods", "log/containers", "cni", "registries"} {
		if err := os.MkdirAll(c.nodeFile(n, dir), 0o755); err != nil {
			return err
		}
	}
	texts := map[string]string{
		"containerd.toml":   c.containerdConfig(n),
		"cni/10.conflist":   cniConfig(n),
		"kubelet.yaml":      c.kubeletConfig(n),
		"registries/README": "Folders HOST:PORT with a hosts.toml, as containerd documents it (docs/hosts.md).\n",
	}
	for name, text := range texts {
		if err := os.WriteFile(c.nodeFile(n, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := c.connectNode(ctx, n); err != nil {
		return err
	}
	config, err := json.Marshal(c.nodeConfig(n))
	if err != nil {
		return err
	}
	// Last, since it tells that the node was made.
	return os.WriteFile(c.nodeFile(n, initFile), config, 0o600)
}

func (c *Cluster) nodeConfig(n int) nodeinit.Config {
	return nodeinit.Config{
		Hostname: NodeName(n),
		Binds:    map[string]string{"/var/lib": c.nodeFile(n, "lib"), "/var/log": c.nodeFile(n, "log")},
		Scratch:  c.nodeFile(n, "sysctl"),
		Path:     c.file("bin"),
		Logs:     c.nodeFile(n, "logs"),
		Images:   c.file("images"),
		Containerd: []string{
			"--config", c.nodeFile(n, "containerd.toml"), "--log-level", "info",
		},
		Kubelet: []string{
			"--config=" + c.nodeFile(n, "kubelet.yaml"), "--kubeconfig=" + c.kubeconfig(NodeName(n)),
			"--node-ip=" + NodeAddress(n), "--hostname-override=" + NodeName(n), "--v=2",
		},
	}
}

func (c *Cluster) containerdConfig(n int) string {
	return fmt.Sprintf(`version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing"]

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = %q
[plugins.'io.containerd.cri.v1.runtime']
  # Root of a container often lacks CAP_SYS_RESOURCE, and then may not lower it.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%q]
  conf_dir = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = %q
`, c.nodeFile(n, "registries"), c.file("bin"), c.nodeFile(n, "cni"), c.bin("runc"))
}

func cniConfig(n int) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "pods", "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]]}
}]}
`, podRange(n))
}

func (c *Cluster) kubeletConfig(n int) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: %s
address: %s
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %s}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volumeplugins
failSwapOn: false
# The disk is the machine's: how full it is says nothing about the node.
evictionHard: {memory.available: 1Mi, nodefs.available: 0%%, imagefs.available: 0%%, nodefs.inodesFree: 0%%}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
nodeStatusUpdateFrequency: 5s
# Tests kill containers on purpose, again and again.
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
`, c.nodeCgroup(n), NodeAddress(n), c.file("pki", caFile))
}

// BootNode starts node n, which is down, with the disk that it had.
func (c *Cluster) BootNode(ctx context.Context, n int) error {
	if made, err := exists(c.nodeFile(n, initFile)); err != nil || !made {
		return errors.Join(fmt.Errorf("%s was never made", NodeName(n)), err)
	}
	if running, err := processesIn(c.nodeNetns(n)); err != nil || len(running) > 0 {
		return errors.Join(fmt.Errorf("%s is up", NodeName(n)), err)
	}
	// The cgroups of pods that the last power cut killed would be gone too, and
	// the kubelet looks for the container of each for seconds.
	if err := errors.Join(removeCgroup(ctx, c.nodeCgroup(n)), makeCgroup(c.nodeCgroup(n))); err != nil {
		return err
	}
	c.log.Info("booting", "node", NodeName(n))
	if err := os.WriteFile(c.nodeFile(n, bootedFile), nil, 0o600); err != nil {
		return err
	}
	cmd := inNetns(context.WithoutCancel(ctx), c.nodeNetns(n), "unshare",
		"--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		c.bin(initName), c.nodeFile(n, initFile))
	return start(ctx, cmd, c.nodeFile(n, filepath.Join("logs", "init.log")), c.nodeNetns(n), called(initName))
}

// KillNode ends node n at once with all its pods, as a power cut does: nothing
// shuts down, its disk stays as it is.
func (c *Cluster) KillNode(ctx context.Context, n int) error {
	c.log.Info("killing", "node", NodeName(n))
	return kill(ctx, everything, c.nodeNetns(n))
}

// NodeCommand returns a command that runs on node n, in all its namespaces, with
// its programs (ctr, kubelet) first in the search path.
func (c *Cluster) NodeCommand(ctx context.Context, n int, program string, args ...string) (*exec.Cmd, error) {
	running, err := processesIn(c.nodeNetns(n))
	if err != nil {
		return nil, err
	}
	for _, p := range running {
		if p.program == initName {
			all := append([]string{"--target", strconv.Itoa(p.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--", program}, args...)
			cmd := exec.CommandContext(ctx, "nsenter", all...)
			cmd.Env = append(os.Environ(), "PATH="+c.file("bin")+":"+os.Getenv("PATH"))
			return cmd, nil
		}
	}
	return nil, fmt.Errorf("%s is not up", NodeName(n))
}

// Import adds images in an OCI archive to every node, those that are up now and
// those that boot later.
func (c *Cluster) Import(ctx context.Context, archive string) error {
	if err := c.keepImages(archive); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		cmd, err := c.NodeCommand(ctx, n, "ctr", nodeinit.ImportArgs(archive)...)
		if err != nil {
			continue // it imports when it boots
		}
		if err := run(cmd); err != nil {
			return fmt.Errorf("%s: %w", NodeName(n), err)
		}
	}
	return nil
}

// keepImages copies archives to where nodes import from.
func (c *Cluster) keepImages(archives ...string) error {
	if err := os.MkdirAll(c.file("images"), 0o755); err != nil {
		return err
	}
	for _, archive := range archives {
		data, err := os.ReadFile(archive)
		if err != nil {
			return err
		}
		kept := c.file("images", filepath.Base(archive))
		if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(kept, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
