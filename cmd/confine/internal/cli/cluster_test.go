package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/kube/apitest"
)

// shared is the API server of all tests of this package, started by the first
// that needs it.
var shared struct {
	sync.Mutex
	env *apitest.Env
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.env != nil {
		if err := shared.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// site is one namespace of a real API server, and what a user types.
type site struct {
	t          *testing.T
	env        *apitest.Env
	client     client.Client
	namespace  string
	dir        string
	kubeconfig string
}

func newSite(t *testing.T) *site {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.env == nil {
		env, err := apitest.Start(context.Background(), apitest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		shared.env = env
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, rbacv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(shared.env.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	f := &site{t: t, env: shared.env, client: c, dir: t.TempDir()}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "team-"}}
	f.create(ns)
	f.namespace = ns.Name
	f.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "default"}})
	f.kubeconfig = f.kubeconfigOf("admin", f.env.Config())
	return f
}

// kubeconfigOf writes a kubeconfig whose context names the fleet's namespace.
func (f *site) kubeconfigOf(name string, config *rest.Config) string {
	f.t.Helper()
	data, err := apitest.Kubeconfig(config)
	if err != nil {
		f.t.Fatal(err)
	}
	file := filepath.Join(f.dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return file
}

// create makes an object as somebody by hand, and removes it with the test.
func (f *site) create(o client.Object) {
	f.t.Helper()
	if err := f.client.Create(f.t.Context(), o, client.FieldOwner("kubectl-create")); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = client.IgnoreNotFound(f.client.Delete(context.Background(), o, client.GracePeriodSeconds(0)))
	})
}

func hexDigest(c string) string  { return "sha256:" + strings.Repeat(c, 64) }
func artifactOf(c string) string { return "registry.example.com/profiles/nginx@" + hexDigest(c) }
func (f *site) key() client.ObjectKey {
	return types.NamespacedName{Namespace: f.namespace, Name: "nginx"}
}

// profile makes the SecurityProfile nginx, which wants the artifact.
func (f *site) profile(artifact string) {
	f.t.Helper()
	f.create(&v1alpha1.SecurityProfile{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "nginx"},
		Spec:       v1alpha1.SecurityProfileSpec{Artifact: artifact},
	})
}

func (f *site) get() *v1alpha1.SecurityProfile {
	f.t.Helper()
	p := &v1alpha1.SecurityProfile{}
	if err := f.client.Get(f.t.Context(), f.key(), p); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// reports writes the status as a controller would, for the generation of now.
func (f *site) reports(change func(*v1alpha1.SecurityProfile)) {
	f.t.Helper()
	p := f.get()
	if p.Status == nil {
		p.Status = &v1alpha1.SecurityProfileStatus{}
	}
	p.Status.ObservedGeneration = p.Generation
	change(p)
	if err := f.client.Status().Update(f.t.Context(), p); err != nil {
		f.t.Fatal(err)
	}
}

// stage is a status of five nodes, the last of them unavailable.
func stage(word string, status metav1.ConditionStatus, ready int32) func(*v1alpha1.SecurityProfile) {
	return func(p *v1alpha1.SecurityProfile) {
		_, digest, _ := strings.Cut(p.Spec.Artifact, "@")
		p.Status.Nodes = &v1alpha1.NodeCounts{Total: 5, Updated: ready, Ready: ready, Unavailable: 1}
		p.Status.Rollout = &v1alpha1.RolloutStatus{EffectiveArtifact: p.Spec.Artifact, EffectiveDigest: digest, TargetArtifact: p.Spec.Artifact}
		p.Status.References = []v1alpha1.PayloadReference{{Kind: "seccomp", Name: "confine/" + p.Namespace + "/nginx/nginx.json"}}
		p.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionProgressing, Status: status, Reason: word, ObservedGeneration: p.Generation, LastTransitionTime: metav1.Now(),
		}}
	}
}

// node makes a ProfileNode that is given the artifact, with a name of this
// fleet's own.
func (f *site) node(name, artifact string, change ...func(*v1alpha1.ProfileNodeStatus, *v1alpha1.ProfileReport)) string {
	f.t.Helper()
	name = f.namespace + "-" + name
	n := &v1alpha1.ProfileNode{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ProfileNodeSpec{Profiles: []v1alpha1.AssignedProfile{{Namespace: f.namespace, Name: "nginx", UID: string(f.get().UID), Artifact: artifact}}},
	}
	f.create(n)
	_, digest, _ := strings.Cut(artifact, "@")
	report := v1alpha1.ProfileReport{
		Namespace: f.namespace, Name: "nginx", UID: string(f.get().UID), WantedDigest: digest, InstalledDigest: digest,
		State: v1alpha1.StateInstalled, Verified: metav1.ConditionTrue, Since: metav1.NewTime(time.Now().Add(-time.Minute)),
		Kinds: []v1alpha1.KindReport{{Name: "seccomp", References: []string{"confine/" + f.namespace + "/nginx/nginx.json"}}},
	}
	status := &v1alpha1.ProfileNodeStatus{
		AgentVersion: "v0.3.0", Kinds: []v1alpha1.NodeKind{{Name: "seccomp", Supported: true}, {Name: "apparmor", Message: "the kernel has no AppArmor"}},
		Summary: &v1alpha1.NodeSummary{Assigned: 1, Installed: 1},
	}
	for _, c := range change {
		c(status, &report)
	}
	status.Profiles = []v1alpha1.ProfileReport{report}
	n.Status = status
	if err := f.client.Status().Update(f.t.Context(), n); err != nil {
		f.t.Fatal(err)
	}
	return name
}

func refuses(word, message string) func(*v1alpha1.ProfileNodeStatus, *v1alpha1.ProfileReport) {
	return func(s *v1alpha1.ProfileNodeStatus, r *v1alpha1.ProfileReport) {
		s.Summary = &v1alpha1.NodeSummary{Assigned: 1, Failed: 1}
		r.State, r.Verified, r.Reason, r.Message, r.InstalledDigest, r.Kinds = v1alpha1.StateFailed, metav1.ConditionFalse, word, message, "", nil
	}
}

// confine runs one command line as the administrator.
func (f *site) confine(args ...string) result { return f.as(f.kubeconfig, args...) }

func (f *site) as(kubeconfig string, args ...string) result {
	f.t.Helper()
	return typed(f.t.Context(), append(args, "--kubeconfig", kubeconfig)...)
}

func typed(ctx context.Context, args ...string) result {
	var out, errs bytes.Buffer
	code := Run(ctx, append([]string{"confine"}, args...), Streams{
		In: strings.NewReader(""), Out: &out, Err: &errs, LookupEnv: func(string) (string, bool) { return "", false },
	})
	return result{code: code, out: out.String(), err: errs.String()}
}

// expect fails unless the command ended with the code and printed all of want.
func (r result) expect(t *testing.T, code int, want ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d", r.code, code)
	}
	for _, w := range want {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("%q is not printed", w)
		}
	}
	if t.Failed() {
		t.Fatalf("printed:\n%s%s", r.out, r.err)
	}
}

// columns are the cells of the line that begins with name.
func (r result) columns(name string) []string {
	for line := range strings.Lines(r.out) {
		if cells := strings.Fields(line); len(cells) > 0 && cells[0] == name {
			return cells
		}
	}
	return nil
}
