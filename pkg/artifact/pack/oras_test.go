package pack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/content/memory"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/reason"
)

// orasFile is one FILE[:MEDIATYPE] argument of `oras push`.
type orasFile struct{ path, mediaType, data string }

// orasPush does what the oras command line does with its arguments (oras
// v1.3.6, cmd/oras/root/push.go): a file store, then PackManifest. It returns
// the manifest's bytes.
func orasPush(t *testing.T, version oras.PackManifestVersion, artifactType string, absolute bool, files ...orasFile) []byte {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	store, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	var descs []ocispec.Descriptor
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if f.data == "" { // a folder
			err = os.MkdirAll(path, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, []byte(f.data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := f.path
		if absolute {
			name = path
		}
		desc, err := store.Add(ctx, name, f.mediaType, path)
		if err != nil {
			t.Fatal(err)
		}
		descs = append(descs, desc)
	}
	root, err := oras.PackManifest(ctx, store, version, artifactType, oras.PackManifestOptions{
		Layers: descs,
		// The command stamps the present time; a fixed one keeps the golden file.
		ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := content.FetchAll(ctx, store, root)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// orasLayer is what becomes of one file.
type orasLayer struct{ MediaType, Kind, File string }

type orasCase struct {
	version      oras.PackManifestVersion
	artifactType string
	absolute     bool
	files        []orasFile
	form         pack.Form
	want         []orasLayer
	golden       string
}

func orasCases() map[string]orasCase {
	v11, v10 := oras.PackManifestVersion1_1, oras.PackManifestVersion1_0
	three := []orasFile{{"nginx.json", "", seccompData}, {"nginx.aa", "", apparmorData}, {"nginx.cil", "", cilData}}
	threeLayers := []orasLayer{{tarType, "seccomp", "nginx.json"}, {tarType, "apparmor", "nginx.aa"}, {tarType, "selinux", "nginx.cil"}}
	return map[string]orasCase{
		"oras push REPO:TAG FILE...": {
			v11, oras.MediaTypeUnknownArtifact, false, three, pack.FormBare, threeLayers, "oras-bare.json",
		},
		"--image-spec v1.0": {
			v10, "", false, three, pack.FormBare, threeLayers, "oras-bare-v1.0.json",
		},
		"--disable-path-validation /abs/FILE": {
			v11, oras.MediaTypeUnknownArtifact, true, three, pack.FormBare, threeLayers, "",
		},
		"FILE:MEDIATYPE": {
			v11, oras.MediaTypeUnknownArtifact, false,
			[]orasFile{{"web", apparmorType, apparmorData}, {"x.json", "application/json", seccompData}, {"y", cilType, cilData}},
			pack.FormBare, []orasLayer{{apparmorType, "apparmor", "web"}, {"application/json", "seccomp", "x.json"}, {cilType, "selinux", "y"}}, "",
		},
		"a file in a folder": {
			v11, oras.MediaTypeUnknownArtifact, false, []orasFile{{"profiles/web.cil", "", cilData}},
			pack.FormBare, []orasLayer{{tarType, "selinux", "web.cil"}}, "",
		},
		"a file that only its content tells": {
			v11, oras.MediaTypeUnknownArtifact, false, []orasFile{{"usr.sbin.nginx", "", apparmorData}},
			pack.FormBare, []orasLayer{{tarType, "apparmor", "usr.sbin.nginx"}}, "",
		},
		"--artifact-type of the bundle": {
			v11, pack.ArtifactTypeBundle, false, []orasFile{{"nginx.json", seccompType, seccompData}, {"nginx.aa", apparmorType, apparmorData}},
			pack.FormBundle, []orasLayer{{seccompType, "seccomp", "nginx.json"}, {apparmorType, "apparmor", "nginx.aa"}}, "oras-bundle.json",
		},
		"--artifact-type of KEP-6061": {
			v11, pack.ArtifactTypeSeccomp, false, three[:1], pack.FormKEP6061, threeLayers[:1], "oras-kep6061.json",
		},
		"--image-spec v1.0 --artifact-type of KEP-6061": {
			v10, pack.ArtifactTypeSeccomp, false, three[:1], pack.FormKEP6061, threeLayers[:1], "",
		},
	}
}

func TestWhatOrasPushMakes(t *testing.T) {
	t.Parallel()
	for name, tc := range orasCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := orasPush(t, tc.version, tc.artifactType, tc.absolute, tc.files...)
			if tc.golden != "" {
				golden(t, tc.golden, raw)
			}
			m, err := pack.Parse(raw, testKinds())
			if err != nil {
				t.Fatalf("%v\n%s", err, raw)
			}
			var data [][]byte
			for _, f := range tc.files {
				data = append(data, []byte(f.data))
			}
			layers, err := pack.Settle(m.Layers, data, testKinds())
			if err != nil {
				t.Fatal(err)
			}
			var got []orasLayer
			for _, l := range layers {
				got = append(got, orasLayer{l.Descriptor.MediaType, l.Kind, l.File})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || m.Form != tc.form {
				t.Errorf("form %q, want %q; -want +got:\n%s", m.Form, tc.form, diff)
			}
		})
	}
}

func TestWhatOrasPushMakesOfAFolderIsRefused(t *testing.T) {
	t.Parallel()
	raw := orasPush(t, oras.PackManifestVersion1_1, oras.MediaTypeUnknownArtifact, false, orasFile{path: "profiles"})
	m, err := pack.Parse(raw, testKinds())
	wantRefusal(t, m != nil, err, reason.UnsupportedArtifact, "REPO:TAG FILE:MEDIATYPE")
}

// TestIndexAsOrasMakesIt follows `oras push --artifact-platform` and
// `oras manifest index create`: the platform stands in an image's config, from
// where it is copied into the index (oras v1.3.6).
func TestIndexAsOrasMakesIt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := memory.New()
	layer, err := oras.PushBytes(ctx, store, tarType, []byte(cilData))
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "web.cil"}
	pushed := func(artifactType, arch string) (ocispec.Descriptor, []byte) {
		config, err := oras.PushBytes(ctx, store, ocispec.MediaTypeImageConfig, []byte(`{"architecture":"`+arch+`","os":"linux"}`))
		if err != nil {
			t.Fatal(err)
		}
		root, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{
			ConfigDescriptor: &config, Layers: []ocispec.Descriptor{layer},
			ManifestAnnotations: map[string]string{"arch": arch},
		})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := content.FetchAll(ctx, store, root)
		if err != nil {
			t.Fatal(err)
		}
		root.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		return root, raw
	}
	manifests := map[digest.Digest][]byte{}
	var children []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		desc, raw := pushed(pack.ArtifactTypeBundle, arch)
		children, manifests[desc.Digest] = append(children, desc), raw
	}
	index, err := pack.Parse(encode(t, obj{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": children}), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	picked, err := index.PickChild(ocispec.Platform{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := pack.ParseChild(manifests[picked.Digest], testKinds())
	if err != nil || m.Annotations["arch"] != "arm64" || m.Layers[0].File != "web.cil" {
		t.Errorf("picked %+v, %v", m, err)
	}
	_, raw := pushed(pack.ArtifactTypeSeccomp, "s390x")
	m, err = pack.Parse(raw, testKinds())
	wantRefusal(t, m != nil, err, reason.UnsupportedArtifact, "--artifact-type "+pack.ArtifactTypeBundle)
}

// TestBundleIsWhatOrasWouldMake shows that a bundle is an ordinary artifact:
// but for the time stamp, oras makes the same of the same files.
func TestBundleIsWhatOrasWouldMake(t *testing.T) {
	t.Parallel()
	packed, err := pack.Build(threeInputs(), testKinds(), pack.Options{
		Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := orasPush(t, oras.PackManifestVersion1_1, pack.ArtifactTypeBundle, false,
		orasFile{"nginx.aa", apparmorType, apparmorData}, orasFile{"nginx.cil", cilType, cilData}, orasFile{"nginx.json", seccompType, seccompData})
	if diff := cmp.Diff(string(raw), string(packed.Manifest)); diff != "" {
		t.Errorf("-oras +confine:\n%s", diff)
	}
}

// TestKEP6061IsWhatSpocMakes packs as the Security Profiles Operator's client
// does (spoc push, kubernetes-sigs/security-profiles-operator#3421): a config
// of "{}" with the artifact's type, one layer application/json.
func TestKEP6061IsWhatSpocMakes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := memory.New()
	annotations := map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"}
	config, err := oras.PushBytes(ctx, store, pack.ArtifactTypeSeccomp, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := oras.PushBytes(ctx, store, "application/json", []byte(seccompData))
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "profile.json"}
	root, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, pack.ArtifactTypeSeccomp, oras.PackManifestOptions{
		ConfigDescriptor: &config, Layers: []ocispec.Descriptor{layer}, ManifestAnnotations: annotations,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := content.FetchAll(ctx, store, root)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := pack.Build([]pack.Input{{Kind: "seccomp", Data: []byte(seccompData)}}, testKinds(), pack.Options{Annotations: annotations})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(raw), string(packed.Manifest)); diff != "" {
		t.Errorf("-spoc +confine:\n%s", diff)
	}
}
