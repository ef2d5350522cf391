package pack_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/reason"
)

// child describes a manifest of an index by name; platform is os/arch[/variant]
// or empty for none.
func child(name, platform string) obj {
	d := blobOf(ocispec.MediaTypeImageManifest, name, "")
	if platform != "" {
		parts := append(strings.Split(platform, "/"), "")
		d["platform"] = obj{"os": parts[0], "architecture": parts[1], "variant": parts[2]}
	}
	return d
}

func indexOf(children ...obj) obj {
	return obj{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": children,
		"annotations": obj{pack.AnnotationVersion: "2.0.0"},
	}
}

func platform(text string) ocispec.Platform {
	if text == "" {
		return ocispec.Platform{}
	}
	parts := append(strings.Split(text, "/"), "")
	return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

func TestPickChild(t *testing.T) {
	t.Parallel()
	two := []obj{child("amd", "linux/amd64"), child("arm", "linux/arm64")}
	cases := map[string]struct {
		children []obj
		p        string
		want     string // the child's name; empty: refused
		advice   string
	}{
		"by architecture":                      {two, "linux/arm64", "arm", ""},
		"the zero platform is this machine's":  {[]obj{child("own", "linux/"+runtime.GOARCH), child("other", "linux/s390x0")}, "", "own", ""},
		"by os":                                {[]obj{child("w", "windows/amd64"), child("l", "linux/amd64")}, "linux/amd64", "l", ""},
		"by variant":                           {[]obj{child("v6", "linux/arm/v6"), child("v7", "linux/arm/v7")}, "linux/arm/v6", "v6", ""},
		"arm without variant is v7":            {[]obj{child("v6", "linux/arm/v6"), child("v7", "linux/arm/v7")}, "linux/arm", "v7", ""},
		"arm64 v8 is arm64":                    {two, "linux/arm64/v8", "arm", ""},
		"arm64 is arm64 v8":                    {[]obj{child("v8", "linux/arm64/v8")}, "linux/arm64", "v8", ""},
		"the index names no variant":           {two, "linux/amd64/v3", "amd", ""},
		"an exact variant comes first":         {[]obj{child("any", "linux/amd64"), child("v3", "linux/amd64/v3")}, "linux/amd64/v3", "v3", ""},
		"another variant does not do":          {[]obj{child("v3", "linux/amd64/v3")}, "linux/amd64", "", "linux-amd64-v3"},
		"a single child without platform":      {[]obj{child("only", "")}, "linux/riscv64", "only", ""},
		"one of several without platform":      {[]obj{child("amd", "linux/amd64"), child("none", "")}, "linux/arm64", "", "one without a platform"},
		"the platform beats the one without":   {[]obj{child("amd", "linux/amd64"), child("none", "")}, "linux/amd64", "amd", ""},
		"a single child for another platform":  {[]obj{child("amd", "linux/amd64")}, "linux/arm64", "", "it lists linux-amd64"},
		"not there":                            {two, "linux/riscv64", "", "it lists linux-amd64, linux-arm64"},
		"two for one platform":                 {[]obj{child("a", "linux/amd64"), child("b", "linux/amd64")}, "linux/amd64", "", "one manifest a platform"},
		"two spellings of one platform":        {[]obj{child("a", "linux/arm64"), child("b", "linux/arm64/v8")}, "linux/arm64", "", "one manifest a platform"},
		"the same manifest twice":              {[]obj{child("a", "linux/amd64"), child("a", "linux/amd64")}, "linux/amd64", "a", ""},
		"buildx's attestation is not in doubt": {append([]obj{child("att", "unknown/unknown")}, two...), "linux/amd64", "amd", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := pack.Parse(encode(t, indexOf(tc.children...)), testKinds())
			if err != nil {
				t.Fatal(err)
			}
			if !m.IsIndex() || m.Annotations[pack.AnnotationVersion] != "2.0.0" || len(m.Children) != len(tc.children) {
				t.Fatalf("not the index that was written: %+v", m)
			}
			got, err := m.PickChild(platform(tc.p))
			if tc.want == "" {
				wantRefusal(t, got.Digest != "", err, reason.UnsupportedArtifact, tc.advice)
				return
			}
			if err != nil || got.Digest != digest.FromString(tc.want) {
				t.Errorf("picked %v, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestPickChildHeedsOSVersionAndFeatures(t *testing.T) {
	t.Parallel()
	needs := func(name string, fields obj) obj {
		c := child(name, "linux/amd64")
		c["platform"] = with(c["platform"].(obj), fields)
		return c
	}
	m, err := pack.Parse(encode(t, indexOf(
		needs("version", obj{"os.version": "6.1"}), needs("features", obj{"os.features": []string{"x"}}))), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.PickChild(platform("linux/amd64")); err == nil {
		t.Errorf("picked %v, whose needs nobody checked", got)
	}
	p := platform("linux/amd64")
	p.OSVersion = "6.1"
	if got, err := m.PickChild(p); err != nil || got.Digest != digest.FromString("version") {
		t.Errorf("picked %v, %v", got, err)
	}
}

func TestPickChildOfAManifest(t *testing.T) {
	t.Parallel()
	m, err := pack.Parse(encode(t, manifestOf(bareType, blobOf(cilType, cilData, ""))), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.PickChild(ocispec.Platform{})
	wantRefusal(t, got.Digest != "", err, reason.UnsupportedArtifact, "")
}

func TestParseChild(t *testing.T) {
	t.Parallel()
	bundle := encode(t, manifestOf(pack.ArtifactTypeBundle, blobOf(seccompType, seccompData, "a.json")))
	if m, err := pack.ParseChild(bundle, testKinds()); err != nil || len(m.Layers) != 1 {
		t.Errorf("a bundle in an index: %v, %v", m, err)
	}
	for name, tc := range map[string]struct {
		child  any
		advice string
	}{
		"the KEP-6061 form": {manifestOf(pack.ArtifactTypeSeccomp, blobOf(tarType, seccompData, "a.json")), "--bundle"},
		"another index":     {indexOf(child("a", "linux/amd64")), "one index"},
		"no manifest":       {"{}", "oras push"},
	} {
		m, err := pack.ParseChild(encode(t, tc.child), testKinds())
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefusal(t, m != nil, err, reason.UnsupportedArtifact, tc.advice)
		})
	}
}
