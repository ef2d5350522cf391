//go:build e2e

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/reason"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
)

// unsignedReachesNoDisk gives every node what nobody signed and what a stranger
// signed. All refuse, say so within 10 seconds, and no byte of it is where the
// kubelet reads profiles.
func unsignedReachesNoDisk(s *scene) {
	s.trustTeam()
	signed, signedMark := s.pushMarked("signed", lab.Team, "io_pgetevents")
	s.want("signed", signed, nil)
	s.ready("signed", signed, nodes)

	for name, signer := range map[string]string{"unsigned": lab.Nobody, "foreign": lab.Stranger} {
		h := s.follow(name)
		artifact, mark := s.pushMarked(name, signer, "io_setup")
		s.want(name, artifact, allAtOnce())
		s.until(name+" to be refused by all", name, func(status *v1alpha1.SecurityProfileStatus) error {
			if status.Nodes.Failed != nodes || len(status.Failures) == 0 {
				return fmt.Errorf("nodes %+v, failures %+v", status.Nodes, status.Failures)
			}
			return nil
		})
		took := time.Since(h.firstGiven(artifact))
		s.t.Logf("%s: the resource says why after %.1f s", name, took.Seconds())
		if took > promptly {
			s.t.Errorf("%s: the resource says why after %v, want %v at most", name, took, promptly)
		}
		status := s.profile(name).Status
		want := map[string]reason.Reason{lab.Nobody: reason.SignatureMissing, lab.Stranger: reason.IdentityMismatch}[signer]
		for _, failure := range status.Failures {
			if failure.Reason != string(want) || failure.Message == "" {
				s.t.Errorf("%s: failure %+v, want %s and what to do", name, failure, want)
			}
		}
		for n := 1; n <= nodes; n++ {
			s.diskHas(n, mark, false)
			s.diskHas(n, signedMark, true) // else this could not fail
		}
	}
	s.run(1, podName(1), "unsigned")
	s.waitsForProfile(podName(1))
}

// allAtOnce gives every node the digest at once and bears that all refuse.
func allAtOnce() *v1alpha1.Rollout {
	all := intstr.FromString("100%")
	return &v1alpha1.Rollout{MaxConcurrent: &all, FailureThreshold: &all}
}

// pushMarked pushes a profile with a text in it that no other has.
func (s *scene) pushMarked(name, signer, denied string) (artifact, mark string) {
	s.t.Helper()
	profile, err := s.Without([]string{denied})
	s.must(err)
	// White space is in the bytes and not in the meaning.
	mark = "{ \n\t" + strings.Repeat(" ", 1+len(name)) + "\t\n"
	marked := append([]byte(mark), bytes.TrimPrefix(profile, []byte("{"))...)
	artifact, err = s.Push(s.ctx(), s.namespace+"-"+name, signer, marked)
	s.must(err)
	return artifact, mark
}

// diskHas holds whether any file below the kubelet's seccomp folder on the disk
// of node n holds the mark.
func (s *scene) diskHas(n int, mark string, want bool) {
	s.t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Dir(s.profilesRoot(n)), func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(file)
		if bytes.Contains(data, []byte(mark)) {
			found = append(found, file)
		}
		return err
	})
	s.must(err)
	if want != (len(found) > 0) {
		s.t.Errorf("%s: files with mark %q: %v, want some: %v", cluster.NodeName(n), mark, found, want)
	}
}

// waitsForProfile waits until the kubelet says that it cannot make the container.
func (s *scene) waitsForProfile(pod string) {
	s.t.Helper()
	s.eventually("pod "+pod+" to wait for its profile", func() error {
		var p corev1.Pod
		if err := s.get(s.namespace, pod, &p); err != nil {
			return err
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Waiting != nil && c.State.Waiting.Reason == "CreateContainerError" {
				return nil
			}
		}
		return fmt.Errorf("its containers are %+v", p.Status.ContainerStatuses)
	})
}

// foreignProfilesAreRefused has pods name what is not of their namespace.
func foreignProfilesAreRefused(s *scene) {
	s.trustTeam()
	artifact := s.push("web", lab.Team, denyMkdir())
	s.want("web", artifact, nil)
	s.ready("web", artifact, nodes)
	foreign := s.makeNamespace("other-")
	hidden := "confine/.artifacts/" + strings.Replace(digestOf(artifact), ":", "-", 1) + "/" + lab.ProfileFile
	for name, test := range map[string]struct{ namespace, reference string }{
		"another namespace's":  {foreign, s.reference("web")},
		"by a doubled slash":   {foreign, strings.Replace(s.reference("web"), "/", "//", 1)},
		"by a dot":             {foreign, "./" + s.reference("web")},
		"by its digest's path": {s.namespace, hidden},
	} {
		pod := s.podOn(1, "foreign", test.reference)
		pod.Namespace = test.namespace
		s.refused(name, s.Client.Create(s.ctx(), pod))
		labels := map[string]string{"app": "foreign"}
		s.refused(name+", in a Deployment", s.Client.Create(s.ctx(), &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, Name: "foreign"},
			Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod.Spec},
			},
		}))
	}
	s.run(1, podName(1), "web")
	s.sees(podName(1), mkdirDenied)
}

// refused holds that the policy of the chart refused something.
func (s *scene) refused(name string, err error) {
	s.t.Helper()
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
		s.t.Errorf("a profile named %s: %v, want a refusal by policy", name, err)
	}
}
