//go:build e2e

// These tests run real clusters: as root, with the tag e2e (make test-e2e).

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/confine-dev/confine/test/kube/cluster"
	"github.com/confine-dev/confine/test/kube/image"
)

// denyMkdir is a profile whose effect a shell can see.
const denyMkdir = `{"defaultAction": "SCMP_ACT_ALLOW",
"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`

func TestCluster(t *testing.T) {
	c := up(t, "e2e-self", 2)
	client := client(t, c)
	tests := []struct {
		name string
		test func(*testing.T, *cluster.Cluster, kubernetes.Interface)
	}{
		{"a localhost profile is in force", profileInForce},
		{"a pod waits for its profile", podWaitsForProfile},
		{"pods reach the API server and what this process serves", podsReachServers},
		{"pods of two nodes reach each other", podsReachEachOther},
		{"tokens name their node", tokensNameTheirNode},
		{"images are imported later", imagesImported},
		{"an API server that restarts", apiServerRestarts},
		{"a node that loses power keeps its disk", nodeLosesPower},
	}
	// In this order, in one cluster: the last ones are outages.
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, c, client) })
	}
}

// TestTwoAtOnce holds that clusters share nothing, and that down leaves nothing.
func TestTwoAtOnce(t *testing.T) {
	one, two := up(t, "e2e-one", 1), up(t, "e2e-two", 0)
	nodes, err := client(t, two).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) != 0 {
		t.Errorf("a cluster without nodes has %d", len(nodes.Items))
	}
	// Another process knows it by its name alone.
	again, err := cluster.Open(cluster.Options{Name: "e2e-one"})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, two).Discovery().ServerVersion(); err != nil {
		t.Errorf("the other cluster: %v", err)
	}
	if err := two.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := filepath.Base(one.Dir())
	for _, pattern := range []string{one.Dir(), two.Dir(), "/sys/fs/cgroup/*/" + id + "*"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %q (%v)", left, err)
		}
	}
	for _, c := range []*cluster.Cluster{one, two} {
		if left, err := c.Processes(); err != nil || len(left) > 0 {
			t.Errorf("still running: %v (%v)", left, err)
		}
	}
}

func profileInForce(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	install(t, c, 1, "self/deny.json")
	confined := pod("confined", 1, "mkdir /tmp/d 2>&1; grep Seccomp: /proc/self/status")
	confined.Spec.SecurityContext.SeccompProfile = localhostProfile("self/deny.json")
	plain := pod("plain", 1, "mkdir /tmp/d && echo made")
	if got := runPod(t, client, confined); !strings.Contains(got, "Operation not permitted") || !strings.Contains(got, "Seccomp:\t2") {
		t.Errorf("the confined pod said %q", got)
	}
	if got := runPod(t, client, plain); got != "made\n" {
		t.Errorf("the pod without a profile said %q", got)
	}
}

func podWaitsForProfile(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	waiting := pod("waiting", 2, "mkdir /tmp/d 2>&1")
	waiting.Spec.SecurityContext.SeccompProfile = localhostProfile("self/later.json")
	create(t, client, waiting)
	waitFor(t, "the pod to be refused", func() bool {
		for _, s := range get(t, client, waiting.Name).Status.ContainerStatuses {
			if s.State.Waiting != nil && s.State.Waiting.Reason == "CreateContainerError" {
				return true
			}
		}
		return false
	})
	install(t, c, 2, "self/later.json")
	if got := output(t, client, waiting.Name); !strings.Contains(got, "Operation not permitted") {
		t.Errorf("the pod said %q", got)
	}
}

// podsReachServers serves on the control plane's address from here, as a
// registry of a test would.
func podsReachServers(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	listener, err := c.Listen(t.Context(), "tcp", cluster.ControlAddress+":5000")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "served")
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	defer func() { _ = server.Close() }()

	// busybox speaks no TLS that the API server likes; without, it is told so.
	const script = `wget -q -O- http://10.99.0.1:5000/; echo "$KUBERNETES_SERVICE_HOST"
printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 "$KUBERNETES_SERVICE_HOST" 443 | tail -n 1`
	for _, network := range []string{"host", "own"} {
		p := pod("reach-"+network, 1, script)
		p.Spec.HostNetwork = network == "host"
		if got, want := runPod(t, client, p), "served\n10.96.0.1\nClient sent an HTTP request to an HTTPS server.\n"; got != want {
			t.Errorf("with %s network the pod said %q, want %q", network, got, want)
		}
	}
	out, err := nodeCommand(t, c, 2, "/bin/busybox", "wget", "-q", "-O-", "http://10.99.0.1:5000/")
	if err != nil || out != "served\n" {
		t.Errorf("the node got %q: %v", out, err)
	}
}

func podsReachEachOther(t *testing.T, _ *cluster.Cluster, client kubernetes.Interface) {
	server := pod("server", 2, "echo hello | nc -l -p 7000")
	create(t, client, server)
	waitFor(t, "the pod to run", func() bool { return get(t, client, server.Name).Status.Phase == corev1.PodRunning })
	address := get(t, client, server.Name).Status.PodIP
	caller := pod("caller", 1, "until nc -w 5 "+address+" 7000; do sleep 0.2; done")
	if got := runPod(t, client, caller); got != "hello\n" {
		t.Errorf("the pod at %s said %q", address, got)
	}
}

