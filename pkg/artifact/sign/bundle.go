package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact/trust"
)

// Annotations of the referrer manifest that carries a bundle, as cosign 3
// writes them
// (https://github.com/sigstore/cosign/blob/v3.1.3/pkg/oci/remote/write.go, WriteAttestationNewBundleFormat).
const (
	AnnotationBundleContent   = "dev.sigstore.bundle.content"
	AnnotationBundlePredicate = "dev.sigstore.bundle.predicateType"
	// BundleContentDSSE is the value of AnnotationBundleContent.
	BundleContentDSSE = "dsse-envelope"
	// BundleMediaType is the layer's media type and the manifest's artifactType.
	BundleMediaType = trust.BundleMediaType
)

// ReferrerAnnotations are the annotations of the referrer manifest. cosign
// writes the time of creation too and never reads it; it is left out, so that
// the same bundle makes the same manifest.
func ReferrerAnnotations() map[string]string {
	return map[string]string{
		AnnotationBundleContent:   BundleContentDSSE,
		AnnotationBundlePredicate: trust.SignPredicateType,
	}
}

// Bundle signs d, the digest of an artifact's manifest, and returns the JSON
// of a sigstore bundle v0.3 as cosign 3 sign makes it. The bundle is verified
// with the public key before it is returned. No service is contacted.
func (k *Key) Bundle(ctx context.Context, d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("%.80q is no sha256 digest, nothing was signed", string(d))
	}
	payload, err := statement(d)
	if err != nil {
		return nil, err
	}
	content := &sign.DSSEData{Data: payload, PayloadType: trust.StatementPayloadType}
	made, err := sign.Bundle(content, k.pair, sign.BundleOptions{Context: ctx, TrustedRoot: k.material()})
	if err != nil {
		return nil, fmt.Errorf("%s was not signed: %w", d, err)
	}
	data, err := protojson.Marshal(made)
	if err != nil {
		return nil, fmt.Errorf("the bundle for %s cannot be written: %w", d, err)
	}
	return compact(data)
}

// material lets sigstore-go verify what it has just signed.
func (k *Key) material() root.TrustedMaterial {
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return alwaysValid{k.pair.signer}, nil
	})
}

// statement is the payload of cosign 3 sign
// (https://github.com/sigstore/cosign/blob/v3.1.3/cmd/cosign/cli/sign/sign.go, signDigestBundle).
func statement(d digest.Digest) ([]byte, error) {
	data, err := protojson.Marshal(&intoto.Statement{
		Type: intoto.StatementTypeUri,
		Subject: []*intoto.ResourceDescriptor{{
			Digest:      map[string]string{d.Algorithm().String(): d.Encoded()},
			Annotations: &structpb.Struct{},
		}},
		PredicateType: trust.SignPredicateType,
		Predicate:     &structpb.Struct{},
	})
	if err != nil {
		return nil, fmt.Errorf("the statement for %s cannot be written: %w", d, err)
	}
	return compact(data)
}

// compact removes the spaces that protojson puts at random, so that the same
// content has the same bytes.
func compact(data []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
