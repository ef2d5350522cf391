package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// missingFor is how long a listed manifest that was not there is passed over,
// so that a later pass gets beyond many of them.
const missingFor = 10 * time.Minute

// passedOverKey names a referrer of one subject that is no signature of it.
type passedOverKey struct {
	repository        string
	subject, referrer digest.Digest
}

// Signatures implements artifact.Fetcher. The places are, in this order: the
// referrers API, the index under the tag sha256-<hex>, and the image under the
// tag sha256-<hex>.sig of cosign 1 and 2.
//
// IDs are the digest of the referrer's manifest where that holds one
// signature, else a digest over the layer's descriptor. They depend on what
// was signed and nothing around it, so that they hold across passes.
func (c *Client) Signatures(_ context.Context, repo reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	if seen == nil {
		seen = func(digest.Digest) bool { return false }
	}
	return &walk{
		client: c, repo: repo, subject: d, seen: seen,
		left:    c.opts.WalkTimeout,
		offered: map[digest.Digest]struct{}{},
		queue:   queue{places: []place{(*walk).fromReferrers, (*walk).fromTaggedReferrers, (*walk).fromSignatureTag}},
	}
}

// place fills the walk's queue from one place where signatures can be.
type place func(*walk, context.Context) error

// walk is a lazy walk over the signatures of one subject. It holds at most
// MaxReferrers digests and the layers of one manifest.
type walk struct {
	client  *Client
	repo    reference.Repository
	subject digest.Digest
	seen    func(digest.Digest) bool
	// left is the time that may still be spent reading.
	left time.Duration
	// over is set once that was reported to be used up.
	over    bool
	offered map[digest.Digest]struct{}
	queue
	// payload is the last one read: cosign repeats it for every signer.
	payload       []byte
	payloadDigest digest.Digest
}

// queue is what a walk still has to do, first things first.
type queue struct {
	// layers are simple signing layers not read yet.
	layers []layer
	// referrers are listed and not read yet.
	referrers []digest.Digest
	listed    int // over all lists
	// pending is reported once all that was listed has been read.
	pending error
	places  []place // not asked yet
}

// layer is one simple signing layer.
type layer struct {
	id   digest.Digest
	desc ocispec.Descriptor
}

// Next implements artifact.Signatures.
func (w *walk) Next(ctx context.Context) (trust.Candidate, error) {
	switch {
	case w.over:
		return trust.Candidate{}, io.EOF
	case w.left <= 0:
		return trust.Candidate{}, w.timeIsOver()
	}
	began := w.client.opts.Now()
	inner, stop := context.WithTimeout(ctx, w.left)
	defer stop()
	candidate, err := w.next(inner, began.Add(w.left))
	w.left -= w.client.opts.Now().Sub(began)
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // our own
		return candidate, err
	case ctx.Err() != nil:
		return trust.Candidate{}, canceled(ctx, objectOf(w.repo, w.subject.String()))
	case inner.Err() != nil || w.left <= 0:
		return trust.Candidate{}, w.timeIsOver()
	}
	return trust.Candidate{}, err
}

// timeIsOver ends the walk, and says that it was not walked to its end.
func (w *walk) timeIsOver() error {
	w.over = true
	return &artifact.SkippedError{Err: reason.New(reason.RegistryUnavailable,
		objectOf(w.repo, w.subject.String()), "reading its signatures took longer than %s; a later pass goes on", w.client.opts.WalkTimeout)}
}

func (w *walk) next(ctx context.Context, until time.Time) (trust.Candidate, error) {
	for w.client.opts.Now().Before(until) {
		candidate, found, err := w.step(ctx)
		if err != nil || found {
			return candidate, err
		}
		if ctx.Err() != nil {
			return trust.Candidate{}, ctx.Err()
		}
	}
	return trust.Candidate{}, context.DeadlineExceeded
}

// step does one thing: read a layer, read a referrer or ask a place.
func (w *walk) step(ctx context.Context) (candidate trust.Candidate, found bool, err error) {
	var id digest.Digest
	before := w.queue
	defer func() {
		if err != nil && ctx.Err() != nil {
			w.queue = before // an interrupted step is done again
		}
	}()
	switch {
	case len(w.layers) > 0:
		next := w.layers[0]
		w.layers, id = w.layers[1:], next.id
		candidate, found, err = w.readLayer(ctx, next)
	case len(w.referrers) > 0:
		id = w.referrers[0]
		w.referrers = w.referrers[1:]
		candidate, found, err = w.readReferrer(ctx, id)
	case w.pending != nil:
		err, w.pending = w.pending, nil
	case len(w.places) > 0:
		ask := w.places[0]
		w.places = w.places[1:]
		err = ask(w, ctx)
	default:
		return trust.Candidate{}, false, io.EOF
	}
	if err != nil {
		return trust.Candidate{}, false, w.skipped(ctx, id, err)
	}
	if found {
		w.offered[candidate.ID] = struct{}{}
	}
	return candidate, found, nil
}

// skipped decides what an error means for the walk: an interruption is reported
// as such, missing things are passed over.
func (w *walk) skipped(ctx context.Context, id digest.Digest, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, reason.ArtifactNotFound) {
		if id != "" {
			w.client.passOver(w.key(id), missingFor)
		}
		return nil
	}
	return &artifact.SkippedError{ID: id, Err: finish(err)}
}

func (w *walk) fromReferrers(ctx context.Context) error {
	list, err := w.client.referrers(ctx, w.repo, w.subject)
	if errors.Is(err, errNoReferrers) {
		return nil
	}
	return w.take(list, err)
}

