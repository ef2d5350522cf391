package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/controller"
	"github.com/confine-dev/confine/test/kube/apitest"
)

// server is the API server of all tests here. Nodes are seen by every
// controller, so these tests run one after the other, each on an empty cluster.
var server *apitest.Env

func TestMain(m *testing.M) {
	code, err := withServer(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withServer(m *testing.M) (int, error) {
	env, err := apitest.Start(context.Background(), apitest.Options{})
	if err != nil {
		return 1, err
	}
	server = env
	code := m.Run()
	return code, env.Stop()
}

const (
	namespace = "confine-system"
	patience  = 30 * time.Second
)

// fleet is a cluster of objects without machines: its nodes report what the
// test says.
type fleet struct {
	t      *testing.T
	client client.WithWatch
	mu     sync.Mutex
	// answer is what a node reports about an assignment; nil for nothing yet.
	answer func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport
	// removals are reported beside.
	removals map[string][]v1alpha1.ProfileReport
	// muted nodes write nothing.
	muted map[string]bool
	kick  chan struct{}
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return scheme
}

func newFleet(t *testing.T, nodes ...string) *fleet {
	t.Helper()
	c, err := client.NewWithWatch(server.Config(), client.Options{Scheme: newScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, client: c, answer: installs, removals: map[string][]v1alpha1.ProfileReport{}, muted: map[string]bool{}, kick: make(chan struct{}, 1)}
	for _, name := range []string{namespace, "web"} {
		f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	t.Cleanup(f.empty)
	for _, name := range nodes {
		f.addNode(name, nil)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.report(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return f
}

// empty removes everything that a controller looks at.
func (f *fleet) empty() {
	ctx := context.Background()
	all := client.GracePeriodSeconds(0)
	for _, space := range []string{namespace, "web"} {
		if err := f.client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(space), all); err != nil {
			f.t.Error(err)
		}
		if err := f.client.DeleteAllOf(ctx, &v1alpha1.SecurityProfile{}, client.InNamespace(space)); err != nil {
			f.t.Error(err)
		}
	}
	for _, object := range []client.Object{&corev1.Node{}, &v1alpha1.ProfileNode{}} {
		if err := f.client.DeleteAllOf(ctx, object); err != nil {
			f.t.Error(err)
		}
	}
}

func (f *fleet) ensure(object client.Object) {
	f.t.Helper()
	if err := f.client.Create(f.t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
		f.t.Fatal(err)
	}
}

// addNode makes a Ready node with a Ready agent.
func (f *fleet) addNode(name string, labels map[string]string) {
	f.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	f.ensure(node)
	f.setReady(name, true)
	f.addAgent(name)
}

func (f *fleet) setReady(name string, ready bool) {
	f.t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	f.patchStatus(node, map[string]any{
		"nodeInfo":   map[string]any{"operatingSystem": "linux"},
		"conditions": []any{map[string]any{"type": "Ready", "status": status, "reason": "Test"}},
	})
}

func (f *fleet) patchStatus(object client.Object, status any) {
	f.t.Helper()
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.client.Status().Patch(f.t.Context(), object, client.RawPatch(types.MergePatchType, body)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) addAgent(node string) {
	f.t.Helper()
	f.addPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: "agent-" + node,
		Labels: map[string]string{"app.kubernetes.io/name": "confine", "app.kubernetes.io/component": "agent"},
	}}, node)
}

// addPod makes a Ready pod on a node.
func (f *fleet) addPod(pod *corev1.Pod, node string) {
	f.t.Helper()
	pod.Spec.NodeName = node
	no := false
	pod.Spec.AutomountServiceAccountToken = &no
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "main", Image: "registry.example.com/x"})
	if err := f.client.Create(f.t.Context(), pod); err != nil {
		f.t.Fatal(err)
	}
	f.patchStatus(pod, map[string]any{
		"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True"}},
	})
}

func (f *fleet) deletePod(space, name string) {
	f.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name}}
	if err := f.client.Delete(f.t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		f.t.Fatal(err)
	}
}

// artifact n of a repository.
func artifact(n int) string {
	return "registry.example.com/profiles/web@sha256:" + strings.Repeat(fmt.Sprintf("%02x", n), 32)
}

func (f *fleet) addProfile(name string, spec v1alpha1.SecurityProfileSpec) *v1alpha1.SecurityProfile {
	f.t.Helper()
	p := &v1alpha1.SecurityProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name}, Spec: spec}
	if err := f.client.Create(f.t.Context(), p); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// edit changes the spec of a profile.
func (f *fleet) edit(name string, change func(*v1alpha1.SecurityProfileSpec)) {
	f.t.Helper()
	f.eventually("edit "+name, func() error {
		p, err := f.profile(name)
		if err != nil {
			return err
		}
		change(&p.Spec)
		return f.client.Update(f.t.Context(), p)
	})
}

func (f *fleet) profile(name string) (*v1alpha1.SecurityProfile, error) {
	p := &v1alpha1.SecurityProfile{}
	return p, f.client.Get(f.t.Context(), client.ObjectKey{Namespace: "web", Name: name}, p)
}

func (f *fleet) node(name string) (*v1alpha1.ProfileNode, error) {
	n := &v1alpha1.ProfileNode{}
	return n, f.client.Get(f.t.Context(), client.ObjectKey{Name: name}, n)
}

