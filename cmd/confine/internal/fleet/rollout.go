package fleet

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// Outcome is whether a rollout is over.
type Outcome string

// The outcomes.
const (
	// Complete: every eligible node was given the artifact, and no more refused
	// it than the threshold allows.
	Complete Outcome = "Complete"
	// Failed: the rollout stopped by itself, or was rolled back.
	Failed Outcome = "Failed"
	// Waiting: it is under way, or paused.
	Waiting Outcome = "Waiting"
)

// Progress is how far a rollout is.
type Progress struct {
	Profile string `json:"profile"`
	// Artifact is what spec wants, and Digest its digest.
	Artifact string  `json:"artifact"`
	Digest   string  `json:"digest"`
	Outcome  Outcome `json:"outcome"`
	// Stage is one word, the reason of the condition Progressing or the word of
	// Profile.Status.
	Stage    string                 `json:"stage"`
	Message  string                 `json:"message,omitempty"`
	Nodes    v1alpha1.NodeCounts    `json:"nodes"`
	Failures []v1alpha1.NodeFailure `json:"failures,omitempty"`
	// Kinds are those that the artifact has in force; see Effect.
	Kinds []string `json:"kinds,omitempty"`
}

// ProgressOf says how far the rollout of a SecurityProfile is.
func ProgressOf(p *v1alpha1.SecurityProfile) Progress {
	out := Progress{
		Profile: KeyOf(p).String(), Artifact: p.Spec.Artifact, Digest: digestOf(p.Spec.Artifact),
		Outcome: Waiting, Nodes: counts(p),
	}
	progressing, ready := condition(p, v1alpha1.ConditionProgressing), condition(p, v1alpha1.ConditionReady)
	degraded := condition(p, v1alpha1.ConditionDegraded)
	if !p.DeletionTimestamp.IsZero() || !observed(p) {
		out.Stage, out.Message = word(p)
		out.Nodes = v1alpha1.NodeCounts{} // they are about another artifact
		return out
	}
	out.Failures, out.Kinds = p.Status.Failures, KindsOf(p.Status.References)
	switch {
	case degraded.Status == metav1.ConditionTrue && degraded.Reason == v1alpha1.ReasonRolledBack:
		out.Outcome, out.Stage, out.Message = Failed, degraded.Reason, cmp.Or(degraded.Message, stopped(p))
	case stopped(p) != "":
		out.Outcome, out.Stage, out.Message = Failed, stopped(p), progressing.Message
	case progressing.Status == metav1.ConditionTrue:
		out.Stage, out.Message = progressing.Reason, progressing.Message
	case progressing.Status == metav1.ConditionFalse && over(progressing.Reason, ready):
		out.Outcome, out.Stage, out.Message = Complete, progressing.Reason, progressing.Message
	default:
		out.Stage, out.Message = cmp.Or(progressing.Reason, v1alpha1.ReasonPending), progressing.Message
	}
	if out.Stage == v1alpha1.ReasonPaused {
		out.Message = cmp.Or(out.Message, "spec.rollout.paused is set")
	}
	return out
}

func over(reason string, ready metav1.Condition) bool {
	switch reason {
	case v1alpha1.ReasonRolloutComplete, v1alpha1.ReasonNoNodes:
		return true
	case v1alpha1.ReasonPaused:
		return false
	default:
		return ready.Status == metav1.ConditionTrue
	}
}

// Eligible is how many nodes count for the rollout.
func (p Progress) Eligible() int32 { return max(0, p.Nodes.Total-p.Nodes.Unavailable) }

// Line is the progress as one line of text, the same for the same progress.
func (p Progress) Line() string {
	text := fmt.Sprintf("%s %s: %s: %d of %d nodes ready, %d updated, %d failed",
		p.Profile, short(p.Digest), p.Stage, p.Nodes.Ready, p.Eligible(), p.Nodes.Updated, p.Nodes.Failed)
	if p.Nodes.Unavailable > 0 {
		text += fmt.Sprintf(", %d unavailable", p.Nodes.Unavailable)
	}
	if p.Message != "" {
		text += ": " + p.Message
	}
	return text
}

// The width of the bar itself.
const (
	minBar, maxBar = 10, 40
	defaultWidth   = 80
)

// Bar is the progress as one line of at most width columns: "#" is a ready
// node, "!" a failed one, "+" one on its way, "." one that keeps what it has.
// A width of zero means 80.
func (p Progress) Bar(width int, elapsed time.Duration) string {
	if width <= 0 {
		width = defaultWidth
	}
	size := min(maxBar, max(minBar, width-40))
	total := int(p.Eligible())
	cells := make([]byte, size)
	ready, failed := int(p.Nodes.Ready), int(p.Nodes.Failed)
	moving := max(0, min(int(p.Nodes.Updated), total)-ready-failed)
	for i := range cells {
		// The node that the middle of this cell stands for.
		node := (2*i + 1) * total / (2 * size)
		switch {
		case total == 0 || node >= ready+failed+moving:
			cells[i] = '.'
		case node < ready:
			cells[i] = '#'
		case node < ready+failed:
			cells[i] = '!'
		default:
			cells[i] = '+'
		}
	}
	text := fmt.Sprintf("[%s] %d/%d ready", cells, p.Nodes.Ready, total)
	if failed > 0 {
		text += fmt.Sprintf(", %d failed", failed)
	}
	text += "  " + p.Stage + "  " + duration.HumanDuration(elapsed)
	if len(text) > width {
		text = text[:width]
	}
	return strings.TrimRight(text, " ")
}
