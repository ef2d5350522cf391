package artifact_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	goodProfile = `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write","exit_group"],"action":"SCMP_ACT_ALLOW"}]}`
	openProfile = `{"defaultAction":"SCMP_ACT_ALLOW"}`
)

// world is one registry's content in memory, and who signs in it.
type world struct {
	manifests  map[digest.Digest][]byte
	blobs      map[digest.Digest][]byte
	signatures map[digest.Digest][]any // trust.Candidate or error
	contacts   int
	fetched    []string
	key        *sign.Key
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		manifests: map[digest.Digest][]byte{}, blobs: map[digest.Digest][]byte{}, signatures: map[digest.Digest][]any{},
		key: teamKey(),
	}
}

// Key files are slow to make and to open on purpose, so the tests share keys.
var (
	teamKey  = sync.OnceValue(makeKey)
	otherKey = sync.OnceValue(makeKey)
)

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

func (w *world) Manifest(_ context.Context, _ reference.Repository, d digest.Digest) ([]byte, error) {
	w.contacts++
	if raw, ok := w.manifests[d]; ok {
		return raw, nil
	}
	return nil, reason.New(reason.ArtifactNotFound, d.String(), "no such manifest")
}

func (w *world) Blob(_ context.Context, _ reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	w.contacts++
	w.fetched = append(w.fetched, desc.Digest.String())
	if data, ok := w.blobs[desc.Digest]; ok {
		return data, nil
	}
	return nil, reason.New(reason.ArtifactNotFound, desc.Digest.String(), "no such blob")
}

func (w *world) Signatures(_ context.Context, _ reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	return &walk{world: w, left: w.signatures[d], seen: seen}
}

type walk struct {
	world *world
	left  []any
	seen  func(digest.Digest) bool
}

func (w *walk) Next(ctx context.Context) (trust.Candidate, error) {
	if err := ctx.Err(); err != nil {
		return trust.Candidate{}, err
	}
	for len(w.left) > 0 {
		next := w.left[0]
		w.left = w.left[1:]
		if err, ok := next.(error); ok {
			var skipped *artifact.SkippedError
			if errors.As(err, &skipped) && skipped.ID != "" && w.seen(skipped.ID) {
				continue
			}
			return trust.Candidate{}, err
		}
		candidate, _ := next.(trust.Candidate)
		if !w.seen(candidate.ID) {
			w.world.contacts++
			return candidate, nil
		}
	}
	return trust.Candidate{}, io.EOF
}

// push packs the files and keeps them under their digest.
func (w *world) push(t *testing.T, opts pack.Options, files map[string]string) digest.Digest {
	t.Helper()
	var inputs []pack.Input
	set := kinds.All(nil)
	for name, data := range files {
		kind, _ := set.ByTitle(name)
		inputs = append(inputs, pack.Input{File: name, Kind: kind.Name(), Data: []byte(data)})
	}
	packed, err := pack.Build(inputs, set, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range packed.Blobs {
		w.blobs[blob.Descriptor.Digest] = blob.Data
	}
	return w.keep(packed.Manifest)
}

func (w *world) keep(manifest []byte) digest.Digest {
	d := digest.FromBytes(manifest)
	w.manifests[d] = manifest
	return d
}

func (w *world) index(t *testing.T, children ...ocispec.Descriptor) digest.Digest {
	t.Helper()
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.keep(raw)
}

func (w *world) child(d digest.Digest, arch string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(w.manifests[d])),
		Platform: &ocispec.Platform{OS: "linux", Architecture: arch},
	}
}

