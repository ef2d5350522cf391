package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/node/plan"
	"github.com/confine-dev/confine/pkg/node/unit"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

// judgeKey is everything a verdict depends on, but for time.
type judgeKey struct {
	owner    profile.Owner
	source   unit.Source
	policies digest.Digest
}

// content is what a verified artifact consists of. It lives in memory alone:
// a restart judges again.
type content struct {
	files map[string][]unit.File // by kind
	// until is when the verdict must be made again; zero for never.
	until time.Time
}

// has reports whether the verified artifact holds this very file of the kind.
func (c *content) has(kind string, f unit.File) bool {
	return slices.Contains(c.files[kind], f)
}

func (c *content) target(source unit.Source, requireAll bool) *plan.Target {
	return &plan.Target{Source: source, Files: c.files, RequireAll: requireAll}
}

func contentOf(art *artifact.Artifact) *content {
	c := &content{files: map[string][]unit.File{}, until: art.Verdict.ValidUntil}
	for _, p := range art.Payloads {
		c.files[p.Kind] = append(c.files[p.Kind], unit.File{Name: p.File, Digest: p.Digest, Size: int64(len(p.Data))})
	}
	return c
}

// judgement is what is known of one artifact for one owner.
type judgement struct {
	// content is set where it is verified now.
	content *content
	// err says why not; nil with a nil content while it is not known yet.
	err *reason.Error
}

func refused(err error) judgement {
	e, ok := reason.Of(err)
	if !ok {
		e = reason.New(reason.InstallFailed, "", "%w", err)
	}
	return judgement{err: e}
}

// keyOf returns what a verdict depends on, or why there can be none.
func (a *Agent) keyOf(owner profile.Owner, source unit.Source) (judgeKey, error) {
	if a.inputs.trustErr != nil {
		return judgeKey{}, a.inputs.trustErr
	}
	place := printPlace{source.Repository, owner.Namespace}
	known, ok := a.inputs.prints[place]
	if !ok {
		known.policies, known.err = a.inputs.trust.Fingerprint(source.Repository, owner.Namespace)
		a.inputs.prints[place] = known
	}
	return judgeKey{owner: owner, source: source, policies: known.policies}, known.err
}

// judgeKept judges by what the store holds; no registry is contacted. A source
// that the store does not hold gives neither content nor error.
func (a *Agent) judgeKept(ctx context.Context, owner profile.Owner, source unit.Source) judgement {
	key, err := a.keyOf(owner, source)
	if err != nil {
		return refused(err)
	}
	if known := a.memo[key]; known != nil && (known.until.IsZero() || a.opts.Now().Before(known.until)) {
		return judgement{content: known}
	}
	delete(a.memo, key)
	if known := a.refusals[key]; known != nil && (known.until.IsZero() || a.opts.Now().Before(known.until)) {
		return judgement{err: known.err}
	}
	delete(a.refusals, key)
	if _, err := a.store.Record(source); errors.Is(err, reason.ArtifactNotFound) {
		return judgement{}
	}
	var art *artifact.Artifact
	a.during(func() {
		art, err = a.inputs.trust.Pull(ctx, a.store, artifact.Request{Repository: source.Repository, Digest: source.Digest, Owner: owner})
	})
	if err != nil {
		verdict := refused(err)
		a.remember(key, verdict.err)
		return verdict
	}
	a.memo[key] = contentOf(art)
	return judgement{content: a.memo[key]}
}

// refusal is why kept evidence is refused.
type refusal struct {
	err *reason.Error
	// until is when it is judged again; zero for never.
	until time.Time
}

// slowAgain is how long it is remembered that judging took too long.
const slowAgain = time.Hour

// remember keeps a refusal that the bytes themselves lead to: as long as the
// policies are the same it cannot change, and finding it anew may take long.
func (a *Agent) remember(key judgeKey, err *reason.Error) {
	switch err.Reason {
	case reason.ProfileForbidden, reason.ProfileInvalid, reason.UnsupportedArtifact, reason.TooLarge:
	default:
		return
	}
	known := &refusal{err: err}
	if errors.Is(err, artifact.ErrSlow) {
		known.until = a.opts.Now().Add(slowAgain)
	}
	a.refusals[key] = known
}

// judge is judgeKept, and asks the registry where that can help and is due.
func (a *Agent) judge(ctx context.Context, p *pass, owner profile.Owner, source unit.Source) judgement {
	kept := a.judgeKept(ctx, owner, source)
	if a.inputs.hold != nil {
		return a.held(owner, source, kept)
	}
	if kept.content != nil || !registryHelps(kept.err) {
		return kept
	}
	key, err := a.keyOf(owner, source)
	if err != nil {
		return refused(err)
	}
	p.seen[key] = true
	tried := a.attempts[key]
	if p.network && a.due(p, tried) {
		a.queue = append(a.queue, key)
	}
	switch {
	case tried == nil:
		return kept
	case kept.err != nil && tried.err.Reason.Fate() == reason.Retry:
		return kept // what the store says is more than that the registry is away
	}
	return judgement{err: tried.err}
}

