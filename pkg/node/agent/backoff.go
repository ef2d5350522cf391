package agent

import (
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

// maxRetryAfter bounds how long a registry can make a node wait.
const maxRetryAfter = time.Hour

// attempt is what is known of work that failed.
type attempt struct {
	failures int
	// next is when it is tried again.
	next time.Time
	err  *reason.Error
	// revision is what could not be installed; another one is tried at once.
	revision string
}

// pace is how work that failed is tried again: the first pause, and the longest.
type pace struct{ first, longest time.Duration }

// paceOf returns the pace of a fate. Even what is stalled is looked at now and
// then, because the cause may have been a registry that lied.
func paceOf(f reason.Fate) pace {
	switch f {
	case reason.Wait:
		return pace{30 * time.Second, 30 * time.Minute}
	case reason.Stalled:
		return pace{10 * time.Minute, 6 * time.Hour}
	case reason.Retry:
	}
	return pace{time.Second, 5 * time.Minute}
}

// pause returns how long to wait after a number of failures: exponential with
// full jitter, so that a fleet does not come back at once, and never less than
// the one who refused asked for.
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)
func pause(e *reason.Error, failures int, jitter func(time.Duration) time.Duration) time.Duration {
	p := paceOf(e.Reason.Fate())
	ceiling := p.first
	for range failures - 1 {
		if ceiling *= 2; ceiling >= p.longest {
			ceiling = p.longest
			break
		}
	}
	wait := jitter(ceiling)
	if e.RetryAfter > 0 {
		return min(e.RetryAfter, maxRetryAfter) + jitter(min(p.first, e.RetryAfter))
	}
	return max(wait, p.first/10)
}

// failed notes one more failure.
func (a *Agent) failed(before *attempt, err error) *attempt {
	e, ok := reason.Of(err)
	if !ok {
		e = reason.New(reason.InstallFailed, "", "%w", err)
	}
	next := attempt{failures: 1, err: e}
	if before != nil {
		next.failures = before.failures + 1
	}
	next.next = a.opts.Now().Add(pause(e, next.failures, a.opts.Jitter))
	return &next
}
