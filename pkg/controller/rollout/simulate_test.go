package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
)

// machine is one node of the model: what it would say about each artifact, and
// how long it takes to.
type machine struct {
	name             string
	eligible, canary bool
	assigned         string
	verdict          rollout.Verdict
	// readySince is when its verdict became Ready.
	readySince time.Time
}

// model is a fleet with one profile, an API server that may lose writes, and
// people who edit.
type model struct {
	t          *testing.T
	rand       *rand.Rand
	now        time.Time
	machines   []*machine
	born       int
	target     string
	generation int64
	spec       *v1alpha1.Rollout
	status     *v1alpha1.RolloutStatus
	ready      int32
	history    []v1alpha1.HistoryEntry
	// bad are the artifacts that nodes refuse, and silent those that they
	// never report about.
	bad, silent map[string]bool
}

func artifact(n int) string {
	return fmt.Sprintf("registry.example.com/web@sha256:%s", strings.Repeat(fmt.Sprintf("%02x", n), 32))
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		target: artifact(0), generation: 1, bad: map[string]bool{}, silent: map[string]bool{},
	}
	for range 1 + m.rand.IntN(20) {
		m.add()
	}
	for n := range 6 {
		m.bad[artifact(n)] = m.rand.IntN(3) == 0
		m.silent[artifact(n)] = m.rand.IntN(8) == 0
	}
	m.respec()
	return m
}

func (m *model) add() {
	m.born++
	m.machines = append(m.machines, &machine{
		name: fmt.Sprintf("node-%d", m.born), eligible: m.rand.IntN(5) > 0, canary: m.rand.IntN(4) == 0,
	})
}

// respec edits spec.rollout.
func (m *model) respec() {
	m.spec = nil
	if m.rand.IntN(4) == 0 {
		return
	}
	concurrent := intstr.FromInt32(1 + m.rand.Int32N(5))
	if m.rand.IntN(2) == 0 {
		concurrent = intstr.FromString(fmt.Sprintf("%d%%", 1+m.rand.IntN(100)))
	}
	threshold := intstr.FromInt32(1 + m.rand.Int32N(4))
	deadline := int32(60 + m.rand.IntN(600))
	m.spec = &v1alpha1.Rollout{
		Paused: m.rand.IntN(8) == 0, MaxConcurrent: &concurrent, FailureThreshold: &threshold, ProgressDeadlineSeconds: &deadline,
		OnFailure: []v1alpha1.OnFailure{v1alpha1.OnFailurePause, v1alpha1.OnFailureRollback}[m.rand.IntN(2)],
	}
	switch m.rand.IntN(3) {
	case 0:
		count := 1 + m.rand.Int32N(4)
		m.spec.Canary = &v1alpha1.Canary{Nodes: &count, SoakSeconds: m.rand.Int32N(400)}
	case 1:
		m.spec.Canary = &v1alpha1.Canary{SoakSeconds: m.rand.Int32N(400)}
	}
}

// step lets something happen.
func (m *model) step() {
	m.now = m.now.Add(time.Duration(m.rand.IntN(90_000)) * time.Millisecond)
	switch n := m.rand.IntN(40); {
	case n == 0:
		m.target, m.generation = artifact(m.rand.IntN(6)), m.generation+1
	case n == 1:
		m.respec()
		m.generation++
	case n == 2:
		m.add()
	case n == 3 && len(m.machines) > 1:
		i := m.rand.IntN(len(m.machines))
		m.machines = slices.Delete(m.machines, i, i+1)
	case n < 7:
		one := m.machines[m.rand.IntN(len(m.machines))]
		one.eligible = !one.eligible
	case n == 7: // made again under its name: what it reported is gone
		m.machines[m.rand.IntN(len(m.machines))].verdict = rollout.Pending
	}
	for _, one := range m.machines {
		if one.eligible && one.assigned != "" && m.rand.IntN(3) == 0 {
			m.reports(one)
		}
	}
}

