package pack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// wantKnownReason accepts the reasons that Parse, Settle and Build document.
func wantKnownReason(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, reason.UnsupportedArtifact) && !errors.Is(err, reason.TooLarge) && !errors.Is(err, reason.DigestMismatch) {
		t.Fatalf("%v is of no documented reason", err)
	}
}

func FuzzParse(f *testing.F) {
	layer := blobOf(cilType, cilData, "a.cil")
	for _, seed := range []any{
		manifestOf(bareType, layer), manifestOf(pack.ArtifactTypeBundle, layer, blobOf(tarType, seccompData, "../b.json")),
		manifestOf(pack.ArtifactTypeSeccomp, blobOf(tarType, seccompData, "")), indexOf(child("a", "linux/amd64"), child("b", "")),
		with(manifestOf(bareType, layer), obj{"Layers": []obj{}}), `{"layers":[],"layers":null}`, "[[[[", `{"schemaVersion":2`,
	} {
		f.Add(encode(f, seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := pack.Parse(data, testKinds())
		if err != nil {
			wantKnownReason(t, err)
			return
		}
		if m.IsIndex() != (len(m.Children) > 0) || m.IsIndex() == (len(m.Layers) > 0) {
			t.Fatalf("neither manifest nor index: %+v", m)
		}
		if len(m.Layers) > pack.MaxLayers || len(m.Children) > pack.MaxChildren || len(data) > pack.MaxManifestBytes {
			t.Fatalf("out of bounds: %d layers, %d children, %d bytes", len(m.Layers), len(m.Children), len(data))
		}
		total := int64(0)
		files := map[string]bool{}
		for _, l := range m.Layers {
			total += l.Descriptor.Size
			if l.Descriptor.Size <= 0 || l.Descriptor.Size > profile.MaxPayloadBytes || total > pack.MaxArtifactBytes {
				t.Fatalf("size %d, %d in all", l.Descriptor.Size, total)
			}
			if err := l.Descriptor.Digest.Validate(); err != nil {
				t.Fatal(err)
			}
			if l.Kind == "" && l.File == "" {
				continue
			}
			checkFile(t, l.Descriptor.Annotations[ocispec.AnnotationTitle], l.File, false)
			if files[strings.ToLower(l.File)] {
				t.Fatalf("two files %q", l.File)
			}
			files[strings.ToLower(l.File)] = true
		}
		sameForAnotherParser(t, data, m)
	})
}

// sameForAnotherParser reads data without Go's struct matching, as a parser of
// another language would, and compares the digests found.
func sameForAnotherParser(t *testing.T, data []byte, m *pack.Manifest) {
	t.Helper()
	var generic map[string]any
	if err := json.Unmarshal(data, &generic); err != nil {
		t.Fatal(err)
	}
	list, want := "layers", []string{}
	for _, l := range m.Layers {
		want = append(want, l.Descriptor.Digest.String())
	}
	if m.IsIndex() {
		list = "manifests"
		for _, c := range m.Children {
			want = append(want, c.Digest.String())
		}
	}
	got := []string{}
	items, _ := generic[list].([]any)
	for _, item := range items {
		fields, _ := item.(map[string]any)
		d, _ := fields["digest"].(string)
		got = append(got, d)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("another parser reads other layers from %s: -confine +other:\n%s", data, diff)
	}
}

func FuzzBuildThenParse(f *testing.F) {
	f.Add("a.json", []byte(seccompData), "b.aa", []byte(apparmorData), "name/space", true)
	f.Add("../x.cil", []byte(cilData), "X.CIL", []byte(cilData), "", false)
	f.Add("", []byte(seccompData), "", []byte(""), "\xff<&>", false)
	f.Fuzz(func(t *testing.T, file1 string, data1 []byte, file2 string, data2 []byte, name string, bundle bool) {
		inputs := []pack.Input{{File: file1, Data: data1}}
		if file2 != "" {
			inputs = append(inputs, pack.Input{File: file2, Data: data2})
		}
		packed, err := pack.Build(inputs, testKinds(), pack.Options{Name: name, Bundle: bundle})
		if err != nil {
			wantKnownReason(t, err)
			return
		}
		m, err := pack.Parse(packed.Manifest, testKinds())
		if err != nil {
			t.Fatalf("Parse refuses what Build made: %v\n%s", err, packed.Manifest)
		}
		var payloads [][]byte
		for _, b := range packed.Blobs[1:] {
			payloads = append(payloads, b.Data)
		}
		layers, err := pack.Settle(m.Layers, payloads, testKinds())
		if err != nil {
			t.Fatalf("Settle refuses what Build made: %v\n%s", err, packed.Manifest)
		}
		if diff := cmp.Diff(m.Layers, layers); diff != "" {
			t.Fatalf("Build left something for the content to decide:\n%s", diff)
		}
		// Packing what came out makes the same artifact again.
		var again []pack.Input
		for i, l := range layers {
			again = append(again, pack.Input{File: l.File, Kind: l.Kind, Data: payloads[i]})
		}
		repacked, err := pack.Build(again, testKinds(), pack.Options{Annotations: m.Annotations, Bundle: bundle})
		if err != nil || !bytes.Equal(repacked.Manifest, packed.Manifest) {
			t.Fatalf("not reproducible, %v:\n%s\n%s", err, packed.Manifest, repacked.Manifest)
		}
	})
}
