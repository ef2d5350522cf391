package fleet

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/intent"
	"github.com/confine-dev/confine/pkg/reason"
)

// patience is how long a controller may take to see a new object.
const patience = 60 // seconds

const lookAtController = "check the controller: kubectl get pods -A -l app.kubernetes.io/name=confine,app.kubernetes.io/component=controller"

// profile is about the resource itself.
func (c Case) profile() []Step {
	p := c.Profile
	age := c.Now.Sub(p.CreationTimestamp.Time)
	steps := []Step{step(LinkProfile, OK, "%s pins %s, %s old", c.Key, p.Spec.Artifact, duration.HumanDuration(age))}
	if !p.DeletionTimestamp.IsZero() {
		steps[0] = step(LinkProfile, Stuck, "%s is being deleted", c.Key).
			advise("nodes remove it after their removal delay; apply it again if that is not meant")
	}
	if observed(p) {
		return steps
	}
	what := "the controller has not seen this version of it yet"
	if p.Status == nil && age.Seconds() > patience {
		return append(steps, step(LinkProfile, Stuck, "%s", what).advise("%s", lookAtController))
	}
	return append(steps, step(LinkProfile, Wait, "%s", what).advise("%s", lookAtController))
}

// selection is about which nodes are meant.
func (c Case) selection() []Step {
	var steps []Step
	n := counts(c.Profile)
	switch {
	case !observed(c.Profile):
	case n.Total == 0:
		steps = append(steps, step(LinkSelection, Stuck, "spec.nodeSelector selects no node").
			advise("change spec.nodeSelector, or label nodes: kubectl get nodes --show-labels"))
	default:
		text := fmt.Sprintf("%d nodes are selected", n.Total)
		if n.Unavailable > 0 {
			text += fmt.Sprintf(", %d of them unavailable (not Ready, or without a Ready agent)", n.Unavailable)
		}
		steps = append(steps, step(LinkSelection, OK, "%s", text))
	}
	if !c.Asked {
		return steps
	}
	return append(steps, c.selected())
}

// selected is about the node that a person named.
func (c Case) selected() Step {
	if c.MachineErr != nil {
		return notKnown(LinkSelection, "whether "+c.NodeName+" is selected is not known", c.MachineErr)
	}
	if c.Machine == nil {
		return step(LinkSelection, Stuck, "there is no node %s", c.NodeName).advise("kubectl get nodes lists them")
	}
	if os := c.Machine.Labels[corev1.LabelOSStable]; os != "" && os != "linux" {
		return step(LinkSelection, Stuck, "%s runs %s, and profiles are for Linux", c.NodeName, os).advise("choose a Linux node")
	}
	selector, err := metav1.LabelSelectorAsSelector(c.Profile.Spec.NodeSelector)
	if err != nil {
		return step(LinkSelection, Stuck, "spec.nodeSelector cannot be read: %v", err).advise("mend spec.nodeSelector")
	}
	if c.Profile.Spec.NodeSelector != nil && !selector.Matches(labels.Set(c.Machine.Labels)) {
		return step(LinkSelection, Stuck, "%s is not selected: its labels do not match %q", c.NodeName, selector).
			advise("label the node, or change spec.nodeSelector")
	}
	if !nodeReady(c.Machine) {
		return step(LinkSelection, Wait, "%s is selected, but not Ready", c.NodeName).
			advise("it catches up when the node is Ready: kubectl describe node %s", c.NodeName)
	}
	return step(LinkSelection, OK, "%s is selected and Ready", c.NodeName)
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// trust is about the policies that match. Nodes judge; this only foretells it.
func (c Case) trust() Step {
	ref, err := reference.ParsePinned(c.Profile.Spec.Artifact)
	if err != nil {
		return step(LinkTrust, Stuck, "%v", err).because(reason.UnsupportedArtifact)
	}
	if c.PoliciesErr != nil {
		return notKnown(LinkTrust, "which TrustPolicies match is not known to you; the nodes' verdicts below say the same", c.PoliciesErr)
	}
	plain := make([]trust.Policy, 0, len(c.Policies))
	for i := range c.Policies {
		policy, err := intent.PolicyOf(&c.Policies[i])
		if err != nil {
			return step(LinkTrust, Stuck, "TrustPolicy %s: %v", c.Policies[i].Name, err).because(reason.TrustPolicyInvalid)
		}
		plain = append(plain, policy)
	}
	policies, err := trust.Compile(plain)
	if err != nil {
		return refused(LinkTrust, err)
	}
	matched, err := policies.Matching(ref.Repository, c.Key.Namespace)
	if err == nil {
		err = matched.CheckRevoked(ref.Digest)
	}
	if err != nil {
		return refused(LinkTrust, err)
	}
	return step(LinkTrust, OK, "matched by TrustPolicy %s", strings.Join(matched.Names(), ", "))
}

// refused is a link that one of Confine's own checks refuses.
func refused(link string, err error) Step {
	e, ok := errors.AsType[*reason.Error](err)
	if !ok {
		return step(link, Stuck, "%v", err)
	}
	return step(link, Stuck, "%v", err).advise("%s", e.WhatToDo()).because(e.Reason)
}

// rollout is about how far the waves are.
func (c Case) rollout() Step {
	if !observed(c.Profile) {
		return step(LinkRollout, Wait, "not begun").following()
	}
	p := ProgressOf(c.Profile)
	text := fmt.Sprintf("%s: %d of %d ready, %d updated, %d failed", p.Stage, p.Nodes.Ready, p.Eligible(), p.Nodes.Updated, p.Nodes.Failed)
	if p.Message != "" {
		text += ": " + p.Message
	}
	switch {
	case p.Outcome == Failed:
		advice := "mend the cause below and change spec.artifact; confine rollout undo goes back"
		if p.Stage == v1alpha1.ReasonProgressDeadlineExceeded {
			advice = "see the nodes that do not get ready below"
		}
		return step(LinkRollout, Stuck, "%s", text).advise("%s", advice).following()
	case p.Stage == v1alpha1.ReasonPaused:
		return step(LinkRollout, Stuck, "%s", text).
			advise("confine rollout resume %s -n %s lets it go on", c.Key.Name, c.Key.Namespace)
	case p.Outcome == Complete:
		return step(LinkRollout, OK, "%s", text)
	default:
		return step(LinkRollout, Wait, "%s", text).advise("confine rollout status %s -n %s shows it live", c.Key.Name, c.Key.Namespace).following()
	}
}