func (w *world) sign(t *testing.T, key *sign.Key, d digest.Digest) digest.Digest {
	t.Helper()
	bundle, err := key.Bundle(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	w.offer(d, bundle)
	return d
}

func (w *world) offer(d digest.Digest, bundle []byte) {
	w.signatures[d] = append(w.signatures[d], trust.Candidate{ID: digest.FromBytes(bundle), Form: trust.FormBundle, Payload: bundle})
}

func (w *world) policy() trust.Policy {
	return trust.Policy{
		Name: "web", Repositories: []string{"registry.example.com/profiles/*"}, Namespaces: []string{"web"},
		Signers:   []trust.Signer{{Name: "team", KeyPEM: w.key.PublicPEM()}},
		Threshold: 1, AllowedKinds: []string{"seccomp", "apparmor"},
	}
}

func request(t *testing.T, d digest.Digest) artifact.Request {
	t.Helper()
	ref, err := reference.ParsePinned("registry.example.com/profiles/web@" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	return artifact.Request{
		Repository: ref.Repository, Digest: ref.Digest, Owner: profile.Owner{Namespace: "web", Name: "nginx"},
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
	}
}

func pull(t *testing.T, w *world, d digest.Digest, policies ...trust.Policy) (*artifact.Artifact, error) {
	t.Helper()
	compiled, err := trust.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)})
	return puller.Pull(t.Context(), w, compiled, request(t, d))
}

