//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
	"github.com/confine-dev/confine/test/kube/image"
)

// probe tries syscalls again and again, and says each time how that went and
// what the kernel says about its filter (proc_pid_status(5)).
const probe = `
try() {
  if out=$("$@" 2>&1); then echo allowed; else
    case $out in *"Operation not permitted"*) echo denied ;; *) echo "$out" ;; esac
  fi
}
n=0
while :; do
  n=$((n + 1))
  echo "$n mkdir=$(try mkdir /tmp/made) chmod=$(try chmod 1777 /tmp) seccomp=$(sed -n 's/^Seccomp:[^0-9]*//p' /proc/self/status)"
  rmdir /tmp/made 2>/dev/null
  sleep 0.1
done`

// What probe says. 2 is a filter (SECCOMP_MODE_FILTER).
const (
	mkdirDenied = "mkdir=denied chmod=allowed seccomp=2"
	chmodDenied = "mkdir=allowed chmod=denied seccomp=2"
)

// reference is how a pod names a profile of the scene's namespace.
func (s *scene) reference(profile string) string {
	return "confine/" + s.namespace + "/" + profile + "/" + lab.ProfileFile
}

// podOn describes a pod on node n that probes under a profile.
func (s *scene) podOn(n int, name, reference string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName:                      cluster.NodeName(n),
			TerminationGracePeriodSeconds: new(int64),
			AutomountServiceAccountToken:  new(bool),
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{
				Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &reference,
			}},
			Containers: []corev1.Container{{
				Name: "probe", Image: image.BusyboxName, ImagePullPolicy: corev1.PullNever,
				Command: []string{"sh", "-c", probe},
			}},
		},
	}
}

// run makes a pod on node n under a profile.
func (s *scene) run(n int, name, profile string) {
	s.t.Helper()
	s.must(s.Client.Create(s.ctx(), s.podOn(n, name, s.reference(profile))))
}

// sees waits until the pod says something new, and fails if that is not want.
func (s *scene) sees(pod, want string) {
	s.t.Helper()
	var before string
	s.eventually("pod "+pod+" to run", func() (err error) {
		before, _, err = s.lastTry(pod)
		return err
	})
	var got string
	s.eventually("pod "+pod+" to try again", func() error {
		count, said, err := s.lastTry(pod)
		if err == nil && count == before {
			err = fmt.Errorf("it still says %s %s", count, said)
		}
		got = said
		return err
	})
	if got != want {
		s.t.Errorf("pod %s says %q, want %q", pod, got, want)
	}
}

// lastTry returns what a pod said last: a count, and how its tries went.
func (s *scene) lastTry(pod string) (count, said string, err error) {
	lines := int64(2)
	log, err := s.Core.CoreV1().Pods(s.namespace).GetLogs(pod, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(s.ctx())
	if err != nil {
		return "", "", err
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	count, said, found := strings.Cut(all[len(all)-1], " ")
	if !found {
		return "", "", fmt.Errorf("pod %s said %q last", pod, log)
	}
	return count, said, nil
}

func podName(n int) string { return fmt.Sprintf("probe-%d", n) }
