package controller

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
)

// plan is what one pass has to write.
type plan struct {
	shares   []shareWrite
	statuses []statusWrite
	// next is when to look again though nothing changes; zero means never.
	next time.Time
	// orphans: it drops what a SecurityProfile that is gone had assigned.
	orphans bool
	nodes   map[nodeState]int
	// profiles counts SecurityProfiles by the reason of Progressing.
	profiles map[string]int
}

// shareWrite is one ProfileNode to write.
type shareWrite struct {
	node     string
	nodeUID  types.UID
	assigned []assignment
	releases []release
}

// statusWrite is one SecurityProfile whose status is to be written.
type statusWrite struct {
	profile *profileInfo
	status  *v1alpha1.SecurityProfileStatus
	// durable: it comes before all writes to nodes.
	durable bool
}

// planOptions say what a plan must leave alone.
type planOptions struct {
	now time.Time
	// frozen are the keys of profiles whose status could not be written: their
	// nodes keep what they have.
	frozen map[string]bool
	// keepOrphans keeps what SecurityProfiles that are gone had assigned.
	keepOrphans bool
}

// member is one Linux node in a plan.
type member struct {
	node     *nodeInfo
	share    *share
	eligible bool
	// youngest is the age rank up to which profiles have a place on this node.
	youngest int
	desired  []assignment
	// nextAssigned and nextReport are how far the lists of share are read:
	// profiles come in the order of their keys, as the lists are.
	nextAssigned, nextReport int
}

// planner computes one plan.
type planner struct {
	planOptions
	world    *world
	members  []member
	profiles []*profileInfo
	plan     *plan
	// ranks are the profiles' places by age; nil where all have room.
	ranks map[*profileInfo]int
	// of the profile at hand
	indices []int
	reports []*report
	nodes   []rollout.Node
}

// makePlan computes what has to be written.
func (w *world) makePlan(o planOptions) *plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &planner{planOptions: o, world: w, plan: &plan{nodes: map[nodeState]int{}, profiles: map[string]int{}}}
	p.gather()
	p.exclude()
	for _, profile := range p.profiles {
		p.decide(profile)
	}
	for i := range p.members {
		p.finish(&p.members[i])
	}
	return p.plan
}

// gather lists nodes by name and profiles by key.
func (p *planner) gather() {
	w := p.world
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		node := w.nodes[name]
		if !node.linux {
			continue
		}
		s := w.shares[name]
		if s == nil {
			s = &share{}
		}
		m := member{node: node, share: s, eligible: node.ready && len(w.agents[name]) > 0}
		m.desired = make([]assignment, 0, len(s.assigned)+1)
		p.members = append(p.members, m)
		p.plan.nodes[m.state()]++
	}
	for _, key := range slices.Sorted(maps.Keys(w.profiles)) {
		p.profiles = append(p.profiles, w.profiles[key])
	}
}

// exclude finds, for nodes that too many profiles select, the youngest ones
// above the limit. Anybody may make many profiles, so what is kept for that
// grows with nodes and profiles, not with both multiplied.
func (p *planner) exclude() {
	for i := range p.members {
		p.members[i].youngest = len(p.profiles)
	}
	if len(p.profiles) <= v1alpha1.MaxNodeProfiles {
		return
	}
	byAge := slices.SortedFunc(slices.Values(p.profiles), func(a, b *profileInfo) int {
		return cmp.Or(a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time), strings.Compare(a.key, b.key))
	})
	p.ranks = make(map[*profileInfo]int, len(byAge))
	for rank, profile := range byAge {
		p.ranks[profile] = rank
	}
	for i := range p.members {
		m := &p.members[i]
		room := v1alpha1.MaxNodeProfiles
		for rank, profile := range byAge {
			if !profile.selects(m.node, m.has(profile.key)) {
				continue
			}
			if room--; room == 0 {
				m.youngest = rank
				break
			}
		}
	}
}

