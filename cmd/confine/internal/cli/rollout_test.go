package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/cmd/confine/internal/fleet"
	"github.com/confine-dev/confine/cmd/confine/internal/kube"
)

func TestRolloutStatusOnARealServer(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	name := f.namespace + "/nginx"
	f.confine("rollout", "status", name, "--watch=false").expect(t, ExitRetry, "NotObserved: 0 of 0 nodes ready")
	f.reports(stage(v1alpha1.ReasonCanary, metav1.ConditionTrue, 1))
	f.confine("rollout", "status", name, "--watch=false").expect(t, ExitRetry, "Canary: 1 of 4 nodes ready, 1 updated, 0 failed, 1 unavailable\n")
	f.confine("rollout", "status", name, "--timeout", "1ms").expect(t, ExitRetry)
	f.confine("rollout", "status", name, "--timeout", "-1s").expect(t, ExitUsage, "--timeout")

	ended := make(chan result, 1)
	go func() { ended <- f.confine("rollout", "status", name) }()
	f.reports(stage(v1alpha1.ReasonRollingOut, metav1.ConditionTrue, 3))
	f.reports(stage(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4))
	r := <-ended
	r.expect(t, ExitOK, "RolloutComplete: 4 of 4 nodes ready")
	if strings.Contains(r.out+r.err, "\x1b") || r.err != "" {
		t.Errorf("a pipe is drawn on: %q %q", r.out, r.err)
	}
	f.reports(func(p *v1alpha1.SecurityProfile) {
		stage(v1alpha1.ReasonCanaryFailed, metav1.ConditionFalse, 0)(p)
		p.Status.Rollout.Stopped, p.Status.Rollout.StoppedGeneration = v1alpha1.ReasonCanaryFailed, p.Generation
		p.Status.Failures = []v1alpha1.NodeFailure{{Node: "node-1", Reason: "ProfileForbidden", Message: "it allows mount"}}
	})
	f.confine("rollout", "status", name).expect(t, ExitRefused, "CanaryFailed", "node-1: ProfileForbidden: it allows mount")
	var progress fleet.Progress
	r = f.confine("rollout", "status", name, "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &progress); err != nil || r.code != ExitRefused {
		t.Fatalf("exit %d: %v\n%s", r.code, err, r.out)
	}
	if progress.Outcome != fleet.Failed || progress.Digest != hexDigest("b") || len(progress.Failures) != 1 {
		t.Errorf("%+v", progress)
	}
}

func TestPauseAndResume(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	name := f.namespace + "/nginx"
	paused := func() bool { p := f.get(); return p.Spec.Rollout != nil && p.Spec.Rollout.Paused }
	f.confine("rollout", "resume", name).expect(t, ExitOK, "securityprofile.confine.dev/nginx already resumed\n")
	f.confine("rollout", "pause", name).expect(t, ExitOK, "securityprofile.confine.dev/nginx paused\n")
	if !paused() {
		t.Error("it is not paused")
	}
	f.confine("rollout", "pause", name).expect(t, ExitOK, "already paused")
	f.confine("rollout", "resume", "nginx", "-n", f.namespace).expect(t, ExitOK, "securityprofile.confine.dev/nginx resumed\n")
	if paused() {
		t.Error("it is still paused")
	}
}

// applied takes the fields of spec over, as a tool does that applies manifests
// from git.
func (f *site) applied(manager string, spec map[string]any) {
	f.t.Helper()
	object := map[string]any{
		"apiVersion": "confine.dev/v1alpha1", "kind": "SecurityProfile",
		"metadata": map[string]any{"namespace": f.namespace, "name": "nginx"}, "spec": spec,
	}
	data, err := json.Marshal(object)
	if err != nil {
		f.t.Fatal(err)
	}
	p := &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "nginx"}}
	if err := f.client.Patch(f.t.Context(), p, client.RawPatch("application/apply-patch+yaml", data), client.FieldOwner(manager), client.ForceOwnership); err != nil {
		f.t.Fatal(err)
	}
}

func TestUndo(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("c"))
	name := f.namespace + "/nginx"
	f.confine("rollout", "undo", name).expect(t, ExitRefused, "no earlier artifact", "what to do: set spec.artifact")
	f.reports(func(p *v1alpha1.SecurityProfile) {
		stage(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4)(p)
		for _, c := range []string{"c", "b", "a"} {
			p.Status.History = append(p.Status.History, v1alpha1.HistoryEntry{Artifact: artifactOf(c), CompletedAt: metav1.Now()})
		}
	})
	f.confine("rollout", "undo", name).expect(t, ExitOK, "securityprofile.confine.dev/nginx set back to "+artifactOf("b")+"\n")
	if got := f.get().Spec.Artifact; got != artifactOf("b") {
		t.Errorf("spec.artifact is %s", got)
	}
	f.confine("rollout", "undo", name, "--to", "sha256:ddddddd").expect(t, ExitRefused, "no such digest", "choose one of sha256:cccccccccccc, sha256:bbbbbbbbbbbb, sha256:aaaaaaaaaaaa")
	f.confine("rollout", "pause", name).expect(t, ExitOK)
	f.confine("rollout", "undo", name, "--to", hexDigest("a")).expect(t, ExitOK, artifactOf("a"), "warning: the rollout is paused")
	if got := f.get().Spec.Artifact; got != artifactOf("a") {
		t.Errorf("spec.artifact is %s", got)
	}
	managers := map[string]bool{}
	for _, m := range f.get().ManagedFields {
		managers[m.Manager] = true
	}
	if !managers[kube.FieldManager] {
		t.Errorf("the change is not ours: %v", managers)
	}
}

