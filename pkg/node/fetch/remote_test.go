package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func background() context.Context { return context.Background() }

func TestConformance(t *testing.T) {
	for name, begin := range map[string]func(t testing.TB) *Remote{
		"child started here": func(t testing.TB) *Remote { return start(t) },
		"child that dials":   func(t testing.TB) *Remote { return startListening(t) },
	} {
		t.Run(name, func(t *testing.T) {
			fetchtest.Run(t, func(t *testing.T) fetchtest.Case {
				s := newSource(t)
				return fetchtest.Case{
					Fetcher: begin(t), Repository: s.repo,
					Put:     func(t *testing.T, a fetchtest.Artifact) { s.put(t, a) },
					Corrupt: func(_ *testing.T, d digest.Digest) { s.lie(d) },
				}
			})
		})
	}
}

// What was seen is not fetched by the child either, and nothing is before it is
// wanted.
func TestWalkIsLazy(t *testing.T) {
	s, r := newSource(t), start(t)
	a := fetchtest.Example()
	s.put(t, a)
	s.take()
	ids := map[digest.Digest]bool{}
	w := r.Signatures(t.Context(), s.repo, a.Digest(), noneSeen)
	if asked := s.take(); len(asked) != 0 {
		t.Fatalf("before the first Next the registry was asked %q", asked)
	}
	c, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids[c.ID] = true
	first := s.take()
	if blobs := count(first, "/blobs/"); blobs != 1 {
		t.Errorf("for one candidate %d blobs were fetched: %q", blobs, first)
	}
	for {
		c, err := w.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ids[c.ID] = true
	}
	s.take()
	w = r.Signatures(t.Context(), s.repo, a.Digest(), func(id digest.Digest) bool { return ids[id] })
	if _, err := w.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Fatalf("Next = %v, want io.EOF", err)
	}
	if asked := s.take(); count(asked, "/blobs/") != 0 {
		t.Errorf("though all was seen, blobs were fetched: %q", asked)
	}
}

func count(paths []string, part string) int {
	n := 0
	for _, p := range paths {
		if strings.Contains(p, part) {
			n++
		}
	}
	return n
}

// A walk that is left alone gives its place back, and goes on where it was.
func TestWalkGoesOnAfterALongPause(t *testing.T) {
	s := newSource(t)
	r := start(t, func(o *Options) { o.limits.idle = 1 })
	a := fetchtest.Example()
	s.put(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := r.Signatures(ctx, s.repo, a.Digest(), noneSeen)
	var found []trust.Candidate
	for {
		c, err := w.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, c)
		eventually(t, "its place is free", func() bool { return len(r.slots) == 0 })
		cancel()
	}
	if len(found) != len(a.Signatures) {
		t.Errorf("found %d signatures, want %d", len(found), len(a.Signatures))
	}
}

// A caller that gives up ends the request in the child, too.
func TestGivingUpReachesTheRegistry(t *testing.T) {
	s, r := newSource(t), start(t)
	a := fetchtest.Example()
	s.put(t, a)
	for range 3 * r.limits.open {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, err := r.Manifest(ctx, s.repo, a.Digest()); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("Manifest: %v", err)
		}
	}
	if len(r.slots) != 0 {
		t.Errorf("%d places are still taken", len(r.slots))
	}
	if _, err := r.Manifest(t.Context(), s.repo, a.Digest()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestAskedForWhatCannotBe(t *testing.T) {
	r := start(t)
	good := reference.Repository{Host: "registry.example", Path: "team/web"}
	d := digest.FromString("x")
	tests := map[string]struct {
		repo reference.Repository
		desc ocispec.Descriptor
		want reason.Reason
	}{
		"upper case":     {reference.Repository{Host: "Registry.example", Path: "team/web"}, ocispec.Descriptor{Digest: d}, reason.UnsupportedArtifact},
		"no repository":  {reference.Repository{}, ocispec.Descriptor{Digest: d}, reason.UnsupportedArtifact},
		"path upwards":   {reference.Repository{Host: "registry.example", Path: "../../x"}, ocispec.Descriptor{Digest: d}, reason.UnsupportedArtifact},
		"a line break":   {reference.Repository{Host: "registry.example", Path: "a\nb"}, ocispec.Descriptor{Digest: d}, reason.UnsupportedArtifact},
		"no digest":      {good, ocispec.Descriptor{}, reason.UnsupportedArtifact},
		"another digest": {good, ocispec.Descriptor{Digest: digest.SHA512.FromString("x")}, reason.UnsupportedArtifact},
		"huge":           {good, ocispec.Descriptor{Digest: d, Size: 1 << 40}, reason.TooLarge},
		"negative":       {good, ocispec.Descriptor{Digest: d, Size: -1}, reason.TooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if data, err := r.Blob(t.Context(), test.repo, test.desc); !errors.Is(err, test.want) || data != nil {
				t.Errorf("Blob = %q, %v, want %s", data, err, test.want)
			}
		})
	}
}

func TestAfterClose(t *testing.T) {
	s := newSource(t)
	r, err := Start(t.Context(), Options{Program: []string{"/proc/self/exe", asChild}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Manifest(t.Context(), s.repo, digest.FromString("x")); !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("Manifest: %v, want RegistryUnavailable", err)
	}
}

func TestStartRefuses(t *testing.T) {
	folder := t.TempDir()
	open := filepath.Join(folder, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(folder, "taken")
	l, err := listenAt(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, opts := range map[string]Options{
		"a negative user":            {UID: -1},
		"files of a child elsewhere": {Socket: filepath.Join(folder, "a"), DockerConfig: file},
		"a folder for everybody":     {Socket: filepath.Join(open, "a")},
		"no folder":                  {Socket: filepath.Join(folder, "no", "such", "a")},
		"what is no socket":          {Socket: file},
		"where another listens":      {Socket: taken},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Start(t.Context(), opts)
			if !errors.Is(err, reason.InstallFailed) {
				t.Errorf("Start: %v, want InstallFailed", err)
			}
			if r != nil {
				t.Error(r.Close())
			}
		})
	}
}

func parse(t testing.TB, name string) reference.Repository {
	t.Helper()
	repo, err := reference.ParseRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}
