package interop_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/reason"
)

// What confine pushes and signs, oras and both lines of cosign read, whoever
// made the key.
func TestOrasAndCosignReadWhatConfineMade(t *testing.T) {
	makers := map[string]string{
		"confine keygen":               confineKey,
		"cosign 2.6 generate-key-pair": cosign2Key,
		"cosign 3.1 generate-key-pair": cosign3Key,
	}
	contents := map[string][]string{
		"KEP-6061": {"nginx.json"},
		"bundle":   {"nginx.aa", "nginx.cil", "nginx.json"},
	}
	for kind, start := range kinds() {
		for maker, pair := range makers {
			for content, files := range contents {
				t.Run(kind+"/"+maker+"/"+content, func(t *testing.T) {
					t.Parallel()
					d, s := newDesk(t), start(t)
					d.example(files...)
					d.keys(pair, "ci")
					ref := d.confinePush(s.repo("web"), "1.0.0", "ci", files...)

					into := d.freshFolder()
					d.run("oras", "pull", "--output", into, s.repo("web")+":1.0.0")
					d.holds(into, files...)
					for _, line := range []string{cosign2, cosign3} {
						d.succeeded(d.tryCosignVerify(line, "ci", ref), line, []string{"verify", ref})
					}
					d.keys(strangerKey, "other")
					for _, line := range []string{cosign2, cosign3} {
						if got := d.tryCosignVerify(line, "other", ref); got.code == 0 {
							t.Errorf("%s accepts it under another key", line)
						}
					}
					d.listsOneSignature(ref)
				})
			}
		}
	}
}

// bundleType is the media type of a sigstore bundle.
const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// listsOneSignature holds that the tools that show what is attached show the
// one signature of ref, just as they show one that cosign 3.1 made.
func (d *desk) listsOneSignature(ref string) {
	d.t.Helper()
	type listed struct {
		Referrers []struct{ ArtifactType, Digest string }
	}
	var ours, theirs listed
	d.decode(&ours, d.run("oras", "discover", "--format", "json", ref))
	if len(ours.Referrers) != 1 {
		d.t.Fatalf("oras discover finds %+v, want one referrer", ours)
	}
	byCosign := d.orasPushProfile(repoOf(ref), "by-cosign", d.example("worker.json")[0])
	d.sign(signings(d.t)["cosign 3.1"], "ci", byCosign)
	d.decode(&theirs, d.run("oras", "discover", "--format", "json", byCosign))
	// go-containerregistry's registry calls both by the config's media type.
	if got, want := ours.Referrers[0].ArtifactType, theirs.Referrers[0].ArtifactType; got != want {
		d.t.Errorf("the signature is listed as %s, cosign's own as %s", got, want)
	}
	var manifest struct{ ArtifactType string }
	d.decode(&manifest, d.run("oras", "manifest", "fetch", repoOf(ref)+"@"+ours.Referrers[0].Digest))
	if manifest.ArtifactType != bundleType {
		d.t.Errorf("the signature's artifact type is %s, want %s", manifest.ArtifactType, bundleType)
	}
	tree := d.run(cosign3, "tree", ref)
	if !strings.Contains(tree, "https://sigstore.dev/cosign/sign/v1") || !strings.Contains(tree, ours.Referrers[0].Digest) {
		d.t.Errorf("cosign tree does not list the signature:\n%s", tree)
	}
}

// importedKey is a kind of key, and what cosign itself does with it. A row
// changes when cosign does: the tests below fail then, and docs/trust.md,
// "Signing with cosign", changes with them.
type importedKey struct {
	generate func() (crypto.PrivateKey, error)
	// cosign3CannotSign: it signs Ed25519 pre-hashed, checks its own signature
	// as a plain one, and gives up.
	cosign3CannotSign bool
	// cosignCannotVerify: it signs with the hash that goes with the curve, as
	// confine does, and verifies with SHA-256 whatever the curve.
	cosignCannotVerify bool
}

