package controller_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller"
)

func (f *fleet) rawNode(name string) (*corev1.Node, error) {
	n := &corev1.Node{}
	return n, f.client.Get(f.t.Context(), client.ObjectKey{Name: name}, n)
}

// TestNodeMadeAgain: a node of the same name is another one. What the former
// reported does not count, and its ProfileNode has the new owner.
func TestNodeMadeAgain(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.start()
	f.good("nginx", 1, nil)
	f.mutes("a", true)
	if err := f.client.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	f.eventually("one node less", func() error {
		p, err := f.profile("nginx")
		if err == nil && p.Status.Nodes.Total != 1 {
			err = fmt.Errorf("counts %+v", p.Status.Nodes)
		}
		return err
	})
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	f.setReady("a", true)
	made, err := f.rawNode("a")
	if err != nil {
		t.Fatal(err)
	}
	p := f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
	if p.Status.Nodes.Total != 2 || p.Status.Nodes.Ready != 1 {
		t.Errorf("counts %+v", p.Status.Nodes)
	}
	f.eventually("the new owner", func() error {
		n, err := f.node("a")
		if err != nil {
			return err
		}
		if len(n.OwnerReferences) != 1 || n.OwnerReferences[0].UID != made.UID || n.OwnerReferences[0].Kind != "Node" {
			return fmt.Errorf("owners %+v, want %s", n.OwnerReferences, made.UID)
		}
		return nil
	})
	f.mutes("a", false)
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
}

// TestRestart: a controller that ends anywhere is followed by one that goes on
// with the same nodes, and one that finds all as it should be writes nothing.
func TestRestart(t *testing.T) {
	f := newFleet(t, names("n", 6)...)
	var g gate
	f.answers(g.answer)
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(2)}})
	for done := range 5 {
		stop := f.start()
		f.awaitGiven("nginx", artifact(1), min(6, done+2))
		if n, err := f.onTheWay(t.Context(), artifact(1)); err != nil || n > 2 {
			t.Fatalf("%d nodes are on their way: %v", n, err)
		}
		stop()
		g.let(1)
		f.again()
	}
	g.let(1)
	stop := f.start()
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	f.awaitCondition("nginx", v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolloutComplete)
	stop()
	before := f.versions()
	registry := prometheus.NewRegistry()
	stop = f.start(func(o *controller.Options, _ *rest.Config) { o.Registry = registry })
	f.eventually("a pass", func() error { return passes(registry, 1) })
	stop()
	if after := f.versions(); !slices.Equal(before, after) {
		t.Errorf("a controller with nothing to do wrote:\n%s\n%s", before, after)
	}
}

// versions of all that the controller writes.
func (f *fleet) versions() []string {
	f.t.Helper()
	nodes, profiles := &v1alpha1.ProfileNodeList{}, &v1alpha1.SecurityProfileList{}
	if err := errors.Join(f.client.List(f.t.Context(), nodes), f.client.List(f.t.Context(), profiles)); err != nil {
		f.t.Fatal(err)
	}
	var all []string
	for _, n := range nodes.Items {
		all = append(all, n.Name+" "+n.ResourceVersion)
	}
	for _, p := range profiles.Items {
		all = append(all, p.Name+" "+p.ResourceVersion)
	}
	return all
}

// passes reports whether a controller made at least so many.
func passes(registry *prometheus.Registry, least uint64) error {
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if family.GetName() == "confine_plan_duration_seconds" {
			if n := family.GetMetric()[0].GetHistogram().GetSampleCount(); n < least {
				return fmt.Errorf("%d passes", n)
			}
			return nil
		}
	}
	return errors.New("no such metric")
}

// TestTwoControllers: one acts, the other stands by and takes over.
func TestTwoControllers(t *testing.T) {
	f := newFleet(t, "a", "b")
	elect := func(r *prometheus.Registry) func(*controller.Options, *rest.Config) {
		return func(o *controller.Options, _ *rest.Config) {
			o.LeaderElect, o.Registry, o.LeaseDuration = true, r, 3*time.Second
		}
	}
	first, second := prometheus.NewRegistry(), prometheus.NewRegistry()
	stop := f.start(elect(first))
	f.eventually("the first to act", func() error { return passes(first, 1) })
	holder := f.leaseHolder()
	f.start(elect(second))
	f.good("nginx", 1, nil)
	if err := passes(second, 1); err == nil {
		t.Error("the second acts beside the first")
	}
	stop()
	f.eventually("the second to hold the lease", func() error {
		if now := f.leaseHolder(); now == holder || now == "" {
			return fmt.Errorf("it is held by %q", now)
		}
		return nil
	})
	f.good("redis", 2, nil)
	if err := passes(second, 1); err != nil {
		t.Error(err)
	}
}

