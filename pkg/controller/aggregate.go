package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds of lists in the status of a SecurityProfile, as in the CRD.
const (
	maxFailures     = 10
	maxReferences   = 64
	maxMessageBytes = 256
)

// summary is all that a status is made of.
type summary struct {
	profile *profileInfo
	out     rollout.Output
	nodes   []rollout.Node
	// reports are those of nodes about what they are assigned; nil for none.
	reports []*report
	now     time.Time
}

// condition is a condition without the fields that all have alike.
type condition struct {
	status  metav1.ConditionStatus
	reason  string
	message string
}

// summarize returns the status of a profile. What did not change is as it was,
// times too, so that equal means that there is nothing to write.
func summarize(s summary) *v1alpha1.SecurityProfileStatus {
	object := s.profile.object
	old := s.profile.status()
	status := &v1alpha1.SecurityProfileStatus{ObservedGeneration: object.Generation, History: s.out.History}
	counts, rolloutStatus := s.out.Counts, s.out.Status
	status.Nodes, status.Rollout = &counts, &rolloutStatus
	status.References = s.references(old)
	status.Failures = s.failures()
	status.Conditions = slices.Clone(old.Conditions)
	for _, c := range []struct {
		name  string
		state condition
	}{
		{v1alpha1.ConditionVerified, s.verified()},
		{v1alpha1.ConditionProgressing, s.progressing()},
		{v1alpha1.ConditionReady, s.ready()},
		{v1alpha1.ConditionDegraded, s.degraded()},
	} {
		apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: c.name, Status: c.state.status, Reason: c.state.reason, Message: c.state.message,
			ObservedGeneration: object.Generation, LastTransitionTime: metav1.NewTime(s.now.Truncate(time.Second)),
		})
	}
	return status
}

// verified is about the effective digest: one refusal makes it False.
func (s summary) verified() condition {
	if e := s.profile.err; e != nil {
		return condition{metav1.ConditionFalse, string(e.Reason), specMessage(e)}
	}
	refused, undecided := map[string]int{}, map[string]int{}
	verified := false
	for i, r := range s.reports {
		if r == nil || s.nodes[i].Assigned != s.out.Status.EffectiveArtifact {
			continue
		}
		switch r.verified {
		case metav1.ConditionTrue:
			verified = true
		case metav1.ConditionFalse:
			refused[wordOf(r)]++
		default:
			if r.reason != "" {
				undecided[r.reason]++
			}
		}
	}
	switch {
	case len(refused) > 0:
		why := mostOften(refused)
		return condition{metav1.ConditionFalse, why, fmt.Sprintf("%d nodes refuse it for %s: %s", refused[why], why, reason.Reason(why).Advice())}
	case verified:
		return condition{metav1.ConditionTrue, v1alpha1.ReasonVerified, "verified by each node that judged it"}
	case len(undecided) > 0:
		why := mostOften(undecided)
		return condition{metav1.ConditionUnknown, why, fmt.Sprintf("%d nodes cannot verify it for %s: %s", undecided[why], why, reason.Reason(why).Advice())}
	}
	return condition{metav1.ConditionUnknown, v1alpha1.ReasonPending, "no node has judged it yet"}
}

func (s summary) progressing() condition {
	if e := s.profile.err; e != nil {
		return condition{metav1.ConditionFalse, string(e.Reason), specMessage(e)}
	}
	status := metav1.ConditionFalse
	if s.out.Progressing {
		status = metav1.ConditionTrue
	}
	return condition{status, s.out.Reason, s.out.Message}
}

func (s summary) ready() condition {
	counts := s.out.Counts
	eligible := counts.Total - counts.Unavailable
	message := fmt.Sprintf("%d of %d available nodes have it in force", counts.Ready, eligible)
	switch {
	case s.profile.err != nil:
		return condition{metav1.ConditionFalse, string(s.profile.err.Reason), specMessage(s.profile.err)}
	case counts.Total == 0:
		return condition{metav1.ConditionFalse, v1alpha1.ReasonNoNodes, s.out.Message}
	case eligible == 0:
		return condition{metav1.ConditionUnknown, v1alpha1.ReasonPending, "no selected node is available"}
	case s.out.Reason == v1alpha1.ReasonRolledBack, s.out.Reason == v1alpha1.ReasonRollingBack:
		return condition{metav1.ConditionFalse, s.out.Reason, s.out.Message}
	case counts.Ready == eligible:
		return condition{metav1.ConditionTrue, v1alpha1.ReasonAsWanted, message}
	case counts.Failed > 0:
		return condition{metav1.ConditionFalse, s.whyFailed(), message}
	case s.out.Complete():
		return condition{metav1.ConditionFalse, v1alpha1.ReasonPending, message}
	}
	return condition{metav1.ConditionFalse, s.out.Reason, message}
}

