// Package node_test lets the node's agent work with a real API server.
package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/pkg/version"
	"github.com/confine-dev/confine/test/kube/apitest"
)

func TestInstallsAndReports(t *testing.T) {
	s := newSite(t)
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.trust(nil)
	s.assign(entry("nginx", artifact))
	s.start()
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	if got := s.installed("nginx", "nginx.json"); got != profileText() {
		t.Errorf("installed is %q", got)
	}
	n := s.node()
	want := v1alpha1.ProfileNodeStatus{
		NodeUID: "uid-of-the-node", AgentVersion: version.String(),
		Kinds:   []v1alpha1.NodeKind{{Name: "seccomp", Supported: true}},
		Summary: &v1alpha1.NodeSummary{Assigned: 1, Installed: 1},
		Profiles: []v1alpha1.ProfileReport{{
			Namespace: "web", Name: "nginx", UID: "uid-of-nginx",
			WantedDigest: digestOf(artifact), InstalledDigest: digestOf(artifact),
			State: v1alpha1.StateInstalled, Verified: metav1.ConditionTrue,
			Kinds: []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/web/nginx/nginx.json"}}},
		}},
	}
	if diff := cmp.Diff(&want, n.Status, cmpopts.IgnoreFields(v1alpha1.ProfileReport{}, "Since", "Policies")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if p := n.Status.Profiles[0]; p.Since.IsZero() || len(p.Policies) != 16 {
		t.Errorf("since %v, policies %q", p.Since, p.Policies)
	}
	for _, f := range n.ManagedFields {
		if f.Subresource == "status" && f.Manager != "confine-agent" {
			t.Errorf("%s owns fields of the status", f.Manager)
		}
	}
}

func TestStatusIsWrittenOnlyWhenItsMeaningChanged(t *testing.T) {
	s := newSite(t)
	s.trust(nil)
	s.opts.Resync = 100 * time.Millisecond
	var wanted []map[string]any
	for i := range 40 {
		name := fmt.Sprintf("p%d", i)
		wanted = append(wanted, entry(name, s.push(map[string]string{"a.json": profileText() + strings.Repeat(" ", i)}, theKey())))
	}
	s.assign()
	r := s.start()
	s.until("it reports", func() bool { return s.node().Status != nil })
	s.patches.Store(0)
	s.assign(wanted...)
	s.until("all are installed", func() bool { n := s.node().Status.Summary; return n != nil && n.Installed == 40 })
	if n := s.patches.Load(); n > 2 {
		t.Errorf("%d writes for one batch", n)
	}
	version := s.node().ResourceVersion
	writes, passes := s.patches.Load(), s.passes.Load()
	s.until("the agent looked again and again", func() bool { return s.passes.Load() > passes+5 })
	r.end()
	passes = s.passes.Load()
	s.start()
	s.until("another agent looked, too", func() bool { return s.passes.Load() > passes+5 })
	if got := s.node().ResourceVersion; got != version || s.patches.Load() != writes {
		t.Errorf("the version went from %s to %s with %d writes, though nothing changed", version, got, s.patches.Load()-writes)
	}
}

func TestUnsignedSaysWhyAndReachesNoDisk(t *testing.T) {
	s := newSite(t)
	good := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.trust(nil)
	s.assign(entry("nginx", good))
	s.start()
	s.until("the first is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	unsigned := s.push(map[string]string{"nginx.json": profileText("mount")}, nil)
	s.assign(entry("nginx", unsigned))
	s.within(10*time.Second, "it says why", func() bool { return s.report("nginx").Reason == string(reason.SignatureMissing) })
	p := s.report("nginx")
	if p.State != v1alpha1.StateFailed || p.Verified != metav1.ConditionFalse || p.InstalledDigest != digestOf(good) || p.WantedDigest != digestOf(unsigned) {
		t.Errorf("the report is %+v", p)
	}
	if !strings.Contains(p.Message, "sign the digest") {
		t.Errorf("the message gives no advice: %q", p.Message)
	}
	if got := s.installed("nginx", "nginx.json"); got != profileText() {
		t.Errorf("installed is %q", got)
	}
	s.wantNowhere("mount")
}

// wantNowhere looks through everything the agent wrote.
func (s *site) wantNowhere(text string) {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "status.json" {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			s.t.Errorf("%s holds %q", path, text)
		}
		return err
	})
	s.must(err)
}

