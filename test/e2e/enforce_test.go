//go:build e2e

package e2e_test

import (
	"strings"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
)

// podIsDenied is the main job: from a push to a syscall that the kernel denies.
func podIsDenied(s *scene) {
	s.trustTeam()
	artifact := s.push("web", lab.Team, denyMkdir())
	s.want("web", artifact, nil)
	status := s.ready("web", artifact, nodes)
	if !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionVerified) {
		s.t.Errorf("ready and not verified: %+v", status.Conditions)
	}
	want := []v1alpha1.PayloadReference{{Kind: "seccomp", Name: s.reference("web")}}
	if diff := cmp.Diff(want, status.References); diff != "" {
		s.t.Errorf("references (-want +got):\n%s", diff)
	}
	for n := 1; n <= nodes; n++ {
		s.run(n, podName(n), "web")
	}
	for n := 1; n <= nodes; n++ {
		s.sees(podName(n), mkdirDenied)
	}
	s.commandLineTells(artifact)
}

// commandLineTells holds that people see the same.
func (s *scene) commandLineTells(artifact string) {
	s.t.Helper()
	row := func(fields ...string) string { return strings.Join(fields, " ") }
	short := "sha256:" + strings.TrimPrefix(digestOf(artifact), "sha256:")[:12]
	out, err := s.Confine(s.ctx(), "status", "--namespace", s.namespace)
	// Digest, updated, ready, failed and total.
	if want := row("web", short, "3", "3", "0", "3", "Ready"); err != nil || !strings.Contains(squeeze(out), want) {
		s.t.Errorf("confine status: %v\n%s\nwant %s", err, out, want)
	}
	out, err = s.Confine(s.ctx(), "why", s.namespace+"/web", "node2")
	if err != nil || !strings.Contains(out, "node2") || !strings.Contains(out, podName(2)) {
		s.t.Errorf("confine why: %v\n%s", err, out)
	}

}

// squeeze makes one space of any white space.
func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }
