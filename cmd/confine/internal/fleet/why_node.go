package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
)

// node is about one node: what it is given, whether its agent works, what the
// agent says, and what is in force.
func (c Case) node() (Share, []Step) {
	if c.NodeErr != nil {
		return Share{}, []Step{c.sample(), c.agent()}
	}
	if c.Node == nil {
		s := step(LinkAssignment, Stuck, "the controller has made no ProfileNode %s", c.NodeName).advise("%s", lookAtController)
		if c.Machine == nil && c.Asked && c.MachineErr == nil {
			s = s.following()
		}
		return Share{}, []Step{s}
	}
	share, ok := ShareOf(c.Node, c.Key)
	steps := []Step{c.assignment(share, ok), c.agent()}
	for _, p := range problemsOf(c.Node) {
		steps = append(steps, step(LinkAgent, Stuck, "%s", p.Message).because(reason.Reason(p.Reason)))
	}
	if !ok {
		return share, steps
	}
	if share.AssignedDigest != "" {
		steps = append(steps, c.verdict(share))
	}
	return share, append(steps, c.installed(share)...)
}

func problemsOf(n *v1alpha1.ProfileNode) []v1alpha1.NodeProblem {
	if n.Status == nil {
		return nil
	}
	return n.Status.Problems
}

// sample stands in for a ProfileNode that the user may not read: the resource
// itself lists some failures.
func (c Case) sample() Step {
	if c.Profile.Status != nil {
		for _, f := range c.Profile.Status.Failures {
			if f.Node == c.NodeName {
				s := step(LinkVerdict, Stuck, "%s: %s: %s", f.Node, f.Reason, f.Message).because(reason.Reason(f.Reason))
				if s.Reason.Fate() == reason.Retry {
					s.Mark = Wait
				}
				return s
			}
		}
	}
	return notKnown(LinkAssignment, "what "+c.NodeName+" is given and says is not known to you", c.NodeErr)
}

func (c Case) assignment(share Share, ok bool) Step {
	wanted := ProfileOf(c.Profile).Digest
	switch {
	case share.AssignedDigest == "" && ok:
		return step(LinkAssignment, Stuck, "%s is no longer given it, and removes it", c.NodeName).
			advise("check spec.nodeSelector against the node's labels")
	case share.AssignedDigest == "":
		return step(LinkAssignment, Wait, "%s is not given it yet: its turn comes with the rollout", c.NodeName).
			advise("confine rollout status %s -n %s shows how far it is", c.Key.Name, c.Key.Namespace).following()
	case share.AssignedDigest != wanted:
		return step(LinkAssignment, Wait, "%s is still given %s: its turn for %s comes with the rollout",
			c.NodeName, short(share.AssignedDigest), short(wanted)).
			advise("confine rollout status %s -n %s shows how far it is", c.Key.Name, c.Key.Namespace).following()
	default:
		return step(LinkAssignment, OK, "%s is given %s", c.NodeName, short(wanted))
	}
}

// agent is about the agent's pod on the node.
func (c Case) agent() Step {
	version := ""
	if c.Node != nil && c.Node.Status != nil {
		version = ", version " + cmp.Or(c.Node.Status.AgentVersion, "unknown")
	}
	if c.AgentErr != nil {
		s := notKnown(LinkAgent, "whether an agent runs on "+c.NodeName+" is not known to you", c.AgentErr)
		if version != "" {
			s.Message = "one has reported" + version + "; " + s.Message
		}
		return s
	}
	advice := "kubectl get pods -A -o wide -l app.kubernetes.io/name=confine,app.kubernetes.io/component=agent"
	if len(c.Agents) == 0 {
		return step(LinkAgent, Stuck, "no agent pod is on %s", c.NodeName).
			advise("check the DaemonSet confine-agent, its tolerations and node selector: %s", advice)
	}
	pod := c.Agents[0]
	if i := slices.IndexFunc(c.Agents, func(p corev1.Pod) bool { return podReady(&p) }); i >= 0 {
		pod = c.Agents[i]
	}
	name := pod.Namespace + "/" + pod.Name
	if !podReady(&pod) {
		return step(LinkAgent, Stuck, "the agent %s is not Ready: %s", name, podTrouble(&pod)).
			advise("kubectl -n %s describe pod %s; kubectl -n %s logs %s", pod.Namespace, pod.Name, pod.Namespace, pod.Name)
	}
	if version == "" {
		return step(LinkAgent, Wait, "the agent %s is Ready and has not reported yet", name).advise("kubectl -n %s logs %s", pod.Namespace, pod.Name)
	}
	if c.Machine != nil && c.Node.Status.NodeUID != "" && c.Node.Status.NodeUID != string(c.Machine.UID) {
		return step(LinkAgent, Wait, "the report is about an earlier node called %s", c.NodeName).
			advise("the agent reports anew by itself: kubectl -n %s logs %s", pod.Namespace, pod.Name)
	}
	return step(LinkAgent, OK, "%s is Ready%s", name, version)
}

