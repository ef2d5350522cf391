package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// fakeRegistry serves what a test puts in, true or not.
type fakeRegistry struct {
	mu        sync.Mutex
	manifests map[string][]byte // by digest or tag
	blobs     map[string][]byte
	referrers http.HandlerFunc // nil: 404
	fail      map[string]int   // status by the last part of the path
	asked     map[string]int   // by the last two parts of the path
}

func newFakeRegistry() *fakeRegistry {
	return &fakeRegistry{manifests: map[string][]byte{}, blobs: map[string][]byte{}, fail: map[string]int{}, asked: map[string]int{}}
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	parts := strings.Split(r.URL.Path, "/")
	kind, name := parts[len(parts)-2], parts[len(parts)-1]
	f.asked[kind]++
	if code := f.fail[name]; code != 0 {
		w.WriteHeader(code)
		return
	}
	switch {
	case kind == "referrers" && f.referrers != nil:
		f.referrers(w, r)
	case kind == "manifests" && f.manifests[name] != nil:
		mediaType := ocispec.MediaTypeImageManifest
		if strings.Contains(string(f.manifests[name]), `"manifests":`) {
			mediaType = ocispec.MediaTypeImageIndex
		}
		body(mediaType, f.manifests[name])(w, r)
	case kind == "blobs" && f.blobs[name] != nil:
		body("application/octet-stream", f.blobs[name])(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// manifest stores data and returns its descriptor.
func (f *fakeRegistry) manifest(m ocispec.Manifest) ocispec.Descriptor {
	data := mustMarshal(m)
	desc := blobOf(ocispec.MediaTypeImageManifest, data).Descriptor
	f.manifests[desc.Digest.String()] = data
	desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
	return desc
}

func (f *fakeRegistry) blob(mediaType string, data []byte) ocispec.Descriptor {
	desc := blobOf(mediaType, data).Descriptor
	f.blobs[desc.Digest.String()] = data
	return desc
}

// bundle stores a bundle as a referrer of subject.
func (f *fakeRegistry) bundle(subject digest.Digest, text, predicate string) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundleType,
		Config:  blobOf(ocispec.MediaTypeEmptyJSON, []byte("{}")).Descriptor,
		Layers:  []ocispec.Descriptor{f.blob(bundleType, testBundle(text))},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 2},
	}
	if predicate != "" {
		m.Annotations = map[string]string{annotationPredicate: predicate}
	}
	return f.manifest(m)
}

// simple stores cosign 2's referrer with one layer for each text.
func (f *fakeRegistry) simple(subject digest.Digest, texts ...string) ocispec.Descriptor {
	var signatures []trust.Candidate
	for _, text := range texts {
		signatures = append(signatures, simpleCandidate(text))
		f.blob(simpleSigningType, []byte("payload"))
	}
	m := signatureImage(signatures)
	m.ArtifactType = cosignReferrerType
	m.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 2}
	return f.manifest(m)
}

func simpleCandidate(text string) trust.Candidate {
	return trust.Candidate{Form: trust.FormSimpleSigning, Payload: []byte("payload"), Annotations: map[string]string{"sig": text}}
}

func indexOf(descs ...ocispec.Descriptor) []byte {
	return mustMarshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: descs})
}

func (f *fakeRegistry) list(descs ...ocispec.Descriptor) {
	f.referrers = body(ocispec.MediaTypeImageIndex, indexOf(descs...))
}

// texts names the candidates by what the test put into them.
func texts(candidates []trust.Candidate) []string {
	var got []string
	for _, c := range candidates {
		if c.Form == trust.FormSimpleSigning {
			got = append(got, c.Annotations["sig"])
			continue
		}
		_, text, _ := strings.Cut(string(c.Payload), `"text":"`)
		got = append(got, strings.TrimSuffix(text, `"}`))
	}
	return got
}

const subjectDigest = digest.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

