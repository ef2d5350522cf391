package controller

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/confine-dev/confine/api/v1alpha1"
)

const repository = "registry.example.com/profiles/web@"

func digestNumber(n int) string { return "sha256:" + strings.Repeat(fmt.Sprintf("%04x", n), 16) }

func instant() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

// testWorld is a world without an API server: objects pass through the same
// transforms as those of the caches.
type testWorld struct {
	testing.TB
	*world
	changes int
}

func newTestWorld(t testing.TB, nodes int) *testWorld {
	t.Helper()
	w := &testWorld{TB: t}
	w.world = newWorld(func() { w.changes++ })
	for i := range nodes {
		w.addNode(fmt.Sprintf("node-%05d", i))
	}
	return w
}

func transformed[T any](w *testWorld, transform func(any) (any, error), object any) T {
	w.Helper()
	out, err := transform(object)
	if err != nil {
		w.Fatal(err)
	}
	again, err := transform(out)
	if err != nil {
		w.Fatalf("a transform is applied twice now and then: %v", err)
	}
	typed, ok := again.(T)
	if !ok {
		w.Fatalf("%T", again)
	}
	return typed
}

func (w *testWorld) addNode(name string) {
	w.Helper()
	w.setNode(transformed[*nodeInfo](w, compactNode, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{OperatingSystem: "linux"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}))
	w.addAgent(name)
}

func (w *testWorld) addAgent(node string) {
	w.Helper()
	agents, err := labels.Parse(DefaultAgents)
	if err != nil {
		w.Fatal(err)
	}
	w.setPod(transformed[*podInfo](w, compactPod(DefaultNamespace, agents), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: DefaultNamespace, Name: "agent-" + node, UID: types.UID("agent-" + node),
			Labels: map[string]string{"app.kubernetes.io/name": "confine", "app.kubernetes.io/component": "agent"},
		},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}))
}

func (w *testWorld) addProfile(n int, change func(*v1alpha1.SecurityProfile)) {
	all := intstr.FromString("100%")
	p := &v1alpha1.SecurityProfile{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: fmt.Sprintf("profile-%03d", n), UID: types.UID(fmt.Sprintf("uid-%03d", n)), Generation: 1,
			ResourceVersion: "1", CreationTimestamp: metav1.NewTime(instant().Add(time.Duration(n) * time.Minute)),
		},
		Spec: v1alpha1.SecurityProfileSpec{
			Artifact: repository + digestNumber(n), Rollout: &v1alpha1.Rollout{MaxConcurrent: &all, FailureThreshold: &all},
		},
	}
	if change != nil {
		change(p)
	}
	w.setProfile(p)
}

// carryOut does what a plan says, with writes that always succeed; nodes
// answer, if they do.
func (w *testWorld) carryOut(p *plan, answer func(node string, a assignment) *v1alpha1.ProfileReport) {
	w.Helper()
	for _, s := range p.statuses {
		w.wroteStatus(s.profile, next(s.profile.object.ResourceVersion), s.status)
	}
	for _, s := range p.shares {
		node := &v1alpha1.ProfileNode{
			ObjectMeta: metav1.ObjectMeta{
				Name: s.node, UID: types.UID("share-" + s.node), ResourceVersion: "1",
				OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: s.node, UID: s.nodeUID}},
			},
			Status: &v1alpha1.ProfileNodeStatus{NodeUID: string(s.nodeUID)},
		}
		if old := w.shares[s.node]; old != nil {
			node.ResourceVersion = next(old.ResourceVersion)
		}
		node.Spec.Profiles = specOf(s).Profiles
		for _, a := range s.assigned {
			if answer == nil {
				break
			}
			if r := answer(s.node, a); r != nil {
				r.Namespace, r.Name = splitKey(a.key)
				r.UID, r.WantedDigest = a.uid, strings.TrimPrefix(a.artifact, repository)
				node.Status.Profiles = append(node.Status.Profiles, *r)
			}
		}
		w.setShare(transformed[*share](w, compactShare, node))
	}
}

func next(version string) string {
	var n int
	if _, err := fmt.Sscan(version, &n); err != nil {
		panic(err)
	}
	return fmt.Sprint(n + 1)
}

func installed(string, assignment) *v1alpha1.ProfileReport {
	return &v1alpha1.ProfileReport{
		State: v1alpha1.StateInstalled, Verified: metav1.ConditionTrue, Policies: "0123456789abcdef",
		Since: metav1.NewTime(instant()),
		Kinds: []v1alpha1.KindReport{{Name: "kind", References: []string{"confine/web/some/profile.json"}}},
	}
}

