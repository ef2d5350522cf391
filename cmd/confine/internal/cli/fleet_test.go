package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/kube/apitest"
)

func TestFleetStatus(t *testing.T) {
	f := newSite(t)
	f.confine("status", "-n", f.namespace).expect(t, ExitOK, "No SecurityProfiles found in namespace "+f.namespace)
	f.profile(artifactOf("b"))
	if got, want := f.confine("status", "-n", f.namespace).columns("nginx")[:7], []string{"nginx", "sha256:bbbbbbbbbbbb", "0", "0", "0", "0", "NotObserved"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f.reports(stage(v1alpha1.ReasonRollingOut, metav1.ConditionTrue, 3))
	r := f.confine("status", "-n", f.namespace)
	r.expect(t, ExitOK)
	if got, want := r.columns("nginx")[:7], []string{"nginx", "sha256:bbbbbbbbbbbb", "3", "3", "0", "5", "RollingOut"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if head := strings.Fields(r.out)[0]; head != "NAME" || !strings.HasSuffix(strings.Split(r.out, "\n")[0], "AGE") {
		t.Errorf("the first column is not NAME, or the last not AGE:\n%s", r.out)
	}
	all := f.confine("status", "-A")
	all.expect(t, ExitOK, "NAMESPACE", f.namespace)
	if got := all.columns(f.namespace); len(got) != 9 || got[1] != "nginx" {
		t.Errorf("with -A: %v", got)
	}
	f.confine("status", "-n", f.namespace, "-o", "wide").expect(t, ExitOK, "UNAVAILABLE", "VERIFIED", artifactOf("b"))
	if r := f.confine("status", "-n", f.namespace, "-o", "name"); r.out != "securityprofile.confine.dev/nginx\n" || r.err != "" {
		t.Errorf("-o name prints %q%q", r.out, r.err)
	}
	for format, decode := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": func(b []byte, v any) error { return yaml.Unmarshal(b, v) }} {
		var got struct {
			Profiles []struct {
				Namespace, Name, Digest, Artifact, Status, Verified string
				Nodes                                               v1alpha1.NodeCounts
				CreatedAt                                           metav1.Time
			}
		}
		if err := decode([]byte(f.confine("status", "-n", f.namespace, "-o", format).out), &got); err != nil || len(got.Profiles) != 1 {
			t.Fatalf("-o %s: %v, %v", format, err, got)
		}
		p := got.Profiles[0]
		if p.Namespace != f.namespace || p.Name != "nginx" || p.Digest != hexDigest("b") || p.Status != "RollingOut" || p.Nodes.Unavailable != 1 || p.CreatedAt.IsZero() {
			t.Errorf("-o %s: %+v", format, p)
		}
	}
}

func TestStatusNodes(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	good := f.node("good", artifactOf("b"))
	bad := f.node("bad", artifactOf("b"), refuses("SignatureMissing", "no signature"), func(s *v1alpha1.ProfileNodeStatus, _ *v1alpha1.ProfileReport) {
		s.Problems = []v1alpha1.NodeProblem{{Reason: "NoSpace", Message: "the disk is full"}, {Reason: "NoSpace", Message: "again"}}
	})
	silent := f.namespace + "-silent"
	f.create(&v1alpha1.ProfileNode{ObjectMeta: metav1.ObjectMeta{Name: silent}})
	r := f.confine("status", "nodes")
	r.expect(t, ExitOK)
	for name, want := range map[string][]string{
		good:   {good, "1", "1", "0", "seccomp", "v0.3.0", "-"},
		bad:    {bad, "1", "0", "1", "seccomp", "v0.3.0", "NoSpace"},
		silent: {silent, "0", "0", "0", "-", "-", "NotReported"},
	} {
		if got := r.columns(name); len(got) != 8 || !cmp.Equal(got[:7], want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	f.confine("status", "nodes", "-o", "wide").expect(t, ExitOK, "apparmor: the kernel has no AppArmor", "NoSpace: the disk is full")
	f.confine("status", "nodes", "-o", "name").expect(t, ExitOK, "profilenode.confine.dev/"+good+"\n")
	f.confine("status", "nodes", "-o", "json").expect(t, ExitOK, `"agentVersion": "v0.3.0"`, `"reported": false`)

	f.reports(stage(v1alpha1.ReasonRollingOut, metav1.ConditionTrue, 1))
	r = f.confine("status", f.namespace+"/nginx")
	r.expect(t, ExitOK, "1 of 5 nodes ready", "confine/"+f.namespace+"/nginx/nginx.json")
	if got, want := r.columns(bad)[:6], []string{bad, "sha256:bbbbbbbbbbbb", "-", "Failed", "False", "SignatureMissing"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if r.columns(silent) != nil {
		t.Error("a node that has nothing to do with it is listed")
	}
	f.confine("status", "nginx", "-n", f.namespace, "-o", "wide").expect(t, ExitOK, "no signature")
}

// TestManyObjects needs several pages.
func TestManyObjects(t *testing.T) {
	f := newSite(t)
	const many = 120
	for i := range many {
		f.create(&v1alpha1.ProfileNode{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-many-%d", f.namespace, i)}})
	}
	r := f.confine("status", "nodes", "-o", "name")
	if got := strings.Count(r.out, f.namespace+"-many-"); got != many {
		t.Errorf("%d of %d nodes are listed\n%s", got, many, r.err)
	}
}

// tenant may do in its namespace what the project's docs give a tenant, and
// nothing of the cluster's.
func (f *site) tenant() string {
	f.t.Helper()
	config, err := f.env.ConfigFor("tenant-of-" + f.namespace)
	if err != nil {
		f.t.Fatal(err)
	}
	f.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "tenant"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"securityprofiles"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}},
	}})
	f.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "tenant"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "tenant-of-" + f.namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tenant"},
	})
	return f.kubeconfigOf("tenant", config)
}

