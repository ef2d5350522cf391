package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	one, other := open(t, Options{Dir: dir, Name: "one"}), open(t, Options{Dir: dir})
	if one.netns() == other.netns() || one.nodeCgroup(1) == other.nodeCgroup(1) {
		t.Errorf("two clusters share names: %s, %s", one.netns(), other.netns())
	}
	if again := open(t, Options{Dir: dir, Name: "one"}); again.netns() != one.netns() {
		t.Errorf("%s and %s are the same cluster", again.netns(), one.netns())
	}
	// Interface names end at 15 bytes; those here are of nodes, inside of a
	// namespace, so only the largest node counts.
	if name := NodeName(maxNodes); len(name) > 15 {
		t.Errorf("%s is too long for a network interface", name)
	}

	t.Setenv(DirEnv, dir)
	if got, want := open(t, Options{}).Dir(), filepath.Join(dir, "confine"); got != want {
		t.Errorf("kept in %s, want %s", got, want)
	}
	bad := map[string]Options{
		"name leaves the folder":  {Name: "../x"},
		"upper case":              {Name: "A"},
		"name is long":            {Name: strings.Repeat("a", 32)},
		"nodes have another /run": {Dir: "/run/clusters"},
		"and another /var/lib":    {Dir: "/var/lib/clusters"},
	}
	for name, o := range bad {
		if c, err := Open(o); err == nil {
			t.Errorf("%s: opened %s", name, c.Dir())
		}
	}
}

func TestUpRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		options Options
		want    string
	}{
		"too many nodes":   {Options{Dir: dir, Nodes: maxNodes + 1}, "0 to 100"},
		"is there already": {Options{Dir: dir, Name: "there"}, "take that cluster down first"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Up(t.Context(), tc.options)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v does not tell about %q", err, tc.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "there")); err != nil {
		t.Errorf("what was there is not: %v", err)
	}
}

func TestDownOfNothing(t *testing.T) {
	c := open(t, Options{Dir: t.TempDir()})
	if err := c.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHierarchies(t *testing.T) {
	tests := map[string]struct {
		mounts string
		want   []string
	}{
		"v1 and v2 beside it": {
			mounts: "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
			want:   []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"},
		},
		"v2 alone":  {mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"},
		"elsewhere": {mounts: "cgroup /mnt/cpu cgroup rw,cpu 0 0\n"},
		"nothing":   {},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, hierarchies(tc.mounts)); diff != "" {
				t.Errorf("hierarchies (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCredentials holds that each part gets the user that its role is bound to,
// from the cluster's own authority.
func TestCredentials(t *testing.T) {
	c := open(t, Options{Dir: t.TempDir()})
	if err := c.makeKeys(2); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, c.file("pki", caFile)))
	tests := map[string]struct {
		user   string
		groups []string
	}{
		"admin":                   {"kubernetes-admin", []string{"system:masters"}},
		"kube-scheduler":          {"system:kube-scheduler", nil},
		"kube-controller-manager": {"system:kube-controller-manager", nil},
		"node2":                   {"system:node:node2", []string{"system:nodes"}},
	}
	for name, tc := range tests {
		config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig(name))
		if err != nil {
			t.Fatal(err)
		}
		certificate := parse(t, config.CertData)
		if certificate.Subject.CommonName != tc.user || !slices.Equal(certificate.Subject.Organization, tc.groups) {
			t.Errorf("%s is %s of %q, want %s of %q", name, certificate.Subject.CommonName, certificate.Subject.Organization, tc.user, tc.groups)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	server := parse(t, readFile(t, c.file("pki", "apiserver.crt")))
	for _, host := range []string{ControlAddress, serviceAddress, "localhost"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("the API server as %s: %v", host, err)
		}
	}
}

func TestNodeFiles(t *testing.T) {
	c := open(t, Options{Dir: t.TempDir()})
	var kubelet struct {
		CgroupRoot     string
		Address        string
		Authentication struct{ Anonymous struct{ Enabled *bool } }
		EvictionHard   map[string]string
	}
	if err := yaml.Unmarshal([]byte(c.kubeletConfig(7)), &kubelet); err != nil {
		t.Fatal(err)
	}
	if kubelet.CgroupRoot != c.nodeCgroup(7) || kubelet.Address != "10.99.0.17" || kubelet.EvictionHard["nodefs.available"] != "0%" {
		t.Errorf("kubelet of node 7: %+v", kubelet)
	}
	if anonymous := kubelet.Authentication.Anonymous.Enabled; anonymous == nil || *anonymous {
		t.Error("the kubelet lets anybody in")
	}
	var cni struct {
		Plugins []struct {
			IPAM struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal([]byte(cniConfig(7)), &cni); err != nil {
		t.Fatal(err)
	}
	if got := cni.Plugins[0].IPAM.Ranges[0][0].Subnet; got != "10.88.7.0/24" {
		t.Errorf("pods of node 7 are in %s", got)
	}
	if !strings.Contains(c.containerdConfig(7), `sandbox = "localhost/pause:1"`) {
		t.Error("containerd would pull its pause image from afar")
	}
}

func TestReadySince(t *testing.T) {
	boot := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	report := func(status corev1.ConditionStatus, at time.Time) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(at)},
			{Type: corev1.NodeReady, Status: status, LastHeartbeatTime: metav1.NewTime(at.Truncate(time.Second))},
		}}}
	}
	tests := map[string]struct {
		node *corev1.Node
		want bool
	}{
		"said so after":       {report(corev1.ConditionTrue, boot.Add(time.Second)), true},
		"said so before":      {report(corev1.ConditionTrue, boot), false},
		"said otherwise":      {report(corev1.ConditionFalse, boot.Add(time.Second)), false},
		"has not said a word": {&corev1.Node{}, false},
	}
	for name, tc := range tests {
		if got := readySince(tc.node, boot); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

func TestPoll(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	tests := map[string]struct {
		done func() (bool, error)
		want error
	}{
		"at once": {func() (bool, error) { return true, nil }, nil},
		"later":   {func() (bool, error) { calls++; return calls == 3, nil }, nil},
		"failed":  {func() (bool, error) { return false, broken }, broken},
		"never":   {func() (bool, error) { return false, nil }, context.DeadlineExceeded},
	}
	for name, tc := range tests {
		limit := time.Minute
		if errors.Is(tc.want, context.DeadlineExceeded) {
			limit = 2 * pollInterval
		}
		if err := poll(t.Context(), limit, name, tc.done); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestDialWantsAddresses(t *testing.T) {
	c := open(t, Options{Dir: t.TempDir()})
	for _, address := range []string{"kubernetes.default:443", "10.99.0.1", ControlAddress + ":443"} {
		if conn, err := c.Dial(t.Context(), "tcp", address); err == nil {
			t.Errorf("connected to %s of a cluster that is not up", conn.RemoteAddr())
		}
	}
}

func open(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("no PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
