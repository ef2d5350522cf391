package fetch

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// Bounds on one walk, which is one pass of a verification. What registries can
// list is below them: MaxReferrers in each of two places, and the layers of one
// manifest.
const (
	maxOffers    = 4 * artifact.MaxReferrers // of one artifact, over all walks until one ends
	maxQuestions = 8 * artifact.MaxReferrers
	// maxAgain bounds the candidates that come a second time, which are passed over.
	maxAgain = 64
)

var errEndless = errors.New("its signatures do not end")

// Signatures implements artifact.Fetcher. When ctx ends, what the walk holds is
// given back; another Next begins anew with what was not offered yet.
func (r *Remote) Signatures(ctx context.Context, repo reference.Repository, d digest.Digest, seen func(digest.Digest) bool) artifact.Signatures {
	if seen == nil {
		seen = func(digest.Digest) bool { return false }
	}
	w := &walk{
		remote: r, repo: repo, digest: d, seen: seen, object: objectOf(repo, d),
		offered: map[digest.Digest]struct{}{},
	}
	w.stop = context.AfterFunc(ctx, w.release)
	return w
}

// walk is a walk over the signatures of one artifact.
type walk struct {
	remote *Remote
	repo   reference.Repository
	digest digest.Digest
	object string
	seen   func(digest.Digest) bool
	stop   func() bool // forgets the context that it was made with

	offered   map[digest.Digest]struct{}
	questions int
	again     int
	over      bool

	mu sync.Mutex
	// open is the request under way; nil where the next Next sends one.
	open *exchange
	// idle closes it when nobody asks for more.
	idle *time.Timer
}

// Next implements artifact.Signatures.
func (w *walk) Next(ctx context.Context) (trust.Candidate, error) {
	if w.over {
		return trust.Candidate{}, io.EOF
	}
	if err := checkNames(w.object, w.repo, w.digest); err != nil {
		return trust.Candidate{}, err
	}
	x, err := w.resume(ctx)
	if err != nil {
		return trust.Candidate{}, err
	}
	stop := context.AfterFunc(ctx, x.close)
	defer stop()
	candidate, err := w.ask(ctx, x)
	var skipped *artifact.SkippedError
	switch {
	case err == nil, errors.As(err, &skipped):
		w.pause(x)
	case errors.Is(err, io.EOF):
		w.over = true
		w.remote.offers.done(w.object)
		w.stop()
		w.release()
	default:
		w.release()
	}
	return candidate, err
}

// resume returns the request under way, or a new one.
func (w *walk) resume(ctx context.Context) (*exchange, error) {
	w.mu.Lock()
	x := w.open
	if x != nil {
		w.idle.Stop()
		if x.closed.Load() {
			x = nil // nobody asked for long, or who asked last gave up
		}
	}
	w.open = nil
	w.mu.Unlock()
	if x != nil {
		return x, nil
	}
	return w.remote.open(ctx, w.object, request{Ask: askSignatures, Repository: w.repo.String(), Digest: w.digest})
}

// pause keeps the request for the next Next, but not for long.
func (w *walk) pause(x *exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = x
	w.idle = time.AfterFunc(w.remote.limits.idle, x.close)
}

// release gives back what the walk holds.
func (w *walk) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != nil {
		w.idle.Stop()
		w.open.close()
		w.open = nil
	}
}

// ask asks for one more candidate.
func (w *walk) ask(ctx context.Context, x *exchange) (trust.Candidate, error) {
	fail := func(err error) (trust.Candidate, error) {
		defer x.close()
		return trust.Candidate{}, x.broken(ctx, err)
	}
	if err := x.say(sayNext); err != nil {
		return fail(err)
	}
	for {
		a, err := readAnswer(x.from)
		if err != nil {
			return fail(err)
		}
		switch a.Kind {
		case answerSeen:
			err = w.answerQuestion(x, a.ID)
		case answerCandidate:
			var c trust.Candidate
			if c, err = readCandidate(x.from, a); err != nil {
				return fail(err)
			}
			fresh := !w.known(c.ID)
			if err = w.count(c.ID, fresh); err == nil && fresh {
				return c, nil
			}
			if err == nil {
				err = x.say(sayNext)
			}
		case answerSkipped:
			if err := w.count("", false); err != nil {
				return fail(err)
			}
			return trust.Candidate{}, &artifact.SkippedError{ID: a.ID, Err: x.refusal(a, true)}
		case answerError:
			defer x.close()
			return trust.Candidate{}, x.refusal(a, true)
		case answerEnd:
			defer x.close()
			return trust.Candidate{}, io.EOF
		default:
			err = errors.New("it answered something else than was asked")
		}
		if err != nil {
			return fail(err)
		}
	}
}

// known reports whether the candidate need not be offered.
func (w *walk) known(id digest.Digest) bool {
	_, offered := w.offered[id]
	return offered || w.seen(id)
}

// answerQuestion tells the child whether a candidate need not be fetched.
func (w *walk) answerQuestion(x *exchange, id digest.Digest) error {
	if w.questions++; w.questions > maxQuestions {
		return errors.New("its questions do not end")
	}
	if w.known(id) {
		return x.say(sayYes)
	}
	return x.say(sayNo)
}

// count bounds what a child can offer, id being empty for what it skipped.
func (w *walk) count(id digest.Digest, fresh bool) error {
	if id != "" && !fresh {
		w.again++
	}
	if w.again > maxAgain || w.remote.offers.over(w.object, w.remote.limits.offers) {
		return errEndless
	}
	if fresh {
		w.offered[id] = struct{}{}
	}
	return nil
}

// offers counts what the child offered for each artifact since a walk came to
// its end. A pass takes 64 and the next goes on, so a child that always has
// another one would be asked for ever.
type offers struct {
	mu   sync.Mutex
	open map[string]offered
}

type offered struct {
	began time.Time
	n     int
}

// Bounds on what is counted. In a period, honest walks stay far below: an artifact is
// asked for again after a pause, unless there are more signatures.
const (
	offersPeriod = 10 * time.Minute
	maxCounted   = 4096 // artifacts
)

// over counts one more, and reports whether there are too many. Then the count
// begins anew: who asks is told to come again later.
func (o *offers) over(object string, most int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.open == nil || len(o.open) > maxCounted {
		o.open = map[string]offered{}
	}
	count, ok := o.open[object]
	if !ok || now.Sub(count.began) > offersPeriod {
		count = offered{began: now}
	}
	count.n++
	o.open[object] = count
	if count.n > most {
		delete(o.open, object)
		return true
	}
	return false
}

// done forgets the count of an artifact whose walk came to its end.
func (o *offers) done(object string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, object)
}

// say sends one word within a walk.
func (x *exchange) say(what string) error {
	frame, err := encode(word{Say: what})
	if err != nil {
		return err
	}
	if err := x.conn.SetWriteDeadline(soon(x.remote.limits.respond)); err != nil {
		return err
	}
	_, err = x.conn.Write(frame)
	return err
}
