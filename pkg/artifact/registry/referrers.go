package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// What cosign writes: version 3 a bundle
// (https://github.com/sigstore/cosign/blob/v3.1.3/pkg/oci/remote/write.go),
// version 2 on demand a referrer with simple signing layers.
const (
	bundleType          = "application/vnd.dev.sigstore.bundle.v0.3+json"
	bundleTypePrefix    = "application/vnd.dev.sigstore.bundle"
	cosignReferrerType  = "application/vnd.dev.cosign.artifact.sig.v1+json"
	simpleSigningType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
	annotationContent   = "dev.sigstore.bundle.content"
	signPredicate       = "https://sigstore.dev/cosign/sign/v1"
)

// withoutReferrersFor is how long the referrers API of a repository counts as
// missing once the registry said so.
const withoutReferrersFor = time.Hour

// errNoReferrers says that the registry has no referrers API.
var errNoReferrers = errors.New("no referrers API")

// rank is the place of a descriptor in the walk: a hint that only orders.
type rank int

const (
	rankSigned     rank = iota // annotated as what cosign sign writes
	rankBundle                 // a bundle that does not say of what
	rankCosign                 // cosign 2's referrer
	rankOther                  // a bundle that says it is an attestation
	rankUnlabelled             // not labelled at all
	rankNone                   // something else, such as an SBOM
)

// rankOf reads what the list says about a referrer.
func rankOf(d ocispec.Descriptor) rank {
	switch {
	case strings.HasPrefix(d.ArtifactType, bundleTypePrefix):
		switch d.Annotations[annotationPredicate] {
		case signPredicate:
			return rankSigned
		case "":
			return rankBundle
		}
		return rankOther
	case d.ArtifactType == cosignReferrerType:
		return rankCosign
	case d.Annotations[annotationPredicate] == signPredicate:
		return rankSigned
	// Registries that know artifactType only from the config's media type.
	case d.ArtifactType == "", d.ArtifactType == ocispec.MediaTypeEmptyJSON, d.ArtifactType == ocispec.MediaTypeImageConfig:
		return rankUnlabelled
	}
	return rankNone
}

// referrerList collects at most artifact.MaxReferrers digests, the likeliest first.
type referrerList struct {
	ranked [rankNone][]digest.Digest
	known  map[digest.Digest]struct{}
	count  int
	// cut is set where not all was read, so that nothing can be concluded.
	cut error
}

// add takes a descriptor that may be a signature.
func (l *referrerList) add(d ocispec.Descriptor) {
	r := rankOf(d)
	if r == rankNone || !isSHA256(d.Digest) ||
		d.Size > artifact.MaxManifestBytes {
		return
	}
	if _, again := l.known[d.Digest]; again {
		return
	}
	if l.count >= artifact.MaxReferrers && !l.dropBelow(r) {
		return
	}
	l.known[d.Digest] = struct{}{}
	l.ranked[r] = append(l.ranked[r], d.Digest)
	l.count++
}

// dropBelow makes room for a better descriptor by dropping the last of the worst.
func (l *referrerList) dropBelow(r rank) bool {
	for worst := rankNone - 1; worst > r; worst-- {
		if n := len(l.ranked[worst]); n > 0 {
			delete(l.known, l.ranked[worst][n-1])
			l.ranked[worst] = l.ranked[worst][:n-1]
			l.count--
			return true
		}
	}
	return false
}

// digests returns what was collected, in the order to try.
func (l *referrerList) digests() []digest.Digest {
	return slices.Concat(l.ranked[:]...)
}

// referrers reads the referrers API's list for d. The error is errNoReferrers
// where the registry has no such API. Where the list is too long, what was
// read is returned, with its cut set.
//
// The requests are ours, sent through oras-go's client for authentication:
// remote.Repository.Referrers decodes a page as a whole, so that one broken
// entry, or a page cut short, hides all signatures on it; it holds a page in
// memory before anything is ranked; and a registry that answers anything but
// 404 where it has no such API ends the search.
func (c *Client) referrers(ctx context.Context, repo reference.Repository, d digest.Digest) (*referrerList, error) {
	object := objectOf(repo, d.String())
	if until, ok := c.withoutReferrers.get(repo.String()); ok && c.opts.Now().Before(until) {
		return nil, errNoReferrers
	}
	list := &referrerList{known: map[digest.Digest]struct{}{}}
	left := c.limits.listBytes
	var u *url.URL // of the next page
	for page := 1; page == 1 || u != nil; page++ {
		if page > c.limits.pages {
			list.cut = reason.New(reason.TooLarge, object, "the list of referrers has more than %d pages", c.limits.pages)
			break
		}
		next, err := c.referrersPage(ctx, repo, d, u, list, &left)
		if page == 1 && errors.Is(err, errNoReferrers) {
			c.withoutReferrers.put(repo.String(), c.opts.Now().Add(withoutReferrersFor))
			return nil, errNoReferrers
		}
		if err != nil && (list.count == 0 || ctx.Err() != nil) {
			return nil, err
		}
		if err != nil {
			list.cut = finish(err) // what was read may do
		}
		if list.cut != nil {
			break
		}
		u = next
	}
	return list, nil //nolint:nilerr // the list carries it as its cut
}

