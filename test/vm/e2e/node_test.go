//go:build lsm_apparmor || lsm_selinux

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

// Where things are on this machine, as on a node that runs the agent as a host
// service.
const (
	manifests = "/etc/confine/manifests"
	trust     = "/etc/confine/trust"
	state     = "/var/lib/confine"
	kubelet   = "/var/lib/kubelet"
	seccomp   = kubelet + "/seccomp/confine"
	agentLog  = "/var/log/confine-agent"

	registryAddress = "127.0.0.1:5000"
	repository      = registryAddress + "/profiles/web"

	seccompText = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","exit_group"],"action":"SCMP_ACT_ALLOW"}]}`
)

// patience bounds each wait: the machine is emulated, and has half a processor.
const patience = time.Minute

// node is this machine, with a registry beside it.
type node struct {
	t      *testing.T
	kernel kernel
	key    *sign.Key
	server *httptest.Server
	agent  *exec.Cmd
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *sign.Key {
	t.Helper()
	none := func() ([]byte, error) { return nil, nil }
	private, _, err := sign.GenerateKeyPair(none)
	must(t, err)
	key, err := sign.LoadKey(private, none)
	must(t, err)
	return key
}

// newNode is a machine on which nothing of Confine's was ever installed, whose
// administrator trusts the key.
func newNode(t *testing.T, k kernel, key *sign.Key) *node {
	t.Helper()
	n := &node{t: t, kernel: k, key: key}
	for _, folder := range []string{"/etc/confine", state, kubelet, agentLog} {
		must(t, os.RemoveAll(folder))
	}
	for _, folder := range []string{manifests, trust, kubelet, filepath.Dir(agentLog)} {
		must(t, os.MkdirAll(folder, 0o755))
	}
	k.arrange(t)
	if k.loaded(t) {
		t.Fatal("the kernel has the profile before it was installed")
	}
	must(t, os.WriteFile(trust+"/shop.yaml", fmt.Appendf(nil, `apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: shop}
spec:
  repositories: [%s]
  namespaces: [shop]
  threshold: 1
  allowedKinds: [seccomp, apparmor, selinux]
  constraints:
    selinux: {allowedTemplates: [config_container]}
  signers:
  - name: team
    key:
      pem: |
        %s
`, repository, strings.ReplaceAll(strings.TrimSpace(string(key.PublicPEM())), "\n", "\n        ")), 0o600))
	n.serveRegistry()
	t.Cleanup(n.end)
	return n
}

func (n *node) serveRegistry() {
	n.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(n.t.Context(), "tcp", registryAddress)
	must(n.t, err)
	n.server = httptest.NewUnstartedServer(ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0))))
	n.server.Listener = listener
	n.server.Start()
	n.t.Cleanup(n.server.Close)
}

// end leaves the machine as it was.
func (n *node) end() {
	if n.agent != nil {
		n.stop()
	}
	if n.kernel.loaded(n.t) {
		n.kernel.forget(n.t)
	}
	if n.t.Failed() {
		said, err := os.ReadFile(agentLog)
		n.t.Logf("the agent said (%v):\n%s", err, said)
	}
}

// push pushes an artifact with a profile of each kind, and returns it pinned.
func (n *node) push(v version, signer artifact.Signer) reference.Reference {
	n.t.Helper()
	ref, err := reference.Parse(repository + ":v1")
	must(n.t, err)
	client, err := registry.New(registry.Options{})
	must(n.t, err)
	pushed, err := artifact.Push(n.t.Context(), client, kinds.All(nil), artifact.PushRequest{
		Reference: ref, Signer: signer, Inputs: []pack.Input{
			{File: "web.json", Kind: "seccomp", Data: []byte(seccompText)},
			{File: "web.aa", Kind: "apparmor", Data: []byte(v.appArmor)},
			{File: "web.cil", Kind: "selinux", Data: []byte(v.seLinux)},
		},
	})
	must(n.t, err)
	return ref.Repository.Pinned(pushed.Digest)
}

