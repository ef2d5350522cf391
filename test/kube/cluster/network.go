package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ipBatch runs lines of ip(8) in a network namespace.
func ipBatch(ctx context.Context, netns string, lines ...string) error {
	cmd := exec.CommandContext(ctx, "ip", "-netns", netns, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	return run(cmd)
}

func addNetns(ctx context.Context, name string) error {
	return run(exec.CommandContext(ctx, "ip", "netns", "add", name))
}

// makeNetwork makes the control plane's namespace with the bridge for nodes.
func (c *Cluster) makeNetwork(ctx context.Context) error {
	if err := addNetns(ctx, c.netns()); err != nil {
		return err
	}
	if err := ipBatch(ctx, c.netns(), controlNetwork()...); err != nil {
		return err
	}
	return run(inNetns(ctx, c.netns(), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"))
}

func controlNetwork() []string {
	return []string{
		"link set lo up",
		// Nodes route to it through the bridge; no kube-proxy is needed for it.
		"address add " + serviceAddress + "/32 dev lo",
		"link add " + bridge + " type bridge",
		"address add " + ControlAddress + "/24 dev " + bridge,
		"link set " + bridge + " up",
	}
}

// connectNode makes the namespace of node n and plugs it into the bridge.
func (c *Cluster) connectNode(ctx context.Context, n int) error {
	if err := addNetns(ctx, c.nodeNetns(n)); err != nil {
		return err
	}
	if err := ipBatch(ctx, c.netns(), plugNode(n, c.nodeNetns(n))...); err != nil {
		return err
	}
	if err := ipBatch(ctx, c.nodeNetns(n), nodeNetwork(n)...); err != nil {
		return err
	}
	// Pods of other nodes are reached by way of their node, which needs its
	// own address first.
	return ipBatch(ctx, c.netns(), fmt.Sprintf("route add %s via %s", podRange(n), NodeAddress(n)))
}

func plugNode(n int, netns string) []string {
	return []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", NodeName(n), netns),
		fmt.Sprintf("link set %s master %s up", NodeName(n), bridge),
	}
}

func nodeNetwork(n int) []string {
	return []string{
		"link set lo up",
		"address add " + NodeAddress(n) + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + ControlAddress,
	}
}

// namespaces returns the names of all network namespaces of the cluster that
// exist, whoever made them.
func (c *Cluster) namespaces() ([]string, error) {
	entries, err := os.ReadDir(netnsFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() == c.id || strings.HasPrefix(entry.Name(), c.id+"-") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func exists(elements ...string) (bool, error) {
	_, err := os.Stat(filepath.Join(elements...))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
