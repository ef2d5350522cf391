package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/pack"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// PullerOptions configure a Puller.
type PullerOptions struct {
	// Kinds are the kinds of profile an artifact may hold at all.
	Kinds profile.Set
	// Now is the clock that signers' validity is judged by; nil is time.Now.
	Now func() time.Time
	// JudgeTime bounds the time that the payloads of one artifact are parsed and
	// judged for; zero means DefaultJudgeTime. It is looked at between two
	// payloads: what one of them takes is bounded by its size.
	JudgeTime time.Duration
}

// DefaultJudgeTime is far more than useful profiles take, which is milliseconds.
const DefaultJudgeTime = 30 * time.Second

// Puller pulls artifacts: it verifies before it reads, and returns an artifact
// only as a whole. It is safe for concurrent use.
type Puller struct {
	kinds     profile.Set
	now       func() time.Time
	judgeTime time.Duration
	passes    passes
}

// NewPuller returns a Puller.
func NewPuller(opts PullerOptions) *Puller {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Puller{kinds: opts.Kinds, now: opts.Now, judgeTime: cmp.Or(opts.JudgeTime, DefaultJudgeTime)}
}

// ErrSlow is wrapped by the TooLarge of an artifact whose payloads take too long
// to judge. On another machine, or at another time, they may not.
var ErrSlow = errors.New("judging the payloads takes too long")

// Pull resolves, verifies, fetches and classifies the artifact that req names.
// from may be a registry or a store of evidence: the same code judges both.
//
// Nothing is contacted for a repository that no policy matches. The manifest is
// read only after its digest and signatures were verified, and payloads only
// after that. The error is a *reason.Error; where it wraps ErrMoreSignatures,
// another call goes on with the signatures that were not tried yet.
func (p *Puller) Pull(ctx context.Context, from Fetcher, policies *trust.Policies, req Request) (*Artifact, error) {
	matched, err := policies.Matching(req.Repository, req.Owner.Namespace)
	if err != nil {
		return nil, err
	}
	if err := matched.CheckRevoked(req.Digest); err != nil {
		return nil, err
	}
	raw, err := fetchManifest(ctx, from, req.Repository, req.Digest)
	if err != nil {
		return nil, err
	}
	art := &Artifact{Request: req, Evidence: Evidence{Repository: req.Repository, Digest: req.Digest}}
	art.Evidence.addManifest(req.Digest, raw)
	if err := p.verify(ctx, from, matched, art); err != nil {
		return nil, err
	}
	manifest, err := p.open(ctx, from, matched, art, raw)
	if err != nil {
		return nil, err
	}
	if err := p.fetchPayloads(ctx, from, matched, art, manifest); err != nil {
		return nil, err
	}
	if err := p.judge(ctx, matched, art); err != nil {
		return nil, err
	}
	return art, nil
}

// open reads the verified manifest, descending from an index to the child for
// the wanted platform.
func (p *Puller) open(ctx context.Context, from Fetcher, matched *trust.Matched, art *Artifact, raw []byte) (*pack.Manifest, error) {
	req := art.Request
	manifest, err := pack.Parse(raw, p.kinds)
	if err != nil {
		return nil, named(req.Object(), err)
	}
	art.Annotations = manifest.Annotations
	sub := trust.Subject{Repository: req.Repository, Digest: req.Digest, Owner: req.Owner}
	if err := matched.CheckAnnotations(sub, manifest.Annotations); err != nil {
		return nil, err
	}
	if !manifest.IsIndex() {
		return manifest, nil
	}
	child, err := manifest.PickChild(req.platform())
	if err != nil {
		return nil, named(req.Object(), err)
	}
	if err := matched.CheckRevoked(child.Digest); err != nil {
		return nil, err
	}
	raw, err = fetchManifest(ctx, from, req.Repository, child.Digest)
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != child.Size {
		return nil, reason.New(reason.DigestMismatch, objectOf(req.Repository, child.Digest), "it has %d bytes, and its index says %d", len(raw), child.Size)
	}
	art.Evidence.addManifest(child.Digest, raw)
	manifest, err = pack.ParseChild(raw, p.kinds)
	if err != nil {
		return nil, named(objectOf(req.Repository, child.Digest), err)
	}
	return manifest, nil
}