func TestPullReturnsVerifiedArtifactsWithTheirEvidence(t *testing.T) {
	for name, build := range map[string]func(*world) digest.Digest{
		"KEP-6061": func(w *world) digest.Digest {
			return w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
		},
		"bundle": func(w *world) digest.Digest {
			return w.push(t, pack.Options{Bundle: true}, map[string]string{"a.json": goodProfile})
		},
		"index": func(w *world) digest.Digest {
			child := w.push(t, pack.Options{Bundle: true}, map[string]string{"a.json": goodProfile})
			return w.index(t, w.child(child, "arm64"), w.child(w.push(t, pack.Options{Bundle: true, Version: "1.0.0"}, map[string]string{"a.json": goodProfile}), "amd64"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.sign(t, w.key, build(w))
			art, err := pull(t, w, d, w.policy())
			if err != nil {
				t.Fatal(err)
			}
			if len(art.Payloads) != 1 || string(art.Payloads[0].Data) != goodProfile || art.Payloads[0].Profile == nil {
				t.Errorf("payloads: %+v", art.Payloads)
			}
			if len(art.Verdict.Credentials) != 1 || art.Verdict.Credentials[0].ID != w.key.ID() {
				t.Errorf("verdict: %+v", art.Verdict)
			}
			if err := replay(t, art, w.policy()); err != nil {
				t.Errorf("judging the evidence alone: %v", err)
			}
		})
	}
}

// replay judges an artifact again from nothing but its evidence.
func replay(t *testing.T, art *artifact.Artifact, policy trust.Policy) error {
	t.Helper()
	kept := newWorld(t)
	for i, d := range art.Evidence.Manifests {
		kept.manifests[d] = art.Evidence.ManifestBytes[i]
	}
	for i, desc := range art.Evidence.Payloads {
		kept.blobs[desc.Digest] = art.Payloads[i].Data
	}
	for _, c := range art.Evidence.Signatures {
		kept.signatures[art.Evidence.Digest] = append(kept.signatures[art.Evidence.Digest], c)
	}
	_, err := pull(t, kept, art.Evidence.Digest, policy)
	return err
}

func TestPullRefuses(t *testing.T) {
	type given struct {
		*world
		policies []trust.Policy
	}
	signed := func(g *given, files map[string]string) digest.Digest {
		return g.sign(t, g.key, g.push(t, pack.Options{}, files))
	}
	for name, tc := range map[string]struct {
		build func(*given) digest.Digest
		want  reason.Reason
	}{
		"no policy at all": {func(g *given) digest.Digest {
			g.policies = nil
			return signed(g, map[string]string{"a.json": goodProfile})
		}, reason.NoTrustPolicy},
		"another namespace": {func(g *given) digest.Digest {
			g.policies[0].Namespaces = []string{"db"}
			return signed(g, map[string]string{"a.json": goodProfile})
		}, reason.NoTrustPolicy},
		"unsigned": {func(g *given) digest.Digest {
			return g.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
		}, reason.SignatureMissing},
		"signed by another key": {func(g *given) digest.Digest {
			return g.sign(t, otherKey(), g.push(t, pack.Options{}, map[string]string{"a.json": goodProfile}))
		}, reason.IdentityMismatch},
		"signature of another artifact": {func(g *given) digest.Digest {
			other := signed(g, map[string]string{"a.json": goodProfile})
			d := g.push(t, pack.Options{}, map[string]string{"b.json": goodProfile})
			g.signatures[d] = g.signatures[other]
			return d
		}, reason.DigestMismatch},
		"one of two policies is not met": {func(g *given) digest.Digest {
			strict := g.policy()
			strict.Name = "strict"
			strict.Signers = []trust.Signer{{Name: "auditor", KeyPEM: otherKey().PublicPEM()}}
			g.policies = append(g.policies, strict)
			return signed(g, map[string]string{"a.json": goodProfile})
		}, reason.ThresholdNotMet},
		"manifest of other bytes": {func(g *given) digest.Digest {
			d := signed(g, map[string]string{"a.json": goodProfile})
			g.manifests[d] = append(g.manifests[d], ' ')
			return d
		}, reason.DigestMismatch},
		"payload of other bytes": {func(g *given) digest.Digest {
			d := signed(g, map[string]string{"a.json": goodProfile})
			g.blobs[digest.FromString(goodProfile)] = []byte(strings.Replace(goodProfile, "read", "bpf ", 1))
			return d
		}, reason.DigestMismatch},
		"payload of another size": {func(g *given) digest.Digest {
			d := signed(g, map[string]string{"a.json": goodProfile})
			g.blobs[digest.FromString(goodProfile)] = []byte(goodProfile + " ")
			return d
		}, reason.DigestMismatch},
		"a kind that is not allowed": {func(g *given) digest.Digest {
			return signed(g, map[string]string{"a.json": goodProfile, "b.cil": "(block x)"})
		}, reason.ProfileForbidden},
		"a profile beyond the baseline": {func(g *given) digest.Digest {
			return signed(g, map[string]string{"a.json": openProfile})
		}, reason.ProfileForbidden},
		"no profile": {func(g *given) digest.Digest {
			return signed(g, map[string]string{"a.json": `{"defaultAction":"SCMP_ACT_ERRNO","includes":{}}`})
		}, reason.ProfileInvalid},
		"revoked digest": {func(g *given) digest.Digest {
			d := signed(g, map[string]string{"a.json": goodProfile})
			g.policies[0].RevokedDigests = []digest.Digest{d}
			return d
		}, reason.Revoked},
		"revoked child of an index": {func(g *given) digest.Digest {
			child := g.push(t, pack.Options{Bundle: true}, map[string]string{"a.json": goodProfile})
			g.policies[0].RevokedDigests = []digest.Digest{child}
			return g.sign(t, g.key, g.index(t, g.child(child, "amd64")))
		}, reason.Revoked},
		"index without our platform": {func(g *given) digest.Digest {
			child := g.push(t, pack.Options{Bundle: true}, map[string]string{"a.json": goodProfile})
			return g.sign(t, g.key, g.index(t, g.child(child, "arm64"), g.child(child, "s390x")))
		}, reason.UnsupportedArtifact},
		"below the floor": {func(g *given) digest.Digest {
			g.policies[0].Floors = []trust.Floor{{Repositories: "registry.example.com/profiles/*", Version: "2.0.0"}}
			return g.sign(t, g.key, g.push(t, pack.Options{Version: "1.9.9"}, map[string]string{"a.json": goodProfile}))
		}, reason.Revoked},
		"another name": {func(g *given) digest.Digest {
			g.policies[0].RequireName = true
			return g.sign(t, g.key, g.push(t, pack.Options{Name: "web/other"}, map[string]string{"a.json": goodProfile}))
		}, reason.IdentityMismatch},
		"a place of signatures cannot be read": {func(g *given) digest.Digest {
			d := g.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
			g.signatures[d] = []any{&artifact.SkippedError{Err: reason.New(reason.RateLimited, "registry", "too many requests")}}
			return d
		}, reason.RateLimited},
		// Not DigestMismatch, which would stall the artifact for good.
		"a signature's bytes are not those of its digest": {func(g *given) digest.Digest {
			d := g.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
			g.signatures[d] = []any{&artifact.SkippedError{Err: reason.New(reason.DigestMismatch, "signature", "other bytes")}}
			return d
		}, reason.RegistryUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			g := &given{world: newWorld(t)}
			g.policies = []trust.Policy{g.policy()}
			art, err := pull(t, g.world, tc.build(g), g.policies...)
			e, ok := reason.Of(err)
			if !ok || e.Reason != tc.want {
				t.Fatalf("error %v, want %s", err, tc.want)
			}
			if e.Object == "" || e.Detail == "" || e.WhatToDo() == "" {
				t.Errorf("the error does not say all: %+v", e)
			}
			if art != nil {
				t.Errorf("an artifact came with the refusal: %+v", art)
			}
		})
	}
}