func (m *model) reports(one *machine) {
	before := one.verdict
	one.verdict = m.says(one.assigned)
	if one.verdict == rollout.Ready && before != rollout.Ready {
		one.readySince = m.now
	}
}

func (m *model) says(artifact string) rollout.Verdict {
	switch {
	case m.silent[artifact]:
		return rollout.Pending
	case m.bad[artifact]:
		return rollout.Bad
	}
	return rollout.Ready
}

func (m *model) input() rollout.Input {
	in := rollout.Input{
		UID: "6a3f", Generation: m.generation, Target: m.target, Spec: m.spec, Status: m.status.DeepCopy(), Ready: m.ready,
		History: slices.Clone(m.history), Now: m.now,
	}
	for _, one := range m.machines {
		in.Nodes = append(in.Nodes, rollout.Node{
			Name: one.name, Eligible: one.eligible, Canary: one.canary && m.spec != nil && m.spec.Canary != nil && m.spec.Canary.Nodes == nil,
			Assigned: one.assigned, Verdict: one.verdict, Since: one.readySince.Unix(),
		})
	}
	return in
}

// pass decides, checks, and writes; a controller that dies in between wrote
// the beginning of it. reliable ones do not die.
func (m *model) pass(reliable bool) rollout.Output {
	in := m.input()
	out := rollout.Decide(in)
	m.checkPure(in, out)
	m.check(in, out)
	survives := func() bool { return reliable || m.rand.IntN(10) > 0 }
	if out.Durable {
		if !survives() {
			return out
		}
		m.write(out)
	}
	for i, one := range m.machines {
		if !survives() {
			return out
		}
		if one.assigned != out.Assign[i] {
			one.assigned, one.verdict = out.Assign[i], rollout.Pending
		}
	}
	if survives() {
		m.write(out)
	}
	return out
}

// write is a status that reached the API server.
func (m *model) write(out rollout.Output) {
	m.status, m.ready, m.history = out.Status.DeepCopy(), out.Counts.Ready, slices.Clone(out.History)
}

// checkPure: the same input in another order gives the same decision.
func (m *model) checkPure(in rollout.Input, out rollout.Output) {
	m.t.Helper()
	again := in
	again.Nodes = slices.Clone(in.Nodes)
	order := m.rand.Perm(len(in.Nodes))
	for i, from := range order {
		again.Nodes[i] = in.Nodes[from]
	}
	second := rollout.Decide(again)
	back := make([]string, len(order))
	for i, from := range order {
		back[from] = second.Assign[i]
	}
	second.Assign = back
	if !reflect.DeepEqual(out, second) {
		m.t.Fatalf("the decision depends on more than its input:\n%s", cmp.Diff(out, second))
	}
}

// check holds what must be true of every decision.
func (m *model) check(in rollout.Input, out rollout.Output) {
	m.t.Helper()
	fail := func(format string, args ...any) {
		m.t.Helper()
		short := strings.NewReplacer("registry.example.com/web@sha256:", "", artifact(0), "0")
		m.t.Fatal(short.Replace(fmt.Sprintf("%s\n input %+v\noutput %+v", fmt.Sprintf(format, args...), in, out)))
	}
	var pending, eligible, fresh, given int // of the target, after the decision
	for i, n := range in.Nodes {
		artifact := out.Assign[i]
		isNew := artifact == in.Target && n.Assigned != in.Target
		switch {
		case n.Assigned != "" && artifact == "":
			fail("%s loses its profile", n.Name)
		case artifact == "" && len(in.History) > 0:
			fail("%s stays without a profile though there is a good one", n.Name)
		}
		if n.Eligible {
			eligible++
		}
		if n.Eligible && artifact == in.Target {
			given++
			if isNew || n.Verdict == rollout.Pending {
				pending++
			}
		}
		if isNew {
			fresh++
			m.checkNew(n, out, fail)
		}
	}
	before := 0
	for _, n := range in.Nodes {
		if n.Eligible && n.Assigned == in.Target && n.Verdict == rollout.Pending {
			before++
		}
	}
	if limit := m.concurrent(eligible); out.Reason == v1alpha1.ReasonRollingOut && pending > max(limit, before) {
		fail("%d nodes on their way, %d were before, at most %d may be", pending, before, limit)
	}
	stoppedBefore := in.Status != nil && in.Status.Stopped != "" && in.Status.StoppedGeneration == in.Generation && in.Status.TargetArtifact == in.Target
	if stoppedBefore && fresh > 0 {
		fail("%d nodes get the target after the stop", fresh)
	}
	m.checkCanary(in, out, fresh, given, fail)
	m.checkRollback(in, out, fail)
	m.checkHistory(in, out, fail)
}

