// Package node_test lets the node's agent work with a real API server.
package node_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/version"
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
