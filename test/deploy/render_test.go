package deploy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/google/go-cmp/cmp"
)

// everything switches on all that the chart has.
func everything() []string {
	return []string{
		"--set", "image.tag=1.2.3", "--set", "image.digest=sha256:" + strings.Repeat("a", 64),
		"--set", "imagePullSecrets={pull}",
		"--set", "registry.credentials.secretName=registries", "--set", "registry.ca.configMapName=ca",
		"--set", "kubelet.extraRoots={/mnt/disk/kubelet,/var/lib/k0s/kubelet}",
		"--set", "agent.metricsAddress=:9464", "--set", "agent.seLinuxOptions.type=spc_t",
		"--set", "agent.kinds.apparmor=true", "--set", "agent.kinds.selinux=true", "--set", "agent.runtimeConfig={/etc/containerd,/etc/crio}",
		"--set", "agent.maxUnavailable=1", "--set", "agent.podAnnotations.a=b", "--set", "agent.nodeSelector.pool=a",
		"--set", "controller.podAnnotations.a=b", "--set", "controller.tolerations[0].operator=Exists",
		"--set", "admission.sharedNamespaces={base,more}", "--set", "namespace.create=true",
	}
}

func render(t *testing.T, args ...string) string {
	t.Helper()
	return must(t)(run(t.TempDir(), server.helm, append([]string{"template", "confine", chart(), "--namespace", namespace}, args...)...))
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readManifests(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(manifests())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// daemonSets decodes those of a rendering, by name.
func daemonSets(t *testing.T, rendered string) map[string]appsv1.DaemonSet {
	t.Helper()
	found := map[string]appsv1.DaemonSet{}
	documents := yaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(rendered)))
	defer func() { _ = documents.Close() }()
	for buffer := make([]byte, 1<<20); ; {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(buffer[:n], []byte("\nkind: DaemonSet\n")) {
			continue
		}
		var ds appsv1.DaemonSet
		if err := yaml.UnmarshalStrict(buffer[:n], &ds); err != nil {
			t.Fatal(err)
		}
		found[ds.Name] = ds
	}
}

func TestLint(t *testing.T) {
	for name, args := range map[string][]string{"defaults": nil, "everything": everything()} {
		t.Run(name, func(t *testing.T) {
			must(t)(run(t.TempDir(), server.helm, append([]string{"lint", "--strict", chart()}, args...)...))
		})
	}
}

// TestEverythingIsAccepted: what all values together make, the API server takes.
func TestEverythingIsAccepted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "everything.yaml")
	write(t, file, render(t, everything()...))
	must(t)(server.runKubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", file))
}

// TestExamples: what README and operations.md tell people to apply is accepted.
func TestExamples(t *testing.T) {
	out := must(t)(server.runKubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts",
		"-f", filepath.Join("..", "..", "examples", "cluster")))
	for _, want := range []string{"trustpolicy.confine.dev/web", "securityprofile.confine.dev/worker", "deployment.apps/worker"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not among\n%s", want, out)
		}
	}
}

