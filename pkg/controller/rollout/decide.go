package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/confine-dev/confine/api/v1alpha1"
)

// decision is a decision in the making.
type decision struct {
	in       Input
	set      settings
	out      Output
	tally    tally
	lastGood string
}

// tally counts nodes by what they have of the target.
type tally struct {
	total    int32
	eligible int32 // of all: the others do not count
	ready    int32 // eligible, have it in force
	bad      int32 // eligible, refuse it
	pending  int32 // eligible, on their way
	waiting  int32 // eligible, not assigned it yet
}

// Decide returns the decision for one SecurityProfile.
func Decide(in Input) Output {
	d := &decision{in: in}
	d.out.Assign = make([]string, len(in.Nodes))
	d.out.History = in.History
	d.begin()
	d.tally = d.count(in.Target)
	d.set = read(in.Spec, int(d.tally.eligible))
	if len(in.History) > 0 {
		d.lastGood = in.History[0].Artifact
	}
	d.choose()
	d.finish()
	return d.out
}

// begin takes over the status, or starts anew where it is about something else.
func (d *decision) begin() {
	if d.in.Status != nil {
		d.out.Status = *d.in.Status.DeepCopy()
	}
	s := &d.out.Status
	retry := s.Stopped != "" && s.StoppedGeneration != d.in.Generation
	if d.in.Target == "" || s.TargetArtifact == d.in.Target && !retry {
		return
	}
	// The first look at a profile that has been rolled out already, with a
	// lost status, is no new rollout.
	started := s.StartedAt
	if s.TargetArtifact != "" || retry {
		started = stamp(d.in.Now)
	}
	*s = v1alpha1.RolloutStatus{TargetArtifact: d.in.Target, StartedAt: started, EffectiveArtifact: s.EffectiveArtifact, EffectiveDigest: s.EffectiveDigest}
}

func (d *decision) choose() {
	s := &d.out.Status
	switch {
	case d.in.Target == "":
		d.hold()
	case len(d.in.Nodes) == 0:
		s.LastProgressAt = nil
		d.say(false, v1alpha1.ReasonNoNodes, "no Linux node is selected")
	case s.Stopped != "":
		d.stopped()
	case d.completed():
		d.giveAll(d.in.Target)
		d.complete()
	case d.set.paused:
		d.hold()
		s.LastProgressAt = nil
		d.say(true, v1alpha1.ReasonPaused, "the rollout is paused: set spec.rollout.paused to false to go on")
	case d.lastGood == d.in.Target:
		d.goBack()
	default:
		d.roll()
	}
}

// completed reports whether this rollout reached its end before: what happens
// to nodes afterwards does not start it again.
func (d *decision) completed() bool {
	if d.lastGood != d.in.Target {
		return false
	}
	started := d.out.Status.StartedAt
	return started == nil || !started.After(d.in.History[0].CompletedAt.Time)
}

// goBack ends a rollout to another digest by returning to the one that every
// node had before it: no wave is needed for what is known to be good.
func (d *decision) goBack() {
	s := &d.out.Status
	d.giveAll(d.in.Target)
	s.LastProgressAt = nil
	if d.tally.eligible > 0 && d.tally.pending+d.tally.waiting == 0 && d.tally.ready > 0 {
		d.remember()
		d.complete()
		return
	}
	d.say(true, v1alpha1.ReasonRollingBack, "all nodes go back to the artifact of before")
}

// roll is a rollout under way.
func (d *decision) roll() {
	d.watchProgress()
	if why := d.failed(); why != "" {
		d.out.Status.Stopped, d.out.Status.StoppedGeneration = why, d.in.Generation
		d.stopped()
		return
	}
	d.hold()
	switch {
	case d.tally.eligible == 0:
		d.say(true, v1alpha1.ReasonPending, "no selected node is available")
	case !d.canariesPassed():
	case d.tally.pending+d.tally.waiting == 0 && d.tally.ready > 0:
		d.remember()
		d.giveAll(d.in.Target)
		d.complete()
	default:
		d.wave()
	}
}

