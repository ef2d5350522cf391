package agent_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/reason"
)

const repository = "registry.example.com/profiles/web"

// plainKind is a kind whose payloads are any text; "bad" is invalid, and
// "shop" belongs to the namespace shop.
type plainKind struct{ name string }

type plainProfile struct {
	plainKind
	ofShop bool
}

func (plainProfile) Findings() []profile.Finding { return nil }
func (p plainProfile) Kind() string              { return p.name }

func (k plainKind) Name() string { return k.name }
func (k plainKind) Format() profile.Format {
	return profile.Format{MediaType: "application/vnd.test." + k.name, Extensions: []string{"." + k.name}, DefaultFile: "profile." + k.name}
}
func (k plainKind) Sniff([]byte) bool { return false }
func (k plainKind) Parse(file string, data []byte) (profile.Profile, error) {
	if strings.HasPrefix(string(data), "bad") {
		return nil, reason.New(reason.ProfileInvalid, file, "bad")
	}
	return plainProfile{k, strings.HasPrefix(string(data), "shop")}, nil
}
func (k plainKind) Constrain(p profile.Profile, by profile.Scope, _ []profile.Limits) error {
	if plain, ok := p.(plainProfile); !ok || plain.ofShop && !by.Holds("shop") {
		return reason.New(reason.ProfileForbidden, "", "it belongs to the namespace shop")
	}
	return nil
}

func plainKinds() profile.Set {
	return profile.NewSet(plainKind{"alpha"}, plainKind{"beta"}, plainKind{"gamma"})
}

// makeKey makes one key for all tests: encrypting one takes a second.
func makeKey() *sign.Key {
	empty := func() ([]byte, error) { return nil, nil }
	private, _, err := sign.GenerateKeyPair(empty)
	if err != nil {
		panic(err)
	}
	key, err := sign.LoadKey(private, empty)
	if err != nil {
		panic(err)
	}
	return key
}

var (
	theKey   = sync.OnceValue(makeKey)
	otherKey = sync.OnceValue(makeKey)
)

// remote is a registry in memory that counts every contact.
type remote struct {
	mu         sync.Mutex
	manifests  map[digest.Digest][]byte
	blobs      map[digest.Digest][]byte
	signatures map[digest.Digest][]trust.Candidate
	contacts   int
	down       error
	gate       chan struct{} // while open, every manifest waits for it
	atGate     int           // those that came to it
}

func newRemote() *remote {
	return &remote{manifests: map[digest.Digest][]byte{}, blobs: map[digest.Digest][]byte{}, signatures: map[digest.Digest][]trust.Candidate{}}
}

func (r *remote) contact() error {
	r.contacts++
	return r.down
}

func (r *remote) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contacts
}

func (r *remote) setDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

func (r *remote) Manifest(ctx context.Context, _ reference.Repository, d digest.Digest) ([]byte, error) {
	r.mu.Lock()
	gate := r.gate
	if gate != nil {
		r.atGate++
	}
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, reason.New(reason.RegistryUnavailable, d.String(), "stopped: %w", ctx.Err())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.contact(); err != nil {
		return nil, err
	}
	if raw, ok := r.manifests[d]; ok {
		return raw, nil
	}
	return nil, reason.New(reason.ArtifactNotFound, d.String(), "no such manifest")
}

func (r *remote) Blob(_ context.Context, _ reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.contact(); err != nil {
		return nil, err
	}
	return r.blobs[desc.Digest], nil
}

func (r *remote) Signatures(_ context.Context, _ reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &signatures{remote: r, left: r.signatures[d], seen: seen}
}

type signatures struct {
	remote *remote
	left   []trust.Candidate
	seen   func(digest.Digest) bool
}

func (s *signatures) Next(context.Context) (trust.Candidate, error) {
	s.remote.mu.Lock()
	defer s.remote.mu.Unlock()
	if err := s.remote.contact(); err != nil {
		return trust.Candidate{}, &artifact.SkippedError{Err: err}
	}
	for len(s.left) > 0 {
		next := s.left[0]
		s.left = s.left[1:]
		if !s.seen(next.ID) {
			return next, nil
		}
	}
	return trust.Candidate{}, io.EOF
}

// push packs files of the form NAME=CONTENT, with a signature of each key.
func (r *remote) push(t *testing.T, kinds profile.Set, files []string, keys ...*sign.Key) digest.Digest {
	t.Helper()
	var inputs []pack.Input
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		kind, ok := kinds.ByTitle(name)
		if !ok {
			t.Fatalf("no kind for %s", name)
		}
		inputs = append(inputs, pack.Input{File: name, Kind: kind.Name(), Data: []byte(content)})
	}
	packed, err := pack.Build(inputs, kinds, pack.Options{Bundle: true})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range packed.Blobs {
		r.blobs[b.Descriptor.Digest] = b.Data
	}
	d := digest.FromBytes(packed.Manifest)
	r.manifests[d] = packed.Manifest
	for _, key := range keys {
		bundle, err := key.Bundle(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		r.signatures[d] = append(r.signatures[d], trust.Candidate{ID: digest.FromBytes(bundle), Form: trust.FormBundle, Payload: bundle})
	}
	return d
}