// referrersPage reads the page at u, or the first, into list and returns the
// address of the next.
func (c *Client) referrersPage(ctx context.Context, repo reference.Repository, d digest.Digest, u *url.URL, list *referrerList, left *int64) (*url.URL, error) {
	object := objectOf(repo, d.String())
	var next *url.URL
	err := c.call(ctx, repo, object, func(ctx context.Context, x *exchange) error {
		ctx = auth.AppendRepositoryScope(ctx, x.reference(repo), auth.ActionPull)
		page := u
		if page == nil {
			page = x.site.endpoint.url("/v2/" + repo.Path + "/referrers/" + d.String())
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
		resp, err := x.Do(req)
		if err != nil {
			return err
		}
		defer discard(resp.Body)
		switch code := resp.StatusCode; {
		case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusRequestTimeout,
			code == http.StatusTooManyRequests, code >= 500 && code != http.StatusNotImplemented:
			return x.refused
		case code != http.StatusOK, mediaTypeOf(resp.Header) != ocispec.MediaTypeImageIndex:
			return lasting(reason.RegistryUnavailable, object, "%w", errNoReferrers)
		}
		if err := c.readPage(resp, object, list, left); err != nil || list.cut != nil {
			return err
		}
		next, err = nextPage(x.site.endpoint, page, object, resp.Header)
		return err
	})
	return next, err
}

// readPage reads the body of one page into list, at most *left bytes of it.
func (c *Client) readPage(resp *http.Response, object string, list *referrerList, left *int64) error {
	counted := &countingReader{r: io.LimitReader(resp.Body, *left+1)}
	err := readReferrers(counted, list)
	*left -= counted.n
	switch {
	case *left < 0: // whatever the cut made of the JSON
		list.cut = reason.New(reason.TooLarge, object, "the list of referrers has more than %d bytes", c.limits.listBytes)
		err = nil
	case counted.err != nil:
		err = networkFailure(resp.Request.Context(), object, resp.Request.URL.Host, counted.err)
	case err != nil:
		err = lasting(reason.RegistryUnavailable, object, "the list of referrers cannot be read: %s", clean(err.Error(), nil))
	}
	return err
}

// nextPage returns the address in a Link header with rel="next" (RFC 8288, OCI
// distribution specification 1.1, "Listing referrers"), nil where there is
// none. It must lie on the registry itself.
func nextPage(e endpoint, page *url.URL, object string, h http.Header) (*url.URL, error) {
	for _, header := range h.Values("Link") {
		target, params, found := strings.Cut(header, ">")
		target, isLink := strings.CutPrefix(strings.TrimSpace(target), "<")
		if !found || !isLink || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
			continue
		}
		u, err := page.Parse(target)
		if err != nil || len(target) > 8<<10 || u.User != nil || !e.has(u) {
			return nil, lasting(reason.RegistryUnavailable, object, "the next page of the list of referrers lies elsewhere")
		}
		u.Fragment = ""
		return u, nil
	}
	return nil, nil
}

// readReferrers adds the descriptors of an index to list one by one, so that a
// long list costs no memory.
func readReferrers(r io.Reader, list *referrerList) error {
	dec := json.NewDecoder(r)
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if key != "manifests" {
			var other json.RawMessage
			if err := dec.Decode(&other); err != nil {
				return err
			}
			continue
		}
		if err := readDescriptors(dec, list); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func readDescriptors(dec *json.Decoder, list *referrerList) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t == nil {
		return nil // null: no referrers
	}
	if t != json.Delim('[') {
		return errors.New("its manifests are no list")
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		var d ocispec.Descriptor
		if json.Unmarshal(raw, &d) == nil { // one bad entry hides no others
			list.add(d)
		}
	}
	_, err = dec.Token()
	return err
}

// taggedReferrers reads the index that stands under the tag for d where there
// is no referrers API (OCI distribution specification 1.1, "Referrers tag
// schema"). A missing tag is an empty list.
func (c *Client) taggedReferrers(ctx context.Context, repo reference.Repository, d digest.Digest) (*referrerList, error) {
	list := &referrerList{known: map[digest.Digest]struct{}{}}
	data, mediaType, err := c.manifest(ctx, repo, referrersTag(d), "")
	if errors.Is(err, reason.ArtifactNotFound) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	if mediaType != ocispec.MediaTypeImageIndex {
		return list, nil // somebody's image under that name
	}
	if err := readReferrers(bytes.NewReader(data), list); err != nil {
		return nil, lasting(reason.RegistryUnavailable, objectOf(repo, referrersTag(d)), "the list of referrers cannot be read: %s", clean(err.Error(), nil))
	}
	return list, nil
}

func referrersTag(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded()
}

// countingReader remembers how much was read, and what ended it before its time.
type countingReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