// degraded is about what is in force, of whatever digest.
func (s summary) degraded() condition {
	degraded := map[string]int{}
	for _, r := range s.reports {
		if r != nil && r.degraded {
			degraded[wordOf(r)]++
		}
	}
	counts := s.out.Counts
	switch {
	case len(degraded) > 0:
		why := mostOften(degraded)
		return condition{metav1.ConditionTrue, why, fmt.Sprintf("%d nodes have in force what should not be, for %s: %s", degraded[why], why, reason.Reason(why).Advice())}
	case s.out.Reason == v1alpha1.ReasonRolledBack:
		return condition{metav1.ConditionTrue, v1alpha1.ReasonRolledBack, s.out.Message}
	case s.out.Complete() && counts.Failed > 0:
		return condition{metav1.ConditionTrue, s.whyFailed(), fmt.Sprintf("%d of %d available nodes refuse it", counts.Failed, counts.Total-counts.Unavailable)}
	}
	return condition{metav1.ConditionFalse, v1alpha1.ReasonAsWanted, "nothing is in force that should not be"}
}

// whyFailed returns the reason that most nodes give.
func (s summary) whyFailed() string {
	why := map[string]int{}
	for i, n := range s.nodes {
		switch {
		case !n.Eligible:
		case n.Excluded:
			why[string(reason.TooLarge)]++
		case s.reports[i] != nil && n.Verdict == rollout.Bad:
			why[wordOf(s.reports[i])]++
		}
	}
	if len(why) == 0 {
		return s.out.Reason
	}
	return mostOften(why)
}

// failures picks at most maxFailures nodes: one for each reason first, each
// time by name, so that the same failures give the same list.
func (s summary) failures() []v1alpha1.NodeFailure {
	var first, more []v1alpha1.NodeFailure
	seen := map[string]bool{}
	for i := range s.nodes {
		failure, ok := s.failure(i)
		switch {
		case !ok:
		case !seen[failure.Reason]:
			seen[failure.Reason] = true
			first = append(first, failure)
		case len(more) < maxFailures:
			more = append(more, failure)
		}
	}
	all := append(first, more...)
	return all[:min(len(all), maxFailures)]
}

// failure describes one node that is not as wanted, and says why.
func (s summary) failure(i int) (v1alpha1.NodeFailure, bool) {
	node, r := &s.nodes[i], s.reports[i]
	switch {
	case node.Excluded:
		return v1alpha1.NodeFailure{
			Node: node.Name, Reason: string(reason.TooLarge),
			Message: fmt.Sprintf("the node has %d older profiles, and no place for more: select fewer profiles for it", v1alpha1.MaxNodeProfiles),
		}, true
	case r == nil || node.Verdict == rollout.Ready:
		return v1alpha1.NodeFailure{}, false
	case r.state == v1alpha1.StateFailed, r.reason != "":
		return v1alpha1.NodeFailure{
			Node: node.Name, Digest: r.wanted, Reason: wordOf(r), Message: shorten(r.message),
		}, true
	}
	return v1alpha1.NodeFailure{}, false
}

// references are how pods name the payloads of the effective digest: what the
// nodes that have it say, else what was known before. What most nodes say comes
// first, so that no single one crowds it out.
func (s summary) references(old *v1alpha1.SecurityProfileStatus) []v1alpha1.PayloadReference {
	effective := s.out.Status.EffectiveArtifact
	said := map[string]int{}
	for i, r := range s.reports {
		if r != nil && r.kinds != "" && s.nodes[i].Assigned == effective && s.nodes[i].Verdict == rollout.Ready {
			said[r.kinds]++
		}
	}
	if len(said) == 0 {
		return old.References
	}
	var found []v1alpha1.PayloadReference
	seen := map[v1alpha1.PayloadReference]bool{}
	for _, kinds := range slices.SortedFunc(maps.Keys(said), func(a, b string) int {
		return cmp.Or(cmp.Compare(said[b], said[a]), strings.Compare(a, b))
	}) {
		for _, r := range decodeKinds(kinds) {
			if !seen[r] && len(found) < maxReferences {
				seen[r] = true
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, func(a, b v1alpha1.PayloadReference) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return found
}

// wordOf returns the report's reason; a refusal always has one.
func wordOf(r *report) string { return cmp.Or(r.reason, string(reason.InstallFailed)) }

// mostOften returns the word counted most often, the first by name of equals.
func mostOften(counts map[string]int) string {
	best := ""
	for word, n := range counts {
		if best == "" || n > counts[best] || n == counts[best] && word < best {
			best = word
		}
	}
	return best
}

func specMessage(e *reason.Error) string { return e.Error() + ": " + e.WhatToDo() }

// shorten cuts a message to the bytes that the API allows, between characters.
func shorten(message string) string {
	if len(message) <= maxMessageBytes {
		return message
	}
	cut := maxMessageBytes
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut]
}
