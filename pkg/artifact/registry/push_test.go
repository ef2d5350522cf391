package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func TestPushAndResolve(t *testing.T) {
	repo := newRegistry(t, true, nil)
	var log requestLog
	c := newTestClient(t, withLog(&log))
	manifest, desc, blobs := testArtifact(`{"a":1}`)
	if err := c.Push(t.Context(), repo.Tagged("v1"), blobs, manifest, desc); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []reference.Reference{repo.Tagged("v1"), repo.Pinned(desc.Digest), {Repository: repo, Tag: "absent", Digest: desc.Digest}} {
		got, err := c.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatalf("Resolve(%s): %v", ref, err)
		}
		if diff := cmp.Diff(desc, got); diff != "" {
			t.Errorf("Resolve(%s) (-want +got):\n%s", ref, diff)
		}
	}
	if _, err := c.Resolve(t.Context(), repo.Tagged("absent")); !errors.Is(err, reason.ArtifactNotFound) {
		t.Errorf("Resolve of an absent tag: %v, want ArtifactNotFound", err)
	}
	if _, err := c.Resolve(t.Context(), reference.Reference{Repository: repo}); !errors.Is(err, reason.UnsupportedArtifact) {
		t.Errorf("Resolve of neither tag nor digest: %v, want UnsupportedArtifact", err)
	}
	log.take()
	if err := c.Push(t.Context(), repo.Pinned(desc.Digest), blobs, manifest, desc); err != nil {
		t.Fatal(err)
	}
	if got := methods(log.take()); !slices.Equal(got, []string{"HEAD", "HEAD", "PUT"}) {
		t.Errorf("pushing again took %q, want what exists skipped", got)
	}
}

func methods(requests []string) []string {
	var got []string
	for _, r := range requests {
		method, _, _ := strings.Cut(r, " ")
		got = append(got, method)
	}
	return got
}

func TestPushOfOtherBytesIsRefused(t *testing.T) {
	var log requestLog
	c := newTestClient(t, withLog(&log))
	repo := newRegistry(t, true, nil)
	manifest, desc, blobs := testArtifact("{}")
	large := bytes.Repeat([]byte(" "), artifact.MaxManifestBytes+1)
	lying := slices.Clone(blobs)
	lying[1].Data = []byte("[]")
	tests := map[string]struct {
		ref      reference.Reference
		blobs    []pack.Blob
		manifest []byte
		desc     ocispec.Descriptor
		want     error
	}{
		"a blob":          {repo.Tagged("v1"), lying, manifest, desc, reason.DigestMismatch},
		"the manifest":    {repo.Tagged("v1"), blobs, append(bytes.Clone(manifest), ' '), desc, reason.DigestMismatch},
		"another digest":  {repo.Pinned(subjectDigest), blobs, manifest, desc, reason.DigestMismatch},
		"a huge manifest": {repo.Tagged("v1"), nil, large, blobOf("", large).Descriptor, reason.TooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checkRefusal(t, nil, c.Push(t.Context(), test.ref, test.blobs, test.manifest, test.desc), test.want)
		})
	}
	if got := log.take(); len(got) != 0 {
		t.Errorf("requests were sent: %q", got)
	}
}

func TestPushesThatFail(t *testing.T) {
	manifest, desc, blobs := testArtifact("{}")
	accept := func(location string) http.HandlerFunc { return status(202, "Location", location) }
	tests := map[string]struct {
		post, put, manifest http.HandlerFunc
		want                error
	}{
		"as it should be":          {accept("/v2/up?state=x"), status(201), status(201), nil},
		"older statuses":           {accept("/up"), status(204), status(202), nil},
		"upload to another host":   {accept("http://127.0.0.1:1/up"), status(201), status(201), reason.RegistryUnavailable},
		"upload with a user":       {accept("//u:p@127.0.0.1/up"), status(201), status(201), reason.RegistryUnavailable},
		"upload to nowhere":        {accept(""), status(201), status(201), reason.RegistryUnavailable},
		"no right to push":         {status(403), status(201), status(201), reason.Unauthorized},
		"upload redirected":        {redirect(307, "/elsewhere"), status(201), status(201), reason.RegistryUnavailable},
		"blob refused":             {accept("/up"), status(400), status(201), reason.UnsupportedArtifact},
		"blob too large":           {accept("/up"), status(413), status(201), reason.TooLarge},
		"manifest refused":         {accept("/up"), status(201), status(400), reason.UnsupportedArtifact},
		"manifest changed":         {accept("/up"), status(201), status(201, "Docker-Content-Digest", subjectDigest.String()), reason.DigestMismatch},
		"registry down in the end": {accept("/up"), status(201), status(503), reason.RegistryUnavailable},
		"registry limits":          {accept("/up"), status(429, "Retry-After", "600"), status(201), reason.RateLimited},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(404)
				case r.Method == http.MethodPost:
					test.post(w, r)
				case strings.Contains(r.URL.Path, "/manifests/"):
					test.manifest(w, r)
				default:
					test.put(w, r)
				}
			}))
			err := newTestClient(t).Push(t.Context(), repo.Tagged("v1"), blobs, manifest, desc)
			if test.want == nil {
				if err != nil {
					t.Errorf("Push: %v", err)
				}
				return
			}
			checkRefusal(t, nil, err, test.want)
		})
	}
}