// fetchPayloads reads the layers' bytes and settles what each of them is.
func (p *Puller) fetchPayloads(ctx context.Context, from Fetcher, matched *trust.Matched, art *Artifact, manifest *pack.Manifest) error {
	for _, layer := range manifest.Layers {
		if layer.Kind == "" {
			continue
		}
		if err := matched.CheckKind(layer.Kind); err != nil {
			return named(art.Request.Object(), err)
		}
	}
	layers, data, err := fetchLayers(ctx, from, art.Request.Repository, art.Request.Object(), manifest, p.kinds)
	if err != nil {
		return err
	}
	for i, layer := range layers {
		if err := matched.CheckKind(layer.Kind); err != nil {
			return named(art.Request.Object(), err)
		}
		art.Payloads = append(art.Payloads, Payload{
			Kind: layer.Kind, File: layer.File, Digest: layer.Descriptor.Digest, Data: data[i],
		})
		art.Evidence.Payloads = append(art.Evidence.Payloads, layer.Descriptor)
	}
	return nil
}

// fetchLayers reads all layers within the bounds and settles their kinds and files.
func fetchLayers(ctx context.Context, from Fetcher, repo reference.Repository, object string, manifest *pack.Manifest, kinds profile.Set) ([]pack.Layer, [][]byte, error) {
	data := make([][]byte, 0, len(manifest.Layers))
	total := int64(0)
	for _, layer := range manifest.Layers {
		total += layer.Descriptor.Size
		if layer.Descriptor.Size > profile.MaxPayloadBytes || total > MaxArtifactBytes {
			return nil, nil, reason.New(reason.TooLarge, object, "the payloads exceed %d bytes each or %d in all",
				int64(profile.MaxPayloadBytes), int64(MaxArtifactBytes))
		}
		blob, err := fetchBlob(ctx, from, repo, layer.Descriptor)
		if err != nil {
			return nil, nil, err
		}
		data = append(data, blob)
	}
	layers, err := pack.Settle(manifest.Layers, data, kinds)
	if err != nil {
		return nil, nil, named(object, err)
	}
	return layers, data, nil
}

// judge parses every payload and holds it against all matching policies.
func (p *Puller) judge(ctx context.Context, matched *trust.Matched, art *Artifact) error {
	began := time.Now()
	for i := range art.Payloads {
		if err := ctx.Err(); err != nil {
			return reason.New(reason.InstallFailed, art.Request.Object(), "stopped before all payloads were judged: %w", err)
		}
		if spent := time.Since(began); spent > p.judgeTime {
			return reason.New(reason.TooLarge, art.Request.Object(), "%w: %d of %d in %v", ErrSlow, i, len(art.Payloads), p.judgeTime).
				WithAdvice("make the profiles simpler, or split them over several artifacts")
		}
		payload := &art.Payloads[i]
		kind, ok := p.kinds.ByName(payload.Kind)
		if !ok {
			return reason.New(reason.UnsupportedArtifact, art.Request.Object(), "%s: no kind of profile is called %q", payload.File, payload.Kind)
		}
		parsed, err := kind.Parse(payload.File, payload.Data)
		if err != nil {
			return named(art.Request.Object(), err)
		}
		if err := kind.Constrain(parsed, profile.For(art.Request.Owner), matched.Limits(payload.Kind)); err != nil {
			return named(art.Request.Object(), err)
		}
		payload.Profile = parsed
	}
	return nil
}

// Object is how messages call what is requested.
func (r Request) Object() string { return objectOf(r.Repository, r.Digest) }

func (r Request) platform() ocispec.Platform {
	if r.Platform.OS == "" && r.Platform.Architecture == "" {
		return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	}
	return r.Platform
}

func (e *Evidence) addManifest(d digest.Digest, raw []byte) {
	e.Manifests = append(e.Manifests, d)
	e.ManifestBytes = append(e.ManifestBytes, raw)
}

func objectOf(repo reference.Repository, d digest.Digest) string {
	return repo.String() + "@" + d.String()
}

// named puts the artifact in front of the object that a package below, which
// knows only bytes, named in its error.
func named(object string, err error) error {
	e, ok := reason.Of(err)
	if !ok {
		return fmt.Errorf("%s: %w", object, err)
	}
	c := *e
	if c.Object == "" {
		c.Object = object
	} else {
		c.Object = object + ": " + c.Object
	}
	c.Err = err
	return &c
}

