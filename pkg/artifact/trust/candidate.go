package trust

import "github.com/opencontainers/go-digest"

// Form is the shape in which a signature was attached to an artifact.
type Form string

const (
	// FormBundle is a sigstore bundle v0.3, as cosign 3 attaches it by default
	// (https://docs.sigstore.dev/about/bundle/).
	FormBundle Form = "bundle"
	// FormSimpleSigning is cosign 1 and 2's payload with annotations, be it
	// under the sha256-<hex>.sig tag or as an OCI 1.1 referrer
	// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md).
	FormSimpleSigning Form = "simplesigning"
)

// MaxCandidateBytes bounds the bytes of one candidate, annotations included.
const MaxCandidateBytes = 1 << 20

// Candidate is one signature as some registry served it: foreign bytes, of
// which nothing is known yet. It is plain data, so that it can be kept as
// evidence and can cross a process boundary.
type Candidate struct {
	// ID tells candidates of one artifact apart across passes: the digest of
	// the bytes it came from. It is a label, never trusted.
	ID digest.Digest `json:"id"`
	// Form says how Payload is to be read.
	Form Form `json:"form"`
	// Payload is the bundle's JSON, or the simple signing JSON.
	Payload []byte `json:"payload"`
	// Annotations are the layer's, for FormSimpleSigning: the signature stands there.
	Annotations map[string]string `json:"annotations,omitempty"`
}
