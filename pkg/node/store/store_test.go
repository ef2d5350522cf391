package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/node/store"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/reason"
)

func repo() reference.Repository {
	return reference.Repository{Host: "registry.example.com", Path: "team/web"}
}

func open(t *testing.T, dir string, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// made is a verified artifact as a pull returns it.
func made(a fetchtest.Artifact) *artifact.Artifact {
	art := &artifact.Artifact{Evidence: artifact.Evidence{
		Repository: repo(), Digest: a.Digest(),
		Manifests: []digest.Digest{a.Digest()}, ManifestBytes: [][]byte{a.Manifest},
		Payloads: a.Layers(), Signatures: a.Signatures,
	}}
	for i, p := range a.Payloads {
		art.Payloads = append(art.Payloads, artifact.Payload{Kind: "alpha", File: fmt.Sprintf("%d.alpha", i), Digest: digest.FromBytes(p), Data: p})
	}
	return art
}

func example(n int) *artifact.Artifact {
	a := fetchtest.Artifact{Manifest: fmt.Appendf(nil, `{"n":%d}`, n), Payloads: [][]byte{fmt.Appendf(nil, "payload %d", n), []byte("shared")}}
	a.Signatures = []trust.Candidate{{ID: digest.FromString("id"), Form: trust.FormBundle, Payload: []byte("{}")}}
	return made(a)
}

func sourceOf(art *artifact.Artifact) unit.Source {
	return unit.Source{Repository: art.Evidence.Repository, Digest: art.Evidence.Digest}
}

func TestFetcher(t *testing.T) {
	fetchtest.Run(t, func(t *testing.T) fetchtest.Case {
		dir := t.TempDir()
		s := open(t, dir, store.Options{})
		return fetchtest.Case{
			Fetcher: s, Repository: repo(),
			Put: func(t *testing.T, a fetchtest.Artifact) {
				t.Helper()
				if err := s.Put(t.Context(), made(a)); err != nil {
					t.Fatal(err)
				}
			},
			Corrupt: func(t *testing.T, d digest.Digest) {
				t.Helper()
				spoil(t, filepath.Join(dir, "blobs/sha256", d.Encoded()))
			},
		}
	})
}

func spoil(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPutRepairsAndIsIdempotent(t *testing.T) {
	dir := t.TempDir()
	writes := 0
	s := open(t, dir, store.Options{Before: func(step durable.Step) error {
		if step.Op == durable.OpWrite && filepath.Dir(step.Name) == "blobs/sha256" {
			writes++
		}
		return nil
	}})
	art := example(1)
	for want := range 2 {
		if err := s.Put(t.Context(), art); err != nil {
			t.Fatal(err)
		}
		if writes != 3 {
			t.Fatalf("after %d puts %d blobs were written, want 3", want+1, writes)
		}
	}
	blob := filepath.Join(dir, "blobs/sha256", art.Payloads[0].Digest.Encoded())
	for name, damage := range map[string]func(){
		"other bytes": func() { spoil(t, blob) },
		"a folder":    func() { _ = os.Remove(blob); _ = os.MkdirAll(filepath.Join(blob, "x"), 0o700) },
		"a link":      func() { _ = os.Remove(blob); _ = os.Symlink("/etc/passwd", blob) },
	} {
		damage()
		file := unit.File{Name: "x", Digest: art.Payloads[0].Digest, Size: int64(len(art.Payloads[0].Data))}
		if _, err := s.File(t.Context(), file); !errors.Is(err, reason.DigestMismatch) {
			t.Errorf("%s: File = %v, want DigestMismatch", name, err)
		}
		if err := s.Put(t.Context(), art); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := s.File(t.Context(), file); err != nil || !bytes.Equal(got, art.Payloads[0].Data) {
			t.Errorf("%s: File = %q, %v", name, got, err)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *artifact.Artifact)
		want   reason.Reason
	}{
		"bytes of another digest": {func(a *artifact.Artifact) { a.Payloads[0].Data = []byte("x") }, reason.DigestMismatch},
		"manifest without bytes":  {func(a *artifact.Artifact) { a.Evidence.ManifestBytes = nil }, reason.InstallFailed},
		"a signature too large": {func(a *artifact.Artifact) {
			a.Evidence.Signatures[0].Payload = make([]byte, trust.MaxCandidateBytes+1)
		}, reason.TooLarge},
		"a digest that is a path": {func(a *artifact.Artifact) { a.Evidence.Manifests[0] = "sha256:../../x" }, reason.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), store.Options{})
			art := example(1)
			c.change(art)
			if err := s.Put(t.Context(), art); !errors.Is(err, c.want) {
				t.Errorf("Put = %v, want %s", err, c.want)
			}
			if _, err := s.Record(sourceOf(art)); !errors.Is(err, reason.ArtifactNotFound) {
				t.Errorf("Record = %v, want ArtifactNotFound", err)
			}
		})
	}
}

