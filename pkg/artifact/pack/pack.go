// Package pack knows the manifests of profile artifacts: it builds them
// reproducibly and classifies foreign ones layer by layer. It works on bytes
// and speaks to no registry. docs/artifact-format.md is its specification.
package pack

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Confine's own artifacts and of KEP-6061
// (https://github.com/kubernetes/enhancements/issues/6061).
const (
	// ArtifactTypeSeccomp stands on both artifactType and config.mediaType.
	ArtifactTypeSeccomp = "application/vnd.cncf.seccomp-profile.config.v1+json"
	// ArtifactTypeBundle marks an artifact of one or more typed payloads.
	ArtifactTypeBundle = "application/vnd.confine.profiles.v1"
)

// The KEP-6061 form, byte for byte as spoc writes it: a config of "{}" and one
// layer of application/json
// (https://github.com/kubernetes-sigs/security-profiles-operator/pull/3421).
// Runtimes must not look at the layer's media type; the KEP says so because
// oras labels files as tar.
const (
	// kepKind is the one kind of profile that has a KEP-6061 form. AppArmor's
	// is planned there as a JSON document, not as the text Confine carries.
	kepKind           = "seccomp"
	kepLayerMediaType = "application/json"
)

// Signed annotations on the manifest that trust policies read.
const (
	AnnotationName    = "dev.confine.name"
	AnnotationVersion = "dev.confine.version"
)

// Bounds, all counted before any allocation that depends on them.
const (
	// MaxManifestBytes bounds a manifest or index.
	MaxManifestBytes = 1 << 20
	// MaxLayers bounds the payloads of one artifact.
	MaxLayers = 64
	// MaxChildren bounds the manifests of one index.
	MaxChildren = 64
	// MaxArtifactBytes bounds all payloads of one artifact together;
	// profile.MaxPayloadBytes bounds each.
	MaxArtifactBytes = 8 << 20
)

// Form is which of the accepted shapes a manifest has.
type Form string

// The accepted forms.
const (
	// FormKEP6061 is one raw seccomp profile that container runtimes read too.
	FormKEP6061 Form = "kep6061"
	// FormBundle is Confine's own: one or more typed payloads.
	FormBundle Form = "bundle"
	// FormBare is what `oras push` makes of files when told nothing else.
	FormBare Form = "bare"
	// FormIndex is an image index of such manifests, one a platform.
	FormIndex Form = "index"
)

// Layer is one payload of an artifact, before its bytes are fetched.
type Layer struct {
	// Descriptor has media type, digest, size and the title annotation; all
	// else that a foreign manifest says about a layer is dropped.
	Descriptor ocispec.Descriptor
	// Kind is the kind's name, or empty where only the content can tell: then
	// Settle decides once the bytes are there.
	Kind string
	// File is the sanitized file name it is installed under, unique within
	// the artifact; empty until Settle where Kind is.
	File string
}

// Manifest is what Parse read: an image manifest with its layers, or an index
// with its children.
type Manifest struct {
	// Form is the shape it has.
	Form Form
	// Annotations are the manifest's own, which its signature covers.
	Annotations map[string]string
	// Layers are the payloads, 1 to MaxLayers; none in an index.
	Layers []Layer
	// Children are the manifests of an index, 1 to MaxChildren.
	Children []ocispec.Descriptor
}

// IsIndex reports whether PickChild must choose before there are layers.
func (m *Manifest) IsIndex() bool { return m.Form == FormIndex }

// Input is one profile to pack.
type Input struct {
	// File is the file's name. Only its last segment counts, sanitized as
	// titles are; empty means the kind's default file.
	File string
	// Kind is the kind's name. Empty means that the file's extension decides,
	// then the content.
	Kind string
	// Data is the payload as it is to be installed.
	Data []byte
}

// Options say what is packed besides the payloads. The zero value works.
type Options struct {
	// Name and Version become the signed annotations AnnotationName and
	// AnnotationVersion; empty ones are left out.
	Name, Version string
	// Annotations are further annotations of the manifest.
	Annotations map[string]string
	// Bundle makes a Confine bundle also where the KEP-6061 form would do.
	Bundle bool
}

// Packed is an artifact that is ready to be pushed.
type Packed struct {
	// Form is the shape that was chosen.
	Form Form
	// Manifest are the manifest's bytes, and Descriptor names them.
	Manifest   []byte
	Descriptor ocispec.Descriptor
	// Blobs are the config and the layers, to be pushed before the manifest.
	Blobs []Blob
}

// Blob is one piece of content with its descriptor.
type Blob struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// newBlob describes data.
func newBlob(mediaType string, data []byte) Blob {
	return Blob{
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Data:       data,
	}
}