// held is what counts while nothing new may be installed: what is known of a
// source that is in force, and otherwise why it waits.
func (a *Agent) held(owner profile.Owner, source unit.Source, kept judgement) judgement {
	for _, slot := range a.journal.Of(owner) {
		if slot.Current != nil && slot.Current.Source == source {
			return kept
		}
	}
	return judgement{err: a.inputs.hold}
}

// due reports whether a pull is tried now. Once asks for everything once, and
// goes on only where a search through signatures was not over.
func (a *Agent) due(p *pass, tried *attempt) bool {
	switch {
	case tried == nil:
		return true
	case a.once && !errors.Is(tried.err, artifact.ErrMoreSignatures):
		return false
	}
	return !p.now.Before(tried.next)
}

// registryHelps reports whether asking the registry can change a refusal: it
// may have more signatures, or sound bytes. What was judged by the bytes
// themselves, or by having no policy, stays as it is.
func registryHelps(refusal *reason.Error) bool {
	if refusal == nil {
		return true
	}
	switch refusal.Reason {
	case reason.NoTrustPolicy, reason.TrustPolicyInvalid, reason.ProfileForbidden, reason.ProfileInvalid,
		reason.UnsupportedArtifact, reason.TooLarge, reason.KindUnsupported, reason.NameConflict:
		return false
	default:
		return true
	}
}

// pulled is the result of one pull.
type pulled struct {
	key     judgeKey
	content *content
	err     error
}

// Bounds on pulls that were started.
const (
	// started bounds those that wait for their turn, too: while a pass keeps
	// the loop busy, pulls go on.
	started = 256
	// keeping bounds the verified artifacts in memory that go to the store.
	keeping = 16
)

// pump starts pulls that are due while there is room for them. An artifact that
// several owners want is pulled once; the next pass judges it for the others.
func (a *Agent) pump(ctx context.Context) {
	for len(a.queue) > 0 && len(a.inflight) < cap(a.results) && ctx.Err() == nil {
		key := a.queue[0]
		a.queue = a.queue[1:]
		if !a.inflight[key.source] && !a.fetched[key.source] {
			a.startPull(ctx, key)
		}
	}
}

// startPull pulls one artifact beside the loop, as soon as it is its turn. The
// store has it when the result arrives.
func (a *Agent) startPull(ctx context.Context, key judgeKey) {
	a.inflight[key.source] = true
	trusted := a.inputs.trust
	a.workers.Go(func() {
		content, err := a.pull(ctx, trusted, key)
		a.results <- pulled{key, content, err} // never blocks: there are no more pulls than room
	})
}

// pull has a turn at the network and then one at the store: while verified
// artifacts wait for the disk together, others are pulled.
func (a *Agent) pull(ctx context.Context, trusted Trust, key judgeKey) (*content, error) {
	host := key.source.Repository.Host
	if err := a.pulls.enter(ctx, host); err != nil {
		return nil, err
	}
	leave := sync.OnceFunc(func() { a.pulls.leave(host) })
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, a.opts.PullTimeout)
	defer cancel()
	req := artifact.Request{Repository: key.source.Repository, Digest: key.source.Digest, Owner: key.owner}
	art, err := trusted.Pull(ctx, a.opts.Remote, req)
	if err != nil {
		return nil, err
	}
	if err := enter(ctx, a.keeps); err != nil {
		return nil, err
	}
	defer func() { <-a.keeps }()
	leave()
	if err := a.store.Put(ctx, art); err != nil {
		return nil, err
	}
	return contentOf(art), nil
}

// enter waits for a turn.
func enter(ctx context.Context, turns chan struct{}) error {
	select {
	case turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return stoppedBeforeTurn(ctx)
	}
}

func stoppedBeforeTurn(ctx context.Context) error {
	return reason.New(reason.InstallFailed, "", "stopped before its turn: %w", ctx.Err())
}

// finish takes in the result of a pull.
func (a *Agent) finish(r pulled) {
	a.opts.Pulled(r.err)
	delete(a.inflight, r.key.source)
	if r.err == nil {
		a.fetched[r.key.source] = true
		delete(a.attempts, r.key)
		a.memo[r.key] = r.content
		a.log.Info("pulled and verified", "owner", r.key.owner, "artifact", r.key.source)
		return
	}
	a.attempts[r.key] = a.failed(a.attempts[r.key], r.err)
	a.log.Warn("not pulled", "owner", r.key.owner, "artifact", r.key.source, "error", r.err, "next", a.attempts[r.key].next)
}
