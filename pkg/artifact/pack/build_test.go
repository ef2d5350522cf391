package pack_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares got with testdata/name, byte by byte.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s has changed: every digest users pinned would be another one\n got %s\nwant %s", path, got, want)
	}
}

func threeInputs() []pack.Input {
	return []pack.Input{
		{File: "nginx.json", Kind: "seccomp", Data: []byte(seccompData)},
		{File: "nginx.aa", Kind: "apparmor", Data: []byte(apparmorData)},
		{File: "nginx.cil", Kind: "selinux", Data: []byte(cilData)},
	}
}

func TestBuildGolden(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		golden string
		form   pack.Form
		inputs []pack.Input
		opts   pack.Options
		config string // the config blob's media type
	}{
		"one seccomp profile is the KEP-6061 form": {
			"kep6061.json", pack.FormKEP6061, threeInputs()[:1], pack.Options{}, pack.ArtifactTypeSeccomp,
		},
		"its annotations do not change the form": {
			"kep6061-annotated.json", pack.FormKEP6061, threeInputs()[:1],
			pack.Options{Name: "web/nginx", Version: "1.2.0", Annotations: map[string]string{"org.opencontainers.image.source": "https://git.example/web"}},
			pack.ArtifactTypeSeccomp,
		},
		"one seccomp profile as a bundle on demand": {
			"bundle-one.json", pack.FormBundle, threeInputs()[:1], pack.Options{Bundle: true}, ocispec.MediaTypeEmptyJSON,
		},
		"another kind alone is a bundle": {
			"bundle-apparmor.json", pack.FormBundle, threeInputs()[1:2], pack.Options{}, ocispec.MediaTypeEmptyJSON,
		},
		"three kinds are a bundle": {
			"bundle.json", pack.FormBundle, threeInputs(), pack.Options{Name: "web/nginx", Version: "1.2.0"}, ocispec.MediaTypeEmptyJSON,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed, err := pack.Build(tc.inputs, testKinds(), tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tc.golden, packed.Manifest)
			if packed.Form != tc.form {
				t.Errorf("form %q, want %q", packed.Form, tc.form)
			}
			if want := digest.FromBytes(packed.Manifest); packed.Descriptor.Digest != want || packed.Descriptor.Size != int64(len(packed.Manifest)) {
				t.Errorf("descriptor %v does not name the manifest %s", packed.Descriptor, want)
			}
			if len(packed.Blobs) != 1+len(tc.inputs) || packed.Blobs[0].Descriptor.MediaType != tc.config || string(packed.Blobs[0].Data) != "{}" {
				t.Errorf("blobs are not the config and the layers: %v", packed.Blobs)
			}
			for _, b := range packed.Blobs {
				if b.Descriptor.Digest != digest.FromBytes(b.Data) || b.Descriptor.Size != int64(len(b.Data)) {
					t.Errorf("descriptor %v does not name its data", b.Descriptor)
				}
			}
		})
	}
}

