// Package fetchtest is the suite that every artifact.Fetcher passes: the
// registry client, the node's store, and whatever comes to serve artifacts.
package fetchtest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// Artifact is what the suite asks an implementation to hold: one manifest, its
// payloads and its signatures.
type Artifact struct {
	// Manifest is an OCI image manifest whose layers are Payloads.
	Manifest []byte
	// Config is the manifest's config, which implementations need not serve.
	Config []byte
	// Payloads in the order of the layers.
	Payloads [][]byte
	// Signatures have no IDs where the implementation makes them itself.
	Signatures []trust.Candidate
}

// Digest is the digest of the manifest.
func (a Artifact) Digest() digest.Digest { return digest.FromBytes(a.Manifest) }

// Layers are the descriptors of the payloads.
func (a Artifact) Layers() []ocispec.Descriptor {
	descs := make([]ocispec.Descriptor, 0, len(a.Payloads))
	for _, p := range a.Payloads {
		descs = append(descs, describe("application/octet-stream", p))
	}
	return descs
}

// Case is one fresh and empty implementation.
type Case struct {
	Fetcher    artifact.Fetcher
	Repository reference.Repository
	// Put makes the Fetcher serve a from Repository.
	Put func(t *testing.T, a Artifact)
	// Corrupt makes the Fetcher's source hold other bytes of the same length
	// for the manifest or payload d.
	Corrupt func(t *testing.T, d digest.Digest)
}

// Run runs the suite; newCase is called for every test.
func Run(t *testing.T, newCase func(t *testing.T) Case) {
	tests := map[string]func(*testing.T, Case){
		"serves the bytes":                 servesTheBytes,
		"missing is ArtifactNotFound":      missing,
		"corrupted is DigestMismatch":      corrupted,
		"other digests are not served":     onlySHA256,
		"offers every signature":           offersEverySignature,
		"no signatures end at once":        noSignatures,
		"passes over what was seen":        passesOverSeen,
		"an ended walk stays ended":        staysEnded,
		"two walks do not disturb":         twoWalks,
		"a walk over another is empty":     anotherSubject,
		"gives up with the context":        givesUp,
		"callers may change what they got": callersMayChange,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, newCase(t)) })
	}
}

// Example returns an artifact with two payloads, two bundles and two simple
// signing signatures over the same payload, as two signers leave them. The
// signatures are not valid: a Fetcher does not judge.
func Example() Artifact {
	payloads := [][]byte{[]byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`), []byte("profile example {}\n")}
	a := Artifact{Config: []byte("{}"), Payloads: payloads}
	manifest := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.artifact",
		Config:       describe(ocispec.MediaTypeEmptyJSON, a.Config),
		Layers:       a.Layers(),
	}
	a.Manifest = marshal(manifest)
	simple := []byte(`{"critical":{"image":{"docker-manifest-digest":"` + a.Digest().String() + `"}}}`)
	a.Signatures = []trust.Candidate{
		{Form: trust.FormBundle, Payload: []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","n":1}`)},
		{Form: trust.FormBundle, Payload: []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","n":2}`)},
		{Form: trust.FormSimpleSigning, Payload: simple, Annotations: map[string]string{"dev.cosignproject.cosign/signature": "first"}},
		{Form: trust.FormSimpleSigning, Payload: simple, Annotations: map[string]string{"dev.cosignproject.cosign/signature": "second"}},
	}
	for i, s := range a.Signatures {
		a.Signatures[i].ID = digest.FromBytes(marshal(s))
	}
	return a
}

func servesTheBytes(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	got, err := c.Fetcher.Manifest(t.Context(), c.Repository, a.Digest())
	if err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	if diff := cmp.Diff(string(a.Manifest), string(got)); diff != "" {
		t.Errorf("Manifest (-want +got):\n%s", diff)
	}
	for i, desc := range a.Layers() {
		got, err := c.Fetcher.Blob(t.Context(), c.Repository, desc)
		if err != nil {
			t.Fatalf("Blob: %v", err)
		}
		if diff := cmp.Diff(string(a.Payloads[i]), string(got)); diff != "" {
			t.Errorf("Blob (-want +got):\n%s", diff)
		}
	}
}

func missing(t *testing.T, c Case) {
	c.Put(t, Example())
	absent := describe("application/octet-stream", []byte("nobody put this"))
	if data, err := c.Fetcher.Manifest(t.Context(), c.Repository, absent.Digest); !errors.Is(err, reason.ArtifactNotFound) || data != nil {
		t.Errorf("Manifest = %q, %v, want ArtifactNotFound", data, err)
	}
	if data, err := c.Fetcher.Blob(t.Context(), c.Repository, absent); !errors.Is(err, reason.ArtifactNotFound) || data != nil {
		t.Errorf("Blob = %q, %v, want ArtifactNotFound", data, err)
	}
}

func corrupted(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	layer := a.Layers()[0]
	c.Corrupt(t, a.Digest())
	c.Corrupt(t, layer.Digest)
	if data, err := c.Fetcher.Manifest(t.Context(), c.Repository, a.Digest()); !errors.Is(err, reason.DigestMismatch) || data != nil {
		t.Errorf("Manifest = %q, %v, want DigestMismatch and no bytes", data, err)
	}
	if data, err := c.Fetcher.Blob(t.Context(), c.Repository, layer); !errors.Is(err, reason.DigestMismatch) || data != nil {
		t.Errorf("Blob = %q, %v, want DigestMismatch and no bytes", data, err)
	}
}