func importedKeys() map[string]importedKey {
	ec := func(curve elliptic.Curve) func() (crypto.PrivateKey, error) {
		return func() (crypto.PrivateKey, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
	}
	return map[string]importedKey{
		"RSA 2048":    {generate: func() (crypto.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
		"RSA 3072":    {generate: func() (crypto.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
		"ECDSA P-256": {generate: ec(elliptic.P256())},
		"ECDSA P-384": {generate: ec(elliptic.P384()), cosignCannotVerify: true},
		"ECDSA P-521": {generate: ec(elliptic.P521()), cosignCannotVerify: true},
		"Ed25519": {
			generate: func() (crypto.PrivateKey, error) {
				_, key, err := ed25519.GenerateKey(rand.Reader)
				return key, err
			},
			cosign3CannotSign: true,
		},
	}
}

// Confine accepts what either line of cosign signs with an imported key,
// whatever its kind, also where cosign does not accept it itself.
func TestConfineReadsSignaturesByImportedKeys(t *testing.T) {
	for kind, key := range importedKeys() {
		for _, line := range []string{cosign2, cosign3} {
			t.Run(kind+"/"+line, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), startReferrersAPI(t)
				d.importNew(line, "ci", key)
				file := d.example("worker.json")[0]
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
				for way, how := range signings(t) {
					if how.line != line {
						continue
					}
					ref := d.orasPushProfile(s.repo(how.repoName()), "1", file)
					signed := d.trySign(how, "ci", ref)
					if cannot := key.cosign3CannotSign && line == cosign3; (signed.code != 0) != cannot {
						t.Fatalf("%s: exit code %d, but docs/trust.md says otherwise\n%s", way, signed.code, signed.stderr)
					} else if !cannot {
						d.accepts(ref, policy, file)
					}
				}
			})
		}
	}
}

// repoName is a repository's name for each way to sign.
func (s signing) repoName() string { return fmt.Sprintf("web-%d-%s", len(s.flags), s.form) }

func (d *desk) importNew(line, name string, key importedKey) {
	d.t.Helper()
	generated, err := key.generate()
	if err != nil {
		d.t.Fatal(err)
	}
	d.importKey(line, name, generated)
}

// What confine signs with an imported key, confine accepts, and cosign too
// where it accepts its own signatures by such a key.
func TestConfineSignsWithImportedKeys(t *testing.T) {
	for kind, key := range importedKeys() {
		for _, line := range []string{cosign2, cosign3} {
			t.Run(kind+"/"+line, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), startReferrersAPI(t)
				d.importNew(line, "ci", key)
				file := d.example("worker.json")[0]
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
				ref := d.confinePush(s.repo("web"), "1", "ci", file)
				d.accepts(ref, policy, file)
				got := d.tryCosignVerify(line, "ci", ref)
				if refused := got.code != 0; refused != key.cosignCannotVerify {
					t.Errorf("cosign verify: exit code %d\n%s", got.code, got.stderr)
				}
				if !key.cosignCannotVerify {
					return
				}
				// It is cosign's way with such keys, not ours.
				own := d.orasPushProfile(s.repo("own"), "1", file)
				d.sign(signings(t)["cosign 3.1"], "ci", own)
				if got := d.tryCosignVerify(line, "ci", own); got.code == 0 {
					t.Error("cosign verifies its own signature by this key: confine's should be verified too")
				}
			})
		}
	}
}

// Two people, two lines of cosign, two forms: both count, and each once.
func TestTwoSignersWithDifferentCosigns(t *testing.T) {
	for kind, start := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), start(t)
			ways := signings(t)
			d.keys(keyOf(cosign2), "alice")
			d.keys(keyOf(cosign3), "bob")
			file := d.example("nginx.json")[0]
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"alice.pub", "bob.pub"}, threshold: 2})
			ref := d.orasPushProfile(s.repo("web"), "1", file)

			d.sign(ways["cosign 2.6 legacy tag"], "alice", ref)
			d.refuses(reason.ThresholdNotMet, ref, policy)
			d.sign(ways["cosign 3.1"], "alice", ref)
			d.refuses(reason.ThresholdNotMet, ref, policy)
			d.sign(ways["cosign 3.1"], "bob", ref)

			var signers []string
			for _, signature := range d.accepts(ref, policy, file).Signatures {
				signers = append(signers, signature.Signers...)
			}
			slices.Sort(signers)
			if want := []string{"web/alice", "web/bob"}; !slices.Equal(signers, want) {
				t.Errorf("signed by %q, want %q", signers, want)
			}
		})
	}
}

// Confine and cosign sign the same artifact one after the other: without a
// referrers API both write the list of signatures, and neither loses the
// other's entry.
func TestConfineAndCosignSignTheSameArtifact(t *testing.T) {
	orders := map[string][]string{"confine first": {"confine", cosign3}, "cosign first": {cosign3, "confine"}}
	for kind, start := range kinds() {
		for name, order := range orders {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				d, s := newDesk(t), start(t)
				d.keys(confineKey, "confine")
				d.keys(cosign3Key, "cosign3")
				file := d.example("nginx.json")[0]
				policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"confine.pub", "cosign3.pub"}, threshold: 2})
				unsigned := d.run("confine", "push", s.repo("web")+":1", file)
				ref := unsigned[strings.LastIndexByte(unsigned, '\n')+1:]
				for i, signer := range order {
					want := reason.ThresholdNotMet
					if i == 0 {
						want = reason.SignatureMissing
					}
					d.refuses(want, ref, policy)
					if signer == cosign3 {
						d.sign(signings(t)["cosign 3.1"], signer, ref)
					} else if again := d.confinePush(s.repo("web"), "1", signer, file); again != ref {
						t.Fatalf("pushed %s, and then %s", ref, again)
					}
				}
				d.accepts(ref, policy, file)
			})
		}
	}
}

// Where cosign 3.1 answers otherwise than confine. docs/trust.md says both.
func TestWhereCosignAnswersOtherwise(t *testing.T) {
	cases := map[string]struct {
		attach  func(d *desk, ref string)
		cosign  bool // whether cosign 3.1 verifies it
		confine reason.Reason
	}{
		"an attestation": {
			func(d *desk, ref string) { d.attest(signings(d.t)["cosign 3.1"], "ci", ref) }, true, reason.PredicateMismatch,
		},
		"a referrer of cosign 2.6": {
			func(d *desk, ref string) { d.sign(signings(d.t)["cosign 2.6 oci-1-1 referrer"], "ci", ref) }, false, "",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, s := newDesk(t), startReferrersAPI(t)
			d.keys(confineKey, "ci")
			file := d.example("nginx.json")[0]
			policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})
			ref := d.orasPushProfile(s.repo("web"), "1", file)
			c.attach(d, ref)
			if got := d.tryCosignVerify(cosign3, "ci", ref); (got.code == 0) != c.cosign {
				t.Errorf("cosign verify: exit code %d\n%s", got.code, got.stderr)
			}
			if c.confine == "" {
				d.accepts(ref, policy, file)
				return
			}
			d.refuses(c.confine, ref, policy)
		})
	}
}