func TestPullContactsNobodyWithoutPolicy(t *testing.T) {
	w := newWorld(t)
	d := w.sign(t, w.key, w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile}))
	elsewhere := w.policy()
	elsewhere.Repositories = []string{"registry.example.com/other/*"}
	if _, err := pull(t, w, d, elsewhere); !errors.Is(err, reason.NoTrustPolicy) {
		t.Fatalf("error %v", err)
	}
	if w.contacts != 0 {
		t.Errorf("%d contacts", w.contacts)
	}
}

func TestPullFetchesNoPayloadBeforeVerification(t *testing.T) {
	w := newWorld(t)
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	if _, err := pull(t, w, d, w.policy()); !errors.Is(err, reason.SignatureMissing) {
		t.Fatalf("error %v", err)
	}
	if len(w.fetched) != 0 {
		t.Errorf("fetched %v", w.fetched)
	}
}

// One good signature among 1,000 must verify, in as many passes as it takes,
// and no pass may try more than its budget.
func TestPullFindsTheGoodSignatureInLaterPasses(t *testing.T) {
	w := newWorld(t)
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	for i := range 999 {
		w.offer(d, []byte(strings.Repeat("x", i+1)))
	}
	w.sign(t, w.key, d)
	compiled, err := trust.Compile([]trust.Policy{w.policy()})
	if err != nil {
		t.Fatal(err)
	}
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil), Now: time.Now})
	for pass := 1; ; pass++ {
		w.contacts = 0
		_, err := puller.Pull(t.Context(), w, compiled, request(t, d))
		if w.contacts > artifact.CandidatesPerPass+2 {
			t.Fatalf("pass %d made %d requests", pass, w.contacts)
		}
		if err == nil {
			if want := (1000 + artifact.CandidatesPerPass - 1) / artifact.CandidatesPerPass; pass != want {
				t.Errorf("took %d passes, want %d", pass, want)
			}
			return
		}
		if e, ok := reason.Of(err); !errors.Is(err, artifact.ErrMoreSignatures) || !ok || e.RetryAfter <= 0 || pass > 16 {
			t.Fatalf("pass %d: %v", pass, err)
		}
	}
}

// What counted in one pass still counts in a later one.
func TestPullKeepsWhatCountedAcrossPasses(t *testing.T) {
	w := newWorld(t)
	second := otherKey()
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	w.sign(t, w.key, d)
	for i := range artifact.CandidatesPerPass {
		w.offer(d, []byte(strings.Repeat("x", i+1)))
	}
	w.sign(t, second, d)
	policy := w.policy()
	policy.Signers = append(policy.Signers, trust.Signer{Name: "second", KeyPEM: second.PublicPEM()})
	policy.Threshold = 2
	compiled, err := trust.Compile([]trust.Policy{policy})
	if err != nil {
		t.Fatal(err)
	}
	puller := artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)})
	if _, err := puller.Pull(t.Context(), w, compiled, request(t, d)); !errors.Is(err, artifact.ErrMoreSignatures) {
		t.Fatalf("first pass: %v", err)
	}
	art, err := puller.Pull(t.Context(), w, compiled, request(t, d))
	if err != nil {
		t.Fatalf("second pass: %v", err)
	}
	if len(art.Evidence.Signatures) != 2 {
		t.Errorf("%d signatures are kept as evidence", len(art.Evidence.Signatures))
	}
}

func TestPullSaysItCannotVerifyNowWhenInterrupted(t *testing.T) {
	w := newWorld(t)
	d := w.sign(t, w.key, w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile}))
	compiled, err := trust.Compile([]trust.Policy{w.policy()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)}).Pull(ctx, w, compiled, request(t, d))
	if !errors.Is(err, reason.RegistryUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