func TestUploadsAreBegunAnew(t *testing.T) {
	broken := 2
	repo := newRegistry(t, true, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") && broken > 0 {
				broken--
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	c := newTestClient(t)
	subject, layer := pushTest(t, c, repo, "{}")
	if _, err := c.Blob(t.Context(), repo, layer); err != nil {
		t.Error(err)
	}
	if _, err := c.Manifest(t.Context(), repo, subject.Digest); err != nil {
		t.Error(err)
	}
}

func TestUploadURL(t *testing.T) {
	e := endpoint{scheme: "https", host: "registry.test"}
	tests := map[string]string{
		"/v2/a/x?y=z":                   "https://registry.test/v2/a/x?y=z",
		"x":                             "https://registry.test/v2/a/blobs/uploads/x",
		"http://registry.test/x":        "https://registry.test/x", // behind a TLS proxy
		"https://registry.test:443/x":   "https://registry.test:443/x",
		"https://registry.test:8443/x":  "",
		"http://registry.test:80/x":     "",
		"https://cdn.registry.test/x":   "",
		"https://user@registry.test/x":  "",
		"https://registry.test.evil/x":  "",
		"https:\\\\registry.test@evil/": "",
	}
	for location, want := range tests {
		u, err := uploadURL(e, e.url("/v2/a/blobs/uploads/"), location)
		if want == "" {
			if err == nil {
				t.Errorf("%q is followed to %s, want it refused", location, u)
			}
			continue
		}
		if err != nil || u.String() != want {
			t.Errorf("%q: %v, %v, want %s", location, u, err, want)
		}
	}
}

// The layout is what cosign v3.1.3 writes, byte for byte but for the creation
// time: WriteReferrer in pkg/oci/remote/write.go.
func TestAttachIsLaidOutAsCosignDoes(t *testing.T) {
	repo := newRegistry(t, true, nil)
	c := newTestClient(t)
	subject, _ := pushTest(t, c, repo, "{}")
	desc, err := c.Attach(t.Context(), repo, subject, []byte(`{"b":1}`), map[string]string{"org.opencontainers.image.created": "2026-11-23T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Manifest(t.Context(), repo, desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{
		"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.manifest.v1+json",
		"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"config": {
			"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
			"digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
			"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"
		},
		"layers": [{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "size": 7, "digest": %q}],
		"subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": %d, "digest": %q},
		"annotations": {
			"org.opencontainers.image.created": "2026-11-23T00:00:00Z",
			"dev.sigstore.bundle.content": "dsse-envelope",
			"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"
		}
	}`, digest.FromString(`{"b":1}`), subject.Size, subject.Digest)
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
}

func TestAttachWithoutReferrersAPI(t *testing.T) {
	repo := newRegistry(t, false, nil)
	c := newTestClient(t)
	subject, _ := pushTest(t, c, repo, "{}")
	tag := repo.Tagged(referrersTag(subject.Digest))

	one := attachTest(t, c, repo, subject, "one")
	first, err := c.Resolve(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	if again := attachTest(t, c, repo, subject, "one"); again.Digest != one.Digest {
		t.Errorf("attaching again made %s, want %s", again.Digest, one.Digest)
	}
	if same, err := c.Resolve(t.Context(), tag); err != nil || same.Digest != first.Digest {
		t.Errorf("attaching again changed the index: %v, %v", same, err)
	}
	// What others wrote into the index stays.
	foreign := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"x":"y"},"manifests":[%s]}`,
		ocispec.MediaTypeImageIndex, `{"mediaType":"`+one.MediaType+`","digest":"`+one.Digest.String()+`","size":`+fmt.Sprint(one.Size)+`,"urls":["u"]}`))
	if err := c.Push(t.Context(), tag, nil, foreign, blobOf(ocispec.MediaTypeImageIndex, foreign).Descriptor); err != nil {
		t.Fatal(err)
	}
	two := attachTest(t, c, repo, subject, "two")
	index, _, err := c.manifest(t.Context(), repo, tag.Tag, "")
	if err != nil {
		t.Fatal(err)
	}
	var got ocispec.Index
	if err := json.Unmarshal(index, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Manifests) != 2 || got.Annotations["x"] != "y" || !slices.Equal(got.Manifests[0].URLs, []string{"u"}) {
		t.Fatalf("index %s, want the foreign parts kept and one entry more", index)
	}
	want := two
	want.ArtifactType = bundleType
	want.Annotations = map[string]string{annotationContent: "dsse-envelope", annotationPredicate: signPredicate}
	if diff := cmp.Diff(want, got.Manifests[1]); diff != "" {
		t.Errorf("our entry (-want +got):\n%s", diff)
	}
}