// settle plans and carries out until there is nothing to do.
func (w *testWorld) settle(answer func(string, assignment) *v1alpha1.ProfileReport) {
	w.Helper()
	for range 10 {
		p := w.makePlan(planOptions{now: instant()})
		if len(p.shares)+len(p.statuses) == 0 {
			return
		}
		w.carryOut(p, answer)
	}
	w.Fatal("there is always something to do")
}

func (w *testWorld) status(n int) *v1alpha1.SecurityProfileStatus {
	w.Helper()
	p := w.profiles[profileKey("web", fmt.Sprintf("profile-%03d", n))]
	if p == nil || p.object.Status == nil {
		w.Fatalf("no status of %d", n)
	}
	return p.object.Status
}

// The oldest profiles have a node's places; the others are told so.
func TestTooManyProfiles(t *testing.T) {
	w := newTestWorld(t, 2)
	const extra = 2
	for n := range v1alpha1.MaxNodeProfiles + extra {
		w.addProfile(n, func(p *v1alpha1.SecurityProfile) {
			if n < extra { // the first by name are the youngest
				p.CreationTimestamp = metav1.NewTime(instant().Add(1000 * time.Hour))
			}
		})
	}
	w.settle(installed)
	for _, s := range w.shares {
		if len(s.assigned) != v1alpha1.MaxNodeProfiles || s.assigned[0].key != profileKey("web", "profile-002") {
			t.Errorf("%s has %d profiles, the first is %q", s.Name, len(s.assigned), s.assigned[0].key)
		}
	}
	young := w.status(0)
	if len(young.Failures) != 2 || young.Failures[0].Reason != "TooLarge" || young.Nodes.Failed != 2 {
		t.Errorf("failures %+v, counts %+v", young.Failures, young.Nodes)
	}
	if old := w.status(2); len(old.Failures) != 0 || old.Nodes.Ready != 2 {
		t.Errorf("failures %+v, counts %+v", old.Failures, old.Nodes)
	}
}

// At most ten failures stand in a status: one for each reason first.
func TestFailuresAreASample(t *testing.T) {
	w := newTestWorld(t, 40)
	w.addProfile(1, nil)
	long := strings.Repeat("ü", 200)
	w.settle(func(node string, _ assignment) *v1alpha1.ProfileReport {
		why := "SignatureMissing"
		switch node {
		case "node-00030":
			why = "Revoked"
		case "node-00039":
			why = "NoSpace"
		}
		return &v1alpha1.ProfileReport{State: v1alpha1.StateFailed, Verified: metav1.ConditionFalse, Reason: why, Message: long}
	})
	status := w.status(1)
	var got []string
	for _, failure := range status.Failures {
		got = append(got, failure.Node+" "+failure.Reason)
		if len(failure.Message) > maxMessageBytes || !strings.HasPrefix(long, failure.Message) || failure.Message == "" {
			t.Errorf("message of %d bytes: %s", len(failure.Message), failure.Message)
		}
	}
	want := []string{"node-00000 SignatureMissing", "node-00030 Revoked", "node-00039 NoSpace"}
	for n := 1; len(want) < maxFailures; n++ {
		want = append(want, fmt.Sprintf("node-%05d SignatureMissing", n))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionVerified)
	if c.Status != metav1.ConditionFalse || c.Reason != "SignatureMissing" {
		t.Errorf("Verified %+v: most nodes say SignatureMissing", c)
	}
}

// A condition keeps the time of its last turn, and a status that would be the
// same is not written.
func TestConditionsAreStable(t *testing.T) {
	w := newTestWorld(t, 3)
	w.addProfile(1, nil)
	w.settle(installed)
	before := w.status(1)
	if len(before.Conditions) != 4 {
		t.Fatalf("conditions %+v", before.Conditions)
	}
	if p := w.makePlan(planOptions{now: instant().Add(time.Hour)}); len(p.statuses)+len(p.shares) != 0 {
		t.Errorf("time alone writes %d statuses and %d nodes", len(p.statuses), len(p.shares))
	}
	p := w.profiles[profileKey("web", "profile-001")].object.DeepCopy()
	p.Generation, p.ResourceVersion = 2, "100"
	p.Spec.Artifact = strings.Replace(p.Spec.Artifact, "@", ":v2@", 1)
	w.setProfile(p)
	plan := w.makePlan(planOptions{now: instant().Add(time.Hour)})
	if len(plan.shares) != 0 || len(plan.statuses) != 1 {
		t.Fatalf("another tag writes %d nodes and %d statuses", len(plan.shares), len(plan.statuses))
	}
	for _, c := range plan.statuses[0].status.Conditions {
		if !c.LastTransitionTime.Time.Equal(instant()) || c.ObservedGeneration != 2 {
			t.Errorf("%+v: it did not turn since %s", c, instant())
		}
	}
}

