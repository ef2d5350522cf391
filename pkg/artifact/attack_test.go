package artifact_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile/kinds"
	"github.com/confine-dev/confine/pkg/reason"
)

func unreadable(i int) *artifact.SkippedError {
	return &artifact.SkippedError{ID: digest.FromString(fmt.Sprint(i)), Err: reason.New(reason.RegistryUnavailable, "signature", "internal server error")}
}

func pullerFor(t *testing.T, w *world) (*artifact.Puller, *trust.Policies) {
	t.Helper()
	compiled, err := trust.Compile([]trust.Policy{w.policy()})
	if err != nil {
		t.Fatal(err)
	}
	return artifact.NewPuller(artifact.PullerOptions{Kinds: kinds.All(nil)}), compiled
}

// Whoever may attach signatures can attach many that cannot be read. They must
// not use up every pass.
func TestUnreadableSignaturesDoNotHideTheGoodOne(t *testing.T) {
	w := newWorld(t)
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	for i := range 3 * artifact.CandidatesPerPass {
		w.signatures[d] = append(w.signatures[d], unreadable(i))
	}
	w.sign(t, w.key, d)
	puller, compiled := pullerFor(t, w)
	var err error
	for range 4 {
		if _, err = puller.Pull(t.Context(), w, compiled, request(t, d)); err == nil {
			return
		}
	}
	t.Errorf("after four passes: %v", err)
}

// Something unread may be a good signature: it is tried again, and until then
// nothing final is said.
func TestUnreadableSignaturesAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	for i := range artifact.CandidatesPerPass {
		w.signatures[d] = append(w.signatures[d], unreadable(i))
	}
	w.offer(d, []byte("{}"))
	puller, compiled := pullerFor(t, w)
	rounds := 0
	for range 8 {
		_, err := puller.Pull(t.Context(), w, compiled, request(t, d))
		more := errors.Is(err, artifact.ErrMoreSignatures)
		if !more && !errors.Is(err, reason.RegistryUnavailable) {
			t.Fatalf("before all was read: %v", err)
		}
		if !more {
			rounds++
		}
	}
	if rounds < 2 {
		t.Errorf("%d rounds in eight passes", rounds)
	}
	good, err := w.key.Bundle(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	w.signatures[d][7] = trust.Candidate{ID: unreadable(7).ID, Form: trust.FormBundle, Payload: good}
	for range 3 {
		if _, err = puller.Pull(t.Context(), w, compiled, request(t, d)); err == nil {
			return
		}
	}
	t.Errorf("once it can be read: %v", err)
}

// hasty is a registry so slow that the walk is over after a few signatures.
type hasty struct {
	*world
	most   int
	cancel context.CancelFunc // instead of saying so
}

func (h hasty) Signatures(ctx context.Context, repo reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	return &hastyWalk{Signatures: h.world.Signatures(ctx, repo, d, seen), hasty: h, left: h.most}
}

type hastyWalk struct {
	artifact.Signatures
	hasty hasty
	left  int
}

func (w *hastyWalk) Next(ctx context.Context) (trust.Candidate, error) {
	w.left--
	switch {
	case w.left >= 0:
		return w.Signatures.Next(ctx)
	case w.left < -1:
		return trust.Candidate{}, io.EOF
	case w.hasty.cancel != nil:
		w.hasty.cancel()
		return trust.Candidate{}, ctx.Err()
	}
	return trust.Candidate{}, &artifact.SkippedError{Err: reason.New(reason.RegistryUnavailable, "signatures", "reading took too long")}
}

// A pass that ends early goes on where it ended, however slow the registry.
func TestPassesThatEndEarlyGoOn(t *testing.T) {
	for name, interrupted := range map[string]bool{"out of time": false, "interrupted": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
			for i := range 25 {
				w.offer(d, []byte(strings.Repeat("x", i+1)))
			}
			w.sign(t, w.key, d)
			puller, compiled := pullerFor(t, w)
			var err error
			for range 3 {
				slow := hasty{world: w, most: 10}
				ctx, cancel := context.WithCancel(t.Context())
				if interrupted {
					slow.cancel = cancel
				}
				_, err = puller.Pull(ctx, slow, compiled, request(t, d))
				cancel()
				if err == nil {
					return
				}
				if !errors.Is(err, reason.RegistryUnavailable) {
					t.Fatalf("error %v", err)
				}
			}
			t.Errorf("after three passes of ten: %v", err)
		})
	}
}