func (w *walk) fromTaggedReferrers(ctx context.Context) error {
	return w.take(w.client.taggedReferrers(ctx, w.repo, w.subject))
}

// take queues what a list names, without what is known already.
func (w *walk) take(list *referrerList, err error) error {
	if err != nil {
		return err
	}
	w.pending = list.cut
	for _, d := range list.digests() {
		if w.listed >= artifact.MaxReferrers {
			w.pending = reason.New(reason.TooLarge, objectOf(w.repo, w.subject.String()), "it has more than %d referrers", artifact.MaxReferrers)
			break
		}
		w.listed++
		if !w.known(d) && !w.client.isPassedOver(w.key(d)) {
			w.referrers = append(w.referrers, d)
		}
	}
	return nil
}

func (w *walk) known(id digest.Digest) bool {
	_, offered := w.offered[id]
	return offered || w.seen(id)
}

func (w *walk) key(referrer digest.Digest) passedOverKey {
	return passedOverKey{w.repo.String(), w.subject, referrer}
}

// signatureManifest is what is read of the manifest that carries signatures.
type signatureManifest struct {
	Layers  []ocispec.Descriptor `json:"layers"`
	Subject *ocispec.Descriptor  `json:"subject"`
}

// readSignatureManifest reads foreign bytes; what is no manifest has neither
// layers nor subject.
func readSignatureManifest(data []byte) signatureManifest {
	var m signatureManifest
	if json.Unmarshal(data, &m) != nil {
		return signatureManifest{}
	}
	return m
}

// readReferrer reads one referrer's manifest, and its bundle if it is one.
func (w *walk) readReferrer(ctx context.Context, d digest.Digest) (trust.Candidate, bool, error) {
	data, _, err := w.client.manifest(ctx, w.repo, d.String(), d)
	if err != nil {
		return trust.Candidate{}, false, err
	}
	m := readSignatureManifest(data)
	if m.Subject == nil || m.Subject.Digest != w.subject {
		w.client.passOver(w.key(d), forever)
		return trust.Candidate{}, false, nil
	}
	if len(m.Layers) == 1 && strings.HasPrefix(m.Layers[0].MediaType, bundleTypePrefix) {
		return w.readBundle(ctx, d, m.Layers[0])
	}
	w.layers = w.simpleSigning(m.Layers)
	switch len(w.layers) {
	case 0:
		w.client.passOver(w.key(d), forever)
	case 1:
		w.layers[0].id = d // its manifest need not be read again to know it
	}
	return trust.Candidate{}, false, nil
}

func (w *walk) readBundle(ctx context.Context, id digest.Digest, desc ocispec.Descriptor) (trust.Candidate, bool, error) {
	if desc.Size < 0 || desc.Size > trust.MaxCandidateBytes || !isSHA256(desc.Digest) {
		w.client.passOver(w.key(id), forever)
		return trust.Candidate{}, false, nil
	}
	payload, err := w.client.blob(ctx, w.repo, desc)
	if err != nil {
		return trust.Candidate{}, false, err
	}
	return trust.Candidate{ID: id, Form: trust.FormBundle, Payload: payload}, true, nil
}

// fromSignatureTag reads cosign 1 and 2's image of signatures.
func (w *walk) fromSignatureTag(ctx context.Context) error {
	data, _, err := w.client.manifest(ctx, w.repo, referrersTag(w.subject)+".sig", "")
	if err != nil {
		return err
	}
	w.layers = w.simpleSigning(readSignatureManifest(data).Layers)
	return nil
}

// simpleSigning returns the layers that may be signatures, each once. Their
// number is bounded by the size of the manifest.
func (w *walk) simpleSigning(descs []ocispec.Descriptor) []layer {
	var layers []layer
	for _, desc := range descs {
		if desc.MediaType != simpleSigningType || !isSHA256(desc.Digest) {
			continue
		}
		size := desc.Size
		for key, value := range desc.Annotations {
			size += int64(len(key) + len(value))
		}
		if desc.Size < 0 || size > trust.MaxCandidateBytes {
			continue
		}
		layers = append(layers, layer{id: layerID(desc), desc: desc})
	}
	return layers
}

// layerID is the digest over the layer's digest, size and annotations: cosign
// repeats one payload for every signer, the signature is an annotation.
func layerID(desc ocispec.Descriptor) digest.Digest {
	canonical, err := json.Marshal(ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Annotations: desc.Annotations,
	})
	if err != nil {
		return desc.Digest // unreachable: strings and numbers always marshal
	}
	return digest.FromBytes(canonical)
}

func (w *walk) readLayer(ctx context.Context, l layer) (trust.Candidate, bool, error) {
	if w.known(l.id) {
		return trust.Candidate{}, false, nil
	}
	if w.payloadDigest != l.desc.Digest || int64(len(w.payload)) != l.desc.Size {
		payload, err := w.client.blob(ctx, w.repo, l.desc)
		if err != nil {
			return trust.Candidate{}, false, err
		}
		w.payload, w.payloadDigest = payload, l.desc.Digest
	}
	return trust.Candidate{
		ID: l.id, Form: trust.FormSimpleSigning, Payload: bytes.Clone(w.payload), Annotations: l.desc.Annotations,
	}, true, nil
}

// forever is longer than any process runs: content never changes its digest.
const forever = 10 * 365 * 24 * time.Hour

func (c *Client) passOver(key passedOverKey, d time.Duration) {
	c.passedOver.put(key, c.opts.Now().Add(d))
}

func (c *Client) isPassedOver(key passedOverKey) bool {
	until, ok := c.passedOver.get(key)
	return ok && c.opts.Now().Before(until)
}
