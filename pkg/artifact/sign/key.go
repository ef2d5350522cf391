// Package sign reads and makes cosign key files and signs artifacts with them.
// What it makes is what cosign 3 makes: a sigstore bundle that is attached as
// a referrer. It speaks to no registry and to no sigstore service.
package sign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// maxKeyFileBytes bounds a key file; an encrypted RSA key of 8192 bits takes 9 kB.
const maxKeyFileBytes = 64 << 10

// Errors of LoadKey. None of them ever holds a part of the key or password.
var (
	// ErrKeyFile means that the file is no encrypted key as cosign writes it.
	ErrKeyFile = errors.New("not a private key file of cosign")
	// ErrPassword means that the password does not open the key.
	ErrPassword = errors.New("the password does not open the private key: check COSIGN_PASSWORD")
)

// Key is an opened private key. It is safe for concurrent use, prints as its
// public identity, and cannot be written to JSON.
type Key struct {
	pair *keypair
	id   string
	pem  []byte
}

// LoadKey opens an encrypted private key as cosign generate-key-pair and
// cosign import-key-pair write it. password is called once, when the file
// looks like such a key; nil stands for the empty password. The error is
// ErrKeyFile, ErrPassword or that of password.
func LoadKey(pemBytes []byte, password func() ([]byte, error)) (*Key, error) {
	if err := checkKeyFile(pemBytes); err != nil {
		return nil, err
	}
	var secret []byte
	if password != nil {
		var err error
		if secret, err = password(); err != nil {
			return nil, fmt.Errorf("the password of the private key cannot be had: %w", err)
		}
	}
	// Ed25519 is signed plain: the signature is in a DSSE envelope, for which
	// cosign verifies plain Ed25519 (cosign/v2 and v3, pkg/signature/keys.go).
	//
	// The key is opened as cosign.LoadPrivateKey opens it, and not by it: that
	// hides the private key, which deterministic signatures need.
	block, _ := pem.Decode(pemBytes)
	der, err := encrypted.Decrypt(block.Bytes, secret)
	if err != nil {
		// The cause is not wrapped: a parser's error may repeat what it read.
		return nil, ErrPassword
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: what it decrypts to is no PKCS #8 key", ErrKeyFile)
	}
	opened, err := signature.LoadDefaultSignerVerifier(private)
	if err != nil {
		return nil, fmt.Errorf("%w: cosign signs with ECDSA P-256, P-384 and P-521, RSA of 2048, 3072 and 4096 bits, and Ed25519", ErrKeyFile)
	}
	key, err := newKey(opened)
	if err != nil {
		return nil, err
	}
	key.pair.ecdsa, _ = private.(*ecdsa.PrivateKey)
	return key, nil
}

func checkKeyFile(pemBytes []byte) error {
	if len(pemBytes) > maxKeyFileBytes {
		return fmt.Errorf("%w: it has %d bytes, at most %d are read", ErrKeyFile, len(pemBytes), maxKeyFileBytes)
	}
	block, rest := pem.Decode(pemBytes)
	switch {
	case block == nil:
		return fmt.Errorf("%w: it holds no PEM block", ErrKeyFile)
	case len(bytes.TrimSpace(rest)) != 0:
		return fmt.Errorf("%w: something follows the PEM block", ErrKeyFile)
	case block.Type == cosign.CosignPrivateKeyPemType || block.Type == cosign.SigstorePrivateKeyPemType:
		if !json.Valid(block.Bytes) {
			return fmt.Errorf("%w: what the PEM block holds is damaged", ErrKeyFile)
		}
		return nil
	case block.Type == "PUBLIC KEY":
		return fmt.Errorf("%w: it is the public key, give the private one (cosign.key)", ErrKeyFile)
	}
	return fmt.Errorf("%w: encrypt other private keys with cosign import-key-pair first", ErrKeyFile)
}

