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
		"simple signing": func(k testKey, sv signature.SignerVerifier) trust.Candidate {
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
