// Package rollout decides which node gets which artifact of one
// SecurityProfile, as a pure function: the same input gives the same decision,
// so a controller that was restarted anywhere goes on where it was.
//
// What nodes are assigned is the state. The RolloutStatus adds what cannot be
// told from it: whether the rollout was stopped, when it last moved, and that
// its canaries passed. All times are those of the controller's clock; a node's
// clock can make a soak longer, and nothing shorter.
package rollout

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// MaxHistory bounds the history of a SecurityProfile.
const MaxHistory = 10

// Defaults of spec.rollout, the same as in the CRD.
const (
	DefaultMaxConcurrent    = "25%"
	DefaultFailureThreshold = 1
	DefaultProgressDeadline = 600 * time.Second
)

// Node is one selected node.
type Node struct {
	// Name of the node.
	Name string
	// Eligible: it is Ready and so is the agent on it. Others keep what they
	// have during a rollout and never hold one up.
	Eligible bool
	// Canary: the canary's nodeSelector matches it.
	Canary bool
	// Excluded: it has too many profiles to get this one. That counts as a
	// refusal.
	Excluded bool
	// Assigned is the artifact that the node is assigned now; empty for none.
	Assigned string
	// Verdict is what the node reports about Assigned.
	Verdict Verdict
	// Since is when the node says that Assigned came into force, in Unix
	// seconds; 0 where it does not. It can only make a soak longer.
	Since int64
}

// Input is all that a decision rests on.
type Input struct {
	// UID of the SecurityProfile: part of the order of nodes.
	UID string
	// Generation is metadata.generation.
	Generation int64
	// Target is spec.artifact as REPOSITORY@DIGEST. Empty means that the spec
	// cannot be used: then nodes keep what they have.
	Target string
	// Spec is spec.rollout; nil means the defaults.
	Spec *v1alpha1.Rollout
	// Status is status.rollout as it was written last; nil for none.
	Status *v1alpha1.RolloutStatus
	// Ready is status.nodes.ready as it was written together with Status.
	Ready int32
	// History is status.history, the newest first.
	History []v1alpha1.HistoryEntry
	// Nodes are all selected nodes, in any order.
	Nodes []Node
	// Now is the controller's time.
	Now time.Time
}

// Output is the decision.
type Output struct {
	// Assign is the artifact for each of Input.Nodes, in that order; empty
	// means that the node gets none.
	Assign []string
	// Status and History are to be written before anything of Assign, where
	// Durable says that they changed in what decisions rest on.
	Status  v1alpha1.RolloutStatus
	History []v1alpha1.HistoryEntry
	Durable bool
	// Counts of the nodes.
	Counts v1alpha1.NodeCounts
	// Progressing, Reason and Message are the condition Progressing.
	Progressing bool
	Reason      string
	Message     string
	// Next is when to look again though nothing changed; zero means never.
	Next time.Time
}

// Complete reports whether every eligible node has the target.
func (o Output) Complete() bool { return o.Reason == v1alpha1.ReasonRolloutComplete }

// settings are spec.rollout with its defaults, in numbers.
type settings struct {
	paused           bool
	canary           *v1alpha1.Canary
	maxConcurrent    int
	failureThreshold int
	deadline         time.Duration
	rollback         bool
}

// read resolves percentages against the number of eligible nodes.
func read(spec *v1alpha1.Rollout, eligible int) settings {
	if spec == nil {
		spec = &v1alpha1.Rollout{}
	}
	s := settings{
		paused: spec.Paused, canary: spec.Canary,
		maxConcurrent:    share(spec.MaxConcurrent, DefaultMaxConcurrent, eligible),
		failureThreshold: share(spec.FailureThreshold, "", eligible),
		deadline:         DefaultProgressDeadline,
		rollback:         spec.OnFailure == v1alpha1.OnFailureRollback,
	}
	// All nodes refusing is a failure, however many there are.
	s.failureThreshold = min(s.failureThreshold, max(eligible, 1))
	if spec.ProgressDeadlineSeconds != nil {
		s.deadline = time.Duration(*spec.ProgressDeadlineSeconds) * time.Second
	}
	return s
}

// stamp rounds up to the second, the granularity of the API: what was stored
// never makes a wait shorter.
func stamp(t time.Time) *metav1.Time {
	up := t.Truncate(time.Second)
	if up.Before(t) {
		up = up.Add(time.Second)
	}
	return &metav1.Time{Time: up}
}
