package fleet

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Node is one node and what its agent reports.
type Node struct {
	Name string `json:"name"`
	// Assigned is how many profiles the controller gives the node.
	Assigned int `json:"assigned"`
	// Installed and Failed are as the agent counts them.
	Installed int `json:"installed"`
	Failed    int `json:"failed"`
	// Reported is false where no agent has ever reported.
	Reported     bool                   `json:"reported"`
	AgentVersion string                 `json:"agentVersion,omitempty"`
	Kinds        []v1alpha1.NodeKind    `json:"kinds,omitempty"`
	Problems     []v1alpha1.NodeProblem `json:"problems,omitempty"`
	CreatedAt    metav1.Time            `json:"createdAt"`
}

// NodeOf says how a node is.
func NodeOf(n *v1alpha1.ProfileNode) Node {
	out := Node{Name: n.Name, Assigned: len(n.Spec.Profiles), CreatedAt: n.CreationTimestamp}
	if n.Status == nil {
		return out
	}
	out.Reported = true
	out.AgentVersion, out.Kinds, out.Problems = n.Status.AgentVersion, n.Status.Kinds, n.Status.Problems
	if s := n.Status.Summary; s != nil {
		out.Installed, out.Failed = int(s.Installed), int(s.Failed)
	}
	return out
}

// SupportedKinds are the kinds of profile that the node can install.
func (n Node) SupportedKinds() []string {
	var names []string
	for _, k := range n.Kinds {
		if k.Supported {
			names = append(names, k.Name)
		}
	}
	return names
}

// Share is one profile on one node.
type Share struct {
	Node string `json:"node"`
	// AssignedDigest is what the controller gives the node; empty where it gives
	// it nothing any more.
	AssignedDigest string `json:"assignedDigest,omitempty"`
	// InstalledDigest is what is in force there.
	InstalledDigest string `json:"installedDigest,omitempty"`
	// State is Installed, Pending, Failed or Removing; Pending also where the
	// agent has not reported on the assigned digest yet.
	State string `json:"state"`
	// Verified is True, False or Unknown.
	Verified string `json:"verified"`
	Degraded bool   `json:"degraded,omitempty"`
	// Reason is of the closed set, and Message says what happened.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// References are how pods name what is in force.
	References []string `json:"references,omitempty"`
	// Since is when the installed digest came into force.
	Since metav1.Time `json:"since,omitzero"`
	// RemoveAt is when it goes, where nobody wants it any more.
	RemoveAt metav1.Time `json:"removeAt,omitzero"`
	kinds    []v1alpha1.KindReport
	// current is set where the report is about the assigned digest.
	current bool
}

// ShareOf says how one profile is on one node; false where the node has nothing
// to do with it.
func ShareOf(n *v1alpha1.ProfileNode, key types.NamespacedName) (Share, bool) {
	out := Share{Node: n.Name, State: string(v1alpha1.StatePending), Verified: string(metav1.ConditionUnknown)}
	uid := ""
	assigned := slices.IndexFunc(n.Spec.Profiles, func(p v1alpha1.AssignedProfile) bool {
		return p.Namespace == key.Namespace && p.Name == key.Name
	})
	if assigned >= 0 {
		out.AssignedDigest = digestOf(n.Spec.Profiles[assigned].Artifact)
		uid = n.Spec.Profiles[assigned].UID
	}
	report := reportOf(n, key)
	if report == nil {
		return out, assigned >= 0
	}
	out.InstalledDigest, out.Since, out.RemoveAt, out.Degraded = report.InstalledDigest, report.Since, report.RemoveAt, report.Degraded
	out.kinds = report.Kinds
	for _, k := range report.Kinds {
		out.References = append(out.References, k.References...)
	}
	out.current = assigned < 0 || report.WantedDigest == out.AssignedDigest && (report.UID == "" || report.UID == uid)
	if out.current {
		out.State, out.Verified, out.Reason, out.Message = string(report.State), string(report.Verified), report.Reason, report.Message
	}
	return out, true
}

func reportOf(n *v1alpha1.ProfileNode, key types.NamespacedName) *v1alpha1.ProfileReport {
	if n.Status == nil {
		return nil
	}
	for i := range n.Status.Profiles {
		if r := &n.Status.Profiles[i]; r.Namespace == key.Namespace && r.Name == key.Name {
			return r
		}
	}
	return nil
}

// inForce reports whether the digest is assigned, verified and in force.
func (s Share) inForce(digest string) bool {
	return s.current && s.AssignedDigest == digest && s.InstalledDigest == digest &&
		s.State == string(v1alpha1.StateInstalled) && !s.Degraded
}

// rank orders shares by how much a person should look at them first.
func (s Share) rank() int {
	switch {
	case s.Degraded:
		return 0
	case s.State == string(v1alpha1.StateFailed):
		return 1
	case s.Reason != "":
		return 2
	case s.State == string(v1alpha1.StatePending):
		return 3
	case s.State == string(v1alpha1.StateRemoving):
		return 4
	default:
		return 5
	}
}

// ProblemsLine names the reasons of what keeps the node from working as a
// whole, each once; NotReported where no agent has reported.
func (n Node) ProblemsLine() string {
	if !n.Reported {
		return "NotReported"
	}
	var reasons []string
	for _, p := range n.Problems {
		if !slices.Contains(reasons, p.Reason) {
			reasons = append(reasons, p.Reason)
		}
	}
	return strings.Join(reasons, ",")
}

// Sample stands in for the nodes where they may not be read: the failures that
// the SecurityProfile itself lists, at most ten.
func Sample(p *v1alpha1.SecurityProfile) []Share {
	out := []Share{}
	if p.Status == nil {
		return out
	}
	for _, f := range p.Status.Failures {
		out = append(out, Share{
			Node: f.Node, AssignedDigest: f.Digest, State: string(v1alpha1.StateFailed),
			Verified: string(metav1.ConditionUnknown), Reason: f.Reason, Message: f.Message,
		})
	}
	return out
}
