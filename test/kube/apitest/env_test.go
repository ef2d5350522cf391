package apitest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/test/kube/apitest"
)

// Phases of TestKilledProcessLeavesNothing, which runs this binary again.
const phaseEnv = "CONFINE_APITEST_HOLD"

func TestServer(t *testing.T) {
	ctx := t.Context()
	env := apitest.New(t)
	admin := client(t, env.Config())

	version, err := admin.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion != "v1.37.2" || version.Minor != "37" {
		t.Errorf("the server calls itself %s (minor %s), want the pinned v1.37.2", version.GitVersion, version.Minor)
	}

	t.Run("CRDs are served", func(t *testing.T) {
		resources, err := admin.Discovery().ServerResourcesForGroupVersion("confine.dev/v1alpha1")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(resources.APIResources, func(r metav1.APIResource) bool { return r.Kind == "SecurityProfile" }) {
			t.Errorf("no SecurityProfile in %v", resources.APIResources)
		}
	})
	t.Run("RBAC denies who has no role", func(t *testing.T) {
		nobody, err := env.ConfigFor("nobody", "nowhere")
		if err != nil {
			t.Fatal(err)
		}
		wantUser(t, nobody, authenticationv1.UserInfo{Username: "nobody", Groups: []string{"nowhere", "system:authenticated"}})
		wantMayList(t, nobody, false)
		if err := apitest.Apply(ctx, env.Config(), []byte(roleFor("nobody"))); err != nil {
			t.Fatal(err)
		}
		// Authorisation follows its watch.
		waitFor(t, "the role to count", func() bool { return list(t.Context(), client(t, nobody)) == nil })
	})
	t.Run("token of an agent", func(t *testing.T) { agentToken(t, env) })
	t.Run("apply", func(t *testing.T) { apply(t, env) })
	t.Run("kubectl", func(t *testing.T) {
		file := t.TempDir() + "/kubeconfig"
		data, err := apitest.Kubeconfig(env.Config())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(ctx, env.Kubectl(), "--kubeconfig", file, "auth", "whoami", "-o", "name").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Run("restart keeps address, objects and credentials", func(t *testing.T) { restart(t, env) })
}

func agentToken(t *testing.T, env *apitest.Env) {
	token, err := env.AgentToken(t.Context(), "agents", "agent", "node-7")
	if err != nil {
		t.Fatal(err)
	}
	agent := env.ConfigForToken(token)
	review := whoAmI(t, agent)
	if want := "system:serviceaccount:agents:agent"; review.Username != want {
		t.Errorf("the token is of %s, want %s", review.Username, want)
	}
	for key, want := range map[string]string{
		"authentication.kubernetes.io/node-name": "node-7",
		"authentication.kubernetes.io/pod-name":  "agent-node-7",
	} {
		if diff := cmp.Diff(authenticationv1.ExtraValue{want}, review.Extra[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	wantMayList(t, agent, false)

	second, err := env.AgentToken(t.Context(), "agents", "agent", "node-8")
	if err != nil {
		t.Fatal(err)
	}
	got := whoAmI(t, env.ConfigForToken(second)).Extra["authentication.kubernetes.io/node-name"]
	if diff := cmp.Diff(authenticationv1.ExtraValue{"node-8"}, got); diff != "" {
		t.Errorf("node of the second token (-want +got):\n%s", diff)
	}
}

func apply(t *testing.T, env *apitest.Env) {
	dir := t.TempDir()
	files := map[string]string{
		"1.yaml":    "apiVersion: v1\nkind: Namespace\nmetadata: {name: applied}\n---\n---\n# nothing\n",
		"2.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: applied}\ndata: {a: b}\n",
		"3.yml":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: here}\n",
		"NOTES.txt": "no manifest",
	}
	for name, text := range files {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: apply changes what is there.
	for range 2 {
		if err := apitest.ApplyFiles(t.Context(), env.Config(), dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client(t, env.Config()).CoreV1().ConfigMaps("applied").Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "b"}, got.Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if _, err := client(t, env.Config()).CoreV1().ConfigMaps("default").Get(t.Context(), "here", metav1.GetOptions{}); err != nil {
		t.Errorf("an object without a namespace: %v", err)
	}

	refused := map[string]string{
		"not YAML":     "a: [",
		"unknown kind": "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n",
		"refused":      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: gone}\n",
	}
	for name, manifest := range refused {
		if err := apitest.Apply(t.Context(), env.Config(), []byte(manifest)); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
	if err := apitest.ApplyFiles(t.Context(), env.Config(), t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder without manifests: %v", err)
	}
}

func restart(t *testing.T, env *apitest.Env) {
	ctx := t.Context()
	admin := client(t, env.Config())
	token, err := env.AgentToken(ctx, "outage", "agent", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := env.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := list(ctx, admin); err == nil {
		t.Error("a stopped server answers")
	}
	if err := env.StartAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().ServiceAccounts("outage").Get(ctx, "agent", metav1.GetOptions{}); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	if got := whoAmI(t, env.ConfigForToken(token)).Username; !strings.HasSuffix(got, ":outage:agent") {
		t.Errorf("the old token is of %q", got)
	}
	if err := env.RestartAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := list(ctx, admin); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	tests := map[string]struct {
		options apitest.Options
		want    string
	}{
		"no CRDs there": {apitest.Options{CRDs: []string{"gone"}}, "gone"},
		"unknown flag":  {apitest.Options{Flags: map[string]string{"no-such-flag": "1"}}, "unknown flag: --no-such-flag"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			env, err := apitest.Start(t.Context(), tc.options)
			if err == nil {
				t.Fatal(errors.Join(errors.New("started"), env.Stop()))
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not tell about %q", err, tc.want)
			}
			wantNoFolder(t)
		})
	}
}

// TestKilledProcessLeavesNothing kills a process with a running server: the
// server dies with it, and the next start removes its folder.
func TestKilledProcessLeavesNothing(t *testing.T) {
	if os.Getenv(phaseEnv) != "" {
		holdServer(t)
		return
	}
	t.Setenv("TMPDIR", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(cmd.Environ(), phaseEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var host, etcd string
	if _, err := fmt.Fscan(out, &host, &etcd); err != nil {
		t.Fatal(err)
	}
	if !answers(t, host) || !answers(t, etcd) {
		t.Fatal("the server does not listen while its process lives")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	waitFor(t, "the servers to end", func() bool { return !answers(t, host) && !answers(t, etcd) })

	env, err := apitest.Start(t.Context(), apitest.Options{CRDs: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	wantNoFolder(t)
}

// holdServer starts a server, says where, and waits to be killed.
func holdServer(t *testing.T) {
	env, err := apitest.Start(t.Context(), apitest.Options{CRDs: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(env.Config().Host, env.EtcdURL())
	<-time.After(time.Minute)
}

func roleFor(user string) string {
	return `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [namespaces], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ` + user + `}]
`
}

func client(t *testing.T, c *rest.Config) kubernetes.Interface {
	t.Helper()
	made, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func list(ctx context.Context, c kubernetes.Interface) error {
	_, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	return err
}

func wantMayList(t *testing.T, c *rest.Config, want bool) {
	t.Helper()
	err := list(t.Context(), client(t, c))
	if want && err != nil || !want && !apierrors.IsForbidden(err) {
		t.Errorf("listing namespaces: %v, want allowed: %t", err, want)
	}
}

func whoAmI(t *testing.T, c *rest.Config) authenticationv1.UserInfo {
	t.Helper()
	review, err := client(t, c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func wantUser(t *testing.T, c *rest.Config, want authenticationv1.UserInfo) {
	t.Helper()
	got := whoAmI(t, c)
	got.Extra = nil // names the certificate
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
}

func wantNoFolder(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			t.Errorf("%s is left over", entry.Name())
		}
	}
}

// answers tells whether anybody listens at the address of a URL.
func answers(t *testing.T, address string) bool {
	t.Helper()
	_, host, _ := strings.Cut(strings.TrimSuffix(address, "/"), "://")
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", host)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
