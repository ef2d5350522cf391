package controller

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// world is what the caches and our own writes say, as a pass needs it. Its
// methods may be called from several goroutines.
type world struct {
	mu       sync.Mutex
	nodes    map[string]*nodeInfo
	shares   map[string]*share
	profiles map[string]*profileInfo
	// agents and users are the pods of a node that are agents, and that name
	// profiles.
	agents map[string]map[types.UID]*podInfo
	users  map[string]map[types.UID]*podInfo
	// changed is called when something changed that a decision may rest on.
	changed func()
}

func newWorld(changed func()) *world {
	return &world{
		nodes: map[string]*nodeInfo{}, shares: map[string]*share{}, profiles: map[string]*profileInfo{},
		agents: map[string]map[types.UID]*podInfo{}, users: map[string]map[types.UID]*podInfo{},
		changed: changed,
	}
}

func (w *world) setNode(n *nodeInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.nodes[n.Name]
	w.nodes[n.Name] = n
	// Nodes report their health all the time; few of it matters.
	if old == nil || old.UID != n.UID || old.linux != n.linux || old.ready != n.ready || !equalMaps(old.Labels, n.Labels) {
		w.changed()
	}
}

func (w *world) dropNode(n *nodeInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.nodes[n.Name]; old != nil && old.UID == n.UID {
		delete(w.nodes, n.Name)
		w.changed()
	}
}

func (w *world) setPod(p *podInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.podMatters(p)
	w.forgetPod(p)
	if p.node != "" && !p.ended {
		if p.agent && p.ready {
			remember(w.agents, p)
		}
		if len(p.references) > 0 {
			remember(w.users, p)
		}
	}
	if w.podMatters(p) != before {
		w.changed()
	}
}

func (w *world) dropPod(p *podInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.podMatters(p)
	w.forgetPod(p)
	if w.podMatters(p) != before {
		w.changed()
	}
}

// podRole is what a pod is on its node, in sum.
type podRole struct{ agents, users int }

func (w *world) podMatters(p *podInfo) podRole {
	return podRole{agents: len(w.agents[p.node]), users: len(w.users[p.node])}
}

func (w *world) forgetPod(p *podInfo) {
	for _, pods := range []map[string]map[types.UID]*podInfo{w.agents, w.users} {
		delete(pods[p.node], p.UID)
		if len(pods[p.node]) == 0 {
			delete(pods, p.node)
		}
	}
}

func remember(pods map[string]map[types.UID]*podInfo, p *podInfo) {
	if pods[p.node] == nil {
		pods[p.node] = map[types.UID]*podInfo{}
	}
	pods[p.node][p.UID] = p
}

// setShare takes over a ProfileNode from the cache, or one that was written. A
// cache that lags behind our own writes is not believed: what was assigned a
// moment ago counts.
func (w *world) setShare(s *share) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.shares[s.Name]
	if old != nil && old.UID == s.UID && old.written.holds() && older(s.ResourceVersion, old.ResourceVersion) {
		return
	}
	w.shares[s.Name] = s
	if old == nil || !old.same(s) {
		w.changed()
	}
}

func (w *world) dropShare(s *share) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.shares[s.Name]; old != nil && old.UID == s.UID {
		delete(w.shares, s.Name)
		w.changed()
	}
}

func (w *world) setProfile(object *v1alpha1.SecurityProfile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := profileKey(object.Namespace, object.Name)
	old := w.profiles[key]
	if old != nil && old.object.UID == object.UID {
		if old.written.holds() && older(object.ResourceVersion, old.object.ResourceVersion) {
			return
		}
		// Our own write comes back. It is news all the same where somebody
		// changed the spec just before: that change alone was passed over as
		// older than our write.
		if object.ResourceVersion == old.object.ResourceVersion && object.Generation == old.object.Generation {
			return
		}
	}
	w.profiles[key] = readProfile(object)
	w.changed()
}

func (w *world) dropProfile(object *v1alpha1.SecurityProfile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := profileKey(object.Namespace, object.Name)
	if old := w.profiles[key]; old != nil && old.object.UID == object.UID {
		delete(w.profiles, key)
		w.changed()
	}
}

// wroteShare takes over what was written to a ProfileNode: its spec is ours,
// what the node reported stays until the cache says otherwise.
func (w *world) wroteShare(name string, uid types.UID, version, ownerUID string, assigned []assignment, releases []release) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, old := &share{}, w.shares[name]
	if old != nil && old.UID == uid {
		if !older(old.ResourceVersion, version) {
			return
		}
		*s = *old
	}
	s.Name, s.UID, s.ResourceVersion = name, uid, version
	s.ownerUID, s.assigned, s.releases = ownerUID, assigned, releases
	s.written = written(time.Now())
	w.shares[name] = s
	// What the node reported before may be the answer already, and then no
	// event follows: what came back through the cache is no news.
	if old == nil || !old.same(s) {
		w.changed()
	}
}

// wroteStatus takes over a status that was written.
func (w *world) wroteStatus(p *profileInfo, version string, status *v1alpha1.SecurityProfileStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.profiles[p.key]
	if old == nil || old.object.UID != p.object.UID || !older(old.object.ResourceVersion, version) {
		return
	}
	object := *old.object
	object.ResourceVersion, object.Status = version, status
	updated := *old
	updated.object, updated.written = &object, written(time.Now())
	w.profiles[p.key] = &updated
}

// written is when we wrote an object; zero for one that came from the cache.
type written time.Time

// cacheLag is how far a cache is thought to lag behind at most. Later than
// that an older version is the truth: a backup of etcd was restored.
const cacheLag = 30 * time.Second

func (t written) holds() bool {
	return !time.Time(t).IsZero() && time.Since(time.Time(t)) < cacheLag
}

// same reports whether nothing differs that a decision rests on.
func (s *share) same(other *share) bool {
	return s.UID == other.UID && s.ownerUID == other.ownerUID && s.nodeUID == other.nodeUID && s.problems == other.problems &&
		slices.Equal(s.assigned, other.assigned) && slices.Equal(s.releases, other.releases) &&
		slices.EqualFunc(s.reports, other.reports, report.equal)
}

func (r report) equal(other report) bool {
	a, b := r.removal, other.removal
	r.removal, other.removal = nil, nil
	if r != other || (a == nil) != (b == nil) {
		return false
	}
	return a == nil || a.at == b.at && slices.Equal(a.references, b.references)
}

// older reports whether a is known to be older than b: both are resource
// versions of one object. What cannot be compared is not older.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			return false
		}
	}
	return true
}
