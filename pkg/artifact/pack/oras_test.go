package pack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"

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

func TestWhatOrasPushMakes(t *testing.T) {
	t.Parallel()
	type layer struct{ MediaType, Kind, File string }
	v11, v10 := oras.PackManifestVersion1_1, oras.PackManifestVersion1_0
	three := []orasFile{{"nginx.json", "", seccompData}, {"nginx.aa", "", apparmorData}, {"nginx.cil", "", cilData}}
	threeLayers := []layer{{tarType, "seccomp", "nginx.json"}, {tarType, "apparmor", "nginx.aa"}, {tarType, "selinux", "nginx.cil"}}
	cases := map[string]struct {
		version      oras.PackManifestVersion
		artifactType string
		absolute     bool
		files        []orasFile
		form         pack.Form
		want         []layer
		golden       string
	}{
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
			pack.FormBare, []layer{{apparmorType, "apparmor", "web"}, {"application/json", "seccomp", "x.json"}, {cilType, "selinux", "y"}}, "",
		},
		"a file in a folder": {
			v11, oras.MediaTypeUnknownArtifact, false, []orasFile{{"profiles/web.cil", "", cilData}},
			pack.FormBare, []layer{{tarType, "selinux", "web.cil"}}, "",
		},
		"a file that only its content tells": {
			v11, oras.MediaTypeUnknownArtifact, false, []orasFile{{"usr.sbin.nginx", "", apparmorData}},
			pack.FormBare, []layer{{tarType, "apparmor", "usr.sbin.nginx"}}, "",
		},
		"--artifact-type of the bundle": {
			v11, pack.ArtifactTypeBundle, false, []orasFile{{"nginx.json", seccompType, seccompData}, {"nginx.aa", apparmorType, apparmorData}},
			pack.FormBundle, []layer{{seccompType, "seccomp", "nginx.json"}, {apparmorType, "apparmor", "nginx.aa"}}, "oras-bundle.json",
		},
		"--artifact-type of KEP-6061": {
			v11, pack.ArtifactTypeSeccomp, false, three[:1], pack.FormKEP6061, threeLayers[:1], "oras-kep6061.json",
		},
		"--image-spec v1.0 --artifact-type of KEP-6061": {
			v10, pack.ArtifactTypeSeccomp, false, three[:1], pack.FormKEP6061, threeLayers[:1], "",
		},
	}
	for name, tc := range cases {
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
			var got []layer
			for _, l := range layers {
				got = append(got, layer{l.Descriptor.MediaType, l.Kind, l.File})
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
	wantRefusal(t, m != nil, err, reason.UnsupportedArtifact, "profiles:MEDIATYPE")
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
