package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/seccomp/compile"
	"github.com/confine-dev/confine/test/kube/apitest"
)

const (
	system    = "confine-system"
	namespace = "scale"
)

// site is everything that one run needs.
type site struct {
	options
	dir        string
	env        *apitest.Env
	api        client.Client
	server     *http.Server
	host       string
	requests   atomic.Int64
	key        *sign.Key
	artifacts  [2][]reference.Reference // two versions of each profile's artifact
	fleet      *fleet
	controller *exec.Cmd
	ended      chan error // takes how the controller ended
	began      time.Time  // of the controller
}

func build(ctx context.Context, dir string, o options) (*site, error) {
	s := &site{options: o, dir: dir}
	for _, step := range []func(context.Context) error{s.startAPI, s.startRegistry, s.push, s.makeNodes, s.startController, s.startFleet} {
		if err := step(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *site) close() {
	if s.fleet != nil {
		if err := s.fleet.close(); err != nil {
			fmt.Fprintln(os.Stderr, "scale: an agent:", err)
		}
	}
	if s.controller != nil {
		_ = s.controller.Process.Signal(syscall.SIGTERM)
		if err := <-s.ended; err != nil {
			fmt.Fprintln(os.Stderr, "scale: the controller:", err)
		}
	}
	if s.server != nil {
		_ = s.server.Close()
	}
	if s.env != nil {
		_ = s.env.Stop()
	}
}

func (s *site) startAPI(ctx context.Context) (err error) {
	if s.env, err = apitest.Start(ctx, apitest.Options{}); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	config := s.env.Config()
	config.QPS = -1
	s.api, err = client.New(config, client.Options{Scheme: scheme})
	return err
}

func (s *site) startRegistry(context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.host = listener.Addr().String()
	backend := ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		backend.ServeHTTP(w, r)
	})}
	go func() { _ = s.server.Serve(listener) }()
	return nil
}

// push makes two signed artifacts a profile: white space makes their bytes differ.
func (s *site) push(ctx context.Context) error {
	none := func() ([]byte, error) { return nil, nil }
	private, _, err := sign.GenerateKeyPair(none)
	if err != nil {
		return err
	}
	if s.key, err = sign.LoadKey(private, none); err != nil {
		return err
	}
	to, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	base, err := os.ReadFile("examples/profiles/nginx.json")
	if err != nil {
		return err
	}
	for i := range 2 * s.profiles {
		ref, err := reference.Parse(fmt.Sprintf("%s/profiles/p%d:%d", s.host, i/2, i%2))
		if err != nil {
			return err
		}
		payload := append([]byte(nil), base...)
		payload = append(payload, fmt.Sprintf("%*s\n", i+1, "")...)
		done, err := artifact.Push(ctx, to, kinds.All(compile.Resolver()), artifact.PushRequest{
			Reference: ref, Inputs: []pack.Input{{File: "nginx.json", Data: payload}}, Signer: s.key,
		})
		if err != nil {
			return err
		}
		ref.Digest, ref.Tag = done.Digest, ""
		s.artifacts[i%2] = append(s.artifacts[i%2], ref)
	}
	return nil
}

// makeNodes makes Nodes that are Ready and on each a Pod of the agent that is.
func (s *site) makeNodes(ctx context.Context) error {
	for _, name := range []string{system, namespace} {
		if err := s.api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "default"}}
	if err := s.api.Create(ctx, account); err != nil {
		return err
	}
	return inParallel(s.nodes, func(i int) error { return s.makeNode(ctx, nodeName(i)) })
}

func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

func (s *site) makeNode(ctx context.Context, name string) error {
	ready := metav1.Now()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux"}}}
	if err := s.api.Create(ctx, node); err != nil {
		return err
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: ready}}
	node.Status.NodeInfo.OperatingSystem = "linux"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "confine-agent-" + name, Labels: map[string]string{
			"app.kubernetes.io/name": "confine", "app.kubernetes.io/component": "agent",
		}},
		Spec: corev1.PodSpec{NodeName: name, Containers: []corev1.Container{{Name: "agent", Image: "confine"}}},
	}
	if err := errors.Join(s.api.Status().Update(ctx, node), s.api.Create(ctx, pod)); err != nil {
		return err
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ready}}
	return s.api.Status().Update(ctx, pod)
}

func (s *site) startController(ctx context.Context) error {
	kubeconfig, err := apitest.Kubeconfig(s.env.Config())
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.options.controller, "--kubeconfig", file, "--namespace", system,
		"--leader-elect=false", "--health-address", "") // alone, beside others on this machine
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logged, err := os.Create(filepath.Join(s.dir, "controller.log"))
	if err != nil {
		return err
	}
	defer func() { _ = logged.Close() }()
	cmd.Stdout, cmd.Stderr = logged, logged
	if s.verbose {
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.controller, s.began = cmd, time.Now()
	s.ended = make(chan error, 1)
	go func() { s.ended <- cmd.Wait() }()
	return s.until(ctx, "a ProfileNode for each node", func() (bool, error) {
		var list v1alpha1.ProfileNodeList
		err := s.api.List(ctx, &list)
		return len(list.Items) == s.nodes, err
	})
}

func (s *site) startFleet(ctx context.Context) error {
	policy := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "scale"}, Spec: v1alpha1.TrustPolicySpec{
		Repositories: []string{s.host + "/profiles/*"}, Namespaces: []string{namespace}, Threshold: 1, AllowedKinds: []string{"seccomp"},
		Signers: []v1alpha1.Signer{{Name: "scale", Key: &v1alpha1.KeySigner{PEM: string(s.key.PublicPEM())}}},
	}}
	if err := s.api.Create(ctx, policy); err != nil {
		return err
	}
	var err error
	if s.fleet, err = startFleet(ctx, s.env.Config(), s.dir, s.nodes); err != nil {
		return err
	}
	return s.until(ctx, "the first report of each node", func() (bool, error) {
		var list v1alpha1.ProfileNodeList
		if err := s.api.List(ctx, &list); err != nil {
			return false, err
		}
		silent := slices.ContainsFunc(list.Items, func(n v1alpha1.ProfileNode) bool { return n.Status == nil })
		return !silent, nil
	})
}

// errStopped: it makes no sense to wait longer.
var errStopped = errors.New("a rollout stopped")

// until asks again until done, and names what it waited for where the
// controller ended meanwhile.
func (s *site) until(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || errors.Is(err, errStopped) {
			return err
		}
		// Another error is one of an API server that has too much to do.
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w\n%s", what, errors.Join(ctx.Err(), err), s.lastLog())
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("waiting for %s: the controller ended: %w\n%s", what, err, s.lastLog())
		case <-tick.C:
		}
	}
}

func (s *site) lastLog() string {
	data, err := os.ReadFile(filepath.Join(s.dir, "controller.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(data), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