// node is one machine: folders, hosts, a clock, and a registry to reach.
type node struct {
	t                      *testing.T
	dir                    string
	manifests, trust, root string
	alpha, beta            *profiletest.MemoryHost
	hosts                  []profile.Host
	kinds                  profile.Set
	remote                 *remote
	now                    time.Time
	live                   bool // the clock is the real one, or the bubble's
	opts                   agent.Options
	cluster                *asInACluster // nil: from folders alone
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{
		t: t, dir: dir, manifests: filepath.Join(dir, "manifests"), trust: filepath.Join(dir, "trust"), root: filepath.Join(dir, "root"),
		alpha: profiletest.NewMemoryHost("alpha"), beta: profiletest.NewMemoryHost("beta"), kinds: plainKinds(),
		remote: newRemote(), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
	}
	n.hosts = []profile.Host{n.alpha, n.beta}
	for _, folder := range []string{n.manifests, n.trust} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.policy("web", "")
	return n
}

func (n *node) write(name, content string) {
	n.t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.Remove(name); err != nil {
		n.t.Fatal(err)
	}
}

// policy trusts theKey for every namespace; extra is more YAML of the spec.
func (n *node) policy(name, extra string) {
	n.t.Helper()
	pem := strings.ReplaceAll(strings.TrimSpace(string(theKey().PublicPEM())), "\n", "\n        ")
	n.write(filepath.Join(n.trust, name+".yaml"), fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata: {name: %s}
spec:
  repositories: [registry.example.com/profiles/*]
  namespaces: ["*"]
  threshold: 1
  allowedKinds: [alpha, beta, gamma, seccomp]
  signers:
  - name: team
    key:
      pem: |
        %s
%s
`, name, pem, extra))
}

func (n *node) manifest(file, name string, d digest.Digest, extra string) {
	n.t.Helper()
	n.write(filepath.Join(n.manifests, file+".yaml"), fmt.Sprintf(`apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata: {namespace: web, name: %s}
spec:
  artifact: %s@%s
%s
`, name, repository, d, extra))
}

// options are those of an agent on this node.
func (n *node) options() agent.Options {
	opts := n.opts
	opts.Root, opts.Hosts = n.root, n.hosts
	opts.Source = agent.Folders{
		Manifests: n.manifests, TrustDir: n.trust,
		Puller: artifact.NewPuller(artifact.PullerOptions{Kinds: n.kinds, Now: n.clock}),
	}
	if n.cluster != nil {
		n.cluster.Source = opts.Source
		opts.Source = n.cluster
	}
	opts.Remote = n.remote
	if opts.Now == nil {
		opts.Now = n.clock
	}
	return opts
}

func (n *node) clock() time.Time {
	if n.live {
		return time.Now()
	}
	return n.now
}

// once starts an agent, lets it converge and ends it.
func (n *node) once() status.Report {
	n.t.Helper()
	a, err := agent.New(n.options())
	if err != nil {
		n.t.Fatal(err)
	}
	report, err := a.Once(n.t.Context())
	if err != nil {
		n.t.Error(err)
	}
	if err := a.Close(); err != nil {
		n.t.Error(err)
	}
	written, err := status.Read(n.root)
	if err != nil {
		n.t.Fatal(err)
	}
	if len(written.Profiles) != len(report.Profiles) {
		n.t.Errorf("the status file has %d profiles, not %d", len(written.Profiles), len(report.Profiles))
	}
	return report
}

func owner(name string) profile.Owner { return profile.Owner{Namespace: "web", Name: name} }

// files renders what a host has in force for an owner.
func files(h *profiletest.MemoryHost, name string) string {
	found, _ := h.Files(owner(name))
	parts := make([]string, 0, len(found))
	for _, f := range found {
		parts = append(parts, f.Name+"="+string(f.Data))
	}
	return strings.Join(parts, " ")
}

func (n *node) wantFiles(h *profiletest.MemoryHost, name, want string) {
	n.t.Helper()
	if got := files(h, name); got != want {
		n.t.Errorf("%s %s has %q, want %q", h.Kind(), name, got, want)
	}
}

// find returns the one profile of that name and origin ("" for any).
func find(t *testing.T, r status.Report, name, origin string) status.Profile {
	t.Helper()
	for _, p := range r.Profiles {
		if p.Owner == owner(name) && (origin == "" || strings.HasPrefix(p.Origin, origin)) {
			return p
		}
	}
	t.Fatalf("the report says nothing of %s %s: %+v", name, origin, r)
	return status.Profile{}
}

func wantCondition(t *testing.T, p status.Profile, c status.ConditionType, s status.State, r reason.Reason) {
	t.Helper()
	got := p.Condition(c)
	if got.Status != s || got.Reason != r {
		t.Errorf("%s: %s=%s %s (%s), want %s %s", p.Owner, c, got.Status, got.Reason, got.Message, s, r)
	}
	if len(got.Message) > status.MaxMessageBytes {
		t.Errorf("%s: the message has %d bytes", p.Owner, len(got.Message))
	}
}

// policyUntil trusts theKey until a time.
func (n *node) policyUntil(until string) {
	n.t.Helper()
	n.policy("web", "")
	name := filepath.Join(n.trust, "web.yaml")
	data, err := os.ReadFile(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(name, strings.Replace(string(data), "      pem: |", "      notAfter: \""+until+"\"\n      pem: |", 1))
}

// countWrites counts the files that are written.
func countWrites(writes map[string]int) func(durable.Step) error {
	return func(s durable.Step) error {
		if s.Op == durable.OpWrite {
			writes[s.Name]++
		}
		return nil
	}
}
