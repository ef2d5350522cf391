package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/test/kube/image"
)

func sample() image.Image {
	return image.Image{
		Name: "localhost:5000/sample:7",
		Files: []image.File{
			{Path: "/usr/bin/tool", Data: []byte("program"), Mode: 0o755},
			{Path: "etc/conf", Data: []byte("x"), UID: 7, GID: 8},
			{Path: "usr/bin/alias", Link: "tool"},
			{Path: "tmp", Dir: true, Mode: 0o777 | fs.ModeSticky},
		},
		Config: ocispec.ImageConfig{User: "65532", Entrypoint: []string{"/usr/bin/tool"}},
	}
}

func TestWrite(t *testing.T) {
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := image.Write(out, sample()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files gave different archives")
	}
	archive := untar(t, &first)
	var index ocispec.Index
	decode(t, archive["index.json"].data, &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests, want 1", len(index.Manifests))
	}
	want, err := sample().Digest()
	if err != nil {
		t.Fatal(err)
	}
	if index.Manifests[0].Digest != want {
		t.Errorf("manifest %s, want %s", index.Manifests[0].Digest, want)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "localhost:5000/sample:7" {
		t.Errorf("called %q", got)
	}
	var manifest ocispec.Manifest
	decode(t, blob(t, archive, index.Manifests[0]), &manifest)
	var config ocispec.Image
	decode(t, blob(t, archive, manifest.Config), &config)
	if config.Config.User != "65532" || config.OS != "linux" || config.Architecture == "" {
		t.Errorf("config %+v", config)
	}
	layer := blob(t, archive, manifest.Layers[0])
	if got := manifest.Layers[0].Digest; config.RootFS.DiffIDs[0] != got {
		t.Errorf("diff ID %s of layer %s", config.RootFS.DiffIDs[0], got)
	}
	got := map[string]int64{}
	for name, e := range untar(t, bytes.NewReader(layer)) {
		got[name] = e.header.Mode
	}
	modes := map[string]int64{"usr/": 0o755, "usr/bin/": 0o755, "usr/bin/tool": 0o755, "usr/bin/alias": 0o777, "etc/": 0o755, "etc/conf": 0o644, "tmp/": 0o1777}
	if diff := cmp.Diff(modes, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	conf := untar(t, bytes.NewReader(layer))["etc/conf"].header
	if conf.Uid != 7 || conf.Gid != 8 {
		t.Errorf("owner %d:%d, want 7:8", conf.Uid, conf.Gid)
	}
}

func TestWriteRefuses(t *testing.T) {
	tests := map[string]struct {
		image image.Image
		want  string
	}{
		"no tag":         {image.Image{Name: "localhost:5000/x"}, "no tag"},
		"file twice":     {image.Image{Name: "x:1", Files: []image.File{{Path: "a"}, {Path: "/a"}}}, "twice"},
		"file as folder": {image.Image{Name: "x:1", Files: []image.File{{Path: "a"}, {Path: "a/b"}}}, "no folder"},
		"source is gone": {image.Image{Name: "x:1", Files: []image.File{{Path: "a", Source: "gone"}}}, "gone"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			err := image.Write(io.Discard, tc.image)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v does not tell about %q", err, tc.want)
			}
		})
	}
}

func TestKnownImages(t *testing.T) {
	pause, err := image.Pause(t.Context(), filepath.Join(t.TempDir(), "pause"))
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := image.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := image.WriteFile(file, pause, busybox); err != nil {
		t.Fatal(err)
	}
}

type entry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	found := map[string]entry{}
	in := tar.NewReader(r)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = entry{header, data}
	}
}

// blob returns the content that a descriptor is for.
func blob(t *testing.T, archive map[string]entry, d ocispec.Descriptor) []byte {
	t.Helper()
	e, ok := archive["blobs/sha256/"+d.Digest.Encoded()]
	if !ok || int64(len(e.data)) != d.Size || d.Digest.Algorithm().FromBytes(e.data) != d.Digest {
		t.Fatalf("no blob %s of %d bytes", d.Digest, d.Size)
	}
	return e.data
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}
