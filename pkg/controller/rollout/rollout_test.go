package rollout_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller/rollout"
	"github.com/confine-dev/confine/pkg/reason"
)

// oldOne is in the history, target is rolled out, other is neither.
func oldOne() string { return artifact(1) }
func target() string { return artifact(2) }
func other() string  { return artifact(3) }

func noon() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

func at(d time.Duration) *metav1.Time { return &metav1.Time{Time: noon().Add(d)} }

func percent(s string) *intstr.IntOrString { v := intstr.FromString(s); return &v }
func number(n int32) *intstr.IntOrString   { v := intstr.FromInt32(n); return &v }
func pointer[T any](v T) *T                { return &v }

func history(artifacts ...string) []v1alpha1.HistoryEntry {
	var entries []v1alpha1.HistoryEntry
	for i, a := range artifacts {
		entries = append(entries, v1alpha1.HistoryEntry{Artifact: a, CompletedAt: *at(-time.Duration(i+1) * time.Hour)})
	}
	return entries
}

// running is a rollout of target that began a minute ago.
func running() *v1alpha1.RolloutStatus {
	return &v1alpha1.RolloutStatus{
		TargetArtifact: target(), EffectiveArtifact: target(), EffectiveDigest: rollout.DigestOf(target()),
		StartedAt: at(-time.Minute), LastProgressAt: at(-time.Minute),
	}
}

// fleet reads nodes: "a o+" is node a with oldOne and Ready. Letters: o oldOne,
// t target, x other, - none; + Ready, ! Bad, ? Pending; then ~ for not
// available, c for canary, e for excluded.
func fleet(t *testing.T, text string) []rollout.Node {
	t.Helper()
	var nodes []rollout.Node
	for word := range strings.SplitSeq(text, ",") {
		name, state, found := strings.Cut(strings.TrimSpace(word), " ")
		if !found || len(state) < 2 {
			t.Fatalf("%q is no node", word)
		}
		assigned := map[byte]string{'o': oldOne(), 't': target(), 'x': other(), '-': ""}
		verdicts := map[byte]rollout.Verdict{'+': rollout.Ready, '!': rollout.Bad, '?': rollout.Pending}
		nodes = append(nodes, rollout.Node{
			Name: name, Assigned: assigned[state[0]], Verdict: verdicts[state[1]],
			Eligible: !strings.Contains(state[2:], "~"), Canary: strings.Contains(state[2:], "c"), Excluded: strings.Contains(state[2:], "e"),
		})
	}
	return nodes
}

// shown writes the assignments as one letter each.
func shown(assign []string) string {
	var b strings.Builder
	for _, a := range assign {
		b.WriteString(map[string]string{oldOne(): "o", target(): "t", other(): "x", "": "-"}[a])
	}
	return b.String()
}

