package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// write returns a request that needs to write to repo.
func (c *Client) write(repo reference.Repository, method, object, path string) (*request, error) {
	r, err := c.get(repo, object, path)
	if err != nil {
		return nil, err
	}
	r.method = method
	r.scope.write = true
	return r, nil
}

func (c *Client) pushBlob(ctx context.Context, repo reference.Repository, blob pack.Blob) error {
	object := objectOf(repo, blob.Descriptor.Digest.String())
	there, err := c.hasBlob(ctx, repo, object, blob.Descriptor)
	if err != nil || there {
		return err
	}
	start, err := c.write(repo, http.MethodPost, object, "/v2/"+repo.Path+"/blobs/uploads/")
	if err != nil {
		return err
	}
	// An upload is begun anew as a whole: what became of a broken one is unknown.
	return c.retry(ctx, object, start.endpoint, func(ctx context.Context) error {
		put, err := c.beginUpload(ctx, start, blob)
		if err != nil {
			return err
		}
		return c.attempt(ctx, put, func(a *answer) error {
			if a.StatusCode != http.StatusCreated && a.StatusCode != http.StatusNoContent {
				return c.notTaken(a, object)
			}
			return nil
		})
	})
}

func (c *Client) hasBlob(ctx context.Context, repo reference.Repository, object string, desc ocispec.Descriptor) (bool, error) {
	r, err := c.write(repo, http.MethodHead, object, "/v2/"+repo.Path+"/blobs/"+desc.Digest.String())
	if err != nil {
		return false, err
	}
	there := false
	err = c.do(ctx, r, func(a *answer) error {
		switch a.StatusCode {
		case http.StatusOK:
			there = a.ContentLength < 0 || a.ContentLength == desc.Size
			return nil
		case http.StatusNotFound:
			return nil
		}
		return statusFailure(a.Response, object, a.secrets, c.opts.Now())
	})
	return there, err
}

// beginUpload opens an upload and returns the request that completes it (OCI
// distribution specification 1.1, "POST then PUT").
func (c *Client) beginUpload(ctx context.Context, start *request, blob pack.Blob) (*request, error) {
	var put *request
	err := c.attempt(ctx, start, func(a *answer) error {
		if a.StatusCode != http.StatusAccepted {
			return c.notTaken(a, start.object)
		}
		u, err := uploadURL(start, a.Header.Get("Location"))
		if err != nil {
			return lasting(reason.RegistryUnavailable, start.object, "the address for the upload is refused: %w", err)
		}
		query := u.Query()
		query.Set("digest", blob.Descriptor.Digest.String())
		u.RawQuery = query.Encode()
		put = &request{
			method: http.MethodPut, endpoint: start.endpoint, url: u, scope: start.scope, object: start.object,
			contentType: "application/octet-stream", body: blob.Data,
		}
		return nil
	})
	return put, err
}

// uploadURL reads where to upload to. That is on the registry itself; one
// behind a TLS proxy may call itself http, and is reached by https still.
func uploadURL(start *request, location string) (*url.URL, error) {
	if location == "" || len(location) > 8<<10 {
		return nil, errors.New("it is missing or too long")
	}
	u, err := start.url.Parse(location)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	if u.Host == start.url.Host {
		u.Scheme = start.url.Scheme
	}
	if u.User != nil || !start.endpoint.has(u) {
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
	r, err := c.write(repo, http.MethodPut, object, "/v2/"+repo.Path+"/manifests/"+name)
	if err != nil {
		return false, err
	}
	r.contentType, r.body = desc.MediaType, manifest
	noted := false
	err = c.do(ctx, r, func(a *answer) error {
		if a.StatusCode != http.StatusCreated && a.StatusCode != http.StatusOK && a.StatusCode != http.StatusAccepted {
			return c.notTaken(a, object)
		}
		if got := a.Header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
			return lasting(reason.DigestMismatch, object, "the registry stored other bytes than were sent, with digest %s", clean(got, nil))
		}
		noted = a.Header.Get("OCI-Subject") != ""
		return nil
	})
	return noted, err
}

// notTaken maps an answer to a write. A registry that refuses the bytes will
// always do so.
func (c *Client) notTaken(a *answer, object string) error {
	f := statusFailure(a.Response, object, a.secrets, c.opts.Now())
	switch a.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		f.err.Reason = reason.UnsupportedArtifact
		f.err.Advice = "use a registry that takes OCI artifacts, or ask its administrator what it accepts"
	case http.StatusRequestEntityTooLarge:
		f.err.Reason = reason.TooLarge
	}
	return f
}
