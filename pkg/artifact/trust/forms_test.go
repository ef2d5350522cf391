package trust_test

import (
	"crypto/elliptic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// Every key kind, in every form, by every line of cosign, is accepted by its
// own key and by no other.
func TestForms(t *testing.T) {
	keys := map[string]testKey{
		"ECDSA P-256": newECDSA(t, elliptic.P256()),
		"ECDSA P-384": newECDSA(t, elliptic.P384()),
		"ECDSA P-521": newECDSA(t, elliptic.P521()),
		"RSA 2048":    newRSA(t, 2048),
		"Ed25519":     newEd25519(t),
	}
	loads := map[string]func(testKey) signature.SignerVerifier{
		"cosign 2 and 3": func(k testKey) signature.SignerVerifier { return k.cosignSigner(t) },
		"older cosign":   func(k testKey) signature.SignerVerifier { return k.oldSigner(t) },
	}
	forms := map[string]func(testKey, signature.SignerVerifier) trust.Candidate{
		"bundle": func(k testKey, sv signature.SignerVerifier) trust.Candidate {
			return bundleOf(t, k, sv, trust.StatementPayloadType, statementFor(subject().Digest))
		},
		"simple signing": func(_ testKey, sv signature.SignerVerifier) trust.Candidate {
			return simpleOf(t, sv, simplePayload(t, subject().Digest))
		},
	}
	stranger := newKey(t)
	for keyName, key := range keys {
		for loadName, load := range loads {
			for formName, form := range forms {
				t.Run(keyName+"/"+loadName+"/"+formName, func(t *testing.T) {
					candidate := form(key, load(key))
					session := begin(t, policyOf("p", stranger, key))
					if err := session.Offer(t.Context(), candidate); err != nil {
						t.Fatal(err)
					}
					if !session.Met() {
						t.Error("accepted, but the threshold is not met")
					}
					verdict, err := session.Verdict()
					if err != nil {
						t.Fatal(err)
					}
					want := trust.Verdict{Credentials: []trust.Credential{{ID: key.id, Signers: []string{"p/s1"}, Form: candidate.Form}}}
					if diff := cmp.Diff(want, verdict); diff != "" {
						t.Error(diff)
					}
					if diff := cmp.Diff([]trust.Candidate{candidate}, session.Counted()); diff != "" {
						t.Error(diff)
					}
					foreign := begin(t, policyOf("p", stranger))
					if err := foreign.Offer(t.Context(), candidate); err == nil || foreign.Met() {
						t.Errorf("another key's policy accepted it: %v", err)
					}
				})
			}
		}
	}
}

// cosign may attach log entries and timestamps. Under a key policy they prove
// nothing, so neither their presence nor what is in them matters.
func TestLogEntriesAndTimestampsAreLeftAside(t *testing.T) {
	k := newKey(t)
	for name, more := range map[string]map[string]any{
		"log entry":        {"tlogEntries": []any{map[string]any{"logIndex": "7", "canonicalizedBody": "AAAA", "inclusionProof": map[string]any{"treeSize": "9"}}}},
		"empty log entry":  {"tlogEntries": []any{map[string]any{}}},
		"timestamp":        {"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": "AAAA"}}}},
		"empty timestamps": {"timestampVerificationData": map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			c := edit(t, bundleFor(t, k, subject().Digest), func(p map[string]any) {
				for key, value := range more {
					material(p)[key] = value
				}
			})
			session := begin(t, policyOf("p", k))
			offerAll(t, session, c)
			if !session.Met() {
				t.Error("not met")
			}
		})
	}
}

// Subject annotations and a predicate are what cosign 3 adds; the other
// spelling of the media type and of the hint are as good.
func TestBundleVariants(t *testing.T) {
	k := newKey(t)
	d := subject().Digest
	three := `{"_type":"` + statementType + `","subject":[{"digest":{"sha256":"` + d.Encoded() + `"},"annotations":{"who":"ci"}}],` +
		`"predicateType":"` + trust.SignPredicateType + `","predicate":{}}`
	for name, c := range map[string]trust.Candidate{
		"cosign 3": bundleOf(t, k, k.cosignSigner(t), trust.StatementPayloadType, three),
		"media type": edit(t, bundleFor(t, k, d), func(p map[string]any) {
			p["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.3"
		}),
		"no hint":      edit(t, bundleFor(t, k, d), func(p map[string]any) { material(p)["publicKey"] = map[string]any{} }),
		"foreign hint": edit(t, bundleFor(t, k, d), func(p map[string]any) { material(p)["publicKey"] = map[string]any{"hint": "ci-key"} }),
	} {
		t.Run(name, func(t *testing.T) {
			session := begin(t, policyOf("p", newKey(t), k))
			offerAll(t, session, c)
			if !session.Met() {
				t.Error("not met")
			}
		})
	}
}
