// Package image makes container images out of files, without any engine: OCI
// archives (https://github.com/opencontainers/image-spec, image layout in a tar
// file) that `ctr images import` and others read. The same files give the same
// bytes, and so the same digest.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// nameAnnotation is where containerd looks for the whole reference of an image;
// org.opencontainers.image.ref.name is only its tag.
const nameAnnotation = "io.containerd.image.name"

// File is one entry of an image. Folders above it are there by themselves,
// owned by root with mode 0755.
type File struct {
	// Path is where it is in the image, with or without a leading slash.
	Path string
	// Source is the file whose content it has; empty: Data is the content.
	Source string
	Data   []byte
	// Link makes it a symbolic link to this.
	Link string
	// Dir makes it a folder.
	Dir bool
	// Mode is 0644 for files and 0755 for folders if zero. fs.ModeSticky,
	// fs.ModeSetuid and fs.ModeSetgid count.
	Mode     fs.FileMode
	UID, GID int
}

// Image is an image of one layer for the architecture that this runs on.
type Image struct {
	// Name is the reference under which it is imported: localhost/busybox:1.
	Name   string
	Files  []File
	Config ocispec.ImageConfig
	// Architecture as Go names it; empty: this machine's.
	Architecture string
}

// Digest returns the digest of the image's manifest.
func (i Image) Digest() (digest.Digest, error) {
	built, err := i.build()
	return built.descriptor.Digest, err
}

// WriteFile writes the images into one OCI archive, which must not be there yet
// as a whole: it is replaced in one step.
func WriteFile(file string, images ...Image) error {
	temp, err := os.CreateTemp(path.Dir(file), ".image-")
	if err != nil {
		return err
	}
	err = errors.Join(Write(temp, images...), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// Write writes the images into one OCI archive.
func Write(w io.Writer, images ...Image) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	blobs := map[digest.Digest][]byte{}
	for _, i := range images {
		built, err := i.build()
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
		for _, blob := range built.blobs {
			blobs[digest.FromBytes(blob)] = blob
		}
		index.Manifests = append(index.Manifests, built.descriptor)
	}
	archive := []File{{Path: ocispec.ImageLayoutFile, Data: []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)}}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	archive = append(archive, File{Path: ocispec.ImageIndexFile, Data: data})
	for d, blob := range blobs {
		archive = append(archive, File{Path: path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), Data: blob})
	}
	return writeTar(w, archive)
}

type built struct {
	descriptor ocispec.Descriptor
	blobs      [][]byte
}

func (i Image) build() (built, error) {
	tag := i.Name[strings.LastIndex(i.Name, ":")+1:]
	if tag == i.Name || strings.Contains(tag, "/") {
		return built{}, errors.New("the name has no tag")
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, i.Files); err != nil {
		return built{}, err
	}
	platform := ocispec.Platform{OS: "linux", Architecture: cmp.Or(i.Architecture, runtime.GOARCH)}
	config, err := json.Marshal(ocispec.Image{
		Platform: platform,
		Config:   i.Config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer.Bytes())}},
	})
	if err != nil {
		return built{}, err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{describe(ocispec.MediaTypeImageLayer, layer.Bytes())},
	})
	if err != nil {
		return built{}, err
	}
	descriptor := describe(ocispec.MediaTypeImageManifest, manifest)
	descriptor.Platform = &platform
	descriptor.Annotations = map[string]string{nameAnnotation: i.Name, ocispec.AnnotationRefName: tag}
	return built{descriptor, [][]byte{layer.Bytes(), config, manifest}}, nil
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// writeTar writes the files sorted by path, with the folders above them, and
// without anything that differs between two runs.
func writeTar(w io.Writer, files []File) error {
	entries := map[string]File{}
	for _, f := range files {
		f.Path = strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		if _, twice := entries[f.Path]; twice || f.Path == "" {
			return fmt.Errorf("%q stands there twice or is the root", f.Path)
		}
		entries[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(path.Clean("/" + f.Path))[1:]; dir != ""; dir = path.Dir("/" + dir)[1:] {
			above, ok := entries[dir]
			if ok && !above.Dir {
				return fmt.Errorf("%s is no folder, so nothing can be in it", dir)
			}
			if !ok {
				entries[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	sorted := make([]File, 0, len(entries))
	for _, f := range entries {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	out := tar.NewWriter(w)
	for _, f := range sorted {
		if err := writeEntry(out, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return out.Close()
}

func writeEntry(out *tar.Writer, f File) error {
	header := &tar.Header{Name: f.Path, Uid: f.UID, Gid: f.GID, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case f.Dir:
		header.Typeflag, header.Name, header.Mode = tar.TypeDir, f.Path+"/", tarMode(f.Mode, 0o755)
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
	default:
		header.Typeflag, header.Mode = tar.TypeReg, tarMode(f.Mode, 0o644)
		if f.Source != "" {
			data, err := os.ReadFile(f.Source)
			if err != nil {
				return err
			}
			f.Data = data
		}
		header.Size = int64(len(f.Data))
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := out.Write(f.Data)
	return err
}

// tarMode renders a mode as tar has it (POSIX.1-1988, ustar mode field).
func tarMode(mode fs.FileMode, unset int64) int64 {
	if mode == 0 {
		return unset
	}
	bits := int64(mode.Perm())
	for from, to := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&from != 0 {
			bits |= to
		}
	}
	return bits
}