// What cannot be read takes nothing away, and says what to do.
func TestSpecThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1alpha1.SecurityProfileSpec)
		want   string
	}{
		"artifact": {func(s *v1alpha1.SecurityProfileSpec) { s.Artifact = "nginx@" + digestNumber(1) }, "UnsupportedArtifact"},
		"selector": {func(s *v1alpha1.SecurityProfileSpec) {
			s.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Resembles"}}}
		}, "ProfileInvalid"},
		"canary": {func(s *v1alpha1.SecurityProfileSpec) {
			s.Rollout = &v1alpha1.Rollout{Canary: &v1alpha1.Canary{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"no label!": ""}}}}
		}, "ProfileInvalid"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestWorld(t, 2)
			w.addProfile(1, nil)
			w.settle(installed)
			p := w.profiles[profileKey("web", "profile-001")].object.DeepCopy()
			p.Generation, p.ResourceVersion = 2, "100"
			test.change(&p.Spec)
			w.setProfile(p)
			plan := w.makePlan(planOptions{now: instant()})
			if len(plan.shares) != 0 || len(plan.statuses) != 1 {
				t.Fatalf("%d nodes and %d statuses are written", len(plan.shares), len(plan.statuses))
			}
			for _, c := range plan.statuses[0].status.Conditions[:3] {
				if c.Reason != test.want || !strings.Contains(c.Message, ": ") {
					t.Errorf("%s: %s %q", c.Type, c.Reason, c.Message)
				}
			}
		})
	}
}

// What decisions rest on could not be written: nothing is done about it.
func TestFrozen(t *testing.T) {
	w := newTestWorld(t, 2)
	w.addProfile(1, nil)
	w.addProfile(2, nil)
	plan := w.makePlan(planOptions{now: instant(), frozen: map[string]bool{profileKey("web", "profile-001"): true}})
	for _, s := range plan.shares {
		if len(s.assigned) != 1 || s.assigned[0].key != profileKey("web", "profile-002") {
			t.Errorf("%s is assigned %+v", s.node, s.assigned)
		}
	}
	if len(plan.statuses) != 1 {
		t.Errorf("%d statuses", len(plan.statuses))
	}
}

// A cache that lags behind a write is not believed; one that shows an older
// state for long is.
func TestOwnWritesAreRead(t *testing.T) {
	w := newTestWorld(t, 1)
	w.addProfile(1, nil)
	w.wroteShare("node-00000", "share", "7", "uid-node-00000", []assignment{{key: "k"}}, nil)
	stale := &share{ObjectMeta: metav1.ObjectMeta{Name: "node-00000", UID: "share", ResourceVersion: "6"}}
	w.setShare(stale)
	if got := w.shares["node-00000"]; len(got.assigned) != 1 {
		t.Error("an older state of the cache hides what was written")
	}
	w.shares["node-00000"].written = written(time.Now().Add(-2 * cacheLag))
	w.setShare(stale)
	if got := w.shares["node-00000"]; len(got.assigned) != 0 {
		t.Error("what was restored from a backup is never believed")
	}
}

// Somebody changes a spec just before a status is written. The cache shows the
// change as older than our write, and then our write, which holds both.
func TestSpecChangedBeforeOwnWrite(t *testing.T) {
	w := newTestWorld(t, 1)
	w.addProfile(1, nil)
	key := profileKey("web", "profile-001")
	before := *w.profiles[key].object
	before.ResourceVersion, before.Generation = "5", 1
	w.setProfile(&before)
	w.wroteStatus(w.profiles[key], "7", before.Status)
	for _, version := range []string{"6", "7"} {
		seen := before
		seen.ResourceVersion, seen.Generation = version, 2
		seen.Spec.Artifact = repository + digestNumber(2)
		w.setProfile(&seen)
	}
	if got := w.profiles[key].object; got.Generation != 2 || got.Spec.Artifact != repository+digestNumber(2) {
		t.Errorf("generation %d with %s: the change of spec is lost", got.Generation, got.Spec.Artifact)
	}
}