func TestForeignManagersAreNotOverruled(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	name := f.namespace + "/nginx"
	f.reports(func(p *v1alpha1.SecurityProfile) {
		stage(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4)(p)
		p.Status.History = []v1alpha1.HistoryEntry{{Artifact: artifactOf("b"), CompletedAt: metav1.Now()}, {Artifact: artifactOf("a"), CompletedAt: metav1.Now()}}
	})
	f.applied("argocd-controller", map[string]any{"artifact": artifactOf("b"), "rollout": map[string]any{"paused": false}})
	before := f.get().Spec
	for _, verb := range []string{"undo", "pause"} {
		f.confine("rollout", verb, name).expect(t, ExitRefused, "belongs to Argo CD", `"argocd-controller"`, "git repository", "--force")
	}
	if diff := cmp.Diff(before, f.get().Spec); diff != "" {
		t.Errorf("it was changed:\n%s", diff)
	}
	f.confine("rollout", "undo", name, "--force").expect(t, ExitOK, artifactOf("a"))
	f.confine("rollout", "pause", name, "--force").expect(t, ExitOK, "paused")
	after := f.get()
	if after.Spec.Artifact != artifactOf("a") || !after.Spec.Rollout.Paused {
		t.Errorf("--force changed nothing: %+v", after.Spec)
	}
	after.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "x"}
	if err := f.client.Update(t.Context(), after, client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	f.confine("rollout", "resume", name).expect(t, ExitOK, "resumed", "warning: Argo CD tracks")
}

// screen is a terminal: what stands on its last line, and each line that it was.
type screen struct {
	bytes.Buffer
	frames []string
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.frames = append(s.frames, string(p))
	return s.Buffer.Write(p)
}

// seen is a script of what the API server answers, a second apart; the last
// answer stays.
func seen(answers ...func(*v1alpha1.SecurityProfile) error) func(context.Context) (*v1alpha1.SecurityProfile, error) {
	n := 0
	return func(ctx context.Context) (*v1alpha1.SecurityProfile, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		answer := answers[min(n, len(answers)-1)]
		n++
		p := &v1alpha1.SecurityProfile{
			ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "nginx"},
			Spec:       v1alpha1.SecurityProfileSpec{Artifact: artifactOf("b")}, Status: &v1alpha1.SecurityProfileStatus{},
		}
		return p, answer(p)
	}
}

func at(word string, status metav1.ConditionStatus, ready int32) func(*v1alpha1.SecurityProfile) error {
	return func(p *v1alpha1.SecurityProfile) error { stage(word, status, ready)(p); return nil }
}

func failing(err error) func(*v1alpha1.SecurityProfile) error {
	return func(*v1alpha1.SecurityProfile) error { return err }
}

func TestTheBarIsDrawnOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, terminal := &bytes.Buffer{}, &screen{}
		a := &app{Streams: Streams{Out: out, Err: terminal, ErrTerminal: true, OutTerminal: true, Width: func() int { return 60 }}}
		w := watcher{app: a, interval: time.Second, read: seen(
			at(v1alpha1.ReasonCanary, metav1.ConditionTrue, 0), at(v1alpha1.ReasonCanary, metav1.ConditionTrue, 1),
			at(v1alpha1.ReasonRollingOut, metav1.ConditionTrue, 2), at(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4))}
		progress, err := w.watch(t.Context())
		if err != nil || progress.Outcome != fleet.Complete {
			t.Fatalf("%+v, %v", progress, err)
		}
		want := []string{
			"\r\x1b[K[....................] 0/4 ready  Canary  0s",
			"\r\x1b[K[#####...............] 1/4 ready  Canary  1s",
			"\r\x1b[K[##########..........] 2/4 ready  RollingOut  2s",
			"\r\x1b[K",
		}
		if diff := cmp.Diff(want, terminal.frames); diff != "" {
			t.Error(diff)
		}
		if want := "web/nginx sha256:bbbbbbbbbbbb: RolloutComplete: 4 of 4 nodes ready, 4 updated, 0 failed, 1 unavailable\n"; out.String() != want {
			t.Errorf("printed %q", out.String())
		}
	})
}

func TestAPipeGetsOneLineForEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, errTerminal := range map[string]bool{"no terminal": false, "piped into a file": true} {
			out, terminal := &bytes.Buffer{}, &screen{}
			w := watcher{app: &app{Streams: Streams{Out: out, Err: terminal, ErrTerminal: errTerminal}}, interval: time.Second, read: seen(
				at(v1alpha1.ReasonCanary, metav1.ConditionTrue, 1), at(v1alpha1.ReasonCanary, metav1.ConditionTrue, 1),
				at(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4))}
			if _, err := w.watch(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "\n"); got != 2 || strings.Contains(out.String(), "\x1b") {
				t.Errorf("%s: printed %q", name, out.String())
			}
			if drawn := terminal.Len() > 0; drawn != errTerminal {
				t.Errorf("%s: drawn: %t", name, drawn)
			}
		}
	})
}

func TestHowWatchingEnds(t *testing.T) {
	away := &kube.Error{What: "it cannot be reached", Again: true}
	gone := &kube.Error{What: "it does not exist"}
	long := slices.Repeat([]func(*v1alpha1.SecurityProfile) error{failing(away)}, 60)
	never := at(v1alpha1.ReasonCanary, metav1.ConditionTrue, 1)
	complete := at(v1alpha1.ReasonRolloutComplete, metav1.ConditionFalse, 4)
	for name, tc := range map[string]struct {
		answers []func(*v1alpha1.SecurityProfile) error
		timeout time.Duration
		cancel  time.Duration
		code    int
		after   time.Duration
		told    string
	}{
		"complete at once":          {[]func(*v1alpha1.SecurityProfile) error{complete}, 0, 0, ExitOK, 0, ""},
		"a short outage":            {append(append([]func(*v1alpha1.SecurityProfile) error{never}, long...), complete), 0, 0, ExitOK, 61 * time.Second, "trying again"},
		"a long outage":             {[]func(*v1alpha1.SecurityProfile) error{never, failing(away)}, 0, 0, ExitRetry, outage + time.Second, "cannot be reached"},
		"deleted meanwhile":         {[]func(*v1alpha1.SecurityProfile) error{never, failing(gone)}, 0, 0, ExitRefused, time.Second, "does not exist"},
		"never there":               {[]func(*v1alpha1.SecurityProfile) error{failing(gone)}, 0, 0, ExitRefused, 0, "does not exist"},
		"not reachable at first":    {[]func(*v1alpha1.SecurityProfile) error{failing(away)}, 0, 0, ExitRetry, 0, "cannot be reached"},
		"time is up":                {[]func(*v1alpha1.SecurityProfile) error{never}, 10500 * time.Millisecond, 0, ExitRetry, 10500 * time.Millisecond, "confine why web/nginx"},
		"a person interrupts it":    {[]func(*v1alpha1.SecurityProfile) error{never}, 0, 2500 * time.Millisecond, ExitRetry, 2500 * time.Millisecond, ""},
		"paused, until the time":    {[]func(*v1alpha1.SecurityProfile) error{at(v1alpha1.ReasonPaused, metav1.ConditionTrue, 1)}, 5500 * time.Millisecond, 0, ExitRetry, 5500 * time.Millisecond, "Paused"},
		"progress during an outage": {append([]func(*v1alpha1.SecurityProfile) error{never, failing(away)}, never, failing(away), complete), 0, 0, ExitOK, 4 * time.Second, "trying again"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out, errs bytes.Buffer
				a := &app{Streams: Streams{Out: &out, Err: &errs}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.cancel > 0 {
					time.AfterFunc(tc.cancel, cancel)
				}
				begun := time.Now()
				w := watcher{app: a, interval: time.Second, timeout: tc.timeout, read: seen(tc.answers...)}
				progress, err := w.watch(ctx)
				code := ExitOK
				var exit *exitError
				switch {
				case errors.As(err, &exit):
					code = exit.code
				case err != nil:
					a.printError(a.root("confine"), err)
					code = exitCode(err)
				default:
					if errors.As(ended(progress), &exit) {
						code = exit.code
					}
				}
				if code != tc.code || time.Since(begun) != tc.after || !strings.Contains(errs.String(), tc.told) {
					t.Errorf("exit %d after %s, want %d after %s and %q\n%s%s", code, time.Since(begun), tc.code, tc.after, tc.told, out.String(), errs.String())
				}
			})
		})
	}
}

// TestAChangeThatCameFirst is seen, and decided on anew.
func TestAChangeThatCameFirst(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("a"))
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out, Err: &out}, timeout: time.Minute}
	decided := []string{}
	err := a.changeProfile(t.Context(), f.namespace+"/nginx", clusterFlags{kubeconfig: f.kubeconfig}, false, func(p *v1alpha1.SecurityProfile) (change, error) {
		decided = append(decided, p.Spec.Artifact)
		if len(decided) == 1 {
			p := f.get()
			p.Spec.Artifact = artifactOf("b")
			if err := f.client.Update(t.Context(), p, client.FieldOwner("kubectl-edit")); err != nil {
				return change{}, err
			}
		}
		return change{field: fleet.FieldArtifact(), spec: map[string]any{"artifact": artifactOf("c")}, done: "changed"}, nil
	})
	if err != nil || !cmp.Equal(decided, []string{artifactOf("a"), artifactOf("b")}) || f.get().Spec.Artifact != artifactOf("c") {
		t.Errorf("error %v, decided on %v, now %s", err, decided, f.get().Spec.Artifact)
	}
}
