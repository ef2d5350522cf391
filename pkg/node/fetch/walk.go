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
	maxOffered   = 4 * artifact.MaxReferrers
	maxQuestions = 8 * artifact.MaxReferrers
	// maxAgain bounds the candidates that come a second time, which are passed over.
	maxAgain = 64
)

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
	answers   int // candidates and skips
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
			if w.answers++; w.answers > maxOffered {
				return fail(errors.New("its walk does not end"))
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

// count bounds what a child can offer.
func (w *walk) count(id digest.Digest, fresh bool) error {
	w.answers++
	if !fresh {
		w.again++
	}
	if w.answers > maxOffered || w.again > maxAgain {
		return errors.New("its walk does not end")
	}
	if fresh {
		w.offered[id] = struct{}{}
	}
	return nil
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
