package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// program is one part of the control plane.
type program struct {
	tool string // its name in test/tools
	args []string
}

func (p program) name() string { return filepath.Base(p.tool) }

const (
	etcdTool       = "etcd"
	apiServerTool  = "kube/kube-apiserver"
	controllerTool = "kube/kube-controller-manager"
	schedulerTool  = "kube/kube-scheduler"
	kubectlTool    = "kube/kubectl"
)

func controlTools() []string {
	return []string{etcdTool, apiServerTool, controllerTool, schedulerTool, kubectlTool}
}

func (c *Cluster) etcd() program {
	const clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return program{etcdTool, []string{
		"--data-dir=" + c.file("etcd"),
		"--unsafe-no-fsync", // a test cluster does not outlive a power cut of the machine
		"--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers, "--initial-cluster=default=" + peers,
	}}
}

func (c *Cluster) apiServer() program {
	pki := func(name string) string { return c.file("pki", name) }
	return program{apiServerTool, []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + ControlAddress,
		"--tls-cert-file=" + pki(serverName+".crt"), "--tls-private-key-file=" + pki(serverName+".key"),
		"--client-ca-file=" + pki(caFile),
		"--kubelet-client-certificate=" + pki(kubeletName+".crt"), "--kubelet-client-key=" + pki(kubeletName+".key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + pki(signerFile), "--service-account-signing-key-file=" + pki(signerFile),
		"--service-cluster-ip-range=" + serviceRange,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		// Without kube-proxy a webhook's service is reached by its endpoints.
		"--enable-aggregator-routing=true",
	}}
}

func (c *Cluster) controllerManager() program {
	config := c.kubeconfig("kube-controller-manager")
	args := []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", "--leader-elect=false",
		"--service-account-private-key-file=" + c.file("pki", signerFile), "--root-ca-file=" + c.file("pki", caFile),
		"--use-service-account-credentials",
		// Its usual limit of 20 requests a second makes its start take 10 s.
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--flex-volume-plugin-dir=" + c.file("flexvolumes"), // else it makes one in /usr
	}
	if c.seen.NodeGrace > 0 {
		args = append(args, fmt.Sprintf("--node-monitor-grace-period=%s", c.seen.NodeGrace.Round(time.Second)))
	}
	return program{controllerTool, args}
}

func (c *Cluster) scheduler() program {
	config := c.kubeconfig("kube-scheduler")
	return program{schedulerTool, []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", "--leader-elect=false",
	}}
}

// run starts a part in the control plane's namespace.
func (c *Cluster) run(ctx context.Context, p program) error {
	c.log.Info("starting", "program", p.name())
	// It ends by Down, not with the context of who started it.
	cmd := inNetns(context.WithoutCancel(ctx), c.netns(), c.bin(p.name()), p.args...)
	cmd.Dir = c.dir
	return start(ctx, cmd, c.file("log", p.name()+".log"), c.netns(), called(p.name()))
}

// bin returns the path of a program in the cluster's folder of programs.
func (c *Cluster) bin(name string) string { return c.file("bin", name) }

// StopAPIServer kills kube-apiserver: an outage.
func (c *Cluster) StopAPIServer(ctx context.Context) error {
	return kill(ctx, called(c.apiServer().name()), c.netns())
}

// StartAPIServer starts kube-apiserver and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.run(ctx, c.apiServer()); err != nil {
		return err
	}
	return c.waitForAPIServer(ctx)
}

// RestartAPIServer is StopAPIServer and StartAPIServer in one.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	if err := c.StopAPIServer(ctx); err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}
