package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/cluster"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/host"
	"github.com/confine-dev/confine/test/kube/apitest"
)

// agentUser may do what the agent's ClusterRole lets it, and nothing else.
const agentUser = "system:serviceaccount:confine-system:confine-agent"

// patience bounds every wait for something that has to come.
const patience = time.Minute

var (
	// env is the one API server of this package: tests share it one after the
	// other, and each begins without objects.
	env *apitest.Env

	theKey = sync.OnceValue(func() *sign.Key {
		none := func() ([]byte, error) { return nil, nil }
		private, _, err := sign.GenerateKeyPair(none)
		if err != nil {
			panic(err)
		}
		key, err := sign.LoadKey(private, none)
		if err != nil {
			panic(err)
		}
		return key
	})
)

func TestMain(m *testing.M) { os.Exit(withServer(m)) }

func withServer(m *testing.M) int {
	ctx := context.Background()
	var err error
	if env, err = apitest.Start(ctx, apitest.Options{}); err == nil {
		err = grant(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// grant gives the agent's user what docs/node.md says it needs.
func grant(ctx context.Context) error {
	c, err := kubernetes.NewForConfig(env.Config())
	if err != nil {
		return err
	}
	read := []string{"get", "list", "watch"}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"profilenodes", "trustpolicies"}, Verbs: read},
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"profilenodes/status"}, Verbs: []string{"patch"}},
	}}
	if _, err := c.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	return bind(ctx, c)
}

func bind(ctx context.Context, c kubernetes.Interface) error {
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "agent"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: agentUser}}}
	_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// site is one node with its agent, a registry on loopback, and what the cluster
// holds for them.
type site struct {
	t        *testing.T
	dir      string
	name     string // of the node
	registry *httptest.Server
	remote   *registry.Client
	api      dynamic.Interface
	opts     agent.Options
	user     string // of the agent
	nodeUID  string
	wire     *wire // to the API server
	passes   atomic.Int64
	patches  atomic.Int64
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), user: agentUser, nodeUID: "uid-of-the-node", name: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "."))}
	s.registry = httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.registry.Close)
	var err error
	s.remote, err = registry.New(registry.Options{})
	s.must(err)
	s.wire = newWire(t, env.Config())
	s.api, err = dynamic.NewForConfig(env.Config())
	s.must(err)
	for _, resource := range []string{"profilenodes", "trustpolicies"} {
		s.must(s.resource(resource).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) resource(name string) dynamic.ResourceInterface {
	return s.api.Resource(v1alpha1.SchemeGroupVersion().WithResource(name))
}

// profileText is a profile that also allows some more syscalls. Spaces behind
// it make another one.
func profileText(more ...string) string {
	names, err := json.Marshal(append([]string{"read", "write", "exit_group"}, more...))
	if err != nil {
		panic(err)
	}
	return `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":` + string(names) + `,"action":"SCMP_ACT_ALLOW"}]}`
}

// push pushes an artifact of files, NAME to content; a nil signer does not sign.
func (s *site) push(files map[string]string, signer artifact.Signer) string {
	s.t.Helper()
	ref, err := reference.Parse(s.registry.Listener.Addr().String() + "/profiles/web:v1")
	s.must(err)
	var inputs []pack.Input
	for name, content := range files {
		inputs = append(inputs, pack.Input{File: name, Kind: "seccomp", Data: []byte(content)})
	}
	pushed, err := artifact.Push(s.t.Context(), s.remote, kinds.All(nil), artifact.PushRequest{Reference: ref, Inputs: inputs, Signer: signer})
	s.must(err)
	return ref.Repository.Pinned(pushed.Digest).String()
}

func digestOf(pinned string) string {
	_, d, _ := strings.Cut(pinned, "@")
	return digest.Digest(d).String()
}

// trust makes a TrustPolicy of theKey; change may spoil it.
func (s *site) trust(change func(spec map[string]any)) {
	s.t.Helper()
	s.must(s.tryTrust(change))
}

func (s *site) tryTrust(change func(spec map[string]any)) error {
	s.t.Helper()
	spec := map[string]any{
		"repositories": []any{s.registry.Listener.Addr().String() + "/profiles/*"},
		"namespaces":   []any{"web"}, "threshold": 1, "allowedKinds": []any{"seccomp"},
		"signers": []any{map[string]any{"name": "team", "key": map[string]any{"pem": string(theKey().PublicPEM())}}},
	}
	if change != nil {
		change(spec)
	}
	return s.tryApply("trustpolicies", map[string]any{
		"apiVersion": "confine.dev/v1alpha1", "kind": "TrustPolicy", "metadata": map[string]any{"name": "web"}, "spec": spec,
	})
}

// entry is one assigned profile.
func entry(name, artifact string) map[string]any {
	return map[string]any{"namespace": "web", "name": name, "uid": "uid-of-" + name, "artifact": artifact}
}

// assign writes the spec of the node's ProfileNode, and the object where it is
// not there.
func (s *site) assign(profiles ...map[string]any) { s.t.Helper(); s.assignWith(nil, profiles...) }

func (s *site) assignWith(releases []any, profiles ...map[string]any) {
	s.t.Helper()
	list := make([]any, 0, len(profiles))
	for _, p := range profiles {
		list = append(list, p)
	}
	if releases == nil {
		releases = []any{}
	}
	s.apply("profilenodes", map[string]any{
		"apiVersion": "confine.dev/v1alpha1", "kind": "ProfileNode",
		"metadata": map[string]any{"name": s.name, "ownerReferences": []any{
			map[string]any{"apiVersion": "v1", "kind": "Node", "name": s.name, "uid": s.nodeUID},
		}},
		"spec": map[string]any{"profiles": list, "releases": releases},
	})
}

func (s *site) apply(resource string, object map[string]any) {
	s.t.Helper()
	s.must(s.tryApply(resource, object))
}

func (s *site) tryApply(resource string, object map[string]any) error {
	s.t.Helper()
	body, err := json.Marshal(object)
	s.must(err)
	force := true
	name, _, _ := unstructured.NestedString(object, "metadata", "name")
	_, err = s.resource(resource).Patch(s.t.Context(), name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "test", Force: &force})
	return err
}

