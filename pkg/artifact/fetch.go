package artifact

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// Bounds on what one artifact may make a node read, counted before any
// allocation that depends on it.
const (
	MaxManifestBytes  = pack.MaxManifestBytes
	MaxLayers         = pack.MaxLayers
	MaxArtifactBytes  = pack.MaxArtifactBytes // all payloads of one artifact
	MaxReferrers      = 4096                  // descriptors listed
	CandidatesPerPass = 64                    // signatures tried in one pass
)

// Fetcher yields an artifact's bytes. It is the seam between the side that
// speaks to registries and the side that judges: everything that crosses it
// is plain bounded bytes, and the judging side trusts none of it.
//
// fetchtest.Run is the suite that every implementation passes (a registry,
// the node's store).
type Fetcher interface {
	// Manifest returns the bytes of the manifest or index that d names, at
	// most MaxManifestBytes. Implementations have compared them with d; the
	// caller does so again.
	Manifest(ctx context.Context, repo reference.Repository, d digest.Digest) ([]byte, error)
	// Blob returns the desc.Size bytes that desc names, which the caller has
	// bounded.
	Blob(ctx context.Context, repo reference.Repository, desc ocispec.Descriptor) ([]byte, error)
	// Signatures starts a lazy walk over the signatures attached to d. Nothing
	// is contacted before the first Next. seen names candidates that an
	// earlier pass has tried: they are skipped without fetching them. What the
	// walk holds may be given back only when ctx ends.
	Signatures(ctx context.Context, repo reference.Repository, d digest.Digest, seen func(digest.Digest) bool) Signatures
}

// Signatures is a lazy walk over the candidates for one digest, over all
// places where signatures can be attached, in the order of their likelihood.
type Signatures interface {
	// Next returns the next candidate, or io.EOF after the last one.
	//
	// One bad candidate or place never ends the walk: Next passes over what is
	// malformed or missing. A *SkippedError says that one candidate or place
	// could not be read although it may hold a good signature; the walk can go
	// on with another Next, but "no signature" can no longer be concluded.
	Next(ctx context.Context) (trust.Candidate, error)
}

// SkippedError reports a candidate or place that could not be read now.
type SkippedError struct {
	// ID is the candidate, or empty for a whole place.
	ID digest.Digest
	// Err is a *reason.Error such as RegistryUnavailable.
	Err error
}

// Error returns the cause's message.
func (e *SkippedError) Error() string { return "signature not read: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SkippedError) Unwrap() error { return e.Err }
