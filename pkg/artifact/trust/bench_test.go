package trust_test

import (
	"testing"

	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// BenchmarkOffer is one signature judged from its bytes, as at a start of the
// node for every artifact. Among 32 signers the right one is the last.
func BenchmarkOffer(b *testing.B) {
	k, stranger := newKey(b), newKey(b)
	d := subject().Digest
	crowd := make([]testKey, 0, 32)
	for range 31 {
		crowd = append(crowd, newKey(b))
	}
	crowd = append(crowd, k)
	for name, bench := range map[string]struct {
		policy    trust.Policy
		candidate trust.Candidate
		counts    bool
	}{
		"bundle":                       {policyOf("p", k), bundleFor(b, k, d), true},
		"bundle, 32 signers":           {policyOf("p", crowd...), bundleFor(b, k, d), true},
		"bundle, untrusted key":        {policyOf("p", k), bundleFor(b, stranger, d), false},
		"simple signing":               {policyOf("p", k), simpleFor(b, k, d), true},
		"simple signing, 32 signers":   {policyOf("p", crowd...), simpleFor(b, k, d), true},
		"simple signing, untrusted":    {policyOf("p", k), simpleFor(b, stranger, d), false},
		"bundle, RSA 2048":             benchOf(b, newRSA(b, 2048)),
		"bundle, Ed25519, pre-hashed":  benchOf(b, newEd25519(b)),
		"bundle, another's attachment": {policyOf("p", k), bundleFor(b, k, artifactDigest("x")), false},
	} {
		b.Run(name, func(b *testing.B) {
			matched := match(b, bench.policy)
			b.ReportAllocs()
			for b.Loop() {
				session := matched.Begin(subject(), now())
				if err := session.Offer(b.Context(), bench.candidate); (err == nil) != bench.counts || session.Met() != bench.counts {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchOf(b *testing.B, k testKey) struct {
	policy    trust.Policy
	candidate trust.Candidate
	counts    bool
} {
	b.Helper()
	return struct {
		policy    trust.Policy
		candidate trust.Candidate
		counts    bool
	}{policyOf("p", k), bundleFor(b, k, subject().Digest), true}
}
