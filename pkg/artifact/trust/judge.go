package trust

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confine-dev/confine/pkg/reason"
)

// recheckAfter is told with reasons that are final elsewhere: another
// signature, attached later, changes the verdict, so no candidate that
// somebody attached may end the search for good.
const recheckAfter = 5 * time.Minute

// signed is one signature, read but not yet believed.
type signed interface {
	// verifiedBy returns nil if the key made it and it is for our artifact.
	verifiedBy(context.Context, *credential) error
	// authenticBy reports whether the key made it, whatever it says. It only
	// chooses the words of a refusal.
	authenticBy(*credential) bool
	// claimsError is why what it says is no signature of our artifact, or nil.
	claimsError() error
	// keyHint is an unproven hint at the key, or empty.
	keyHint() string
}

// refusal is why one candidate does not count.
type refusal struct {
	reason reason.Reason
	detail string
}

func (r refusal) Error() string { return r.detail }

// Session judges the signatures of one artifact, one candidate after another.
// What it keeps is bounded by the number of signers, not of candidates. It is
// not safe for concurrent use.
type Session struct {
	sub         Subject
	now         time.Time
	policies    []*policy
	credentials []*credential // distinct, of all matching policies
	revoked     map[string]string
	blocked     error // why no candidate can help
	counted     []counted
	offered     int
	best        refusal
}

// counted is a credential that signed, and the candidate that proves it.
type counted struct {
	id        string
	candidate Candidate
}

// Begin starts judging signatures of sub at the time now. sub must be of the
// repository and namespace that were matched; otherwise nothing ever counts.
func (m *Matched) Begin(sub Subject, now time.Time) *Session {
	s := &Session{sub: sub, now: now, policies: m.policies, revoked: make(map[string]string)}
	for _, p := range m.policies {
		for id := range p.revokedKeys {
			if _, ok := s.revoked[id]; !ok {
				s.revoked[id] = p.name
			}
		}
		for _, signer := range p.signers {
			if !slices.Contains(s.credentials, signer.credential) {
				s.credentials = append(s.credentials, signer.credential)
			}
		}
	}
	switch {
	case len(m.policies) == 0, sub.Repository != m.repo, sub.Owner.Namespace != m.namespace:
		s.blocked = reason.New(reason.NoTrustPolicy, sub.object(), "the policies were matched for %s in namespace %.80q", m.repo, m.namespace)
	case !sha256Regexp.MatchString(string(sub.Digest)):
		s.blocked = reason.New(reason.DigestMismatch, sub.Repository.String(), "%.80q is no sha256 digest", string(sub.Digest))
	default:
		s.blocked = m.CheckRevoked(sub.Digest)
	}
	return s
}

// Offer judges one candidate. nil means that it is a valid signature of the
// artifact by a signer who is valid now and was not counted before; otherwise
// a *reason.Error says why it does not count, or the context's error that it
// was not judged. It never panics, whatever the bytes, and contacts nothing.
func (s *Session) Offer(ctx context.Context, c Candidate) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("signature not judged: %w", err)
	}
	if s.blocked != nil {
		return s.blocked
	}
	s.offered++
	var id string
	err := contained(func() (err error) {
		id, err = s.judge(ctx, c)
		return err
	})
	if err == nil {
		s.counted = append(s.counted, counted{id: id, candidate: c})
		return nil
	}
	why := refusal{reason.SignatureInvalid, err.Error()}
	errors.As(err, &why)
	if rank(why.reason) > rank(s.best.reason) {
		s.best = why
	}
	return s.refuse(why.reason, "%s%s", labelOf(c), why.detail)
}

// judge returns the credential that made c.
func (s *Session) judge(ctx context.Context, c Candidate) (string, error) {
	if n := sizeOf(c); n > MaxCandidateBytes {
		return "", refusal{reason.SignatureInvalid, fmt.Sprintf("it has %d bytes, at most %d are read", n, MaxCandidateBytes)}
	}
	var sig signed
	var err error
	switch c.Form {
	case FormBundle:
		sig, err = readBundle(c.Payload, s.sub.Digest)
	case FormSimpleSigning:
		sig, err = readSimpleSigning(c, s.sub.Digest)
	default:
		return "", refusal{reason.SignatureInvalid, fmt.Sprintf("%.40q is no form of signature that is read", c.Form)}
	}
	if err != nil {
		return "", err
	}
	if claims := sig.claimsError(); claims != nil {
		return "", s.explain(sig, claims)
	}
	for _, credential := range s.likelyFirst(sig.keyHint()) {
		if sig.verifiedBy(ctx, credential) == nil {
			return credential.id, s.admit(credential)
		}
	}
	return "", s.unknown(sig.keyHint())
}

