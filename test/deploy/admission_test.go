package deploy

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/confine-dev/confine/pkg/profile/selinux"
)

type verdict int

const (
	allowed verdict = iota
	refused         // by the policy
	invalid         // by the API server, before any policy
)

// references say what pods of the namespace web may name.
func references() map[string]map[string]verdict {
	return map[string]map[string]verdict{
		"seccomp": {
			"confine/web/nginx/nginx.json":              allowed,
			"confine/base/baseline/all.json":            allowed,
			"confine/./web//nginx/nginx.json":           allowed,
			"vendor/nginx.json":                         allowed, // the host's own
			"vendor/confine/nginx.json":                 allowed,
			"confined/web/nginx.json":                   allowed,
			"confine/other/nginx/nginx.json":            refused,
			"confine//other/nginx/nginx.json":           refused,
			"./confine/other/nginx/nginx.json":          refused,
			".//./confine/./other/nginx/nginx.json":     refused,
			"confine/./other/nginx/nginx.json":          refused,
			"confine/webs/nginx/nginx.json":             refused,
			"confine/.artifacts/sha256-00/nginx.json":   refused,
			"confine/./.artifacts/sha256-00/nginx.json": refused,
			"confine/web":                               refused, // names no file
			"confine/web/nginx":                         refused,
			"confine/web/nginx/nginx.json/more":         refused,
			"confine":                                   refused,
			"confine/web/../other/nginx.json":           invalid,
			"/confine/other/nginx/nginx.json":           invalid,
		},
		"apparmor": {
			"confine.web.nginx":                      allowed,
			"confine.web.nginx//child":               allowed,
			"confine.base.baseline":                  allowed,
			"cri-containerd.apparmor.d":              allowed,
			"my-confine.other.nginx":                 allowed, // a name of the host's
			"confine.other.nginx":                    refused,
			"confine.webs.nginx":                     refused,
			"confine.web":                            refused,
			"confine.web.nginx//&confine.other.x":    refused,
			"other//&confine.other.nginx":            refused,
			":root://confine.other.nginx":            refused,
			":confine.other.nginx":                   refused,
			"cri-containerd.apparmor.d//&confine.a.": refused,
		},
		"selinux": {
			"confine_web_nginx.process":      allowed,
			"confine_base_baseline.process":  allowed,
			"container_t":                    allowed,
			"confine_other_nginx.process":    refused,
			"confine_web":                    refused,
			"confine_web__eu_nginx.process":  refused, // of web-eu
			"confine_webs_nginx.process":     refused,
			"x:confine_web_nginx.process:s0": refused,
			"s0:confine_other_nginx.process": refused,
		},
	}
}

// TestPodsNameTheirOwnProfiles tries each reference in each place of each kind.
func TestPodsNameTheirOwnProfiles(t *testing.T) {
	for kind, w := range workloads() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for form, all := range references() {
				for _, place := range where()[form] {
					for reference, want := range all {
						_, err := server.any.Resource(w.resource).Namespace(own).
							Create(t.Context(), w.object(template(form, place, reference)), dryRun())
						check(t, fmt.Sprintf("%s at %s", form, place), reference, want, err)
					}
				}
			}
		})
	}
}

func check(t *testing.T, at, reference string, want verdict, err error) {
	t.Helper()
	switch {
	case want == allowed && err != nil:
		t.Errorf("%s: %q: %v", at, reference, err)
	case want == refused && !deniedBy(err, "confine-tenants"):
		t.Errorf("%s: %q: %v, want a refusal by the policy", at, reference, err)
	case want == invalid && !apierrors.IsInvalid(err):
		t.Errorf("%s: %q: %v, want it invalid", at, reference, err)
	}
}

// TestHyphensOfNamespaces holds the two names of SELinux apart that differ by a
// hyphen of their namespace.
func TestHyphensOfNamespaces(t *testing.T) {
	for name, test := range map[string]struct {
		namespace, reference string
		want                 verdict
	}{
		"the namespace's own":              {"shop-eu", "confine_shop__eu_web.process", allowed},
		"of the namespace without it":      {"shop-eu", "confine_shop_eu_web.process", refused},
		"own, with an underscore in it":    {"shop", "confine_shop_eu_web.process", allowed},
		"of the namespace that has a part": {"shop", "confine_shop__eu_web.process", refused},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := server.any.Resource(resource("", "v1", "pods")).Namespace(test.namespace).
				Create(t.Context(), pod("selinux", "spec", test.reference), dryRun())
			check(t, test.namespace, test.reference, test.want, err)
		})
	}
}

