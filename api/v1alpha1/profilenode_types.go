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
// +kubebuilder:resource:scope=Cluster,categories=confine,shortName=profnode
// +kubebuilder:printcolumn:name="Assigned",type=integer,JSONPath=`.status.summary.assigned`,description="Profiles assigned to the node"
// +kubebuilder:printcolumn:name="Installed",type=integer,JSONPath=`.status.summary.installed`,description="Those installed as wanted"
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.summary.failed`,description="Those refused, or that cannot be installed"
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.status.problems[0].reason`,description="What keeps the node from working as a whole"
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`,priority=1,description="The version of the node's agent"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.problems[0].message`,priority=1,description="What to do about the problem"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ProfileNode struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of an object.
	//
	// +optional
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
	// namespace is the namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Name string `json:"name,omitempty"`

	// uid is the metadata.uid of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +required
	UID string `json:"uid,omitempty"`

	// artifact is REPOSITORY@sha256:HEX.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`@sha256:[a-f0-9]{64}$`
	// +required
	Artifact string `json:"artifact,omitempty"`

	// kinds is the SecurityProfile's spec.kinds; absent means Supported.
	//
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
	// namespace is the namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Name string `json:"name,omitempty"`

	// removeAt is the time that the node reported.
	//
	// +required
	RemoveAt metav1.Time `json:"removeAt"`
}

// ProfileNodeStatus is what a node's agent reports.
type ProfileNodeStatus struct {
	// nodeUID is the metadata.uid of the Node the agent ran on: what a node of
	// the same name reported before does not count.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +optional
	NodeUID string `json:"nodeUID,omitempty"`

	// agentVersion is the version of the agent.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`

	// kinds says which kinds of profile the node supports, and why not.
	//
	// +listType=atomic
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
	// name is the name of the kind, such as seccomp.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9-]*$`
	// +required
	Name string `json:"name,omitempty"`

	// supported is true where the node can install it.
	//
	// +required
	Supported bool `json:"supported"`

	// message says why it is not supported.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}

// NodeSummary counts a node's profiles.
type NodeSummary struct {
	// assigned is how many are assigned to the node, as far as it knows.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=500
	// +required
	Assigned int32 `json:"assigned"`
	// installed is how many of them are installed as wanted.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=500
	// +required
	Installed int32 `json:"installed"`
	// failed is how many of them are refused or cannot be installed.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=500
	// +required
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
	// namespace is the namespace of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the SecurityProfile.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Name string `json:"name,omitempty"`

	// uid is the metadata.uid of the SecurityProfile; absent for one that is no
	// longer assigned.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +optional
	UID string `json:"uid,omitempty"`

	// wantedDigest is the digest that the rest is about; absent for one that
	// is no longer assigned.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	WantedDigest string `json:"wantedDigest,omitempty"`

	// installedDigest is the digest in force; absent where there is none.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	InstalledDigest string `json:"installedDigest,omitempty"`

	// state is Installed, Pending, Failed or Removing.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z]*$`
	// +required
	State ReportState `json:"state,omitempty"`

	// verified says whether wantedDigest is signed and allowed under the
	// policies of now.
	//
	// +kubebuilder:validation:Enum=True;False;Unknown
	// +required
	Verified metav1.ConditionStatus `json:"verified,omitempty"`

	// degraded is set where something is in force that should not be, such as
	// a revoked digest.
	//
	// +optional
	Degraded bool `json:"degraded,omitempty"`

	// policies is the fingerprint of the TrustPolicies that judged it, its
	// first 16 hex digits.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Policies string `json:"policies,omitempty"`

	// reason is of the closed set of reasons; absent where all is as wanted.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +optional
	Reason string `json:"reason,omitempty"`

	// message says what happened on this node and what to do.
	//
	// +kubebuilder:validation:MinLength=1
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
	// +kubebuilder:validation:MaxItems=2048
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +optional
	Removing []string `json:"removing,omitempty"`

	// removeAt is when they go, once released.
	//
	// +optional
	RemoveAt metav1.Time `json:"removeAt,omitzero"`
}

// KindReport is one kind of profile in one artifact on one node.
type KindReport struct {
	// name is the name of the kind, such as seccomp.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9-]*$`
	// +required
	Name string `json:"name,omitempty"`

	// references are how pods name the files in force.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +optional
	References []string `json:"references,omitempty"`

	// reason is of the closed set; absent where the kind is as wanted.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +optional
	Reason string `json:"reason,omitempty"`
}

// NodeProblem keeps a node from working as a whole.
type NodeProblem struct {
	// reason is of the closed set of reasons.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +required
	Reason string `json:"reason,omitempty"`

	// message says what happened and what to do.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
}