func TestRecordsAreTiedToTheirSource(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	one, two := example(1), example(2)
	for _, art := range []*artifact.Artifact{one, two} {
		if err := s.Put(t.Context(), art); err != nil {
			t.Fatal(err)
		}
	}
	name := func(art *artifact.Artifact) string {
		return filepath.Join(dir, "evidence", digest.FromString(sourceOf(art).String()).Encoded()+".json")
	}
	if err := os.Rename(name(two), name(one)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(sourceOf(one)); !errors.Is(err, reason.DigestMismatch) {
		t.Errorf("Record = %v, want DigestMismatch", err)
	}
	// The walk says that it could not read, not that there is no signature.
	_, err := s.Signatures(t.Context(), repo(), one.Evidence.Digest, func(digest.Digest) bool { return false }).Next(t.Context())
	if _, ok := errors.AsType[*artifact.SkippedError](err); !ok {
		t.Errorf("Next = %v, want a SkippedError", err)
	}
	if found, err := s.Find(two.Evidence.Digest); err != nil || found.Source() != sourceOf(two) {
		t.Errorf("Find = %v, %v", found.Source(), err)
	}
}

func TestUnits(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	source := sourceOf(example(1))
	file := unit.File{Name: "a", Digest: source.Digest, Size: 1}
	r := unit.Revision{Source: source, Retained: []unit.Retained{{File: file, From: source, Due: time.Unix(1e9, 0).UTC()}}}
	if err := s.PutUnit(r); err != nil {
		t.Fatal(err)
	}
	got, err := s.Unit(r.Digest())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Unit(source.Digest); !errors.Is(err, reason.ArtifactNotFound) {
		t.Errorf("Unit of none = %v", err)
	}
}

func TestCollectKeepsWhatLives(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	live, dead := example(1), example(2)
	for _, art := range []*artifact.Artifact{live, dead} {
		if err := s.Put(t.Context(), art); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Collect(store.Live{Sources: []unit.Source{sourceOf(live)}}); err != nil || n != 3 {
		t.Errorf("Collect = %d, %v, want 3: a record, a manifest, a payload", n, err)
	}
	for _, p := range live.Payloads {
		if _, err := s.File(t.Context(), unit.File{Digest: p.Digest, Size: int64(len(p.Data))}); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Record(sourceOf(dead)); !errors.Is(err, reason.ArtifactNotFound) {
		t.Errorf("the dead record: %v", err)
	}
}

func TestMark(t *testing.T) {
	live := sourceOf(example(1))
	name := digest.FromString(live.String()).Encoded() + ".json"
	blob := digest.FromString("blob")
	record := &store.Record{Evidence: artifact.Evidence{Manifests: []digest.Digest{blob}, Payloads: []ocispec.Descriptor{{Digest: blob}}}}
	for label, c := range map[string]struct {
		held store.Inventory
		want store.Garbage
	}{
		"nothing": {},
		"a live record keeps its blobs": {
			held: store.Inventory{Records: map[string]*store.Record{name: record}, Blobs: []string{blob.Encoded(), "other"}},
			want: store.Garbage{"blobs/sha256/other"},
		},
		"an unreadable live record keeps all blobs": {
			held: store.Inventory{Records: map[string]*store.Record{name: nil}, Blobs: []string{blob.Encoded(), "other"}},
		},
		"a dead record goes, readable or not": {
			held: store.Inventory{Records: map[string]*store.Record{"a.json": nil, "b.json": record, name: record}, Blobs: []string{blob.Encoded()}},
			want: store.Garbage{"evidence/a.json", "evidence/b.json"},
		},
		"units": {
			held: store.Inventory{Units: []string{blob.Encoded() + ".json", "x"}},
			want: store.Garbage{"units/x"},
		},
	} {
		t.Run(label, func(t *testing.T) {
			got := store.Mark(c.held, store.Live{Sources: []unit.Source{live}, Units: []digest.Digest{blob}})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKilledBeforeEveryChange holds that a store is whole whenever it is
// opened: a record that can be read has all its blobs.
func TestKilledBeforeEveryChange(t *testing.T) {
	killed := errors.New("killed")
	for at := 1; ; at++ {
		dir := t.TempDir()
		before := open(t, dir, store.Options{})
		if err := before.Put(t.Context(), example(1)); err != nil {
			t.Fatal(err)
		}
		seen := 0
		s, err := store.Open(dir, store.Options{Before: func(durable.Step) error {
			if seen++; seen >= at {
				return killed
			}
			return nil
		}})
		if err == nil {
			err = errors.Join(s.Put(t.Context(), example(2)), collect(s, example(2)), s.Close())
		}
		after := open(t, dir, store.Options{})
		for i := 1; i <= 2; i++ {
			wantWhole(t, after, example(i), at)
		}
		if err == nil {
			if at < 15 {
				t.Fatalf("only %d changes were made", seen)
			}
			return
		}
	}
}

func collect(s *store.Store, live *artifact.Artifact) error {
	_, err := s.Collect(store.Live{Sources: []unit.Source{sourceOf(live)}})
	return err
}

func wantWhole(t *testing.T, s *store.Store, art *artifact.Artifact, at int) {
	t.Helper()
	record, err := s.Record(sourceOf(art))
	if errors.Is(err, reason.ArtifactNotFound) {
		return
	}
	if err != nil {
		t.Fatalf("killed at %d: %v", at, err)
	}
	for _, f := range record.Files {
		if _, err := s.File(context.Background(), f.File); err != nil {
			t.Errorf("killed at %d: %v", at, err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	dir := f.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Put(f.Context(), example(1)); err != nil {
		f.Fatal(err)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "evidence", "*"))
	if err != nil || len(entries) != 1 {
		f.Fatal(entries, err)
	}
	data, err := os.ReadFile(entries[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := store.DecodeRecord(data)
		if err != nil {
			return
		}
		for _, d := range record.Blobs() {
			if d.Validate() != nil {
				t.Errorf("accepted %q", d)
			}
		}
	})
}