// want writes the manifest as an editor would, and returns the digest in it.
func (n *node) want(pinned reference.Reference, spec string) digest.Digest {
	n.t.Helper()
	must(n.t, os.WriteFile(manifests+"/.new", fmt.Appendf(nil, `apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata: {namespace: shop, name: web}
spec: {artifact: "%s"%s}
`, pinned, spec), 0o600))
	must(n.t, os.Rename(manifests+"/.new", manifests+"/web.yaml"))
	return pinned.Digest
}

// start starts the agent, as root and with all kinds.
func (n *node) start(more ...string) {
	n.t.Helper()
	said, err := os.OpenFile(agentLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(n.t, err)
	defer func() { _ = said.Close() }()
	n.agent = exec.Command("confine-agent", append([]string{
		"--manifests", manifests, "--trust", trust, "--root", state, "--seccomp-root", filepath.Dir(seccomp),
		"--kinds", "seccomp,apparmor,selinux", "--removal-delay", "0s", "--resync", "5s",
	}, more...)...)
	n.agent.Stdout, n.agent.Stderr = said, said
	must(n.t, n.agent.Start())
}

func (n *node) stop() {
	n.t.Helper()
	stopping := n.agent
	n.agent = nil
	must(n.t, stopping.Process.Signal(syscall.SIGTERM))
	if err := stopping.Wait(); err != nil {
		n.t.Errorf("the agent ended with %v", err)
	}
}

// asleep does something while the agent does not notice.
func (n *node) asleep(what func()) {
	n.t.Helper()
	must(n.t, n.agent.Process.Signal(syscall.SIGSTOP))
	what()
	must(n.t, n.agent.Process.Signal(syscall.SIGCONT))
}

// errHopeless ends a wait: time alone changes nothing.
var errHopeless = errors.New("it stays so")

// eventually waits until nothing is wrong any more.
func (n *node) eventually(what string, wrong func() error) {
	n.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		err := wrong()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || errors.Is(err, errHopeless) {
			n.t.Fatalf("in vain: %s: %v", what, err)
		}
	}
}

// profileStatus is what the agent says of the profile.
func profileStatus() (status.Profile, error) {
	report, err := status.Read(state)
	if err != nil {
		return status.Profile{}, err
	}
	for _, p := range report.Profiles {
		if (p.Owner == profile.Owner{Namespace: "shop", Name: "web"}) {
			return p, nil
		}
	}
	return status.Profile{}, errGone
}

// says waits until the status is as is wants it to be, which says what is wrong.
func (n *node) says(what string, is func(p status.Profile) string) status.Profile {
	n.t.Helper()
	var last status.Profile
	n.eventually(what, func() error {
		p, err := profileStatus()
		if err != nil {
			return err
		}
		last = p
		if wrong := is(p); wrong != "" {
			return fmt.Errorf("%s: %+v", wrong, p)
		}
		return nil
	})
	return last
}

// installed waits until the digest is in force. A refusal that is for ever is
// not waited for.
func (n *node) installed(d digest.Digest) status.Profile {
	n.t.Helper()
	var last status.Profile
	n.eventually("the digest is in force", func() error {
		p, err := profileStatus()
		if err != nil {
			return err
		}
		last = p
		ready := p.Condition(status.Ready)
		switch {
		case p.WantedDigest != d:
			return fmt.Errorf("it is not wanted: %+v", p)
		case ready.Status == status.True && kindOf(p, n.kernel.kind).InstalledDigest == d:
			return nil
		case ready.Status == status.False && ready.Reason.Fate() == reason.Stalled:
			return fmt.Errorf("%w: %+v", errHopeless, p)
		}
		return fmt.Errorf("it is not: %+v", p)
	})
	return last
}

func kindOf(p status.Profile, name string) status.Kind {
	for _, k := range p.Kinds {
		if k.Name == name {
			return k
		}
	}
	return status.Kind{}
}
