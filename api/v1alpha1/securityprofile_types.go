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
// +kubebuilder:printcolumn:name="Verified",type=string,JSONPath=`.status.conditions[?(@.type=="Verified")].status`,description="Whether the nodes verified the digest they are given"
// +kubebuilder:printcolumn:name="Updated",type=integer,JSONPath=`.status.nodes.updated`,description="Nodes that are given the digest"
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.nodes.ready`,description="Nodes that have it verified and in force"
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.nodes.failed`,description="Nodes that refuse it or cannot install it"
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.nodes.total`,description="Selected nodes"
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`,description="Where the rollout stands"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.failures[0].reason`,priority=1,description="Why the first node that is not as wanted is not"
// +kubebuilder:printcolumn:name="Unavailable",type=integer,JSONPath=`.status.nodes.unavailable`,priority=1,description="Nodes that are not Ready or have no Ready agent"
// +kubebuilder:printcolumn:name="Artifact",type=string,JSONPath=`.status.rollout.effectiveArtifact`,priority=1,description="The artifact that nodes are given"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name becomes a folder's name on nodes: use at most 63 lower-case letters, digits and '-', and no dots"
type SecurityProfile struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard metadata of an object.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	//
	// +required
	Spec SecurityProfileSpec `json:"spec,omitzero"`

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
	// +kubebuilder:validation:XValidation:rule=`self.matches('^((?i:localhost\\.?|\\[[0-9a-f:.]+\\]|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+\\.?)(:[1-9][0-9]{0,4})?|(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)\\.?:[1-9][0-9]{0,4})/')`,message="artifact begins with its registry's host, as in registry.example.com/profiles/nginx@sha256:<64 hex digits>: without https://, without user name, with docker.io for Docker Hub, and with a port where the host has no dot"
	// +kubebuilder:validation:XValidation:rule=`!self.contains('/') || self.matches('^[^/]*/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})?(@[^@/]*)?$')`,message="after its host, artifact is PATH@sha256:HEX or PATH:TAG@sha256:HEX: the path is lower case, with letters and digits, and single '.', '_', '__' or hyphens between them"
	// +required
	Artifact string `json:"artifact,omitempty"`

	// kinds says what happens where a node does not support every kind of
	// profile in the artifact: Supported installs those it does, Required
	// installs all or nothing.
	//
	// +default="Supported"
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
//
// +kubebuilder:validation:Enum=Supported;Required
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
	// +kubebuilder:validation:MaxLength=10
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : self.matches('^([1-9][0-9]?|100)%$')",message="maxConcurrent is a number from 1 to 100000, or a percentage from 1% to 100%, such as \"25%\""
	// +default="25%"
	// +optional
	MaxConcurrent *intstr.IntOrString `json:"maxConcurrent,omitempty"`

	// failureThreshold is how many nodes must refuse the new digest for the
	// rollout to stop, as a number of at least 1 or as a percentage of the
	// eligible nodes (rounded up). 1 is the default. That a node cannot verify
	// now, because a registry is down for example, is no refusal.
	//
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=10
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 100000 : self.matches('^([1-9][0-9]?|100)%$')",message="failureThreshold is a number from 1 to 100000, or a percentage from 1% to 100%, such as \"25%\""
	// +default=1
	// +optional
	FailureThreshold *intstr.IntOrString `json:"failureThreshold,omitempty"`

	// progressDeadlineSeconds is how long a rollout may go on without one more
	// node getting ready before it counts as failed. 600 is the default.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	// +default=600
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	// onFailure is what happens when the rollout failed: Pause leaves every
	// node with what it has, Rollback gives all nodes the last digest that
	// every node had.
	//
	// +default="Pause"
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
	// nodes follow; absent means that they follow at once.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	// +optional
	SoakSeconds int32 `json:"soakSeconds,omitempty"`
}

// OnFailure says what happens when a rollout failed.
//
// +kubebuilder:validation:Enum=Pause;Rollback
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
	// conditions are Verified, Progressing, Ready and Degraded.
	//
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the metadata.generation that the rest is about.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

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
	// total is how many nodes are selected.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +required
	Total int32 `json:"total"`
	// updated is how many are given the effective digest.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +required
	Updated int32 `json:"updated"`
	// ready is how many have the effective digest verified and in force.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +required
	Ready int32 `json:"ready"`
	// failed is how many refuse the effective digest or cannot install it.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +required
	Failed int32 `json:"failed"`
	// unavailable is how many are not Ready or have no Ready agent. They are
	// outside of all thresholds and catch up later.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +required
	Unavailable int32 `json:"unavailable"`
}

// RolloutStatus is where a rollout stands. The assignments of the nodes are the
// state; this is what cannot be told from them.
type RolloutStatus struct {
	// effectiveArtifact is what the nodes are given: spec.artifact, or after a
	// rollback the last good one.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +optional
	EffectiveArtifact string `json:"effectiveArtifact,omitempty"`

	// effectiveDigest is the digest of effectiveArtifact.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	EffectiveDigest string `json:"effectiveDigest,omitempty"`

	// targetArtifact is the spec.artifact that this rollout is about.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +optional
	TargetArtifact string `json:"targetArtifact,omitempty"`

	// stopped is why the rollout to targetArtifact failed; it stays until
	// spec changes.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +optional
	Stopped string `json:"stopped,omitempty"`

	// stoppedGeneration is the metadata.generation for which stopped counts:
	// a change of spec starts anew.
	//
	// +kubebuilder:validation:Minimum=1
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

	// canaryPassedAt is when all canaries were ready for as long as they had to
	// soak: the other nodes follow from then on.
	//
	// +optional
	CanaryPassedAt *metav1.Time `json:"canaryPassedAt,omitempty"`
}

// PayloadReference is how pods name one payload.
type PayloadReference struct {
	// kind is the kind of profile, such as seccomp.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9-]*$`
	// +required
	Kind string `json:"kind,omitempty"`

	// name is the value, such as confine/web/nginx/nginx.json.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +required
	Name string `json:"name,omitempty"`
}

// HistoryEntry is one artifact that every eligible node had.
type HistoryEntry struct {
	// artifact is REPOSITORY@sha256:HEX.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`@sha256:[a-f0-9]{64}$`
	// +required
	Artifact string `json:"artifact,omitempty"`

	// completedAt is when the last node had it.
	//
	// +required
	CompletedAt metav1.Time `json:"completedAt"`
}

// NodeFailure is one node that is not as wanted, and why.
type NodeFailure struct {
	// node is the node's name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Node string `json:"node,omitempty"`

	// digest is the one that the node was to install.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	// +optional
	Digest string `json:"digest,omitempty"`

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
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}