// TestAdmissionAndKindsNameAlike: the type that a node gives to a namespace's
// profile is the one that its pods may name, and no other namespace's.
func TestAdmissionAndKindsNameAlike(t *testing.T) {
	namespaces := []string{"shop", "shop-eu"}
	for _, owner := range append(namespaces, "shop--eu", "shop-eu-x") {
		for _, name := range []string{"web", "eu_web", "x__web"} {
			_, processType, err := selinux.BlockName(owner, name)
			if err != nil {
				t.Fatal(err)
			}
			for _, namespace := range namespaces {
				want := refused
				if namespace == owner {
					want = allowed
				}
				_, err := server.any.Resource(resource("", "v1", "pods")).Namespace(namespace).
					Create(t.Context(), pod("selinux", "spec", processType), dryRun())
				check(t, namespace, processType, want, err)
			}
		}
	}
}

// TestRefusalSaysWhatToWrite holds what people get to read.
func TestRefusalSaysWhatToWrite(t *testing.T) {
	for form, want := range map[string][2]string{
		"seccomp":  {"confine/other/a/a.json", `localhostProfile "confine/other/a/a.json": write confine/web/PROFILE/FILE`},
		"apparmor": {"confine.other.a", `AppArmor profile "confine.other.a": write confine.web.NAME`},
		"selinux":  {"confine_other_a.process", `seLinuxOptions.type "confine_other_a.process": write confine_web_NAME.process`},
	} {
		_, err := server.any.Resource(resource("", "v1", "pods")).Namespace(own).Create(t.Context(), pod(form, "spec", want[0]), dryRun())
		if err == nil || !strings.Contains(err.Error(), want[1]) || !strings.Contains(err.Error(), "shared namespaces: base") {
			t.Errorf("%s: %v\nwant it to say %q and the shared namespaces", form, err, want[1])
		}
	}
}

// TestUpdatesAreJudged: a workload that named nothing can't come to name what
// is another's, and may come to name its own.
func TestUpdatesAreJudged(t *testing.T) {
	for kind, w := range workloads() {
		if kind == "Pod" || kind == "Job" {
			continue // the API server lets nobody change their templates
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			client := server.any.Resource(w.resource).Namespace(own)
			made := w.object(template("", "", ""))
			made.SetName("updated")
			if _, err := client.Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			for form, all := range references() {
				for _, place := range where()[form] {
					for reference, want := range all {
						patch := object{"apiVersion": made.GetAPIVersion(), "kind": made.GetKind(), "metadata": object{"name": "updated"}}
						if err := unstructured.SetNestedMap(patch, template(form, place, reference), w.path...); err != nil {
							t.Fatal(err)
						}
						_, err := client.Apply(t.Context(), "updated", &unstructured.Unstructured{Object: patch},
							metav1.ApplyOptions{FieldManager: "test", Force: true, DryRun: []string{metav1.DryRunAll}})
						check(t, fmt.Sprintf("%s at %s", form, place), reference, want, err)
					}
				}
			}
		})
	}
}

// TestEphemeralContainersAreJudged: a debugging container is the way into the
// profile of another for who may not make pods.
func TestEphemeralContainersAreJudged(t *testing.T) {
	pods := server.kube.CoreV1().Pods(own)
	made, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "debugged"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "localhost/none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for form, all := range references() {
		for reference, want := range all {
			var context corev1.SecurityContext
			switch form {
			case "seccomp":
				context.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &reference}
			case "apparmor":
				context.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &reference}
			case "selinux":
				context.SELinuxOptions = &corev1.SELinuxOptions{Type: reference}
			}
			changed := made.DeepCopy()
			changed.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: "localhost/none", SecurityContext: &context,
			}}}
			_, err := pods.UpdateEphemeralContainers(t.Context(), made.Name, changed, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
			check(t, form, reference, want, err)
		}
	}
}

// TestManyContainersAreCheapEnough: what a pod at the edge costs to judge stays
// below the API server's budget; above it, all would be refused.
func TestManyContainersAreCheapEnough(t *testing.T) {
	for name, reference := range map[string]string{"naming nothing": "", "naming its own": "confine/web/nginx/nginx.json"} {
		t.Run(name, func(t *testing.T) {
			form := "seccomp"
			if reference == "" {
				form = ""
			}
			big := pod(form, "spec", reference)
			var containers []any
			for i := range 500 {
				c := object{"name": fmt.Sprintf("c%d", i), "image": "localhost/none"}
				if reference != "" {
					c["securityContext"] = object{
						"seccompProfile":  object{"type": "Localhost", "localhostProfile": reference},
						"appArmorProfile": object{"type": "Localhost", "localhostProfile": "confine.web.nginx"},
						"seLinuxOptions":  object{"type": "confine_web_nginx.process"},
					}
				}
				containers = append(containers, c)
			}
			big.Object["spec"].(object)["containers"] = containers
			if _, err := server.any.Resource(resource("", "v1", "pods")).Namespace(own).Create(t.Context(), big, dryRun()); err != nil {
				t.Error(err)
			}
		})
	}
}
