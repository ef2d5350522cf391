package registry

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// Push writes the blobs that the registry does not have yet, and then the
// manifest under ref's tag, or under its digest alone where ref has no tag.
// All descriptors are compared with their bytes before anything is sent.
// Errors are those of Manifest, and UnsupportedArtifact where the registry
// does not take the artifact.
func (c *Client) Push(ctx context.Context, ref reference.Reference, blobs []pack.Blob, manifest []byte, desc ocispec.Descriptor) error {
	if err := checkPush(ref, blobs, manifest, desc); err != nil {
		return err
	}
	for _, blob := range blobs {
		if err := c.pushBlob(ctx, ref.Repository, blob); err != nil {
			return finish(err)
		}
	}
	name := ref.Tag
	if name == "" {
		name = desc.Digest.String()
	}
	_, err := c.pushManifest(ctx, ref.Repository, name, manifest, desc)
	return finish(err)
}

func checkPush(ref reference.Reference, blobs []pack.Blob, manifest []byte, desc ocispec.Descriptor) error {
	all := append([]pack.Blob{{Descriptor: desc, Data: manifest}}, blobs...)
	for _, blob := range all {
		d := blob.Descriptor
		if digest.FromBytes(blob.Data) != d.Digest || int64(len(blob.Data)) != d.Size {
			return reason.New(reason.DigestMismatch, ref.String(), "the bytes to push are not those of their descriptor %s", clean(d.Digest.String(), nil))
		}
	}
	if len(manifest) > artifact.MaxManifestBytes {
		return reason.New(reason.TooLarge, ref.String(), "the manifest has %d bytes, at most %d are allowed", len(manifest), artifact.MaxManifestBytes)
	}
	if ref.Digest != "" && ref.Digest != desc.Digest {
		return reason.New(reason.DigestMismatch, ref.String(), "the manifest to push has the digest %s", desc.Digest)
	}
	return nil
}

// write calls do with oras-go's client for repo, and with a hint that one token
// for reading and writing is wanted, instead of one of each.
func (c *Client) write(ctx context.Context, repo reference.Repository, object string, do func(context.Context, *exchange, *remote.Repository) error) error {
	return c.call(ctx, repo, object, func(ctx context.Context, x *exchange) error {
		r, err := x.repository(repo)
		if err != nil {
			return err
		}
		return do(auth.AppendRepositoryScope(ctx, r.Reference, auth.ActionPull, auth.ActionPush), x, r)
	})
}

func (c *Client) pushBlob(ctx context.Context, repo reference.Repository, blob pack.Blob) error {
	object := objectOf(repo, blob.Descriptor.Digest.String())
	there, err := c.hasBlob(ctx, repo, object, blob.Descriptor)
	if err != nil || there {
		return err
	}
	// An upload is begun anew as a whole: what became of a broken one is unknown.
	return c.write(ctx, repo, object, func(ctx context.Context, _ *exchange, r *remote.Repository) error {
		return r.Blobs().Push(ctx, blob.Descriptor, bytes.NewReader(blob.Data))
	})
}

func (c *Client) hasBlob(ctx context.Context, repo reference.Repository, object string, desc ocispec.Descriptor) (bool, error) {
	there := false
	err := c.write(ctx, repo, object, func(ctx context.Context, x *exchange, r *remote.Repository) error {
		got, err := r.Blobs().Resolve(ctx, desc.Digest.String())
		if x.status == http.StatusNotFound || x.status == http.StatusOK {
			// Where it is there and oras-go cannot tell how long it is, it is
			// written again, which does no harm.
			there = err == nil && got.Size == desc.Size
			return nil
		}
		return err
	})
	return there, err
}

// uploadURL reads where to upload to, as base answered. That is on the registry
// itself; one behind a TLS proxy may call itself http, which oras-go would
// refuse, and is reached by https still.
func uploadURL(e endpoint, base *url.URL, location string) (*url.URL, error) {
	if location == "" || len(location) > 8<<10 {
		return nil, errors.New("it is missing or too long")
	}
	u, err := base.Parse(location)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	if u.Host == base.Host {
		u.Scheme = base.Scheme
	}
	if u.User != nil || !e.has(u) {
		return nil, errors.New("it is another host's")
	}
	u.Fragment = ""
	return u, nil
}

// pushManifest writes a manifest, and reports whether the registry said that
// it took note of its subject (OCI-Subject header, OCI distribution
// specification 1.1, "Pushing manifests with subject").
func (c *Client) pushManifest(ctx context.Context, repo reference.Repository, name string, manifest []byte, desc ocispec.Descriptor) (bool, error) {
	object := objectOf(repo, name)
	noted := false
	err := c.write(ctx, repo, object, func(ctx context.Context, x *exchange, r *remote.Repository) error {
		err := r.Manifests().PushReference(ctx, desc, bytes.NewReader(manifest), name)
		if x.status != http.StatusCreated {
			return err
		}
		if got := x.header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
			return lasting(reason.DigestMismatch, object, "the registry stored other bytes than were sent, with digest %s", clean(got, nil))
		}
		noted = x.header.Get("OCI-Subject") != ""
		return err
	})
	return noted, err
}

// notTaken says what an answer to a write means that is no success: a registry
// that refuses the bytes will always do so.
func notTaken(f *failure) {
	switch f.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		f.err.Reason = reason.UnsupportedArtifact
		f.err.Advice = "use a registry that takes OCI artifacts, or ask its administrator what it accepts"
	case http.StatusRequestEntityTooLarge:
		f.err.Reason = reason.TooLarge
	}
}
