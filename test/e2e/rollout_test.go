//go:build e2e

package e2e_test

import (
	"fmt"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/test/e2e/lab"
)

// waves is one canary, then one node after the other.
func waves(onFailure v1alpha1.OnFailure) *v1alpha1.Rollout {
	one := int32(1)
	return &v1alpha1.Rollout{
		Canary:        &v1alpha1.Canary{Nodes: &one},
		MaxConcurrent: new(intstr.FromInt32(1)),
		OnFailure:     onFailure,
	}
}

// newDigestInWaves rolls to a new digest: the canary first, the others one by
// one, each only after the one before is ready. What runs keeps its filter.
func newDigestInWaves(s *scene) {
	s.trustTeam()
	before, after := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, denyChmod())
	s.want("web", before, waves(""))
	s.ready("web", before, nodes)
	for n := 1; n <= nodes; n++ {
		s.run(n, podName(n), "web")
	}
	for n := 1; n <= nodes; n++ {
		s.sees(podName(n), mkdirDenied)
	}

	h := s.follow("web")
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = after })
	s.ready("web", after, nodes)
	s.wentOneByOne(h, after)
	for n := 1; n <= nodes; n++ {
		s.run(n, "new-"+podName(n), "web")
	}
	for n := 1; n <= nodes; n++ {
		s.sees(podName(n), mkdirDenied)
		s.sees("new-"+podName(n), chmodDenied)
	}
	var past []string
	for _, entry := range s.profile("web").Status.History {
		past = append(past, entry.Artifact)
	}
	if diff := cmp.Diff([]string{after, before}, past); diff != "" {
		s.t.Errorf("history (-want +got):\n%s", diff)
	}
}

// wentOneByOne holds that each node was given the artifact only after the one
// before had it in force.
func (s *scene) wentOneByOne(h *history, artifact string) {
	s.t.Helper()
	s.eventually("the watch to see what was read", func() error {
		if got := len(h.of(artifact)); got < 2*nodes {
			return fmt.Errorf("%d steps", got)
		}
		return nil
	})
	got := h.of(artifact)
	var want []step
	for i := 0; i < len(got); i += 2 {
		node := got[i].Node
		want = append(want, step{node, given, digestOf(artifact)}, step{node, string(v1alpha1.StateInstalled), digestOf(artifact)})
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 2*nodes {
		s.t.Errorf("%d steps, want %d, each node given and installed before the next (-want +got):\n%s", len(got), 2*nodes, diff)
	}
}

// failedCanaryPauses rolls out what a policy forbids: one node refuses it, and
// no other is ever given it. A better digest ends that.
func failedCanaryPauses(s *scene) {
	s.trustTeam()
	good, forbidden := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Team, nil, "bpf")
	s.want("web", good, waves(v1alpha1.OnFailurePause))
	s.ready("web", good, nodes)

	h := s.follow("web")
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = forbidden })
	status := s.until("the rollout to stop", "web", func(status *v1alpha1.SecurityProfileStatus) error {
		return progressing(status, v1alpha1.ReasonCanaryFailed)
	})
	canary := s.onlyTheCanary(h, forbidden, reason.ProfileForbidden)
	if len(status.Failures) != 1 || status.Failures[0].Node != canary || status.Failures[0].Reason != string(reason.ProfileForbidden) {
		s.t.Errorf("failures %+v, want one of %s with %s", status.Failures, canary, reason.ProfileForbidden)
	}
	// The last good one is in force everywhere, on the canary too.
	for n := 1; n <= nodes; n++ {
		s.run(n, podName(n), "web")
	}
	for n := 1; n <= nodes; n++ {
		s.sees(podName(n), mkdirDenied)
	}
	better := s.push("web", lab.Team, denyChmod())
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = better })
	s.ready("web", better, nodes)
	s.onlyTheCanary(h, forbidden, reason.ProfileForbidden)
}

// failedCanaryRollsBack rolls out what nobody signed, with a way back.
func failedCanaryRollsBack(s *scene) {
	s.trustTeam()
	good, unsigned := s.push("web", lab.Team, denyMkdir()), s.push("web", lab.Nobody, denyChmod())
	s.want("web", good, waves(v1alpha1.OnFailureRollback))
	s.ready("web", good, nodes)

	h := s.follow("web")
	s.change("web", func(spec *v1alpha1.SecurityProfileSpec) { spec.Artifact = unsigned })
	s.until("the rollback", "web", func(status *v1alpha1.SecurityProfileStatus) error {
		degraded := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDegraded)
		if degraded == nil || degraded.Status != "True" || degraded.Reason != v1alpha1.ReasonRolledBack ||
			status.Rollout.EffectiveDigest != digestOf(good) || status.Rollout.Stopped != v1alpha1.ReasonCanaryFailed ||
			status.Nodes.Ready != nodes {
			return fmt.Errorf("rollout %+v, nodes %+v, degraded %+v", status.Rollout, status.Nodes, degraded)
		}
		return nil
	})
	s.onlyTheCanary(h, unsigned, reason.SignatureMissing)
	for n := 1; n <= nodes; n++ {
		s.run(n, podName(n), "web")
	}
	for n := 1; n <= nodes; n++ {
		s.sees(podName(n), mkdirDenied)
	}
	s.onlyTheCanary(h, unsigned, reason.SignatureMissing)
}

// progressing says why the condition Progressing has another reason.
func progressing(status *v1alpha1.SecurityProfileStatus, want string) error {
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
	if c == nil || c.Reason != want {
		return fmt.Errorf("progressing %+v, want %s", c, want)
	}
	return nil
}

// onlyTheCanary holds that one node alone was given the artifact and refused
// it, and returns that node.
func (s *scene) onlyTheCanary(h *history, artifact string, why reason.Reason) string {
	s.t.Helper()
	var steps []step
	s.eventually("the watch to see what was read", func() error {
		if steps = h.of(artifact); len(steps) < 2 {
			return fmt.Errorf("steps %v", steps)
		}
		return nil
	})
	canary := steps[0].Node
	want := []step{{canary, given, digestOf(artifact)}, {canary, string(v1alpha1.StateFailed), digestOf(artifact)}}
	if diff := cmp.Diff(want, steps); diff != "" {
		s.t.Errorf("want one node to refuse it for %s (-want +got):\n%s", why, diff)
	}
	return canary
}
