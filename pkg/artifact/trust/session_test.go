package trust_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

func threshold(n int, p trust.Policy) trust.Policy {
	p.Threshold = n
	return p
}

func offerAll(t *testing.T, session *trust.Session, candidates ...trust.Candidate) {
	t.Helper()
	for i, c := range candidates {
		if err := session.Offer(t.Context(), c); err != nil {
			t.Fatalf("candidate %d: %v", i, err)
		}
	}
}

func TestUnsigned(t *testing.T) {
	session := begin(t, policyOf("p", newKey(t)))
	_, err := session.Verdict()
	wantReason(t, err, reason.SignatureMissing, `TrustPolicy "p" has 0 of 1 signatures`)
	if session.Met() {
		t.Error("met without a signature")
	}
}

func TestThreshold(t *testing.T) {
	a, b, c := newKey(t), newKey(t), newKey(t)
	d := subject().Digest
	tests := map[string]struct {
		policies []trust.Policy
		signed   []testKey
		missing  string // "" where the thresholds are met
	}{
		"two of three":                {[]trust.Policy{threshold(2, policyOf("p", a, b, c))}, []testKey{a, c}, ""},
		"one of two":                  {[]trust.Policy{threshold(2, policyOf("p", a, b))}, []testKey{a}, `TrustPolicy "p" has 1 of 2`},
		"two policies, both":          {[]trust.Policy{policyOf("p", a), policyOf("q", b)}, []testKey{a, b}, ""},
		"two policies, the first":     {[]trust.Policy{policyOf("p", a), policyOf("q", b)}, []testKey{a}, `TrustPolicy "q" has 0 of 1`},
		"two policies, the second":    {[]trust.Policy{policyOf("p", a), policyOf("q", b)}, []testKey{b}, `TrustPolicy "p" has 0 of 1`},
		"one key in two policies":     {[]trust.Policy{policyOf("p", a), policyOf("q", b, a)}, []testKey{a}, ""},
		"one key in two, one of two":  {[]trust.Policy{policyOf("p", a), threshold(2, policyOf("q", a, b))}, []testKey{a}, `TrustPolicy "q" has 1 of 2`},
		"one key in two, two of two":  {[]trust.Policy{policyOf("p", a), threshold(2, policyOf("q", a, b))}, []testKey{b, a}, ""},
		"two policies, two of each":   {[]trust.Policy{threshold(2, policyOf("p", a, b)), threshold(2, policyOf("q", b, c))}, []testKey{a, b, c}, ""},
		"more signers than necessary": {[]trust.Policy{policyOf("p", a, b, c)}, []testKey{a, b, c}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			session := begin(t, test.policies...)
			for i, k := range test.signed {
				form := bundleFor
				if i%2 == 1 {
					form = simpleFor
				}
				offerAll(t, session, form(t, k, d))
			}
			_, err := session.Verdict()
			if met := session.Met(); met != (test.missing == "") || met != (err == nil) {
				t.Fatalf("met is %t, the verdict %v", met, err)
			}
			if test.missing != "" {
				wantReason(t, err, reason.ThresholdNotMet, test.missing)
			}
			// What is kept reaches the same, and none of it can be spared.
			kept := session.Counted()
			for leftOut := -1; leftOut < len(kept); leftOut++ {
				again := begin(t, test.policies...)
				for i, c := range kept {
					if i != leftOut {
						offerAll(t, again, c)
					}
				}
				if again.Met() != (session.Met() && leftOut < 0) {
					t.Errorf("evidence without number %d: met is %t", leftOut, again.Met())
				}
			}
		})
	}
}

func TestSameKeyCountsOnce(t *testing.T) {
	a, b := newKey(t), newKey(t)
	d := subject().Digest
	session := begin(t, threshold(2, policyOf("p", a, b)))
	offerAll(t, session, bundleFor(t, a, d))
	for name, again := range map[string]trust.Candidate{"another bundle": bundleFor(t, a, d), "the other form": simpleFor(t, a, d)} {
		wantReason(t, session.Offer(t.Context(), again), reason.ThresholdNotMet, "counted already")
		if session.Met() {
			t.Fatalf("%s by the same key met a threshold of two", name)
		}
	}
	offerAll(t, session, simpleFor(t, b, d))
	verdict, err := session.Verdict()
	if err != nil || len(verdict.Credentials) != 2 {
		t.Errorf("%v, %v", verdict, err)
	}
}

