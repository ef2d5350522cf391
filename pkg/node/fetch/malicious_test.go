package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/fetchtest"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// withheld are the reasons that mean no more than that something could not be had.
func withheld() []reason.Reason {
	return []reason.Reason{
		reason.RegistryUnavailable, reason.RateLimited, reason.Unauthorized, reason.ArtifactNotFound, reason.DigestMismatch, reason.TooLarge,
	}
}

// wantWithheld holds that an error says no more than withheld, in words that
// can be shown, and that it does not keep the artifact away for long.
func wantWithheld(t *testing.T, err error) {
	t.Helper()
	e, ok := reason.Of(err)
	if !ok || !slices.Contains(withheld(), e.Reason) {
		t.Errorf("%v is not merely withheld", err)
		return
	}
	text := e.Error() + e.WhatToDo()
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("the message has what cannot be shown: %q", text[i:])
	}
	if len(e.Detail) > maxMessageBytes+200 {
		t.Errorf("the message has %d bytes", len(e.Detail))
	}
	if strings.Contains(e.WhatToDo(), "curl") {
		t.Errorf("the advice is the child's: %s", e.WhatToDo())
	}
	if e.RetryAfter > maxRetryAfter || e.Reason.Fate() == reason.Stalled && e.RetryAfter == 0 {
		t.Errorf("%v is tried again after %v", e.Reason, e.RetryAfter)
	}
}

// evilRemote is a Remote with a malicious child.
func evilRemote(t testing.TB, how, asked string) *Remote {
	return start(t, func(o *Options) {
		o.Program = []string{"/proc/self/exe", asEvil, how, asked}
		o.Log = nil
		o.limits.respond, o.limits.leave = 2*time.Second, 100*time.Millisecond
		o.limits.connect, o.limits.offers = 3*time.Second, 200
	})
}

// patience is how long a caller waits in these tests. Where a child only hangs,
// it is all that ends a request.
const patience = 400 * time.Millisecond

// What a malicious child does, each for all that can be asked.
func TestMaliciousChild(t *testing.T) {
	repo := newSource(t).repo
	for how := range evilAnswers() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			tryEverything(t, evilRemote(t, how, "all"), repo.String())
		})
	}
}

func TestChildThatNeverAnswers(t *testing.T) {
	repo := newSource(t).repo
	for how := range evilStarts() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			tryEverything(t, evilRemote(t, how, "all"), repo.String())
		})
	}
}

// tryEverything asks for a manifest, a blob and a walk, and holds that none of
// it is had, in bounded time.
func tryEverything(t *testing.T, r *Remote, name string) {
	repo := parse(t, name)
	a := fetchtest.Example()
	within := func(ask func(ctx context.Context)) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		ask(ctx)
		if took := time.Since(began); took > patience+5*time.Second { // on a busy machine
			t.Errorf("it took %v", took)
		}
	}
	// The first request may find the child not started yet.
	r.await(t.Context(), "")
	within(func(ctx context.Context) {
		data, err := r.Manifest(ctx, repo, a.Digest())
		if data != nil {
			t.Errorf("Manifest = %q", data)
		}
		wantWithheld(t, err)
	})
	within(func(ctx context.Context) {
		data, err := r.Blob(ctx, repo, a.Layers()[0])
		if data != nil {
			t.Errorf("Blob = %q", data)
		}
		wantWithheld(t, err)
	})
	within(func(ctx context.Context) {
		w := r.Signatures(ctx, repo, a.Digest(), noneSeen)
		ids := map[digest.Digest]bool{}
		for range 200 {
			c, err := w.Next(ctx)
			var skipped *artifact.SkippedError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.As(err, &skipped):
				wantWithheld(t, skipped.Err)
			case err != nil:
				wantWithheld(t, err)
				return
			case len(c.Payload) > trust.MaxCandidateBytes || ids[c.ID]:
				t.Errorf("candidate %s of %d bytes, offered before: %v", c.ID, len(c.Payload), ids[c.ID])
			}
			ids[c.ID] = true
		}
	})
	if n := len(r.slots); n != 0 {
		eventually(t, "all places are free", func() bool { return len(r.slots) == 0 })
	}
}

// Descriptors that a child sends back are not taken, and nothing else piles up.
func TestMaliciousChildLeavesNothingBehind(t *testing.T) {
	repo := newSource(t).repo
	for _, how := range []string{"a file for an answer", "endless candidates", "huge size", "most size", "endless questions", "closed", "killed", "control"} {
		t.Run(how, func(t *testing.T) {
			r := evilRemote(t, how, "all")
			tryEverything(t, r, repo.String())
			before, goroutines := openFiles(t), runtime.NumGoroutine()
			var stats runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&stats)
			heap, most := stats.HeapAlloc, uint64(0)
			for range 20 {
				tryBriefly(t, r, repo.String())
				runtime.ReadMemStats(&stats)
				most = max(most, stats.HeapAlloc)
			}
			if most > heap+64<<20 {
				t.Errorf("the heap grew from %d to %d MiB", heap>>20, most>>20)
			}
			eventually(t, "no descriptor and no goroutine is left", func() bool {
				return openFiles(t) <= before+2 && runtime.NumGoroutine() <= goroutines+4 // a child may just be started
			})
		})
	}
}

func tryBriefly(t *testing.T, r *Remote, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience/8)
	defer cancel()
	repo, a := parse(t, name), fetchtest.Example()
	_, err := r.Blob(ctx, repo, a.Layers()[0])
	wantWithheld(t, err)
	w := r.Signatures(ctx, repo, a.Digest(), noneSeen)
	for range 20 {
		var skipped *artifact.SkippedError
		if _, err := w.Next(ctx); err != nil && !errors.As(err, &skipped) {
			break
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// What a child offers that the caller has seen, or was offered, is not offered.
func TestOfferedOnce(t *testing.T) {
	repo := newSource(t).repo
	r := evilRemote(t, "endless same candidates", "all")
	w := r.Signatures(t.Context(), repo, digest.FromString("x"), noneSeen)
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatalf("the first: %v", err)
	}
	if c, err := w.Next(t.Context()); !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("the second is %v, %v, want RegistryUnavailable", c.ID, err)
	}
	w = r.Signatures(t.Context(), repo, digest.FromString("x"), func(digest.Digest) bool { return true })
	if c, err := w.Next(t.Context()); !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("one that was seen: %v, %v, want RegistryUnavailable", c.ID, err)
	}
}

// A child with many broken answers is replaced; one broken answer is an accident.
func TestManyBrokenAnswers(t *testing.T) {
	repo := newSource(t).repo
	r := evilRemote(t, "nonsense", "all")
	first, err := r.await(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.limits.faults {
		select {
		case <-first.over:
			t.Fatalf("it was ended after %d", i)
		default:
		}
		if _, err := r.Manifest(t.Context(), repo, digest.FromString("x")); !errors.Is(err, reason.RegistryUnavailable) {
			t.Fatalf("Manifest: %v", err)
		}
	}
	<-first.over
	if why := first.ended(); !strings.Contains(why, "too many") {
		t.Errorf("it was ended because %q", why)
	}
}