func onlySHA256(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	for _, d := range []digest.Digest{
		digest.SHA512.FromBytes(a.Manifest), "", "sha256:", "sha256:../../../../etc/passwd",
		digest.Digest(strings.ToUpper(a.Digest().String())),
	} {
		if data, err := c.Fetcher.Manifest(t.Context(), c.Repository, d); err == nil || data != nil {
			t.Errorf("Manifest(%q) = %q, nil, want an error", d, data)
		} else if _, ok := reason.Of(err); !ok {
			t.Errorf("Manifest(%q): %v is no reason.Error", d, err)
		}
		if data, err := c.Fetcher.Blob(t.Context(), c.Repository, ocispec.Descriptor{Digest: d, Size: 2}); err == nil || data != nil {
			t.Errorf("Blob(%q) = %q, nil, want an error", d, data)
		}
	}
}

func offersEverySignature(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	got := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen))
	if diff := cmp.Diff(withoutIDs(a.Signatures), withoutIDs(got)); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
	ids := map[digest.Digest]int{}
	for _, s := range got {
		if s.ID.Validate() != nil {
			t.Errorf("ID %q is no digest", s.ID)
		}
		ids[s.ID]++
	}
	if len(ids) != len(got) {
		t.Errorf("IDs are not unique: %v", ids)
	}
	for _, s := range all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)) {
		if ids[s.ID] == 0 {
			t.Errorf("the ID %s was another in the first walk", s.ID)
		}
	}
}

func noSignatures(t *testing.T, c Case) {
	a := Example()
	a.Signatures = nil
	c.Put(t, a)
	if got := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)); len(got) != 0 {
		t.Errorf("got %d signatures, want none", len(got))
	}
}

func passesOverSeen(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	every := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen))
	for i := range every {
		seen := func(id digest.Digest) bool {
			return slices.ContainsFunc(every[:i], func(s trust.Candidate) bool { return s.ID == id })
		}
		rest := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), seen))
		if diff := cmp.Diff(withoutIDs(every[i:]), withoutIDs(rest)); diff != "" {
			t.Errorf("after %d seen (-want +got):\n%s", i, diff)
		}
	}
	if rest := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), func(digest.Digest) bool { return true })); len(rest) != 0 {
		t.Errorf("all were seen, and %d came again", len(rest))
	}
}

func staysEnded(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	w := c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)
	all(t, w)
	for range 2 {
		if _, err := w.Next(t.Context()); err != io.EOF { //nolint:errorlint // the contract is io.EOF itself
			t.Errorf("Next after the end: %v, want io.EOF", err)
		}
	}
}

func twoWalks(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	first := c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)
	one, err := first.Next(t.Context())
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	if second := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)); len(second) != len(a.Signatures) {
		t.Errorf("the second walk found %d signatures, want %d", len(second), len(a.Signatures))
	}
	if rest := append(all(t, first), one); len(rest) != len(a.Signatures) {
		t.Errorf("the first walk found %d signatures, want %d", len(rest), len(a.Signatures))
	}
}

func anotherSubject(t *testing.T, c Case) {
	c.Put(t, Example())
	other := Example()
	other.Manifest = append(other.Manifest, '\n')
	other.Signatures = nil
	c.Put(t, other)
	if got := all(t, c.Fetcher.Signatures(t.Context(), c.Repository, other.Digest(), nothingSeen)); len(got) != 0 {
		t.Errorf("got %d signatures of another artifact", len(got))
	}
}

func givesUp(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Fetcher.Manifest(ctx, c.Repository, a.Digest()); !errors.Is(err, context.Canceled) {
		t.Errorf("Manifest: %v, want context.Canceled", err)
	}
	if _, err := c.Fetcher.Blob(ctx, c.Repository, a.Layers()[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("Blob: %v, want context.Canceled", err)
	}
	w := c.Fetcher.Signatures(ctx, c.Repository, a.Digest(), nothingSeen)
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want context.Canceled", err)
	}
	if got := all(t, w); len(got) != len(a.Signatures) {
		t.Errorf("after the interruption %d signatures, want %d", len(got), len(a.Signatures))
	}
}

func callersMayChange(t *testing.T, c Case) {
	a := Example()
	c.Put(t, a)
	for range 2 {
		data, err := c.Fetcher.Manifest(t.Context(), c.Repository, a.Digest())
		if err != nil {
			t.Fatalf("Manifest: %v", err)
		}
		clear(data)
		for _, s := range all(t, c.Fetcher.Signatures(t.Context(), c.Repository, a.Digest(), nothingSeen)) {
			if strings.Trim(string(s.Payload), "\x00") == "" {
				t.Error("a payload is shared with an earlier caller")
			}
			clear(s.Payload)
			clear(s.Annotations)
		}
	}
}

// all walks to the end, which must come without a skipped place.
func all(t *testing.T, w artifact.Signatures) []trust.Candidate {
	t.Helper()
	var found []trust.Candidate
	for {
		s, err := w.Next(t.Context())
		if err == io.EOF { //nolint:errorlint // the contract is io.EOF itself
			return found
		}
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		if len(found) > 1000 {
			t.Fatal("the walk does not end")
		}
		found = append(found, s)
	}
}

func nothingSeen(digest.Digest) bool { return false }

// withoutIDs returns the candidates in a stable order without their IDs.
func withoutIDs(candidates []trust.Candidate) []trust.Candidate {
	plain := make([]trust.Candidate, 0, len(candidates))
	for _, c := range candidates {
		c.ID = ""
		plain = append(plain, c)
	}
	slices.SortFunc(plain, func(a, b trust.Candidate) int {
		return strings.Compare(string(marshal(a)), string(marshal(b)))
	})
	return plain
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data of this package
	}
	return data
}
