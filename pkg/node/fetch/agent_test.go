package fetch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

const profileText = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","exit_group"],"action":"SCMP_ACT_ALLOW"}]}`

// theKey makes one key for all tests: encrypting one takes a second.
var theKey = sync.OnceValues(func() (*sign.Key, error) {
	none := func() ([]byte, error) { return nil, nil }
	private, _, err := sign.GenerateKeyPair(none)
	if err != nil {
		return nil, err
	}
	return sign.LoadKey(private, none)
})

// machine is one that trusts theKey for what a registry has.
type machine struct {
	*source
	dir string
	key *sign.Key
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	key, err := theKey()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{source: newSource(t), dir: t.TempDir(), key: key}
	for _, folder := range []string{"manifests", "trust"} {
		if err := os.Mkdir(filepath.Join(m.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.write(t, "trust/web.yaml", fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: web}
spec:
  repositories: [%s/team/*]
  namespaces: [web]
  threshold: 1
  allowedKinds: [seccomp]
  signers:
  - name: team
    key:
      pem: |
        %s
`, m.repo.Host, strings.ReplaceAll(strings.TrimSpace(string(key.PublicPEM())), "\n", "\n        ")))
	return m
}

func (m *machine) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wants pushes a profile, signed, and makes it the one that is wanted.
func (m *machine) wants(t testing.TB, text string) digest.Digest {
	t.Helper()
	pushed, err := artifact.Push(t.Context(), m.client, kinds.All(nil), artifact.PushRequest{
		Reference: m.repo.Tagged("v1"), Inputs: []pack.Input{{File: "nginx.json", Kind: "seccomp", Data: []byte(text)}}, Signer: m.key,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "manifests/nginx.yaml", fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata: {namespace: web, name: nginx}
spec: {artifact: "%s"}
`, m.repo.Pinned(pushed.Digest)))
	return pushed.Digest
}

// once lets an agent converge, and returns what it says of the profile.
func (m *machine) once(t testing.TB, host *profiletest.MemoryHost, remote artifact.Fetcher) status.Profile {
	t.Helper()
	options := agent.Options{
		Root: filepath.Join(m.dir, "root"), Hosts: []profile.Host{host}, Remote: remote, PullTimeout: 1500 * time.Millisecond,
		Source: agent.Folders{
			Manifests: filepath.Join(m.dir, "manifests"), TrustDir: filepath.Join(m.dir, "trust"),
			Puller: artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)}),
		},
		FreeMemory: func() {}, Log: slog.New(slog.DiscardHandler),
	}
	var a *agent.Agent
	// A child of another test that is just being started has the lock of the agent before
	// open, too, until it has become another program.
	eventually(t, "the lock is free", func() bool {
		var err error
		a, err = agent.New(options)
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatal(err)
		}
		return err == nil
	})
	report, err := a.Once(t.Context())
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	if len(report.Profiles) != 1 {
		t.Fatalf("the report has %d profiles", len(report.Profiles))
	}
	return report.Profiles[0]
}

// Whatever a malicious child does with manifests, blobs or signatures: what is
// installed stays, and what it was asked for is not had. Where it offers
// signatures, they are those that do not count.
func TestMaliciousChildOnlyWithholds(t *testing.T) {
	hows := []string{
		"nonsense", "other bytes", "endless bytes", "half the bytes", "no bytes", "silent hang", "closed", "killed", "control", "end",
		"endless candidates", "endless same candidates", "endless skips", "endless questions", "a file for an answer",
	}
	for _, r := range reason.All() {
		hows = append(hows, "says "+string(r))
	}
	unsigned := []reason.Reason{reason.SignatureMissing, reason.SignatureInvalid}
	for _, asked := range []string{askManifest, askBlob, askSignatures} {
		t.Run(asked, func(t *testing.T) {
			for _, how := range hows {
				t.Run(how, func(t *testing.T) {
					t.Parallel()
					m, host := newMachine(t), profiletest.NewMemoryHost("seccomp")
					first := m.wants(t, profileText)
					if got := m.once(t, host, m.client); got.InstalledDigest != first {
						t.Fatalf("by an honest registry: %+v", got)
					}
					second := m.wants(t, strings.Replace(profileText, `"write",`, "", 1))
					got := m.once(t, host, evilRemote(t, how, asked))
					if got.InstalledDigest != first || got.WantedDigest != second {
						t.Errorf("installed is %s, wanted %s; they were %s and %s", got.InstalledDigest, got.WantedDigest, first, second)
					}
					verified := got.Condition(status.Verified)
					if verified.Status == status.True {
						t.Errorf("it is %+v", verified)
					}
					allowed := withheld()
					if asked == askSignatures {
						allowed = append(allowed, unsigned...)
					}
					if !slices.Contains(allowed, verified.Reason) {
						t.Errorf("it says %s: %s", verified.Reason, verified.Message)
					}
					if degraded := got.Condition(status.Degraded); degraded.Status != status.False {
						t.Errorf("it is %+v", degraded)
					}
					// An honest child brings it, when it is asked the next time.
					if got := m.once(t, host, m.client); got.InstalledDigest != second {
						t.Errorf("afterwards: %+v", got)
					}
				})
			}
		})
	}
}
