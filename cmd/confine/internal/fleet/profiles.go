package fleet

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Words for a profile's status that no condition has.
const (
	// StatusDeleting: it is being deleted.
	StatusDeleting = "Deleting"
	// StatusNotObserved: the controller has not seen it as it is now.
	StatusNotObserved = "NotObserved"
	// StatusReady: every eligible node has it in force.
	StatusReady = "Ready"
)

// Profile is one SecurityProfile in the fleet.
type Profile struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Artifact is what the nodes are given; before the controller has seen the
	// profile it is what spec wants.
	Artifact string `json:"artifact"`
	Digest   string `json:"digest"`
	// Status is one word: Deleting, NotObserved, Ready, or the reason of the
	// condition that a person should look at first.
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
	// Verified is True, False or Unknown.
	Verified string `json:"verified"`
	// Nodes counts the selected nodes.
	Nodes v1alpha1.NodeCounts `json:"nodes"`
	// References are how pods name the payloads.
	References []v1alpha1.PayloadReference `json:"references,omitempty"`
	CreatedAt  metav1.Time                 `json:"createdAt"`
}

// ProfileOf says how a SecurityProfile is.
func ProfileOf(p *v1alpha1.SecurityProfile) Profile {
	out := Profile{
		Namespace: p.Namespace, Name: p.Name, Artifact: p.Spec.Artifact,
		Verified: string(condition(p, v1alpha1.ConditionVerified).Status), Nodes: counts(p), CreatedAt: p.CreationTimestamp,
	}
	if p.Status != nil {
		out.References = p.Status.References
		if r := p.Status.Rollout; r != nil && r.EffectiveArtifact != "" && observed(p) {
			out.Artifact = r.EffectiveArtifact
		}
	}
	out.Digest = digestOf(out.Artifact)
	out.Status, out.Message = word(p)
	return out
}

// word is the one word on how a profile is, and the message that goes with it.
func word(p *v1alpha1.SecurityProfile) (status, message string) {
	ready, progressing := condition(p, v1alpha1.ConditionReady), condition(p, v1alpha1.ConditionProgressing)
	degraded := condition(p, v1alpha1.ConditionDegraded)
	switch {
	case !p.DeletionTimestamp.IsZero():
		return StatusDeleting, ""
	case !observed(p):
		return StatusNotObserved, "the controller has not seen this generation yet"
	case degraded.Status == metav1.ConditionTrue:
		return degraded.Reason, degraded.Message
	case stopped(p) != "":
		return stopped(p), progressing.Message
	case progressing.Status == metav1.ConditionTrue, progressing.Reason == v1alpha1.ReasonPaused:
		return progressing.Reason, progressing.Message
	case ready.Status == metav1.ConditionTrue:
		return StatusReady, ready.Message
	default:
		return cmp.Or(ready.Reason, progressing.Reason, v1alpha1.ReasonPending), cmp.Or(ready.Message, progressing.Message)
	}
}
