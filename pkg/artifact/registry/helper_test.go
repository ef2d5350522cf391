package registry

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// newRegistry starts a real registry on loopback, with wrap around it.
func newRegistry(t testing.TB, referrers bool, wrap func(http.Handler) http.Handler) reference.Repository {
	t.Helper()
	handler := ggcr.New(ggcr.WithReferrersSupport(referrers), ggcr.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		handler = wrap(handler)
	}
	return serve(t, handler)
}

// serve starts handler on loopback and returns a repository there.
func serve(t testing.TB, handler http.Handler) reference.Repository {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return reference.Repository{Host: strings.TrimPrefix(server.URL, "http://"), Path: "team/web"}
}

// testClock stands still but for Sleep, which takes no time.
type testClock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func newTestClock() *testClock {
	return &testClock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *testClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

func (c *testClock) total() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := time.Duration(0)
	for _, d := range c.slept {
		sum += d
	}
	return sum
}

// requestLog counts requests as they leave the client.
type requestLog struct {
	mu   sync.Mutex
	list []string
}

func (l *requestLog) add(method, host, path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, method+" "+host+path)
}

// take returns and forgets the requests so far.
func (l *requestLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// newTestClient returns a client that waits in no time and uses no proxy.
func newTestClient(t testing.TB, change ...func(*Options)) *Client {
	t.Helper()
	clock := newTestClock()
	opts := Options{
		Now: clock.Now, Sleep: clock.Sleep,
		proxy:  func(*http.Request) (*url.URL, error) { return nil, nil },
		jitter: func(d time.Duration) time.Duration { return d },
	}
	for _, f := range change {
		f(&opts)
	}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func withLog(l *requestLog) func(*Options) {
	return func(o *Options) { o.OnRequest = l.add }
}

func withClock(c *testClock) func(*Options) {
	return func(o *Options) { o.Now, o.Sleep = c.Now, c.Sleep }
}

// testArtifact is a KEP-6061 artifact of one payload.
func testArtifact(payload string) (manifest []byte, desc ocispec.Descriptor, blobs []pack.Blob) {
	blobs = []pack.Blob{
		blobOf(pack.ArtifactTypeSeccomp, []byte("{}")),
		blobOf("application/json", []byte(payload)),
	}
	manifest = mustMarshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: pack.ArtifactTypeSeccomp,
		Config:       blobs[0].Descriptor,
		Layers:       []ocispec.Descriptor{blobs[1].Descriptor},
	})
	return manifest, blobOf(ocispec.MediaTypeImageManifest, manifest).Descriptor, blobs
}

// pushTest pushes a KEP-6061 artifact and returns its descriptor and payload's.
func pushTest(t testing.TB, c *Client, repo reference.Repository, payload string) (subject, layer ocispec.Descriptor) {
	t.Helper()
	manifest, desc, blobs := testArtifact(payload)
	if err := c.Push(t.Context(), repo.Tagged("v1"), blobs, manifest, desc); err != nil {
		t.Fatalf("Push: %v", err)
	}
	return desc, blobs[1].Descriptor
}

func testBundle(text string) []byte {
	return mustMarshal(map[string]string{"mediaType": bundleType, "text": text})
}

// attachTest attaches a bundle without a valid signature.
func attachTest(t testing.TB, c *Client, repo reference.Repository, subject ocispec.Descriptor, text string) ocispec.Descriptor {
	t.Helper()
	desc, err := c.Attach(t.Context(), repo, subject, testBundle(text), nil)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return desc
}

// walkAll walks to the end, and returns candidates and skips.
func walkAll(t testing.TB, w artifact.Signatures) (found []trust.Candidate, skipped []error) {
	t.Helper()
	for range 100_000 {
		candidate, err := w.Next(t.Context())
		switch e := err.(type) { //nolint:errorlint // the contract is these very errors
		case nil:
			found = append(found, candidate)
		case *artifact.SkippedError:
			skipped = append(skipped, e)
		default:
			if err != io.EOF { //nolint:errorlint // the contract is io.EOF itself
				t.Fatalf("Next: %v", err)
			}
			return found, skipped
		}
	}
	t.Fatal("the walk does not end")
	return nil, nil
}

func noneSeen(digest.Digest) bool { return false }

func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