// explain chooses the words for a signature that says something else: what it
// says matters only if one of the signers said it.
func (s *Session) explain(sig signed, claims error) error {
	for _, credential := range s.likelyFirst(sig.keyHint()) {
		if sig.authenticBy(credential) {
			var why refusal
			if errors.As(claims, &why) {
				return refusal{why.reason, "a signature of " + s.names(credential) + ": " + why.detail}
			}
			return claims
		}
	}
	return s.unknown(sig.keyHint())
}

// admit decides whether a valid signature by credential counts for any policy.
func (s *Session) admit(c *credential) error {
	if name, ok := s.revoked[c.id]; ok {
		return refusal{reason.Revoked, fmt.Sprintf("TrustPolicy %q revokes the key of %s", name, s.names(c))}
	}
	if slices.ContainsFunc(s.counted, func(done counted) bool { return done.id == c.id }) {
		return refusal{reason.ThresholdNotMet, s.names(c) + " has been counted already, a key counts once"}
	}
	var outside string
	for _, p := range s.policies {
		for _, signer := range p.signers {
			if signer.credential.id != c.id {
				continue
			}
			if outside = signer.outside(s.now); outside == "" {
				return nil
			}
		}
	}
	return refusal{reason.SignerExpired, "the signer " + s.names(c) + " " + outside}
}

// outside says how now lies outside the signer's validity, or nothing.
// notBefore is the first instant that counts, notAfter the first that does not.
func (s signer) outside(now time.Time) string {
	switch {
	case !s.notBefore.IsZero() && now.Before(s.notBefore):
		return "is not valid before " + s.notBefore.UTC().Format(time.RFC3339)
	case !s.notAfter.IsZero() && !now.Before(s.notAfter):
		return "is no longer valid since " + s.notAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// hinted renders a hint as key IDs are written, where it is one.
func hinted(hint string) string {
	const size = 32 // of a SHA-256
	if sum, err := base64.StdEncoding.DecodeString(hint); err == nil && len(sum) == size {
		return "sha256:" + hex.EncodeToString(sum)
	}
	return fmt.Sprintf("%.64q", hint)
}

// unknown is the refusal of a signature that no signer's key made.
func (s *Session) unknown(hint string) error {
	known := slices.ContainsFunc(s.credentials, func(c *credential) bool { return slices.Contains(c.hints, hint) })
	if hint == "" || known {
		return refusal{reason.SignatureInvalid, "no signer's key made the signature"}
	}
	return refusal{reason.IdentityMismatch, fmt.Sprintf("it was made with the key %s, which no signer has", hinted(hint))}
}

// likelyFirst puts the credential that the hint names before the others. A
// hint proves nothing, so it never leaves one out.
func (s *Session) likelyFirst(hint string) []*credential {
	ordered := slices.Clone(s.credentials)
	slices.SortStableFunc(ordered, func(a, b *credential) int {
		return strings.Compare(strconv.FormatBool(slices.Contains(b.hints, hint)), strconv.FormatBool(slices.Contains(a.hints, hint)))
	})
	return ordered
}

// names are the signers' names for a credential, as "policy/signer".
func (s *Session) names(c *credential) string { return strings.Join(s.labels(c.id), ", ") }

func (s *Session) labels(id string) []string {
	var labels []string
	for _, p := range s.policies {
		for _, signer := range p.signers {
			if signer.credential.id == id {
				labels = append(labels, p.label(signer))
			}
		}
	}
	slices.Sort(labels)
	return labels
}

func (s *Session) refuse(r reason.Reason, format string, args ...any) *reason.Error {
	e := reason.New(r, s.sub.object(), format, args...)
	if r.Fate() == reason.Stalled {
		e.RetryAfter = recheckAfter
	}
	return e
}

// rank orders reasons by how far a candidate came, the furthest last: that is
// the one worth telling.
func rank(r reason.Reason) int {
	return slices.Index([]reason.Reason{
		"", reason.SignatureMissing, reason.SignatureInvalid, reason.IdentityMismatch, reason.PredicateMismatch,
		reason.DigestMismatch, reason.Revoked, reason.SignerExpired, reason.ThresholdNotMet,
	}, r)
}

// MoreTelling returns which of two refusals of one artifact says more, for
// verdicts that several sessions came to one after another: the later, unless
// a candidate of the earlier came further. earlier may be nil.
func MoreTelling(earlier, later error) error {
	before, ok := reason.Of(earlier)
	now, also := reason.Of(later)
	if ok && also && rank(before.Reason) > rank(now.Reason) {
		return earlier
	}
	return later
}

func labelOf(c Candidate) string {
	if !sha256Regexp.MatchString(string(c.ID)) {
		return ""
	}
	return "signature " + string(c.ID) + ": "
}

// sizeOf counts the bytes of a candidate without overflow: each part is in memory.
func sizeOf(c Candidate) int {
	n := len(c.Payload)
	for key, value := range c.Annotations {
		n += len(key) + len(value)
	}
	return n
}

// printable keeps foreign text from writing over a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}
