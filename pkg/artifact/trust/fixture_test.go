package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	sigpayload "github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
)

const (
	host          = "registry.example.com"
	path          = "team/web"
	namespace     = "web"
	statementType = "https://in-toto.io/Statement/v1"
)

// now is the injected time of all tests.
func now() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func repository() reference.Repository { return reference.Repository{Host: host, Path: path} }

func artifactDigest(text string) digest.Digest { return digest.FromString(text) }

func subject() trust.Subject {
	return trust.Subject{
		Repository: repository(),
		Digest:     artifactDigest("artifact"),
		Owner:      profile.Owner{Namespace: namespace, Name: "nginx"},
	}
}

// testKey is a key as a signer holds it.
type testKey struct {
	private crypto.Signer
	pem     []byte
	id      string
	hint    string
}

func keyOf(tb testing.TB, private crypto.Signer) testKey {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return testKey{
		private: private,
		pem:     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		id:      "sha256:" + hex.EncodeToString(sum[:]),
		hint:    base64.StdEncoding.EncodeToString(sum[:]),
	}
}

func newECDSA(tb testing.TB, curve elliptic.Curve) testKey {
	tb.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return keyOf(tb, private)
}

func newKey(tb testing.TB) testKey {
	tb.Helper()
	return newECDSA(tb, elliptic.P256())
}

func newRSA(tb testing.TB, bits int) testKey {
	tb.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return keyOf(tb, private)
}

func newEd25519(tb testing.TB) testKey {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return keyOf(tb, private)
}

// cosignSigner is the key as cosign 2 and 3 load it: the default hash of the
// key, Ed25519 pre-hashed.
func (k testKey) cosignSigner(tb testing.TB) signature.SignerVerifier {
	tb.Helper()
	sv, err := signature.LoadDefaultSignerVerifier(k.private, *cosign.GetDefaultLoadOptions(nil)...)
	if err != nil {
		tb.Fatal(err)
	}
	return sv
}

// oldSigner is the key as older lines of cosign load it: SHA-256, plain Ed25519.
func (k testKey) oldSigner(tb testing.TB) signature.SignerVerifier {
	tb.Helper()
	sv, err := signature.LoadSignerVerifier(k.private, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	return sv
}

// statementFor is what cosign 2.6 sign --new-bundle-format signs.
func statementFor(d digest.Digest) string {
	return statementWith(trust.SignPredicateType, fmt.Sprintf(`[{"digest":{"sha256":%q}}]`, d.Encoded()))
}

func statementWith(predicateType, subjects string) string {
	return fmt.Sprintf(`{"_type":%q,"subject":%s,"predicateType":%q}`, statementType, subjects, predicateType)
}

// bundleOf makes a bundle as cosign 2.6 does, from any payload.
func bundleOf(tb testing.TB, k testKey, sv signature.SignerVerifier, payloadType, payload string) trust.Candidate {
	tb.Helper()
	envelope, err := dsse.WrapSigner(sv, payloadType).SignMessage(bytes.NewReader([]byte(payload)))
	if err != nil {
		tb.Fatal(err)
	}
	data, err := cbundle.MakeNewBundle(k.private.Public(), nil, []byte(payload), envelope, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return bundleCandidate(data)
}

func bundleCandidate(data []byte) trust.Candidate {
	return trust.Candidate{ID: digest.FromBytes(data), Form: trust.FormBundle, Payload: data}
}

// bundleFor is a good bundle for d.
func bundleFor(tb testing.TB, k testKey, d digest.Digest) trust.Candidate {
	tb.Helper()
	return bundleOf(tb, k, k.cosignSigner(tb), trust.StatementPayloadType, statementFor(d))
}

func simplePayload(tb testing.TB, d digest.Digest) []byte {
	tb.Helper()
	image, err := name.NewDigest(host + "/" + path + "@" + d.String())
	if err != nil {
		tb.Fatal(err)
	}
	data, err := sigpayload.Cosign{Image: image}.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func simpleOf(tb testing.TB, sv signature.SignerVerifier, payload []byte) trust.Candidate {
	tb.Helper()
	sig, err := sv.SignMessage(bytes.NewReader(payload))
	if err != nil {
		tb.Fatal(err)
	}
	return trust.Candidate{
		ID: digest.FromBytes(payload), Form: trust.FormSimpleSigning, Payload: payload,
		Annotations: map[string]string{trust.SignatureAnnotation: base64.StdEncoding.EncodeToString(sig)},
	}
}

// simpleFor is a good simple signing candidate for d.
func simpleFor(tb testing.TB, k testKey, d digest.Digest) trust.Candidate {
	tb.Helper()
	return simpleOf(tb, k.cosignSigner(tb), simplePayload(tb, d))
}

// policyOf trusts keys for the test repository, with a threshold of one.
func policyOf(name string, keys ...testKey) trust.Policy {
	p := trust.Policy{
		Name: name, Repositories: []string{host + "/team/**"}, Namespaces: []string{namespace},
		Threshold: 1, AllowedKinds: []string{"seccomp"},
	}
	for i, k := range keys {
		p.Signers = append(p.Signers, trust.Signer{Name: fmt.Sprintf("s%d", i), KeyPEM: k.pem})
	}
	return p
}

func match(tb testing.TB, policies ...trust.Policy) *trust.Matched {
	tb.Helper()
	compiled, err := trust.Compile(policies)
	if err != nil {
		tb.Fatal(err)
	}
	matched, err := compiled.Matching(repository(), namespace)
	if err != nil {
		tb.Fatal(err)
	}
	return matched
}

func begin(tb testing.TB, policies ...trust.Policy) *trust.Session {
	tb.Helper()
	return match(tb, policies...).Begin(subject(), now())
}