// fetchManifest reads a manifest and compares it with the digest that names
// it, whatever the fetching side says it did.
func fetchManifest(ctx context.Context, from Fetcher, repo reference.Repository, d digest.Digest) ([]byte, error) {
	raw, err := from.Manifest(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxManifestBytes {
		return nil, reason.New(reason.TooLarge, objectOf(repo, d), "the manifest exceeds %d bytes", MaxManifestBytes)
	}
	return raw, checkDigest(objectOf(repo, d), raw, d)
}

func fetchBlob(ctx context.Context, from Fetcher, repo reference.Repository, desc ocispec.Descriptor) ([]byte, error) {
	data, err := from.Blob(ctx, repo, desc)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != desc.Size {
		return nil, reason.New(reason.DigestMismatch, objectOf(repo, desc.Digest), "got %d bytes where %d were announced", len(data), desc.Size)
	}
	return data, checkDigest(objectOf(repo, desc.Digest), data, desc.Digest)
}

func checkDigest(object string, data []byte, want digest.Digest) error {
	if want.Validate() != nil || want.Algorithm() != digest.SHA256 { // Algorithm panics on what is no digest
		return reason.New(reason.UnsupportedArtifact, object, "only sha256 digests are supported")
	}
	if got := digest.FromBytes(data); got != want {
		return reason.New(reason.DigestMismatch, object, "the bytes have the digest %s", got)
	}
	return nil
}

// verify walks the signatures until every matching policy's threshold is met.
func (p *Puller) verify(ctx context.Context, from Fetcher, matched *trust.Matched, art *Artifact) error {
	sub := trust.Subject{Repository: art.Request.Repository, Digest: art.Request.Digest, Owner: art.Request.Owner}
	key := passKey{object: art.Request.Object(), policies: matched.Fingerprint()}
	pass := p.passes.take(key)
	session := matched.Begin(sub, p.now())
	for _, c := range pass.counted {
		// It counted in an earlier pass; if it no longer does, the verdict says so.
		_ = session.Offer(ctx, c)
	}
	walking, done := context.WithCancel(ctx) // a walk may hold something until this ends
	err := walk(walking, from.Signatures(walking, sub.Repository, sub.Digest, pass.has), session, &pass)
	done()
	if session.Met() {
		art.Verdict, err = session.Verdict()
		art.Evidence.Signatures = session.Counted()
		return err
	}
	if ctx.Err() != nil {
		p.passes.put(key, pass)
		return reason.New(reason.RegistryUnavailable, art.Request.Object(), "verification was interrupted: %w", ctx.Err())
	}
	_, verdict := session.Verdict()
	pass.verdict, pass.counted = trust.MoreTelling(pass.verdict, verdict), session.Counted()
	return p.unmet(key, art.Request.Object(), &pass, err)
}

// unmet is the refusal after a pass that did not meet the thresholds; walked
// is what ended its walk.
func (p *Puller) unmet(key passKey, object string, pass *pass, walked error) error {
	refused := pass.verdict
	if pass.skipped != nil && (walked == nil || errors.Is(refused, reason.SignatureMissing)) {
		refused = cannotVerifyNow(object, pass.skipped)
	}
	switch {
	case errors.Is(walked, ErrMoreSignatures):
		p.passes.put(key, *pass)
		return moreToTry(refused, len(pass.seen))
	case walked != nil:
		p.passes.put(key, *pass)
		return walked
	case pass.skipped != nil:
		p.passes.put(key, pass.nextRound())
	}
	return refused
}

// walk offers candidates until the session is met, the walk ends or the pass's
// budget is used up. One bad candidate never ends it, and one that cannot be
// read uses up the budget of one pass alone.
func walk(ctx context.Context, candidates Signatures, session *trust.Session, pass *pass) error {
	for budget := CandidatesPerPass; !session.Met(); budget-- {
		if budget == 0 {
			return ErrMoreSignatures
		}
		candidate, err := candidates.Next(ctx)
		var skipped *SkippedError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &skipped):
			pass.skip(skipped)
			continue
		case err != nil:
			return err
		}
		// The session keeps why a candidate did not count, for its verdict.
		offered := session.Offer(ctx, candidate)
		if ctx.Err() != nil {
			return ctx.Err() // not judged: a later pass must see it again
		}
		pass.judged++
		pass.add(candidate.ID)
		if offered == nil {
			pass.counted = append(pass.counted, candidate)
		}
	}
	return nil
}

// cannotVerifyNow is the verdict where something that may be a good signature
// was not read. It is never final: what is broken is the signature's place,
// not the artifact, so a corrupt or oversized one must not stall it.
func cannotVerifyNow(object string, skipped *SkippedError) error {
	const detail = "cannot verify now, a place that may hold signatures could not be read: "
	e := reason.New(reason.RegistryUnavailable, object, detail+"%w", skipped.Err)
	cause, ok := reason.Of(skipped.Err)
	if !ok {
		return e
	}
	e.Detail, e.RetryAfter = detail+cause.Object+": "+cause.Detail, cause.RetryAfter
	switch cause.Reason {
	case reason.RegistryUnavailable, reason.RateLimited, reason.Unauthorized:
	default: // it says something of that signature, not of the artifact
		return e.WithAdvice("attach a signature that can be read, or remove the broken one: confine inspect lists them")
	}
	e.Reason, e.Advice = cause.Reason, cause.Advice
	return e
}