func TestATenantSeesItsOwn(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	f.reports(func(p *v1alpha1.SecurityProfile) {
		stage(v1alpha1.ReasonCanary, metav1.ConditionTrue, 0)(p)
		p.Status.Failures = []v1alpha1.NodeFailure{{Node: "node-7", Digest: hexDigest("b"), Reason: "SignatureMissing", Message: "no signature"}}
	})
	tenant := f.tenant()
	f.as(tenant, "status", "-n", f.namespace).expect(t, ExitOK, "nginx")
	r := f.as(tenant, "status", f.namespace+"/nginx")
	r.expect(t, ExitOK, "warning: you may not list profilenodes.confine.dev", "SignatureMissing")
	r = f.as(tenant, "why", f.namespace+"/nginx")
	r.expect(t, ExitRefused, "you may not list trustpolicies.confine.dev", "stuck at verdict", "node-7: SignatureMissing: no signature", "cosign sign")
	for name, args := range map[string][]string{
		"list profilenodes.confine.dev":                                  {"status", "nodes"},
		"list securityprofiles.confine.dev":                              {"status", "-A"},
		"patch securityprofiles.confine.dev in namespace " + f.namespace: {"rollout", "pause", f.namespace + "/nginx"},
	} {
		f.as(tenant, args...).expect(t, ExitRefused, "error: you may not "+name, "kubectl auth can-i", "what to do: ask an administrator")
	}
}