func TestSignerValidity(t *testing.T) {
	k := newKey(t)
	hour := time.Hour
	tests := map[string]struct {
		notBefore, notAfter time.Time
		because             string // "" where it counts
		until               time.Time
	}{
		"unbounded":                  {},
		"within":                     {now().Add(-hour), now().Add(hour), "", now().Add(hour)},
		"from this instant":          {now(), time.Time{}, "", time.Time{}},
		"from the next instant":      {now().Add(1), time.Time{}, "is not valid before", time.Time{}},
		"until the next instant":     {time.Time{}, now().Add(1), "", now().Add(1)},
		"until this instant":         {time.Time{}, now(), "is no longer valid since", time.Time{}},
		"long gone":                  {now().Add(-2 * hour), now().Add(-hour), "is no longer valid since", time.Time{}},
		"another zone's same moment": {time.Time{}, now().In(time.FixedZone("", 3600)), "is no longer valid since", time.Time{}},
	}
	for name, test := range tests {
		for formName, form := range map[string]func(testing.TB, testKey, digest.Digest) trust.Candidate{"bundle": bundleFor, "simple signing": simpleFor} {
			t.Run(name+"/"+formName, func(t *testing.T) {
				p := policyOf("p", k)
				p.Signers[0].NotBefore, p.Signers[0].NotAfter = test.notBefore, test.notAfter
				session := begin(t, p)
				err := session.Offer(t.Context(), form(t, k, subject().Digest))
				if test.because != "" {
					wantReason(t, err, reason.SignerExpired, test.because)
					_, err = session.Verdict()
					wantReason(t, err, reason.SignerExpired, "p/s0")
					return
				}
				verdict, verdictErr := session.Verdict()
				if err != nil || verdictErr != nil {
					t.Fatal(err, verdictErr)
				}
				if !verdict.ValidUntil.Equal(test.until) {
					t.Errorf("valid until %v, want %v", verdict.ValidUntil, test.until)
				}
			})
		}
	}
}

// A key that is valid in one policy only counts there only, and the verdict
// ends with the first of the signers it rests on.
func TestValidityIsEachPolicys(t *testing.T) {
	k, other := newKey(t), newKey(t)
	gone, soon, later := policyOf("gone", k, other), policyOf("soon", k), policyOf("later", k)
	gone.Signers[0].NotAfter = now()
	soon.Signers[0].NotAfter = now().Add(time.Minute)
	later.Signers[0].NotAfter = now().Add(time.Hour)
	session := begin(t, gone, soon, later)
	offerAll(t, session, bundleFor(t, k, subject().Digest))
	_, err := session.Verdict()
	wantReason(t, err, reason.ThresholdNotMet, `TrustPolicy "gone" has 0 of 1`)
	offerAll(t, session, bundleFor(t, other, subject().Digest))
	verdict, err := session.Verdict()
	if err != nil {
		t.Fatal(err)
	}
	if want := now().Add(time.Minute); !verdict.ValidUntil.Equal(want) {
		t.Errorf("valid until %v, want %v", verdict.ValidUntil, want)
	}
	for _, credential := range verdict.Credentials {
		if want := []string{"gone/s0", "later/s0", "soon/s0"}; credential.ID == k.id && !cmp.Equal(want, credential.Signers) {
			t.Error(cmp.Diff(want, credential.Signers))
		}
	}
}

func TestRevokedKey(t *testing.T) {
	k, other := newKey(t), newKey(t)
	revoking := policyOf("revoking", k, other)
	revoking.RevokedKeys = []string{k.id}
	elsewhere := policyOf("elsewhere", k)
	onlyRevokes := policyOf("only", other)
	onlyRevokes.RevokedKeys = []string{k.id}
	for name, policies := range map[string][]trust.Policy{
		"by its own policy":       {revoking},
		"by another that matches": {onlyRevokes, elsewhere},
		"by one of two":           {revoking, elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			session := begin(t, policies...)
			wantReason(t, session.Offer(t.Context(), bundleFor(t, k, subject().Digest)), reason.Revoked, "revokes the key")
			if session.Met() {
				t.Error("met by a revoked key")
			}
			_, err := session.Verdict()
			wantReason(t, err, reason.Revoked, "revokes the key")
			if e, _ := reason.Of(err); e.RetryAfter <= 0 {
				t.Error("final, though another key may sign")
			}
		})
	}
	session := begin(t, revoking)
	offerAll(t, session, bundleFor(t, other, subject().Digest))
	if !session.Met() {
		t.Error("another key than the revoked one does not count")
	}
}

// A revoked digest is refused whoever signed, and finally so.
func TestRevokedDigest(t *testing.T) {
	k := newKey(t)
	p := policyOf("p", k)
	p.RevokedDigests = []digest.Digest{subject().Digest}
	session := begin(t, p)
	wantReason(t, session.Offer(t.Context(), bundleFor(t, k, subject().Digest)), reason.Revoked, "revokes this digest")
	_, err := session.Verdict()
	wantReason(t, err, reason.Revoked, "revokes this digest")
	if e, _ := reason.Of(err); session.Met() || e.RetryAfter != 0 {
		t.Errorf("met %t, retry after %v", session.Met(), e.RetryAfter)
	}
}