func (m *model) checkNew(n rollout.Node, out rollout.Output, fail func(string, ...any)) {
	m.t.Helper()
	switch out.Reason {
	case v1alpha1.ReasonRolloutComplete, v1alpha1.ReasonRollingBack:
	case v1alpha1.ReasonCanary, v1alpha1.ReasonRollingOut:
		if !n.Eligible {
			fail("%s is not available and gets the target in mid-rollout", n.Name)
		}
	default:
		if len(m.history) == 0 || m.history[0].Artifact != m.target {
			fail("%s gets the target while %s", n.Name, out.Reason)
		}
	}
}

// checkCanary: nobody but canaries has the target before they passed, and they
// pass no sooner than they soaked.
func (m *model) checkCanary(in rollout.Input, out rollout.Output, fresh, given int, fail func(string, ...any)) {
	m.t.Helper()
	if m.spec == nil || m.spec.Canary == nil {
		return
	}
	canary := m.spec.Canary
	passed := out.Status.CanaryPassedAt != nil
	rolling := out.Reason == v1alpha1.ReasonCanary || out.Reason == v1alpha1.ReasonSoaking || out.Reason == v1alpha1.ReasonRollingOut
	if !rolling {
		return
	}
	if !passed {
		if canary.Nodes != nil && fresh > 0 && given > int(*canary.Nodes) {
			fail("%d nodes have the target, and %d are canaries", given, *canary.Nodes)
		}
		for i, n := range in.Nodes {
			if canary.Nodes == nil && !n.Canary && out.Assign[i] == in.Target && n.Assigned != in.Target {
				fail("%s is no canary", n.Name)
			}
		}
		return
	}
	if in.Status != nil && in.Status.TargetArtifact == in.Target && in.Status.CanaryPassedAt.Equal(out.Status.CanaryPassedAt) {
		return
	}
	soak := time.Duration(canary.SoakSeconds) * time.Second
	for i, one := range m.machines {
		n := in.Nodes[i]
		isCanary := canary.Nodes != nil || n.Canary
		if !isCanary || !n.Eligible || n.Assigned != in.Target {
			continue
		}
		switch {
		case n.Verdict != rollout.Ready:
			fail("canaries passed while %s is not ready", n.Name)
		case m.now.Sub(one.readySince) < soak:
			fail("canaries passed though %s is ready only since %s", n.Name, one.readySince)
		}
	}
}

func (m *model) checkRollback(in rollout.Input, out rollout.Output, fail func(string, ...any)) {
	m.t.Helper()
	rollsBack := out.Status.Stopped != "" && (out.Reason == v1alpha1.ReasonRollingBack || out.Reason == v1alpha1.ReasonRolledBack)
	if !rollsBack {
		return
	}
	for i, n := range in.Nodes {
		if out.Assign[i] != out.Status.EffectiveArtifact || out.Assign[i] == in.Target {
			fail("the rollback leaves %s with %s", n.Name, out.Assign[i])
		}
	}
}