func TestBuildIsReproducibleInAnyOrder(t *testing.T) {
	t.Parallel()
	opts := pack.Options{Annotations: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}}
	first, err := pack.Build(threeInputs(), testKinds(), opts)
	if err != nil {
		t.Fatal(err)
	}
	turned := threeInputs()
	slices.Reverse(turned)
	second, err := pack.Build(turned, testKinds(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if first.Descriptor.Digest != second.Descriptor.Digest {
		t.Errorf("the order of the files changes the digest:\n%s\n%s", first.Manifest, second.Manifest)
	}
}

func TestBuildClassifiesUnlabelledInputs(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		in         pack.Input
		kind, file string
	}{
		"by extension":               {pack.Input{File: "web.aa", Data: []byte("anything")}, "apparmor", "web.aa"},
		"extension in capitals":      {pack.Input{File: "WEB.CIL", Data: []byte("anything")}, "selinux", "WEB.CIL"},
		"by content":                 {pack.Input{File: "usr.sbin.nginx", Data: []byte(apparmorData)}, "apparmor", "usr.sbin.nginx"},
		"without a name":             {pack.Input{Data: []byte(cilData)}, "selinux", "profile.cil"},
		"a path is cut":              {pack.Input{File: "../profiles/web.json", Data: []byte(seccompData)}, "seccomp", "web.json"},
		"the kind given comes first": {pack.Input{File: "web.json", Kind: "apparmor", Data: []byte(apparmorData)}, "apparmor", "web.json"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed, err := pack.Build([]pack.Input{tc.in}, testKinds(), pack.Options{Bundle: true})
			if err != nil {
				t.Fatal(err)
			}
			m, err := pack.Parse(packed.Manifest, testKinds())
			if err != nil {
				t.Fatal(err)
			}
			if l := m.Layers[0]; l.Kind != tc.kind || l.File != tc.file {
				t.Errorf("kind %q, file %q; want %q, %q", l.Kind, l.File, tc.kind, tc.file)
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	small := func(file string) pack.Input { return pack.Input{File: file, Data: []byte(seccompData)} }
	many := func(n, size int) []pack.Input {
		var all []pack.Input
		for i := range n {
			all = append(all, pack.Input{File: fmt.Sprintf("%d.json", i), Data: bytes.Repeat([]byte("x"), size)})
		}
		return all
	}
	cases := map[string]struct {
		inputs []pack.Input
		opts   pack.Options
		want   reason.Reason
		advice string
	}{
		"nothing":              {nil, pack.Options{}, reason.UnsupportedArtifact, "at least one"},
		"an empty file":        {[]pack.Input{{File: "a.json"}}, pack.Options{}, reason.UnsupportedArtifact, "write a profile"},
		"an archive":           {[]pack.Input{{File: "a.json", Data: []byte("\x1f\x8b\x08...")}}, pack.Options{}, reason.UnsupportedArtifact, "files themselves"},
		"an unknown kind":      {[]pack.Input{{File: "a", Kind: "landlock", Data: []byte("x")}}, pack.Options{}, reason.UnsupportedArtifact, "seccomp, apparmor, selinux"},
		"nothing tells":        {[]pack.Input{{File: "a", Data: []byte("x")}}, pack.Options{}, reason.UnsupportedArtifact, ".aa for apparmor"},
		"content is ambiguous": {[]pack.Input{{File: "a", Data: []byte("(profile x)")}}, pack.Options{}, reason.UnsupportedArtifact, ".cil for selinux"},
		"one name twice":       {[]pack.Input{small("a/web.json"), small("b/web.json")}, pack.Options{}, reason.UnsupportedArtifact, "its own name"},
		"names alike but for case": {
			[]pack.Input{small("web.json"), small("Web.JSON")}, pack.Options{}, reason.UnsupportedArtifact, "case alone",
		},
		"65 files":                       {many(65, 1), pack.Options{}, reason.TooLarge, "docs/artifact-format.md"},
		"a file over 1 MiB":              {many(1, profile.MaxPayloadBytes+1), pack.Options{}, reason.TooLarge, "docs/artifact-format.md"},
		"over 8 MiB in all":              {many(9, profile.MaxPayloadBytes), pack.Options{}, reason.TooLarge, "docs/artifact-format.md"},
		"annotations over 1 MiB":         {many(1, 1), pack.Options{Annotations: map[string]string{"a": strings.Repeat("x", 1<<20)}}, reason.TooLarge, "docs/artifact-format.md"},
		"an annotation that is no UTF-8": {many(1, 1), pack.Options{Name: "a/\xff"}, reason.UnsupportedArtifact, ""},
		"two answers on the name": {
			many(1, 1), pack.Options{Name: "a/b", Annotations: map[string]string{pack.AnnotationName: "c/d"}}, reason.UnsupportedArtifact, "once",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed, err := pack.Build(tc.inputs, testKinds(), tc.opts)
			wantRefusal(t, packed != nil, err, tc.want, tc.advice)
		})
	}
}

// wantRefusal checks reason and advice, and that nothing came back beside the error.
func wantRefusal(t *testing.T, gotValue bool, err error, want reason.Reason, advice string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if gotValue {
		t.Error("a refusal came with a result")
	}
	e, _ := reason.Of(err)
	if !strings.Contains(e.WhatToDo(), advice) {
		t.Errorf("advice %q does not hold %q", e.WhatToDo(), advice)
	}
	if all := e.Error() + e.WhatToDo(); strings.ContainsAny(all, "\n\x00") || len(all) > 4096 {
		t.Errorf("message is not one short line: %q", all)
	}
}

func TestBuildAtTheBounds(t *testing.T) {
	t.Parallel()
	var inputs []pack.Input
	for i := range pack.MaxLayers {
		inputs = append(inputs, pack.Input{File: fmt.Sprintf("%d.json", i), Data: bytes.Repeat([]byte("x"), pack.MaxArtifactBytes/pack.MaxLayers)})
	}
	packed, err := pack.Build(inputs, testKinds(), pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(packed.Blobs); n != pack.MaxLayers+1 {
		t.Errorf("%d blobs", n)
	}
}

func TestParseReadsWhatBuildWrote(t *testing.T) {
	t.Parallel()
	opts := pack.Options{Name: "web/nginx", Version: "1.2.0"}
	packed, err := pack.Build(threeInputs(), testKinds(), opts)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pack.Parse(packed.Manifest, testKinds())
	if err != nil {
		t.Fatal(err)
	}
	want := &pack.Manifest{
		Form:        pack.FormBundle,
		Annotations: map[string]string{pack.AnnotationName: "web/nginx", pack.AnnotationVersion: "1.2.0"},
		Layers: []pack.Layer{
			{Descriptor: packed.Blobs[1].Descriptor, Kind: "apparmor", File: "nginx.aa"},
			{Descriptor: packed.Blobs[2].Descriptor, Kind: "selinux", File: "nginx.cil"},
			{Descriptor: packed.Blobs[3].Descriptor, Kind: "seccomp", File: "nginx.json"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
