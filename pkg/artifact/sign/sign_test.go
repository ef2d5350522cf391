package sign_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/profile"
)

const secret = "correct horse"

func password(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

// imported is a key file as cosign import-key-pair writes it.
func imported(t *testing.T, private crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "plain.key")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := cosign.ImportKeyPair(file, func(bool) ([]byte, error) { return []byte(secret), nil })
	if err != nil {
		t.Fatal(err)
	}
	return made.PrivateBytes
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

// keyPair is one pair of files for all tests: scrypt is slow on purpose.
func keyPair(t *testing.T) (private, public []byte) {
	t.Helper()
	made, err := sharedPair()
	if err != nil {
		t.Fatal(err)
	}
	return made.PrivateBytes, made.PublicBytes
}

var sharedPair = sync.OnceValues(func() (*cosign.KeysBytes, error) {
	return cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte(secret), nil })
})

// keyFiles are key files of every kind that cosign writes.
func keyFiles(t *testing.T) map[string][]byte {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	generated, _ := keyPair(t)
	return map[string][]byte{
		"cosign generate-key-pair": generated,
		"older PEM type":           bytes.ReplaceAll(generated, []byte("ENCRYPTED SIGSTORE"), []byte("ENCRYPTED COSIGN")),
		"ECDSA P-384":              imported(t, ecdsaKey(t, elliptic.P384())),
		"RSA 2048":                 imported(t, rsaKey),
		"Ed25519":                  imported(t, edKey),
	}
}

// hashOf is the hash that cosign verify is told for a key: its own default,
// or with --signature-digest-algorithm.
func hashOf(public crypto.PublicKey) crypto.Hash {
	if key, ok := public.(*ecdsa.PublicKey); ok {
		switch key.Curve {
		case elliptic.P384():
			return crypto.SHA384
		case elliptic.P521():
			return crypto.SHA512
		}
	}
	return crypto.SHA256
}

