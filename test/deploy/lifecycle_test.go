package deploy

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/google/go-cmp/cmp"
)

// fresh starts a cluster of a test's own, on which nothing is installed.
func fresh(t *testing.T) *cluster {
	t.Helper()
	c, err := start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestHelmLifecycle installs, upgrades, uninstalls and installs again. What
// people and nodes rely on outlives all of it.
func TestHelmLifecycle(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	helm := func(args ...string) string {
		t.Helper()
		return must(t)(c.runHelm(append(args, "--namespace", namespace)...))
	}
	helm("install", "confine", chart(), "--create-namespace")
	admin := thief{kube: c.kube, any: c.any}
	// The API server serves a new kind a moment after its CRD.
	eventually(t, "a TrustPolicy", create(confine("trustpolicies"), "", trustPolicy("kept")), admin)
	eventually(t, "a SecurityProfile", create(confine("securityprofiles"), own, aProfile), admin)
	eventually(t, "a ProfileNode", create(confine("profilenodes"), "", profileNode("node")), admin)
	same := c.keeps(t)

	next := nextVersion(t)
	helm("upgrade", "confine", next, "--set", "controller.replicas=3")
	same("the upgrade")
	c.holdUpgraded(t)

	helm("uninstall", "confine")
	same("the uninstallation")
	for _, gone := range [][3]string{
		{"apps/v1/daemonsets", namespace, "confine-agent"},
		{"apps/v1/deployments", namespace, "confine-controller"},
		{"rbac.authorization.k8s.io/v1/clusterroles", "", "confine-agent"},
		{"admissionregistration.k8s.io/v1/validatingadmissionpolicies", "", "confine-tenants"},
	} {
		if err := c.find(gone[0], gone[1], gone[2]); !apierrors.IsNotFound(err) {
			t.Errorf("after the uninstallation %s: %v, want it gone", gone[2], err)
		}
	}

	helm("install", "confine", chart())
	same("the second installation")

	t.Run("manifests over helm", func(t *testing.T) {
		helm("uninstall", "confine")
		c.applyTwice(t)
		same("applying the manifests")
	})
	t.Run("helm over manifests", func(t *testing.T) {
		if out, err := c.runHelm("install", "confine", chart(), "--namespace", namespace); err == nil {
			t.Errorf("helm took what is not its own without being told:\n%s", out)
		}
		helm("install", "confine", chart(), "--take-ownership", "--force-conflicts")
		same("taking over")
	})
}

// keeps returns a check that what people and nodes rely on is still what it is now.
func (c *cluster) keeps(t *testing.T) func(after string) {
	t.Helper()
	uids := func() map[string]types.UID {
		t.Helper()
		return map[string]types.UID{
			"crd":     c.uid(t, "apiextensions.k8s.io/v1/customresourcedefinitions", "", "trustpolicies.confine.dev"),
			"trust":   c.uid(t, "confine.dev/v1alpha1/trustpolicies", "", "kept"),
			"profile": c.uid(t, "confine.dev/v1alpha1/securityprofiles", own, "x"),
			"node":    c.uid(t, "confine.dev/v1alpha1/profilenodes", "", "node"),
		}
	}
	before := uids()
	return func(after string) {
		t.Helper()
		for name, uid := range uids() {
			if uid != before[name] {
				t.Errorf("after %s the %s is another: it was deleted", after, name)
			}
		}
	}
}

// holdUpgraded holds what nextVersion and the values of the upgrade change.
func (c *cluster) holdUpgraded(t *testing.T) {
	t.Helper()
	crd, err := c.any.Resource(resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")).
		Get(t.Context(), "securityprofiles.confine.dev", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names, _, err := unstructured.NestedStringSlice(crd.Object, "spec", "names", "shortNames"); err != nil || !strings.Contains(strings.Join(names, " "), "secprofnext") {
		t.Errorf("the upgrade left the CRD as it was: %v %v", names, err)
	}
	deployment, err := c.kube.AppsV1().Deployments(namespace).Get(t.Context(), "confine-controller", metav1.GetOptions{})
	if err != nil || *deployment.Spec.Replicas != 3 {
		t.Errorf("the upgrade did not change the controller: %v", err)
	}
}

// applyTwice applies the manifests as docs/operations.md says; the second time
// nothing changes.
func (c *cluster) applyTwice(t *testing.T) {
	t.Helper()
	apply := func() string {
		t.Helper()
		return must(t)(c.runKubectl("apply", "--server-side", "-f", manifests()))
	}
	versions := func() map[string]string {
		t.Helper()
		out := must(t)(c.runKubectl("get", "-f", manifests(), "-o",
			`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{"\n"}{end}`))
		all := map[string]string{}
		for line := range strings.Lines(out) {
			name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
			all[name] = version
		}
		return all
	}
	apply()
	first := versions()
	if len(first) < 20 {
		t.Errorf("%d objects: %v", len(first), first)
	}
	apply()
	for name, version := range versions() {
		if first[name] != version {
			t.Errorf("applied again, %s changed from generation %s to %s", name, first[name], version)
		}
	}
}

// TestManifests installs the plain manifests on a cluster that has nothing.
func TestManifests(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	c.applyTwice(t)
	if err := c.waitForPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := c.kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil || found.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("the namespace does not admit the agent: %v, %v", found.Labels, err)
	}
}

// TestObjectsOfBefore: what was there before the policy came names what it may
// no longer name, and must not be stuck for it.
func TestObjectsOfBefore(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	ctx := t.Context()
	const foreign, changed = "confine/other/a/a.json", "confine/other/b/b.json"
	for kind, w := range workloads() {
		made := w.object(template("seccomp", "containers", foreign))
		made.SetFinalizers([]string{"example.com/held"})
		if _, err := c.any.Resource(w.resource).Namespace(own).Create(ctx, made, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	if err := c.install(); err != nil {
		t.Fatal(err)
	}
	for kind, w := range workloads() {
		t.Run(kind, func(t *testing.T) {
			client := c.any.Resource(w.resource).Namespace(own)
			merge := func(content string, subresources ...string) error {
				_, err := client.Patch(ctx, "x", types.MergePatchType, []byte(content), metav1.PatchOptions{}, subresources...)
				return err
			}
			if err := merge(`{"metadata":{"labels":{"a":"b"}}}`); err != nil {
				t.Errorf("a label: %v", err)
			}
			if kind != "PodTemplate" {
				if err := merge(`{"status":{"observedGeneration":1}}`, "status"); err != nil {
					t.Errorf("the status: %v", err)
				}
			}
			if kind != "Pod" && kind != "Job" {
				worse := w.object(template("seccomp", "containers", changed))
				_, err := client.Apply(ctx, "x", worse, metav1.ApplyOptions{FieldManager: "test", Force: true})
				check(t, kind, changed, refused, err)
			}
			if err := client.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
				t.Errorf("deleting: %v", err)
			}
			if err := merge(`{"metadata":{"finalizers":null}}`); err != nil {
				t.Errorf("the finalizer: %v", err)
			}
			if _, err := client.Get(ctx, "x", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%v, want it gone", err)
			}
		})
	}
	// What is made from an old template is judged anew.
	_, err := c.any.Resource(core("pods")).Namespace(own).Create(ctx, pod("seccomp", "containers", foreign), dryRun())
	check(t, "a new pod", foreign, refused, err)
}

// nextVersion is a copy of the chart in which a CRD has changed.
func nextVersion(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "confine")
	if err := os.CopyFS(dir, os.DirFS(chart())); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "files", "crds", "confine.dev_securityprofiles.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shortNames := regexp.MustCompile(`(?m)^(\s*)shortNames:\n`)
	if !shortNames.Match(data) {
		t.Fatal("the CRD has no short names to add to")
	}
	data = shortNames.ReplaceAll(data, []byte("${0}${1}- secprofnext\n"))
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func eventually(t *testing.T, what string, a attempt, who thief) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), every, timeout, true, func(ctx context.Context) (bool, error) {
		last = a(ctx, who)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

// lookup finds GROUP/VERSION/RESOURCE.
func (c *cluster) lookup(kind, in, name string) (*unstructured.Unstructured, error) {
	parts := strings.Split(kind, "/")
	return c.any.Resource(resource(parts[0], parts[1], parts[2])).Namespace(in).Get(context.Background(), name, metav1.GetOptions{})
}

func (c *cluster) find(kind, in, name string) error {
	_, err := c.lookup(kind, in, name)
	return err
}

func (c *cluster) uid(t *testing.T, kind, in, name string) types.UID {
	t.Helper()
	found, err := c.lookup(kind, in, name)
	if err != nil {
		t.Fatal(err)
	}
	return found.GetUID()
}

// TestInstalledObjects reads back what the API server made of the chart.
func TestInstalledObjects(t *testing.T) {
	agent, err := server.kube.AppsV1().DaemonSets(namespace).Get(t.Context(), "confine-agent", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holdAgent(t, *agent)
	want := kindsOn{}.want()
	for _, path := range []string{"/etc/confine/credentials", "/etc/confine/ca"} {
		delete(want.Containers["fetch"].Mounts, path) // no values were given
	}
	if diff := cmp.Diff(want, privilegesOf(t, *agent)); diff != "" {
		t.Errorf("privileges (-want +got):\n%s", diff)
	}
	controller, err := server.kube.AppsV1().Deployments(namespace).Get(t.Context(), "confine-controller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := controller.Spec.Template.Spec
	if spec.HostNetwork || len(spec.Volumes) != 0 || len(spec.InitContainers) != 0 {
		t.Error("the controller needs nothing of its host")
	}
	holdRestricted(t, spec, spec.Containers[0])
}

// holdAgent holds that an agent runs on every node.
func holdAgent(t *testing.T, agent appsv1.DaemonSet) {
	t.Helper()
	spec := agent.Spec.Template.Spec
	if !spec.HostNetwork || spec.DNSPolicy != corev1.DNSDefault {
		t.Errorf("it does not work before the cluster's network does: %+v", spec)
	}
	if len(spec.Tolerations) != 1 || spec.Tolerations[0].Operator != corev1.TolerationOpExists || spec.Tolerations[0].Key != "" {
		t.Errorf("it does not run on every node: %+v", spec.Tolerations)
	}
}

// holdRestricted holds a container to the Pod Security level "restricted", but
// for volumes and host namespaces, which are the pod's.
func holdRestricted(t *testing.T, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !*s.RunAsNonRoot || s.Privileged != nil && *s.Privileged {
		t.Errorf("%s: %+v", c.Name, s)
	}
	if len(s.Capabilities.Add) != 0 || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%s: capabilities %+v", c.Name, s.Capabilities)
	}
	if *pod.SecurityContext.RunAsUser == 0 || s.RunAsUser != nil {
		t.Errorf("%s runs as %v, %v", c.Name, *pod.SecurityContext.RunAsUser, s.RunAsUser)
	}
	if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: %+v", c.Name, pod.SecurityContext.SeccompProfile)
	}
}
