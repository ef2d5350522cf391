// Package artifact holds the use cases of profile artifacts: push, and pull,
// which resolves, verifies, fetches and classifies. Its sub-packages each know
// one part: names (reference), manifests (pack), registries (registry) and
// whom to believe (trust).
package artifact

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
)

// Request names one artifact and who wants it.
type Request struct {
	// Repository is the source: trust is decided on it, also when a mirror serves it.
	Repository reference.Repository
	// Digest is the pinned manifest or index.
	Digest digest.Digest
	// Owner is the SecurityProfile that wants it.
	Owner profile.Owner
	// Platform picks the child of an index; the zero value is this program's own.
	Platform ocispec.Platform
}

// Artifact is one artifact that was verified and judged as a whole.
type Artifact struct {
	Request Request
	// Annotations are the signed annotations of the pinned manifest or index.
	Annotations map[string]string
	// Payloads in the order of the layers.
	Payloads []Payload
	// Verdict says who signed, and how long that holds.
	Verdict trust.Verdict
	// Evidence is what the verdict and the payloads rest on.
	Evidence Evidence
}

// Payload is one profile of a verified artifact.
type Payload struct {
	Kind   string
	File   string
	Digest digest.Digest
	Data   []byte
	// Profile is the parsed and judged profile.
	Profile profile.Profile
}

// Evidence is all that is needed to judge an artifact again without a
// registry: foreign bytes, kept as they came. It holds no verdict.
type Evidence struct {
	// Repository and Digest name the artifact as it was requested.
	Repository reference.Repository `json:"repository"`
	Digest     digest.Digest        `json:"digest"`
	// Manifests are the digests of the pinned manifest or index and, for an
	// index, of the child that was picked.
	Manifests []digest.Digest `json:"manifests"`
	// Payloads are the descriptors of the payload blobs.
	Payloads []ocispec.Descriptor `json:"payloads"`
	// Signatures are the candidates that counted.
	Signatures []trust.Candidate `json:"signatures"`
	// ManifestBytes are the bytes of Manifests, in their order; a store keeps
	// them by digest, not here.
	ManifestBytes [][]byte `json:"-"`
}
