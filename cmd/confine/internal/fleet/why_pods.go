package fleet

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/podref"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/profile/seccomp"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// maxPods bounds the pods that are listed one by one.
const maxPods = 10

// pods is about who uses the profile: the pods of its namespace.
func (c Case) pods(share Share) []Step {
	where := "in namespace " + c.Key.Namespace
	if c.Asked {
		where += " on " + c.NodeName
	}
	if c.PodsErr != nil {
		return []Step{notKnown(LinkPods, "which pods use it is not known", c.PodsErr)}
	}
	known := c.references(share)
	var steps []Step
	used := 0
	for i := range c.Pods {
		pod := &c.Pods[i]
		names := c.named(pod, known)
		if len(names) == 0 || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		used++
		steps = append(steps, c.pod(pod, names, known, share)...)
	}
	if used == 0 {
		s := step(LinkPods, Note, "no pod %s names it", where)
		if len(known) > 0 {
			s = s.advise("name it in a pod's securityContext: %s", strings.Join(known, ", "))
		}
		return []Step{s}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return markRank(a.Mark) - markRank(b.Mark) })
	if len(steps) > maxPods {
		steps = append(steps[:maxPods], step(LinkPods, Note, "and %d more of the %d pods %s that name it", len(steps)-maxPods, used, where))
	}
	return steps
}

func markRank(m Mark) int { return slices.Index([]Mark{Stuck, Wait, Unknown, Note, OK}, m) }

// references are how pods name what the artifact holds.
func (c Case) references(share Share) []string {
	if len(share.References) > 0 {
		return share.References
	}
	var names []string
	if c.Profile != nil && c.Profile.Status != nil {
		for _, r := range c.Profile.Status.References {
			names = append(names, r.Name)
		}
	}
	return names
}

// named are the references of a pod that are about this profile: those that it
// provides, and those below its folder that it does not.
func (c Case) named(pod *corev1.Pod, known []string) []string {
	folder := path.Join("confine", c.Key.Namespace, c.Key.Name) + "/"
	return slices.DeleteFunc(podref.References(&pod.Spec, pod.Annotations), func(name string) bool {
		return !slices.Contains(known, name) && !strings.HasPrefix(name, folder)
	})
}

func (c Case) pod(pod *corev1.Pod, names, known []string, share Share) []Step {
	var steps []Step
	if wrong := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(known, n) }); len(wrong) > 0 && len(known) > 0 {
		steps = append(steps, step(LinkPods, Stuck, "%s names %s, which the artifact does not have", pod.Name, strings.Join(wrong, ", ")).
			advise("name one of: %s", strings.Join(known, ", ")))
	}
	filtered, lost := c.namesFilter(names), c.lostToPrivileged(names)
	for _, name := range privileged(pod) {
		if lost != "" {
			steps = append(steps, step(LinkPods, Stuck, "%s: container %s is privileged: runtimes give it no %s, whatever it asks for", pod.Name, name, lost).
				advise("take privileged: true away, and add the capabilities that it needs"))
		}
	}
	if waiting := startTrouble(pod); waiting != "" {
		s := step(LinkPods, Stuck, "%s cannot start: %s", pod.Name, waiting).
			advise("kubectl -n %s describe pod %s", pod.Namespace, pod.Name)
		if share.InstalledDigest == "" {
			s.Advice = "it starts by itself once the profile is in force on its node"
		}
		return append(steps, s.following())
	}
	if pod.Spec.NodeName == "" {
		return append(steps, step(LinkPods, Wait, "%s waits for a node: %s", pod.Name, podTrouble(pod)))
	}
	if old := c.startedBefore(pod, share); old != "" && filtered {
		return append(steps, step(LinkPods, Note, "%s: container %s started before %s came into force, and keeps the seccomp filter it started with",
			pod.Name, old, short(share.InstalledDigest)).advise("restart the pod for the new one"))
	}
	if len(steps) > 0 {
		return steps
	}
	return append(steps, step(LinkPods, OK, "%s (%s, on %s) names %s", pod.Name, strings.ToLower(string(pod.Status.Phase)), pod.Spec.NodeName, strings.Join(names, ", ")))
}

// namesFilter reports whether one of the names is a seccomp profile's, or may be.
func (c Case) namesFilter(names []string) bool {
	return len(c.namesOf(names, seccomp.Name)) > 0 || len(c.namesOf(names, apparmor.Name))+len(c.namesOf(names, selinux.Name)) < len(names)
}

// lostToPrivileged is what privileged containers do not get of what a pod names:
// an AppArmor profile that is named holds for them, too (containerd,
// internal/cri/server/container_create.go and internal/cri/sputil).
func (c Case) lostToPrivileged(names []string) string {
	var lost []string
	if c.namesFilter(names) {
		lost = append(lost, "seccomp filter")
	}
	if len(c.namesOf(names, selinux.Name)) > 0 {
		lost = append(lost, "SELinux label")
	}
	return strings.Join(lost, " and no ")
}

// namesOf are those of the names that are of a kind.
func (c Case) namesOf(names []string, kind string) []string {
	var found []string
	if c.Profile == nil || c.Profile.Status == nil {
		return nil
	}
	for _, r := range c.Profile.Status.References {
		if r.Kind == kind && slices.Contains(names, r.Name) {
			found = append(found, r.Name)
		}
	}
	return found
}

// privileged are the containers that runtimes let do nearly everything.
func privileged(pod *corev1.Pod) []string {
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged {
			names = append(names, c.Name)
		}
	}
	return names
}

// startTrouble is what keeps a container from being made: a profile that is not
// there is CreateContainerError, or RunContainerError with some runtimes.
func startTrouble(pod *corev1.Pod) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		w := s.State.Waiting
		if w != nil && slices.Contains([]string{"CreateContainerError", "CreateContainerConfigError", "RunContainerError"}, w.Reason) {
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
	}
	return ""
}

// startedBefore names a container that runs since before the installed digest
// came into force on the same node.
func (c Case) startedBefore(pod *corev1.Pod, share Share) string {
	if share.Since.IsZero() || pod.Spec.NodeName != c.NodeName || share.State != string(v1alpha1.StateInstalled) {
		return ""
	}
	for _, s := range pod.Status.ContainerStatuses {
		if r := s.State.Running; r != nil && r.StartedAt.Time.Before(share.Since.Time) {
			return s.Name
		}
	}
	return ""
}