func newKey(opened signature.SignerVerifier) (*Key, error) {
	public, err := opened.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: it has no public key", ErrKeyFile)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: its public key is of an unknown kind", ErrKeyFile)
	}
	publicPEM, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return nil, fmt.Errorf("%w: its public key is of an unknown kind", ErrKeyFile)
	}
	algorithm, err := signature.GetDefaultAlgorithmDetails(public)
	if err != nil {
		return nil, fmt.Errorf("%w: cosign signs with ECDSA P-256, P-384 and P-521, RSA of 2048, 3072 and 4096 bits, and Ed25519", ErrKeyFile)
	}
	sum := sha256.Sum256(der)
	return &Key{
		id:  "sha256:" + hex.EncodeToString(sum[:]),
		pem: publicPEM,
		pair: &keypair{
			signer: opened, public: public, pem: publicPEM, algorithm: algorithm,
			hint: base64.StdEncoding.EncodeToString(sum[:]),
		},
	}, nil
}

// GenerateKeyPair makes an ECDSA P-256 key pair as cosign generate-key-pair
// does: the private key encrypted with password (nil stands for the empty
// one), the public key in PKIX PEM.
func GenerateKeyPair(password func() ([]byte, error)) (private, public []byte, err error) {
	made, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) {
		if password == nil {
			return nil, nil
		}
		return password()
	})
	if err != nil {
		return nil, nil, fmt.Errorf("no key pair made: %w", err)
	}
	return made.PrivateBytes, made.PublicBytes, nil
}

// ID is "sha256:<hex>" of the DER SubjectPublicKeyInfo, as trust policies and
// verdicts name a key.
func (k *Key) ID() string { return k.id }

// PublicPEM is the public key in PKIX PEM, as a trust policy takes it.
func (k *Key) PublicPEM() []byte { return bytes.Clone(k.pem) }

// String is the public identity, so that no verb prints the private part.
func (k *Key) String() string { return "private key of " + k.id }

// GoString is String.
func (k *Key) GoString() string { return k.String() }

// Format prints String for every verb: %x or %d would walk the private part.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalJSON refuses.
func (k *Key) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a private key is not written to JSON")
}

// keypair is a Key as sigstore-go signs with it: its sign.Keypair.
type keypair struct {
	signer    signature.SignerVerifier
	ecdsa     *ecdsa.PrivateKey // set where the key is of that kind
	public    crypto.PublicKey
	pem       []byte
	algorithm signature.AlgorithmDetails
	hint      string
}

// GetHashAlgorithm is the hash of the key's scheme.
func (k *keypair) GetHashAlgorithm() protocommon.HashAlgorithm { return k.algorithm.GetProtoHashType() }

// GetSigningAlgorithm is the key's scheme.
func (k *keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.algorithm.GetSignatureAlgorithm()
}

// GetHint is the base64 of the SHA-256 of the DER public key, as cosign hints.
func (k *keypair) GetHint() []byte { return []byte(k.hint) }

// GetKeyAlgorithm is the kind of key, as certificate authorities call it.
func (k *keypair) GetKeyAlgorithm() string {
	switch k.public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA"
	case *rsa.PublicKey:
		return "RSA"
	case ed25519.PublicKey:
		return "ED25519"
	}
	return ""
}

// GetPublicKey is the public key.
func (k *keypair) GetPublicKey() crypto.PublicKey { return k.public }

// GetPublicKeyPem is the public key in PKIX PEM.
func (k *keypair) GetPublicKeyPem() (string, error) { return string(k.pem), nil }

// signDeterministic signs by RFC 6979, so that signing a digest again makes the
// same bundle and adds nothing to a registry.
func (k *keypair) signDeterministic(data []byte) ([]byte, error) {
	hash := k.algorithm.GetHashType()
	h := hash.New()
	_, _ = h.Write(data) // never fails, see hash.Hash
	return k.ecdsa.Sign(nil, h.Sum(nil), hash)
}

// SignData returns the signature. The digest beside it is only for message
// signatures, which are not made here.
func (k *keypair) SignData(ctx context.Context, data []byte) (sig, digest []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if k.ecdsa != nil {
		sig, err = k.signDeterministic(data)
	} else { // RSA PKCS #1 v1.5 and Ed25519 are deterministic by themselves
		sig, err = k.signer.SignMessage(bytes.NewReader(data))
	}
	return sig, nil, err
}

// alwaysValid is the key as its own verifier.
type alwaysValid struct{ signature.Verifier }

// ValidAtTime is always true: policies say how long a key is valid.
func (alwaysValid) ValidAtTime(time.Time) bool { return true }
