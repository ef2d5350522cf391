package artifact

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/profile"
)

// Pusher writes an artifact and its signatures to a registry.
type Pusher interface {
	// Push writes the blobs and then the manifest, under ref's tag.
	Push(ctx context.Context, ref reference.Reference, blobs []pack.Blob, manifest []byte, desc ocispec.Descriptor) error
	// Attach writes a signature bundle as a referrer of subject.
	Attach(ctx context.Context, repo reference.Repository, subject ocispec.Descriptor, bundle []byte, annotations map[string]string) (ocispec.Descriptor, error)
}

// Signer makes signature bundles; *sign.Key is one.
type Signer interface {
	// Bundle returns a sigstore bundle whose statement is that d was signed.
	Bundle(ctx context.Context, d digest.Digest) ([]byte, error)
}

// PushRequest is what to push, and where to.
type PushRequest struct {
	Reference reference.Reference
	Inputs    []pack.Input
	Pack      pack.Options
	// Signer signs the pushed digest; nil leaves it unsigned.
	Signer Signer
}

// Pushed names what was pushed.
type Pushed struct {
	Digest digest.Digest
	// Signature is the referrer that carries the signature, or empty.
	Signature digest.Digest
}

// Push packs the inputs reproducibly, pushes them and signs the digest. What
// is signed is the digest of the bytes packed here, not one that the registry
// names.
func Push(ctx context.Context, to Pusher, kinds profile.Set, req PushRequest) (Pushed, error) {
	packed, err := pack.Build(req.Inputs, kinds, req.Pack)
	if err != nil {
		return Pushed{}, err
	}
	pushed := Pushed{Digest: packed.Descriptor.Digest}
	// Signed before anything is pushed, so that a key that does not sign
	// leaves no unsigned artifact under the tag.
	var bundle []byte
	if req.Signer != nil {
		if bundle, err = req.Signer.Bundle(ctx, pushed.Digest); err != nil {
			return Pushed{}, err
		}
	}
	if err := to.Push(ctx, req.Reference, packed.Blobs, packed.Manifest, packed.Descriptor); err != nil {
		return Pushed{}, err
	}
	if req.Signer == nil {
		return pushed, nil
	}
	signature, err := to.Attach(ctx, req.Reference.Repository, packed.Descriptor, bundle, sign.ReferrerAnnotations())
	if err != nil {
		return Pushed{}, err
	}
	pushed.Signature = signature.Digest
	return pushed, nil
}
