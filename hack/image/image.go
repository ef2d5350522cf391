package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// nameAnnotation is where containerd looks for the whole name of an image:
// https://github.com/containerd/containerd/blob/main/core/images/annotations.go
const nameAnnotation = "io.containerd.image.name"

// image is one image for several architectures.
type image struct {
	name, tag string
	version   string
	created   time.Time
	platforms []platform
}

type platform struct {
	architecture string // as Go calls it
	files        []file
}

// writeFile writes the image as an OCI archive, which is replaced in one step,
// and returns the digest of its index: what a deployment pins.
func (i image) writeFile(name string) (digest.Digest, error) {
	temp, err := os.CreateTemp(filepath.Dir(name), ".image-")
	if err != nil {
		return "", err
	}
	d, err := i.write(temp)
	err = errors.Join(err, temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(temp.Name()))
	}
	return d, nil
}

func (i image) write(w io.Writer) (digest.Digest, error) {
	store := blobs{}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: i.annotations(),
	}
	for _, p := range i.platforms {
		manifest, err := i.manifest(store, p)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.architecture, err)
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	top, err := store.addJSON(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return "", err
	}
	named := top
	named.Annotations = map[string]string{nameAnnotation: i.name + ":" + i.tag, ocispec.AnnotationRefName: i.tag}
	return top.Digest, i.archive(w, store, named)
}

// archive writes the layout around the blobs.
func (i image) archive(w io.Writer, store blobs, top ocispec.Descriptor) error {
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top},
	})
	if err != nil {
		return err
	}
	files := []file{
		{path: ocispec.ImageLayoutFile, data: layout, mode: 0o644},
		{path: ocispec.ImageIndexFile, data: index, mode: 0o644},
	}
	for d, blob := range store {
		files = append(files, file{path: path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), data: blob, mode: 0o644})
	}
	return writeTar(w, files, i.created)
}

func (i image) annotations() map[string]string {
	return map[string]string{
		ocispec.AnnotationTitle:    "Confine",
		ocispec.AnnotationSource:   "https://github.com/confine-dev/confine",
		ocispec.AnnotationLicenses: "Apache-2.0",
		ocispec.AnnotationVersion:  i.version,
		ocispec.AnnotationCreated:  i.created.Format(time.RFC3339),
	}
}

func (i image) manifest(store blobs, p platform) (ocispec.Descriptor, error) {
	layer, diffID, err := store.addLayer(p.files, i.created)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	on := ocispec.Platform{OS: "linux", Architecture: p.architecture}
	config, err := store.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created: &i.created, Platform: on,
		Config: ocispec.ImageConfig{
			User:       fmt.Sprintf("%d:%d", uid, uid),
			Env:        []string{"PATH=/usr/local/bin"},
			Cmd:        []string{"confine", "--help"},
			WorkingDir: "/",
			Labels:     i.annotations(),
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispec.History{{Created: &i.created, CreatedBy: "hack/image"}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, err := store.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer}, Annotations: i.annotations(),
	})
	manifest.Platform = &on
	return manifest, err
}

// blobs are the content of the layout.
type blobs map[digest.Digest][]byte

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func (b blobs) addJSON(mediaType string, value any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.add(mediaType, data), nil
}

// addLayer compresses the files and returns the digest of the tar file too.
func (b blobs) addLayer(files []file, modified time.Time) (ocispec.Descriptor, digest.Digest, error) {
	var compressed bytes.Buffer
	// Its header holds neither name nor time unless they are set.
	zipped, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	plain := digest.Canonical.Digester()
	err = writeTar(io.MultiWriter(zipped, plain.Hash()), files, modified)
	if err = errors.Join(err, zipped.Close()); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	return b.add(ocispec.MediaTypeImageLayerGzip, compressed.Bytes()), plain.Digest(), nil
}

// writeTar writes the files and the folders above them, sorted, as root's, all
// of one time.
func writeTar(w io.Writer, files []file, modified time.Time) error {
	entries := map[string]file{}
	for _, f := range files {
		entries[f.path] = f
		for dir := path.Dir(f.path); dir != "."; dir = path.Dir(dir) {
			entries[dir+"/"] = file{path: dir + "/", mode: 0o755}
		}
	}
	sorted := make([]file, 0, len(entries))
	for _, f := range entries {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	out := tar.NewWriter(w)
	for _, f := range sorted {
		if err := writeEntry(out, f, modified); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return out.Close()
}

func writeEntry(out *tar.Writer, f file, modified time.Time) error {
	header := &tar.Header{Name: f.path, Mode: int64(f.mode.Perm()), ModTime: modified, Format: tar.FormatUSTAR}
	if f.path[len(f.path)-1] == '/' {
		header.Typeflag = tar.TypeDir
		return out.WriteHeader(header)
	}
	if f.link != "" {
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
		return out.WriteHeader(header)
	}
	data := f.data
	if f.source != "" {
		var err error
		if data, err = os.ReadFile(f.source); err != nil {
			return err
		}
	}
	header.Typeflag, header.Size = tar.TypeReg, int64(len(data))
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}