func TestWaysToTheClusterThatFail(t *testing.T) {
	f := newSite(t)
	empty, err := apitest.Start(t.Context(), apitest.Options{CRDs: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = empty.Stop() })
	stranger := f.env.Config()
	stranger.CertData, stranger.KeyData, stranger.BearerToken = nil, nil, "not-a-token"
	away := f.env.Config()
	away.Host = "https://127.0.0.1:1"
	untrusted := f.env.Config()
	untrusted.CAData = nil
	for name, tc := range map[string]struct {
		kubeconfig string
		args       []string
		code       int
		want       []string
	}{
		"no CRDs, list":     {f.kubeconfigOf("empty", empty.Config()), []string{"status"}, ExitRefused, []string{"does not know securityprofiles.confine.dev", "install Confine"}},
		"no CRDs, get":      {f.kubeconfigOf("empty", empty.Config()), []string{"why", "web/nginx"}, ExitRefused, []string{"does not know securityprofiles.confine.dev", "install Confine"}},
		"no CRDs, nodes":    {f.kubeconfigOf("empty", empty.Config()), []string{"status", "nodes"}, ExitRefused, []string{"does not know profilenodes.confine.dev"}},
		"bad token":         {f.kubeconfigOf("stranger", stranger), []string{"status"}, ExitRefused, []string{"does not know who you are", "log in"}},
		"nobody there":      {f.kubeconfigOf("away", away), []string{"status"}, ExitRetry, []string{"cannot be reached", "connection refused", "--context"}},
		"unknown authority": {f.kubeconfigOf("untrusted", untrusted), []string{"status"}, ExitRefused, []string{"certificate", "certificate-authority"}},
		"no such context":   {f.kubeconfig, []string{"status", "--context", "nowhere"}, ExitRefused, []string{"nowhere", "get-contexts"}},
		"no such file":      {f.dir + "/nowhere", []string{"status"}, ExitRefused, []string{"nowhere"}},
		"no such profile":   {f.kubeconfig, []string{"rollout", "status", "web/absent"}, ExitRefused, []string{`SecurityProfile "web/absent" does not exist`, "status -A"}},
		"two namespaces":    {f.kubeconfig, []string{"why", "web/nginx", "-n", "db"}, ExitUsage, []string{"not in namespace db"}},
		"all and one":       {f.kubeconfig, []string{"status", "-A", "-n", "db"}, ExitUsage, []string{"exclude"}},
		"a profile with -A": {f.kubeconfig, []string{"status", "nginx", "-A"}, ExitUsage, []string{"NAMESPACE/nginx"}},
		"bad name":          {f.kubeconfig, []string{"why", "web/ng/inx"}, ExitUsage, []string{"NAMESPACE/NAME"}},
		"bad node":          {f.kubeconfig, []string{"why", "web/nginx", "../x"}, ExitUsage, []string{"no name of a node"}},
		"bad namespace":     {f.kubeconfig, []string{"status", "-n", "a/b"}, ExitUsage, []string{"no name of a namespace"}},
		"root and cluster":  {f.kubeconfig, []string{"status", "--root", "x"}, ExitUsage, []string{"--root", "--kubeconfig"}},
		"unknown output":    {f.kubeconfig, []string{"status", "-o", "xml"}, ExitUsage, []string{"json, yaml, wide, name"}},
	} {
		t.Run(name, func(t *testing.T) {
			f.as(tc.kubeconfig, tc.args...).expect(t, tc.code, tc.want...)
		})
	}
}

func TestNoClusterSaysBothWays(t *testing.T) {
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, args := range [][]string{{"status"}, {"status", "web/nginx"}, {"status", "nodes"}} {
		typed(t.Context(), args...).expect(t, ExitRefused, "no kubeconfig", "KUBECONFIG", "--kubeconfig", "status --root")
	}
	typed(t.Context(), "why", "web/nginx").expect(t, ExitRefused, "no kubeconfig", "--kubeconfig")
	typed(t.Context(), "status", "--root", t.TempDir()+"/none").expect(t, ExitRetry, "no agent has written its status here")
	typed(t.Context(), "status", "--root", "x", "-o", "wide").expect(t, ExitUsage, "json, yaml")
	typed(t.Context(), "status", "--root", "x", "nginx").expect(t, ExitUsage, "nginx")
}

