package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KindProfileNode is the kind of a ProfileNode.
const KindProfileNode = "ProfileNode"

// MaxNodeProfiles bounds the profiles of one node.
const MaxNodeProfiles = 250

// ProfileNode is one node's share of the profiles: the controller writes what
// is assigned to the node, the node's agent what became of it. It has the name
// of its node, and nobody else needs to write it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=confine
// +kubebuilder:printcolumn:name="Assigned",type=integer,JSONPath=`.status.summary.assigned`
// +kubebuilder:printcolumn:name="Installed",type=integer,JSONPath=`.status.summary.installed`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.summary.failed`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ProfileNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is assigned to the node. The controller writes it.
	//
	// +optional
	Spec ProfileNodeSpec `json:"spec,omitempty"`

	// status is what the node's agent reports.
	//
	// +optional
	Status *ProfileNodeStatus `json:"status,omitempty"`
}

// ProfileNodeList is a list of ProfileNodes.
//
// +kubebuilder:object:root=true
type ProfileNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ProfileNode `json:"items"`
}

// ProfileNodeSpec is what is assigned to one node.
type ProfileNodeSpec struct {
	// profiles are assigned to this node, sorted by namespace and name. What
	// is installed and not listed is removed after the removal delay, once it
	// is released.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=250
	// +optional
	Profiles []AssignedProfile `json:"profiles,omitempty"`

	// releases are removals that the node reported as due and that no pod of
	// this node stands against. Without one the node removes nothing.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=250
	// +optional
	Releases []Release `json:"releases,omitempty"`
}

// AssignedProfile is one SecurityProfile as one node shall have it.
type AssignedProfile struct {
	// namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// uid of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`

	// artifact is REPOSITORY@sha256:HEX.
	//
	// +kubebuilder:validation:MaxLength=512
	Artifact string `json:"artifact"`

	// kinds is the SecurityProfile's spec.kinds; absent means Supported.
	//
	// +kubebuilder:validation:Enum=Supported;Required
	// +optional
	Kinds KindsPolicy `json:"kinds,omitempty"`

	// createdAt is when the SecurityProfile was created: of two that claim one
	// name the older has it.
	//
	// +optional
	CreatedAt metav1.Time `json:"createdAt,omitzero"`
}

// Release lets a node remove what it reported as due at removeAt. It does not
// count for another removeAt, so an old one never removes anything new.
type Release struct {
	// namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// removeAt is the time that the node reported.
	RemoveAt metav1.Time `json:"removeAt"`
}

// ProfileNodeStatus is what a node's agent reports.
type ProfileNodeStatus struct {
	// nodeUID is the metadata.uid of the Node the agent ran on: what a node of
	// the same name reported before does not count.
	//
	// +kubebuilder:validation:MaxLength=64
	// +optional
	NodeUID string `json:"nodeUID,omitempty"`

	// agentVersion is the version of the agent.
	//
	// +kubebuilder:validation:MaxLength=64
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`

	// kinds says which kinds of profile the node supports, and why not.
	//
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Kinds []NodeKind `json:"kinds,omitempty"`

	// summary counts profiles.
	//
	// +optional
	Summary *NodeSummary `json:"summary,omitempty"`

	// profiles are what became of each assigned profile, and of each that is
	// installed and no longer assigned, sorted by namespace and name.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	// +optional
	Profiles []ProfileReport `json:"profiles,omitempty"`

	// problems are what keeps the node from working as a whole, such as a
	// TrustPolicy that cannot be read.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Problems []NodeProblem `json:"problems,omitempty"`
}

// NodeKind is one kind of profile on one node.
type NodeKind struct {
	// name of the kind, such as seccomp.
	//
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9-]*$`
	Name string `json:"name"`

	// supported is true where the node can install it.
	Supported bool `json:"supported"`

	// message says why it is not supported.
	//
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}

// NodeSummary counts a node's profiles.
type NodeSummary struct {
	// assigned to the node, as far as it knows.
	Assigned int32 `json:"assigned"`
	// installed as wanted.
	Installed int32 `json:"installed"`
	// failed, of those assigned.
	Failed int32 `json:"failed"`
}

// ReportState is what became of a profile on a node.
type ReportState string

// The states of a profile on a node.
const (
	// StateInstalled: the wanted digest is in force.
	StateInstalled ReportState = "Installed"
	// StatePending: it is under way, or cannot be judged now (see reason).
	StatePending ReportState = "Pending"
	// StateFailed: it is refused, or cannot be installed (see reason).
	StateFailed ReportState = "Failed"
	// StateRemoving: nobody wants it; it goes at removeAt, once released.
	StateRemoving ReportState = "Removing"
)

// ProfileReport is what became of one profile on one node.
type ProfileReport struct {
	// namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the SecurityProfile.
	//
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// uid of the SecurityProfile; absent for one that is no longer assigned.
	//
	// +kubebuilder:validation:MaxLength=64
	// +optional
	UID string `json:"uid,omitempty"`

	// wantedDigest is the digest that the rest is about; absent for one that
	// is no longer assigned.
	//
	// +kubebuilder:validation:MaxLength=128
	// +optional
	WantedDigest string `json:"wantedDigest,omitempty"`

	// installedDigest is the digest in force; absent where there is none.
	//
	// +kubebuilder:validation:MaxLength=128
	// +optional
	InstalledDigest string `json:"installedDigest,omitempty"`

	// state is Installed, Pending, Failed or Removing.
	//
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z]*$`
	State ReportState `json:"state"`

	// verified says whether wantedDigest is signed and allowed under the
	// policies of now.
	//
	// +kubebuilder:validation:Enum=True;False;Unknown
	Verified metav1.ConditionStatus `json:"verified"`

	// degraded is set where something is in force that should not be, such as
	// a revoked digest.
	//
	// +optional
	Degraded bool `json:"degraded,omitempty"`

	// policies is the fingerprint of the TrustPolicies that judged it, its
	// first 16 hex digits.
	//
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Policies string `json:"policies,omitempty"`

	// reason is of the closed set of reasons; absent where all is as wanted.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +optional
	Reason string `json:"reason,omitempty"`

	// message says what happened on this node and what to do.
	//
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`

	// kinds are the kinds of profile in the artifact.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Kinds []KindReport `json:"kinds,omitempty"`

	// since is when installedDigest came into force.
	//
	// +optional
	Since metav1.Time `json:"since,omitzero"`

	// removing are the references that go at removeAt: all of a profile that
	// nobody wants, or those that an update dropped.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Removing []string `json:"removing,omitempty"`

	// removeAt is when they go, once released.
	//
	// +optional
	RemoveAt metav1.Time `json:"removeAt,omitzero"`
}

// KindReport is one kind of profile in one artifact on one node.
type KindReport struct {
	// name of the kind, such as seccomp.
	//
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// references are how pods name the files in force.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	References []string `json:"references,omitempty"`

	// reason is of the closed set; absent where the kind is as wanted.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +optional
	Reason string `json:"reason,omitempty"`
}

// NodeProblem keeps a node from working as a whole.
type NodeProblem struct {
	// reason is of the closed set of reasons.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Reason string `json:"reason"`

	// message says what happened and what to do.
	//
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
}
