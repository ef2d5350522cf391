package controller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
)

func at(n int32) *intstr.IntOrString { v := intstr.FromInt32(n); return &v }
func count(n int32) *int32           { return &n }

func names(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s%02d", prefix, i))
	}
	return all
}

// gate lets nodes install only as many times as the test says.
type gate struct {
	mu     sync.Mutex
	open   int
	passed map[string]bool
}

func (g *gate) answer(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := node + a.Artifact
	if !g.passed[key] {
		if g.open == 0 {
			return nil
		}
		g.open--
		if g.passed == nil {
			g.passed = map[string]bool{}
		}
		g.passed[key] = true
	}
	return installs(node, a)
}

func (g *gate) let(n int) {
	g.mu.Lock()
	g.open += n
	g.mu.Unlock()
}

// onTheWay lists, in one snapshot, the nodes that are assigned an artifact and
// did not report it.
func (f *fleet) onTheWay(ctx context.Context, artifact string) (int, error) {
	list := &v1alpha1.ProfileNodeList{}
	if err := f.client.List(ctx, list); err != nil {
		return 0, err
	}
	n := 0
	for _, node := range list.Items {
		given := slices.ContainsFunc(node.Spec.Profiles, func(p v1alpha1.AssignedProfile) bool { return p.Artifact == artifact })
		reported := node.Status != nil && slices.ContainsFunc(node.Status.Profiles, func(p v1alpha1.ProfileReport) bool {
			return p.WantedDigest == digestOf(artifact)
		})
		if given && !reported {
			n++
		}
	}
	return n, nil
}

func TestWaves(t *testing.T) {
	f := newFleet(t, names("n", 7)...)
	var g gate
	f.answers(g.answer)
	f.start()
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(2)}})
	for done := range 6 {
		f.awaitGiven("nginx", artifact(1), min(7, done+2))
		if n, err := f.onTheWay(t.Context(), artifact(1)); err != nil || n > 2 {
			t.Fatalf("%d nodes are on their way, 2 may be: %v", n, err)
		}
		f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonRollingOut)
		g.let(1)
		f.again()
	}
	g.let(1)
	p := f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
	if p.Status.Nodes.Ready != 7 || len(p.Status.History) != 1 {
		t.Errorf("counts %+v, history %v", p.Status.Nodes, p.Status.History)
	}
}

// good installs one artifact on all nodes, as the state before a test.
func (f *fleet) good(name string, n int, rollout *v1alpha1.Rollout) {
	f.t.Helper()
	f.addProfile(name, v1alpha1.SecurityProfileSpec{Artifact: artifact(n), Rollout: rollout})
	f.awaitCondition(name, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
}

// but answers like installs, but refuses one artifact.
func but(bad, why string) func(string, v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
	return func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
		if a.Artifact == bad {
			return refuses(why, "it is "+why+" here")(node, a)
		}
		return installs(node, a)
	}
}

func TestCanaryFails(t *testing.T) {
	for _, onFailure := range []v1alpha1.OnFailure{v1alpha1.OnFailurePause, v1alpha1.OnFailureRollback} {
		t.Run(string(onFailure), func(t *testing.T) {
			f := newFleet(t, names("n", 5)...)
			f.answers(but(artifact(2), "SignatureMissing"))
			f.start()
			f.good("nginx", 1, &v1alpha1.Rollout{MaxConcurrent: at(5), OnFailure: onFailure, Canary: &v1alpha1.Canary{Nodes: count(1)}})
			f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(2) })
			if onFailure == v1alpha1.OnFailurePause {
				f.paused()
			} else {
				f.rolledBack()
			}
		})
	}
}

func (f *fleet) paused() {
	f.t.Helper()
	p := f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonCanaryFailed)
	f.awaitCondition("nginx", v1alpha1.ConditionVerified, metav1.ConditionFalse, "SignatureMissing")
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionFalse, "SignatureMissing")
	canary := f.awaitGiven("nginx", artifact(2), 1)
	f.awaitGiven("nginx", artifact(1), 4)
	if got := p.Status.Failures; len(got) != 1 || got[0].Node != canary[0] || got[0].Reason != "SignatureMissing" ||
		got[0].Message != "it is SignatureMissing here" || got[0].Digest != digestOf(artifact(2)) {
		f.t.Errorf("failures %+v", got)
	}
	f.awaitEvent("nginx", v1alpha1.ReasonCanaryFailed)
	// The next digest takes its own turn.
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(3) })
	f.awaitGiven("nginx", artifact(3), 5)
}

func (f *fleet) rolledBack() {
	f.t.Helper()
	p := f.awaitCondition("nginx", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonRolledBack)
	f.awaitGiven("nginx", artifact(1), 5)
	if got := p.Status.Rollout; got.Stopped != v1alpha1.ReasonCanaryFailed || got.EffectiveArtifact != artifact(1) || got.TargetArtifact != artifact(2) {
		f.t.Errorf("rollout %+v", got)
	}
	f.awaitCondition("nginx", v1alpha1.ConditionVerified, metav1.ConditionTrue, v1alpha1.ReasonVerified)
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRolledBack)
	f.awaitEvent("nginx", v1alpha1.ReasonRolledBack)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(3) })
	f.awaitCondition("nginx", v1alpha1.ConditionDegraded, metav1.ConditionFalse, v1alpha1.ReasonAsWanted)
	f.awaitGiven("nginx", artifact(3), 5)
}