// A node's report of before may be about what it is assigned anew. Then no event
// follows a write, and the write itself has to lead to another pass.
func TestOwnWritesWake(t *testing.T) {
	w := newTestWorld(t, 1)
	assigned := []assignment{{key: "k", artifact: "a"}}
	for name, c := range map[string]struct {
		assigned []assignment
		wakes    int
	}{
		"another assignment": {assigned, 1},
		"nothing new":        {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w.shares["node-00000"] = &share{ObjectMeta: metav1.ObjectMeta{Name: "node-00000", UID: "share", ResourceVersion: "6"}}
			w.changes = 0
			w.wroteShare("node-00000", "share", "7", "", c.assigned, nil)
			if w.changes != c.wakes {
				t.Errorf("it woke %d times, want %d", w.changes, c.wakes)
			}
		})
	}
}

// Nodes report their health all the time. Only what matters wakes the controller.
func TestOnlyWhatMattersWakes(t *testing.T) {
	w := newTestWorld(t, 1)
	w.addProfile(1, nil)
	w.settle(installed)
	w.changes = 0
	w.addNode("node-00000")
	s := *w.shares["node-00000"]
	s.ResourceVersion = "99"
	w.setShare(&s)
	w.setProfile(w.profiles[profileKey("web", "profile-001")].object)
	if w.changes != 0 {
		t.Errorf("%d changes of nothing", w.changes)
	}
	unready := *w.nodes["node-00000"]
	unready.ready = false
	w.setNode(&unready)
	if w.changes != 1 {
		t.Errorf("%d changes for a node that is not Ready", w.changes)
	}
}

func TestKindsAreKeptAsOneString(t *testing.T) {
	kinds := []v1alpha1.KindReport{{Name: "a", References: []string{"x", "y"}}, {Name: "empty"}, {Name: "b", References: []string{"z"}}}
	want := []v1alpha1.PayloadReference{{Kind: "a", Name: "x"}, {Kind: "a", Name: "y"}, {Kind: "b", Name: "z"}}
	if diff := cmp.Diff(want, decodeKinds(encodeKinds(kinds))); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkPlan is one pass over 5,000 nodes and 100 profiles: with nothing to
// do, and in the middle of rollouts of all profiles.
func BenchmarkPlan(b *testing.B) {
	const nodes, profiles = 5000, 100
	half := func(node string, a assignment) *v1alpha1.ProfileReport {
		if node[len(node)-1]%2 == 0 {
			return nil
		}
		return installed(node, a)
	}
	for name, answer := range map[string]func(string, assignment) *v1alpha1.ProfileReport{"settled": installed, "rolling": half} {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			w := newTestWorld(b, nodes)
			for n := range profiles {
				w.addProfile(n, nil)
			}
			w.settle(answer)
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportAllocs()
			for b.Loop() {
				w.makePlan(planOptions{now: instant()})
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-of-state")
			runtime.KeepAlive(w)
		})
	}
}

// Profiles that are kept only because it cannot be read whether they are gone
// take no place of one that a node has.
func TestWhatIsKeptUnreadTakesNoPlace(t *testing.T) {
	w := newTestWorld(t, 1)
	for n := range v1alpha1.MaxNodeProfiles {
		w.addProfile(n, nil)
	}
	w.settle(installed)
	gone := w.profiles[profileKey("web", "profile-100")].object
	w.dropProfile(gone)
	w.addProfile(0, func(p *v1alpha1.SecurityProfile) { p.Name, p.UID = "a-new-one", "new" })
	for _, s := range w.makePlan(planOptions{now: instant(), keepOrphans: true}).shares {
		if len(s.assigned) != v1alpha1.MaxNodeProfiles {
			t.Errorf("%d are assigned", len(s.assigned))
		}
		for _, a := range s.assigned {
			if a.key == profileKey("web", "a-new-one") {
				t.Error("the new one has the place of another")
			}
		}
	}
}

// Whoever may make profiles may make many thousands; the controller must not
// run out of memory for everybody.
func TestManyProfilesTakeLittleMemory(t *testing.T) {
	const nodes, profiles = 200, 3000
	w := newTestWorld(t, nodes)
	for n := range profiles {
		w.addProfile(n, nil)
	}
	p := &planner{planOptions: planOptions{now: instant()}, world: w.world, plan: &plan{nodes: map[nodeState]int{}}}
	p.gather()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.exclude()
	runtime.ReadMemStats(&after)
	if took, most := after.TotalAlloc-before.TotalAlloc, uint64(nodes+profiles)*256; took > most {
		t.Errorf("who has a place takes %d bytes, want %d at most", took, most)
	}
}
