package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

// Met reports whether the thresholds of all matching policies are met.
func (s *Session) Met() bool {
	if s.blocked != nil || len(s.policies) == 0 {
		return false
	}
	return !slices.ContainsFunc(s.policies, func(p *policy) bool { return s.votes(p, s.counted) < p.threshold })
}

// votes is the number of p's signers that signed and are valid now.
func (s *Session) votes(p *policy, signed []counted) int {
	n := 0
	for _, signer := range p.signers {
		if s.voted(signer, signed) {
			n++
		}
	}
	return n
}

func (s *Session) voted(signer signer, signed []counted) bool {
	if _, revoked := s.revoked[signer.credential.id]; revoked || signer.outside(s.now) != "" {
		return false
	}
	return slices.ContainsFunc(signed, func(c counted) bool { return c.id == signer.credential.id })
}

// Counted returns the candidates that are needed for what has been reached so
// far: offered again, they reach the same. It is what evidence consists of.
func (s *Session) Counted() []Candidate {
	needed := s.needed()
	candidates := make([]Candidate, 0, len(needed))
	for _, c := range needed {
		candidates = append(candidates, c.candidate)
	}
	return candidates
}

// needed leaves out every counted credential without which each policy comes
// as close to its threshold.
func (s *Session) needed() []counted {
	kept := slices.Clone(s.counted)
	for i := len(kept) - 1; i >= 0; i-- {
		without := slices.Delete(slices.Clone(kept), i, i+1)
		if !slices.ContainsFunc(s.policies, func(p *policy) bool {
			return min(s.votes(p, without), p.threshold) < min(s.votes(p, kept), p.threshold)
		}) {
			kept = without
		}
	}
	return kept
}

// Verdict returns who signed, or the most telling reason why the thresholds
// are not met: SignatureMissing where no candidate was offered,
// ThresholdNotMet where some counted, else that of the candidate that came
// furthest. A reason whose fate is Stalled comes with RetryAfter where a
// further signature can still change it.
func (s *Session) Verdict() (Verdict, error) {
	if s.blocked != nil {
		return Verdict{}, s.blocked
	}
	if !s.Met() {
		return Verdict{}, s.unmet()
	}
	var v Verdict
	for _, c := range s.needed() {
		v.Credentials = append(v.Credentials, Credential{ID: c.id, Signers: s.labels(c.id), Form: c.candidate.Form})
		v.ValidUntil = earliest(v.ValidUntil, s.endOf(c))
	}
	slices.SortFunc(v.Credentials, func(a, b Credential) int { return strings.Compare(a.ID, b.ID) })
	return v, nil
}

// endOf is when the first of the signers who voted with c ends.
func (s *Session) endOf(c counted) time.Time {
	var end time.Time
	for _, p := range s.policies {
		for _, signer := range p.signers {
			if signer.credential.id == c.id && s.voted(signer, []counted{c}) {
				end = earliest(end, signer.notAfter)
			}
		}
	}
	return end
}

// earliest treats the zero time as never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (s *Session) unmet() error {
	var missing []string
	var first *policy
	for _, p := range s.policies {
		if n := s.votes(p, s.counted); n < p.threshold {
			if first == nil {
				first = p
			}
			missing = append(missing, fmt.Sprintf("TrustPolicy %q has %d of %d signatures", p.name, n, p.threshold))
		}
	}
	tally := strings.Join(missing, ", ")
	signers := first.signerNames()
	switch {
	case s.offered == 0:
		return s.refuse(reason.SignatureMissing, "%s: none is attached", tally).
			WithAdvice("sign the digest as %s, for example: confine push --key cosign.key, or cosign sign --key cosign.key %s", signers, s.sub.object())
	case len(s.counted) > 0:
		return s.refuse(reason.ThresholdNotMet, "%s", tally).
			WithAdvice("collect further signatures from the signers of TrustPolicy %q: %s", first.name, signers)
	case s.best.reason == "": // only candidates that add nothing, which cannot be without one that counted
		return s.refuse(reason.SignatureInvalid, "%s", tally)
	}
	e := s.refuse(s.best.reason, "%s: %s", tally, s.best.detail)
	switch s.best.reason {
	case reason.DigestMismatch, reason.SignatureInvalid, reason.IdentityMismatch, reason.Revoked:
		return e.WithAdvice("sign this digest with a key of TrustPolicy %q (%s) that is not revoked", first.name, signers)
	default: // the general advice fits
		return e
	}
}

func (p *policy) signerNames() string {
	var names []string
	for _, signer := range p.signers {
		names = append(names, signer.name)
	}
	const shown = 4
	if len(names) > shown {
		names = append(names[:shown], "…")
	}
	return strings.Join(names, ", ")
}
