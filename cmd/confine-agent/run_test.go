//go:build linux && cgo && libseccomp

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
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

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/node/telemetry"
	"github.com/confine-dev/confine/pkg/profile/kinds"
)

const profileText = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","exit_group"],"action":"SCMP_ACT_ALLOW"}]}`

// site is a registry on loopback and a machine that pulls from it.
type site struct {
	t        *testing.T
	dir      string
	server   *httptest.Server
	requests atomic.Int64
	key      *sign.Key
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	backend := ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	none := func() ([]byte, error) { return nil, nil }
	private, _, err := sign.GenerateKeyPair(none)
	s.must(err)
	s.key, err = sign.LoadKey(private, none)
	s.must(err)
	for _, folder := range []string{"manifests", "trust"} {
		s.must(os.Mkdir(filepath.Join(s.dir, folder), 0o700))
	}
	s.write("trust/web.yaml", fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: web}
spec:
  repositories: [%s/profiles/*]
  namespaces: [web]
  threshold: 1
  allowedKinds: [seccomp]
  signers:
  - name: team
    key:
      pem: |
        %s
`, s.host(), strings.ReplaceAll(strings.TrimSpace(string(s.key.PublicPEM())), "\n", "\n        ")))
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) host() string { return s.server.Listener.Addr().String() }

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, content string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(content), 0o600))
}

func (s *site) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name))
	s.must(err)
	return string(data)
}

// push pushes a profile and wants it under a name.
func (s *site) push(name, text string, signer artifact.Signer) {
	s.t.Helper()
	s.pushInputs(name, signer, "", pack.Input{File: name + ".json", Kind: "seccomp", Data: []byte(text)})
}

// pushInputs pushes an artifact and wants it under a name; extra is more of the
// manifest's spec.
func (s *site) pushInputs(name string, signer artifact.Signer, extra string, inputs ...pack.Input) {
	s.t.Helper()
	ref, err := reference.Parse(s.host() + "/profiles/" + name + ":v1")
	s.must(err)
	client, err := registry.New(registry.Options{})
	s.must(err)
	pushed, err := artifact.Push(s.t.Context(), client, kinds.All(nil), artifact.PushRequest{
		Reference: ref, Inputs: inputs, Signer: signer,
	})
	s.must(err)
	s.write("manifests/"+name+".yaml", fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata: {namespace: web, name: %s}
spec:
  artifact: "%s"%s
`, name, ref.Repository.Pinned(pushed.Digest), extra))
}

// agent runs the command line with this site's folders.
func (s *site) agent(ctx context.Context, env map[string]string, args ...string) (int, string) {
	var errs lockedBuffer
	args = append([]string{"--manifests", s.path("manifests"), "--trust", s.path("trust"), "--root", s.path("root")}, args...)
	code := run(ctx, args, process{out: io.Discard, err: &errs, pid: os.Getpid(), lookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }})
	return code, errs.String()
}

func (s *site) installed(name string) string {
	data, err := os.ReadFile(s.path(filepath.Join("root/seccomp/confine/web", name, name+".json")))
	if err != nil {
		return ""
	}
	return string(data)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestOnceInstallsAndHoldsWithoutTheRegistry(t *testing.T) {
	s := newSite(t)
	s.push("nginx", profileText, s.key)
	s.requests.Store(0)
	if code, errs := s.agent(t.Context(), nil, "--once"); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if got := s.installed("nginx"); got != profileText {
		t.Fatalf("installed is %q", got)
	}
	// Ping, manifest, referrers, the bundle's manifest, the bundle, the payload.
	if got := s.requests.Load(); got > 6 {
		t.Errorf("%d requests for one cold artifact", got)
	}
	s.requests.Store(0)
	s.must(os.RemoveAll(s.path("root/seccomp")))
	if code, errs := s.agent(t.Context(), nil, "--once"); code != exitOK || s.requests.Load() != 0 {
		t.Errorf("after a restart: exit code %d, %d requests: %s", code, s.requests.Load(), errs)
	}
	s.server.Close()
	s.must(os.RemoveAll(s.path("root/seccomp")))
	if code, errs := s.agent(t.Context(), nil, "--once"); code != exitOK {
		t.Errorf("without the registry: exit code %d: %s", code, errs)
	}
	if got := s.installed("nginx"); got != profileText {
		t.Errorf("without the registry %q is installed", got)
	}
}

// pushAll pushes an artifact of all kinds and wants it.
func (s *site) pushAll(name, extra string) {
	s.t.Helper()
	s.write("trust/web.yaml", strings.Replace(s.read("trust/web.yaml"), "[seccomp]", "[seccomp, apparmor, selinux]", 1))
	s.pushInputs(name, s.key, extra,
		pack.Input{File: name + ".json", Kind: "seccomp", Data: []byte(profileText)},
		pack.Input{File: name + ".aa", Kind: "apparmor", Data: []byte("profile confine.web." + name + " flags=(attach_disconnected) {\n  /etc/" + name + ".conf r,\n}\n")},
		pack.Input{File: name + ".cil", Kind: "selinux", Data: []byte("(block confine_web_" + name + "\n  (blockinherit container)\n)\n")})
}

func TestOnceWithKindsThatTheMachineLacks(t *testing.T) {
	s := newSite(t)
	s.pushAll("nginx", "")
	args := []string{"--once", "--kinds", "seccomp,apparmor,selinux", "--host-root", t.TempDir()}
	if code, errs := s.agent(t.Context(), nil, args...); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if got := s.installed("nginx"); got != profileText {
		t.Errorf("installed is %q", got)
	}
	report, err := status.Read(s.path("root"))
	s.must(err)
	for _, k := range report.Profiles[0].Kinds {
		if (k.Reason == "KindUnsupported") != (k.Name != "seccomp") {
			t.Errorf("%+v", k)
		}
	}
	if len(report.Kinds) != 3 || len(report.Profiles[0].Kinds) != 3 {
		t.Errorf("the node's kinds are %+v, the profile's %+v", report.Kinds, report.Profiles[0].Kinds)
	}
	s.pushAll("nginx", "\n  kinds: Required")
	if code, errs := s.agent(t.Context(), nil, args...); code != exitRefused || !strings.Contains(errs, "KindUnsupported") {
		t.Errorf("all required: exit code %d: %s", code, errs)
	}
	if got := s.installed("nginx"); got != profileText {
		t.Errorf("what was installed is %q", got)
	}
}

func TestOnceRefuses(t *testing.T) {
	s := newSite(t)
	s.push("unsigned", profileText, nil)
	s.push("open", `{"defaultAction":"SCMP_ACT_ALLOW"}`, s.key)
	code, errs := s.agent(t.Context(), nil, "--once")
	if code != exitRefused || !strings.Contains(errs, "SignatureMissing") || !strings.Contains(errs, "ProfileForbidden") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, err := os.Stat(s.path("root/seccomp")); !os.IsNotExist(err) {
		t.Errorf("something was written to the seccomp folder: %v", err)
	}
	report, err := status.Read(s.path("root"))
	s.must(err)
	for _, p := range report.Profiles {
		if c := p.Condition(status.Ready); c.Status != status.False {
			t.Errorf("%s: %+v", p.Owner, c)
		}
	}
}

func TestRunFollowsTheFoldersUntilItIsStopped(t *testing.T) {
	s := newSite(t)
	socket := filepath.Join(s.dir, "notify")
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", socket)
	s.must(err)
	defer func() { _ = conn.Close() }()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan string, 1)
	go func() {
		code, errs := s.agent(ctx, map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "100000"})
		ended <- fmt.Sprintf("%d %s", code, errs)
	}()
	s.must(conn.SetReadDeadline(time.Now().Add(time.Minute)))
	awaitState(t, conn, "READY=1")
	s.push("nginx", profileText, s.key)
	for s.installed("nginx") != profileText {
		awaitState(t, conn, "WATCHDOG=1") // comes twenty times a second; the deadline ends it
	}
	stop()
	awaitState(t, conn, "STOPPING=1")
	if got := <-ended; !strings.HasPrefix(got, "0 ") {
		t.Errorf("it ended with %s", got)
	}
}

// TestASlowStartIsNoHangingOne: while what was installed is asserted, the
// service manager waits on.
func TestASlowStartIsNoHangingOne(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "60000000"}
	p := process{pid: os.Getpid(), lookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
	every, notify := flags{}.notify(t.Context(), p, slog.New(slog.DiscardHandler), telemetry.New(func() bool { return true }))
	if every <= 0 || every > 30*time.Second {
		t.Errorf("it says every %v that it is alive", every)
	}
	for _, c := range [][2]string{
		{agent.StateAlive, fmt.Sprintf("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=%d", (2 * every).Microseconds())},
		{agent.StateReady, "READY=1"}, {agent.StateAlive, "WATCHDOG=1"},
	} {
		notify(c[0])
		awaitState(t, conn, c[1])
	}
}

func awaitState(t *testing.T, conn net.PacketConn, want string) {
	t.Helper()
	buffer := make([]byte, 100)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if string(buffer[:n]) == want {
			return
		}
	}
}
