package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// KindSecurityProfile is the kind of a SecurityProfile manifest.
const KindSecurityProfile = "SecurityProfile"

// SecurityProfile pins one artifact of security profiles by digest and wants
// it installed, under its own namespace and name, on every node it selects. It
// holds no profile content.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=confine,shortName=secprof
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.status.rollout.effectiveDigest`,description="The digest that nodes are given"
// +kubebuilder:printcolumn:name="Verified",type=string,JSONPath=`.status.conditions[?(@.type=="Verified")].status`
// +kubebuilder:printcolumn:name="Updated",type=integer,JSONPath=`.status.nodes.updated`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.nodes.ready`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.nodes.failed`
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name becomes a folder's name on nodes: use at most 63 lower-case letters, digits and '-', and no dots"
type SecurityProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	Spec SecurityProfileSpec `json:"spec"`

	// status is what the nodes report, in sum. Confine writes it.
	//
	// +optional
	Status *SecurityProfileStatus `json:"status,omitempty"`
}

// SecurityProfileList is a list of SecurityProfiles.
//
// +kubebuilder:object:root=true
type SecurityProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SecurityProfile `json:"items"`
}

// SecurityProfileSpec is what is wanted.
type SecurityProfileSpec struct {
	// artifact is REPOSITORY@sha256:HEX or REPOSITORY:TAG@sha256:HEX. The
	// digest is required and decides; a tag is only a label for people.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('@sha256:[a-f0-9]{64}$')",message="artifact needs a digest, as in registry.example.com/profiles/nginx@sha256:<64 hex digits>: confine resolve REPOSITORY:TAG prints it"
	Artifact string `json:"artifact"`

	// kinds says what happens where a node does not support every kind of
	// profile in the artifact: Supported installs those it does, Required
	// installs all or nothing.
	//
	// +kubebuilder:validation:Enum=Supported;Required
	// +kubebuilder:default=Supported
	// +optional
	Kinds KindsPolicy `json:"kinds,omitempty"`

	// nodeSelector selects the nodes by their labels; absent means all Linux
	// nodes. A node that is no longer selected removes the profile after its
	// removal delay.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// rollout says how a new digest reaches the nodes. Standalone nodes ignore
	// it, and nodeSelector too.
	//
	// +optional
	Rollout *Rollout `json:"rollout,omitempty"`
}

// KindsPolicy says whether every kind in an artifact must be supported.
type KindsPolicy string

// The kinds policies.
const (
	KindsSupported KindsPolicy = "Supported"
	KindsRequired  KindsPolicy = "Required"
)

// Rollout says how a new digest reaches the nodes: first the canary, then wave
// by wave. The first failure of a canary stops it, and later as many failures
// as failureThreshold says.
type Rollout struct {
	// paused stops the rollout where it is. Nodes keep what they have.
	//
	// +optional
	Paused bool `json:"paused,omitempty"`

	// canary are the nodes that get a new digest first; absent means that
	// there is none.
	//
	// +optional
	Canary *Canary `json:"canary,omitempty"`

	// maxConcurrent is how many nodes may be on their way to the new digest at
	// one time, as a number or as a percentage of the eligible nodes (rounded
	// up). 25% is the default.
	//
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:default="25%"
	// +optional
	MaxConcurrent *intstr.IntOrString `json:"maxConcurrent,omitempty"`

	// failureThreshold is how many nodes must refuse the new digest for the
	// rollout to stop, as a number of at least 1 or as a percentage of the
	// eligible nodes (rounded up). 1 is the default. That a node cannot verify
	// now, because a registry is down for example, is no refusal.
	//
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:default=1
	// +optional
	FailureThreshold *intstr.IntOrString `json:"failureThreshold,omitempty"`

	// progressDeadlineSeconds is how long a rollout may go on without one more
	// node getting ready before it counts as failed. 600 is the default.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	// +kubebuilder:default=600
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	// onFailure is what happens when the rollout failed: Pause leaves every
	// node with what it has, Rollback gives all nodes the last digest that
	// every node had.
	//
	// +kubebuilder:validation:Enum=Pause;Rollback
	// +kubebuilder:default=Pause
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`
}

// Canary are the nodes that get a new digest first. Exactly one of nodes and
// nodeSelector is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.nodes) != has(self.nodeSelector)",message="set exactly one of nodes and nodeSelector"
type Canary struct {
	// nodes is how many nodes, picked by a hash of node and profile, so that
	// different profiles have different canaries.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Nodes *int32 `json:"nodes,omitempty"`

	// nodeSelector selects canaries among the nodes of the profile.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// soakSeconds is how long all canaries must be ready before the other
	// nodes follow.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	// +optional
	SoakSeconds int32 `json:"soakSeconds,omitempty"`
}

// OnFailure says what happens when a rollout failed.
type OnFailure string

// What happens when a rollout failed.
const (
	OnFailurePause    OnFailure = "Pause"
	OnFailureRollback OnFailure = "Rollback"
)