// awaitEvent waits for an event of a profile, and holds that none is about a node.
func (f *fleet) awaitEvent(profile, why string) {
	f.t.Helper()
	f.eventually("event "+why, func() error {
		list := &eventsv1.EventList{}
		if err := f.client.List(f.t.Context(), list, client.InNamespace("web")); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Regarding.Kind != v1alpha1.KindSecurityProfile {
				f.t.Fatalf("an event about %s %s", e.Regarding.Kind, e.Regarding.Name)
			}
			if e.Regarding.Name == profile && e.Reason == why {
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(list.Items))
	})
}

func TestPauseAndResume(t *testing.T) {
	f := newFleet(t, names("n", 4)...)
	var g gate
	f.answers(g.answer)
	f.start()
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(1)}})
	f.awaitGiven("nginx", artifact(1), 1)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Rollout.Paused = true })
	f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonPaused)
	g.let(4)
	f.again()
	f.eventually("the paused node to be counted", func() error {
		p, err := f.profile("nginx")
		if err == nil && p.Status.Nodes.Ready != 1 {
			err = fmt.Errorf("counts %+v", p.Status.Nodes)
		}
		return err
	})
	f.awaitGiven("nginx", artifact(1), 1)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Rollout.Paused = false })
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	f.awaitGiven("nginx", artifact(1), 4)
}

func TestEditInMidRollout(t *testing.T) {
	f := newFleet(t, names("n", 4)...)
	f.start()
	f.good("nginx", 1, &v1alpha1.Rollout{MaxConcurrent: at(2)})
	f.answers(func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
		if a.Artifact == artifact(2) {
			return nil // stuck
		}
		return installs(node, a)
	})
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(2) })
	f.awaitGiven("nginx", artifact(2), 2)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(3) })
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	f.awaitGiven("nginx", artifact(3), 4)
	p := f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
	if h := p.Status.History; len(h) != 2 || h[0].Artifact != artifact(3) || h[1].Artifact != artifact(1) {
		t.Errorf("history %v: what not every node had does not belong there", h)
	}
	// Another stuck one, and back to what all have had.
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(2) })
	f.awaitGiven("nginx", artifact(2), 2)
	f.edit("nginx", func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = artifact(3) })
	f.awaitGiven("nginx", artifact(3), 4)
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
}

func TestUnavailableNodesCatchUp(t *testing.T) {
	f := newFleet(t, "up", "down", "bare")
	f.setReady("down", false)
	f.deletePod(namespace, "agent-bare")
	f.start()
	f.good("nginx", 1, nil)
	p := f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	if n := p.Status.Nodes; n.Total != 3 || n.Unavailable != 2 || n.Ready != 1 {
		t.Errorf("counts %+v", n)
	}
	f.awaitGiven("nginx", artifact(1), 3)
	f.setReady("down", true)
	f.addAgent("bare")
	f.eventually("all to be ready", func() error {
		p, err := f.profile("nginx")
		if err == nil && (p.Status.Nodes.Ready != 3 || p.Status.Nodes.Unavailable != 0) {
			err = fmt.Errorf("counts %+v", p.Status.Nodes)
		}
		return err
	})
}

// A node that goes away in mid-rollout does not hold up the others.
func TestNodeGoesNotReadyInMidRollout(t *testing.T) {
	f := newFleet(t, names("n", 3)...)
	var g gate
	f.answers(g.answer)
	f.start()
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(1)}})
	first := f.awaitGiven("nginx", artifact(1), 1)
	f.setReady(first[0], false)
	f.awaitGiven("nginx", artifact(1), 2)
	f.answers(func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
		if node == first[0] {
			return nil
		}
		return installs(node, a)
	})
	p := f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
	if p.Status.Nodes.Unavailable != 1 || p.Status.Nodes.Ready != 2 {
		t.Errorf("counts %+v", p.Status.Nodes)
	}
}

func TestSelection(t *testing.T) {
	f := newFleet(t)
	f.addNode("a", map[string]string{"pool": "web"})
	f.addNode("b", map[string]string{"pool": "db"})
	f.start()
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{
		Artifact: artifact(1), NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "web"}},
	})
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	if got := f.awaitGiven("nginx", artifact(1), 1); got[0] != "a" {
		t.Errorf("%s has it", got)
	}
	f.relabel("b", "web")
	f.awaitGiven("nginx", artifact(1), 2)
	f.relabel("a", "db")
	f.relabel("b", "db")
	f.awaitGiven("nginx", artifact(1), 0)
	f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonNoNodes)
}

func (f *fleet) relabel(node, pool string) {
	f.t.Helper()
	f.eventually("relabel "+node, func() error {
		n, err := f.rawNode(node)
		if err != nil {
			return err
		}
		if n.Labels == nil {
			return errors.New("no labels")
		}
		n.Labels["pool"] = pool
		return f.client.Update(f.t.Context(), n)
	})
}