func TestRemovalWaitsForItsRelease(t *testing.T) {
	s := newSite(t)
	s.opts.RemovalDelay = time.Second
	both := s.push(map[string]string{"a.json": profileText(), "b.json": profileText("close")}, theKey())
	one := s.push(map[string]string{"a.json": profileText("openat")}, theKey())
	s.trust(nil)
	s.assign(entry("nginx", both), entry("gone", both))
	s.start()
	s.until("both are installed", func() bool { return s.installed("nginx", "b.json") != "" && s.installed("gone", "b.json") != "" })

	s.assign(entry("nginx", one))
	s.until("it says what would go", func() bool {
		return len(s.report("nginx").Removing) > 0 && len(s.report("gone").Removing) > 0 && s.installed("nginx", "a.json") == profileText("openat")
	})
	nginx, gone := s.report("nginx"), s.report("gone")
	if diff := cmp.Diff([]string{"confine/web/nginx/b.json"}, nginx.Removing); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"confine/web/gone/a.json", "confine/web/gone/b.json"}, gone.Removing); diff != "" {
		t.Errorf("removing (-want +got):\n%s", diff)
	}
	if nginx.State != v1alpha1.StateInstalled || gone.State != v1alpha1.StateRemoving || gone.UID != "" || gone.WantedDigest != "" {
		t.Errorf("reports: %+v and %+v", nginx, gone)
	}
	s.until("the time has come", func() bool { return time.Now().After(gone.RemoveAt.Time.Add(2 * time.Second)) })
	release := func(p v1alpha1.ProfileReport, later time.Duration) map[string]any {
		return map[string]any{"namespace": p.Namespace, "name": p.Name, "removeAt": p.RemoveAt.Add(later).UTC().Format(time.RFC3339)}
	}
	// One of another time, and one of another profile, remove nothing.
	passes := s.passes.Load()
	s.assignWith([]any{release(gone, time.Second), release(nginx, -time.Second)}, entry("nginx", one))
	s.until("the agent looked", func() bool { return s.passes.Load() > passes })
	if s.installed("nginx", "b.json") == "" || s.installed("gone", "a.json") == "" {
		t.Fatal("something was removed without its release")
	}
	s.assignWith([]any{release(gone, 0), release(nginx, 0)}, entry("nginx", one))
	s.until("both are gone and not reported", func() bool {
		return s.installed("nginx", "b.json") == "" && s.installed("gone", "a.json") == "" &&
			s.report("gone").Name == "" && len(s.report("nginx").Removing) == 0
	})
	if got := s.installed("nginx", "a.json"); got != profileText("openat") {
		t.Errorf("installed is %q", got)
	}
}

func TestDeletedObjectsRemoveNothing(t *testing.T) {
	s := newSite(t)
	s.opts.RemovalDelay, s.opts.Resync = -1, 200*time.Millisecond
	s.trust(nil)
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.assign(entry("nginx", artifact))
	s.start()
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	s.must(s.resource("profilenodes").Delete(t.Context(), s.name, metav1.DeleteOptions{}))
	s.until("it says so", func() bool { return strings.Contains(fmt.Sprint(s.local().Problems), "there is none") })
	s.wantKept("after the ProfileNode was deleted")

	s.deleteCRDs()
	s.until("the API is gone", func() bool { return strings.Contains(fmt.Sprint(s.local().Problems), "CustomResourceDefinitions") })
	s.wantKept("after the CRDs were deleted")
	s.must(apitest.ApplyFiles(t.Context(), env.Config(), "../../deploy/crds"))
	s.until("the API is back", func() bool { return s.served() })
	s.trust(nil)
	s.assign(entry("nginx", artifact), entry("second", artifact))
	s.until("it goes on", func() bool { return s.report("second").State == v1alpha1.StateInstalled })
	if p := s.local().Problems; len(p) > 0 {
		t.Errorf("problems are left: %+v", p)
	}
}

// wantKept expects the profile in force through several passes.
func (s *site) wantKept(when string) {
	s.t.Helper()
	passes := s.passes.Load()
	s.until("passes "+when, func() bool { return s.passes.Load() > passes+3 })
	if s.installed("nginx", "nginx.json") != profileText() {
		s.t.Fatalf("it was removed %s", when)
	}
}

func TestOutages(t *testing.T) {
	s := newSite(t)
	s.opts.Resync = 200 * time.Millisecond
	s.trust(nil)
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.assign(entry("nginx", artifact))
	r := s.start()
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	// The second is assigned while the agent is down, so that it is not known.
	r.end()
	s.assign(entry("nginx", artifact), entry("second", artifact))
	s.wire.cut()
	lost := s.path("seccomp/confine/web/nginx")
	s.must(os.Remove(lost))
	r = s.start()
	s.until("what was installed is asserted again", func() bool { return s.installed("nginx", "nginx.json") == profileText() })
	s.until("the report says so", func() bool {
		return strings.Contains(fmt.Sprint(s.local().Problems), "not reached since the agent started")
	})
	if s.installed("second", "nginx.json") != "" {
		t.Error("something new was installed")
	}
	for _, p := range s.local().Profiles {
		if c := p.Condition(status.Ready); c.Status != status.True {
			t.Errorf("%s: %+v", p.Owner, c)
		}
	}
	s.wire.mend()
	s.until("it caught up", func() bool { return s.report("second").State == v1alpha1.StateInstalled })

	// An outage later changes nothing: drift is repaired, and the agent is back
	// with the server, which is another process by now.
	s.wire.cut()
	s.must(env.RestartAPIServer())
	s.must(os.Remove(lost))
	s.until("drift is repaired", func() bool { return s.installed("nginx", "nginx.json") == profileText() })
	s.wire.mend()
	s.assign(entry("nginx", artifact), entry("second", artifact), entry("third", artifact))
	s.until("it goes on", func() bool { return s.report("third").State == v1alpha1.StateInstalled })
	r.end()
}

