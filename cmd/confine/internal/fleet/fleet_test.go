package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/confine-dev/confine/api/v1alpha1"
)

const repo = "registry.example.com/profiles/nginx"

func now() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now().Add(-d)) }

func digest(c string) string   { return "sha256:" + strings.Repeat(c, 64) }
func artifact(c string) string { return repo + "@" + digest(c) }

func key() types.NamespacedName { return types.NamespacedName{Namespace: "web", Name: "nginx"} }

// profile is a SecurityProfile of generation 2 that wants the artifact "b".
func profile(change ...func(*v1alpha1.SecurityProfile)) *v1alpha1.SecurityProfile {
	p := &v1alpha1.SecurityProfile{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "nginx", UID: "uid", Generation: 2, CreationTimestamp: ago(time.Hour)},
		Spec:       v1alpha1.SecurityProfileSpec{Artifact: repo + ":1.2.0@" + digest("b")},
		Status: &v1alpha1.SecurityProfileStatus{
			ObservedGeneration: 2,
			Nodes:              &v1alpha1.NodeCounts{Total: 5, Updated: 4, Ready: 3, Failed: 1, Unavailable: 1},
			Rollout:            &v1alpha1.RolloutStatus{EffectiveArtifact: artifact("b"), EffectiveDigest: digest("b"), TargetArtifact: artifact("b")},
			References:         []v1alpha1.PayloadReference{{Kind: "seccomp", Name: "confine/web/nginx/nginx.json"}},
			History:            []v1alpha1.HistoryEntry{{Artifact: artifact("a"), CompletedAt: ago(time.Minute)}},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// says sets a condition.
func says(kind string, status metav1.ConditionStatus, reason, message string) func(*v1alpha1.SecurityProfile) {
	return func(p *v1alpha1.SecurityProfile) {
		p.Status.Conditions = append(p.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message})
	}
}

func stoppedBy(word string, generation int64) func(*v1alpha1.SecurityProfile) {
	return func(p *v1alpha1.SecurityProfile) {
		p.Status.Rollout.Stopped, p.Status.Rollout.StoppedGeneration = word, generation
	}
}

func TestOneWordAndOutcome(t *testing.T) {
	const progressing, ready, degraded = v1alpha1.ConditionProgressing, v1alpha1.ConditionReady, v1alpha1.ConditionDegraded
	for name, tc := range map[string]struct {
		change  []func(*v1alpha1.SecurityProfile)
		word    string
		outcome Outcome
		stage   string
	}{
		"no status":      {[]func(*v1alpha1.SecurityProfile){func(p *v1alpha1.SecurityProfile) { p.Status = nil }}, "NotObserved", Waiting, "NotObserved"},
		"old generation": {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "RolloutComplete", ""), says(ready, "True", "AsWanted", ""), func(p *v1alpha1.SecurityProfile) { p.Generation = 3 }}, "NotObserved", Waiting, "NotObserved"},
		"deleting": {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "RolloutComplete", ""), func(p *v1alpha1.SecurityProfile) {
			gone := ago(0)
			p.DeletionTimestamp = &gone
		}}, "Deleting", Waiting, "Deleting"},
		"canary":                     {[]func(*v1alpha1.SecurityProfile){says(progressing, "True", "Canary", "1 of 2"), says(ready, "False", "Pending", "")}, "Canary", Waiting, "Canary"},
		"paused":                     {[]func(*v1alpha1.SecurityProfile){says(progressing, "True", "Paused", ""), says(ready, "False", "Pending", "")}, "Paused", Waiting, "Paused"},
		"paused, not progressing":    {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "Paused", ""), says(ready, "True", "AsWanted", "")}, "Paused", Waiting, "Paused"},
		"complete":                   {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "RolloutComplete", ""), says(ready, "True", "AsWanted", "")}, "Ready", Complete, "RolloutComplete"},
		"complete, one node refuses": {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "RolloutComplete", ""), says(ready, "False", "SignatureMissing", "")}, "SignatureMissing", Complete, "RolloutComplete"},
		"no nodes":                   {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "NoNodes", ""), says(ready, "False", "NoNodes", "")}, "NoNodes", Complete, "NoNodes"},
		"canary failed":              {[]func(*v1alpha1.SecurityProfile){says(progressing, "False", "CanaryFailed", ""), stoppedBy("CanaryFailed", 2)}, "CanaryFailed", Failed, "CanaryFailed"},
		"stopped earlier":            {[]func(*v1alpha1.SecurityProfile){says(progressing, "True", "Canary", ""), stoppedBy("CanaryFailed", 1)}, "Canary", Waiting, "Canary"},
		"rolling back":               {[]func(*v1alpha1.SecurityProfile){says(progressing, "True", "RollingBack", ""), stoppedBy("CanaryFailed", 2)}, "CanaryFailed", Failed, "CanaryFailed"},
		"rolled back":                {[]func(*v1alpha1.SecurityProfile){says(degraded, "True", "RolledBack", ""), stoppedBy("CanaryFailed", 2)}, "RolledBack", Failed, "RolledBack"},
		"revoked is in force":        {[]func(*v1alpha1.SecurityProfile){says(degraded, "True", "Revoked", ""), says(progressing, "False", "RolloutComplete", "")}, "Revoked", Complete, "RolloutComplete"},
		"nothing said":               {nil, "Pending", Waiting, "Pending"},
	} {
		t.Run(name, func(t *testing.T) {
			p := profile(tc.change...)
			if got := ProfileOf(p).Status; got != tc.word {
				t.Errorf("word %s, want %s", got, tc.word)
			}
			progress := ProgressOf(p)
			if progress.Outcome != tc.outcome || progress.Stage != tc.stage {
				t.Errorf("outcome %s at %s, want %s at %s", progress.Outcome, progress.Stage, tc.outcome, tc.stage)
			}
		})
	}
}

