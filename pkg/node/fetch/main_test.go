package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// What this test binary is when it is started as a child.
const (
	asChild = "as-fetch-child"
	asEvil  = "as-evil-child"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == asChild || os.Args[1] == asEvil) {
		os.Exit(beChild(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// beChild is the main of a child, with the flags of "confine-agent fetch".
func beChild(args []string) int {
	if args[0] == asEvil {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		return beEvil(args[1], args[2])
	}
	if err := Confine(); err != nil {
		io.WriteString(os.Stderr, err.Error()+"\n")
		return 1
	}
	c := Child{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), ControlFD: controlFD}
	for i := 1; i+1 < len(args); i += 2 {
		switch args[i] {
		case "--docker-config":
			c.DockerConfig = args[i+1]
		case "--ca-file":
			c.CAFile = args[i+1]
		case "--socket":
			c.ControlFD, c.Socket = 0, args[i+1]
		}
	}
	c.Open = func(readFile func(string) ([]byte, error)) (artifact.Fetcher, error) {
		return registry.New(registry.Options{DockerConfig: c.DockerConfig, CAFile: c.CAFile, ReadFile: readFile, MaxAttempts: 1, Log: c.Log})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx); err != nil {
		io.WriteString(os.Stderr, err.Error()+"\n")
		return 1
	}
	return 0
}

// testLimits are short where nothing is waited for that works.
func testLimits() limits {
	l := defaultLimits()
	l.restart, l.leave = 10*time.Millisecond, 5*time.Second
	return l
}

// start starts a Remote with this test binary as its child.
func start(t testing.TB, change ...func(*Options)) *Remote {
	t.Helper()
	opts := Options{Program: []string{"/proc/self/exe", asChild}, Log: testLog(t), limits: testLimits()}
	for _, f := range change {
		f(&opts)
	}
	r, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// source is a real registry on loopback.
type source struct {
	repo   reference.Repository
	client *registry.Client

	mu      sync.Mutex
	corrupt map[string]bool
	paths   []string
	demand  string // the password that is demanded; empty for none
}

func newSource(t testing.TB) *source {
	t.Helper()
	s := &source{corrupt: map[string]bool{}}
	next := ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		lie, demand := s.corrupt[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]], s.demand
		s.paths = append(s.paths, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		if _, password, _ := r.BasicAuth(); password != demand {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if lie && r.Method == http.MethodGet {
			w = &flipper{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.repo = reference.Repository{Host: strings.TrimPrefix(server.URL, "http://"), Path: "team/web"}
	var err error
	if s.client, err = registry.New(registry.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// take returns and forgets what was asked of the registry.
func (s *source) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.paths
	s.paths = nil
	return taken
}

func (s *source) lie(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corrupt[d.String()] = true
}

func (s *source) demandPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demand = password
}

// flipper changes the first byte of an answer.
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

func describe(mediaType string, data []byte) pack.Blob {
	return pack.Blob{Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, Data: data}
}

// put pushes an artifact with its signatures.
func (s *source) put(t testing.TB, a fetchtest.Artifact) {
	t.Helper()
	blobs := []pack.Blob{describe(ocispec.MediaTypeEmptyJSON, a.Config)}
	for _, p := range a.Payloads {
		blobs = append(blobs, describe("application/octet-stream", p))
	}
	desc := describe(ocispec.MediaTypeImageManifest, a.Manifest).Descriptor
	push := func(tag string, blobs []pack.Blob, manifest []byte) {
		d := describe(ocispec.MediaTypeImageManifest, manifest).Descriptor
		if err := s.client.Push(t.Context(), s.repo.Tagged(tag), blobs, manifest, d); err != nil {
			t.Fatal(err)
		}
	}
	push("v1", blobs, a.Manifest)
	config := describe(ocispec.MediaTypeImageConfig, []byte("{}"))
	simple := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config.Descriptor}
	simpleBlobs := []pack.Blob{config}
	for _, c := range a.Signatures {
		if c.Form == trust.FormBundle {
			if _, err := s.client.Attach(t.Context(), s.repo, desc, c.Payload, nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		blob := describe("application/vnd.dev.cosign.simplesigning.v1+json", c.Payload)
		blob.Descriptor.Annotations = c.Annotations
		simple.Layers = append(simple.Layers, blob.Descriptor)
		blob.Descriptor.Annotations = nil
		simpleBlobs = append(simpleBlobs, blob)
	}
	if len(simple.Layers) > 0 {
		data, err := json.Marshal(simple)
		if err != nil {
			t.Fatal(err)
		}
		push(strings.ReplaceAll(desc.Digest.String(), ":", "-")+".sig", simpleBlobs, data)
	}
}

func noneSeen(digest.Digest) bool { return false }

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to this: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// controls returns both ends of a control connection within this process.
func controls(t testing.TB) (parent, child *net.UnixConn) {
	t.Helper()
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	if parent, err = controlOf(a); err != nil {
		t.Fatal(err)
	}
	if child, err = controlOf(b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = parent.Close(); _ = child.Close() })
	return parent, child
}

// shutdownWrite ends what is written to one end of a pair.
func shutdownWrite(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ended error
	err = raw.Control(func(fd uintptr) { ended = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	return errors.Join(err, ended)
}
