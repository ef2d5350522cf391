package trust

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
)

// What a signature says is checked twice: before any key is tried, and again
// on what the libraries verified. Each line must hold without the other.
func TestAcceptingPathStandsAlone(t *testing.T) {
	want, other := digest.FromString("artifact"), digest.FromString("other")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newCredential(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadSignerVerifier(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	statement := func(d digest.Digest, predicate string) string {
		return `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + d.Encoded() + `"}}],"predicateType":"` + predicate + `"}`
	}
	claims := func(d digest.Digest) string {
		return `{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"` + d.String() + `"}}}`
	}
	tests := map[string]struct {
		sig    signed
		counts bool
	}{
		"bundle":                  {bundleBy(t, signer, statement(want, SignPredicateType), want), true},
		"bundle, other digest":    {bundleBy(t, signer, statement(other, SignPredicateType), want), false},
		"bundle, other predicate": {bundleBy(t, signer, statement(want, "x"), want), false},
		"simple":                  {simpleBy(t, signer, claims(want), want), true},
		"simple, other digest":    {simpleBy(t, signer, claims(other), want), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			setClaims := func(err error) {
				switch sig := test.sig.(type) {
				case *bundleSignature:
					sig.claims = err
				case *simpleSignature:
					sig.claims = err
				}
			}
			setClaims(nil) // as if the first line had overlooked it
			if err := test.sig.verifiedBy(t.Context(), key); (err == nil) != test.counts {
				t.Errorf("without the first line: %v", err)
			}
			setClaims(errors.New("the first line"))
			if err := test.sig.verifiedBy(t.Context(), key); err == nil {
				t.Error("accepted against the first line")
			}
		})
	}
}

func bundleBy(t *testing.T, signer signature.Signer, statement string, want digest.Digest) *bundleSignature {
	t.Helper()
	envelope, err := dsse.WrapSigner(signer, StatementPayloadType).SignMessage(bytes.NewReader([]byte(statement)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{
		"mediaType":            BundleMediaType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{}},
		"dsseEnvelope":         json.RawMessage(envelope),
	})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := readBundle(data, want)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func simpleBy(t *testing.T, signer signature.Signer, payload string, want digest.Digest) *simpleSignature {
	t.Helper()
	raw, err := signer.SignMessage(bytes.NewReader([]byte(payload)))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := readSimpleSigning(Candidate{
		Form: FormSimpleSigning, Payload: []byte(payload),
		Annotations: map[string]string{SignatureAnnotation: base64.StdEncoding.EncodeToString(raw)},
	}, want)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// A revoked key does not vote, even where it was counted.
func TestRevokedDoesNotVote(t *testing.T) {
	c := &credential{id: "sha256:a"}
	s := &Session{revoked: map[string]string{}}
	signer := signer{credential: c}
	counted := []counted{{id: c.id}}
	if !s.voted(signer, counted) {
		t.Fatal("a signer who signed has no vote")
	}
	s.revoked[c.id] = "p"
	if s.voted(signer, counted) {
		t.Error("a revoked key votes")
	}
}

// A session that is blocked is never met, whatever was counted.
func TestBlockedIsNeverMet(t *testing.T) {
	c := &credential{id: "sha256:a"}
	s := &Session{
		policies: []*policy{{threshold: 1, signers: []signer{{credential: c}}}},
		counted:  []counted{{id: c.id}},
	}
	if !s.Met() {
		t.Fatal("not met at all")
	}
	s.blocked = errPanicked
	if s.Met() {
		t.Error("met though blocked")
	}
}