func TestPoliciesThatAreNotReadable(t *testing.T) {
	s := newSite(t)
	s.user = "stranger"
	s.trust(nil)
	s.assign(entry("nginx", s.push(map[string]string{"nginx.json": profileText()}, theKey())))
	s.allow("nodes-only", s.user, "profilenodes")
	s.start()
	s.within(10*time.Second, "it says that it waits", func() bool {
		n := s.node()
		return n.Status != nil && len(n.Status.Problems) > 0 && n.Status.Problems[0].Reason == string(reason.TrustPolicyInvalid) &&
			s.report("nginx").State == v1alpha1.StatePending && s.report("nginx").Verified == metav1.ConditionUnknown
	})
	if s.installed("nginx", "nginx.json") != "" {
		t.Fatal("it was installed by an agent that knows no policies")
	}
	s.allow("policies-too", s.user, "trustpolicies")
	s.until("it goes on", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
}

func TestPolicyChangesAreJudgedAtOnce(t *testing.T) {
	s := newSite(t)
	s.trust(nil)
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.assign(entry("nginx", artifact))
	s.start()
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	s.trust(func(spec map[string]any) { spec["revoked"] = map[string]any{"digests": []any{digestOf(artifact)}} })
	s.within(10*time.Second, "it is degraded", func() bool { return s.report("nginx").Degraded })
	if p := s.report("nginx"); p.Verified != metav1.ConditionFalse || p.Reason != string(reason.Revoked) || p.State != v1alpha1.StateInstalled {
		t.Errorf("the report is %+v", p)
	}
	s.must(s.resource("trustpolicies").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	s.within(10*time.Second, "nobody is trusted", func() bool { return s.report("nginx").Reason == string(reason.NoTrustPolicy) })
	if s.installed("nginx", "nginx.json") == "" {
		t.Error("it was removed")
	}
}

// TestAgentOlderThanTheAPI has policies with a constraint that this agent does
// not know.
func TestAgentOlderThanTheAPI(t *testing.T) {
	s := newSite(t)
	s.preserveUnknown(true)
	t.Cleanup(func() { s.preserveUnknown(false) })
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.until("the server takes the field", func() bool {
		return s.tryTrust(func(spec map[string]any) { spec["stricterThanBefore"] = true }) == nil
	})
	s.assign(entry("nginx", artifact))
	s.start()
	s.until("it waits", func() bool {
		return s.report("nginx").Reason == string(reason.TrustPolicyInvalid) && strings.Contains(fmt.Sprint(s.node().Status.Problems), "stricterThanBefore")
	})
	if s.installed("nginx", "nginx.json") != "" {
		t.Error("it was installed")
	}
	s.trust(nil)
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
}

// TestNodeRecreated gives the ProfileNode of the same name to another Node.
func TestNodeRecreated(t *testing.T) {
	s := newSite(t)
	s.trust(nil)
	artifact := s.push(map[string]string{"nginx.json": profileText()}, theKey())
	s.assign(entry("nginx", artifact))
	s.start()
	s.until("it is installed", func() bool { return s.report("nginx").State == v1alpha1.StateInstalled })
	s.must(s.resource("profilenodes").Delete(t.Context(), s.name, metav1.DeleteOptions{}))
	s.nodeUID = "another-uid"
	s.assign(entry("nginx", artifact))
	s.until("it reports as that node", func() bool {
		n := s.node()
		return n.Status != nil && n.Status.NodeUID == "another-uid" && s.report("nginx").State == v1alpha1.StateInstalled
	})
}

func TestStartedAndStoppedAgainAndAgain(t *testing.T) {
	s := newSite(t)
	s.trust(nil)
	var wanted []map[string]any
	for i := range 20 {
		name := fmt.Sprintf("p%d", i)
		wanted = append(wanted, entry(name, s.push(map[string]string{"a.json": profileText() + strings.Repeat(" ", i)}, theKey())))
	}
	s.assign(wanted...)
	s.opts.Resync = 50 * time.Millisecond
	for i := range 8 {
		r := s.start()
		s.until("it did some passes", func() bool { return s.passes.Load() >= int64(i) })
		r.end()
		s.passes.Store(0)
	}
	s.opts.Resync = 0
	s.start()
	s.until("all are installed", func() bool {
		n := s.node()
		return n.Status != nil && n.Status.Summary != nil && n.Status.Summary.Installed == 20
	})
}