func (m *member) has(key string) bool {
	_, found := slices.BinarySearchFunc(m.share.assigned, key, func(a assignment, key string) int { return strings.Compare(a.key, key) })
	return found
}

// decide computes one profile: who gets what, and its status.
func (p *planner) decide(profile *profileInfo) {
	p.indices, p.reports, p.nodes = p.indices[:0], p.reports[:0], p.nodes[:0]
	for i := range p.members {
		m := &p.members[i]
		assigned, reported := m.advance(profile)
		if !profile.selects(m.node, assigned != nil) {
			continue
		}
		node := rollout.Node{Name: m.node.Name, Eligible: m.eligible, Canary: profile.isCanary(m.node), Excluded: p.ranks[profile] > m.youngest}
		if assigned != nil {
			node.Assigned = assigned.artifact
			reported = matching(reported, assigned)
		} else {
			reported = nil
		}
		if reported != nil {
			node.Verdict = rollout.Judge(reported.state, reported.verified, reported.reason)
			node.Since = reported.since
		}
		p.indices, p.reports, p.nodes = append(p.indices, i), append(p.reports, reported), append(p.nodes, node)
	}
	in := profile.input()
	in.Nodes, in.Now = p.nodes, p.now
	if p.frozen[profile.key] {
		in.Target = ""
	}
	out := rollout.Decide(in)
	for i, artifact := range out.Assign {
		if artifact != "" {
			m := &p.members[p.indices[i]]
			m.desired = append(m.desired, profile.assignment(artifact))
		}
	}
	p.lookAt(out.Next)
	if p.frozen[profile.key] {
		return
	}
	status := summarize(summary{profile: profile, out: out, nodes: p.nodes, reports: p.reports, now: p.now})
	p.plan.profiles[progressing(status).Reason]++
	if !equality.Semantic.DeepEqual(profile.object.Status, status) && (out.Durable || p.worthAWrite(profile, status)) {
		p.plan.statuses = append(p.plan.statuses, statusWrite{profile: profile, status: status, durable: out.Durable})
	}
}

// worthAWrite reports whether a status is written in this pass. Counts that
// alone changed wait a little since the last write, the longer the more nodes
// there are to count.
func (p *planner) worthAWrite(profile *profileInfo, status *v1alpha1.SecurityProfileStatus) bool {
	if old := profile.object.Status; old == nil || !sameWords(old.Conditions, status.Conditions) {
		return true
	}
	due := time.Time(profile.written).Add(time.Second + time.Duration(len(p.nodes))*5*time.Millisecond)
	if !profile.written.holds() || !p.now.Before(due) {
		return true
	}
	p.lookAt(due)
	return false
}

// sameWords reports whether conditions differ in nothing but their messages.
func sameWords(a, b []metav1.Condition) bool {
	return slices.EqualFunc(a, b, func(a, b metav1.Condition) bool {
		return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.ObservedGeneration == b.ObservedGeneration
	})
}

// advance returns the node's entries for a profile. It is called with profiles
// in the order of their keys.
func (m *member) advance(profile *profileInfo) (*assignment, *report) {
	var assigned *assignment
	for ; m.nextAssigned < len(m.share.assigned); m.nextAssigned++ {
		entry := &m.share.assigned[m.nextAssigned]
		if entry.key < profile.key {
			continue
		}
		// Another UID means that the profile was deleted and made again.
		if entry.key == profile.key && entry.uid == string(profile.object.UID) {
			assigned = entry
		}
		break
	}
	// What a former node of this name reported is not true of this one.
	if m.share.nodeUID != string(m.node.UID) {
		return assigned, nil
	}
	for ; m.nextReport < len(m.share.reports); m.nextReport++ {
		entry := &m.share.reports[m.nextReport]
		if entry.key < profile.key {
			continue
		}
		if entry.key == profile.key {
			return assigned, entry
		}
		break
	}
	return assigned, nil
}