func TestWalkOrder(t *testing.T) {
	f := newFakeRegistry()
	unlabelled := f.bundle(subjectDigest, "unlabelled", "")
	unlabelled.ArtifactType, unlabelled.Annotations = ocispec.MediaTypeEmptyJSON, nil
	sbom := f.bundle(subjectDigest, "an SBOM", "")
	sbom.ArtifactType = "application/spdx+json"
	f.list(
		sbom, unlabelled,
		f.bundle(subjectDigest, "attestation", "https://slsa.dev/provenance/v1"),
		f.simple(subjectDigest, "cosign 2 first", "cosign 2 second"),
		f.bundle(subjectDigest, "plain bundle", ""),
		f.bundle(subjectDigest, "signed", signPredicate),
	)
	f.manifests[referrersTag(subjectDigest)] = indexOf(
		f.bundle(subjectDigest, "tagged attestation", "x"), f.bundle(subjectDigest, "tagged", signPredicate),
		f.bundle(subjectDigest, "signed", signPredicate), // is in both
	)
	f.blob(simpleSigningType, []byte("payload"))
	f.manifests[referrersTag(subjectDigest)+".sig"] = mustMarshal(signatureImage([]trust.Candidate{
		simpleCandidate("legacy"), simpleCandidate("legacy"), simpleCandidate("legacy other"),
	}))
	found, skipped := walkAll(t, newTestClient(t).Signatures(t.Context(), serve(t, f), subjectDigest, noneSeen))
	if d := f.bundle(subjectDigest, "signed", signPredicate).Digest; len(found) == 0 || found[0].ID != d {
		t.Errorf("the ID of a bundle is not its referrer's digest %s", d)
	}
	want := []string{
		"signed", "plain bundle", "cosign 2 first", "cosign 2 second", "attestation", "unlabelled",
		"tagged", "tagged attestation", "legacy", "legacy other",
	}
	if diff := cmp.Diff(want, texts(found)); diff != "" || len(skipped) != 0 {
		t.Errorf("skipped %v, candidates (-want +got):\n%s", skipped, diff)
	}
}

