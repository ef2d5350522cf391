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
	"slices"
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
	return inside(c.netns(), address, func() (net.Conn, error) {
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	})
}

// Listen opens a port in the control plane's namespace: what this process serves
// on ControlAddress is reached by nodes and pods.
func (c *Cluster) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return inside(c.netns(), address, func() (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(ctx, network, address)
	})
}

// inside calls open in a network namespace. A socket keeps the namespace in
// which it is made, which is that of the thread.
func inside[T any](netns, address string, open func() (T, error)) (T, error) {
	var none T
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return none, err
	}
	// A name would be looked up by another goroutine, on another thread.
	if net.ParseIP(host) == nil {
		return none, fmt.Errorf("%s is no IP address: there is no DNS in the cluster", host)
	}
	type result struct {
		opened T
		err    error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		opened, err := onThread(netns, open)
		done <- result{opened, err}
	}()
	r := <-done
	return r.opened, r.err
}

// onThread calls open on this thread, which its caller has locked. The thread is
// unlocked only when it is back where it came from; else it ends.
func onThread[T any](netns string, open func() (T, error)) (T, error) {
	var none T
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return none, err
	}
	defer func() { _ = home.Close() }() // only read
	there, err := os.Open(filepath.Join(netnsFolder, netns))
	if err != nil {
		return none, fmt.Errorf("the cluster is not up: %w", err)
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return none, fmt.Errorf("entering the cluster's network: %w", err)
	}
	opened, err := open()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return opened, err
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

// Kubectl returns a command of an administrator. What kubectl keeps of a server
// is keyed by address, which all clusters share: it stays with the cluster.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return c.Command(ctx, c.bin("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig(), "--cache-dir", c.file("kubectl")}, args...)...)
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
	err = poll(ctx, readyTimeout, "the API server to be ready", func() (bool, error) {
		running, err := processesIn(c.netns())
		if err != nil || !slices.ContainsFunc(running, called(c.apiServer().name())) {
			return false, errors.Join(errors.New("kube-apiserver has ended"), err)
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(dialTimeout).Do(ctx).Error() == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(c.file("log", c.apiServer().name()+".log")))
	}
	return nil
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
		running, err := processesIn(c.nodeNetns(n))
		if err != nil || !slices.ContainsFunc(running, called(initName)) {
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