// running is an agent that was started.
type running struct {
	s      *site
	source *cluster.Source
	stop   context.CancelFunc
	ended  chan error
}

// start starts an agent on this node. It is stopped at the end of the test.
func (s *site) start() *running {
	s.t.Helper()
	config, err := env.ConfigFor(s.user)
	s.must(err)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next, &s.patches} })
	client, err := cluster.Connect(s.wire.through(config))
	s.must(err)
	logger := slog.New(slog.NewTextHandler(s.t.Output(), nil))
	source, err := cluster.New(cluster.Options{
		Client: client, Node: s.name, Root: s.path("root"), Log: logger,
		Puller: artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)}),
	})
	s.must(err)
	seccomp, err := host.New(host.Options{Root: s.path("seccomp")})
	s.must(err)
	opts := s.opts
	opts.Root, opts.Source, opts.Changes, opts.Reported, opts.Log = s.path("root"), source, source.Changes(), s.reported(source), logger
	opts.Hosts, opts.Remote = []profile.Host{seccomp}, s.remote
	a, err := agent.New(opts)
	s.must(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	r := &running{s: s, source: source, stop: stop, ended: make(chan error, 1)}
	go func() {
		var watching sync.WaitGroup
		watching.Go(func() { source.Run(ctx) })
		err := a.Run(ctx)
		stop()
		watching.Wait()
		for _, c := range []io.Closer{a, source} {
			if closeErr := c.Close(); err == nil {
				err = closeErr
			}
		}
		r.ended <- err
	}()
	s.t.Cleanup(r.end)
	return r
}

// reported counts passes beside.
func (s *site) reported(source *cluster.Source) func(status.Report, bool) {
	return func(r status.Report, busy bool) {
		source.Report(r, busy)
		s.passes.Add(1)
	}
}

// counting counts the writes of an agent.
type counting struct {
	next    http.RoundTripper
	patches *atomic.Int64
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		c.patches.Add(1)
	}
	return c.next.RoundTrip(r)
}

// end stops the agent, once.
func (r *running) end() {
	r.stop()
	if err, open := <-r.ended; open {
		close(r.ended)
		if err != nil {
			r.s.t.Error(err)
		}
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// installed is the content of one file in force; empty where there is none.
func (s *site) installed(name, file string) string {
	data, err := os.ReadFile(s.path(filepath.Join("seccomp/confine/web", name, file)))
	if err != nil {
		return ""
	}
	return string(data)
}

// node reads the ProfileNode; nil where there is none.
func (s *site) node() *v1alpha1.ProfileNode {
	s.t.Helper()
	object, err := s.resource("profilenodes").Get(s.t.Context(), s.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	s.must(err)
	data, err := object.MarshalJSON()
	s.must(err)
	var n v1alpha1.ProfileNode
	s.must(json.Unmarshal(data, &n))
	return &n
}

// report is what the node says of one profile; its zero value where it says
// nothing.
func (s *site) report(name string) v1alpha1.ProfileReport {
	s.t.Helper()
	n := s.node()
	if n == nil || n.Status == nil {
		return v1alpha1.ProfileReport{}
	}
	for _, p := range n.Status.Profiles {
		if p.Name == name {
			return p
		}
	}
	return v1alpha1.ProfileReport{}
}

// local is what the node's own status file says.
func (s *site) local() status.Report {
	r, err := status.Read(s.path("root"))
	if err != nil {
		return status.Report{}
	}
	return r
}

// until waits for something that has to come.
func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	s.within(patience, what, is)
}

func (s *site) within(d time.Duration, what string, is func() bool) {
	s.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(d); !is(); <-ticker.C {
		if time.Now().After(deadline) {
			said, _ := json.MarshalIndent(s.node().Status, "", " ")
			s.t.Fatalf("in vain after %v: %s\nthe node says %.3000s\nhere it says %+v", d, what, said, s.local())
		}
	}
}