// matching returns the report if it is about what is assigned, else nil.
func matching(r *report, assigned *assignment) *report {
	if r == nil || r.uid != "" && r.uid != assigned.uid || r.wanted != rollout.DigestOf(assigned.artifact) {
		return nil
	}
	return r
}

// finish compares a node's share with what it should be.
func (p *planner) finish(m *member) {
	for _, entry := range m.share.assigned {
		if _, known := p.world.profiles[entry.key]; known {
			continue
		}
		if p.keepOrphans {
			m.desired = append(m.desired, entry)
		} else {
			p.plan.orphans = true
		}
	}
	slices.SortFunc(m.desired, func(a, b assignment) int { return strings.Compare(a.key, b.key) })
	m.fit()
	releases, urgent := p.releases(m)
	s := m.share
	if !urgent && s.UID != "" && s.ownerUID == string(m.node.UID) && slices.Equal(s.assigned, m.desired) {
		return
	}
	p.plan.shares = append(p.plan.shares, shareWrite{node: m.node.Name, nodeUID: m.node.UID, assigned: m.desired, releases: releases})
}

// fit keeps within the limit of a node what it has, before anything new: what is
// only kept because it cannot be read takes no other's place.
func (m *member) fit() {
	for i := len(m.desired) - 1; i >= 0 && len(m.desired) > v1alpha1.MaxNodeProfiles; i-- {
		if !m.has(m.desired[i].key) {
			m.desired = slices.Delete(m.desired, i, i+1)
		}
	}
}

// releases returns what the node may remove, and whether that is worth a write
// of its own: something new may go, or must not go any more. Releases that are
// merely used up wait for another write.
func (p *planner) releases(m *member) (wanted []release, urgent bool) {
	if m.share.nodeUID != string(m.node.UID) {
		return nil, false
	}
	for i := range m.share.reports {
		r := &m.share.reports[i]
		if r.removal == nil {
			continue
		}
		entry := release{key: r.key, removeAt: r.removal.at}
		has := slices.Contains(m.share.releases, entry)
		due := time.Unix(r.removal.at, 0)
		switch {
		case p.now.Before(due):
			p.lookAt(due)
		case p.world.inUse(m.node.Name, r.removal.references):
			urgent = urgent || has
		case len(wanted) < v1alpha1.MaxNodeProfiles:
			wanted = append(wanted, entry)
			urgent = urgent || !has
		}
	}
	return wanted, urgent
}

// inUse reports whether a pod of the node names one of the references. A pod
// that ended uses nothing.
func (w *world) inUse(node string, references []string) bool {
	for _, pod := range w.users[node] {
		for _, name := range pod.references {
			if slices.Contains(references, name) {
				return true
			}
		}
	}
	return false
}

func (p *planner) lookAt(t time.Time) {
	if !t.IsZero() && (p.plan.next.IsZero() || t.Before(p.plan.next)) {
		p.plan.next = t
	}
}

// nodeState is the state of a node in the metrics.
type nodeState string

// The states of a node.
const (
	nodeUnavailable nodeState = "unavailable"
	nodeUnreported  nodeState = "unreported"
	nodeFailing     nodeState = "failing"
	nodePending     nodeState = "pending"
	nodeAsWanted    nodeState = "as-wanted"
)

func nodeStates() []nodeState {
	return []nodeState{nodeUnavailable, nodeUnreported, nodeFailing, nodePending, nodeAsWanted}
}

func (m *member) state() nodeState {
	switch {
	case !m.eligible:
		return nodeUnavailable
	case m.share.nodeUID != string(m.node.UID):
		return nodeUnreported
	case m.share.problems > 0:
		return nodeFailing
	}
	state := nodeAsWanted
	for i := range m.share.reports {
		switch m.share.reports[i].state {
		case v1alpha1.StateFailed:
			return nodeFailing
		case v1alpha1.StatePending:
			state = nodePending
		}
	}
	return state
}
