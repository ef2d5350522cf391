//go:build e2e

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
)

// deletedWhilePodsRun deletes a profile that a pod on one node uses: that node
// keeps it until the pod is gone, the others until the removal delay is over.
func deletedWhilePodsRun(s *scene) {
	const user = 1
	s.trustTeam()
	artifact := s.push("web", lab.Team, denyMkdir())
	s.want("web", artifact, nil)
	s.ready("web", artifact, nodes)
	s.run(user, podName(user), "web")
	s.sees(podName(user), mkdirDenied)

	s.must(s.Client.Delete(s.ctx(), s.profile("web")))
	var due time.Time
	s.eventually("the node to offer the removal", func() (err error) {
		due, err = s.removeAt(user, "web")
		return err
	})
	for n := user + 1; n <= nodes; n++ {
		s.eventually("the profile to go where no pod uses it", func() error { return s.isGone(n, "web") })
	}
	if time.Now().Before(due.Add(-removalDelay)) {
		s.t.Errorf("due at %v, which is more than %v away", due, removalDelay)
	}
	// Whatever is done after it was due is done by a controller and agents that
	// could have removed it.
	s.eventually("the removal to be due", func() error {
		if left := time.Until(due); left > 0 {
			return fmt.Errorf("in %v", left)
		}
		return nil
	})
	s.want("later", artifact, allAtOnce())
	s.ready("later", artifact, nodes)
	s.hasFile(user, "web")
	s.sees(podName(user), mkdirDenied)

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: podName(user)}}
	s.must(s.Client.Delete(s.ctx(), pod))
	s.eventually("the profile to go after its pod", func() error { return s.isGone(user, "web") })
	s.hasFile(user, "later")
}

// removeAt is when node n is going to remove the profile.
func (s *scene) removeAt(n int, profile string) (time.Time, error) {
	var node v1alpha1.ProfileNode
	if err := s.get("", cluster.NodeName(n), &node); err != nil {
		return time.Time{}, err
	}
	for _, p := range node.Status.Profiles {
		if p.Namespace == s.namespace && p.Name == profile && p.State == v1alpha1.StateRemoving {
			return p.RemoveAt.Time, nil
		}
	}
	return time.Time{}, fmt.Errorf("it reports %+v", node.Status.Profiles)
}

// isGone says what is left of a profile on a node.
func (s *scene) isGone(n int, profile string) error {
	file := filepath.Join(s.profilesRoot(n), s.namespace, profile)
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s has %s", cluster.NodeName(n), file)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// uninstallKeepsFiles uninstalls the chart: profiles stay in force and on the
// disks, until they are purged. Installed again, all comes back by itself.
func uninstallKeepsFiles(s *scene) {
	s.trustTeam()
	artifact := s.push("web", lab.Team, denyMkdir())
	s.want("web", artifact, nil)
	s.ready("web", artifact, nodes)
	s.run(1, podName(1), "web")
	s.sees(podName(1), mkdirDenied)
	if out, err := s.ConfineOnNode(s.ctx(), 1, "node", "purge", "--yes"); lab.ExitCode(err) <= 0 {
		s.t.Errorf("purged under a running agent: %v\n%s", err, out)
	}

	s.must(s.Uninstall(s.ctx()))
	s.t.Cleanup(s.reinstalled)
	s.noAgentRuns()
	for n := 1; n <= nodes; n++ {
		s.hasFile(n, "web")
	}
	s.run(2, podName(2), "web")
	s.sees(podName(2), mkdirDenied)
	s.profile("web") // the resource is there too

	for n := 1; n <= nodes; n++ {
		out, err := s.ConfineOnNode(s.ctx(), n, "node", "purge", "--yes")
		s.must(err)
		if left, err := s.profilesOn(n); err != nil || len(left) > 0 {
			s.t.Errorf("%s: %v are left after a purge (%v), which said\n%s", cluster.NodeName(n), left, err, out)
		}
		state := filepath.Join(s.Cluster.NodeDisk(n), "confine")
		if _, err := os.Lstat(state); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("%s: %s is left after a purge: %v", cluster.NodeName(n), state, err)
		}
	}
	s.reinstalled()
	for n := 1; n <= nodes; n++ {
		s.eventually("the profile to come back", func() error {
			_, err := os.Stat(filepath.Join(s.profilesRoot(n), s.namespace, "web", lab.ProfileFile))
			return err
		})
	}
	s.ready("web", artifact, nodes)
}

func (s *scene) noAgentRuns() {
	s.t.Helper()
	s.eventually("all agents to end", func() error {
		var all corev1.PodList
		if err := s.Client.List(s.ctx(), &all, client.InNamespace(lab.Namespace)); err != nil {
			return err
		}
		if len(all.Items) > 0 {
			return fmt.Errorf("%d pods are left", len(all.Items))
		}
		return nil
	})
}

// reinstalled installs Confine if it is not there.
func (s *scene) reinstalled() { s.report(s.install(s.lasting())) }
