package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/confine-dev/confine/test/kube/apitest"
	"github.com/confine-dev/confine/test/tools"
)

const (
	namespace = "confine-system"
	shared    = "base"
	own       = "web"
	timeout   = time.Minute
	every     = 50 * time.Millisecond
)

// server is one API server on which the chart is installed, with the namespace
// base shared, for all tests that change nothing of the installation.
var server *cluster

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if server, err = start(context.Background()); err == nil {
			err = server.install()
		}
		code := 1
		if err == nil {
			code = m.Run()
		}
		if server != nil {
			err = errors.Join(err, server.stop())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// cluster is an API server without CRDs, and helm and kubectl for it.
type cluster struct {
	*apitest.Env
	helm, dir string
	kube      kubernetes.Interface
	any       dynamic.Interface
}

func start(ctx context.Context) (*cluster, error) {
	helm, err := tools.Path(ctx, "helm")
	if err != nil {
		return nil, err
	}
	env, err := apitest.Start(ctx, apitest.Options{CRDs: []string{}})
	if err != nil {
		return nil, err
	}
	c := &cluster{Env: env, helm: helm}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, env.Stop())
	}
	return c, nil
}

func (c *cluster) prepare() error {
	var err error
	if c.dir, err = os.MkdirTemp("", "confine-deploy-"); err != nil {
		return err
	}
	config, err := apitest.Kubeconfig(c.Config())
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.kubeconfig(), config, 0o600); err != nil {
		return err
	}
	c.kube, c.any, err = clients(c.Config())
	if err != nil {
		return err
	}
	for _, name := range []string{own, shared, "other", "shop", "shop-eu"} {
		if err := c.makeNamespace(name); err != nil {
			return err
		}
	}
	return nil
}

func clients(config *rest.Config) (kubernetes.Interface, dynamic.Interface, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	return kube, objects, err
}

func (c *cluster) makeNamespace(name string) error {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
	}}
	_, err := c.any.Resource(resource("", "v1", "namespaces")).Create(context.Background(), object, metav1.CreateOptions{})
	return err
}

func (c *cluster) kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

func (c *cluster) stop() error { return errors.Join(c.Stop(), os.RemoveAll(c.dir)) }

// install is what TestMain needs: the chart installed, its policies in force.
func (c *cluster) install() error {
	if out, err := c.runHelm("install", "confine", chart(), "--namespace", namespace, "--create-namespace",
		"--set", "admission.sharedNamespaces={"+shared+"}"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return c.waitForPolicies(context.Background())
}

// waitForPolicies waits until the API server, which reads policies behind the
// writer's back, acts on both.
func (c *cluster) waitForPolicies(ctx context.Context) error {
	foreign := pod("seccomp", "spec", "confine/other/a/a.json")
	return wait.PollUntilContextTimeout(ctx, every, timeout, true, func(ctx context.Context) (bool, error) {
		_, err := c.any.Resource(resource("", "v1", "pods")).Namespace(own).Create(ctx, foreign, dryRun())
		return deniedBy(err, "confine-tenants"), nil
	})
}

// runHelm runs helm with nothing of the user's configuration.
func (c *cluster) runHelm(args ...string) (string, error) {
	return run(c.dir, c.helm, append(args, "--kubeconfig", c.kubeconfig())...)
}

func (c *cluster) runKubectl(args ...string) (string, error) {
	return run(c.dir, c.Kubectl(), append(args, "--kubeconfig", c.kubeconfig(), "--cache-dir", filepath.Join(c.dir, "cache"))...)
}

func run(home, program string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// must fails the test with a program's output.
func must(t *testing.T) func(string, error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
}

func chart() string { return filepath.Join("..", "..", "deploy", "chart", "confine") }

func manifests() string { return filepath.Join("..", "..", "deploy", "manifests", "confine.yaml") }

func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

func confine(name string) schema.GroupVersionResource {
	return resource("confine.dev", "v1alpha1", name)
}

func dryRun() metav1.CreateOptions {
	return metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
}