// watchProgress keeps the clock of the deadline and of the soak: it starts
// again whenever one more node is ready, and stands while nobody is on the way.
func (d *decision) watchProgress() {
	s := &d.out.Status
	soaking := d.set.canary != nil && s.CanaryPassedAt == nil && d.tally.ready > 0
	switch {
	case d.tally.pending == 0 && !soaking:
		s.LastProgressAt = nil
	case s.LastProgressAt == nil, d.tally.ready > d.readyBefore():
		s.LastProgressAt = stamp(d.in.Now)
	}
}

// readyBefore is how many nodes had the target when the status was written.
func (d *decision) readyBefore() int32 {
	if before := d.in.Status; before != nil && before.TargetArtifact == d.in.Target && before.EffectiveArtifact == d.in.Target {
		return d.in.Ready
	}
	return 0
}

// failed returns why the rollout has to stop, or nothing.
func (d *decision) failed() string {
	s := &d.out.Status
	if d.set.canary != nil && s.CanaryPassedAt == nil {
		for _, n := range d.in.Nodes {
			if d.isCanary(n) && n.Eligible && d.verdict(n) == Bad {
				return v1alpha1.ReasonCanaryFailed
			}
		}
	}
	if int(d.tally.bad) >= d.set.failureThreshold {
		return v1alpha1.ReasonFailureThresholdReached
	}
	if d.tally.pending > 0 && s.LastProgressAt != nil {
		deadline := s.LastProgressAt.Add(d.set.deadline)
		if !d.in.Now.Before(deadline) {
			return v1alpha1.ReasonProgressDeadlineExceeded
		}
		d.lookAt(deadline)
	}
	return ""
}

// isCanary reports whether a node is a canary while canaries have not passed.
// Of a number of canaries each node that has the target is one: nobody else
// gets it before.
func (d *decision) isCanary(n Node) bool {
	if d.set.canary.Nodes != nil {
		return n.Assigned == d.in.Target || n.Excluded
	}
	return n.Canary
}

// canariesPassed assigns the canaries, and reports whether the others may
// follow.
func (d *decision) canariesPassed() bool {
	s := &d.out.Status
	canary := d.set.canary
	if canary == nil || s.CanaryPassedAt != nil {
		return true
	}
	ready, pending := 0, 0
	var youngest int64
	var candidates []int
	for i, n := range d.in.Nodes {
		switch {
		case !n.Eligible || n.Excluded:
		case d.isCanary(n) && n.Assigned == d.in.Target:
			if n.Verdict == Ready {
				ready++
				youngest = d.younger(youngest, n.Since)
			} else {
				pending++
			}
		case canary.Nodes != nil || n.Canary:
			candidates = append(candidates, i)
		}
	}
	missing := len(candidates)
	if canary.Nodes != nil {
		missing = min(missing, max(0, int(*canary.Nodes)-ready-pending))
	}
	d.giveNext(candidates, missing)
	switch {
	case ready+pending+missing == 0:
		d.say(true, v1alpha1.ReasonCanary, "no available node is a canary: the others wait for one")
		return false
	case missing+pending > 0:
		d.say(true, v1alpha1.ReasonCanary, "%d of %d canaries are ready", ready, ready+pending+missing)
		return false
	}
	return d.soaked(ready, youngest)
}

// younger returns the later of two times in Unix seconds. One in the future is
// of a clock that is wrong, and would never pass.
func (d *decision) younger(a, b int64) int64 {
	if b > d.in.Now.Unix() {
		return a
	}
	return max(a, b)
}

