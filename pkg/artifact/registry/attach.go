package registry

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// indexAttempts bounds how often the index under a tag is rewritten until our
// entry stands in it, while others write it too.
const indexAttempts = 5

// Attach writes a sigstore bundle as an OCI 1.1 referrer of subject, laid out
// as cosign 3 does (WriteAttestationNewBundleFormat in
// https://github.com/sigstore/cosign/blob/v3.1.3/pkg/oci/remote/write.go): the
// bundle as the only layer, an empty config, and annotations that say what it
// is, which the caller may add to and replace. Where the registry has no
// referrers API, the referrer is entered in the index under the tag
// sha256-<hex>. It returns the referrer's descriptor. Attaching the same
// bundle again changes nothing. Errors are those of Push.
func (c *Client) Attach(ctx context.Context, repo reference.Repository, subject ocispec.Descriptor, bundle []byte, annotations map[string]string) (ocispec.Descriptor, error) {
	object := objectOf(repo, subject.Digest.String())
	if err := checkDigest(object, subject.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(bundle) > trust.MaxCandidateBytes {
		return ocispec.Descriptor{}, reason.New(reason.TooLarge, object, "the signature has %d bytes, at most %d are read", len(bundle), trust.MaxCandidateBytes)
	}
	config, layer := blobOf(ocispec.MediaTypeEmptyJSON, []byte("{}")), blobOf(bundleType, bundle)
	config.Descriptor.ArtifactType = bundleType // as cosign has it
	all := map[string]string{annotationContent: "dsse-envelope", annotationPredicate: signPredicate}
	maps.Copy(all, annotations)
	data, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: bundleType,
		Config:       config.Descriptor,
		Layers:       []ocispec.Descriptor{layer.Descriptor},
		Subject:      &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations:  all,
	})
	if err != nil {
		return ocispec.Descriptor{}, reason.New(reason.InstallFailed, object, "the signature's manifest cannot be written: %w", err)
	}
	for _, blob := range []pack.Blob{config, layer} {
		if err := c.pushBlob(ctx, repo, blob); err != nil {
			return ocispec.Descriptor{}, finish(err)
		}
	}
	desc := blobOf(ocispec.MediaTypeImageManifest, data).Descriptor
	noted, err := c.pushManifest(ctx, repo, desc.Digest.String(), data, desc)
	if err != nil {
		return ocispec.Descriptor{}, finish(err)
	}
	entry := desc
	entry.ArtifactType, entry.Annotations = bundleType, all
	if noted {
		return entry, nil
	}
	return entry, finish(c.listReferrer(ctx, repo, subject.Digest, entry))
}

// listReferrer sees to it that entry can be found: by the referrers API where
// the registry has one, else by the index under the tag.
//
// oras-go would keep that index too, but it replaces whatever else stands under
// the tag, drops what others wrote into the index besides descriptors, does not
// look whether another writer overtook it, and writes the index also for a
// registry that has the API and does not say so in its answer.
func (c *Client) listReferrer(ctx context.Context, repo reference.Repository, subject digest.Digest, entry ocispec.Descriptor) error {
	_, err := c.referrers(ctx, repo, subject)
	if err == nil || !errors.Is(err, errNoReferrers) {
		return err
	}
	tag := referrersTag(subject)
	select {
	case c.indexing <- struct{}{}:
		defer func() { <-c.indexing }()
	case <-ctx.Done():
		return canceled(ctx, objectOf(repo, tag))
	}
	for range indexAttempts {
		index, listed, err := c.readIndex(ctx, repo, tag, entry.Digest)
		if err != nil || listed {
			return err
		}
		data, err := index.with(entry)
		if err != nil {
			return reason.New(reason.TooLarge, objectOf(repo, tag), "%w", err)
		}
		desc := blobOf(ocispec.MediaTypeImageIndex, data).Descriptor
		if _, err := c.pushManifest(ctx, repo, tag, data, desc); err != nil {
			return err
		}
		// Others may have written between our reading and writing: look again.
		if _, listed, err = c.readIndex(ctx, repo, tag, entry.Digest); err != nil || listed {
			return err
		}
		if c.opts.Sleep(ctx, c.opts.jitter(retryBase*4)) != nil {
			return canceled(ctx, objectOf(repo, tag))
		}
	}
	return reason.New(reason.RegistryUnavailable, objectOf(repo, tag), "others write the list of referrers at the same time; the signature is not listed yet").
		WithAdvice("sign again")
}

// rawIndex is an index of which every part that is not ours is kept as it is.
type rawIndex struct {
	fields    map[string]json.RawMessage
	manifests []json.RawMessage
}

// readIndex reads the index under tag, and whether it lists d. A missing one
// is empty; anything else than an index is never replaced.
func (c *Client) readIndex(ctx context.Context, repo reference.Repository, tag string, d digest.Digest) (*rawIndex, bool, error) {
	index := &rawIndex{fields: map[string]json.RawMessage{
		"schemaVersion": json.RawMessage(`2`), "mediaType": json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
	}}
	data, mediaType, err := c.manifest(ctx, repo, tag, "")
	if errors.Is(err, reason.ArtifactNotFound) {
		return index, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	foreign := reason.New(reason.UnsupportedArtifact, objectOf(repo, tag), "the tag for the list of referrers holds something else").
		WithAdvice("remove the tag %s, or use a registry with the referrers API", tag)
	if mediaType != ocispec.MediaTypeImageIndex || json.Unmarshal(data, &index.fields) != nil {
		return nil, false, foreign
	}
	if raw, ok := index.fields["manifests"]; ok && json.Unmarshal(raw, &index.manifests) != nil {
		return nil, false, foreign
	}
	for _, raw := range index.manifests {
		var desc ocispec.Descriptor
		if json.Unmarshal(raw, &desc) == nil && desc.Digest == d {
			return index, true, nil
		}
	}
	return index, false, nil
}

// with renders the index with entry as its last manifest.
func (x *rawIndex) with(entry ocispec.Descriptor) ([]byte, error) {
	raw, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	if len(x.manifests) >= artifact.MaxReferrers {
		return nil, errors.New("the list of referrers is full")
	}
	manifests, err := json.Marshal(append(x.manifests[:len(x.manifests):len(x.manifests)], raw))
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(x.fields)
	fields["manifests"] = manifests
	data, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	if len(data) > artifact.MaxManifestBytes {
		return nil, errors.New("the list of referrers is full: it would have more than 1 MiB")
	}
	return data, nil
}