// The condition types of a SecurityProfile.
const (
	// ConditionVerified: no node refuses the effective digest, and one at least
	// has verified it.
	ConditionVerified = "Verified"
	// ConditionProgressing: a rollout is under way.
	ConditionProgressing = "Progressing"
	// ConditionReady: every eligible node has the wanted digest in force.
	ConditionReady = "Ready"
	// ConditionDegraded: something is in force that should not be, or not in
	// force that was.
	ConditionDegraded = "Degraded"
)

// Words for conditions of a SecurityProfile, beside the closed set of reasons
// that nodes give.
const (
	ReasonVerified                 = "Verified"
	ReasonPending                  = "Pending"
	ReasonNoNodes                  = "NoNodes"
	ReasonRolloutComplete          = "RolloutComplete"
	ReasonCanary                   = "Canary"
	ReasonSoaking                  = "Soaking"
	ReasonRollingOut               = "RollingOut"
	ReasonPaused                   = "Paused"
	ReasonCanaryFailed             = "CanaryFailed"
	ReasonFailureThresholdReached  = "FailureThresholdReached"
	ReasonProgressDeadlineExceeded = "ProgressDeadlineExceeded"
	ReasonRollingBack              = "RollingBack"
	ReasonRolledBack               = "RolledBack"
	ReasonAsWanted                 = "AsWanted"
)

// SecurityProfileStatus is what the nodes report, in sum.
type SecurityProfileStatus struct {
	// observedGeneration is the metadata.generation that the rest is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Verified, Progressing, Ready and Degraded.
	//
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodes counts the selected nodes.
	//
	// +optional
	Nodes *NodeCounts `json:"nodes,omitempty"`

	// rollout is where the rollout stands.
	//
	// +optional
	Rollout *RolloutStatus `json:"rollout,omitempty"`

	// references are how pods name each payload, such as the value of
	// seccompProfile.localhostProfile.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +optional
	References []PayloadReference `json:"references,omitempty"`

	// history are the artifacts that every eligible node had, the newest
	// first. A rollback goes to the first one that is not the failed one.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	History []HistoryEntry `json:"history,omitempty"`

	// failures are some of the nodes that are not as wanted: at most 10,
	// one for each reason first.
	//
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	Failures []NodeFailure `json:"failures,omitempty"`
}

// NodeCounts counts the selected nodes.
type NodeCounts struct {
	// total are all selected nodes.
	Total int32 `json:"total"`
	// updated are assigned the effective digest.
	Updated int32 `json:"updated"`
	// ready have the effective digest verified and in force.
	Ready int32 `json:"ready"`
	// failed refuse the effective digest or cannot install it.
	Failed int32 `json:"failed"`
	// unavailable are not Ready or have no Ready agent. They are outside of
	// all thresholds and catch up later.
	Unavailable int32 `json:"unavailable"`
}

// RolloutStatus is where a rollout stands. The assignments of the nodes are the
// state; this is what cannot be told from them.
type RolloutStatus struct {
	// effectiveArtifact is what the nodes are given: spec.artifact, or after a
	// rollback the last good one.
	//
	// +kubebuilder:validation:MaxLength=512
	// +optional
	EffectiveArtifact string `json:"effectiveArtifact,omitempty"`

	// effectiveDigest is the digest of effectiveArtifact.
	//
	// +kubebuilder:validation:MaxLength=128
	// +optional
	EffectiveDigest string `json:"effectiveDigest,omitempty"`

	// targetArtifact is the spec.artifact that this rollout is about.
	//
	// +kubebuilder:validation:MaxLength=512
	// +optional
	TargetArtifact string `json:"targetArtifact,omitempty"`

	// stopped is why the rollout to targetArtifact failed; it stays until
	// spec changes.
	//
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Stopped string `json:"stopped,omitempty"`

	// stoppedGeneration is the metadata.generation for which stopped counts:
	// a change of spec starts anew.
	//
	// +optional
	StoppedGeneration int64 `json:"stoppedGeneration,omitempty"`

	// startedAt is when the first node was assigned targetArtifact.
	//
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`

	// lastProgressAt is when one more node got ready last.
	//
	// +optional
	LastProgressAt *metav1.Time `json:"lastProgressAt,omitempty"`
}

// PayloadReference is how pods name one payload.
type PayloadReference struct {
	// kind of profile, such as seccomp.
	//
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// name is the value, such as confine/web/nginx/nginx.json.
	//
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name"`
}

// HistoryEntry is one artifact that every eligible node had.
type HistoryEntry struct {
	// artifact is REPOSITORY@sha256:HEX.
	//
	// +kubebuilder:validation:MaxLength=512
	Artifact string `json:"artifact"`

	// completedAt is when the last node had it.
	CompletedAt metav1.Time `json:"completedAt"`
}

// NodeFailure is one node that is not as wanted, and why.
type NodeFailure struct {
	// node is the node's name.
	//
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`

	// digest that the node was to install.
	//
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Digest string `json:"digest,omitempty"`

	// reason is of the closed set of reasons.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Reason string `json:"reason"`

	// message says what happened and what to do.
	//
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}