func TestWalkIsLazy(t *testing.T) {
	f := newFakeRegistry()
	f.list(f.bundle(subjectDigest, "one", signPredicate), f.bundle(subjectDigest, "two", signPredicate))
	w := newTestClient(t).Signatures(t.Context(), serve(t, f), subjectDigest, noneSeen)
	if len(f.asked) != 0 {
		t.Errorf("before Next: %v requests, want none", f.asked)
	}
	for n := 1; n <= 2; n++ {
		if _, err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int{"referrers": 1, "manifests": n, "blobs": n}, f.asked); diff != "" {
			t.Errorf("after Next number %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestSeenCandidatesAreNotFetched(t *testing.T) {
	f := newFakeRegistry()
	seen := f.bundle(subjectDigest, "seen", signPredicate)
	single := f.simple(subjectDigest, "single")
	f.list(seen, single, f.bundle(subjectDigest, "new", signPredicate))
	repo := serve(t, f)
	every, _ := walkAll(t, newTestClient(t).Signatures(t.Context(), repo, subjectDigest, noneSeen))
	if len(every) != 3 || every[2].ID != single.Digest {
		t.Errorf("the ID of a referrer's only signature is not the referrer's digest %s", single.Digest)
	}
	f.asked = map[string]int{}
	found, _ := walkAll(t, newTestClient(t).Signatures(t.Context(), repo, subjectDigest, func(d digest.Digest) bool {
		return d == seen.Digest || d == single.Digest
	}))
	if diff := cmp.Diff([]string{"new"}, texts(found)); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	// One manifest for the new one, two for the tags that are not there.
	if diff := cmp.Diff(map[string]int{"referrers": 1, "manifests": 3, "blobs": 1}, f.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestPlacesThatFail(t *testing.T) {
	tests := map[string]struct {
		code int
		want error // of the skipped place; nil: passed over
	}{
		"400": {400, nil}, "404": {404, nil}, "405": {405, nil}, "406": {406, nil}, "501": {501, nil},
		"401": {401, reason.Unauthorized}, "403": {403, reason.Unauthorized},
		"429": {429, reason.RateLimited}, "500": {500, reason.RegistryUnavailable}, "503": {503, reason.RegistryUnavailable},
	}
	for name, test := range tests {
		t.Run("referrers API "+name, func(t *testing.T) {
			f := newFakeRegistry()
			f.referrers = status(test.code)
			f.manifests[referrersTag(subjectDigest)] = indexOf(f.bundle(subjectDigest, "tagged", signPredicate))
			checkOnePlaceSkipped(t, f, test.want, "tagged")
		})
	}
	for name, want := range map[int]error{404: nil, 403: reason.Unauthorized, 500: reason.RegistryUnavailable} {
		t.Run(fmt.Sprintf("index tag %d", name), func(t *testing.T) {
			f := newFakeRegistry()
			f.fail[referrersTag(subjectDigest)] = name
			f.blob(simpleSigningType, []byte("payload"))
			f.manifests[referrersTag(subjectDigest)+".sig"] = mustMarshal(signatureImage([]trust.Candidate{simpleCandidate("legacy")}))
			checkOnePlaceSkipped(t, f, want, "legacy")
		})
	}
	lists := map[string]http.HandlerFunc{
		"truncated": truncated(ocispec.MediaTypeImageIndex, indexOf(ocispec.Descriptor{MediaType: strings.Repeat("x", 500)})),
		"no JSON":   body(ocispec.MediaTypeImageIndex, []byte("{")),
		"a list":    body(ocispec.MediaTypeImageIndex, []byte("[]")),
		"no list":   body(ocispec.MediaTypeImageIndex, []byte(`{"manifests":{}}`)),
		"deep":      body(ocispec.MediaTypeImageIndex, []byte(strings.Repeat("[", 1<<20))),
		"deep part": body(ocispec.MediaTypeImageIndex, []byte(`{"manifests":[{"x":`+strings.Repeat("[", 1<<20))),
	}
	for name, handler := range lists {
		t.Run("list "+name, func(t *testing.T) {
			f := newFakeRegistry()
			f.referrers = handler
			f.manifests[referrersTag(subjectDigest)] = indexOf(f.bundle(subjectDigest, "tagged", signPredicate))
			checkOnePlaceSkipped(t, f, reason.RegistryUnavailable, "tagged")
		})
	}
	t.Run("a web page instead of a list", func(t *testing.T) {
		f := newFakeRegistry()
		f.referrers = body("text/html", []byte("<html>"))
		f.manifests[referrersTag(subjectDigest)] = indexOf(f.bundle(subjectDigest, "tagged", signPredicate))
		checkOnePlaceSkipped(t, f, nil, "tagged")
	})
}

func checkOnePlaceSkipped(t *testing.T, f *fakeRegistry, want error, rest string) {
	t.Helper()
	found, skipped := walkAll(t, newTestClient(t).Signatures(t.Context(), serve(t, f), subjectDigest, noneSeen))
	if diff := cmp.Diff([]string{rest}, texts(found)); diff != "" {
		t.Errorf("candidates of the other places (-want +got):\n%s", diff)
	}
	switch {
	case want == nil && len(skipped) == 0:
	case want != nil && len(skipped) == 1 && errors.Is(skipped[0], want):
	default:
		t.Errorf("skipped %v, want %v", skipped, want)
	}
}

func TestBadReferrers(t *testing.T) {
	other := digest.FromString("another artifact")
	f := newFakeRegistry()
	twoLayers := ocispec.Manifest{
		ArtifactType: bundleType, Subject: &ocispec.Descriptor{Digest: subjectDigest},
		Layers: []ocispec.Descriptor{f.blob(bundleType, testBundle("a")), f.blob(bundleType, testBundle("b"))},
	}
	tooLarge := ocispec.Manifest{
		ArtifactType: bundleType, Subject: &ocispec.Descriptor{Digest: subjectDigest},
		Layers: []ocispec.Descriptor{{MediaType: bundleType, Digest: other, Size: trust.MaxCandidateBytes + 1}},
	}
	noJSON := blobOf(bundleType, []byte("no JSON")).Descriptor
	f.manifests[noJSON.Digest.String()] = []byte("no JSON")
	broken := f.bundle(subjectDigest, "the registry serves other bytes", signPredicate)
	f.manifests[broken.Digest.String()] = []byte("{}")
	away := f.bundle(subjectDigest, "not there", signPredicate)
	delete(f.manifests, away.Digest.String())
	hollow := f.bundle(subjectDigest, "without its blob", signPredicate)
	delete(f.blobs, digest.FromBytes(testBundle("without its blob")).String())
	down := f.bundle(subjectDigest, "cannot be read", signPredicate)
	f.fail[down.Digest.Encoded()], f.fail[down.Digest.String()] = 500, 500
	lies := f.bundle(other, "of another artifact", signPredicate)
	none := f.manifest(ocispec.Manifest{ArtifactType: bundleType, Layers: twoLayers.Layers[:1]})
	descs := []ocispec.Descriptor{
		lies, none, f.manifest(twoLayers), f.manifest(tooLarge), noJSON, broken, away, hollow, down,
		{ArtifactType: bundleType, Digest: "sha256:zz"}, {ArtifactType: bundleType, Digest: digest.SHA512.FromString("x")},
		{ArtifactType: bundleType, Digest: other, Size: artifact.MaxManifestBytes + 1}, {},
		f.bundle(subjectDigest, "good", signPredicate),
	}
	for i := range descs {
		descs[i].MediaType, descs[i].ArtifactType = ocispec.MediaTypeImageManifest, bundleType
		descs[i].Annotations = map[string]string{annotationPredicate: signPredicate}
	}
	f.list(descs...)
	c, repo := newTestClient(t), serve(t, f)
	found, skipped := walkAll(t, c.Signatures(t.Context(), repo, subjectDigest, noneSeen))
	if diff := cmp.Diff([]string{"good"}, texts(found)); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	if len(skipped) != 2 || !errors.Is(skipped[0], reason.DigestMismatch) || !errors.Is(skipped[1], reason.RegistryUnavailable) {
		t.Errorf("skipped %v, want the one with other bytes and the one that cannot be read", skipped)
	}
	var s *artifact.SkippedError
	if len(skipped) == 2 && (!errors.As(skipped[1], &s) || s.ID != down.Digest) {
		t.Errorf("%v does not name the candidate %s", skipped[1], down.Digest)
	}
	// What is no signature of this subject by its very content is not read again.
	before := f.asked["manifests"]
	walkAll(t, c.Signatures(t.Context(), repo, subjectDigest, noneSeen))
	if got := f.asked["manifests"] - before; got != 1+4+1+2 {
		t.Errorf("a second walk read %d manifests, want broken, down (4 attempts), good and two tags", got)
	}
	// For another subject the same manifest counts.
	found, _ = walkAll(t, c.Signatures(t.Context(), repo, other, noneSeen))
	if diff := cmp.Diff([]string{"of another artifact"}, texts(found)); diff != "" {
		t.Errorf("candidates of the other subject (-want +got):\n%s", diff)
	}
}

func TestThousandCandidates(t *testing.T) {
	f := newFakeRegistry()
	t.Run("as referrers", func(t *testing.T) {
		var descs []ocispec.Descriptor
		for i := range 1000 {
			descs = append(descs, f.bundle(subjectDigest, fmt.Sprint(i), signPredicate))
		}
		f.list(descs...)
		checkPasses(t, f, 1000)
	})
	t.Run("under the tag", func(t *testing.T) {
		f.referrers = nil
		f.blob(simpleSigningType, []byte("payload"))
		var signatures []trust.Candidate
		for i := range 1000 {
			signatures = append(signatures, simpleCandidate(fmt.Sprint(i)))
		}
		f.manifests[referrersTag(subjectDigest)+".sig"] = mustMarshal(signatureImage(signatures))
		f.asked = map[string]int{}
		checkPasses(t, f, 1000)
		if passes := 1000/artifact.CandidatesPerPass + 1; f.asked["blobs"] != passes {
			t.Errorf("the one payload was read %d times, want once in each of %d passes", f.asked["blobs"], passes)
		}
	})
}

// checkPasses tries all candidates in passes, and meets each exactly once.
func checkPasses(t *testing.T, f *fakeRegistry, total int) {
	t.Helper()
	c, repo := newTestClient(t), serve(t, f)
	seen := map[digest.Digest]bool{}
	for len(seen) < total {
		before := len(seen)
		w := c.Signatures(t.Context(), repo, subjectDigest, func(d digest.Digest) bool { return seen[d] })
		for range artifact.CandidatesPerPass {
			candidate, err := w.Next(t.Context())
			if err == io.EOF { //nolint:errorlint // the contract is io.EOF itself
				break
			}
			if err != nil || seen[candidate.ID] {
				t.Fatalf("Next = %s, %v, want a new candidate", candidate.ID, err)
			}
			seen[candidate.ID] = true
		}
		if len(seen) == before {
			t.Fatalf("no progress after %d of %d", before, total)
		}
	}
}

func TestWalkIsBoundedInTime(t *testing.T) {
	f := newFakeRegistry()
	var descs []ocispec.Descriptor
	for i := range 100 {
		descs = append(descs, f.bundle(digest.FromString("another"), fmt.Sprint(i), signPredicate))
	}
	f.list(append(descs, f.bundle(subjectDigest, "good", signPredicate))...)
	clock := newTestClock()
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clock.advance(time.Second)
		f.ServeHTTP(w, r)
	}))
	c := newTestClient(t, withClock(clock), func(o *Options) { o.WalkTimeout = 30 * time.Second })
	w := c.Signatures(t.Context(), repo, subjectDigest, noneSeen)
	var passes atomic.Int64
	for {
		passes.Add(1)
		found, skipped := walkAll(t, w)
		if len(found) == 1 {
			break
		}
		if len(skipped) != 1 || !errors.Is(skipped[0], reason.RegistryUnavailable) || passes.Load() > 5 {
			t.Fatalf("pass %d: %v, want one skip that says the time is over", passes.Load(), skipped)
		}
		w = c.Signatures(t.Context(), repo, subjectDigest, noneSeen)
	}
	if passes.Load() < 3 {
		t.Errorf("%d passes, want the time bound to end some", passes.Load())
	}
}

// Time that ran out while a candidate was read must not look like the end of
// all candidates.
func TestTimeIsOverAfterACandidate(t *testing.T) {
	f := newFakeRegistry()
	f.list(f.bundle(subjectDigest, "one", signPredicate), f.bundle(subjectDigest, "two", signPredicate))
	clock := newTestClock()
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			clock.advance(time.Hour)
		}
		f.ServeHTTP(w, r)
	}))
	found, skipped := walkAll(t, newTestClient(t, withClock(clock)).Signatures(t.Context(), repo, subjectDigest, noneSeen))
	if len(found) != 1 || len(skipped) != 1 || !errors.Is(skipped[0], reason.RegistryUnavailable) {
		t.Errorf("found %q, skipped %v, want one of each", texts(found), skipped)
	}
}

func TestWalkGoesOnAfterAnInterruption(t *testing.T) {
	f := newFakeRegistry()
	f.list(f.bundle(subjectDigest, "one", signPredicate), f.bundle(subjectDigest, "two", signPredicate))
	var requests atomic.Int64
	var cancel context.CancelFunc
	var stopAt int64
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == stopAt {
			cancel()
			<-r.Context().Done()
			return
		}
		f.ServeHTTP(w, r)
	}))
	for stopAt = 1; stopAt <= 5; stopAt++ {
		requests.Store(0)
		w := newTestClient(t).Signatures(t.Context(), repo, subjectDigest, noneSeen)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		cancel = stop
		var found []trust.Candidate
		for {
			candidate, err := w.Next(ctx)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("interrupted at request %d: %v, want context.Canceled", stopAt, err)
				}
				break
			}
			found = append(found, candidate)
		}
		rest, _ := walkAll(t, w)
		if diff := cmp.Diff([]string{"one", "two"}, texts(append(found, rest...))); diff != "" {
			t.Errorf("interrupted at request %d (-want +got):\n%s", stopAt, diff)
		}
	}
}
