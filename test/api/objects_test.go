package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// The objects here have every field of their kinds: the walk over the schemas
// fails where one is missing.

const (
	hexDigits = "4f2f7b1b5e7d4bb9a0a8a2d0a6ba4f0cf0ac2e5c6d8e5a7b9c1d3e5f70819203"
	digest    = "sha256:" + hexDigits
	artifact  = "registry.example.com/profiles/web@" + digest
	publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEld9p33o65IWxPxMyC1xFk0ATbPGO
+9nHkByPCo2EQp3f11IhCkk/BRGGnKrR3jDA0UWTTXOJaWeCdCJ4De1KCA==
-----END PUBLIC KEY-----
`
)

func moment() metav1.Time { return metav1.NewTime(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)) }

func later() metav1.Time { return metav1.NewTime(moment().Add(time.Hour)) }

func selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{
		MatchLabels: map[string]string{"kubernetes.io/os": "linux"},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "pool", Operator: metav1.LabelSelectorOpIn, Values: []string{"web"}},
			{Key: "node-role.kubernetes.io/control-plane", Operator: metav1.LabelSelectorOpDoesNotExist},
		},
	}
}

func securityProfile() *v1alpha1.SecurityProfile {
	maxConcurrent, failureThreshold := intstr.FromString("25%"), intstr.FromInt32(2)
	deadline, begun := int32(600), moment()
	return &v1alpha1.SecurityProfile{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion().String(), Kind: v1alpha1.KindSecurityProfile},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: v1alpha1.SecurityProfileSpec{
			Artifact:     artifact,
			Kinds:        v1alpha1.KindsRequired,
			NodeSelector: selector(),
			Rollout: &v1alpha1.Rollout{
				Paused:                  true,
				Canary:                  &v1alpha1.Canary{NodeSelector: selector(), SoakSeconds: 60},
				MaxConcurrent:           &maxConcurrent,
				FailureThreshold:        &failureThreshold,
				ProgressDeadlineSeconds: &deadline,
				OnFailure:               v1alpha1.OnFailureRollback,
			},
		},
		Status: &v1alpha1.SecurityProfileStatus{
			Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, ObservedGeneration: 1,
				LastTransitionTime: moment(), Reason: v1alpha1.ReasonAsWanted, Message: "all nodes are as wanted",
			}},
			ObservedGeneration: 1,
			Nodes:              &v1alpha1.NodeCounts{Total: 4, Updated: 3, Ready: 2, Failed: 1, Unavailable: 1},
			Rollout: &v1alpha1.RolloutStatus{
				EffectiveArtifact: artifact, EffectiveDigest: digest, TargetArtifact: artifact,
				Stopped: v1alpha1.ReasonCanaryFailed, StoppedGeneration: 1, StartedAt: &begun, LastProgressAt: &begun, CanaryPassedAt: &begun,
			},
			References: []v1alpha1.PayloadReference{{Kind: "seccomp", Name: "confine/default/web/nginx.json"}},
			History:    []v1alpha1.HistoryEntry{{Artifact: artifact, CompletedAt: moment()}},
			Failures:   []v1alpha1.NodeFailure{{Node: "node-1", Digest: digest, Reason: "SignatureMissing", Message: "sign it"}},
		},
	}
}

func trustPolicy() *v1alpha1.TrustPolicy {
	from, to := moment(), later()
	return &v1alpha1.TrustPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion().String(), Kind: v1alpha1.KindTrustPolicy},
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: v1alpha1.TrustPolicySpec{
			Repositories: []string{"registry.example.com/profiles/**"},
			Namespaces:   []string{"web"},
			Signers:      []v1alpha1.Signer{{Name: "team", Key: &v1alpha1.KeySigner{PEM: publicKey, NotBefore: &from, NotAfter: &to}}},
			Threshold:    1,
			AllowedKinds: []string{"seccomp"},
			Constraints: &v1alpha1.Constraints{
				Seccomp: &v1alpha1.SeccompConstraints{
					Baseline:        v1alpha1.SeccompBaselineRuntimeDefault,
					AllowedSyscalls: []string{"io_uring_setup"},
					DeniedSyscalls:  []string{"bpf"},
				},
				AppArmor: &v1alpha1.AppArmorConstraints{
					AllowedNames:        []string{"web-*"},
					AllowedFlags:        []v1alpha1.AppArmorFlag{"complain"},
					AllowedCapabilities: []v1alpha1.AppArmorCapability{"sys_nice"},
					AllowedRules:        []v1alpha1.AppArmorRuleClass{"userns"},
				},
				SELinux: &v1alpha1.SELinuxConstraints{
					AllowedBlocks:      []string{"web_*"},
					AllowedTemplates:   []string{"log_rw_container"},
					AllowedTypes:       []string{"http_port_t"},
					AllowedPermissions: []v1alpha1.SELinuxPermissions{{Class: "process", Permissions: []string{"execmem"}}},
				},
			},
			RequireName: true,
			Revoked:     &v1alpha1.Revoked{Digests: []string{digest}, Keys: []string{digest}},
			Floor:       []v1alpha1.Floor{{Repositories: "registry.example.com/profiles/web", Version: "1.4.0"}},
		},
	}
}

func profileNode() *v1alpha1.ProfileNode {
	return &v1alpha1.ProfileNode{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion().String(), Kind: v1alpha1.KindProfileNode},
		ObjectMeta: metav1.ObjectMeta{Name: "node-1.example.com"},
		Spec: v1alpha1.ProfileNodeSpec{
			Profiles: []v1alpha1.AssignedProfile{{
				Namespace: "web", Name: "nginx", UID: "0b0e1c9e-9f6c-4c39-8a57-0f2f6e6f3a10", Artifact: artifact,
				Kinds: v1alpha1.KindsRequired, CreatedAt: moment(),
			}},
			Releases: []v1alpha1.Release{{Namespace: "web", Name: "old", RemoveAt: moment()}},
		},
		Status: &v1alpha1.ProfileNodeStatus{
			NodeUID: "7d4b5d8a-4f86-4bb2-8c6c-2a1f6c0f9a11", AgentVersion: "v0.3.0",
			Kinds:   []v1alpha1.NodeKind{{Name: "seccomp", Supported: true, Message: "as of Linux 6.12"}},
			Summary: &v1alpha1.NodeSummary{Assigned: 1, Installed: 1, Failed: 0},
			Profiles: []v1alpha1.ProfileReport{{
				Namespace: "web", Name: "nginx", UID: "0b0e1c9e-9f6c-4c39-8a57-0f2f6e6f3a10",
				WantedDigest: digest, InstalledDigest: digest,
				State: v1alpha1.StateInstalled, Verified: metav1.ConditionTrue, Degraded: true, Policies: "0123456789abcdef",
				Reason: "Revoked", Message: "roll out another digest",
				Kinds: []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/web/nginx/nginx.json"}, Reason: "KindUnsupported"}},
				Since: moment(), Removing: []string{"confine/web/nginx/old.json"}, RemoveAt: later(),
			}},
			Problems: []v1alpha1.NodeProblem{{Reason: "TrustPolicyInvalid", Message: "mend the policy"}},
		},
	}
}

// minimal objects have what is required and nothing else.
func minimalProfile() *v1alpha1.SecurityProfile {
	whole := securityProfile()
	return &v1alpha1.SecurityProfile{TypeMeta: whole.TypeMeta, ObjectMeta: whole.ObjectMeta, Spec: v1alpha1.SecurityProfileSpec{Artifact: artifact}}
}

func minimalPolicy() *v1alpha1.TrustPolicy {
	p := trustPolicy()
	p.Spec.Constraints, p.Spec.RequireName, p.Spec.Revoked, p.Spec.Floor = nil, false, nil, nil
	p.Spec.Signers[0].Key.NotBefore, p.Spec.Signers[0].Key.NotAfter = nil, nil
	return p
}

func toUnstructured(t *testing.T, object runtime.Object) *unstructured.Unstructured {
	t.Helper()
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: raw}
}

// resourceOf returns the client of an object's kind and namespace.
func resourceOf(t *testing.T, object *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	plural := strings.ToLower(object.GetKind()) + "s"
	if strings.HasSuffix(plural, "ys") {
		plural = strings.TrimSuffix(plural, "ys") + "ies"
	}
	version := v1alpha1.SchemeGroupVersion()
	resource := client(t).Resource(schema.GroupVersionResource{Group: version.Group, Version: version.Version, Resource: plural})
	if object.GetNamespace() == "" {
		return resource
	}
	return resource.Namespace(object.GetNamespace())
}

// try returns what the server says to an object, which it does not keep.
func try(t *testing.T, object *unstructured.Unstructured) error {
	t.Helper()
	_, err := resourceOf(t, object).Create(t.Context(), object, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
	})
	return err
}

// create makes the object for the length of the test and returns it as it is stored.
func create(t *testing.T, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	resource := resourceOf(t, object)
	stored, err := resource.Create(t.Context(), object, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, object) })
	return stored
}

func remove(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	// The test's own context has ended when this is called.
	ctx := context.WithoutCancel(t.Context())
	if err := resourceOf(t, object).Delete(ctx, object.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// named gives an object a name of its own, so that tests keep apart.
func named(object *unstructured.Unstructured, name string) *unstructured.Unstructured {
	object.SetName(name)
	return object
}

func TestWholeObjectsAreAccepted(t *testing.T) {
	for name, object := range map[string]runtime.Object{
		"SecurityProfile":          securityProfile(),
		"minimal SecurityProfile":  minimalProfile(),
		"TrustPolicy":              trustPolicy(),
		"minimal TrustPolicy":      minimalPolicy(),
		"ProfileNode":              profileNode(),
		"ProfileNode with no spec": &v1alpha1.ProfileNode{TypeMeta: profileNode().TypeMeta, ObjectMeta: profileNode().ObjectMeta},
	} {
		t.Run(name, func(t *testing.T) {
			if err := try(t, toUnstructured(t, object)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is stored reads back as it was written: nothing is pruned or turned into
// something else on its way.
func TestWholeObjectsRoundTrip(t *testing.T) {
	for name, object := range map[string]runtime.Object{
		"SecurityProfile": securityProfile(), "TrustPolicy": trustPolicy(), "ProfileNode": profileNode(),
	} {
		t.Run(name, func(t *testing.T) {
			want := named(toUnstructured(t, object), "round-trip")
			got := create(t, want)
			if status, found := want.Object["status"]; found {
				got.Object["status"] = status
				var err error
				if got, err = resourceOf(t, got).UpdateStatus(t.Context(), got, metav1.UpdateOptions{FieldValidation: metav1.FieldValidationStrict}); err != nil {
					t.Fatal(err)
				}
			}
			for _, part := range []string{"spec", "status"} {
				if diff := cmp.Diff(want.Object[part], got.Object[part]); diff != "" {
					t.Errorf("%s: %s", part, diff)
				}
			}
		})
	}
}