// TestKubeletRoots: each root has a DaemonSet of its own, each node one agent at
// most, and each agent its own root's folder.
func TestKubeletRoots(t *testing.T) {
	sets := daemonSets(t, render(t, everything()...))
	type where struct{ Path, Operator, Value string }
	got := map[string]where{}
	for name, ds := range sets {
		holdAgent(t, ds)
		spec := ds.Spec.Template.Spec
		match := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0]
		if match.Key != "kubelet.kubernetes.io/directory-location" {
			t.Errorf("%s goes by %s", name, match.Key)
		}
		w := where{Operator: string(match.Operator), Value: strings.Join(match.Values, " ")}
		for _, v := range spec.Volumes {
			if v.Name == "profiles" {
				w.Path = v.HostPath.Path
			}
		}
		got[name] = w
		for other, o := range sets {
			selected := labels.SelectorFromSet(ds.Spec.Selector.MatchLabels).Matches(labels.Set(o.Spec.Template.Labels))
			if selected != (name == other) {
				t.Errorf("does %s select the pods of %s: %v", name, other, selected)
			}
		}
		if ds.Spec.Template.Labels["app.kubernetes.io/component"] != "agent" {
			t.Errorf("%s: the controller finds agents by a label that its pods lack", name)
		}
	}
	want := map[string]where{
		"confine-agent":                     {"/var/lib/kubelet/seccomp/confine", "DoesNotExist", ""},
		"confine-agent-mnt-disk-kubelet":    {"/mnt/disk/kubelet/seccomp/confine", "In", "mnt-disk-kubelet"},
		"confine-agent-var-lib-k0s-kubelet": {"/var/lib/k0s/kubelet/seccomp/confine", "In", "var-lib-k0s-kubelet"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCredentialsAreFiles: what the release's namespace has for registries is
// mounted into the container that speaks to them, and without values there is
// nothing.
func TestCredentialsAreFiles(t *testing.T) {
	mounted := func(args ...string) []string {
		t.Helper()
		var found []string
		for _, c := range daemonSets(t, render(t, args...))["confine-agent"].Spec.Template.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if strings.HasPrefix(m.MountPath, "/etc/confine") {
					found = append(found, c.Name+" "+m.MountPath)
				}
			}
		}
		slices.Sort(found)
		return found
	}
	if got := mounted(); got != nil {
		t.Errorf("without values: %q", got)
	}
	if diff := cmp.Diff([]string{"fetch /etc/confine/ca", "fetch /etc/confine/credentials"}, mounted(everything()...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSchemaRefuses tries values that would make a broken or an open cluster.
func TestSchemaRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown value":           {"--set", "agent.uidd=1"},
		"unknown section":         {"--set", "agents.uid=1"},
		"agent as root":           {"--set", "agent.uid=0"},
		"fetch as root":           {"--set", "agent.fetch.uid=0"},
		"runtime config goes up":  {"--set", "agent.runtimeConfig={/etc/../root}"},
		"runtime config is all":   {"--set", "agent.runtimeConfig={/}"},
		"a kind nobody knows":     {"--set", "agent.kinds.landlock=true"},
		"a kind by text":          {"--set-string", "agent.kinds.apparmor=yes"},
		"seccomp switched off":    {"--set", "agent.kinds.seccomp=false"},
		"no image":                {"--set", "image.repository="},
		"short digest":            {"--set", "image.digest=sha256:abc"},
		"kubelet root relative":   {"--set", "kubelet.root=var/lib/kubelet"},
		"kubelet root is the top": {"--set", "kubelet.root=/"},
		"kubelet root goes up":    {"--set", "kubelet.root=/var/../etc"},
		"extra root no label":     {"--set", "kubelet.extraRoots={/mnt/Disk_1/kubelet}"},
		"extra root twice":        {"--set", "kubelet.extraRoots={/mnt/a,/mnt/a}"},
		"shared by pattern":       {"--set", "admission.sharedNamespaces={*}"},
		"shared breaks out":       {"--set", "admission.sharedNamespaces={a']}"},
		"shared artifacts":        {"--set", "admission.sharedNamespaces={.artifacts}"},
		"removal delay no time":   {"--set", "agent.removalDelay=soon"},
		"no controller":           {"--set", "controller.replicas=0"},
		"nobody unavailable":      {"--set", "agent.maxUnavailable=0"},
		"secret no name":          {"--set", "registry.credentials.secretName=A_B"},
		"port of root":            {"--set", "agent.healthPort=80"},
		"policy switched by text": {"--set-string", "admission.tenants=no"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t.TempDir(), server.helm, append([]string{"template", "confine", chart()}, args...)...)
			if err == nil || !strings.Contains(out, "schema") {
				t.Errorf("accepted, or refused for another reason: %v\n%s", err, out)
			}
		})
	}
}

// TestSwitches holds what each switch takes away, and that it alone does.
func TestSwitches(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		gone string
	}{
		"CRDs":           {[]string{"--set", "crds.install=false"}, "kind: CustomResourceDefinition"},
		"tenants":        {[]string{"--set", "admission.tenants=false"}, "name: confine-tenants"},
		"default roles":  {[]string{"--set", "rbac.aggregate=false"}, "aggregate-to-"},
		"disruption":     {[]string{"--set", "controller.replicas=1"}, "kind: PodDisruptionBudget"},
		"priority":       {[]string{"--set", "agent.priorityClassName=", "--set", "controller.priorityClassName="}, "priorityClassName"},
		"made namespace": {nil, "kind: Namespace\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.args != nil && !strings.Contains(render(t), test.gone) {
				t.Fatalf("%q is not there by default", test.gone)
			}
			if strings.Contains(render(t, test.args...), test.gone) {
				t.Errorf("%q is there", test.gone)
			}
		})
	}
	if got := strings.Count(render(t, "--set", "admission.tenants=false"), "kind: ValidatingAdmissionPolicy\n"); got != 1 {
		t.Errorf("%d policies, want that of the agents still", got)
	}
}