// soaked reports whether the canaries have been ready for long enough: since
// one more of them was, and since the youngest says it is, for one may have
// taken the place of another between two looks.
func (d *decision) soaked(canaries int, youngest int64) bool {
	s := &d.out.Status
	soak := time.Duration(d.set.canary.SoakSeconds) * time.Second
	if s.LastProgressAt == nil {
		s.LastProgressAt = stamp(d.in.Now)
	}
	since := s.LastProgressAt.Time
	if report := time.Unix(youngest+1, 0); report.After(since) {
		since = report
	}
	if until := since.Add(soak); soak > 0 && d.in.Now.Before(until) {
		d.lookAt(until)
		d.say(true, v1alpha1.ReasonSoaking, "%d canaries are ready; the others follow at %s", canaries, until.UTC().Format(time.RFC3339))
		return false
	}
	s.CanaryPassedAt = stamp(d.in.Now)
	// The clock of the deadline stood still for the others.
	s.LastProgressAt = stamp(d.in.Now)
	return true
}

// wave fills the free places with the nodes whose turn it is, once half of
// them are free: with each profile filling each place at once, a fleet would be
// written for every single report.
func (d *decision) wave() {
	d.say(true, v1alpha1.ReasonRollingOut, "%d of %d available nodes are ready", d.tally.ready, d.tally.eligible)
	free := d.set.maxConcurrent - int(d.tally.pending)
	if 2*free < d.set.maxConcurrent {
		return
	}
	var candidates []int
	for i, n := range d.in.Nodes {
		if n.Eligible && !n.Excluded && n.Assigned != d.in.Target {
			candidates = append(candidates, i)
		}
	}
	d.giveNext(candidates, free)
}

// giveNext assigns the target to the first so many of the candidates in turn.
func (d *decision) giveNext(candidates []int, places int) {
	if places <= 0 || len(candidates) == 0 {
		return
	}
	s := &d.out.Status
	if s.StartedAt == nil {
		s.StartedAt = stamp(d.in.Now)
	}
	if s.LastProgressAt == nil {
		s.LastProgressAt = stamp(d.in.Now)
	}
	d.lookAt(s.LastProgressAt.Add(d.set.deadline))
	if places < len(candidates) {
		candidates = inTurn(d.in.UID, d.in.Nodes, candidates)[:places]
	}
	for _, i := range candidates {
		d.out.Assign[i] = d.in.Target
	}
}

// stopped is a rollout that failed: it rests, or every node goes back.
func (d *decision) stopped() {
	s := &d.out.Status
	s.LastProgressAt = nil
	d.out.Next = time.Time{}
	good := d.rollbackTo()
	if good == "" {
		d.hold()
		d.say(false, s.Stopped, "%s", stopMessage(s.Stopped, d.tally, d.set))
		return
	}
	d.giveAll(good)
	for _, n := range d.in.Nodes {
		if n.Eligible && !n.Excluded && (n.Assigned != good || n.Verdict == Pending) {
			d.say(true, v1alpha1.ReasonRollingBack, "%s; all nodes go back to %s", s.Stopped, good)
			return
		}
	}
	d.say(false, v1alpha1.ReasonRolledBack, "%s; all available nodes are back at %s: change spec.artifact to roll out another one", s.Stopped, good)
}

// rollbackTo returns the artifact to go back to, or nothing.
func (d *decision) rollbackTo() string {
	if !d.set.rollback {
		return ""
	}
	for _, entry := range d.in.History {
		if entry.Artifact != d.in.Target {
			return entry.Artifact
		}
	}
	return ""
}

func stopMessage(why string, t tally, set settings) string {
	const advice = "see status.failures, and change spec to start anew"
	switch why {
	case v1alpha1.ReasonCanaryFailed:
		return "a canary refuses the artifact: " + advice
	case v1alpha1.ReasonProgressDeadlineExceeded:
		return fmt.Sprintf("no further node got ready for %s, %d are on their way: %s", set.deadline, t.pending, advice)
	}
	return fmt.Sprintf("%d nodes refuse the artifact: %s", t.bad, advice)
}

// hold leaves nodes what they have. One that has nothing gets what all had
// before, so that a new node is protected in the middle of a rollout.
func (d *decision) hold() {
	for i, n := range d.in.Nodes {
		switch {
		case n.Excluded:
		case n.Assigned != "":
			d.out.Assign[i] = n.Assigned
		default:
			d.out.Assign[i] = d.lastGood
		}
	}
}

