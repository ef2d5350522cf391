//go:build linux && cgo && libseccomp

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/confine-dev/confine/api/v1alpha1"
	"github.com/confine-dev/confine/test/kube/apitest"
)

// freeAddress is an address on loopback that nobody serves now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// ask returns what an address answers, and 0 where nobody does.
func (s *site) ask(url string) (int, string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil)
	s.must(err)
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	s.must(err)
	return response.StatusCode, string(body)
}

func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-ticker.C {
		if time.Now().After(deadline) {
			s.t.Fatalf("in vain: %s", what)
		}
	}
}

// TestRunFollowsACluster lets the command line follow a real API server.
func TestRunFollowsACluster(t *testing.T) {
	s := newSite(t)
	env := apitest.New(t)
	kubeconfig, err := apitest.Kubeconfig(env.Config())
	s.must(err)
	s.write("kubeconfig", string(kubeconfig))
	health, metrics := freeAddress(t), freeAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan string, 1)
	go func() {
		var errs lockedBuffer
		code := run(ctx, []string{
			"--root", s.path("root"), "--kubeconfig", s.path("kubeconfig"), "--health-address", health, "--metrics-address", metrics, "--log-format", "json",
		}, process{out: io.Discard, err: &errs, pid: os.Getpid(), lookupEnv: func(k string) (string, bool) { return "n1", k == "NODE_NAME" }})
		ended <- fmt.Sprintf("%d %s", code, errs.String())
	}()
	s.until("it is alive", func() bool { code, _ := s.ask("http://" + health + "/healthz"); return code == http.StatusOK })
	if code, why := s.ask("http://" + health + "/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("it is ready without a ProfileNode: %d %s", code, why)
	}

	s.push("nginx", profileText, s.key)
	policy, err := os.ReadFile(s.path("trust/web.yaml"))
	s.must(err)
	s.must(apitest.Apply(t.Context(), env.Config(), policy))
	manifest, err := os.ReadFile(s.path("manifests/nginx.yaml"))
	s.must(err)
	_, artifact, _ := strings.Cut(string(manifest), `artifact: "`)
	artifact, _, _ = strings.Cut(artifact, `"`)
	s.must(apitest.Apply(t.Context(), env.Config(), fmt.Appendf(nil, `apiVersion: confine.dev/v1alpha1
kind: ProfileNode
metadata: {name: n1}
spec:
  profiles:
  - {namespace: web, name: nginx, uid: u, artifact: "%s"}
`, artifact)))
	s.until("it is ready", func() bool { code, _ := s.ask("http://" + health + "/readyz"); return code == http.StatusOK })
	s.until("it is installed", func() bool { return s.installed("nginx") == profileText })
	s.until("it is reported", func() bool { return bytes.Contains(statusOf(t, env, "n1"), []byte(`"state":"Installed"`)) })
	if code, body := s.ask("http://" + metrics + "/metrics"); code != http.StatusOK || !strings.Contains(body, "confine_agent_synced 1") {
		t.Errorf("metrics: %d %s", code, body)
	}
	stop()
	got := <-ended
	if !strings.HasPrefix(got, "0 ") {
		t.Errorf("it ended with %s", got)
	}
	for line := range strings.Lines(strings.TrimPrefix(got, "0 ")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
}

func statusOf(t *testing.T, env *apitest.Env, node string) []byte {
	t.Helper()
	api, err := dynamic.NewForConfig(env.Config())
	if err != nil {
		t.Fatal(err)
	}
	object, err := api.Resource(v1alpha1.SchemeGroupVersion().WithResource("profilenodes")).Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
