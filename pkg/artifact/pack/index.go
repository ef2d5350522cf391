package pack

import (
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// children judges and returns the manifests of an index.
func (d *document) children() ([]ocispec.Descriptor, error) {
	if len(d.Manifests) == 0 {
		return nil, refuse("the index lists no manifests")
	}
	if len(d.Manifests) > MaxChildren {
		return nil, tooLarge("the index has %d manifests, at most %d are read", len(d.Manifests), MaxChildren)
	}
	children := make([]ocispec.Descriptor, 0, len(d.Manifests))
	for _, desc := range d.Manifests {
		if err := checkDescriptor("a manifest of the index", desc, MaxManifestBytes); err != nil {
			return nil, err
		}
		if desc.MediaType != ocispec.MediaTypeImageManifest {
			return nil, refuse("the index lists a %q; one level of OCI image manifests is supported", clip(desc.MediaType)).
				WithAdvice("list the manifests of all platforms in one index, pushed with confine push --bundle or oras push")
		}
		children = append(children, ocispec.Descriptor{
			MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Platform: desc.Platform,
		})
	}
	return children, nil
}

// PickChild returns the manifest of an index that is meant for p. The zero
// Platform is Linux on this program's own architecture. In this order:
// the same os, architecture and variant; the same os and architecture where
// the index names no variant; the only manifest, if it names no platform. Two
// different manifests in one step are refused, for the order of an index means
// nothing. Errors are UnsupportedArtifact.
func (m *Manifest) PickChild(p ocispec.Platform) (ocispec.Descriptor, error) {
	if p.OS == "" && p.Architecture == "" && p.Variant == "" {
		p.OS, p.Architecture = "linux", runtime.GOARCH
	}
	if !m.IsIndex() {
		return ocispec.Descriptor{}, refuse("it is no index")
	}
	steps := []func(c *ocispec.Platform) bool{
		func(c *ocispec.Platform) bool { return sameMachine(p, c) && variantOf(*c) == variantOf(p) },
		func(c *ocispec.Platform) bool { return sameMachine(p, c) && c.Variant == "" },
		func(c *ocispec.Platform) bool { return c == nil && len(m.Children) == 1 },
	}
	for _, matches := range steps {
		found := map[digest.Digest]ocispec.Descriptor{}
		for _, c := range m.Children {
			if matches(c.Platform) {
				found[c.Digest] = c
			}
		}
		if len(found) > 1 {
			return ocispec.Descriptor{}, refuse("the index lists %d manifests for %s", len(found), render(p)).
				WithAdvice("list one manifest a platform, or reference the digest of the one that is meant")
		}
		for _, c := range found {
			return c, nil
		}
	}
	return ocispec.Descriptor{}, refuse("the index lists no manifest for %s", render(p)).
		WithAdvice("add that platform to the index; it lists %s", m.platforms())
}

// sameMachine compares all but the variant. A manifest that needs an os
// version or features this package cannot judge is for p only if p names them.
func sameMachine(p ocispec.Platform, c *ocispec.Platform) bool {
	return c != nil && c.OS == p.OS && c.Architecture == p.Architecture &&
		(c.OSVersion == "" || c.OSVersion == p.OSVersion) && len(c.OSFeatures) == 0
}

// variantOf fills in what an architecture's missing variant means (image
// specification, "Platform Variants"; the defaults are containerd's).
func variantOf(p ocispec.Platform) string {
	if p.Variant != "" {
		return p.Variant
	}
	return map[string]string{"arm64": "v8", "arm": "v7", "amd64": "v1"}[p.Architecture]
}

func render(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return clip(s)
}

// platforms lists what an index offers, for messages.
func (m *Manifest) platforms() string {
	const most = 8
	var names []string
	for i, c := range m.Children {
		if i == most {
			names = append(names, "…")
			break
		}
		if c.Platform == nil {
			names = append(names, "one without a platform")
			continue
		}
		names = append(names, SanitizeTitle(strings.ReplaceAll(render(*c.Platform), "/", "-")))
	}
	return strings.Join(names, ", ")
}