func TestTheDigestIsWhatNodesAreGiven(t *testing.T) {
	back := profile(func(p *v1alpha1.SecurityProfile) { p.Status.Rollout.EffectiveArtifact = artifact("a") })
	if got := ProfileOf(back).Digest; got != digest("a") {
		t.Errorf("after a rollback %s", got)
	}
	back.Generation = 3
	if got := ProfileOf(back).Digest; got != digest("b") {
		t.Errorf("before the controller saw a change %s", got)
	}
}

func TestLineAndBar(t *testing.T) {
	p := ProgressOf(profile(says(v1alpha1.ConditionProgressing, "True", "RollingOut", "3 of 4 available nodes are ready")))
	if got, want := p.Line(), "web/nginx sha256:bbbbbbbbbbbb: RollingOut: 3 of 4 nodes ready, 4 updated, 1 failed, 1 unavailable: 3 of 4 available nodes are ready"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, tc := range map[string]struct {
		nodes v1alpha1.NodeCounts
		width int
		want  string
	}{
		"under way":      {v1alpha1.NodeCounts{Total: 8, Updated: 5, Ready: 2, Failed: 1}, 80, "[##########!!!!!++++++++++...............] 2/8 ready, 1 failed  RollingOut  65s"},
		"narrow":         {v1alpha1.NodeCounts{Total: 8, Updated: 5, Ready: 2}, 52, "[###++++.....] 2/8 ready  RollingOut  65s"},
		"very narrow":    {v1alpha1.NodeCounts{Total: 8, Updated: 5, Ready: 2}, 20, "[##++++....] 2/8 rea"},
		"no nodes":       {v1alpha1.NodeCounts{}, 60, "[....................] 0/0 ready  RollingOut  65s"},
		"more than fits": {v1alpha1.NodeCounts{Total: 1000, Updated: 1000, Ready: 1000, Unavailable: 2}, 60, "[####################] 1000/998 ready  RollingOut  65s"},
		"unknown width":  {v1alpha1.NodeCounts{Total: 1, Ready: 1, Updated: 1}, 0, "[########################################] 1/1 ready  RollingOut  65s"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Progress{Stage: "RollingOut", Nodes: tc.nodes}
			if got := p.Bar(tc.width, 65*time.Second); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestCheckOwner(t *testing.T) {
	entry := func(manager string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		e := metav1.ManagedFieldsEntry{Manager: manager, Operation: operation}
		if fields != "" {
			e.FieldsV1 = metav1.NewFieldsV1(fields)
		}
		return e
	}
	const both = `{"f:spec":{".":{},"f:artifact":{},"f:rollout":{".":{},"f:paused":{},"f:maxConcurrent":{}}}}`
	const artifactOnly = `{"f:spec":{"f:artifact":{}}}`
	status := entry("confine-controller", "Apply", `{"f:status":{"f:nodes":{}}}`)
	status.Subresource = "status"
	for name, tc := range map[string]struct {
		entry            metav1.ManagedFieldsEntry
		artifact, paused string // how the owner is called; empty where the change is fine
	}{
		"by hand":                     {entry("kubectl-edit", "Update", both), "", ""},
		"ourselves":                   {entry("confine", "Update", both), "", ""},
		"Argo CD":                     {entry("argocd-controller", "Apply", both), "Argo CD", "Argo CD"},
		"Argo CD, client":             {entry("argocd-controller", "Update", both), "Argo CD", "Argo CD"},
		"Flux, artifact only":         {entry("kustomize-controller", "Apply", artifactOnly), "Flux", ""},
		"kubectl apply":               {entry("kubectl-client-side-apply", "Update", both), "kubectl apply", "kubectl apply"},
		"server-side apply":           {entry("kubectl", "Apply", artifactOnly), "kubectl apply", ""},
		"a by-hand name that applies": {entry("kubectl-edit", "Apply", both), "kubectl-edit", "kubectl-edit"},
		"somebody":                    {entry("my-ci", "Update", both), `"my-ci"`, `"my-ci"`},
		"all of spec":                 {entry("my-ci", "Update", `{"f:spec":{}}`), `"my-ci"`, `"my-ci"`},
		"all of rollout":              {entry("my-ci", "Update", `{"f:spec":{"f:rollout":{}}}`), "", `"my-ci"`},
		"labels only":                 {entry("my-ci", "Update", `{"f:metadata":{"f:labels":{}}}`), "", ""},
		"unreadable":                  {entry("my-ci", "Update", `[`), `"my-ci"`, `"my-ci"`},
		"no fields":                   {entry("my-ci", "Update", ""), `"my-ci"`, `"my-ci"`},
		"status subresource":          {status, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := profile()
			p.ManagedFields = []metav1.ManagedFieldsEntry{tc.entry}
			for field, want := range map[string]string{"artifact": tc.artifact, "paused": tc.paused} {
				f := FieldArtifact()
				if field == "paused" {
					f = FieldPaused()
				}
				err := CheckOwner(p, f)
				var refusal *Refusal
				switch {
				case want == "" && err != nil:
					t.Errorf("%s: %v", field, err)
				case want != "" && (!errors.As(err, &refusal) || !strings.Contains(refusal.What, want) || !strings.Contains(refusal.Advice, "--force")):
					t.Errorf("%s: %v, want it refused for %s", field, err, want)
				}
			}
		})
	}
}

func TestUndoTarget(t *testing.T) {
	history := func(artifacts ...string) func(*v1alpha1.SecurityProfile) {
		return func(p *v1alpha1.SecurityProfile) {
			p.Status.History = nil
			for _, a := range artifacts {
				p.Status.History = append(p.Status.History, v1alpha1.HistoryEntry{Artifact: a})
			}
		}
	}
	other := "registry.example.com/other@" + digest("a")
	for name, tc := range map[string]struct {
		history []string
		to      string
		want    string
		refused string
	}{
		"the one before":       {[]string{artifact("b"), artifact("a")}, "", artifact("a"), ""},
		"a failed one":         {[]string{artifact("a"), artifact("c")}, "", artifact("a"), ""},
		"back and forth":       {[]string{artifact("b"), artifact("a"), artifact("b")}, "", artifact("a"), ""},
		"no history":           {nil, "", "", "no earlier artifact"},
		"only the present one": {[]string{artifact("b")}, "", "", "no earlier artifact"},
		"by digest":            {[]string{artifact("b"), artifact("a"), artifact("c")}, digest("c"), artifact("c"), ""},
		"by reference":         {[]string{artifact("b"), artifact("a"), artifact("c")}, artifact("c"), artifact("c"), ""},
		"by prefix":            {[]string{artifact("b"), artifact("a"), artifact("c")}, "ccccccc", artifact("c"), ""},
		"twice the same":       {[]string{artifact("a"), artifact("b"), artifact("a")}, "sha256:aaaaaaa", artifact("a"), ""},
		"prefix too short":     {[]string{artifact("a")}, "sha256:aaa", "", "at least 7"},
		"ambiguous":            {[]string{artifact("a"), other}, "aaaaaaa", "", "several"},
		"never there":          {[]string{artifact("a")}, "ddddddd", "", "no such digest"},
		"the present one":      {[]string{artifact("b"), artifact("a")}, digest("b"), "", "already"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := UndoTarget(profile(history(tc.history...)), tc.to)
			if tc.refused != "" {
				var refusal *Refusal
				if !errors.As(err, &refusal) || !strings.Contains(refusal.What, tc.refused) || refusal.Advice == "" {
					t.Errorf("got %q, %v; want it refused: %s", got, err, tc.refused)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	if _, err := UndoTarget(profile(func(p *v1alpha1.SecurityProfile) { p.Status = nil }), ""); err == nil {
		t.Error("a profile without a status has something to go back to")
	}
}

// node is a ProfileNode that is given the artifact "b" and reports on it.
func node(name string, change ...func(*v1alpha1.ProfileNode, *v1alpha1.ProfileReport)) *v1alpha1.ProfileNode {
	n := &v1alpha1.ProfileNode{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: ago(time.Hour)},
		Spec:       v1alpha1.ProfileNodeSpec{Profiles: []v1alpha1.AssignedProfile{{Namespace: "web", Name: "nginx", UID: "uid", Artifact: artifact("b")}}},
		Status: &v1alpha1.ProfileNodeStatus{
			NodeUID: "node-uid", AgentVersion: "v0.3.0",
			Kinds:   []v1alpha1.NodeKind{{Name: "seccomp", Supported: true}},
			Summary: &v1alpha1.NodeSummary{Assigned: 1, Installed: 1},
			Profiles: []v1alpha1.ProfileReport{{
				Namespace: "web", Name: "nginx", UID: "uid", WantedDigest: digest("b"), InstalledDigest: digest("b"),
				State: v1alpha1.StateInstalled, Verified: "True", Since: ago(10 * time.Minute),
				Kinds: []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/web/nginx/nginx.json"}}},
			}},
		},
	}
	for _, c := range change {
		c(n, &n.Status.Profiles[0])
	}
	return n
}

func failing(reason, message string) func(*v1alpha1.ProfileNode, *v1alpha1.ProfileReport) {
	return func(_ *v1alpha1.ProfileNode, r *v1alpha1.ProfileReport) {
		r.State, r.Verified, r.Reason, r.Message, r.InstalledDigest = v1alpha1.StateFailed, "False", reason, message, ""
		r.Kinds = nil
	}
}

func TestShareOf(t *testing.T) {
	type share struct{ Assigned, Installed, State, Reason string }
	for name, tc := range map[string]struct {
		node *v1alpha1.ProfileNode
		want share
		none bool
	}{
		"in force": {node: node("n"), want: share{digest("b"), digest("b"), "Installed", ""}},
		"refused":  {node: node("n", failing("Revoked", "")), want: share{digest("b"), "", "Failed", "Revoked"}},
		"reported on another digest": {node: node("n", func(n *v1alpha1.ProfileNode, _ *v1alpha1.ProfileReport) {
			n.Spec.Profiles[0].Artifact = artifact("c")
		}), want: share{digest("c"), digest("b"), "Pending", ""}},
		"reported on an earlier profile of the name": {node: node("n", func(n *v1alpha1.ProfileNode, _ *v1alpha1.ProfileReport) {
			n.Spec.Profiles[0].UID = "other"
		}), want: share{digest("b"), digest("b"), "Pending", ""}},
		"never reported": {node: node("n", func(n *v1alpha1.ProfileNode, _ *v1alpha1.ProfileReport) { n.Status = nil }), want: share{digest("b"), "", "Pending", ""}},
		"going": {node: node("n", func(n *v1alpha1.ProfileNode, r *v1alpha1.ProfileReport) {
			n.Spec.Profiles, r.State = nil, v1alpha1.StateRemoving
		}), want: share{"", digest("b"), "Removing", ""}},
		"nothing to do with it": {node: node("n", func(n *v1alpha1.ProfileNode, _ *v1alpha1.ProfileReport) {
			n.Spec.Profiles, n.Status.Profiles = nil, nil
		}), none: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := ShareOf(tc.node, key())
			if ok == tc.none {
				t.Fatalf("found: %t", ok)
			}
			if diff := cmp.Diff(tc.want, share{got.AssignedDigest, got.InstalledDigest, got.State, got.Reason}); ok && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestThePickerTakesTheWorstNode(t *testing.T) {
	pending := func(_ *v1alpha1.ProfileNode, r *v1alpha1.ProfileReport) { r.State = v1alpha1.StatePending }
	p := NewPicker(key())
	if p.Worst() != nil || p.Others() != "" {
		t.Error("a node was picked from none")
	}
	for _, n := range []*v1alpha1.ProfileNode{
		node("a"), node("b", pending), node("c", failing("Revoked", "")), node("d", failing("Revoked", "")), node("e"),
		node("f", func(n *v1alpha1.ProfileNode, _ *v1alpha1.ProfileReport) {
			n.Spec, n.Status = v1alpha1.ProfileNodeSpec{}, nil
		}),
	} {
		p.Add(n)
	}
	if p.Worst().Name != "c" || p.Others() != "of 5 nodes: 2 Installed, 1 Pending, 2 Revoked" {
		t.Errorf("picked %s, %s", p.Worst().Name, p.Others())
	}
}
