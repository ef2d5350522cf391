package trust

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	// SignatureAnnotation holds the signature of a simple signing layer, in
	// base64 (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md).
	SignatureAnnotation = static.SignatureAnnotationKey
	// maxSignatureText bounds it: RSA with 8192 bits takes 1,368 characters.
	maxSignatureText = 4096
	// maxSimpleSigning bounds the payload; it names one digest and has annotations.
	maxSimpleSigning = 256 << 10
)

// simpleSignature is a simple signing payload with its signature.
type simpleSignature struct {
	payload   []byte
	text      string // the signature in base64
	signature []byte
	claims    error
	hash      v1.Hash
}

var _ signed = (*simpleSignature)(nil)

// readSimpleSigning reads payload and signature. No other annotation is looked
// at: certificates, log bundles and timestamps prove nothing under a key
// policy, and cosign 2.6.5 panics on some of them.
func readSimpleSigning(c Candidate, want digest.Digest) (*simpleSignature, error) {
	text, ok := c.Annotations[SignatureAnnotation]
	switch {
	case !ok || text == "":
		return nil, refusal{reason.SignatureInvalid, "the layer has no " + SignatureAnnotation + " annotation"}
	case len(text) > maxSignatureText:
		return nil, refusal{reason.SignatureInvalid, fmt.Sprintf("the signature has %d characters, at most %d are read", len(text), maxSignatureText)}
	case len(c.Payload) > maxSimpleSigning:
		return nil, refusal{reason.SignatureInvalid, fmt.Sprintf("the payload has %d bytes, at most %d are read", len(c.Payload), maxSimpleSigning)}
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, refusal{reason.SignatureInvalid, "the signature is not base64"}
	}
	hash, err := v1.NewHash(string(want))
	if err != nil {
		return nil, refusal{reason.SignatureInvalid, "the digest to verify is no sha256 digest"}
	}
	return &simpleSignature{
		payload: c.Payload, text: text, signature: raw, hash: hash,
		claims: checkSimpleClaims(c.Payload, want),
	}, nil
}

// checkSimpleClaims reports why the payload is no signature of want.
func checkSimpleClaims(data []byte, want digest.Digest) error {
	if err := checkJSON(data); err != nil {
		return refusal{reason.SignatureInvalid, "the payload cannot be read: " + err.Error()}
	}
	var claims payload.SimpleContainerImage
	if err := json.Unmarshal(data, &claims); err != nil {
		return refusal{reason.SignatureInvalid, "the payload does not have the fields of a simple signing payload"}
	}
	got := claims.Critical.Image.DockerManifestDigest
	switch {
	case claims.Critical.Type != payload.CosignSignatureType:
		return refusal{reason.PredicateMismatch, fmt.Sprintf("its critical.type is %.80q, not %q", claims.Critical.Type, payload.CosignSignatureType)}
	case !sha256Regexp.MatchString(got):
		return refusal{reason.SignatureInvalid, "the payload names no sha256 digest"}
	case got != string(want):
		return refusal{reason.DigestMismatch, "it was made for another artifact, " + got}
	}
	return nil
}

// verifiedBy is the accepting path: cosign judges signature and claim.
func (s *simpleSignature) verifiedBy(ctx context.Context, c *credential) error {
	if s.claims != nil {
		return s.claims
	}
	image, err := static.NewSignature(s.payload, s.text)
	if err != nil {
		return err
	}
	_, err = cosign.VerifyImageSignature(ctx, image, s.hash, &cosign.CheckOpts{
		ClaimVerifier: cosign.SimpleClaimVerifier,
		SigVerifier:   c.key,
		// A key is trusted by the policy itself: a log would add a time and
		// a witness, which a policy of keys does not ask for.
		IgnoreTlog: true,
		Offline:    true,
	})
	return err
}

// authenticBy reports whether the key made the signature, whatever it says.
func (s *simpleSignature) authenticBy(c *credential) bool {
	return c.key.VerifySignature(bytes.NewReader(s.signature), bytes.NewReader(s.payload)) == nil
}

func (s *simpleSignature) claimsError() error { return s.claims }
func (s *simpleSignature) keyHint() string    { return "" }

var errPanicked = errors.New("a verification library panicked on it")

// contained runs f in a goroutine of its own, so that a library that panics on
// foreign bytes, or ends its goroutine, costs one candidate and not the process.
func contained(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errPanicked
		defer func() {
			_ = recover()
			done <- err
		}()
		err = f()
	}()
	return <-done
}
