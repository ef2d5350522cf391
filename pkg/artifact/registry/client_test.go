package registry

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
)

func TestConformance(t *testing.T) {
	for name, referrers := range map[string]bool{"referrers API": true, "tags": false} {
		t.Run(name, func(t *testing.T) {
			fetchtest.Run(t, func(t *testing.T) fetchtest.Case { return conformanceCase(t, referrers) })
		})
	}
}

func conformanceCase(t *testing.T, referrers bool) fetchtest.Case {
	lies := &corruption{digests: map[string]bool{}}
	repo := newRegistry(t, referrers, lies.wrap)
	client := newTestClient(t)
	return fetchtest.Case{
		Fetcher: client, Repository: repo,
		Put: func(t *testing.T, a fetchtest.Artifact) { putArtifact(t, client, repo, a) },
		Corrupt: func(_ *testing.T, d digest.Digest) {
			lies.mu.Lock()
			defer lies.mu.Unlock()
			lies.digests[d.String()] = true
		},
	}
}

// corruption flips the first byte of what it was told.
type corruption struct {
	mu      sync.Mutex
	digests map[string]bool
}

func (c *corruption) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		lie := c.digests[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		c.mu.Unlock()
		if lie && r.Method == http.MethodGet {
			w = &flipper{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

type flipper struct {
	http.ResponseWriter
	flipped bool
}

func (f *flipper) Write(p []byte) (int, error) {
	if !f.flipped && len(p) > 0 {
		f.flipped = true
		p = bytes.Clone(p)
		p[0] ^= 1
	}
	return f.ResponseWriter.Write(p)
}

func putArtifact(t *testing.T, c *Client, repo reference.Repository, a fetchtest.Artifact) {
	t.Helper()
	blobs := []pack.Blob{blobOf(ocispec.MediaTypeEmptyJSON, a.Config)}
	for _, p := range a.Payloads {
		blobs = append(blobs, blobOf("application/octet-stream", p))
	}
	desc := blobOf(ocispec.MediaTypeImageManifest, a.Manifest).Descriptor
	if err := c.Push(t.Context(), repo.Tagged("v1"), blobs, a.Manifest, desc); err != nil {
		t.Fatalf("Push: %v", err)
	}
	var simple []trust.Candidate
	for _, s := range a.Signatures {
		if s.Form == trust.FormSimpleSigning {
			simple = append(simple, s)
			continue
		}
		if _, err := c.Attach(t.Context(), repo, desc, s.Payload, nil); err != nil {
			t.Fatalf("Attach: %v", err)
		}
	}
	if len(simple) > 0 {
		pushSignatureTag(t, c, repo, desc.Digest, simple)
	}
}

// pushSignatureTag writes signatures as cosign 1 and 2 do by default.
func pushSignatureTag(t *testing.T, c *Client, repo reference.Repository, subject digest.Digest, signatures []trust.Candidate) {
	t.Helper()
	m := signatureImage(signatures)
	blobs := []pack.Blob{blobOf(ocispec.MediaTypeImageConfig, []byte("{}"))}
	for _, s := range signatures {
		blobs = append(blobs, blobOf(simpleSigningType, s.Payload))
	}
	data := mustMarshal(m)
	desc := blobOf(ocispec.MediaTypeImageManifest, data).Descriptor
	if err := c.Push(t.Context(), repo.Tagged(referrersTag(subject)+".sig"), blobs, data, desc); err != nil {
		t.Fatalf("Push: %v", err)
	}
}

func signatureImage(signatures []trust.Candidate) ocispec.Manifest {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    blobOf(ocispec.MediaTypeImageConfig, []byte("{}")).Descriptor,
	}
	for _, s := range signatures {
		desc := blobOf(simpleSigningType, s.Payload).Descriptor
		desc.Annotations = s.Annotations
		m.Layers = append(m.Layers, desc)
	}
	return m
}

func TestRequestsPerColdArtifact(t *testing.T) {
	tests := map[string]struct {
		referrers bool
		want      []string // of "GET <place>"
	}{
		"with the referrers API": {true, []string{"manifests", "referrers", "manifests", "blobs", "blobs"}},
		"without":                {false, []string{"manifests", "referrers", "manifests", "manifests", "blobs", "blobs"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := newRegistry(t, test.referrers, nil)
			author := newTestClient(t)
			subject, layer := pushTest(t, author, repo, `{"defaultAction":"SCMP_ACT_ERRNO"}`)
			attachTest(t, author, repo, subject, "one")

			var log requestLog
			c := newTestClient(t, withLog(&log))
			pullOne(t, c, repo, subject, layer)
			if diff := cmp.Diff(test.want, places(t, log.take())); diff != "" {
				t.Errorf("requests of the first pull (-want +got):\n%s", diff)
			}
			pullOne(t, c, repo, subject, layer)
			if got := log.take(); len(got) != 5 {
				t.Errorf("the second pull took %d requests, want 5 by what was learned: %q", len(got), got)
			}
		})
	}
}

// pullOne does what a pull of an artifact with one good signature does.
func pullOne(t *testing.T, c *Client, repo reference.Repository, subject, layer ocispec.Descriptor) {
	t.Helper()
	if _, err := c.Manifest(t.Context(), repo, subject.Digest); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	candidate, err := c.Signatures(t.Context(), repo, subject.Digest, noneSeen).Next(t.Context())
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	if candidate.Form != trust.FormBundle {
		t.Errorf("the first candidate is a %s, want the bundle", candidate.Form)
	}
	if _, err := c.Blob(t.Context(), repo, layer); err != nil {
		t.Fatalf("Blob: %v", err)
	}
}

// places reduces "GET host/v2/team/web/manifests/x" to "manifests".
func places(t *testing.T, requests []string) []string {
	t.Helper()
	var got []string
	for _, r := range requests {
		method, path, _ := strings.Cut(r, " ")
		parts := strings.Split(path, "/")
		if method != http.MethodGet || len(parts) < 2 {
			t.Errorf("request %q, want only GET", r)
			continue
		}
		got = append(got, parts[len(parts)-2])
	}
	return got
}