type decided struct {
	Assign      string
	Reason      string
	Progressing bool
	Stopped     string
	Effective   string
	History     int
	Next        time.Duration // after noon; 0 for never
}

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		nodes   string
		spec    *v1alpha1.Rollout
		status  *v1alpha1.RolloutStatus
		history []v1alpha1.HistoryEntry
		ready   int32
		target  string // target unless set; "none" for a spec that cannot be used
		want    decided
	}{
		"the first wave of a first install is a quarter": {
			nodes: "a -?, b -?, c -?, d -?, e -?",
			want:  decided{Assign: "-tt--", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"all at once where it is wanted": {
			nodes: "a -?, b -?, c -?", spec: &v1alpha1.Rollout{MaxConcurrent: percent("100%")},
			want: decided{Assign: "ttt", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"a wave waits for its nodes": {
			nodes: "a t?, b -?, c -?, d -?", status: running(),
			want: decided{Assign: "t---", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 9 * time.Minute},
		},
		"the next wave comes as one gets ready": {
			nodes: "a t+, b -?, c -?, d -?", status: running(), spec: &v1alpha1.Rollout{MaxConcurrent: number(2)},
			want: decided{Assign: "ttt-", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"places are filled again when half of them are free": {
			nodes: "a t?, b t+, c t?, d -?, e -?", status: running(), spec: &v1alpha1.Rollout{MaxConcurrent: number(3)}, ready: 1,
			want: decided{Assign: "ttt--", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 9 * time.Minute},
		},
		"what is not available is passed over": {
			nodes: "a -?~, b -?, c -?~", spec: &v1alpha1.Rollout{MaxConcurrent: number(3)},
			want: decided{Assign: "-t-", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"it is complete without them, and they catch up": {
			nodes: "a -?~, b t+, c o+~", status: running(), history: history(oldOne()),
			want: decided{Assign: "ttt", Reason: "RolloutComplete", Effective: "t", History: 2},
		},
		"a new node in mid-rollout gets what is good": {
			nodes: "a t?, b o+, c -?, d -?~", status: running(), history: history(oldOne()),
			want: decided{Assign: "tooo", Reason: "RollingOut", Progressing: true, Effective: "t", History: 1, Next: 9 * time.Minute},
		},
		"after completion a new node gets it at once": {
			nodes: "a t+, b -?, c t!, d t?", history: history(target()),
			status: &v1alpha1.RolloutStatus{TargetArtifact: target(), EffectiveArtifact: target(), StartedAt: at(-2 * time.Hour)},
			want:   decided{Assign: "tttt", Reason: "RolloutComplete", Effective: "t", History: 1},
		},
		"a refusal stops it": {
			nodes: "a t!, b o+, c o+", status: running(), history: history(oldOne()),
			want: decided{Assign: "too", Reason: "FailureThresholdReached", Stopped: "FailureThresholdReached", Effective: "t", History: 1},
		},
		"fewer refusals than the threshold do not": {
			nodes: "a t!, b t+, c o+", status: running(), history: history(oldOne()), spec: &v1alpha1.Rollout{FailureThreshold: number(2)},
			want: decided{Assign: "ttt", Reason: "RollingOut", Progressing: true, Effective: "t", History: 1, Next: 10 * time.Minute},
		},
		"nor do they keep it from its end": {
			nodes: "a t!, b t+, c t+", status: running(), history: history(oldOne()), spec: &v1alpha1.Rollout{FailureThreshold: percent("50%")},
			want: decided{Assign: "ttt", Reason: "RolloutComplete", Effective: "t", History: 2},
		},
		"that all refuse is a failure whatever the threshold": {
			nodes: "a t!, b t!", status: running(), spec: &v1alpha1.Rollout{FailureThreshold: number(100)},
			want: decided{Assign: "tt", Reason: "FailureThresholdReached", Stopped: "FailureThresholdReached", Effective: "t"},
		},
		"a refusal by a node that is not available does not count": {
			nodes: "a t!~, b t?", status: running(),
			want: decided{Assign: "tt", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 9 * time.Minute},
		},
		"one node after the other, too slow": {
			nodes: "a t?, b o+", history: history(oldOne()), spec: &v1alpha1.Rollout{ProgressDeadlineSeconds: pointer(int32(60))}, status: running(),
			want: decided{Assign: "to", Reason: "ProgressDeadlineExceeded", Stopped: "ProgressDeadlineExceeded", Effective: "t", History: 1},
		},
		"one more is ready just in time": {
			nodes: "a t?, b t+", spec: &v1alpha1.Rollout{ProgressDeadlineSeconds: pointer(int32(60))}, status: running(), ready: 0,
			want: decided{Assign: "tt", Reason: "RollingOut", Progressing: true, Effective: "t", Next: time.Minute},
		},
		"the same number is no progress": {
			nodes: "a t?, b t+", spec: &v1alpha1.Rollout{ProgressDeadlineSeconds: pointer(int32(60))}, status: running(), ready: 1,
			want: decided{Assign: "tt", Reason: "ProgressDeadlineExceeded", Stopped: "ProgressDeadlineExceeded", Effective: "t"},
		},
		"a stop with rollback takes all back at once": {
			nodes: "a t!, b t+, c o+, d t?~, e x+", status: running(), history: history(oldOne()), spec: &v1alpha1.Rollout{OnFailure: "Rollback"},
			want: decided{Assign: "ooooo", Reason: "RollingBack", Progressing: true, Stopped: "FailureThresholdReached", Effective: "o", History: 1},
		},
		"rolled back when the available ones are": {
			nodes: "a o+, b o+, c t?~", history: history(oldOne()), spec: &v1alpha1.Rollout{OnFailure: "Rollback"},
			status: &v1alpha1.RolloutStatus{TargetArtifact: target(), Stopped: "CanaryFailed", StoppedGeneration: 7},
			want:   decided{Assign: "ooo", Reason: "RolledBack", Stopped: "CanaryFailed", Effective: "o", History: 1},
		},
		"without anything good a rollback is a pause": {
			nodes: "a t!, b -?", status: running(), spec: &v1alpha1.Rollout{OnFailure: "Rollback"},
			want: decided{Assign: "t-", Reason: "FailureThresholdReached", Stopped: "FailureThresholdReached", Effective: "t"},
		},
		"a stop of another generation starts anew": {
			nodes: "a t+, b o+", history: history(oldOne()),
			status: &v1alpha1.RolloutStatus{TargetArtifact: target(), EffectiveArtifact: target(), Stopped: "CanaryFailed", StoppedGeneration: 6},
			want:   decided{Assign: "tt", Reason: "RollingOut", Progressing: true, Effective: "t", History: 1, Next: 10 * time.Minute},
		},
		"another artifact in mid-rollout": {
			nodes: "a x+, b x?, c o+, d o+", history: history(oldOne()),
			status: &v1alpha1.RolloutStatus{TargetArtifact: other(), EffectiveArtifact: other(), StartedAt: at(-time.Minute), LastProgressAt: at(-time.Minute)},
			want:   decided{Assign: "xxto", Reason: "RollingOut", Progressing: true, Effective: "t", History: 1, Next: 10 * time.Minute},
		},
		"back to what was before, in mid-rollout, needs no wave": {
			nodes: "a t+, b x!, c x?, d t+~", history: history(target()),
			status: &v1alpha1.RolloutStatus{TargetArtifact: other(), EffectiveArtifact: other(), StartedAt: at(-time.Minute)},
			want:   decided{Assign: "tttt", Reason: "RollingBack", Progressing: true, Effective: "t", History: 1},
		},
		"and is complete when all are there": {
			nodes: "a t+, b t+, d x?~", history: history(target(), oldOne()), status: running(),
			want: decided{Assign: "ttt", Reason: "RolloutComplete", Effective: "t", History: 2},
		},
		"paused": {
			nodes: "a t?, b o+, c -?", history: history(oldOne()), spec: &v1alpha1.Rollout{Paused: true}, status: running(),
			want: decided{Assign: "too", Reason: "Paused", Progressing: true, Effective: "t", History: 1},
		},
		"paused before the first node": {
			nodes: "a -?, b -?", spec: &v1alpha1.Rollout{Paused: true},
			want: decided{Assign: "--", Reason: "Paused", Progressing: true, Effective: "t"},
		},
		"no node": {
			want: decided{Reason: "NoNodes", Effective: "t"},
		},
		"no node that is available": {
			nodes: "a -?~, b -?~",
			want:  decided{Assign: "--", Reason: "Pending", Progressing: true, Effective: "t"},
		},
		"a spec that cannot be used": {
			nodes: "a t?, b o+, c -?", history: history(oldOne()), status: running(), target: "none",
			want: decided{Assign: "too", Effective: "t", History: 1},
		},
		"canaries, all at once": {
			nodes: "a -?, b -?, c -?, d -?", spec: &v1alpha1.Rollout{MaxConcurrent: number(1), Canary: &v1alpha1.Canary{Nodes: pointer(int32(2))}},
			want: decided{Assign: "-tt-", Reason: "Canary", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"canaries by label": {
			nodes: "a -?c, b -?, c -?c~", spec: &v1alpha1.Rollout{Canary: &v1alpha1.Canary{NodeSelector: &metav1.LabelSelector{}}},
			want: decided{Assign: "t--", Reason: "Canary", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"no canary is available": {
			nodes: "a -?, b -?c~", spec: &v1alpha1.Rollout{Canary: &v1alpha1.Canary{NodeSelector: &metav1.LabelSelector{}}},
			want: decided{Assign: "--", Reason: "Canary", Progressing: true, Effective: "t"},
		},
		"a canary that is gone is replaced": {
			nodes: "a t+~, b -?, c t+", status: running(), ready: 1,
			spec: &v1alpha1.Rollout{Canary: &v1alpha1.Canary{Nodes: pointer(int32(2)), SoakSeconds: 1}},
			want: decided{Assign: "ttt", Reason: "Canary", Progressing: true, Effective: "t", Next: 9 * time.Minute},
		},
		"soaking": {
			nodes: "a t+, b -?, c -?", status: running(), ready: 1,
			spec: &v1alpha1.Rollout{Canary: &v1alpha1.Canary{Nodes: pointer(int32(1)), SoakSeconds: 100}},
			want: decided{Assign: "t--", Reason: "Soaking", Progressing: true, Effective: "t", Next: 40 * time.Second},
		},
		"soaked": {
			nodes: "a t+, b -?, c -?", status: running(), ready: 1,
			spec: &v1alpha1.Rollout{MaxConcurrent: number(5), Canary: &v1alpha1.Canary{Nodes: pointer(int32(1)), SoakSeconds: 60}},
			want: decided{Assign: "ttt", Reason: "RollingOut", Progressing: true, Effective: "t", Next: 10 * time.Minute},
		},
		"soaking when all nodes are canaries": {
			nodes: "a t+", status: running(), ready: 1,
			spec: &v1alpha1.Rollout{Canary: &v1alpha1.Canary{Nodes: pointer(int32(9)), SoakSeconds: 100}},
			want: decided{Assign: "t", Reason: "Soaking", Progressing: true, Effective: "t", Next: 40 * time.Second},
		},
		"a canary's refusal stops it below the threshold": {
			nodes: "a t!, b t+, c -?", status: running(),
			spec: &v1alpha1.Rollout{FailureThreshold: number(3), Canary: &v1alpha1.Canary{Nodes: pointer(int32(2))}},
			want: decided{Assign: "tt-", Reason: "CanaryFailed", Stopped: "CanaryFailed", Effective: "t"},
		},
		"a node with too many profiles refuses": {
			nodes: "a t+, b -?e", status: running(), history: history(oldOne()),
			want: decided{Assign: "t-", Reason: "FailureThresholdReached", Stopped: "FailureThresholdReached", Effective: "t", History: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := rollout.Input{
				UID: "uid", Generation: 7, Target: target(), Spec: test.spec, Status: test.status, Ready: test.ready, History: test.history, Now: noon(),
			}
			if test.nodes != "" {
				in.Nodes = fleet(t, test.nodes)
			}
			if test.target != "" {
				in.Target = ""
			}
			out := rollout.Decide(in)
			got := decided{
				Assign: shown(out.Assign), Reason: out.Reason, Progressing: out.Progressing, Stopped: out.Status.Stopped,
				Effective: shown([]string{out.Status.EffectiveArtifact}), History: len(out.History),
			}
			if !out.Next.IsZero() {
				got.Next = out.Next.Sub(noon())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if out.Reason != "" && out.Message == "" {
				t.Error("no message")
			}
			if out.Status.Stopped != "" && out.Status.StoppedGeneration != 7 {
				t.Errorf("stopped for generation %d", out.Status.StoppedGeneration)
			}
			if digest := rollout.DigestOf(out.Status.EffectiveArtifact); out.Status.EffectiveDigest != digest {
				t.Errorf("effective digest %q", out.Status.EffectiveDigest)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	out := rollout.Decide(rollout.Input{
		UID: "uid", Target: target(), Status: running(), History: history(oldOne()), Now: noon(),
		Spec:  &v1alpha1.Rollout{FailureThreshold: number(5), MaxConcurrent: number(1)},
		Nodes: fleet(t, "a t+, b t!, c t?, d o+, e t+~, f -?~, g -?e"),
	})
	want := v1alpha1.NodeCounts{Total: 7, Updated: 4, Ready: 1, Failed: 2, Unavailable: 2}
	if diff := cmp.Diff(want, out.Counts); diff != "" {
		t.Error(diff)
	}
}

// What a decision rests on is written down before anybody acts on it.
func TestDurable(t *testing.T) {
	base := rollout.Input{UID: "uid", Generation: 7, Target: target(), Status: running(), Now: noon(), Nodes: fleet(t, "a t?, b -?")}
	for name, test := range map[string]struct {
		change func(*rollout.Input)
		want   bool
	}{
		"nothing new":   {change: func(*rollout.Input) {}},
		"more progress": {change: func(in *rollout.Input) { in.Nodes = fleet(t, "a t+, b t?") }},
		"a beginning":   {change: func(in *rollout.Input) { in.Status = nil }, want: true},
		"a stop":        {change: func(in *rollout.Input) { in.Nodes = fleet(t, "a t!, b -?") }, want: true},
		"an end":        {change: func(in *rollout.Input) { in.Nodes = fleet(t, "a t+, b t+") }, want: true},
		"canaries passed": {change: func(in *rollout.Input) {
			in.Nodes = fleet(t, "a t+, b -?")
			in.Spec = &v1alpha1.Rollout{Canary: &v1alpha1.Canary{Nodes: pointer(int32(1))}}
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			in := base
			test.change(&in)
			if out := rollout.Decide(in); out.Durable != test.want {
				t.Errorf("durable %v: %+v", out.Durable, out.Status)
			}
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var long []string
	for n := range rollout.MaxHistory {
		long = append(long, artifact(100+n))
	}
	out := rollout.Decide(rollout.Input{UID: "uid", Target: target(), Status: running(), History: history(long...), Now: noon(), Nodes: fleet(t, "a t+")})
	if len(out.History) != rollout.MaxHistory || out.History[0].Artifact != target() || out.History[1].Artifact != long[0] {
		t.Errorf("history %v", out.History)
	}
}

// Each profile begins with other nodes; the order of one never changes.
func TestOrder(t *testing.T) {
	first := func(uid string) string {
		nodes := fleet(t, "a -?, b -?, c -?, d -?, e -?, f -?, g -?, h -?")
		out := rollout.Decide(rollout.Input{UID: uid, Target: target(), Spec: &v1alpha1.Rollout{MaxConcurrent: number(1)}, Nodes: nodes, Now: noon()})
		return nodes[slices.Index(out.Assign, target())].Name
	}
	seen := map[string]bool{}
	for n := range 64 {
		seen[first(artifact(n))] = true
	}
	if len(seen) != 8 {
		t.Errorf("of 8 nodes only %q are first for one of 64 profiles", slices.Sorted(maps.Keys(seen)))
	}
}

// TestJudge lists every reason: a new one has to be thought about here.
func TestJudge(t *testing.T) {
	failed := map[reason.Reason]rollout.Verdict{
		reason.NoTrustPolicy: rollout.Pending, reason.TrustPolicyInvalid: rollout.Pending, reason.TrustRootExpired: rollout.Pending,
		reason.Unauthorized: rollout.Pending, reason.RegistryUnavailable: rollout.Pending, reason.RateLimited: rollout.Pending,
		reason.InstallFailed: rollout.Pending, reason.NoSpace: rollout.Pending,

		reason.SignatureMissing: rollout.Bad, reason.SignatureInvalid: rollout.Bad, reason.IdentityMismatch: rollout.Bad,
		reason.PredicateMismatch: rollout.Bad, reason.ThresholdNotMet: rollout.Bad, reason.SignerExpired: rollout.Bad,
		reason.Revoked: rollout.Bad, reason.DigestMismatch: rollout.Bad, reason.ArtifactNotFound: rollout.Bad,
		reason.UnsupportedArtifact: rollout.Bad, reason.TooLarge: rollout.Bad, reason.ProfileInvalid: rollout.Bad,
		reason.ProfileForbidden: rollout.Bad, reason.NameConflict: rollout.Bad, reason.KindUnsupported: rollout.Bad,
	}
	for _, r := range reason.All() {
		want, listed := failed[r]
		if !listed {
			t.Errorf("%s is not in the table", r)
			continue
		}
		if got := rollout.Judge(v1alpha1.StateFailed, metav1.ConditionUnknown, string(r)); got != want {
			t.Errorf("Failed for %s: %v, want %v", r, got, want)
		}
		if r.Fate() == reason.Retry && want == rollout.Bad {
			t.Errorf("%s is tried again by itself, and would stop a rollout", r)
		}
	}
	for name, test := range map[string]struct {
		state    v1alpha1.ReportState
		verified metav1.ConditionStatus
		why      string
		want     rollout.Verdict
	}{
		"installed":                      {v1alpha1.StateInstalled, metav1.ConditionTrue, "", rollout.Ready},
		"installed, a kind left out":     {v1alpha1.StateInstalled, metav1.ConditionTrue, "KindUnsupported", rollout.Ready},
		"installed, not verified yet":    {v1alpha1.StateInstalled, metav1.ConditionUnknown, "", rollout.Pending},
		"installed and revoked":          {v1alpha1.StateInstalled, metav1.ConditionFalse, "Revoked", rollout.Bad},
		"installed, refused in silence":  {v1alpha1.StateInstalled, metav1.ConditionFalse, "", rollout.Bad},
		"installed, policies unreadable": {v1alpha1.StateInstalled, metav1.ConditionFalse, "TrustPolicyInvalid", rollout.Pending},
		"pending":                        {v1alpha1.StatePending, metav1.ConditionUnknown, "SignatureMissing", rollout.Pending},
		"a newer agent's reason":         {v1alpha1.StateFailed, metav1.ConditionFalse, "Unheard", rollout.Bad},
		"failed without a word":          {v1alpha1.StateFailed, metav1.ConditionFalse, "", rollout.Bad},
		"a newer agent's state":          {"Resting", metav1.ConditionTrue, "", rollout.Pending},
		"nothing":                        {"", "", "", rollout.Pending},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rollout.Judge(test.state, test.verified, test.why); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
