package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const dialTimeout = 5 * time.Second

// Config returns the configuration of an administrator, for clients in this
// process: it connects by way of the cluster's network namespace.
func (c *Cluster) Config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.Dial = c.Dial
	config.QPS = -1
	return config, nil
}

// Kubeconfig returns the file with an administrator's configuration. Its address
// is good in the cluster's namespaces alone: for what Command starts.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig("admin") }

// Dial connects to an IP address as the control plane's namespace does. Its form
// is that of net.Dialer.DialContext. Names are not resolved.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("%s is no IP address: there is no DNS in the cluster", host)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The namespace is the thread's; a socket keeps the one it is made in.
		runtime.LockOSThread()
		conn, err := c.dialHere(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialHere connects on this thread, which its caller has locked. The thread is
// unlocked only when it is back where it came from.
func (c *Cluster) dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }() // only read
	there, err := os.Open(filepath.Join(netnsFolder, c.netns()))
	if err != nil {
		return nil, fmt.Errorf("the cluster is not up: %w", err)
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering the cluster's network: %w", err)
	}
	// An address needs no look-up and is tried once, so on this goroutine.
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return conn, err
}

// Transport returns an HTTP transport that connects as Dial does.
func (c *Cluster) Transport() *http.Transport {
	return &http.Transport{DialContext: c.Dial}
}

// Command returns a command that runs in the control plane's network namespace
// and otherwise on the machine: it reaches the API server, nodes and pods, and
// they reach what it serves on ControlAddress.
func (c *Cluster) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return inNetns(ctx, c.netns(), program, args...)
}

// Kubectl returns a command of an administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return c.Command(ctx, c.bin("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
}

func (c *Cluster) client() (kubernetes.Interface, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func (c *Cluster) waitForAPIServer(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return poll(ctx, readyTimeout, "the API server to be ready", func() (bool, error) {
		if alive, err := c.isRunning(c.apiServer().name()); err != nil || !alive {
			return false, errors.Join(errors.New("kube-apiserver has ended: "+tail(c.file("log", "kube-apiserver.log"))), err)
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(dialTimeout).Do(ctx).Error() == nil, nil
	})
}

func (c *Cluster) isRunning(program string) (bool, error) {
	found, err := processesIn(c.netns())
	for _, p := range found {
		// It is nsenter until it has entered.
		if p.program == program || p.program == "nsenter" {
			return true, nil
		}
	}
	return false, err
}

// WaitForNode waits until node n has said that it is ready since it was last
// booted. What it said before its death does not count.
func (c *Cluster) WaitForNode(ctx context.Context, n int) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	booted, err := os.Stat(c.nodeFile(n, bootedFile))
	if err != nil {
		return fmt.Errorf("%s was never booted: %w", NodeName(n), err)
	}
	err = poll(ctx, readyTimeout, NodeName(n)+" to be ready", func() (bool, error) {
		if running, err := processesIn(c.nodeNetns(n)); err != nil || len(running) == 0 {
			return false, errors.Join(fmt.Errorf("%s has ended", NodeName(n)), err)
		}
		node, err := client.CoreV1().Nodes().Get(ctx, NodeName(n), metav1.GetOptions{})
		return err == nil && readySince(node, booted.ModTime()), nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, tail(c.nodeFile(n, "logs/init.log")), tail(c.nodeFile(n, "logs/kubelet.log")))
	}
	return nil
}

// readySince tells whether the node reported ready after a moment. Reports have
// whole seconds.
func readySince(node *corev1.Node, moment time.Time) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue && condition.LastHeartbeatTime.After(moment)
		}
	}
	return false
}