func (d *decision) giveAll(artifact string) {
	for i, n := range d.in.Nodes {
		if !n.Excluded {
			d.out.Assign[i] = artifact
		}
	}
}

// remember puts the target first in the history.
func (d *decision) remember() {
	entry := v1alpha1.HistoryEntry{Artifact: d.in.Target, CompletedAt: *stamp(d.in.Now)}
	// The clock was set back, or another controller's is behind: it would never
	// count as completed.
	if started := d.out.Status.StartedAt; started != nil && started.After(entry.CompletedAt.Time) {
		entry.CompletedAt = *started
	}
	history := []v1alpha1.HistoryEntry{entry}
	for i, old := range d.in.History {
		if (i > 0 || old.Artifact != d.in.Target) && len(history) < MaxHistory {
			history = append(history, old)
		}
	}
	d.out.History = history
}

func (d *decision) complete() {
	d.out.Status.LastProgressAt = nil
	d.out.Next = time.Time{}
	d.say(false, v1alpha1.ReasonRolloutComplete, "every available node was given the artifact")
}

func (d *decision) say(progressing bool, word, format string, args ...any) {
	d.out.Progressing, d.out.Reason, d.out.Message = progressing, word, fmt.Sprintf(format, args...)
}

func (d *decision) lookAt(t time.Time) {
	if d.out.Next.IsZero() || t.Before(d.out.Next) {
		d.out.Next = t
	}
}

// verdict is about the target: what a node says of another artifact is none.
func (d *decision) verdict(n Node) Verdict {
	switch {
	case n.Excluded:
		return Bad
	case n.Assigned == d.in.Target:
		return n.Verdict
	}
	return Pending
}

func (d *decision) count(artifact string) tally {
	var t tally
	for _, n := range d.in.Nodes {
		t.total++
		if !n.Eligible {
			continue
		}
		t.eligible++
		switch {
		case n.Excluded:
			t.bad++
		case n.Assigned != artifact:
			t.waiting++
		case n.Verdict == Ready:
			t.ready++
		case n.Verdict == Bad:
			t.bad++
		default:
			t.pending++
		}
	}
	return t
}

// finish derives the effective artifact, the counts and what must be durable.
func (d *decision) finish() {
	s := &d.out.Status
	if d.in.Target != "" {
		s.EffectiveArtifact = d.in.Target
		if good := d.rollbackTo(); s.Stopped != "" && good != "" {
			s.EffectiveArtifact = good
		}
		s.EffectiveDigest = DigestOf(s.EffectiveArtifact)
	}
	t := d.count(s.EffectiveArtifact)
	c := &d.out.Counts
	c.Total, c.Ready, c.Failed, c.Unavailable = t.total, t.ready, t.bad, t.total-t.eligible
	for _, artifact := range d.out.Assign {
		if artifact != "" && artifact == s.EffectiveArtifact {
			c.Updated++
		}
	}
	d.out.Durable = d.durable()
}

// durable reports whether the decision rests on something that is not written
// yet. A controller that acted on it and died would decide otherwise.
func (d *decision) durable() bool {
	before := d.in.Status
	if before == nil {
		before = &v1alpha1.RolloutStatus{}
	}
	after := &d.out.Status
	return before.TargetArtifact != after.TargetArtifact || before.EffectiveArtifact != after.EffectiveArtifact ||
		before.Stopped != after.Stopped || before.StoppedGeneration != after.StoppedGeneration ||
		!before.StartedAt.Equal(after.StartedAt) || !before.CanaryPassedAt.Equal(after.CanaryPassedAt) ||
		len(d.in.History) != len(d.out.History) ||
		len(d.in.History) > 0 && d.in.History[0] != d.out.History[0]
}

// DigestOf returns the digest of REPOSITORY@DIGEST.
func DigestOf(artifact string) string {
	_, digest, _ := strings.Cut(artifact, "@")
	return digest
}