func judge(t *testing.T, publicPEM, data []byte, d digest.Digest) (trust.Verdict, error) {
	t.Helper()
	policies, err := trust.Compile([]trust.Policy{{
		Name: "p", Repositories: []string{"registry.example/web/*"}, Namespaces: []string{"*"}, Threshold: 1,
		Signers: []trust.Signer{{Name: "s", KeyPEM: publicPEM}}, AllowedKinds: []string{"seccomp"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	repo := reference.Repository{Host: "registry.example", Path: "web/nginx"}
	matched, err := policies.Matching(repo, "web")
	if err != nil {
		t.Fatal(err)
	}
	session := matched.Begin(trust.Subject{Repository: repo, Digest: d, Owner: profile.Owner{Namespace: "web", Name: "x"}}, time.Now())
	if err := session.Offer(t.Context(), trust.Candidate{Form: trust.FormBundle, Payload: data}); err != nil {
		return trust.Verdict{}, err
	}
	return session.Verdict()
}

// What is signed here is accepted by trust and by cosign's own verification.
func TestBundle(t *testing.T) {
	d := digest.FromString("manifest")
	for name, file := range keyFiles(t) {
		t.Run(name, func(t *testing.T) {
			key, err := sign.LoadKey(file, password(secret))
			if err != nil {
				t.Fatal(err)
			}
			data, err := key.Bundle(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := key.Bundle(t.Context(), d); err != nil || !bytes.Equal(again, data) {
				t.Errorf("signing again makes another bundle, which would be one more referrer (%v)", err)
			}
			verdict, err := judge(t, key.PublicPEM(), data, d)
			if err != nil {
				t.Fatal(err)
			}
			want := []trust.Credential{{ID: key.ID(), Signers: []string{"p/s"}, Form: trust.FormBundle}}
			if diff := cmp.Diff(want, verdict.Credentials); diff != "" {
				t.Error(diff)
			}
			if _, err := judge(t, key.PublicPEM(), data, digest.FromString("other")); err == nil {
				t.Error("it is accepted for another digest")
			}
			verifyWithCosign(t, key.PublicPEM(), data, d)
		})
	}
}

func verifyWithCosign(t *testing.T, publicPEM, data []byte, d digest.Digest) {
	t.Helper()
	// As cosign's LoadPublicKeyRaw reads a key file.
	public, err := cryptoutils.UnmarshalPEMToPublicKey(publicPEM)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadVerifier(public, hashOf(public))
	if err != nil {
		t.Fatal(err)
	}
	var read bundle.Bundle
	if err := read.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	co := &cosign.CheckOpts{SigVerifier: verifier, TrustedMaterial: &root.BaseTrustedMaterial{}, IgnoreTlog: true, Offline: true, NewBundleFormat: true}
	if _, err := cosign.VerifyNewBundle(t.Context(), co, verify.WithArtifactDigest("sha256", raw), &read); err != nil {
		t.Errorf("cosign refuses it: %v", err)
	}
}

// The bundle has exactly the parts of one that cosign 3.1.3 makes.
func TestBundleContent(t *testing.T) {
	d := digest.FromString("manifest")
	private, _ := keyPair(t)
	key, err := sign.LoadKey(private, password(secret))
	if err != nil {
		t.Fatal(err)
	}
	data, err := key.Bundle(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		MediaType            string
		VerificationMaterial map[string]map[string]string
		DSSEEnvelope         struct {
			PayloadType string
			Payload     []byte
			Signatures  []map[string]string
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.MediaType != sign.BundleMediaType || got.DSSEEnvelope.PayloadType != "application/vnd.in-toto+json" || len(got.DSSEEnvelope.Signatures) != 1 {
		t.Errorf("got %s", data)
	}
	id, err := hex.DecodeString(strings.TrimPrefix(key.ID(), "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	hint, err := json.Marshal(id) // base64, as cosign's hint
	if err != nil {
		t.Fatal(err)
	}
	wantMaterial := map[string]map[string]string{"publicKey": {"hint": strings.Trim(string(hint), `"`)}}
	if diff := cmp.Diff(wantMaterial, got.VerificationMaterial); diff != "" {
		t.Error(diff)
	}
	wantStatement := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + d.Encoded() +
		`"},"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	if diff := cmp.Diff(wantStatement, string(got.DSSEEnvelope.Payload)); diff != "" {
		t.Error(diff)
	}
	wantAnnotations := map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
	}
	if diff := cmp.Diff(wantAnnotations, sign.ReferrerAnnotations()); diff != "" {
		t.Error(diff)
	}
}

func TestGenerateKeyPair(t *testing.T) {
	for name, pass := range map[string]func() ([]byte, error){"password": password(secret), "none": nil} {
		t.Run(name, func(t *testing.T) {
			private, public, err := sign.GenerateKeyPair(pass)
			if err != nil {
				t.Fatal(err)
			}
			key, err := sign.LoadKey(private, pass)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(public), string(key.PublicPEM())); diff != "" {
				t.Error(diff)
			}
			opened, err := cosign.LoadPrivateKey(private, passOf(t, pass), nil)
			if err != nil {
				t.Fatalf("cosign cannot open it: %v", err)
			}
			if _, err := opened.PublicKey(); err != nil {
				t.Error(err)
			}
		})
	}
	failure := errors.New("no terminal")
	if _, _, err := sign.GenerateKeyPair(func() ([]byte, error) { return nil, failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}

func passOf(t *testing.T, pass func() ([]byte, error)) []byte {
	t.Helper()
	if pass == nil {
		return nil
	}
	b, err := pass()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadKeyRefuses(t *testing.T) {
	private, public := keyPair(t)
	plainDER, err := x509.MarshalPKCS8PrivateKey(ecdsaKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(private)
	damaged := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes[:len(block.Bytes)/2]})
	failure := errors.New("no terminal")
	tests := map[string]struct {
		file     []byte
		password func() ([]byte, error)
		want     error
	}{
		"wrong password":   {private, password("wrong"), sign.ErrPassword},
		"no password":      {private, nil, sign.ErrPassword},
		"password fails":   {private, func() ([]byte, error) { return nil, failure }, failure},
		"empty":            {nil, password(secret), sign.ErrKeyFile},
		"no PEM":           {[]byte("hello"), password(secret), sign.ErrKeyFile},
		"public key":       {public, password(secret), sign.ErrKeyFile},
		"unencrypted":      {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plainDER}), password(secret), sign.ErrKeyFile},
		"two keys":         {append(bytes.Clone(private), private...), password(secret), sign.ErrKeyFile},
		"something behind": {append(bytes.Clone(private), 'x'), password(secret), sign.ErrKeyFile},
		"huge":             {append(bytes.Clone(private), make([]byte, 1<<20)...), password(secret), sign.ErrKeyFile},
		"damaged":          {damaged, password(secret), sign.ErrKeyFile},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			key, err := sign.LoadKey(test.file, test.password)
			if key != nil || !errors.Is(err, test.want) {
				t.Fatalf("got %v, %v; want %v", key, err, test.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), string(test.file)) && len(test.file) > 0 {
				t.Errorf("%q repeats a secret", err)
			}
		})
	}
}

func TestBundleRefuses(t *testing.T) {
	private, _ := keyPair(t)
	key, err := sign.LoadKey(private, password(secret))
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]digest.Digest{"none": "", "sha512": digest.SHA512.FromString("a"), "short": "sha256:00", "capitals": "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if data, err := key.Bundle(t.Context(), d); err == nil {
			t.Errorf("%s: signed %s", name, data)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Bundle(ctx, digest.FromString("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// No way of printing a key shows its private part.
func TestKeyIsNotPrinted(t *testing.T) {
	private := ecdsaKey(t, elliptic.P256()).(*ecdsa.PrivateKey)
	key, err := sign.LoadKey(imported(t, private), password(secret))
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		printed := fmt.Sprintf(verb, key) + fmt.Sprintf(verb, []any{*key})
		for _, hidden := range []string{hex.EncodeToString(scalar), strings.ToUpper(hex.EncodeToString(scalar)), new(big.Int).SetBytes(scalar).String(), "big.Int"} {
			if strings.Contains(printed, hidden) {
				t.Errorf("%s prints %q", verb, printed)
			}
		}
	}
	if data, err := json.Marshal(key); err == nil {
		t.Errorf("JSON: %s", data)
	}
}