func tokensNameTheirNode(t *testing.T, _ *cluster.Cluster, client kubernetes.Interface) {
	p := pod("token", 2, `cut -d. -f2 /var/run/secrets/kubernetes.io/serviceaccount/token | tr '_-' '/+' | base64 -d 2>/dev/null`)
	if got := runPod(t, client, p); !strings.Contains(got, `"node":{"name":"node2"`) {
		t.Errorf("the token says %s", got)
	}
}

func imagesImported(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	made, err := image.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made.Name = "localhost/later:2"
	made.Files = append(made.Files, image.File{Path: "message", Data: []byte("from later\n")})
	archive := filepath.Join(t.TempDir(), "later.tar")
	if err := image.WriteFile(archive, made); err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	p := pod("later", 2, "cat /message")
	p.Spec.Containers[0].Image = made.Name
	if got := runPod(t, client, p); got != "from later\n" {
		t.Errorf("the pod said %q", got)
	}
}

func apiServerRestarts(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	if err := c.StopAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Discovery().ServerVersion(); err == nil {
		t.Error("a stopped server answers")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := runPod(t, client, pod("after-outage", 1, "echo here")); got != "here\n" {
		t.Errorf("the pod said %q", got)
	}
}

func nodeLosesPower(t *testing.T, c *cluster.Cluster, client kubernetes.Interface) {
	long := pod("long", 1, "sleep 1000")
	long.Spec.RestartPolicy = corev1.RestartPolicyAlways
	create(t, client, long)
	waitFor(t, "the pod to run", func() bool { return get(t, client, long.Name).Status.Phase == corev1.PodRunning })
	install(t, c, 1, "self/kept.json")
	if err := c.KillNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NodeCommand(t.Context(), 1, "true"); err == nil {
		t.Error("a node without power runs commands")
	}
	if err := c.BootNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitForNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.BootNode(t.Context(), 1); err == nil {
		t.Error("a node that is up was booted")
	}
	waitFor(t, "the pod to be started again", func() bool {
		for _, s := range get(t, client, long.Name).Status.ContainerStatuses {
			if s.RestartCount > 0 && s.State.Running != nil {
				return true
			}
		}
		return false
	})
	kept := pod("kept", 1, "mkdir /tmp/d 2>&1")
	kept.Spec.SecurityContext.SeccompProfile = localhostProfile("self/kept.json")
	if got := runPod(t, client, kept); !strings.Contains(got, "Operation not permitted") {
		t.Errorf("with the profile of before the pod said %q", got)
	}
}

// up starts a cluster in the usual place, so that one that a killed test left
// is found and ended.
func up(t *testing.T, name string, nodes int) *cluster.Cluster {
	t.Helper()
	o := cluster.Options{Name: name, Nodes: nodes, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	old, err := cluster.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := cluster.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d nodes up after %v", name, nodes, time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c
}

func client(t *testing.T, c *cluster.Cluster) kubernetes.Interface {
	t.Helper()
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	made, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// install puts a profile where the kubelet of a node looks for it.
func install(t *testing.T, c *cluster.Cluster, node int, name string) {
	t.Helper()
	file := filepath.Join(c.NodeDisk(node), "kubelet", "seccomp", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(denyMkdir), 0o644); err != nil {
		t.Fatal(err)
	}
}

func localhostProfile(name string) *corev1.SeccompProfile {
	return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name}
}

// pod runs a script to its end on a node.
func pod(name string, node int, script string) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: cluster.NodeName(node)},
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			SecurityContext:               &corev1.PodSecurityContext{},
			Containers: []corev1.Container{{
				Name: "main", Image: image.BusyboxName, ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", script},
			}},
		},
	}
}

func create(t *testing.T, client kubernetes.Interface, p *corev1.Pod) {
	t.Helper()
	// After an outage the authorizers' caches follow within a moment.
	waitFor(t, "the pod to be taken", func() bool {
		_, err := client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil && !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func get(t *testing.T, client kubernetes.Interface, name string) *corev1.Pod {
	t.Helper()
	p, err := client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runPod creates a pod and returns what it said.
func runPod(t *testing.T, client kubernetes.Interface, p *corev1.Pod) string {
	t.Helper()
	create(t, client, p)
	return output(t, client, p.Name)
}

// output waits for the end of a pod and returns what it said.
func output(t *testing.T, client kubernetes.Interface, name string) string {
	t.Helper()
	waitFor(t, "pod "+name+" to end", func() bool {
		phase := get(t, client, name).Status.Phase
		return phase == corev1.PodSucceeded || phase == corev1.PodFailed
	})
	out, err := client.CoreV1().Pods(metav1.NamespaceDefault).GetLogs(name, &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func nodeCommand(t *testing.T, c *cluster.Cluster, node int, program string, args ...string) (string, error) {
	t.Helper()
	cmd, err := c.NodeCommand(t.Context(), node, program, args...)
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return string(out), nil
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