// A session judges what was matched, and nothing else.
func TestSubjectMustBeTheMatched(t *testing.T) {
	k := newKey(t)
	matched := match(t, policyOf("p", k))
	for name, change := range map[string]func(*trust.Subject){
		"repository": func(s *trust.Subject) { s.Repository.Path = "team/other" },
		"host":       func(s *trust.Subject) { s.Repository.Host = "evil.example" },
		"namespace":  func(s *trust.Subject) { s.Owner.Namespace = "other" },
		"no digest":  func(s *trust.Subject) { s.Digest = "" },
		"sha512":     func(s *trust.Subject) { s.Digest = digest.SHA512.FromString("artifact") },
	} {
		t.Run(name, func(t *testing.T) {
			sub := subject()
			change(&sub)
			session := matched.Begin(sub, now())
			if err := session.Offer(t.Context(), bundleFor(t, k, subject().Digest)); err == nil || session.Met() {
				t.Errorf("judged: %v", err)
			}
			if _, err := session.Verdict(); err == nil {
				t.Error("a verdict")
			}
		})
	}
	var none trust.Matched
	empty := none.Begin(subject(), now())
	if err := empty.Offer(t.Context(), bundleFor(t, k, subject().Digest)); !errors.Is(err, reason.NoTrustPolicy) || empty.Met() {
		t.Errorf("without policies: %v", err)
	}
}

func TestCanceled(t *testing.T) {
	k := newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	session := begin(t, policyOf("p", k))
	good := bundleFor(t, k, subject().Digest)
	if err := session.Offer(ctx, good); !errors.Is(err, context.Canceled) || session.Met() {
		t.Fatalf("got %v", err)
	}
	offerAll(t, session, good)
}

// The reason of the candidate that came furthest is the one worth telling,
// in whichever order they come.
func TestMostTellingReason(t *testing.T) {
	k, gone, stranger := newKey(t), newKey(t), newKey(t)
	d := subject().Digest
	p := policyOf("p", k, gone)
	p.Signers[1].NotAfter = now()
	ladder := []struct {
		candidate trust.Candidate
		want      reason.Reason
	}{
		{bundleCandidate([]byte("{}")), reason.SignatureInvalid},
		{bundleFor(t, stranger, d), reason.IdentityMismatch},
		{bundleOf(t, k, k.cosignSigner(t), "text/plain", "x"), reason.PredicateMismatch},
		{bundleFor(t, k, artifactDigest("other")), reason.DigestMismatch},
		{bundleFor(t, gone, d), reason.SignerExpired},
	}
	for top := range ladder {
		up, down := begin(t, p), begin(t, p)
		for i := range top + 1 {
			_ = up.Offer(t.Context(), ladder[i].candidate)
			_ = down.Offer(t.Context(), ladder[top-i].candidate)
		}
		for _, session := range []*trust.Session{up, down} {
			if _, err := session.Verdict(); !errors.Is(err, ladder[top].want) {
				t.Errorf("of %d candidates: %v, want %s", top+1, err, ladder[top].want)
			}
		}
	}
}

// A signature that says something else is told only where a signer made it:
// else whoever may attach something could choose the reason.
func TestStrangersChooseNoReason(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	for name, c := range map[string]trust.Candidate{
		"moved":       bundleFor(t, stranger, artifactDigest("other")),
		"attestation": bundleOf(t, stranger, stranger.cosignSigner(t), trust.StatementPayloadType, statementWith("https://slsa.dev/provenance/v1", "[]")),
	} {
		session := begin(t, policyOf("p", k))
		if err := session.Offer(t.Context(), c); !errors.Is(err, reason.IdentityMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No number of bad candidates keeps a good one from counting.
func TestThousandBadCandidates(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	attacks := attacks(t, k, stranger)
	delete(attacks, "huge")
	session := begin(t, policyOf("p", k))
	for n := 0; n < 1000; {
		for name, attack := range attacks {
			if err := session.Offer(t.Context(), attack.candidate); err == nil {
				t.Fatalf("%s counted", name)
			}
			n++
		}
	}
	good := simpleFor(t, k, subject().Digest)
	offerAll(t, session, good)
	if !session.Met() {
		t.Error("not met")
	}
	if diff := cmp.Diff([]trust.Candidate{good}, session.Counted()); diff != "" {
		t.Error(diff)
	}
}

// cosign 2.6.5 panics on some of these annotations; nothing looks at them.
func TestAnnotationsThatPanicCosign(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	for _, key := range []string{
		"dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp",
		"dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain",
	} {
		for i, value := range []string{"", "null", "{}", "[]", "junk", `{"SignedRFC3161Timestamp":"AAAA"}`, `{"Payload":{"body":{}}}`} {
			t.Run(fmt.Sprintf("%s/%d", key, i), func(t *testing.T) {
				good, bad := simpleFor(t, k, subject().Digest), simpleFor(t, stranger, subject().Digest)
				good.Annotations[key], bad.Annotations[key] = value, value
				session := begin(t, policyOf("p", k))
				wantReason(t, session.Offer(t.Context(), bad), reason.SignatureInvalid, "no signer's key")
				offerAll(t, session, good)
				if !session.Met() {
					t.Error("not met")
				}
			})
		}
	}
}
