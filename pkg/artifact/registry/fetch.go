package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

var (
	_ artifact.Fetcher = (*Client)(nil)
	_ artifact.Pusher  = (*Client)(nil)
)

// Docker's names of what OCI standardized; mirrors may have converted an artifact's index.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

func manifestTypes() []string {
	return []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerIndex}
}

// Manifest implements artifact.Fetcher. Errors are DigestMismatch, TooLarge,
// ArtifactNotFound, Unauthorized, RateLimited, RegistryUnavailable, and
// UnsupportedArtifact for a digest that is not sha256.
func (c *Client) Manifest(ctx context.Context, repo reference.Repository, d digest.Digest) ([]byte, error) {
	// Here, and not only below: without a digest there is nothing to compare with.
	if err := checkDigest(objectOf(repo, d.String()), d); err != nil {
		return nil, err
	}
	data, _, err := c.manifest(ctx, repo, d.String(), d)
	return data, finish(err)
}

// Resolve returns the descriptor of the manifest or index that ref names: by
// its digest, where it has one, else by its tag. The digest is computed from
// the bytes, never taken from the registry. Errors are those of Manifest.
func (c *Client) Resolve(ctx context.Context, ref reference.Reference) (ocispec.Descriptor, error) {
	name := ref.Tag
	if ref.Digest != "" {
		name = ref.Digest.String()
	}
	if name == "" {
		return ocispec.Descriptor{}, reason.New(reason.UnsupportedArtifact, ref.String(), "the reference has neither tag nor digest").
			WithAdvice("write %s:TAG or %s@sha256:…", ref.Repository, ref.Repository)
	}
	data, mediaType, err := c.manifest(ctx, ref.Repository, name, ref.Digest)
	if err != nil {
		return ocispec.Descriptor{}, finish(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}

// Blob implements artifact.Fetcher. Errors are those of Manifest; what is
// longer or shorter than desc says is DigestMismatch.
func (c *Client) Blob(ctx context.Context, repo reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	data, err := c.blob(ctx, repo, desc)
	return data, finish(err)
}

// finish turns the package's own error into the one that callers see.
func finish(err error) error {
	if f, ok := err.(*failure); ok { //nolint:errorlint // retry returns it unwrapped
		return f.err
	}
	return err
}

// manifest reads the manifest called name, a tag or digest, and compares it
// with want unless that is empty.
func (c *Client) manifest(ctx context.Context, repo reference.Repository, name string, want digest.Digest) ([]byte, string, error) {
	object := objectOf(repo, name)
	if want != "" {
		if err := checkDigest(object, want); err != nil {
			return nil, "", err
		}
	}
	var data []byte
	var desc ocispec.Descriptor
	err := c.call(ctx, repo, object, func(ctx context.Context, x *exchange) error {
		// Read whole before oras-go sees it, which otherwise asks a second time
		// (HEAD) for what comes without a length.
		x.consume = func(resp *http.Response) ([]byte, error) { return consumeManifest(resp, object, want) }
		r, err := x.repository(repo)
		if err != nil {
			return err
		}
		var body io.ReadCloser
		if desc, body, err = r.Manifests().FetchReference(ctx, name); err != nil {
			return err
		}
		data, err = content.ReadAll(body, desc)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return data, desc.MediaType, nil
}

// consumeManifest reads and judges the answer to a request for a manifest.
func consumeManifest(resp *http.Response, object string, want digest.Digest) ([]byte, error) {
	mediaType := mediaTypeOf(resp.Header)
	if !slices.Contains(manifestTypes(), mediaType) {
		return nil, lasting(reason.RegistryUnavailable, object, "the answer is of type %q, which is no manifest", clean(mediaType, nil))
	}
	data, err := readBody(resp, object, artifact.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	return data, checkManifest(object, data, mediaType, want)
}

// checkManifest compares bytes with their digest and their label.
func checkManifest(object string, data []byte, mediaType string, want digest.Digest) error {
	if want != "" && digest.FromBytes(data) != want {
		return lasting(reason.DigestMismatch, object, "the registry sent other bytes, with digest %s", digest.FromBytes(data))
	}
	var body struct {
		MediaType string `json:"mediaType"`
	}
	// What is no JSON object is for others to refuse; here only a contradiction is.
	if json.Unmarshal(data, &body) == nil && body.MediaType != "" && body.MediaType != mediaType {
		return lasting(reason.RegistryUnavailable, object, "the registry calls it %s, it calls itself %s", mediaType, clean(body.MediaType, nil))
	}
	return nil
}

func (c *Client) blob(ctx context.Context, repo reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	object := objectOf(repo, desc.Digest.String())
	if err := checkDigest(object, desc.Digest); err != nil {
		return nil, err
	}
	if desc.Size < 0 || desc.Size > artifact.MaxArtifactBytes {
		return nil, reason.New(reason.TooLarge, object, "the descriptor names %d bytes, at most %d are read", desc.Size, artifact.MaxArtifactBytes)
	}
	var data []byte
	err := c.call(ctx, repo, object, func(ctx context.Context, x *exchange) error {
		x.consume = func(resp *http.Response) ([]byte, error) { return consumeBlob(resp, object, desc) }
		r, err := x.repository(repo)
		if err != nil {
			return err
		}
		body, err := r.Blobs().Fetch(ctx, desc)
		if err != nil {
			return err
		}
		data, err = content.ReadAll(body, desc)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// consumeBlob reads and judges the answer to a request for a blob.
func consumeBlob(resp *http.Response, object string, desc ocispec.Descriptor) ([]byte, error) {
	if mediaTypeOf(resp.Header) == "text/html" { // a proxy's or a portal's page
		return nil, lasting(reason.RegistryUnavailable, object, "the answer is a web page, not a blob")
	}
	if n := resp.ContentLength; n >= 0 && n != desc.Size {
		return nil, lasting(reason.DigestMismatch, object, "the registry has %d bytes, the descriptor names %d", n, desc.Size)
	}
	data, err := readBody(resp, object, desc.Size)
	if err != nil {
		if f := asFailure(object, err); f.err.Reason == reason.TooLarge {
			return nil, lasting(reason.DigestMismatch, object, "the registry sent more than the %d bytes that the descriptor names", desc.Size)
		}
		return nil, err
	}
	if int64(len(data)) != desc.Size {
		return nil, lasting(reason.DigestMismatch, object, "the registry sent %d bytes, the descriptor names %d", len(data), desc.Size)
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return nil, lasting(reason.DigestMismatch, object, "the registry sent other bytes, with digest %s", got)
	}
	return data, nil
}

// readBody reads at most limit bytes, and one more to see that there is more.
func readBody(resp *http.Response, object string, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, tooLarge(object, limit)
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, networkFailure(resp.Request.Context(), object, resp.Request.URL.Host, err)
	}
	if n > limit {
		return nil, tooLarge(object, limit)
	}
	return b.Bytes(), nil
}

func tooLarge(object string, limit int64) error {
	return lasting(reason.TooLarge, object, "it has more than %d bytes", limit)
}

// checkDigest accepts sha256 alone.
func checkDigest(object string, d digest.Digest) error {
	if !isSHA256(d) {
		return reason.New(reason.UnsupportedArtifact, object, "%q is no sha256 digest", clean(d.String(), nil)).
			WithAdvice("reference it by its sha256 digest: confine resolve REPO:TAG prints it")
	}
	return nil
}

func isSHA256(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}

func mediaTypeOf(h http.Header) string {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

// objectOf names a manifest or blob in messages.
func objectOf(repo reference.Repository, name string) string {
	if strings.Contains(name, ":") {
		return repo.String() + "@" + clean(name, nil)
	}
	return repo.String() + ":" + clean(name, nil)
}

// blobOf describes data.
func blobOf(mediaType string, data []byte) pack.Blob {
	return pack.Blob{
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Data:       data,
	}
}
