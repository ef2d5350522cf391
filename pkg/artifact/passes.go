package artifact

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// ErrMoreSignatures says that a pass tried CandidatesPerPass signatures without
// meeting the thresholds and that more remain: pull again to go on.
var ErrMoreSignatures = errors.New("more signatures remain to be tried")

// maxUnfinished bounds how many unfinished verifications are remembered. One
// that is forgotten begins anew, which costs requests and nothing else.
const maxUnfinished = 256

// morePause keeps a flood of bad signatures on one artifact from crowding out
// the others.
const morePause = time.Second

type passKey struct {
	object   string
	policies digest.Digest
}

// pass is what one verification learned so far.
type pass struct {
	seen    map[digest.Digest]struct{}
	counted []trust.Candidate
}

func (p *pass) has(id digest.Digest) bool {
	_, ok := p.seen[id]
	return ok
}

func (p *pass) add(id digest.Digest) {
	if p.seen == nil {
		p.seen = make(map[digest.Digest]struct{})
	}
	p.seen[id] = struct{}{}
}

// passes remembers unfinished verifications. The zero value is ready.
type passes struct {
	mu   sync.Mutex
	open map[passKey]pass
	old  []passKey // in the order they were put
}

// take returns and forgets what is known of key.
func (p *passes) take(key passKey) pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.open[key]
	delete(p.open, key)
	p.old = slices.DeleteFunc(p.old, func(k passKey) bool { return k == key })
	return found
}

func (p *passes) put(key passKey, unfinished pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[passKey]pass)
	}
	if len(p.old) >= maxUnfinished {
		delete(p.open, p.old[0])
		p.old = p.old[1:]
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
