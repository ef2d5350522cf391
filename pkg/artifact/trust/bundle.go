package trust

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	intoto "github.com/in-toto/attestation/go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/reason"
)

// What a bundle must say to be a signature of an artifact.
const (
	// BundleMediaType is a sigstore bundle v0.3, as media type of the layer and
	// artifactType of the referrer (https://docs.sigstore.dev/about/bundle/).
	BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// SignPredicateType marks a signature among attestations
	// (https://github.com/sigstore/cosign/blob/v3.1.3/pkg/types/predicate.go).
	SignPredicateType = "https://sigstore.dev/cosign/sign/v1"
	// StatementPayloadType is the DSSE payload type of an in-toto statement.
	StatementPayloadType = "application/vnd.in-toto+json"

	// bundleMediaTypeOld is the other spelling of the same version.
	bundleMediaTypeOld = "application/vnd.dev.sigstore.bundle+json;version=0.3"
	digestAlgorithm    = "sha256"
)

// bundleSignature is a bundle of which only the parts remain that a key needs.
type bundleSignature struct {
	entity *bundle.Bundle
	hint   string
	// claims is why the statement is no signature of our artifact; nil if it is one.
	claims error
	digest []byte
}

var _ signed = (*bundleSignature)(nil)

// readBundle reads a bundle strictly. What is left out (log entries,
// timestamps) proves nothing under a key policy, so it is not even parsed.
func readBundle(payload []byte, want digest.Digest) (*bundleSignature, error) {
	if err := checkJSON(payload); err != nil {
		return nil, refusal{reason.SignatureInvalid, "the bundle cannot be read: " + err.Error()}
	}
	var read protobundle.Bundle
	if err := protojson.Unmarshal(payload, &read); err != nil {
		return nil, refusal{reason.SignatureInvalid, "the bundle does not have the fields of a sigstore bundle"}
	}
	if read.GetMediaType() != BundleMediaType && read.GetMediaType() != bundleMediaTypeOld {
		return nil, refusal{reason.SignatureInvalid, fmt.Sprintf("the bundle is a %.80q, only v0.3 is read", read.GetMediaType())}
	}
	kept, err := keptMaterial(read.GetVerificationMaterial())
	if err != nil {
		return nil, err
	}
	if read.GetMessageSignature() != nil {
		return nil, refusal{reason.PredicateMismatch, "the bundle signs bytes (cosign sign-blob), not an artifact"}
	}
	envelope := read.GetDsseEnvelope()
	if envelope == nil {
		return nil, refusal{reason.SignatureInvalid, "the bundle holds no signature"}
	}
	if n := len(envelope.GetSignatures()); n != 1 {
		return nil, refusal{reason.SignatureInvalid, fmt.Sprintf("the bundle's envelope holds %d signatures, exactly one is allowed", n)}
	}
	entity, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType:            BundleMediaType,
		VerificationMaterial: kept,
		Content:              &protobundle.Bundle_DsseEnvelope{DsseEnvelope: envelope},
	})
	if err != nil {
		return nil, refusal{reason.SignatureInvalid, "the bundle is not whole"}
	}
	raw, err := hex.DecodeString(want.Encoded())
	if err != nil {
		return nil, refusal{reason.SignatureInvalid, "the digest to verify is no sha256 digest"}
	}
	return &bundleSignature{
		entity: entity,
		hint:   kept.GetPublicKey().GetHint(),
		claims: checkEnvelope(envelope.GetPayloadType(), envelope.GetPayload(), want),
		digest: raw,
	}, nil
}

// keptMaterial keeps the key hint alone.
func keptMaterial(material *protobundle.VerificationMaterial) (*protobundle.VerificationMaterial, error) {
	switch content := material.GetContent().(type) {
	case *protobundle.VerificationMaterial_PublicKey:
		return &protobundle.VerificationMaterial{Content: content}, nil
	case *protobundle.VerificationMaterial_Certificate, *protobundle.VerificationMaterial_X509CertificateChain:
		return nil, refusal{reason.IdentityMismatch, "it was made with a certificate, and the policies trust keys alone"}
	}
	return nil, refusal{reason.SignatureInvalid, "the bundle does not say by what it is to be verified"}
}

// checkEnvelope reports why an envelope's content is no signature of want.
func checkEnvelope(payloadType string, payload []byte, want digest.Digest) error {
	if payloadType != StatementPayloadType {
		return refusal{reason.PredicateMismatch, fmt.Sprintf("it signs a %.80q, not an in-toto statement", payloadType)}
	}
	if err := checkJSON(payload); err != nil {
		return refusal{reason.SignatureInvalid, "the signed statement cannot be read: " + err.Error()}
	}
	var statement intoto.Statement
	if err := protojson.Unmarshal(payload, &statement); err != nil {
		return refusal{reason.SignatureInvalid, "the signed statement is not an in-toto statement"}
	}
	return checkStatement(&statement, want)
}

// checkStatement holds a statement to what cosign sign writes: one subject,
// with one sha256 digest. A statement about several things could be meant for
// any of them.
func checkStatement(statement *intoto.Statement, want digest.Digest) error {
	switch {
	case statement.GetType() != intoto.StatementTypeUri:
		return refusal{reason.PredicateMismatch, fmt.Sprintf("it signs a %.80q, not an in-toto v1 statement", statement.GetType())}
	case statement.GetPredicateType() != SignPredicateType:
		return refusal{reason.PredicateMismatch, fmt.Sprintf("it signs a statement with predicate %.120q, which is no signature", statement.GetPredicateType())}
	case len(statement.GetSubject()) != 1:
		return refusal{reason.SignatureInvalid, fmt.Sprintf("the statement has %d subjects, exactly one is allowed", len(statement.GetSubject()))}
	}
	digests := statement.GetSubject()[0].GetDigest()
	got, ok := digests[digestAlgorithm]
	switch {
	case !ok || len(digests) != 1:
		return refusal{reason.SignatureInvalid, "the statement's subject does not have exactly a sha256 digest"}
	case digestAlgorithm+":"+got != string(want):
		return refusal{reason.DigestMismatch, fmt.Sprintf("it was made for another artifact, sha256:%.64s", printable(got))}
	}
	return nil
}

// verifiedBy is the accepting path: sigstore-go judges signature and subject,
// and what it verified must say what we want.
func (b *bundleSignature) verifiedBy(_ context.Context, c *credential) error {
	if b.claims != nil {
		return b.claims
	}
	policy := verify.NewPolicy(verify.WithArtifactDigest(digestAlgorithm, b.digest), verify.WithKey())
	result, err := c.bundles.Verify(b.entity, policy)
	if err != nil {
		return err
	}
	if result.Statement == nil {
		return errors.New("nothing was verified")
	}
	return checkStatement(result.Statement, digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(b.digest)))
}

// authenticBy reports whether the key made the signature, whatever it says.
func (b *bundleSignature) authenticBy(c *credential) bool {
	content, err := b.entity.SignatureContent()
	if err != nil {
		return false
	}
	material, err := b.entity.VerificationContent()
	if err != nil {
		return false
	}
	return verify.VerifySignature(content, material, c.material) == nil
}

func (b *bundleSignature) claimsError() error { return b.claims }
func (b *bundleSignature) keyHint() string    { return b.hint }
