package store

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/reason"
)

// A Store serves what it keeps as a registry would, so that the same code
// judges both.
var _ artifact.Fetcher = (*Store)(nil)

// Manifest returns a kept manifest, re-hashed.
func (s *Store) Manifest(ctx context.Context, _ reference.Repository, d digest.Digest) ([]byte, error) {
	return s.blob(ctx, d, artifact.MaxManifestBytes)
}

// Blob returns a kept payload, re-hashed.
func (s *Store) Blob(ctx context.Context, _ reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size < 0 || desc.Size > artifact.MaxArtifactBytes {
		return nil, reason.New(reason.TooLarge, desc.Digest.String(), "%d bytes are out of bounds", desc.Size)
	}
	data, err := s.blob(ctx, desc.Digest, desc.Size)
	if err == nil && int64(len(data)) != desc.Size {
		return nil, reason.New(reason.DigestMismatch, desc.Digest.String(), "%d bytes are kept where %d were announced", len(data), desc.Size)
	}
	return data, err
}

// Signatures walks over the kept signatures of one source.
func (s *Store) Signatures(_ context.Context, repo reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	return &walk{store: s, source: unit.Source{Repository: repo, Digest: d}, seen: seen}
}

// walk reads the record with the first Next.
type walk struct {
	store  *Store
	source unit.Source
	seen   func(digest.Digest) bool
	read   bool
	left   []trust.Candidate
}

// Next returns the next kept signature that was not seen.
func (w *walk) Next(ctx context.Context) (trust.Candidate, error) {
	if err := ctx.Err(); err != nil {
		return trust.Candidate{}, err
	}
	if !w.read {
		w.read = true
		record, err := w.store.Record(w.source)
		if err != nil && !errors.Is(err, reason.ArtifactNotFound) {
			return trust.Candidate{}, &artifact.SkippedError{Err: err}
		}
		w.left = record.Evidence.Signatures
	}
	for len(w.left) > 0 {
		next := w.left[0]
		w.left = w.left[1:]
		if !w.seen(next.ID) {
			return next, nil
		}
	}
	return trust.Candidate{}, io.EOF
}