func (f *fleet) leaseHolder() string {
	f.t.Helper()
	c := f.extensions()
	lease := &coordinationv1.Lease{}
	if err := c.Get(f.t.Context(), client.ObjectKey{Namespace: namespace, Name: controller.LeaseName}, lease); err != nil {
		f.t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// TestDefinitionsDeletedAndMadeAgain: profiles that vanish with their
// CustomResourceDefinition are not deleted by anybody, so nodes keep them.
func TestDefinitionsDeletedAndMadeAgain(t *testing.T) {
	f := newFleet(t, "a", "b")
	t.Cleanup(f.define)
	f.start()
	f.good("nginx", 1, nil)
	f.undefine("securityprofiles.confine.dev")
	// A node that comes now shows that the controller works, and knows of no
	// profile any more.
	f.addNode("c", nil)
	f.eventually("the new node", func() error { _, err := f.node("c"); return err })
	f.addNode("d", nil)
	f.eventually("a new node without profiles", func() error {
		n, err := f.node("d")
		if err == nil && len(n.Spec.Profiles) > 0 {
			err = errors.New("the controller still knows the profile")
		}
		return err
	})
	if got := f.awaitGiven("nginx", artifact(1), 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q keep it", got)
	}
	f.define()
	f.good("redis", 2, nil)
	f.awaitGiven("nginx", artifact(1), 0)

	f.undefine("profilenodes.confine.dev")
	f.define()
	f.awaitGiven("redis", artifact(2), 4)
	f.awaitCondition("redis", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
}

func (f *fleet) undefine(name string) {
	f.t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	c := f.extensions()
	if err := c.Delete(f.t.Context(), &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		f.t.Fatal(err)
	}
	f.eventually("the end of "+name, func() error {
		if err := c.Get(f.t.Context(), client.ObjectKey{Name: name}, crd); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

// define installs the definitions that are missing.
func (f *fleet) define() {
	f.t.Helper()
	if _, err := envtest.InstallCRDs(server.Config(), envtest.CRDInstallOptions{
		Paths: []string{filepath.Join("..", "..", "deploy", "crds")},
	}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) extensions() client.Client {
	f.t.Helper()
	scheme := newScheme(f.t)
	if err := errors.Join(apiextensionsv1.AddToScheme(scheme), coordinationv1.AddToScheme(scheme)); err != nil {
		f.t.Fatal(err)
	}
	c, err := client.New(server.Config(), client.Options{Scheme: scheme})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// TestStartsBeforeItsDefinitions: it waits for them, and then works.
func TestStartsBeforeItsDefinitions(t *testing.T) {
	f := newFleet(t, "a")
	t.Cleanup(f.define)
	f.undefine("profilenodes.confine.dev")
	f.start()
	f.define()
	f.good("nginx", 1, nil)
}

// line is a connection to the API server that can be cut.
type line struct {
	t       *testing.T
	address string
	target  string
	mu      sync.Mutex
	open    []net.Conn
	ln      net.Listener
}

func newLine(t *testing.T, target string) *line {
	l := &line{t: t, address: "127.0.0.1:0", target: target}
	l.mend()
	t.Cleanup(l.cut)
	return l
}

func (l *line) mend() {
	ln, err := new(net.ListenConfig).Listen(l.t.Context(), "tcp", l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.address, l.ln = ln.Addr().String(), ln
	l.mu.Unlock()
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.target)
			if err != nil {
				_ = near.Close()
				continue
			}
			l.mu.Lock()
			l.open = append(l.open, near, far)
			l.mu.Unlock()
			go l.copy(near, far)
			go l.copy(far, near)
		}
	}()
}

// copy ends both directions when one ends.
func (l *line) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.ln.Close()
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open = nil
}

// TestOutage: the API server cannot be reached in mid-rollout, while a node
// goes on. Nothing is lost, and nothing more than allowed is assigned after.
func TestOutage(t *testing.T) {
	f := newFleet(t, names("n", 3)...)
	var g gate
	f.answers(g.answer)
	address, err := url.Parse(server.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	l := newLine(t, address.Host)
	f.start(func(_ *controller.Options, c *rest.Config) { c.Host = "https://" + l.address })
	f.addProfile("nginx", v1alpha1.SecurityProfileSpec{Artifact: artifact(1), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(1)}})
	f.awaitGiven("nginx", artifact(1), 1)
	l.cut()
	g.let(1)
	f.eventually("the node's own report", func() error {
		n, err := f.onTheWay(t.Context(), artifact(1))
		if err == nil && n != 0 {
			err = fmt.Errorf("%d nodes are on their way", n)
		}
		return err
	})
	f.awaitGiven("nginx", artifact(1), 1)
	l.mend()
	f.awaitGiven("nginx", artifact(1), 2)
	g.let(2)
	f.awaitCondition("nginx", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
}

// TestOneWritePerNode: however many profiles change together, a node costs one
// write, and a profile two: that it begins, and that it is done.
func TestOneWritePerNode(t *testing.T) {
	const profiles = 20
	f := newFleet(t, names("n", 3)...)
	var g gate
	f.answers(g.answer)
	f.start(func(o *controller.Options, _ *rest.Config) { o.Linger = 2 * time.Second })
	f.eventually("ProfileNodes", func() error { _, err := f.node("n02"); return err })
	before := f.generations(t.Context())
	for i := range profiles {
		f.addProfile(fmt.Sprintf("p%02d", i), v1alpha1.SecurityProfileSpec{Artifact: artifact(i), Rollout: &v1alpha1.Rollout{MaxConcurrent: at(10)}})
	}
	f.eventually("all profiles on all nodes", func() error {
		for name := range before {
			if n, err := f.node(name); err != nil || len(n.Spec.Profiles) != profiles {
				return fmt.Errorf("%s has %d profiles: %w", name, len(n.Spec.Profiles), err)
			}
		}
		return nil
	})
	g.let(3 * profiles)
	for i := range profiles {
		f.awaitCondition(fmt.Sprintf("p%02d", i), v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAsWanted)
	}
	for name, generation := range f.generations(t.Context()) {
		// The API server counts changes of the spec.
		if writes := generation - before[name]; writes != 1 {
			t.Errorf("%s was written %d times for %d profiles", name, writes, profiles)
		}
	}
}

func (f *fleet) generations(ctx context.Context) map[string]int64 {
	f.t.Helper()
	list := &v1alpha1.ProfileNodeList{}
	if err := f.client.List(ctx, list); err != nil {
		f.t.Fatal(err)
	}
	all := map[string]int64{}
	for _, n := range list.Items {
		all[n.Name] = n.Generation
	}
	return all
}