// verdict is what the node thinks of the digest that it is given.
func (c Case) verdict(share Share) Step {
	r := reason.Reason(share.Reason)
	text := share.Reason
	if share.Message != "" {
		text += ": " + share.Message
	}
	switch {
	case !share.current:
		return step(LinkVerdict, Wait, "%s has not reported on %s yet", c.NodeName, short(share.AssignedDigest)).
			advise("it takes seconds; where it takes longer, look at the agent's log").following()
	case share.Degraded:
		return step(LinkVerdict, Stuck, "%s keeps in force what should not be: %s", c.NodeName, text).because(r)
	case r != "" && r.Fate() == reason.Retry:
		return step(LinkVerdict, Wait, "%s", text).because(r)
	case share.State == string(v1alpha1.StateFailed), r != "" && share.State != string(v1alpha1.StateInstalled),
		share.Verified == string(metav1.ConditionFalse):
		return step(LinkVerdict, Stuck, "%s", cmp.Or(text, "refused")).because(r)
	case share.State == string(v1alpha1.StatePending):
		return step(LinkVerdict, Wait, "%s is pulling and verifying it", c.NodeName).advise("it takes seconds")
	default:
		return step(LinkVerdict, OK, "verified by %s", c.NodeName)
	}
}

// installed is what is in force on the node.
func (c Case) installed(share Share) []Step {
	var steps []Step
	since := ""
	if !share.Since.IsZero() {
		since = " for " + duration.HumanDuration(c.Now.Sub(share.Since.Time))
	}
	switch {
	case share.State == string(v1alpha1.StateRemoving):
		steps = append(steps, step(LinkInstalled, Note, "%s goes at %s, once no pod on %s names it",
			short(share.InstalledDigest), share.RemoveAt.UTC().Format("15:04:05"), c.NodeName))
	case share.InstalledDigest == "":
		steps = append(steps, step(LinkInstalled, Wait, "nothing is in force on %s: pods that name it stay in CreateContainerError", c.NodeName).following())
	case share.InstalledDigest != share.AssignedDigest:
		steps = append(steps, step(LinkInstalled, Wait, "the last good %s stays in force on %s%s",
			short(share.InstalledDigest), c.NodeName, since).following())
	default:
		steps = append(steps, step(LinkInstalled, OK, "in force on %s%s", c.NodeName, since))
	}
	for _, k := range share.kinds {
		text := k.Name
		if len(k.References) > 0 {
			text += " as " + strings.Join(k.References, ", ")
		}
		if k.Reason == "" {
			steps = append(steps, step(LinkInstalled, OK, "%s", text))
			continue
		}
		steps = append(steps, c.kind(share, k, text))
	}
	return steps
}

// kind is about a kind of profile that is not as wanted on the node.
func (c Case) kind(share Share, k v1alpha1.KindReport, text string) Step {
	mark := Stuck
	if share.State == string(v1alpha1.StateInstalled) {
		mark = Note // spec.kinds is Supported: the others count
	}
	why := ""
	if c.Node.Status != nil {
		for _, supported := range c.Node.Status.Kinds {
			if supported.Name == k.Name && supported.Message != "" {
				why = ": " + supported.Message
			}
		}
	}
	s := step(LinkInstalled, mark, "%s: %s on %s%s", text, k.Reason, c.NodeName, why)
	if k.Reason == string(reason.KindUnsupported) && k.Name == "selinux" {
		s = s.advise("use a node with SELinux on, and with enable_selinux = true in containerd: without it, as is its default, containerd ignores what pods ask for")
	}
	return s.because(reason.Reason(k.Reason)).following()
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podTrouble is what keeps a pod from running, as its kubelet says.
func podTrouble(p *corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" {
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("%s: %s", c.Reason, c.Message)
		}
	}
	return "phase " + cmp.Or(string(p.Status.Phase), "unknown")
}
