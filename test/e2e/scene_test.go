//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/e2e/lab"
	"github.com/confine-dev/confine/test/kube/cluster"
)

const (
	// patience bounds each wait. It is long, since nothing depends on it: a wait
	// ends when its condition holds.
	patience     = 2 * time.Minute
	pollInterval = 100 * time.Millisecond
	// worthTelling is from when on a wait shows in the log.
	worthTelling = 5 * time.Second
	// promptly is how soon a node that cannot comply says why.
	promptly = 10 * time.Second
)

// scene is what one scenario plays in: a namespace of its own in the lab.
type scene struct {
	*lab.Lab
	t         *testing.T
	namespace string
}

func newScene(t *testing.T, l *lab.Lab) *scene {
	t.Helper()
	s := &scene{Lab: l, t: t}
	began := time.Now()
	t.Cleanup(func() { t.Logf("took %.1f s", time.Since(began).Seconds()) })
	t.Cleanup(s.clean)
	t.Cleanup(s.dumpIfFailed)
	s.must(s.install(s.ctx()))
	s.namespace = s.makeNamespace("team-")
	s.eventually("the namespace's ServiceAccount", func() error {
		return s.get(s.namespace, "default", &corev1.ServiceAccount{})
	})
	return s
}

// install installs Confine unless it is there.
func (s *scene) install(ctx context.Context) error {
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: lab.Namespace, Name: "confine-agent"}, &appsv1.DaemonSet{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	began := time.Now()
	err = s.Install(ctx)
	s.t.Logf("installed after %.1f s", time.Since(began).Seconds())
	return err
}

func (s *scene) ctx() context.Context { return s.t.Context() }

// lasting is a context that is good after the test's end too.
func (s *scene) lasting() context.Context { return context.WithoutCancel(s.ctx()) }

// report is must for what runs after the test's end.
func (s *scene) report(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// eventually waits until check has nothing to say against it.
func (s *scene) eventually(what string, check func() error) {
	s.t.Helper()
	s.must(s.wait(s.ctx(), what, check))
}

func (s *scene) wait(ctx context.Context, what string, check func() error) error {
	s.t.Helper()
	began := time.Now()
	err := wait(ctx, what, check)
	if took := time.Since(began); took > worthTelling {
		s.t.Logf("waited %.1f s for %s", took.Seconds(), what)
	}
	return err
}

func wait(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not after %v: %w", what, patience, err)
		case <-tick.C:
		}
	}
}

func (s *scene) get(namespace, name string, into client.Object) error {
	return s.Client.Get(s.ctx(), client.ObjectKey{Namespace: namespace, Name: name}, into)
}

func (s *scene) makeNamespace(prefix string) string {
	s.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix, Labels: map[string]string{sceneLabel: "true"}}}
	s.must(s.Client.Create(s.ctx(), namespace))
	return namespace.Name
}

// sceneLabel marks what a scene leaves for clean.
const sceneLabel = "e2e.confine.dev/scene"

// clean removes what the scene made and waits until the nodes have none of it.
func (s *scene) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	now := client.GracePeriodSeconds(0)
	err := errors.Join(
		s.Client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(s.namespace), now),
		s.Client.DeleteAllOf(ctx, &v1alpha1.SecurityProfile{}, client.InNamespace(s.namespace)),
		s.deleteNamespaces(ctx),
	)
	err = errors.Join(err, s.wait(ctx, "the nodes to be empty", func() error { return s.nodesAreEmpty(ctx) }))
	err = errors.Join(err, s.Client.DeleteAllOf(ctx, &v1alpha1.TrustPolicy{}))
	if err != nil {
		s.t.Errorf("cleaning up: %v", err)
	}
}

func (s *scene) deleteNamespaces(ctx context.Context) error {
	var all corev1.NamespaceList
	err := s.Client.List(ctx, &all, client.HasLabels{sceneLabel})
	for i := range all.Items {
		err = errors.Join(err, client.IgnoreNotFound(s.Client.Delete(ctx, &all.Items[i])))
	}
	return err
}

// nodesAreEmpty says which profiles nodes still have.
func (s *scene) nodesAreEmpty(ctx context.Context) error {
	var all v1alpha1.ProfileNodeList
	if err := s.Client.List(ctx, &all); err != nil {
		return err
	}
	for _, node := range all.Items {
		if len(node.Spec.Profiles) > 0 || node.Status != nil && len(node.Status.Profiles) > 0 {
			return fmt.Errorf("%s is given %d and reports %+v", node.Name, len(node.Spec.Profiles), node.Status)
		}
	}
	for n := 1; n <= nodes; n++ {
		left, err := s.profilesOn(n)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("%s still has %v", cluster.NodeName(n), left)
		}
	}
	return nil
}

// profilesRoot is where a node keeps profiles.
func (s *scene) profilesRoot(n int) string {
	return filepath.Join(s.Cluster.NodeDisk(n), "kubelet", "seccomp", "confine")
}

// profilesOn returns the files, links among them, on the disk of a node below
// seccomp/confine, sorted.
func (s *scene) profilesOn(n int) ([]string, error) {
	root := s.profilesRoot(n)
	var found []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while this walked
		}
		if err != nil || d.IsDir() {
			return err
		}
		found = append(found, strings.TrimPrefix(file, root+"/"))
		return nil
	})
	slices.Sort(found)
	return found, err
}

// dumpIfFailed tells what there is to know about a failure.
func (s *scene) dumpIfFailed() {
	if !s.t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods", "--all-namespaces", "--output=wide"},
		{"get", "confine", "--all-namespaces", "--output=yaml"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"logs", "--namespace=" + lab.Namespace, "--selector=app.kubernetes.io/component=agent", "--all-containers", "--prefix", "--tail=60"},
		{"logs", "--namespace=" + lab.Namespace, "--selector=app.kubernetes.io/component=controller", "--prefix", "--tail=60"},
	} {
		out, err := s.Kubectl(ctx, args...)
		s.t.Logf("kubectl %s:\n%s", strings.Join(args, " "), out)
		if err != nil {
			s.t.Log(err)
		}
	}
	for n := 1; n <= nodes; n++ {
		found, err := s.profilesOn(n)
		s.t.Logf("%s has %v (%v)", cluster.NodeName(n), found, err)
		s.t.Logf("kubelet of %s:\n%s", cluster.NodeName(n), tail(filepath.Join(filepath.Dir(s.Cluster.NodeDisk(n)), "logs", "kubelet.log")))
	}
}

const tailBytes = 4 << 10

func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-tailBytes):])
}