// The verdict is about all candidates, not about those of the last pass.
func TestTheVerdictIsAboutAllPasses(t *testing.T) {
	w := newWorld(t)
	d := w.push(t, pack.Options{}, map[string]string{"a.json": goodProfile})
	w.sign(t, otherKey(), d)
	for i := range 2*artifact.CandidatesPerPass - 1 {
		w.offer(d, []byte(strings.Repeat("x", i+1)))
	}
	puller, compiled := pullerFor(t, w)
	var err error
	for range 3 {
		_, err = puller.Pull(t.Context(), w, compiled, request(t, d))
	}
	if !errors.Is(err, reason.IdentityMismatch) || errors.Is(err, artifact.ErrMoreSignatures) {
		t.Errorf("error %v", err)
	}
}

// An index says how long its children are, and other programs go by that.
func TestAChildOfAnotherSizeThanItsIndexSaysIsRefused(t *testing.T) {
	w := newWorld(t)
	child := w.child(w.push(t, pack.Options{Bundle: true}, map[string]string{"a.json": goodProfile}), "amd64")
	child.Size++
	d := w.sign(t, w.key, w.index(t, child))
	if _, err := pull(t, w, d, w.policy()); !errors.Is(err, reason.DigestMismatch) {
		t.Errorf("error %v", err)
	}
}

// What an index's signature covers decides, not what a child says of itself.
func TestFloorAndNameAreThoseOfTheSignedIndex(t *testing.T) {
	w := newWorld(t)
	policy := w.policy()
	policy.Floors = []trust.Floor{{Repositories: "registry.example.com/profiles/*", Version: "1.0.0"}}
	policy.RequireName = true
	child := w.push(t, pack.Options{Bundle: true, Version: "2.0.0", Name: "web/nginx"}, map[string]string{"a.json": goodProfile})
	d := w.sign(t, w.key, w.index(t, w.child(child, "amd64")))
	if _, err := pull(t, w, d, policy); !errors.Is(err, reason.Revoked) {
		t.Errorf("the index has no version: %v", err)
	}
	if _, err := pull(t, w, child, policy); !errors.Is(err, reason.SignatureMissing) {
		t.Errorf("the child itself was not signed: %v", err)
	}
}

// A kind that only the content tells is held to allowedKinds too.
func TestASniffedKindMustBeAllowed(t *testing.T) {
	w := newWorld(t)
	policy := w.policy()
	policy.AllowedKinds = []string{"apparmor"}
	payload := []byte(goodProfile)
	w.blobs[digest.FromBytes(payload)] = payload
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.unknown.artifact.v1", Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(payload), Size: int64(len(payload))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := w.sign(t, w.key, w.keep(raw))
	if _, err := pull(t, w, d, policy); !errors.Is(err, reason.ProfileForbidden) {
		t.Errorf("error %v", err)
	}
	policy.AllowedKinds = []string{"seccomp"}
	if _, err := pull(t, w, d, policy); err != nil {
		t.Errorf("once allowed: %v", err)
	}
}

// pushes records what reaches the registry, and signs nothing.
type pushes []string

func (p *pushes) Push(context.Context, reference.Reference, []pack.Blob, []byte, ocispec.Descriptor) error {
	*p = append(*p, "artifact")
	return nil
}

func (p *pushes) Attach(context.Context, reference.Repository, ocispec.Descriptor, []byte, map[string]string) (ocispec.Descriptor, error) {
	*p = append(*p, "signature")
	return ocispec.Descriptor{Digest: digest.FromString("signature")}, nil
}

func (*pushes) Bundle(context.Context, digest.Digest) ([]byte, error) {
	return nil, errors.New("the key does not sign")
}

func TestNothingIsPushedWhereTheKeyDoesNotSign(t *testing.T) {
	var to pushes
	_, err := artifact.Push(t.Context(), &to, kinds.All(nil), artifact.PushRequest{
		Inputs: []pack.Input{{File: "a.json", Kind: "seccomp", Data: []byte(goodProfile)}}, Signer: &to,
	})
	if err == nil || len(to) != 0 {
		t.Errorf("error %v, pushed %v", err, to)
	}
}