func TestAsAPluginOfKubectl(t *testing.T) {
	f := newSite(t)
	f.profile(artifactOf("b"))
	run := func(args ...string) result {
		var out, errs strings.Builder
		code := Run(t.Context(), append([]string{"/usr/local/bin/kubectl-confine"}, args...), Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
		return result{code, out.String(), errs.String()}
	}
	run("rollout", "status", "--help").expect(t, ExitOK, "kubectl confine rollout status PROFILE [flags]")
	run("why").expect(t, ExitUsage, "usage: kubectl confine why PROFILE [NODE]", "see:   kubectl confine why --help")
	run("__complete", "why", "--kubeconfig", f.kubeconfig, "-n", f.namespace, "ng").expect(t, ExitOK, "nginx\n")
	run("__complete", "rollout", "undo", "--kubeconfig", f.kubeconfig, f.namespace+"/").expect(t, ExitOK, f.namespace+"/nginx\n")
}

func TestWhyOnARealServer(t *testing.T) {
	f := newSite(t)
	why := func(args ...string) result {
		return f.confine(append([]string{"why", f.namespace + "/nginx"}, args...)...)
	}
	why().expect(t, ExitRefused, "stuck at SecurityProfile", "there is no SecurityProfile")
	f.profile(artifactOf("b"))
	why().expect(t, ExitRefused, "the controller has not seen this version", "component=controller", "stuck at trust")
	f.reports(stage(v1alpha1.ReasonRollingOut, metav1.ConditionTrue, 0))
	why().expect(t, ExitRefused, "stuck at trust", "NoTrustPolicy", "ask an administrator")
	f.create(&v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}, Spec: v1alpha1.TrustPolicySpec{
		Repositories: []string{"registry.example.com/profiles/*"}, Namespaces: []string{f.namespace}, Threshold: 1,
		AllowedKinds: []string{"seccomp"}, Signers: []v1alpha1.Signer{{Name: "team", Key: &v1alpha1.KeySigner{PEM: publicKey}}},
	}})
	why().expect(t, ExitRetry, "matched by TrustPolicy "+f.namespace, "waiting at rollout")
	bad := f.node("bad", artifactOf("b"), refuses("ProfileForbidden", "it allows mount"))
	good := f.node("good", artifactOf("b"))
	why().expect(t, ExitRefused, "of 2 nodes: 1 Installed, 1 ProfileForbidden", "stuck at agent: no agent pod is on "+bad)
	for _, node := range []string{bad, good} {
		f.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{"kubernetes.io/os": "linux"}}})
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if err := f.client.Status().Update(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		f.pod("agent-"+node, node, map[string]string{"app.kubernetes.io/name": "confine", "app.kubernetes.io/component": "agent"}, func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		})
	}
	why().expect(t, ExitRefused, "stuck at verdict: ProfileForbidden: it allows mount", "what to do: make the profile stricter")
	why(good).expect(t, ExitOK, "in force on "+good, "nothing is in the way", "no pod in namespace")
	f.pod("front", good, nil, func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: "cannot load seccomp profile"},
		}}}}
	})
	why(good).expect(t, ExitRefused, "stuck at pods: front cannot start: container main: CreateContainerError: cannot load seccomp profile")
	var chain struct {
		Profile, Node, Digest, Mark, At, Reason, Advice string
		Steps                                           []struct{ Link, Mark, Message string }
	}
	r := why(bad, "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &chain); err != nil || r.code != ExitRefused {
		t.Fatalf("exit %d, %v\n%s", r.code, err, r.out)
	}
	if chain.Node != bad || chain.Mark != "stuck" || chain.At != "verdict" || chain.Reason != "ProfileForbidden" || chain.Advice == "" || len(chain.Steps) < 6 {
		t.Errorf("%+v", chain)
	}
	why("nowhere").expect(t, ExitRefused, "there is no node nowhere")
}

// publicKey signed nothing.
const publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEokQlz4DZLdfdnVKjYKFVJMREoc6u
eHwHBgT5c96ma1/VNJpYIqrfUwUP2T95rS8hsoPacYW7BJ0zJwBcbkVXDg==
-----END PUBLIC KEY-----
`

// pod makes a pod on a node that names the profile, and then sets its status.
func (f *site) pod(name, node string, labels map[string]string, status func(*corev1.Pod)) {
	f.t.Helper()
	no, local := false, "confine/"+f.namespace+"/nginx/nginx.json"
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			NodeName: node, AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{Name: "main", Image: "localhost/none"}},
		},
	}
	if labels == nil {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}}
	}
	f.create(p)
	status(p)
	if err := f.client.Status().Update(f.t.Context(), p); err != nil {
		f.t.Fatal(err)
	}
}
