package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	release     = "confine"
	caConfigMap = "registry-ca"
	caKey       = "ca.crt"
	credentials = "registry-credentials"
	helmTimeout = "3m"
)

// Install installs Confine from its chart, with the lab's image and certificate
// authority, and waits until every agent and controller is ready.
func (l *Lab) Install(ctx context.Context) error {
	if err := l.makeNamespace(ctx); err != nil {
		return err
	}
	repository, tag, _ := strings.Cut(l.image, ":")
	args := []string{
		"install", release, l.root(chartFolder), "--namespace", Namespace, "--wait", "--timeout", helmTimeout,
		"--set-string", "image.repository=" + repository, "--set-string", "image.tag=" + tag,
		"--set-string", "image.pullPolicy=Never",
		"--set-string", "registry.ca.configMapName=" + caConfigMap,
		"--set-string", "registry.credentials.secretName=" + credentials,
	}
	if l.options.RemovalDelay > 0 {
		args = append(args, "--set-string", "agent.removalDelay="+l.options.RemovalDelay.String())
	}
	_, err := l.Helm(ctx, args...)
	return err
}

// Configure changes values of what Install installed, such as "agent.uid=7", on
// all nodes at once, and waits until every agent and controller is ready.
func (l *Lab) Configure(ctx context.Context, values ...string) error {
	args := []string{
		"upgrade", release, l.root(chartFolder), "--namespace", Namespace, "--wait", "--timeout", helmTimeout,
		"--reuse-values", "--set-string", "agent.maxUnavailable=100%",
	}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	_, err := l.Helm(ctx, args...)
	return err
}

// Uninstall uninstalls Confine as a person would.
func (l *Lab) Uninstall(ctx context.Context) error {
	_, err := l.Helm(ctx, "uninstall", release, "--namespace", Namespace, "--wait", "--timeout", helmTimeout)
	return err
}

// Helm runs helm as an administrator of the cluster.
func (l *Lab) Helm(ctx context.Context, args ...string) (string, error) {
	cmd := l.Cluster.Command(ctx, l.helm, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Cluster.Kubeconfig(),
		"HELM_CACHE_HOME="+l.file("helm", "cache"), "HELM_CONFIG_HOME="+l.file("helm", "config"), "HELM_DATA_HOME="+l.file("helm", "data"))
	return output(cmd)
}

// Kubectl runs kubectl as an administrator and returns what it printed.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return output(l.Cluster.Kubectl(ctx, args...))
}

// makeNamespace makes what the chart does not: the namespace, since helm does
// not label the one that it makes, the registry's certificate authority, and
// credentials.
func (l *Lab) makeNamespace(ctx context.Context) error {
	authority, err := os.ReadFile(l.Registry.CAFile)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "privileged",
	}}}
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: caConfigMap},
		Data:       map[string]string{caKey: string(authority)},
	}
	password, err := os.ReadFile(l.Registry.DockerConfig)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: credentials},
		Type:       corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: password},
	}
	for _, err := range []error{l.Client.Create(ctx, namespace), l.Client.Create(ctx, config), l.Client.Create(ctx, secret)} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("preparing namespace %s: %w", Namespace, err)
		}
	}
	return nil
}

// ExitCode is that of a program that ended with an error; -1 where it did not run.
func ExitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
