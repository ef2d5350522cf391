package controller_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/api/v1alpha1"
)

func TestFirstInstall(t *testing.T) {
	f := newFleet(t, "a", "b", "c", "d")
	f.start()
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: "registry.example.com:443/profiles/web:v1@" + digestOf(artifact(1))})
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
	f.awaitCondition("nginx", v1alpha1.ConditionVerified, metav1.ConditionTrue, v1alpha1.ReasonVerified)
	p := f.awaitCondition("nginx", v1alpha1.ConditionDegraded, metav1.ConditionFalse, v1alpha1.ReasonAsWanted)
	want := &v1alpha1.NodeCounts{Total: 4, Updated: 4, Ready: 4}
	if diff := cmp.Diff(want, p.Status.Nodes); diff != "" {
		t.Error(diff)
	}
	if got := p.Status.Rollout.EffectiveArtifact; got != artifact(1) {
		t.Errorf("effective artifact %q, want the canonical %q", got, artifact(1))
	}
	if len(p.Status.History) != 1 || p.Status.History[0].Artifact != artifact(1) {
		t.Errorf("history %+v", p.Status.History)
	}
	if diff := cmp.Diff([]v1alpha1.PayloadReference{{Kind: "seccomp", Name: "confine/web/nginx/profile.json"}}, p.Status.References); diff != "" {
		t.Error(diff)
	}
	f.awaitGiven("nginx", artifact(1), 4)
}
