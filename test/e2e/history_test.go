//go:build e2e

package e2e_test

import (
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// given is the step that a node is assigned a digest; the others are what it
// reports, a v1alpha1.ReportState.
const given = "Given"

// step is something that changed about one profile on one node.
type step struct {
	Node, What, Digest string
}

// history is what happened to one profile on all nodes, in the order in which
// the API server took it in.
type history struct {
	s       *scene
	profile string

	mu    sync.Mutex
	steps []step
	times []time.Time
	last  map[string][2]step // by node: what it was given, what it reported
}

// follow watches what happens to a profile from now on.
func (s *scene) follow(profile string) *history {
	s.t.Helper()
	h := &history{s: s, profile: profile, last: map[string][2]step{}}
	var all v1alpha1.ProfileNodeList
	s.must(s.Client.List(s.ctx(), &all))
	for i := range all.Items {
		h.last[all.Items[i].Name] = h.state(&all.Items[i])
	}
	w, err := s.Client.Watch(s.ctx(), &v1alpha1.ProfileNodeList{}, &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: all.ResourceVersion},
	})
	s.must(err)
	s.t.Cleanup(w.Stop)
	go func() {
		for event := range w.ResultChan() {
			if node, ok := event.Object.(*v1alpha1.ProfileNode); ok {
				h.note(node)
			}
		}
	}()
	return h
}

// state is what a ProfileNode says about the profile.
func (h *history) state(node *v1alpha1.ProfileNode) [2]step {
	var now [2]step
	for _, p := range node.Spec.Profiles {
		if p.Namespace == h.s.namespace && p.Name == h.profile {
			now[0] = step{node.Name, given, digestOf(p.Artifact)}
		}
	}
	if node.Status == nil {
		return now
	}
	for _, p := range node.Status.Profiles {
		if p.Namespace == h.s.namespace && p.Name == h.profile {
			now[1] = step{node.Name, string(p.State), p.WantedDigest}
		}
	}
	return now
}

func (h *history) note(node *v1alpha1.ProfileNode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.state(node)
	for i, before := range h.last[node.Name] {
		if now[i] != before && now[i] != (step{}) {
			h.steps = append(h.steps, now[i])
			h.times = append(h.times, time.Now())
		}
	}
	h.last[node.Name] = now
}

// of returns the steps that concern a digest, without the Pending ones: whether
// a node has the time to report those depends on how fast it is.
func (h *history) of(artifact string) []step {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []step
	for _, s := range h.steps {
		if s.Digest == digestOf(artifact) && s.What != string(v1alpha1.StatePending) {
			found = append(found, s)
		}
	}
	return found
}

// firstGiven is when the first node was seen to be given the artifact.
func (h *history) firstGiven(artifact string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.steps, func(s step) bool { return s.What == given && s.Digest == digestOf(artifact) })
	if i < 0 {
		h.s.t.Errorf("no node was given %s: %v", artifact, h.steps)
		return time.Time{}
	}
	return h.times[i]
}