func TestAttachDoesNotReplaceWhatIsNoIndex(t *testing.T) {
	repo := newRegistry(t, false, nil)
	c := newTestClient(t)
	subject, _ := pushTest(t, c, repo, "{}")
	manifest, desc, blobs := testArtifact(`{"somebody":"else's"}`)
	tag := repo.Tagged(referrersTag(subject.Digest))
	if err := c.Push(t.Context(), tag, blobs, manifest, desc); err != nil {
		t.Fatal(err)
	}
	_, err := c.Attach(t.Context(), repo, subject, testBundle("x"), nil)
	checkRefusal(t, nil, err, reason.UnsupportedArtifact)
	if got, err := c.Resolve(t.Context(), tag); err != nil || got.Digest != desc.Digest {
		t.Errorf("the tag holds %v, %v, want it unchanged", got.Digest, err)
	}
}

func TestAttachAtTheSameTime(t *testing.T) {
	repo := newRegistry(t, false, nil)
	c := newTestClient(t)
	subject, _ := pushTest(t, c, repo, "{}")
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		all.Go(func() {
			_, errs[i] = c.Attach(t.Context(), repo, subject, testBundle(fmt.Sprint(i)), nil)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	found, skipped := walkAll(t, c.Signatures(t.Context(), repo, subject.Digest, noneSeen))
	got := texts(found)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"0", "1", "2", "3"}, got); diff != "" || len(skipped) != 0 {
		t.Errorf("skipped %v, signatures (-want +got):\n%s", skipped, diff)
	}
}

// Another program may rewrite the index between our reading and writing.
func TestAttachWhileOthersWrite(t *testing.T) {
	var steal func()
	repo := newRegistry(t, false, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/sha256-") && steal != nil {
				steal()
			}
		})
	})
	c := newTestClient(t)
	subject, _ := pushTest(t, c, repo, "{}")
	other := newTestClient(t)
	thefts := 0
	steal = func() {
		if thefts++; thefts > 2 {
			return
		}
		theft := steal
		steal = nil
		empty := indexOf()
		if err := other.Push(t.Context(), repo.Tagged(referrersTag(subject.Digest)), nil, empty, blobOf(ocispec.MediaTypeImageIndex, empty).Descriptor); err != nil {
			t.Error(err)
		}
		steal = theft
	}
	attachTest(t, c, repo, subject, "ours")
	found, _ := walkAll(t, c.Signatures(t.Context(), repo, subject.Digest, noneSeen))
	if diff := cmp.Diff([]string{"ours"}, texts(found)); diff != "" || thefts != 3 {
		t.Errorf("after %d writes, want 3 (-want +got):\n%s", thefts, diff)
	}
}

func TestAttachBounds(t *testing.T) {
	c, repo := newTestClient(t), newRegistry(t, true, nil)
	subject, _ := pushTest(t, c, repo, "{}")
	_, err := c.Attach(t.Context(), repo, subject, make([]byte, trust.MaxCandidateBytes+1), nil)
	checkRefusal(t, nil, err, reason.TooLarge)
	_, err = c.Attach(t.Context(), repo, ocispec.Descriptor{Digest: "sha512:x"}, testBundle("x"), nil)
	checkRefusal(t, nil, err, reason.UnsupportedArtifact)
}
