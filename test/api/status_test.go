package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/confine-dev/confine/api/applyconfiguration"
	ac "github.com/confine-dev/confine/api/applyconfiguration/api/v1alpha1"
	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
	"github.com/confine-dev/confine/pkg/node/intent"
)

// Who may write status writes no spec with it, and the other way round: RBAC
// and admission build on that.
func TestSpecAndStatusAreWrittenApart(t *testing.T) {
	for name, object := range map[string]runtime.Object{"SecurityProfile": securityProfile(), "ProfileNode": profileNode()} {
		t.Run(name, func(t *testing.T) {
			whole := named(toUnstructured(t, object), "apart")
			stored := create(t, whole)
			if status, found := stored.Object["status"]; found {
				t.Errorf("created with the status %v", status)
			}
			other := stored.DeepCopy()
			other.Object["status"] = whole.Object["status"]
			set(t, other.Object, []any{"spec"}, map[string]any{"artifact": "registry.example.com/other@" + digest})
			updated, err := resourceOf(t, other).UpdateStatus(t.Context(), other, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(stored.Object["spec"], updated.Object["spec"]); diff != "" {
				t.Errorf("/status changed the spec: %s", diff)
			}
			if updated.GetGeneration() != stored.GetGeneration() {
				t.Errorf("/status raised the generation")
			}
			set(t, updated.Object, []any{"status"}, nil)
			kept, err := resourceOf(t, updated).Update(t.Context(), updated, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(whole.Object["status"], kept.Object["status"]); diff != "" {
				t.Errorf("an update of the object changed its status: %s", diff)
			}
		})
	}
}

// Nodes that read a folder have no server to fill in defaults, and neither has
// the controller for a rollout that is absent: absent means the same to them.
func TestDefaults(t *testing.T) {
	stored := create(t, change{"metadata.name": "defaults", "spec": map[string]any{
		"artifact": artifact, "rollout": map[string]any{},
	}}.of(t, minimalProfile()))
	want := map[string]any{
		"artifact": artifact,
		"kinds":    string(v1alpha1.KindsSupported),
		"rollout": map[string]any{
			"maxConcurrent":           rollout.DefaultMaxConcurrent,
			"failureThreshold":        int64(rollout.DefaultFailureThreshold),
			"progressDeadlineSeconds": int64(rollout.DefaultProgressDeadline.Seconds()),
			"onFailure":               string(v1alpha1.OnFailurePause),
		},
	}
	if diff := cmp.Diff(want, stored.Object["spec"]); diff != "" {
		t.Error(diff)
	}
	raw, err := json.Marshal(minimalProfile())
	if err != nil {
		t.Fatal(err)
	}
	read := intent.DecodeProfiles("profile.json", raw)
	if len(read.Profiles) != 1 || read.Profiles[0].RequireAllKinds {
		t.Errorf("absent kinds are no default to a node: %+v", read)
	}
	bare := create(t, named(toUnstructured(t, minimalPolicy()), "defaults"))
	if diff := cmp.Diff(toUnstructured(t, minimalPolicy()).Object["spec"], bare.Object["spec"]); diff != "" {
		t.Errorf("a TrustPolicy gets defaults, which agents may not share: %s", diff)
	}
}

// The agent applies its whole status and the controller the spec: neither takes
// a field from the other, and what is left out goes away.
func TestServerSideApplyByTwoOwners(t *testing.T) {
	node := named(toUnstructured(t, profileNode()), "applied")
	apply := func(manager string, config *ac.ProfileNodeApplyConfiguration, subresource ...string) *unstructured.Unstructured {
		t.Helper()
		raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(config)
		if err != nil {
			t.Fatal(err)
		}
		got, err := resourceOf(t, node).Apply(t.Context(), node.GetName(), &unstructured.Unstructured{Object: raw},
			metav1.ApplyOptions{FieldManager: manager}, subresource...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	assigned := ac.AssignedProfile().WithNamespace("web").WithName("nginx").WithUID("1").WithArtifact(artifact)
	apply("confine-controller", ac.ProfileNode(node.GetName()).WithSpec(ac.ProfileNodeSpec().WithProfiles(assigned)))
	t.Cleanup(func() { remove(t, node) })
	report := ac.ProfileReport().WithNamespace("web").WithName("nginx").WithState(v1alpha1.StateInstalled).WithVerified(metav1.ConditionTrue)
	status := ac.ProfileNodeStatus().WithNodeUID("2").WithProfiles(report).
		WithSummary(ac.NodeSummary().WithAssigned(1).WithInstalled(1).WithFailed(0)).
		WithProblems(ac.NodeProblem().WithReason("NoSpace"))
	apply("confine-agent", ac.ProfileNode(node.GetName()).WithStatus(status), "status")
	got := apply("confine-agent", ac.ProfileNode(node.GetName()).WithStatus(ac.ProfileNodeStatus().WithNodeUID("2")), "status")
	if diff := cmp.Diff(map[string]any{"nodeUID": "2"}, got.Object["status"]); diff != "" {
		t.Errorf("what the agent left out: %s", diff)
	}
	if profiles, _ := get(got.Object, []any{"spec", "profiles", 0, "name"}); profiles != "nginx" {
		t.Errorf("the agent changed the spec: %v", got.Object["spec"])
	}
	_, err := resourceOf(t, node).Apply(t.Context(), node.GetName(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": node.GetAPIVersion(), "kind": node.GetKind(), "metadata": map[string]any{"name": node.GetName()},
		"spec": map[string]any{"profiles": []any{}},
	}}, metav1.ApplyOptions{FieldManager: "somebody"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "confine-controller") {
		t.Errorf("another manager of spec.profiles: %v", err)
	}
}

// The apply configurations have every field of the types.
func TestApplyConfigurationsHaveEveryField(t *testing.T) {
	for kind, object := range map[string]runtime.Object{
		v1alpha1.KindSecurityProfile: securityProfile(), v1alpha1.KindTrustPolicy: trustPolicy(), v1alpha1.KindProfileNode: profileNode(),
	} {
		want, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		config := applyconfiguration.ForKind(v1alpha1.SchemeGroupVersion().WithKind(kind))
		decoder := json.NewDecoder(bytes.NewReader(want))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(config); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(config)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(toUnstructured(t, object).Object, raw); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
	}
}

// A node with as many profiles as it may have, with long names and messages,
// fits into one object.
func TestAFullNodeIsAccepted(t *testing.T) {
	node := profileNode()
	node.Name = "full"
	label, message := strings.Repeat("n", 60), strings.Repeat("m", 256)
	assigned, reported := node.Spec.Profiles[0], node.Status.Profiles[0]
	node.Spec.Profiles, node.Status.Profiles = nil, nil
	for i := range v1alpha1.MaxNodeProfiles {
		name := fmt.Sprintf("%s%03d", label, i)
		assigned.Namespace, assigned.Name = name, name
		assigned.Artifact = "registry.example.com/" + strings.Repeat("p", 200) + "@" + digest
		reported.Namespace, reported.Name, reported.Message = name, name, message
		reported.Kinds = []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/" + name + "/" + name + "/profile.json"}}}
		node.Spec.Profiles = append(node.Spec.Profiles, assigned)
		node.Status.Profiles = append(node.Status.Profiles, reported)
	}
	whole := toUnstructured(t, node)
	stored := create(t, whole)
	stored.Object["status"] = whole.Object["status"]
	if _, err := resourceOf(t, stored).UpdateStatus(t.Context(), stored, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}