// checkHistory: only what every available node has been given, and one is
// ready with, becomes history.
func (m *model) checkHistory(in rollout.Input, out rollout.Output, fail func(string, ...any)) {
	m.t.Helper()
	if len(out.History) > rollout.MaxHistory {
		fail("%d entries of history", len(out.History))
	}
	if reflect.DeepEqual(in.History, out.History) {
		return
	}
	ready := 0
	for _, n := range in.Nodes {
		switch {
		case n.Eligible && (n.Assigned != in.Target || n.Verdict == rollout.Pending):
			fail("the rollout is complete without %s", n.Name)
		case n.Eligible && n.Verdict == rollout.Ready:
			ready++
		}
	}
	if ready == 0 || out.History[0].Artifact != in.Target {
		fail("the history gets what no node is ready with")
	}
}

func (m *model) concurrent(eligible int) int {
	if m.spec == nil {
		return max(1, (eligible+3)/4)
	}
	if v := m.spec.MaxConcurrent; v.Type == intstr.Int {
		return int(v.IntVal)
	}
	var percent int
	if _, err := fmt.Sscanf(m.spec.MaxConcurrent.StrVal, "%d%%", &percent); err != nil {
		m.t.Fatal(err)
	}
	return max(1, (percent*eligible+99)/100)
}

// TestSimulation lets fleets live: nodes come, go, fail and are made again,
// people edit, and the controller dies at any write. Then everything calms
// down, and each rollout must come to its end.
func TestSimulation(t *testing.T) {
	const fleets = 400
	ran := 0
	reasons := map[string]int{}
	for seed := range uint64(fleets) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ran++
			m := newModel(t, seed)
			for range 250 {
				m.step()
				reasons[m.pass(false).Reason]++
			}
			m.end()
		})
	}
	if ran < fleets {
		return // some of them were asked for
	}
	for _, word := range []string{
		v1alpha1.ReasonRolloutComplete, v1alpha1.ReasonCanary, v1alpha1.ReasonSoaking, v1alpha1.ReasonRollingOut, v1alpha1.ReasonPaused,
		v1alpha1.ReasonCanaryFailed, v1alpha1.ReasonFailureThresholdReached, v1alpha1.ReasonProgressDeadlineExceeded,
		v1alpha1.ReasonRollingBack, v1alpha1.ReasonRolledBack, v1alpha1.ReasonPending,
	} {
		if reasons[word] == 0 {
			t.Errorf("the simulation never came to %s: it tests less than it should", word)
		}
	}
}

// end makes one last edit, and lets time pass without further surprises. What
// is not available stays so: it must not block the others.
func (m *model) end() {
	m.t.Helper()
	m.machines[0].eligible, m.machines[0].canary = true, true
	m.target, m.generation = artifact(m.rand.IntN(6)), m.generation+1
	if m.spec != nil {
		m.spec.Paused = false
	}
	var out rollout.Output
	for range 400 {
		m.now = m.now.Add(20 * time.Second)
		for _, one := range m.machines {
			if one.eligible && one.assigned != "" {
				m.reports(one)
			}
		}
		out = m.pass(true)
	}
	verdict := m.says(m.target)
	last := m.history
	switch {
	case len(last) > 0 && last[0].Artifact == m.target && out.Reason == v1alpha1.ReasonRolloutComplete:
	case len(last) > 0 && last[0].Artifact == m.target && out.Reason == v1alpha1.ReasonRollingBack && verdict != rollout.Ready:
		// Back to what was good and is refused now: there is nothing better.
	case verdict == rollout.Ready:
		m.t.Fatalf("a good artifact ended as %s: %s", out.Reason, out.Message)
	case out.Status.Stopped == "":
		m.t.Fatalf("an artifact that no node gets ready with ended as %s: %s", out.Reason, out.Message)
	}
	for _, one := range m.machines {
		if out.Reason == v1alpha1.ReasonRolloutComplete && one.assigned != m.target {
			m.t.Errorf("%s was not caught up: %s", one.name, one.assigned)
		}
	}
	next := m.pass(true)
	if next.Durable {
		m.t.Errorf("at its end the rollout is still deciding: %+v", next.Status)
	}
}