// given returns the nodes that are assigned an artifact of a profile.
func (f *fleet) given(profile, artifact string) ([]string, error) {
	list := &v1alpha1.ProfileNodeList{}
	if err := f.client.List(f.t.Context(), list); err != nil {
		return nil, err
	}
	var nodes []string
	for _, n := range list.Items {
		for _, p := range n.Spec.Profiles {
			if p.Name == profile && p.Artifact == artifact {
				nodes = append(nodes, n.Name)
			}
		}
	}
	return nodes, nil
}

// awaitGiven waits until so many nodes are assigned an artifact, and returns them.
func (f *fleet) awaitGiven(profile, artifact string, want int) []string {
	f.t.Helper()
	var nodes []string
	f.eventually(fmt.Sprintf("%d nodes with %s of %s", want, artifact, profile), func() (err error) {
		if nodes, err = f.given(profile, artifact); err == nil && len(nodes) != want {
			err = fmt.Errorf("%d nodes have it: %q", len(nodes), nodes)
		}
		return err
	})
	return nodes
}

// awaitCondition waits until a condition has a status and reason, and was
// judged for the present spec.
func (f *fleet) awaitCondition(profile, name string, status metav1.ConditionStatus, why string) *v1alpha1.SecurityProfile {
	f.t.Helper()
	var p *v1alpha1.SecurityProfile
	f.eventually(fmt.Sprintf("%s=%s %s of %s", name, status, why, profile), func() (err error) {
		if p, err = f.profile(profile); err != nil {
			return err
		}
		if p.Status == nil || p.Status.ObservedGeneration != p.Generation {
			return errors.New("not observed yet")
		}
		c := apimeta.FindStatusCondition(p.Status.Conditions, name)
		if c == nil || c.Status != status || c.Reason != why || c.ObservedGeneration != p.Generation {
			return fmt.Errorf("it is %+v; counts %+v", c, p.Status.Nodes)
		}
		return nil
	})
	return p
}

// eventually waits for a condition.
func (f *fleet) eventually(what string, check func() error) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-f.t.Context().Done():
			f.t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// start runs a controller until the returned function, or the end of the test.
func (f *fleet) start(change ...func(*controller.Options, *rest.Config)) (stop func()) {
	f.t.Helper()
	opts := controller.Options{Namespace: namespace, Linger: 5 * time.Millisecond, Interval: 10 * time.Millisecond}
	if testing.Verbose() {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	config := server.Config()
	for _, c := range change {
		c(&opts, config)
	}
	c, err := controller.New(config, opts)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// installs is the answer of a node that verified and installed.
func installs(_ string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
	digest := digestOf(a.Artifact)
	return &v1alpha1.ProfileReport{
		UID: a.UID, WantedDigest: digest, InstalledDigest: digest, State: v1alpha1.StateInstalled, Verified: metav1.ConditionTrue,
		Kinds: []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/" + a.Namespace + "/" + a.Name + "/profile.json"}}},
	}
}

// refuses is the answer of a node that refused.
func refuses(why, message string) func(string, v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
	return func(_ string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport {
		return &v1alpha1.ProfileReport{
			UID: a.UID, WantedDigest: digestOf(a.Artifact), State: v1alpha1.StateFailed, Verified: metav1.ConditionFalse,
			Reason: why, Message: message,
		}
	}
}

func digestOf(artifact string) string { _, digest, _ := strings.Cut(artifact, "@"); return digest }

// answers changes what nodes report, and lets them report anew.
func (f *fleet) answers(answer func(node string, a v1alpha1.AssignedProfile) *v1alpha1.ProfileReport) {
	f.mu.Lock()
	f.answer = answer
	f.mu.Unlock()
	f.again()
}

// removes lets a node report a removal beside.
func (f *fleet) removes(node string, reports ...v1alpha1.ProfileReport) {
	f.mu.Lock()
	f.removals[node] = reports
	f.mu.Unlock()
	f.again()
}

func (f *fleet) mutes(node string, mute bool) {
	f.mu.Lock()
	f.muted[node] = mute
	f.mu.Unlock()
	f.again()
}

func (f *fleet) again() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// report is the part of all agents: what became of each assignment goes into
// the status of the node's own ProfileNode.
func (f *fleet) report(ctx context.Context) {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.kick:
		case <-poll.C:
		}
		list := &v1alpha1.ProfileNodeList{}
		if err := f.client.List(ctx, list); err != nil {
			continue // the server may be away, or the resource
		}
		for i := range list.Items {
			f.reportNode(ctx, &list.Items[i])
		}
	}
}

func (f *fleet) reportNode(ctx context.Context, n *v1alpha1.ProfileNode) {
	node := &corev1.Node{}
	if err := f.client.Get(ctx, client.ObjectKey{Name: n.Name}, node); err != nil {
		return
	}
	status := v1alpha1.ProfileNodeStatus{NodeUID: string(node.UID), AgentVersion: "test"}
	f.mu.Lock()
	if f.muted[n.Name] {
		f.mu.Unlock()
		return
	}
	for _, a := range n.Spec.Profiles {
		if r := f.answer(n.Name, a); r != nil {
			r.Namespace, r.Name = a.Namespace, a.Name
			status.Profiles = append(status.Profiles, *r)
		}
	}
	status.Profiles = append(status.Profiles, f.removals[n.Name]...)
	f.mu.Unlock()
	slices.SortFunc(status.Profiles, func(a, b v1alpha1.ProfileReport) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	})
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil || n.Status != nil && sameJSON(*n.Status, status) {
		return
	}
	if err := f.client.Status().Patch(ctx, n, client.RawPatch(types.MergePatchType, body)); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		f.t.Logf("agent of %s: %v", n.Name, err)
	}
}

func sameJSON(a, b any) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
