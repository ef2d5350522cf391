package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/test/kube/image"
	"github.com/confine-dev/confine/test/tools"
)

const (
	// readyTimeout bounds each wait for a part: the machine may be small, and
	// compile at the same time.
	readyTimeout = 3 * time.Minute
	settingsFile = "cluster.json"
	logTailBytes = 3 << 10
)

// Up starts a cluster and waits until its nodes are ready and pods can be made.
// Programs that are missing in the cache of tools are built first, which takes
// minutes. The working directory must be inside of this module. If it fails,
// nothing is left. The cluster runs on when this process ends.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	c, err := Open(o)
	if err != nil {
		return nil, err
	}
	if err := c.check(ctx, o); err != nil {
		return nil, err
	}
	c.seen = settings{NodeGrace: o.NodeGrace}
	if err := c.up(ctx, o); err != nil {
		return nil, errors.Join(err, c.Down(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// check refuses what cannot work, before anything is made.
func (c *Cluster) check(ctx context.Context, o Options) error {
	if o.Nodes < 0 || o.Nodes > maxNodes {
		return fmt.Errorf("%d nodes: 0 to %d are possible", o.Nodes, maxNodes)
	}
	if there, err := exists(c.dir); err != nil || there {
		return errors.Join(fmt.Errorf("%s is there already: take that cluster down first", c.dir), err)
	}
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: its nodes mount, and set up networks")
	}
	for _, name := range []string{"ip", "nsenter", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: install iproute2 and util-linux", err)
		}
	}
	if err := run(exec.CommandContext(ctx, "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "true")); err != nil {
		return fmt.Errorf("a cluster needs namespaces, and this machine refuses them: %w", err)
	}
	all, err := mountedHierarchies()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("a cluster needs cgroup v1 controllers below %s, and none is mounted", cgroupRoot)
	}
	return nil
}

func (c *Cluster) up(ctx context.Context, o Options) error {
	if err := c.prepare(ctx, o); err != nil {
		return err
	}
	if err := c.makeNetwork(ctx); err != nil {
		return err
	}
	for _, p := range []program{c.etcd(), c.apiServer()} {
		if err := c.run(ctx, p); err != nil {
			return err
		}
	}
	// Nodes boot and import while the API server starts.
	for n := 1; n <= o.Nodes; n++ {
		if err := c.makeNode(ctx, n); err != nil {
			return fmt.Errorf("making %s: %w", NodeName(n), err)
		}
		if err := c.BootNode(ctx, n); err != nil {
			return err
		}
	}
	if err := c.waitForAPIServer(ctx); err != nil {
		return err
	}
	for _, p := range []program{c.controllerManager(), c.scheduler()} {
		if err := c.run(ctx, p); err != nil {
			return err
		}
	}
	for n := 1; n <= o.Nodes; n++ {
		if err := c.WaitForNode(ctx, n); err != nil {
			return err
		}
	}
	return c.waitForPods(ctx)
}

// prepare makes all files of the cluster but those of nodes.
func (c *Cluster) prepare(ctx context.Context, o Options) error {
	c.log.Info("preparing programs", "dir", c.dir)
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(c.seen)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file(settingsFile), data, 0o600); err != nil {
		return err
	}
	if err := tools.Link(ctx, c.file("bin"), append(controlTools(), nodeTools()...)...); err != nil {
		return err
	}
	if err := image.GoBuild(ctx, c.bin(initName), initPackage); err != nil {
		return err
	}
	if err := c.makeImages(ctx); err != nil {
		return err
	}
	if err := c.keepImages(o.Images...); err != nil {
		return err
	}
	if err := os.Mkdir(c.file("etcd"), 0o700); err != nil {
		return err
	}
	return c.makeKeys(o.Nodes)
}

// makeImages makes the images that every node has.
func (c *Cluster) makeImages(ctx context.Context) error {
	pause, err := image.Pause(ctx, c.bin("pause"))
	if err != nil {
		return err
	}
	busybox, err := image.Busybox(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.file("images"), 0o755); err != nil {
		return err
	}
	return image.WriteFile(c.file("images", "base.tar"), pause, busybox)
}

// waitForPods waits for the ServiceAccount without which pods are refused. The
// controller manager makes it some seconds after its start.
func (c *Cluster) waitForPods(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return poll(ctx, readyTimeout, "the default ServiceAccount", func() (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// Down ends the cluster and removes all that is left of it, also of one that
// came up only in part. It is no error if there is none.
func (c *Cluster) Down(ctx context.Context) error {
	namespaces, err := c.namespaces()
	if err != nil {
		return err
	}
	c.log.Info("ending", "dir", c.dir, "namespaces", len(namespaces))
	if err := kill(ctx, everything, namespaces...); err != nil {
		return err
	}
	if err := removeCgroup(ctx, c.id); err != nil {
		return err
	}
	for _, name := range namespaces {
		if err := run(exec.CommandContext(ctx, "ip", "netns", "delete", name)); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.dir)
}

// load reads the settings of a cluster that is there.
func (c *Cluster) load() error {
	data, err := os.ReadFile(c.file(settingsFile))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &c.seen)
}

// Process is a running part of the cluster.
type Process struct {
	Where   string // "control" or a node's name
	Program string
	PID     int
	Memory  int64 // resident, bytes
}

// Processes returns what runs in the cluster's namespaces, pods with networks of
// their own excepted.
func (c *Cluster) Processes() ([]Process, error) {
	places := map[string]string{c.netns(): "control"}
	order := []string{c.netns()}
	nodes, err := c.Nodes()
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		places[c.nodeNetns(n)] = NodeName(n)
		order = append(order, c.nodeNetns(n))
	}
	var all []Process
	for _, netns := range order {
		found, err := processesIn(netns)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			all = append(all, Process{Where: places[netns], Program: p.program, PID: p.pid, Memory: p.memory})
		}
	}
	return all, nil
}

// tail returns the end of a log, or why there is none.
func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error() + "\n"
	}
	return filepath.Base(file) + ":\n" + string(data[max(0, len(data)-logTailBytes):])
}
