package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

const (
	maxKeyPEMBytes = 8192
	minRSABits     = 2048
	maxRSABits     = 8192
	publicKeyType  = "PUBLIC KEY"
	keyIDPrefix    = "sha256:"
)

// credential is one public key, however many signers name it.
type credential struct {
	id    string // "sha256:<hex>" of the DER SubjectPublicKeyInfo
	hints []string
	key   signature.Verifier
	// bundles judges sigstore bundles by this key alone.
	bundles *verify.Verifier
	// material makes a hint, whatever it says, stand for this key.
	material root.TrustedMaterial
}

// newCredential reads a PKIX public key in PEM.
func newCredential(data []byte) (*credential, error) {
	public, err := parsePublicKey(data)
	if err != nil {
		return nil, err
	}
	// Encoded anew, so that one key has one name however its DER was written.
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, errors.New("the key cannot be encoded as PKIX")
	}
	verifier, err := newSchemes(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	expiring := root.NewExpiringKey(verifier, time.Time{}, time.Time{}) // validity is each signer's
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return expiring, nil })
	bundles, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("the key cannot judge bundles: %w", err)
	}
	return &credential{
		id: keyIDPrefix + hex.EncodeToString(sum[:]),
		// The first is what cosign and sigstore-go write
		// (https://github.com/sigstore/sigstore-go/blob/main/pkg/sign/keys.go).
		hints:    []string{base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(sum[:]), keyIDPrefix + hex.EncodeToString(sum[:])},
		key:      verifier,
		bundles:  bundles,
		material: material,
	}, nil
}

// parsePublicKey accepts exactly one PEM block and nothing around it.
func parsePublicKey(data []byte) (crypto.PublicKey, error) {
	if len(data) > maxKeyPEMBytes {
		return nil, fmt.Errorf("the PEM has %d bytes, at most %d are allowed", len(data), maxKeyPEMBytes)
	}
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, errors.New("it does not begin with a PEM block: paste the whole public key file, cosign.pub")
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil || bytes.Count(data, []byte("-----BEGIN ")) != 1:
		return nil, errors.New("it is not exactly one PEM block")
	case len(rest) != 0:
		return nil, errors.New("something follows the PEM block")
	case block.Type != publicKeyType:
		return nil, fmt.Errorf("the PEM block is a %.40q, not a %s", block.Type, publicKeyType)
	case len(block.Headers) != 0:
		return nil, errors.New("the PEM block has headers")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is no PKIX public key of a known kind")
	}
	return public, checkStrength(public)
}

func checkStrength(public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		switch {
		case bits < minRSABits || bits > maxRSABits:
			return fmt.Errorf("the RSA key has %d bits, %d to %d are allowed", bits, minRSABits, maxRSABits)
		case key.N.Bit(0) == 0 || key.E < 3 || key.E%2 == 0:
			return errors.New("the RSA key's modulus or exponent is even or too small")
		}
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return errors.New("the ECDSA key is on another curve than P-256, P-384 and P-521")
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("the key is neither ECDSA nor RSA nor Ed25519")
}

// schemes tries the signature schemes that cosign uses with one key.
//
// cosign 2 and 3 sign with the key's default hash (SHA-384 for P-384, SHA-512
// for P-521), older lines with SHA-256; with Ed25519 they sign pre-hashed
// (Ed25519ph), while other tools sign plain. The schemes are told apart by the
// signature itself, so accepting several weakens none
// (https://github.com/sigstore/cosign/blob/v2.6.5/pkg/cosign/keys.go, GetDefaultLoadOptions).
type schemes struct {
	public crypto.PublicKey
	tried  []signature.Verifier
}

var _ signature.Verifier = (*schemes)(nil)

func newSchemes(public crypto.PublicKey) (*schemes, error) {
	var wanted [][]signature.LoadOption
	switch key := public.(type) {
	case ed25519.PublicKey:
		wanted = [][]signature.LoadOption{nil, {options.WithED25519ph()}}
	case *ecdsa.PublicKey:
		wanted = [][]signature.LoadOption{{options.WithHash(crypto.SHA256)}}
		switch key.Curve {
		case elliptic.P384():
			wanted = append(wanted, []signature.LoadOption{options.WithHash(crypto.SHA384)})
		case elliptic.P521():
			wanted = append(wanted, []signature.LoadOption{options.WithHash(crypto.SHA512)})
		}
	default: // RSA, PKCS #1 v1.5
		wanted = [][]signature.LoadOption{{options.WithHash(crypto.SHA256)}}
	}
	s := &schemes{public: public}
	for _, opts := range wanted {
		v, err := signature.LoadVerifierWithOpts(public, opts...)
		if err != nil {
			return nil, errors.New("the key has no signature scheme that cosign uses")
		}
		s.tried = append(s.tried, v)
	}
	return s, nil
}

// PublicKey implements signature.Verifier.
func (s *schemes) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.public, nil
}

// VerifySignature implements signature.Verifier. Options are not passed on: a
// digest given from outside must never stand in for that of the message.
func (s *schemes) VerifySignature(sig, message io.Reader, _ ...signature.VerifyOption) error {
	sigBytes, err := io.ReadAll(io.LimitReader(sig, MaxCandidateBytes))
	if err != nil {
		return err
	}
	messageBytes, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	for _, v := range s.tried {
		if v.VerifySignature(bytes.NewReader(sigBytes), bytes.NewReader(messageBytes)) == nil {
			return nil
		}
	}
	return errors.New("the signature is not by this key")
}
