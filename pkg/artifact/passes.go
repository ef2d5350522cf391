package artifact

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// ErrMoreSignatures says that a pass tried CandidatesPerPass signatures without
// meeting the thresholds and that more remain: pull again to go on.
var ErrMoreSignatures = errors.New("more signatures remain to be tried")

// Bounds on what is remembered of unfinished verifications. One that is
// forgotten begins anew, which costs requests and nothing else.
const (
	maxUnfinished = 256
	// maxUnfinishedBytes bounds all of them together; the newest is kept
	// whatever its size, which maxSeen and the number of signers bound.
	maxUnfinishedBytes = 16 << 20
	// maxSeen is above what one artifact's places may list: MaxReferrers, and
	// the layers of one manifest of MaxManifestBytes.
	maxSeen   = 2 * MaxReferrers
	seenBytes = 128 // of one entry, its digest and its share of the map
)

// morePause keeps a flood of bad signatures on one artifact from crowding out
// the others.
const morePause = time.Second

type passKey struct {
	object   string
	policies digest.Digest
}

// pass is what one verification learned so far. A round is all passes from the
// first signature to the last.
type pass struct {
	// seen are the candidates of this round that need not be fetched again.
	seen map[digest.Digest]struct{}
	// unread are those of seen that could not be read: the next round tries again.
	unread map[digest.Digest]struct{}
	// skipped is the first of this round that could not be read.
	skipped *SkippedError
	// judged is the number of candidates that this pass judged.
	judged  int
	counted []trust.Candidate
	// verdict is the most telling refusal of this round.
	verdict error
}

func (p *pass) has(id digest.Digest) bool {
	_, ok := p.seen[id]
	return ok
}

// add remembers a label. Labels come from the side that is not trusted: one
// that is no sha256 digest is not kept, whatever its length.
func (p *pass) add(id digest.Digest) {
	if id.Validate() != nil || id.Algorithm() != digest.SHA256 { // Algorithm panics on what is no digest
		return
	}
	if p.seen == nil {
		p.seen = make(map[digest.Digest]struct{})
	}
	p.seen[digest.Digest(strings.Clone(string(id)))] = struct{}{}
}

func (p *pass) skip(skipped *SkippedError) {
	if p.skipped == nil {
		p.skipped = skipped
	}
	p.add(skipped.ID)
	if !p.has(skipped.ID) {
		return
	}
	if p.unread == nil {
		p.unread = make(map[digest.Digest]struct{})
	}
	p.unread[skipped.ID] = struct{}{}
}

// nextRound returns what the next round need not do again: it tries what could
// not be read. Where this pass judged nothing new, it begins anew, since time
// may have changed what was judged before.
func (p *pass) nextRound() pass {
	if p.judged == 0 {
		return pass{}
	}
	next := pass{seen: maps.Clone(p.seen), counted: p.counted, verdict: p.verdict}
	for id := range p.unread {
		delete(next.seen, id)
	}
	return next
}

// size is about how much memory the pass takes, in bytes.
func (p *pass) size() int {
	n := seenBytes * (len(p.seen) + len(p.unread))
	for _, c := range p.counted {
		n += len(c.Payload)
		for key, value := range c.Annotations {
			n += len(key) + len(value)
		}
	}
	return n
}

// passes remembers unfinished verifications. The zero value is ready.
type passes struct {
	mu    sync.Mutex
	open  map[passKey]pass
	old   []passKey // in the order they were put
	bytes int
}

// take returns and forgets what is known of key.
func (p *passes) take(key passKey) pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.forget(key)
	found.judged = 0
	return found
}

func (p *passes) forget(key passKey) pass {
	found, ok := p.open[key]
	if !ok {
		return pass{}
	}
	p.bytes -= found.size()
	delete(p.open, key)
	p.old = slices.DeleteFunc(p.old, func(k passKey) bool { return k == key })
	return found
}

func (p *passes) put(key passKey, unfinished pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(key)
	if len(unfinished.seen) == 0 || len(unfinished.seen) > maxSeen {
		return
	}
	if p.open == nil {
		p.open = make(map[passKey]pass)
	}
	p.bytes += unfinished.size()
	for len(p.old) > 0 && (len(p.old) >= maxUnfinished || p.bytes > maxUnfinishedBytes) {
		p.forget(p.old[0])
	}
	p.open[key] = unfinished
	p.old = append(p.old, key)
}

// moreToTry turns the verdict so far into one that asks for another pass.
func moreToTry(verdict error, tried int) error {
	e, ok := reason.Of(verdict)
	if !ok {
		return errors.Join(verdict, ErrMoreSignatures)
	}
	c := *e
	c.Detail = e.Detail + "; " + plural(tried) + " tried so far, more remain"
	c.RetryAfter = morePause
	c.Err = errors.Join(ErrMoreSignatures, e.Err)
	return &c
}

func plural(n int) string {
	if n == 1 {
		return "1 signature"
	}
	return strconv.Itoa(n) + " signatures"
}
