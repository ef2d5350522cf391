package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/cosign/v2/pkg/cosign"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/sign"
	"github.com/confine-dev/confine/pkg/reason"
)

// attack is something that must be refused, and the reason it must be refused for.
type attack struct {
	name, what, ref string
	reason          reason.Reason
}

// prepareAttacks makes one artifact for each attack, with the real tools where
// they would make such a thing, and by hand where they would not.
func (s *stage) prepareAttacks(ctx context.Context) ([]attack, error) {
	if err := os.Mkdir(s.path("stranger"), 0o700); err != nil {
		return nil, err
	}
	if _, err := s.confine(ctx, "keygen", "--output-key-prefix", "stranger/cosign"); err != nil {
		return nil, err
	}
	attacks := []attack{
		{name: "unsigned", what: "no signature", reason: reason.SignatureMissing},
		{name: "tampered", what: "a blob changed after signing", reason: reason.DigestMismatch},
		{name: "moved", what: "another artifact's signature", reason: reason.DigestMismatch},
		{name: "attested", what: "an attestation, not a signature", reason: reason.PredicateMismatch},
		{name: "stranger", what: "signed by an untrusted key", reason: reason.IdentityMismatch},
		{name: "forbidden", what: "signed, but allows ptrace and mount", reason: reason.ProfileForbidden},
	}
	keys := map[string]string{"tampered": "cosign.key", "stranger": "stranger/cosign.key", "forbidden": "cosign.key"}
	for i := range attacks {
		ref, err := s.pushVariant(ctx, attacks[i].name, keys[attacks[i].name])
		if err != nil {
			return nil, err
		}
		attacks[i].ref = ref
	}
	if err := s.tamper(ctx, attacks[1].ref); err != nil {
		return nil, err
	}
	if err := s.moveSignature(ctx, s.refs["nginx:1.0.0"], attacks[2].ref); err != nil {
		return nil, err
	}
	return attacks, s.attest(ctx, attacks[3].ref)
}

// pushVariant pushes a profile that no other artifact has the bytes of.
func (s *stage) pushVariant(ctx context.Context, name, key string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.examples, "profiles", "worker.json"))
	if err != nil {
		return "", err
	}
	extra := `"uname"`
	if name == "forbidden" {
		extra = `"uname", "ptrace", "mount"`
	}
	text := strings.Replace(string(data), `"uname"`, extra, 1) + strings.Repeat("\n", len(name))
	file := s.path("work", name+".json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	args := []string{"push", s.repository(name) + ":1.0.0", file}
	if key != "" {
		args = append(args, "--key", key)
	}
	out, err := s.confine(ctx, args...)
	return lastLine(out), err
}

func (s *stage) fetcher() (*registry.Client, error) { return registry.New(registry.Options{}) }

// tamper makes the registry serve other bytes for the artifact's payload.
func (s *stage) tamper(ctx context.Context, pinned string) error {
	ref, err := reference.ParsePinned(pinned)
	if err != nil {
		return err
	}
	client, err := s.fetcher()
	if err != nil {
		return err
	}
	raw, err := client.Manifest(ctx, ref.Repository, ref.Digest)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return err
	}
	s.registry.tamperWith(manifest.Layers[0].Digest)
	return nil
}

// moveSignature attaches the signature of one artifact to another.
func (s *stage) moveSignature(ctx context.Context, from, to string) error {
	source, err := reference.ParsePinned(from)
	if err != nil {
		return err
	}
	client, err := s.fetcher()
	if err != nil {
		return err
	}
	walk := client.Signatures(ctx, source.Repository, source.Digest, func(digest.Digest) bool { return false })
	candidate, err := walk.Next(ctx)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has no signature to move", from)
	}
	if err != nil {
		return err
	}
	return attach(ctx, client, to, candidate.Payload)
}

// attest attaches a statement by the trusted key itself that is no signature.
func (s *stage) attest(ctx context.Context, to string) error {
	target, err := reference.ParsePinned(to)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(s.path("cosign.key"))
	if err != nil {
		return err
	}
	key, err := cosign.LoadPrivateKey(pem, []byte("demo"), nil)
	if err != nil {
		return err
	}
	payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],`+
		`"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`, target.Digest.Encoded())
	const payloadType = "application/vnd.in-toto+json"
	signature, err := key.SignMessage(strings.NewReader(string(dsse.PAE(payloadType, payload))))
	if err != nil {
		return err
	}
	bundle, err := json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": ""}},
		"dsseEnvelope": map[string]any{
			"payload": base64.StdEncoding.EncodeToString(payload), "payloadType": payloadType,
			"signatures": []any{map[string]any{"sig": base64.StdEncoding.EncodeToString(signature)}},
		},
	})
	if err != nil {
		return err
	}
	client, err := s.fetcher()
	if err != nil {
		return err
	}
	return attach(ctx, client, to, bundle)
}

func attach(ctx context.Context, client artifact.Pusher, to string, bundle []byte) error {
	ref, err := reference.ParsePinned(to)
	if err != nil {
		return err
	}
	fetcher, ok := client.(artifact.Fetcher)
	if !ok {
		return errors.New("the registry client cannot fetch")
	}
	raw, err := fetcher.Manifest(ctx, ref.Repository, ref.Digest)
	if err != nil {
		return err
	}
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: ref.Digest, Size: int64(len(raw))}
	_, err = client.Attach(ctx, ref.Repository, subject, bundle, sign.ReferrerAnnotations())
	return err
}
