//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// examplesWork applies examples/cluster as `make cluster` does.
func examplesWork(s *scene) {
	web := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	s.t.Cleanup(func() {
		in, now := client.InNamespace(web.Name), client.GracePeriodSeconds(0)
		s.report(errors.Join(
			s.Client.DeleteAllOf(s.lasting(), &appsv1.Deployment{}, in),
			s.Client.DeleteAllOf(s.lasting(), &corev1.Pod{}, in, now),
			client.IgnoreNotFound(s.Client.Delete(s.lasting(), web)),
		))
	})
	// A minute is for people to watch.
	s.must(s.ApplyExamples(s.ctx(), "soakSeconds: 60", "soakSeconds: 1"))
	s.eventually("the example to run", func() error {
		var worker appsv1.Deployment
		if err := s.get(web.Name, "worker", &worker); err != nil {
			return err
		}
		if worker.Status.AvailableReplicas != *worker.Spec.Replicas {
			return fmt.Errorf("%+v", worker.Status)
		}
		return nil
	})
	out, err := s.Kubectl(s.ctx(), "--namespace="+web.Name, "exec", "deployment/worker", "--", "mkdir", "/tmp/made")
	if err == nil || !strings.Contains(err.Error(), "Operation not permitted") {
		s.t.Errorf("mkdir under the example: %v\n%s", err, out)
	}
}
