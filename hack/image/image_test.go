package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const epoch = "1700000000"

// binariesOf makes a folder with stand-ins for the binaries.
func binariesOf(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range binaries() {
		// The mode of what is packed must not depend on the machine's umask.
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := run(append([]string{"-version", "v1.2.3+x", "-epoch", epoch, "-out", out}, args...)); err != nil {
		t.Fatal(err)
	}
	return out
}

// read unpacks an archive and reads it as others read image layouts.
func read(t *testing.T, archive string) v1.ImageIndex {
	t.Helper()
	dir := t.TempDir()
	for name, data := range untar(t, archive) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func untar(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if files[header.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestImageIsValid(t *testing.T) {
	top := read(t, build(t, "amd64="+binariesOf(t, "amd64"), "arm64="+binariesOf(t, "arm64")))
	if err := validate.Index(top); err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("the layout names %d images, want 1", len(manifest.Manifests))
	}
	want := map[string]string{
		"io.containerd.image.name":          "ghcr.io/confine-dev/confine:1.2.3-x",
		"org.opencontainers.image.ref.name": "1.2.3-x",
	}
	if diff := cmp.Diff(want, manifest.Manifests[0].Annotations); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range inner.Manifests {
		platforms = append(platforms, d.Platform.String())
		checkImage(t, index, d)
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

// checkImage holds what is in the image of one architecture, and what is not.
func checkImage(t *testing.T, index v1.ImageIndex, d v1.Descriptor) {
	t.Helper()
	image, err := index.Image(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65527:65527" {
		t.Errorf("runs as %q: want a number, so that runAsNonRoot can tell, and not root", config.Config.User)
	}
	if got := config.Created.Time; !got.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("created %v, want the epoch", got)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var pem []byte
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s belongs to %d:%d: what runs could change it", header.Name, header.Uid, header.Gid)
		}
		if strings.HasPrefix(header.Name, "usr/local/bin/c") && string(data) != filepath.Base(header.Name)+d.Platform.Architecture {
			t.Errorf("%s holds %q", header.Name, data)
		}
		if strings.HasSuffix(header.Name, ".crt") {
			pem = data
		}
		got[header.Name] = header.FileInfo().Mode().String() + header.Linkname
	}
	want := map[string]string{
		"etc/": "drwxr-xr-x", "etc/passwd": "-rw-r--r--", "etc/group": "-rw-r--r--",
		"etc/ssl/": "drwxr-xr-x", "etc/ssl/certs/": "drwxr-xr-x", "etc/ssl/certs/ca-certificates.crt": "-rw-r--r--",
		"host/": "drwxr-xr-x", "host/root/": "drwxr-xr-x",
		"host/root/bin": "Lrwxrwxrwxusr/bin", "host/root/lib": "Lrwxrwxrwxusr/lib", "host/root/lib64": "Lrwxrwxrwxusr/lib64", "host/root/sbin": "Lrwxrwxrwxusr/sbin",
		"usr/": "drwxr-xr-x", "usr/local/": "drwxr-xr-x", "usr/local/bin/": "drwxr-xr-x",
		"usr/local/bin/confine": "-rwxr-xr-x", "usr/local/bin/confine-agent": "-rwxr-xr-x", "usr/local/bin/confine-controller": "-rwxr-xr-x",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) || bytes.Count(pem, []byte("BEGIN CERTIFICATE")) < 50 {
		t.Error("the file of certificate authorities holds none, or hardly any")
	}
}

func TestImageIsReproducible(t *testing.T) {
	first, err := os.ReadFile(build(t, "amd64="+binariesOf(t, "x"), "arm64="+binariesOf(t, "y")))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(build(t, "amd64="+binariesOf(t, "x"), "arm64="+binariesOf(t, "y")))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same binaries gave two images")
	}
	other, err := os.ReadFile(build(t, "amd64="+binariesOf(t, "x"), "arm64="+binariesOf(t, "z")))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, other) {
		t.Error("other binaries gave the same image")
	}
}

func TestImageRefusals(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	for name, args := range map[string][]string{
		"no version":       {"-out", out, "amd64=."},
		"no file":          {"-version", "1", "amd64=."},
		"no architecture":  {"-version", "1", "-out", out},
		"not a pair":       {"-version", "1", "-out", out, "amd64"},
		"binary not there": {"-version", "1", "-out", out, "amd64=" + t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(args); err == nil {
				t.Error("accepted")
			}
			left, err := fs.Glob(os.DirFS(filepath.Dir(out)), "*")
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}
