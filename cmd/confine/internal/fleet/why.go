package fleet

import (
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
)

// Mark says how one link of the chain is.
type Mark string

// The marks.
const (
	// OK: this link holds.
	OK Mark = "ok"
	// Wait: it goes on by itself.
	Wait Mark = "waiting"
	// Stuck: somebody has to do something.
	Stuck Mark = "stuck"
	// Unknown: it cannot be told, for example because the user may not look.
	Unknown Mark = "unknown"
	// Note: worth knowing, and not in the way.
	Note Mark = "note"
)

// The links of the chain, in their order.
const (
	LinkProfile    = "SecurityProfile"
	LinkSelection  = "selection"
	LinkTrust      = "trust"
	LinkRollout    = "rollout"
	LinkAssignment = "assignment"
	LinkAgent      = "agent"
	LinkVerdict    = "verdict"
	LinkInstalled  = "installed"
	LinkPods       = "pods"
)

// Step is what is known about one link. A link can have several.
type Step struct {
	Link    string `json:"link"`
	Mark    Mark   `json:"mark"`
	Message string `json:"message"`
	// Reason is of the closed set, where one is known.
	Reason reason.Reason `json:"reason,omitempty"`
	// Advice says what to do; empty where nothing needs to be done.
	Advice string `json:"advice,omitempty"`
	// consequence is set where another stuck link is the cause.
	consequence bool
}

// Chain is the way of one profile to the kernel of one node.
type Chain struct {
	Profile string `json:"profile"`
	// Node is the one that the second half is about; empty for none.
	Node   string `json:"node,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Mark is that of the link it hangs on: stuck, waiting, unknown, or ok.
	Mark Mark `json:"mark"`
	// At is that link; empty where all is well.
	At string `json:"at,omitempty"`
	// Reason, Message and Advice are those of that link.
	Reason  reason.Reason `json:"reason,omitempty"`
	Message string        `json:"message,omitempty"`
	Advice  string        `json:"advice,omitempty"`
	Steps   []Step        `json:"steps"`
}

// Case is what was found out about one profile and one node. An error in it
// says that this part is not known, and why.
type Case struct {
	Key types.NamespacedName
	// Profile is nil where there is none.
	Profile *v1alpha1.SecurityProfile

	Policies    []v1alpha1.TrustPolicy
	PoliciesErr error

	// NodeName is the node; empty where no node is known.
	NodeName string
	// Asked is set where a person named the node.
	Asked bool
	// Node is nil where there is no such ProfileNode.
	Node    *v1alpha1.ProfileNode
	NodeErr error
	// Machine is nil where there is no such Node.
	Machine    *corev1.Node
	MachineErr error
	// Agents are the agent's pods on the node.
	Agents   []corev1.Pod
	AgentErr error

	// Pods are those of the profile's namespace, on the node where Asked is set.
	Pods    []corev1.Pod
	PodsErr error

	// Others says in a few words how the other nodes are.
	Others string
	Now    time.Time
}

// Explain follows the chain from the resource to the kernel.
func Explain(c Case) Chain {
	chain := Chain{Profile: c.Key.String(), Node: c.NodeName}
	var steps []Step
	if c.Profile == nil {
		steps = append(c.absent(), c.pods(Share{})...)
		return chain.judged(steps)
	}
	chain.Digest = ProfileOf(c.Profile).Digest
	steps = append(steps, c.profile()...)
	steps = append(steps, c.selection()...)
	steps = append(steps, c.trust())
	steps = append(steps, c.rollout())
	var share Share
	if c.NodeName != "" {
		var more []Step
		share, more = c.node()
		if c.Asked && share.inForce(chain.Digest) {
			steps = unhurried(steps)
		}
		steps = append(steps, more...)
	} else if c.NodeErr != nil {
		steps = append(steps, notKnown(LinkAssignment, "how the nodes are is not known to you", c.NodeErr))
	}
	return chain.judged(append(steps, c.pods(share)...))
}

// unhurried makes a rollout that goes on elsewhere no concern of a node that is
// as wanted.
func unhurried(steps []Step) []Step {
	for i := range steps {
		if steps[i].Link == LinkRollout && steps[i].Mark != OK {
			steps[i].Mark = Note
		}
	}
	return steps
}

// judged finds the link that it hangs on: the first that is stuck for a cause
// of its own, else the first that is stuck, waits, or is unknown.
func (c Chain) judged(steps []Step) Chain {
	c.Steps, c.Mark = steps, OK
	for _, hangs := range []func(Step) bool{
		func(s Step) bool { return s.Mark == Stuck && !s.consequence },
		func(s Step) bool { return s.Mark == Stuck },
		func(s Step) bool { return s.Mark == Wait && !s.consequence },
		func(s Step) bool { return s.Mark == Wait },
	} {
		if i := slices.IndexFunc(steps, hangs); i >= 0 {
			s := steps[i]
			c.Mark, c.At, c.Reason, c.Message, c.Advice = s.Mark, s.Link, s.Reason, s.Message, s.Advice
			return c
		}
	}
	return c
}

func step(link string, mark Mark, format string, args ...any) Step {
	return Step{Link: link, Mark: mark, Message: fmt.Sprintf(format, args...)}
}

func (s Step) advise(format string, args ...any) Step {
	s.Advice = fmt.Sprintf(format, args...)
	return s
}

// because gives a step a reason of the closed set, with its advice.
func (s Step) because(r reason.Reason) Step {
	s.Reason = r
	if s.Advice == "" {
		s.Advice = r.Advice()
	}
	return s
}

func (s Step) following() Step {
	s.consequence = true
	return s
}

// notKnown is a link that could not be looked at, with what the API server said
// about it.
func notKnown(link, what string, err error) Step {
	s := step(link, Unknown, "%s: %v", what, err)
	if advisor, ok := errors.AsType[interface {
		error
		WhatToDo() string
	}](err); ok {
		s.Advice = advisor.WhatToDo()
	}
	return s
}

func (c Case) absent() []Step {
	steps := []Step{step(LinkProfile, Stuck, "there is no SecurityProfile %s", c.Key).
		advise("apply one, or check name and namespace: confine status -A lists all")}
	if c.Node != nil {
		if share, ok := ShareOf(c.Node, c.Key); ok && share.State == string(v1alpha1.StateRemoving) {
			steps = append(steps, step(LinkInstalled, Note, "%s still has %s in force, until %s and no pod there names it",
				c.NodeName, short(share.InstalledDigest), share.RemoveAt.UTC().Format(time.RFC3339)))
		}
	}
	return steps
}
